//! How full the filesystems of the host are (statvfs(3)).
//!
//! Refuses: filesystems that another machine or program answers for ([`super::mounts`]): a call that never returns
//! would stop the agent. They have no series at all, not even one of an error.

use anyhow::Result;
use rustix::fs::StatVfs;

use super::Reading;
use super::family::{node, point};
use super::mounts::{self, Mount};
use crate::telemetry::{Metric, MetricKind, Point, Text};

/// The most mounts; those beyond are cut.
const MOUNTS_MAX: usize = 512;

/// Reads a size, a count or a flag of a filesystem.
type Field = fn(&Filesystem) -> f64;

/// node_exporter's gauges: name, unit, description, value.
const NODE: [(&str, &str, &str, Field); 6] = [
    ("node_filesystem_size_bytes", "By", "Filesystem size in bytes.", |of| of.bytes(of.stat.f_blocks)),
    ("node_filesystem_free_bytes", "By", "Filesystem free space in bytes.", |of| of.bytes(of.stat.f_bfree)),
    ("node_filesystem_avail_bytes", "By", "Filesystem space available to non-root users in bytes.", |of| {
        of.bytes(of.stat.f_bavail)
    }),
    ("node_filesystem_files", "", "Filesystem total file nodes.", |of| of.stat.f_files as f64),
    ("node_filesystem_files_free", "", "Filesystem total free file nodes.", |of| of.stat.f_ffree as f64),
    ("node_filesystem_readonly", "", "Filesystem read-only status.", |of| {
        f64::from(u8::from(of.mount.is_read_only))
    }),
];

/// A filesystem that answered.
struct Filesystem {
    mount: Mount,
    stat: StatVfs,
}

impl Filesystem {
    fn bytes(&self, blocks: u64) -> f64 {
        blocks as f64 * self.stat.f_frsize as f64
    }

    /// The conventions' states; together they are the size.
    fn states(&self) -> [(&'static str, f64); 3] {
        let (all, free, available) = (self.stat.f_blocks, self.stat.f_bfree, self.stat.f_bavail);
        [
            ("used", self.bytes(all.saturating_sub(free))),
            ("free", self.bytes(available.min(free))),
            ("reserved", self.bytes(free.saturating_sub(available))),
        ]
    }
}

/// The sizes of all local filesystems.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let mut mounts = mounts::local(reading.root)?;
    *reading.cut += mounts.len().saturating_sub(MOUNTS_MAX) as u64;
    mounts.truncate(MOUNTS_MAX);
    let description = "Whether an error occurred while getting statistics for the given device.";
    let mut errors = node(MetricKind::Gauge, "node_filesystem_device_error", "", description);
    let mut filesystems = Vec::with_capacity(mounts.len());
    for mount in mounts {
        match rustix::fs::statvfs(reading.root.path(&mount.mountpoint)) {
            Ok(stat) => {
                errors.add(point(0, labels(&mount), 0.0));
                filesystems.push(Filesystem { mount, stat });
            }
            Err(error) => {
                let [device, kind, place] = labels(&mount);
                errors.add(point(0, [device, ("device_error", error.to_string().into()), kind, place], 1.0));
            }
        }
    }
    let mut metrics = vec![errors];
    metrics.extend(NODE.iter().map(|(name, unit, description, value)| {
        let series = filesystems.iter().map(|of| point(0, labels(&of.mount), value(of)));
        node(MetricKind::Gauge, *name, unit, *description).with(series.collect())
    }));
    metrics.push(places(&filesystems));
    metrics.extend(by_convention(&filesystems, reading.starts.boot()));
    metrics.retain(|metric| !metric.points.is_empty());
    Ok(metrics)
}

fn labels(mount: &Mount) -> [(&'static str, Text); 3] {
    [
        ("device", mount.source.clone().into()),
        ("fstype", mount.kind.clone().into()),
        ("mountpoint", mount.mountpoint.clone().into()),
    ]
}

/// node_exporter's join between a mount and a disk.
fn places(filesystems: &[Filesystem]) -> Metric {
    let series = filesystems.iter().filter_map(|of| {
        let (major, minor) = of.mount.device_number.split_once(':')?;
        let labels = [
            ("device", Text::from(of.mount.source.clone())),
            ("major", major.to_owned().into()),
            ("minor", minor.to_owned().into()),
            ("mountpoint", of.mount.mountpoint.clone().into()),
        ];
        Some(point(0, labels, 1.0))
    });
    let series: Vec<Point> = series.collect();
    node(MetricKind::Gauge, "node_filesystem_mount_info", "", "Filesystem mount information.").with(series)
}

fn by_convention(filesystems: &[Filesystem], start: u64) -> [Metric; 3] {
    let sum = |name: &'static str, description: &'static str| {
        Metric::new(MetricKind::UpDownCounter, name, "By", description)
    };
    let mut usage = sum("system.filesystem.usage", "Space of a filesystem by state.");
    let mut limit = sum("system.filesystem.limit", "Size of a filesystem.");
    let mut share = Metric::new(
        MetricKind::Gauge,
        "system.filesystem.utilization",
        "1",
        "Fraction of a filesystem by state.",
    );
    for of in filesystems {
        let [device, mode, place, kind] = attributes(&of.mount);
        let size = of.bytes(of.stat.f_blocks);
        limit.add(point(start, [device.clone(), mode.clone(), place.clone(), kind.clone()], size));
        for (state, bytes) in of.states() {
            let state = ("system.filesystem.state", Text::from(state));
            let attributes = [device.clone(), mode.clone(), place.clone(), state, kind.clone()];
            if size > 0.0 {
                share.add(point(0, attributes.clone(), bytes / size));
            }
            usage.add(point(start, attributes, bytes));
        }
    }
    [usage, limit, share]
}

fn attributes(mount: &Mount) -> [(&'static str, Text); 4] {
    let mode = if mount.is_read_only { "ro" } else { "rw" };
    [
        ("system.device", mount.source.clone().into()),
        ("system.filesystem.mode", mode.into()),
        ("system.filesystem.mountpoint", mount.mountpoint.clone().into()),
        ("system.filesystem.type", mount.kind.clone().into()),
    ]
}
