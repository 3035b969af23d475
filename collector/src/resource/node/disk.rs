//! `/proc/diskstats`: what each disk reads and writes (`Documentation/admin-guide/iostats.rst`).
//!
//! Refuses: partitions, loop and memory devices, as node_exporter does by default, and what udev knows of a disk.

use anyhow::Result;
use procfs::{DiskStat, DiskStats, FromBufRead};

use super::Reading;
use super::family::{node, point};
use crate::telemetry::{Metric, MetricKind, Point, Text};

/// The most disks; those beyond are cut.
const DISKS_MAX: usize = 256;
/// A sector of `/proc/diskstats`, bytes; whatever the disk's own is.
const SECTOR_BYTES: f64 = 512.0;
const S_PER_MS: f64 = 1e-3;
/// How many counters a disk has since Linux 5.5; before 4.18 the last six are missing, before 5.5 the last two.
const COUNTERS: usize = 16;

/// node_exporter's counters in the order of the file: name, unit, scale, description.
const NODE: [(&str, &str, f64, &str); COUNTERS] = [
    ("node_disk_reads_completed_total", "", 1.0, "The total number of reads completed successfully."),
    ("node_disk_reads_merged_total", "", 1.0, "The total number of reads merged."),
    ("node_disk_read_bytes_total", "By", SECTOR_BYTES, "The total number of bytes read successfully."),
    ("node_disk_read_time_seconds_total", "s", S_PER_MS, "The total number of seconds spent by all reads."),
    ("node_disk_writes_completed_total", "", 1.0, "The total number of writes completed successfully."),
    ("node_disk_writes_merged_total", "", 1.0, "The number of writes merged."),
    ("node_disk_written_bytes_total", "By", SECTOR_BYTES, "The total number of bytes written successfully."),
    (
        "node_disk_write_time_seconds_total",
        "s",
        S_PER_MS,
        "This is the total number of seconds spent by all writes.",
    ),
    ("node_disk_io_time_seconds_total", "s", S_PER_MS, "Total seconds spent doing I/Os."),
    (
        "node_disk_io_time_weighted_seconds_total",
        "s",
        S_PER_MS,
        "The weighted # of seconds spent doing I/Os.",
    ),
    ("node_disk_discards_completed_total", "", 1.0, "The total number of discards completed successfully."),
    ("node_disk_discards_merged_total", "", 1.0, "The total number of discards merged."),
    ("node_disk_discarded_sectors_total", "", 1.0, "The total number of sectors discarded successfully."),
    (
        "node_disk_discard_time_seconds_total",
        "s",
        S_PER_MS,
        "This is the total number of seconds spent by all discards.",
    ),
    ("node_disk_flush_requests_total", "", 1.0, "The total number of flush requests completed successfully"),
    (
        "node_disk_flush_requests_time_seconds_total",
        "s",
        S_PER_MS,
        "This is the total number of seconds spent by all flush requests.",
    ),
];

/// The conventions' counters: name, unit, scale, description, and the fields read and written.
const OWN: [(&str, &str, f64, &str, [usize; 2]); 4] = [
    ("system.disk.io", "By", SECTOR_BYTES, "Disk bytes transferred.", [2, 6]),
    ("system.disk.operations", "{operation}", 1.0, "Disk operations.", [0, 4]),
    ("system.disk.operation_time", "s", S_PER_MS, "Sum of the time each operation took to complete.", [3, 7]),
    ("system.disk.merged", "{operation}", 1.0, "Operations merged into one of the disk.", [1, 5]),
];
/// Field of the time a disk was busy.
const IO_TIME: usize = 8;

/// A disk with its counters, how many of them there are, and when they began.
struct Disk {
    name: String,
    counters: [u64; COUNTERS],
    count: usize,
    start: u64,
    stat: DiskStat,
}

/// The counters of all disks.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/diskstats")?;
    let mut stats = DiskStats::from_buf_read(text.as_bytes())?.0;
    stats.retain(|disk| !is_left_out(&disk.name));
    *reading.cut += stats.len().saturating_sub(DISKS_MAX) as u64;
    let disks: Vec<Disk> = stats.into_iter().take(DISKS_MAX).map(|stat| disk(stat, reading)).collect();

    let mut metrics = by_node(&disks);
    metrics.extend(OWN.iter().map(|(name, unit, scale, description, fields)| {
        let metric = Metric::new(MetricKind::Counter, *name, *unit, *description);
        let series = disks.iter().flat_map(|disk| {
            ["read", "write"].into_iter().zip(fields).map(|(direction, field)| {
                let attributes = [
                    ("system.device", Text::from(disk.name.clone())),
                    ("disk.io.direction", Text::from(direction)),
                ];
                point(disk.start, attributes, disk.counters[*field] as f64 * scale)
            })
        });
        metric.with(series.collect())
    }));
    let busy = Metric::new(MetricKind::Counter, "system.disk.io_time", "s", "Time disk spent activated.");
    metrics.push(busy.with(series(&disks, "system.device", |disk| {
        Some((disk.start, disk.counters[IO_TIME] as f64 * S_PER_MS))
    })));
    metrics.retain(|metric| !metric.points.is_empty());
    Ok(metrics)
}

/// `^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`, the default of node_exporter's `device-exclude`.
fn is_left_out(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    let is_disk = || {
        let letter = ["hd", "sd", "vd", "xvd"].iter().find_map(|kind| stem.strip_prefix(kind));
        letter.is_some_and(|letter| letter.len() == 1 && letter.as_bytes()[0].is_ascii_lowercase())
    };
    let is_nvme = || {
        let parts = stem.strip_prefix("nvme").and_then(|rest| rest.strip_suffix('p')?.split_once('n'));
        parts.is_some_and(|(controller, namespace)| digits(controller) && digits(namespace))
    };
    matches!(stem, "ram" | "zram" | "loop" | "fd") || is_disk() || is_nvme()
}

fn disk(stat: DiskStat, reading: &mut Reading<'_>) -> Disk {
    let discards = [stat.discards, stat.discards_merged, stat.sectors_discarded, stat.time_discarding];
    let [d0, d1, d2, d3] = discards.map(Option::unwrap_or_default);
    let mut counters = [
        stat.reads,
        stat.merged,
        stat.sectors_read,
        stat.time_reading,
        stat.writes,
        stat.writes_merged,
        stat.sectors_written,
        stat.time_writing,
        stat.time_in_progress,
        stat.weighted_time_in_progress,
        d0,
        d1,
        d2,
        d3,
        stat.flushes.unwrap_or_default(),
        stat.time_flushing.unwrap_or_default(),
    ];
    let count = match (stat.time_discarding, stat.time_flushing) {
        (None, _) => COUNTERS - 6,
        (_, None) => COUNTERS - 2,
        _ => COUNTERS,
    };
    let start = reading.starts.of("disk", &stat.name, &mut counters, 0);
    Disk { name: stat.name.clone(), counters, count, start, stat }
}

fn by_node(disks: &[Disk]) -> Vec<Metric> {
    let counters = NODE.iter().enumerate().map(|(field, (name, unit, scale, description))| {
        let value =
            |disk: &Disk| (field < disk.count).then(|| (disk.start, disk.counters[field] as f64 * scale));
        node(MetricKind::Counter, *name, unit, *description).with(series(disks, "device", value))
    });
    let mut metrics: Vec<Metric> = counters.collect();
    let now = node(MetricKind::Gauge, "node_disk_io_now", "", "The number of I/Os currently in progress.");
    metrics.push(now.with(series(disks, "device", |disk| Some((0, disk.stat.in_progress as f64)))));
    let info = node(MetricKind::Gauge, "node_disk_info", "", "Info of /sys/block/<block_device>.");
    let points = disks.iter().map(|disk| {
        let labels = [
            ("device", Text::from(disk.name.clone())),
            ("major", Text::from(disk.stat.major.to_string())),
            ("minor", Text::from(disk.stat.minor.to_string())),
        ];
        point(0, labels, 1.0)
    });
    metrics.push(info.with(points.collect()));
    metrics
}

/// One series for each disk that has the value (start and value).
fn series(
    disks: &[Disk],
    attribute: &'static str,
    value: impl Fn(&Disk) -> Option<(u64, f64)>,
) -> Vec<Point> {
    let of = |disk: &Disk| {
        let (start, value) = value(disk)?;
        Some(point(start, [(attribute, Text::from(disk.name.clone()))], value))
    };
    disks.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_out() {
        let out = ["ram0", "zram1", "loop12", "fd0", "sda1", "hdb2", "vda15", "xvda1", "nvme0n1p1"];
        let kept = [
            "sda",
            "sdaa1",
            "vda",
            "nvme0n1",
            "dm-0",
            "md127",
            "mmcblk0p1",
            "sr0",
            "nvmen1p1",
            "ram",
            "sd1",
            "",
        ];
        for (names, expected) in [(&out[..], true), (&kept[..], false)] {
            for name in names {
                assert_eq!(is_left_out(name), expected, "{name}");
            }
        }
    }
}
