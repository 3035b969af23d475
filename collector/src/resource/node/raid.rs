//! Software RAID: the state, disks and progress of each array, under node_exporter's names, for its alerts on degraded arrays.
//!
//! Read from sysfs (Documentation/admin-guide/md.rst), which says each number in a file of its own, where `/proc/mdstat` is
//! made for eyes. Refuses: what a controller does in hardware.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::Reading;
use super::family::{node, point};
use super::root::Root;
use crate::telemetry::{Metric, MetricKind, Point, Text};

/// Arrays that are told of; more are counted as cut.
const ARRAYS_MAX: usize = 128;

/// Disks of an array that are looked at, as many as an array may have.
const DISKS_MAX: usize = 512;

/// Sectors of 512 bytes in one of the blocks that node_exporter counts.
const SECTORS_PER_BLOCK: f64 = 2.0;

/// States in node_exporter's words; an array is in one at a time.
const STATES: [&str; 5] = ["active", "inactive", "recovering", "resync", "check"];

const DISK_STATES: [&str; 3] = ["active", "failed", "spare"];

/// An array as it is now.
struct Array {
    name: String,
    state: &'static str,
    required: Option<i64>,
    /// By [`DISK_STATES`].
    disks: [u64; 3],
    blocks: Option<f64>,
    synced_blocks: Option<f64>,
}

/// All arrays; none is no error.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let mut names: Vec<String> = directories(&reading.root.path("sys/block"), "md").collect();
    names.sort_unstable();
    *reading.cut += names.len().saturating_sub(ARRAYS_MAX) as u64;
    let arrays = names.into_iter().take(ARRAYS_MAX).filter_map(|name| Array::read(reading.root, name));
    let arrays: Vec<Array> = arrays.collect();
    let numbers = |value: fn(&Array) -> Option<f64>| {
        let series = |array: &Array| Some(point(0, [array.device()], value(array)?));
        arrays.iter().filter_map(series).collect::<Vec<Point>>()
    };
    let gauge = |name: &'static str, description: &'static str, points: Vec<Point>| {
        node(MetricKind::Gauge, name, "", description).with(points)
    };
    let states = arrays.iter().flat_map(|array| {
        STATES.map(|state| array.of_state(state, f64::from(u8::from(array.state == state))))
    });
    let disks = arrays.iter().flat_map(|array| {
        let counts = DISK_STATES.into_iter().zip(array.disks);
        counts.map(|(state, count)| array.of_state(state, count as f64))
    });
    let mut metrics = vec![
        gauge("node_md_state", "Indicates the state of md-device.", states.collect()),
        gauge("node_md_disks", "Number of active/failed/spare disks of device.", disks.collect()),
        gauge(
            "node_md_disks_required",
            "Total number of disks of device.",
            numbers(|array| array.required.map(|count| count as f64)),
        ),
        gauge("node_md_blocks", "Total number of blocks on device.", numbers(|array| array.blocks)),
        gauge(
            "node_md_blocks_synced",
            "Number of blocks synced on device.",
            numbers(|array| array.synced_blocks),
        ),
    ];
    metrics.retain(|metric| !metric.points.is_empty());
    Ok(metrics)
}

impl Array {
    /// `None` for what is no array, or went meanwhile.
    fn read(root: &Root, name: String) -> Option<Self> {
        let at = |file: &str| format!("sys/block/{name}/md/{file}");
        let text = |file: &str| root.read(at(file)).ok().map(|text| text.trim().to_owned());
        let state = text("array_state")?;
        let action = text("sync_action").unwrap_or_default();
        let mut disks = [0; 3];
        for disk in directories(&root.path(at("")), "dev-").take(DISKS_MAX) {
            let state = text(&format!("{disk}/state")).unwrap_or_default();
            // One that takes another's place is none of them until it has all.
            let is_waiting = text(&format!("{disk}/slot")).is_none_or(|slot| slot == "none");
            let has = |word: &str| state.split(',').any(|known| known == word);
            let kind = [has("in_sync"), has("faulty"), has("spare") && is_waiting];
            for (count, is_one) in disks.iter_mut().zip(kind) {
                *count += u64::from(is_one);
            }
        }
        let blocks =
            root.number(format!("sys/block/{name}/size")).map(|sectors| sectors as f64 / SECTORS_PER_BLOCK);
        let done = text("sync_completed").and_then(|text| text.split_once('/')?.0.trim().parse::<f64>().ok());
        let synced_blocks = done.map(|sectors| sectors / SECTORS_PER_BLOCK).or(blocks);
        let required = root.number(at("raid_disks"));
        Some(Self { state: state_of(&state, &action), required, disks, blocks, synced_blocks, name })
    }

    fn device(&self) -> (&'static str, Text) {
        ("device", Text::from(self.name.clone()))
    }

    fn of_state(&self, state: &'static str, value: f64) -> Point {
        point(0, [self.device(), ("state", Text::from(state))], value)
    }
}

/// node_exporter's word for what an array is and does.
fn state_of(array: &str, action: &str) -> &'static str {
    match (array, action) {
        ("clear" | "inactive" | "broken", _) => "inactive",
        (_, "recover") => "recovering",
        (_, "resync" | "repair") => "resync",
        (_, "check") => "check",
        _ => "active",
    }
}

/// Names of what begins so in a directory; none if it is not there.
fn directories(path: &Path, prefix: &'static str) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(move |name| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::node::starts::Starts;
    use crate::telemetry::Value;

    /// A mirror of two: one disk failed, a spare takes its place, another waits.
    const DEGRADED: &[(&str, &str)] = &[
        ("md0/size", "2048\n"),
        ("md0/md/array_state", "clean\n"),
        ("md0/md/sync_action", "recover\n"),
        ("md0/md/sync_completed", "400 / 2048\n"),
        ("md0/md/raid_disks", "2\n"),
        ("md0/md/dev-sda/state", "in_sync\n"),
        ("md0/md/dev-sda/slot", "0\n"),
        ("md0/md/dev-sdb/state", "faulty,write_error\n"),
        ("md0/md/dev-sdb/slot", "none\n"),
        ("md0/md/dev-sdc/state", "spare\n"),
        ("md0/md/dev-sdc/slot", "1\n"),
        ("md0/md/dev-sdd/state", "spare\n"),
        ("md0/md/dev-sdd/slot", "none\n"),
    ];

    /// Expects `metric state value` of each series whose value is not 0.
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let folder = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = folder.path().join("sys/block").join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("writable");
            fs::write(path, text).expect("writable");
        }
        let root = Root::new(folder.path().to_path_buf());
        let (mut starts, mut cut) = (Starts::default(), 0);
        let mut reading = Reading { root: &root, now_unix_ns: 0, starts: &mut starts, cut: &mut cut };
        let found: Vec<String> = metrics(&mut reading)
            .expect("never an error")
            .iter()
            .flat_map(|metric| {
                metric.points.iter().map(|point| (metric.name.trim_start_matches("node_md_"), point))
            })
            .filter_map(|(name, point)| {
                let labels: Vec<&str> = point.attributes.iter().map(|(_, value)| value.as_ref()).collect();
                let Value::Number(value) = point.value else { panic!("{point:?}") };
                (value != 0.0).then(|| format!("{name} {} {value}", labels.join(" ")))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn arrays() {
        check(&[("sda/size", "9\n")], &[]);
        // Named like an array, and none.
        check(&[("mdx/size", "9\n")], &[]);
        check(
            DEGRADED,
            &[
                "state md0 recovering 1",
                "disks md0 active 1",
                "disks md0 failed 1",
                "disks md0 spare 1",
                "disks_required md0 2",
                "blocks md0 1024",
                "blocks_synced md0 200",
            ],
        );
        let stopped =
            [("md7/md/array_state", "inactive\n"), ("md7/md/raid_disks", "garbage\n"), ("md7/size", "0\n")];
        check(&stopped, &["state md7 inactive 1"]);
    }

    #[test]
    fn states() {
        let check =
            |array, action, expected| assert_eq!(state_of(array, action), expected, "{array} {action}");
        check("clean", "idle", "active");
        check("read-auto", "", "active");
        check("active", "check", "check");
        check("active", "resync", "resync");
        check("broken", "recover", "inactive");
    }
}
