//! I/O by file, where it is asked for: the busiest files of each owner.
//!
//! Refuses: all files. Those beyond the busiest are in the sums by operation, not here.

use std::collections::HashMap;

use collector_common::io::{FileCounts, FileKey};
use collector_common::limits::FILES_MAX;

use crate::kernel::IoMaps;
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text};

/// Files of one owner that are exported: the busiest by bytes, and the busiest by time.
const FILES_SHOWN: usize = 10;

/// From how full the kernel's map is on, files that rest are freed: three quarters.
const FILES_CROWDED: usize = FILES_MAX as usize / 4 * 3;

/// What the files were when they were read before.
pub struct Files {
    known: HashMap<FileKey, Known>,
    read_unix_ns: u64,
    start_unix_ns: u64,
}

struct Known {
    counts: FileCounts,
    start_unix_ns: u64,
}

/// A file that did something since the last reading.
struct Busy {
    path: String,
    counts: FileCounts,
    start_unix_ns: u64,
    bytes: u64,
    time_ns: u64,
}

impl Files {
    /// No files yet; counting began at `start_unix_ns`.
    pub fn new(start_unix_ns: u64) -> Self {
        Self { known: HashMap::new(), read_unix_ns: start_unix_ns, start_unix_ns }
    }

    /// The busiest files since the last reading, with all their counts since they were first seen.
    pub fn collect(
        &mut self,
        maps: &mut IoMaps,
        now_unix_ns: u64,
        owner_of: impl Fn(u64) -> Option<Owner>,
    ) -> Vec<Metric> {
        let files = maps.files();
        let is_crowded = files.len() >= FILES_CROWDED;
        let mut by_owner: HashMap<Owner, Vec<Busy>> = HashMap::new();
        for (key, counts) in files {
            let known = self.known.get(&key);
            let start_unix_ns = known.map_or(self.read_unix_ns, |known| known.start_unix_ns);
            let before = known.map(|known| known.counts);
            let grown = |field: fn(&FileCounts) -> [u64; 2]| {
                let before: u64 = before.as_ref().map_or(0, |before| field(before).iter().sum());
                field(&counts).iter().sum::<u64>().saturating_sub(before)
            };
            let (bytes, time_ns) = (grown(|counts| counts.bytes), grown(|counts| counts.time_ns));
            if bytes == 0 && time_ns == 0 && is_crowded {
                maps.forget_file(&key);
                self.known.remove(&key);
                continue;
            }
            self.known.insert(key, Known { counts, start_unix_ns });
            if let Some(owner) = owner_of(key.cgroup_id) {
                let path = path(&counts);
                by_owner.entry(owner).or_default().push(Busy { path, counts, start_unix_ns, bytes, time_ns });
            }
        }
        self.read_unix_ns = now_unix_ns;
        metrics(by_owner, maps.files_lost(), self.start_unix_ns)
    }
}

/// The path of a file: up to the root of its mount, or its end behind an ellipsis.
fn path(counts: &FileCounts) -> String {
    let names = (counts.path_names as usize).min(counts.path.len());
    super::slow::path_of(&counts.path[..names], counts.is_path_whole == 1)
}

fn metrics(by_owner: HashMap<Owner, Vec<Busy>>, lost: u64, start_unix_ns: u64) -> Vec<Metric> {
    let counter = |name: &'static str, unit: &'static str, description: &'static str| {
        Metric::new(MetricKind::Counter, name, unit, description)
    };
    let mut bytes = counter("file.io.bytes", "By", "Bytes of reads and writes of the busiest files.");
    let mut operations =
        counter("file.io.operations", "{operation}", "Reads and writes of the busiest files.");
    let mut time = counter("file.io.time", "s", "Time in reads and writes of the busiest files.");
    for (owner, files) in by_owner {
        for file in busiest(files) {
            for (index, direction) in ["read", "write"].into_iter().enumerate() {
                if file.counts.operations[index] == 0 {
                    continue;
                }
                let point = |value: f64| {
                    let attributes: Vec<(Text, Text)> = vec![
                        ("file.path".into(), file.path.clone().into()),
                        ("disk.io.direction".into(), direction.into()),
                    ];
                    Point::number(owner.clone(), attributes, file.start_unix_ns, value)
                };
                bytes.add(point(file.counts.bytes[index] as f64));
                operations.add(point(file.counts.operations[index] as f64));
                time.add(point(file.counts.time_ns[index] as f64 / 1e9));
            }
        }
    }
    let lost = Point::number(Owner::Agent, Vec::new(), start_unix_ns, lost as f64);
    let lost_files =
        counter("kansoku.io.files.lost", "{operation}", "Operations on files that found no room.")
            .with(vec![lost]);
    vec![bytes, operations, time, lost_files]
}

/// The busiest by bytes and the busiest by time; of several files under one path (one was replaced) the busier one.
fn busiest(mut files: Vec<Busy>) -> Vec<Busy> {
    files.sort_by_key(|file| std::cmp::Reverse((file.bytes, file.time_ns)));
    let mut paths = std::collections::HashSet::new();
    files.retain(|file| paths.insert(file.path.clone()));
    let mut by_time: Vec<Busy> =
        if files.len() > FILES_SHOWN { files.split_off(FILES_SHOWN) } else { Vec::new() };
    by_time.sort_by_key(|file| std::cmp::Reverse(file.time_ns));
    by_time.truncate(FILES_SHOWN);
    files.extend(by_time);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(path: &str, bytes: u64, time_ns: u64) -> Busy {
        let counts = FileCounts {
            bytes: [bytes, 0],
            operations: [1, 0],
            time_ns: [time_ns, 0],
            path_names: 0,
            is_path_whole: 1,
            path: [[0; 64]; 12],
        };
        Busy { path: path.to_owned(), counts, start_unix_ns: 0, bytes, time_ns }
    }

    #[test]
    fn the_busiest_by_bytes_and_by_time() {
        let mut files: Vec<Busy> = (0..40).map(|number| busy(&format!("/f{number}"), number, 0)).collect();
        files.push(busy("/slow", 0, 9));
        files.push(busy("/f39", 1, 0));
        let shown: Vec<String> = busiest(files).into_iter().map(|file| file.path).collect();
        assert_eq!(shown.len(), 2 * FILES_SHOWN);
        assert_eq!((shown[0].as_str(), shown[FILES_SHOWN].as_str()), ("/f39", "/slow"));
    }
}
