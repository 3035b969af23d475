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

/// Paths that are remembered. Above it those that rest are forgotten.
const PATHS_MAX: usize = 2 * FILES_MAX as usize;

/// What was counted by path: several files may have had it, one after the other or in several cgroups of one owner.
pub struct Files {
    paths: HashMap<(Owner, String), Path>,
    read: HashMap<FileKey, FileCounts>,
    read_unix_ns: u64,
    start_unix_ns: u64,
}

/// What was done to the files of a path.
#[derive(Clone, Debug, Default)]
struct Path {
    start_unix_ns: u64,
    /// Of reads and writes each.
    bytes: [u64; 2],
    operations: [u64; 2],
    time_ns: [u64; 2],
    /// Since the last reading.
    recent_bytes: u64,
    recent_time_ns: u64,
}

impl Files {
    /// No files yet; counting began at `start_unix_ns`.
    pub fn new(start_unix_ns: u64) -> Self {
        Self { paths: HashMap::new(), read: HashMap::new(), read_unix_ns: start_unix_ns, start_unix_ns }
    }

    /// The busiest paths since the last reading, with all their counts since they were first seen. Files whose owner is not
    /// known yet wait.
    pub fn collect(
        &mut self,
        maps: &mut IoMaps,
        now_unix_ns: u64,
        mut owner_of: impl FnMut(u64) -> Option<Owner>,
    ) -> Vec<Metric> {
        let files = maps.files();
        let is_crowded = files.len() >= FILES_CROWDED;
        for path in self.paths.values_mut() {
            (path.recent_bytes, path.recent_time_ns) = (0, 0);
        }
        for (key, counts) in files {
            let before = self.read.get(&key).copied();
            if is_crowded && before.is_some_and(|before| before == counts) {
                maps.forget_file(&key);
                self.read.remove(&key);
            } else if let Some(owner) = owner_of(key.cgroup_id) {
                self.read.insert(key, counts);
                self.add((owner, path(&counts)), &counts, before.as_ref());
            }
        }
        self.read_unix_ns = now_unix_ns;
        if self.paths.len() > PATHS_MAX {
            self.paths.retain(|_, path| path.recent_bytes > 0 || path.recent_time_ns > 0);
        }
        metrics(&self.paths, maps.files_lost(), self.start_unix_ns)
    }

    /// Adds what a file did since it was read before.
    fn add(&mut self, key: (Owner, String), counts: &FileCounts, before: Option<&FileCounts>) {
        let start_unix_ns = self.read_unix_ns;
        let path = self.paths.entry(key).or_insert_with(|| Path { start_unix_ns, ..Path::default() });
        let grown = |now: [u64; 2], before: Option<[u64; 2]>| {
            let before = before.unwrap_or_default();
            [now[0].saturating_sub(before[0]), now[1].saturating_sub(before[1])]
        };
        let bytes = grown(counts.bytes, before.map(|before| before.bytes));
        let operations = grown(counts.operations, before.map(|before| before.operations));
        let time_ns = grown(counts.time_ns, before.map(|before| before.time_ns));
        for direction in 0..2 {
            path.bytes[direction] += bytes[direction];
            path.operations[direction] += operations[direction];
            path.time_ns[direction] += time_ns[direction];
        }
        path.recent_bytes += bytes[0] + bytes[1];
        path.recent_time_ns += time_ns[0] + time_ns[1];
    }
}

/// The path of a file: up to the root of its mount, or its end behind an ellipsis.
fn path(counts: &FileCounts) -> String {
    let names = (counts.path_names as usize).min(counts.path.len());
    super::slow::path_of(&counts.path[..names], counts.is_path_whole == 1)
}

fn metrics(paths: &HashMap<(Owner, String), Path>, lost: u64, start_unix_ns: u64) -> Vec<Metric> {
    let counter = |name: &'static str, unit: &'static str, description: &'static str| {
        Metric::new(MetricKind::Counter, name, unit, description)
    };
    let mut bytes = counter("file.io.bytes", "By", "Bytes of reads and writes of the busiest files.");
    let mut operations =
        counter("file.io.operations", "{operation}", "Reads and writes of the busiest files.");
    let mut time = counter("file.io.time", "s", "Time in reads and writes of the busiest files.");
    let mut by_owner: HashMap<&Owner, Vec<(&str, &Path)>> = HashMap::new();
    for ((owner, name), path) in paths {
        by_owner.entry(owner).or_default().push((name, path));
    }
    for (owner, paths) in by_owner {
        for (name, path) in busiest(paths) {
            for (index, direction) in ["read", "write"].into_iter().enumerate() {
                if path.operations[index] == 0 {
                    continue;
                }
                let point = |value: f64| {
                    let attributes: Vec<(Text, Text)> = vec![
                        ("file.path".into(), name.to_owned().into()),
                        ("disk.io.direction".into(), direction.into()),
                    ];
                    Point::number(owner.clone(), attributes, path.start_unix_ns, value)
                };
                bytes.add(point(path.bytes[index] as f64));
                operations.add(point(path.operations[index] as f64));
                time.add(point(path.time_ns[index] as f64 / 1e9));
            }
        }
    }
    let lost = Point::number(Owner::Agent, Vec::new(), start_unix_ns, lost as f64);
    let lost_files =
        counter("kansoku.io.files.lost", "{operation}", "Operations on files that found no room.")
            .with(vec![lost]);
    vec![bytes, operations, time, lost_files]
}

/// The busiest by bytes, and of the rest the busiest by time.
fn busiest<'a>(mut paths: Vec<(&'a str, &'a Path)>) -> Vec<(&'a str, &'a Path)> {
    paths.sort_by_key(|(_, path)| std::cmp::Reverse((path.recent_bytes, path.recent_time_ns)));
    let mut by_time = if paths.len() > FILES_SHOWN { paths.split_off(FILES_SHOWN) } else { Vec::new() };
    by_time.sort_by_key(|(_, path)| std::cmp::Reverse(path.recent_time_ns));
    by_time.truncate(FILES_SHOWN);
    paths.extend(by_time);
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(bytes: u64, time_ns: u64) -> FileCounts {
        FileCounts {
            bytes: [bytes, 0],
            operations: [1, 0],
            time_ns: [time_ns, 0],
            path_names: 0,
            is_path_whole: 1,
            path: [[0; 64]; 12],
        }
    }

    #[test]
    fn the_busiest_by_bytes_and_by_time() {
        let mut files = Files::new(0);
        for number in 0..40 {
            files.add((Owner::Host, format!("/f{number}")), &counts(number, 0), None);
        }
        files.add((Owner::Host, "/slow".to_owned()), &counts(0, 9), None);
        let paths = files.paths.iter().map(|((_, name), path)| (name.as_str(), path)).collect();
        let shown: Vec<&str> = busiest(paths).into_iter().map(|(name, _)| name).collect();
        assert_eq!(shown.len(), 2 * FILES_SHOWN);
        assert_eq!((shown[0], shown[FILES_SHOWN]), ("/f39", "/slow"));
    }

    #[test]
    fn files_of_one_path_add_up() {
        let mut files = Files::new(0);
        let key = || (Owner::Host, "/log".to_owned());
        files.add(key(), &counts(10, 0), None);
        files.add(key(), &counts(25, 0), Some(&counts(10, 0)));
        // Replaced: another file under the same path.
        files.add(key(), &counts(7, 0), None);
        assert_eq!(files.paths[&key()].bytes, [32, 0]);
    }
}
