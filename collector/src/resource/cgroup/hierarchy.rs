//! Where each cgroup controller is mounted: v1, v2, or some here and some there (hybrid).
//!
//! Source: cgroups(7). A controller is in one hierarchy only; v1 controllers may share a mount (`cpu,cpuacct`). Refuses:
//! what the files in there say.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// Mounts that are looked at; more than there are controllers.
pub const MOUNTS_MAX: usize = 16;

/// The controllers of v1 that something is read from.
const CONTROLLERS_V1: [&str; 5] = ["cpuacct", "cpu", "memory", "pids", "blkio"];

/// The interface of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    V1,
    /// The unified one.
    V2,
}

/// A mounted hierarchy and what is read from it.
#[derive(Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its interface.
    pub version: Version,
    /// The processor times are read here.
    pub has_cpu_time: bool,
    /// Quota and throttling are read here.
    pub has_cpu: bool,
    /// Memory is read here.
    pub has_memory: bool,
    /// Numbers of threads are read here.
    pub has_pids: bool,
    /// Block I/O is read here.
    pub has_io: bool,
    /// Pressure is read here: v2 has it without any controller.
    pub has_pressure: bool,
    root: OwnedFd,
}

/// All hierarchies that something is read from, the one with memory first.
#[derive(Debug)]
pub struct Hierarchies {
    all: Vec<Hierarchy>,
}

impl Hierarchies {
    /// Finds them in `/proc/self/mountinfo`.
    ///
    /// Errors: no `/proc`, or a mount that cannot be opened.
    pub fn find() -> Result<Self> {
        let mounts = procfs::process::Process::myself()
            .and_then(|own| own.mountinfo())
            .context("cannot read /proc/self/mountinfo")?;
        // A bind mount of a part would miss the rest; the whole has the root "/". In a private cgroup namespace there
        // is no whole, and the first one has to do.
        let mut mounts = mounts.0;
        mounts.sort_by_key(|mount| mount.root != "/");
        let mut v1: Vec<(Vec<&str>, &Path)> = Vec::new();
        for controller in CONTROLLERS_V1 {
            let is_its = |mount: &&procfs::process::MountInfo| {
                mount.fs_type == "cgroup" && mount.super_options.contains_key(controller)
            };
            let Some(mount) = mounts.iter().find(is_its) else { continue };
            match v1.iter_mut().find(|(_, path)| *path == mount.mount_point) {
                Some((controllers, _)) => controllers.push(controller),
                None => v1.push((vec![controller], &mount.mount_point)),
            }
        }
        let v2 = mounts.iter().find(|mount| mount.fs_type == "cgroup2");
        let v1: Vec<(&[&str], &Path)> =
            v1.iter().map(|(controllers, path)| (controllers.as_slice(), *path)).collect();
        Self::at(&v1, v2.map(|mount| mount.mount_point.as_path()))
    }

    /// Hierarchies at these places: v1's with their controllers, and the unified one.
    ///
    /// Errors: a place that cannot be opened.
    pub fn at(v1: &[(&[&str], &Path)], v2: Option<&Path>) -> Result<Self> {
        let mut all = Vec::new();
        for (controllers, mount) in v1.iter().take(MOUNTS_MAX - 1) {
            let has = |controller: &str| controllers.contains(&controller);
            let mut hierarchy = Hierarchy::open(mount, Version::V1)?;
            hierarchy.has_cpu_time = has("cpuacct");
            hierarchy.has_cpu = has("cpu");
            hierarchy.has_memory = has("memory");
            hierarchy.has_pids = has("pids");
            hierarchy.has_io = has("blkio");
            all.push(hierarchy);
        }
        if let Some(mount) = v2 {
            let mut hierarchy = Hierarchy::open(mount, Version::V2)?;
            let controllers = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            let has = |controller: &str| controllers.split_whitespace().any(|word| word == controller);
            // v2 counts the time of all cgroups, with or without the controller (4.15), but who is in v1 for it may
            // have left its processes out of here.
            hierarchy.has_cpu_time = !all.iter().any(|other: &Hierarchy| other.has_cpu_time);
            hierarchy.has_cpu = has("cpu");
            hierarchy.has_memory = has("memory");
            hierarchy.has_pids = has("pids");
            hierarchy.has_io = has("io");
            hierarchy.has_pressure = true;
            all.push(hierarchy);
        }
        all.sort_by_key(|hierarchy| !hierarchy.has_memory);
        Ok(Self { all })
    }

    /// Them, the one with memory first: all that has a limit is in there.
    pub fn all(&self) -> &[Hierarchy] {
        &self.all
    }
}

impl Hierarchies {
    /// Them with their numbers in [`Self::all`], the one with the processor time first: what rests by it needs no look at
    /// all else.
    pub fn by_reading(&self) -> impl Iterator<Item = (usize, &Hierarchy)> {
        let numbered = || self.all.iter().enumerate();
        let with = |has_cpu_time| numbered().filter(move |(_, of)| of.has_cpu_time == has_cpu_time);
        with(true).chain(with(false))
    }
}

impl Hierarchy {
    fn open(mount: &Path, version: Version) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, mount, flags, Mode::empty())
            .with_context(|| format!("cannot open the cgroup hierarchy {}", mount.display()))?;
        Ok(Self {
            mount: mount.to_path_buf(),
            version,
            has_cpu_time: false,
            has_cpu: false,
            has_memory: false,
            has_pids: false,
            has_io: false,
            has_pressure: false,
            root,
        })
    }

    /// Opens the directory of a cgroup, such as `/system.slice`; `None` if it is not there.
    pub fn open_cgroup(&self, path: &str) -> Option<OwnedFd> {
        let below = path.trim_start_matches('/');
        let below = if below.is_empty() { "." } else { below };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.root.as_fd(), below, flags, Mode::empty()).ok()
    }

    /// The mount's own directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine() {
        let found = Hierarchies::find().expect("some hierarchy");
        assert!(found.all().len() <= MOUNTS_MAX);
        let count = |has: fn(&Hierarchy) -> bool| found.all().iter().filter(|one| has(one)).count();
        assert_eq!(count(|one| one.has_cpu_time), 1, "the times are read once");
        assert!(count(|one| one.has_memory) <= 1);
        for hierarchy in found.all() {
            assert!(hierarchy.open_cgroup("/").is_some());
            assert!(hierarchy.open_cgroup("/no-such-cgroup").is_none());
        }
    }

    #[test]
    fn unified_takes_what_v1_has_not() {
        let place = tempfile::tempdir().expect("a directory");
        for name in ["cpu,cpuacct", "memory", "unified"] {
            std::fs::create_dir(place.path().join(name)).expect("writable");
        }
        let unified = place.path().join("unified");
        std::fs::write(unified.join("cgroup.controllers"), "io pids\n").expect("writable");
        let (cpu, memory) = (place.path().join("cpu,cpuacct"), place.path().join("memory"));
        let v1: [(&[&str], &Path); 2] = [(&["cpu", "cpuacct"], &cpu), (&["memory"], &memory)];
        let found = Hierarchies::at(&v1, Some(&unified)).expect("there");
        let [first, second, third] = found.all() else { panic!("three") };
        assert!(first.has_memory && !first.has_cpu);
        assert!(second.has_cpu && second.has_cpu_time);
        assert!(
            third.has_io && third.has_pids && third.has_pressure && !third.has_cpu_time && !third.has_memory
        );
        let alone = Hierarchies::at(&[], Some(&unified)).expect("there");
        assert!(alone.all()[0].has_cpu_time);
        assert!(Hierarchies::at(&[(&["cpu"], &place.path().join("gone"))], None).is_err());
    }
}
