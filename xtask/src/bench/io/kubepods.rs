//! Containers as the kubelet makes them, each with a process that sleeps: cgroups in every hierarchy of this machine.
//!
//! Refuses: cgroups that somebody else made. What is removed at the end was made here, by this run or by an earlier one
//! that was killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::children::Guarded;
use super::super::interrupt;
use super::super::procfs;
use super::super::setup::Bench;

/// A cgroup is busy for a moment after its last process.
const REMOVE_TIME_MAX: Duration = Duration::from_secs(20);

const STOP_TIME_MAX: Duration = Duration::from_secs(20);

const REMOVE_POLL: Duration = Duration::from_millis(20);

/// Where pods of the class without requests are.
const PARENTS: [&str; 2] = ["kubepods", "kubepods/besteffort"];

/// Containers with their processes; dropping them ends the processes and removes the cgroups.
pub struct Kubepods {
    sleepers: Option<Guarded>,
    tree: Tree,
}

impl Kubepods {
    pub fn start(bench: &Bench, count: usize) -> Result<Self> {
        let (sleepers, pids) = bench.io_programs.sleep(count)?;
        let mounts = mounts(&procfs::read("/proc/self/mountinfo")?);
        if mounts.is_empty() {
            bail!("no cgroup hierarchy is mounted");
        }
        let mut kubepods = Self { sleepers: Some(sleepers), tree: Tree::default() };
        for mount in &mounts {
            for parent in PARENTS {
                kubepods.tree.make_parent(&mount.join(parent))?;
            }
            for (index, pid) in pids.iter().enumerate() {
                interrupt::check()?;
                let container = kubepods.tree.make_container(mount, index)?;
                let processes = container.join("cgroup.procs");
                fs::write(&processes, pid.to_string())
                    .with_context(|| format!("move a process to {}", processes.display()))?;
            }
        }
        Ok(kubepods)
    }
}

impl Drop for Kubepods {
    fn drop(&mut self) {
        // The processes end first: a cgroup with a process cannot be removed.
        if let Some(sleepers) = self.sleepers.take()
            && let Err(error) = sleepers.terminate(STOP_TIME_MAX)
        {
            eprintln!("bench: {error:#}");
        }
        self.tree.remove();
    }
}

/// What was made, parents before children.
#[derive(Default)]
struct Tree {
    made: Vec<PathBuf>,
}

impl Tree {
    /// A directory that may be there already, and then is not ours.
    fn make_parent(&mut self, path: &Path) -> Result<()> {
        if make(path)? {
            self.made.push(path.to_owned());
            prepare(path)?;
            delegate(path)?;
        }
        Ok(())
    }

    /// Pod and container, whose names nobody else uses: those that are there were left by a run that was killed.
    fn make_container(&mut self, mount: &Path, index: usize) -> Result<PathBuf> {
        let pod = mount.join(PARENTS[PARENTS.len() - 1]).join(pod_name(index));
        let container = pod.join(container_name(index));
        for path in [&pod, &container] {
            make(path)?;
            self.made.push(path.clone());
            prepare(path)?;
        }
        // After the child was made, whose controllers this switches on; a container has none to pass on.
        delegate(&pod)?;
        Ok(container)
    }

    fn remove(&mut self) {
        let end = Instant::now() + REMOVE_TIME_MAX;
        for path in self.made.drain(..).rev() {
            while let Err(error) = fs::remove_dir(&path) {
                if error.kind() == ErrorKind::NotFound {
                    break;
                }
                if Instant::now() >= end {
                    eprintln!("bench: cannot remove {}: {error}", path.display());
                    break;
                }
                thread::sleep(REMOVE_POLL);
            }
        }
    }
}

/// Whether the directory is new.
fn make(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("make {} (run as root)", path.display())),
    }
}

/// In v1 a cpuset takes no process before it has CPUs and memory nodes (cgroup-v1/cpusets.rst).
fn prepare(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = path.join(name);
        if is_unified(path) || !file.exists() {
            continue;
        }
        let inherited = fs::read_to_string(parent.join(name))
            .with_context(|| format!("read {name} above {}", path.display()))?;
        fs::write(&file, inherited.trim()).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// In v2 children have the controllers that their parent passes on (cgroup-v2.rst, "Enabling and Disabling").
fn delegate(path: &Path) -> Result<()> {
    if !is_unified(path) {
        return Ok(());
    }
    let controllers = path.join("cgroup.controllers");
    let controllers =
        fs::read_to_string(&controllers).with_context(|| format!("read {}", controllers.display()))?;
    let wanted: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let file = path.join("cgroup.subtree_control");
    fs::write(&file, wanted.join(" ")).with_context(|| format!("write {}", file.display()))
}

fn is_unified(path: &Path) -> bool {
    path.join("cgroup.controllers").exists()
}

/// A UID as version 4 has them, recognizable as ours.
pub fn pod_name(index: usize) -> String {
    format!("pod6b616e73-6f6b-4075-8000-{index:012x}")
}

/// 64 hexadecimal digits, recognizable as ours.
pub fn container_name(index: usize) -> String {
    format!("6b616e736f6b75{index:050x}")
}

/// Where the hierarchies are mounted, v1 and v2 (proc(5): the fifth field; the type comes after the dash).
fn mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let kind = rest.split(' ').next()?;
        ["cgroup", "cgroup2"].contains(&kind).then(|| fields.split(' ').nth(4).map(PathBuf::from)).flatten()
    };
    mountinfo.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\nbroken - cgroup\n\n";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(mounts(text), expected);
    }

    #[test]
    fn names_are_shaped_like_those_of_kubernetes() {
        assert_eq!(pod_name(999), "pod6b616e73-6f6b-4075-8000-0000000003e7");
        let name = container_name(999);
        assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_ne!(name, container_name(998));
    }

    #[test]
    fn what_was_made_goes_and_what_was_there_stays() {
        let mount = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(mount.path().join("kubepods")).expect("a cgroup of somebody else");
        let mut tree = Tree::default();
        for parent in PARENTS {
            tree.make_parent(&mount.path().join(parent)).expect("made");
        }
        let first = tree.make_container(mount.path(), 0).expect("made");
        assert_eq!(tree.make_container(mount.path(), 0).expect("left by another run"), first);
        tree.make_container(mount.path(), 1).expect("made");
        tree.remove();
        assert!(mount.path().join("kubepods").exists());
        assert!(!mount.path().join("kubepods/besteffort").exists());
    }

    #[test]
    fn a_cpuset_inherits_and_controllers_are_passed_on() {
        let mount = tempfile::tempdir().expect("a temporary directory");
        let child = mount.path().join("child");
        fs::create_dir(&child).expect("made");
        for (name, text) in [("cpuset.cpus", "0-1\n"), ("child/cpuset.cpus", "\n")] {
            fs::write(mount.path().join(name), text).expect("written");
        }
        prepare(&child).expect("prepared");
        assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).expect("read"), "0-1");
        delegate(&child).expect("v1 has nothing to pass on");
        fs::write(child.join("cgroup.controllers"), "cpu io\n").expect("written");
        delegate(&child).expect("passed on");
        assert_eq!(fs::read_to_string(child.join("cgroup.subtree_control")).expect("read"), "+cpu +io");
    }
}
