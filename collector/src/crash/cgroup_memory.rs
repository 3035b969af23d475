//! The memory of a cgroup just after a death: usage, limit and events, from the v2 files or the v1 controller.
//!
//! Refuses: waiting. A cgroup that is gone already is `None`, and the record says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::record::{CgroupMemory, OomScope};

/// Cgroups above the process's own that are looked at for a limit.
const LEVELS_MAX: usize = 16;

/// v1 has no "none": limits above this mean that (`PAGE_COUNTER_MAX` in bytes is just below 2^63).
const V1_LIMIT_MAX: u64 = 1 << 60;

/// Where the memory controller is mounted.
pub struct CgroupMemoryFiles {
    mount: Option<PathBuf>,
    is_v1: bool,
}

impl CgroupMemoryFiles {
    /// Finds the memory controller: a v1 mount wins, for a controller is in one hierarchy only.
    pub fn find() -> Self {
        let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
        let mounts = mounts.map(|mounts| mounts.0).unwrap_or_default();
        let is_memory = |mount: &&procfs::process::MountInfo| {
            mount.fs_type == "cgroup" && mount.super_options.contains_key("memory")
        };
        let v1 = mounts.iter().find(is_memory);
        let v2 = mounts.iter().find(|mount| mount.fs_type == "cgroup2");
        Self { mount: v1.or(v2).map(|mount| mount.mount_point.clone()), is_v1: v1.is_some() }
    }

    /// The memory of a cgroup, given its path below the mount of the unified hierarchy: runtimes make the same path in
    /// all hierarchies.
    pub fn read(&self, path: &str) -> Option<CgroupMemory> {
        let mount = self.mount.as_ref()?;
        let own = mount.join(path.trim_start_matches('/'));
        if path == "/" || !own.is_dir() {
            return None;
        }
        let levels = own.ancestors().take_while(|level| *level != mount).take(LEVELS_MAX);
        let limit_bytes = levels.filter_map(|level| self.limit(level)).min();
        let (usage, peak) = match self.is_v1 {
            true => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
            false => ("memory.current", "memory.peak"),
        };
        let events = match self.is_v1 {
            true => v1_events(&own),
            false => pairs(&own.join("memory.events")),
        };
        Some(CgroupMemory {
            usage_bytes: number(&own.join(usage)),
            peak_bytes: number(&own.join(peak)),
            limit_bytes,
            events,
        })
    }

    fn limit(&self, level: &Path) -> Option<u64> {
        let file = if self.is_v1 { "memory.limit_in_bytes" } else { "memory.max" };
        number(&level.join(file)).filter(|&limit| limit < V1_LIMIT_MAX)
    }
}

/// Whose limit an OOM kill was about, by what the victim's cgroup says just after it.
pub fn oom_scope(memory: Option<&CgroupMemory>) -> OomScope {
    let Some(memory) = memory else { return OomScope::Unknown };
    let hits =
        ["oom", "failcnt"].into_iter().filter_map(|event| memory.events.get(event)).any(|&count| count > 0);
    match memory.limit_bytes {
        Some(_) if hits => OomScope::Cgroup,
        // A limit further up: the hits are counted there.
        Some(limit)
            if memory.peak_bytes.or(memory.usage_bytes).is_some_and(|peak| peak >= limit / 10 * 9) =>
        {
            OomScope::Cgroup
        }
        _ => OomScope::Node,
    }
}

/// Only what v1 counts: how often the limit was hit, and kills.
fn v1_events(cgroup: &Path) -> BTreeMap<String, u64> {
    let mut events = pairs(&cgroup.join("memory.oom_control"));
    events.retain(|name, _| name == "oom_kill");
    events.extend(number(&cgroup.join("memory.failcnt")).map(|count| ("failcnt".to_owned(), count)));
    events
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn pairs(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes files into a pretended mount and reads the memory of `/pod/main`.
    fn check(is_v1: bool, files: &[(&str, &str)], expected: Option<(u64, Option<u64>, OomScope)>) {
        let mount = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = mount.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in the mount")).expect("writable");
            std::fs::write(path, text).expect("writable");
        }
        let reader = CgroupMemoryFiles { mount: Some(mount.path().to_path_buf()), is_v1 };
        let memory = reader.read("/pod/main");
        let found = memory
            .as_ref()
            .map(|memory| (memory.usage_bytes.unwrap_or(0), memory.limit_bytes, oom_scope(Some(memory))));
        assert_eq!(found, expected, "{files:?}");
    }

    #[test]
    fn both_versions() {
        check(false, &[], None);
        check(
            false,
            &[
                ("pod/main/memory.current", "100\n"),
                ("pod/main/memory.max", "max\n"),
                ("pod/memory.max", "4096\n"),
                ("pod/main/memory.events", "low 0\noom 1\noom_kill 1\n"),
            ],
            Some((100, Some(4096), OomScope::Cgroup)),
        );
        check(
            false,
            &[("pod/main/memory.current", "100\n"), ("pod/main/memory.max", "max\n")],
            Some((100, None, OomScope::Node)),
        );
        check(
            true,
            &[
                ("pod/main/memory.usage_in_bytes", "100\n"),
                ("pod/main/memory.limit_in_bytes", "5000\n"),
                ("pod/memory.limit_in_bytes", "9223372036854771712\n"),
                ("pod/main/memory.failcnt", "7\n"),
                ("pod/main/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ],
            Some((100, Some(5000), OomScope::Cgroup)),
        );
        check(true, &[("pod/main/memory.usage_in_bytes", "not a number")], Some((0, None, OomScope::Node)));
    }

    #[test]
    fn nothing_known_is_no_guess() {
        assert_eq!(oom_scope(None), OomScope::Unknown);
    }
}
