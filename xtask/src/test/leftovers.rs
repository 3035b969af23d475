//! Cgroups that a killed run of the end-to-end tests left behind: ten thousand of them leave no room for those of the next run.
//!
//! Refuses: cgroups with processes, which the kernel does not remove, and those of other names.

use std::fs;
use std::path::{Path, PathBuf};

/// What the names of the tests' own topmost cgroups begin with; the bench has others.
const PREFIXES: [&str; 2] = ["kansoku-test", "kansoku-thousands"];

/// Removes them, where it may.
pub fn remove() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let removed: usize = mounts_of(&mounts).iter().map(|mount| remove_below(mount)).sum();
    if removed > 0 {
        eprintln!("removed {removed} cgroups of an earlier run that was killed");
    }
}

/// Where cgroups are mounted, by proc(5).
fn mounts_of(mounts: &str) -> Vec<PathBuf> {
    let is_cgroup = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    mounts.lines().filter(is_cgroup).filter_map(|line| line.split(' ').nth(4).map(PathBuf::from)).collect()
}

fn remove_below(mount: &Path) -> usize {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    directories(mount).filter(is_ours).map(|path| remove_tree(&path)).sum()
}

/// A cgroup goes when those in it went. Returns how many did.
fn remove_tree(path: &Path) -> usize {
    let below: usize = directories(path).map(|path| remove_tree(&path)).sum();
    below + usize::from(fs::remove_dir(path).is_ok())
}

fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_trees_go_and_others_stay() {
        let place = tempfile::tempdir().expect("a directory");
        for path in ["kansoku-test.a/a/b", "kansoku-test.a/c", "kansoku-test.busy/d", "kansoku-bench/e"] {
            fs::create_dir_all(place.path().join(path)).expect("writable");
        }
        fs::write(place.path().join("kansoku-test.busy/file"), "").expect("writable");
        assert_eq!(remove_below(place.path()), 5);
        let left = |path: &str| place.path().join(path).exists();
        assert_eq!(["kansoku-test.a", "kansoku-test.busy", "kansoku-bench/e"].map(left), [false, true, true]);
    }

    #[test]
    fn mounts_are_those_of_cgroups() {
        let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounts_of(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }
}
