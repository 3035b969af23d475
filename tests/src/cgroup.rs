//! Cgroups as container runtimes make them, in the unified hierarchy of this machine, removed with their handle.
//!
//! Refuses: the v1 controllers; the agent attributes by the unified hierarchy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::workload::{Program, Running, utf8};

/// Where the unified hierarchy is mounted: `/sys/fs/cgroup`, or beside v1.
pub fn mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc(5)");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
    PathBuf::from(mount.split(' ').nth(4).expect("proc(5)"))
}

/// A cgroup that goes with its handle, and its parents that were made for it.
pub struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes a cgroup, given its path below the mount.
    pub fn make(below: &str) -> Self {
        let mut path = mount();
        let mut made = Vec::new();
        for segment in below.split('/').filter(|segment| !segment.is_empty()) {
            path.push(segment);
            if !path.exists() {
                std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                made.push(path.clone());
            }
        }
        Self { path, made }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path below the mount, with a slash in front.
    pub fn below(&self) -> String {
        format!("/{}", utf8(self.path.strip_prefix(mount()).expect("made below the mount")))
    }

    /// Starts a program in the cgroup: like a runtime, enters first and executes then.
    pub fn start(&self, program: &Program, arguments: &[&str]) -> Running {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        Running::start(Command::new("/bin/sh").args(["-c", &enter, "sh"]).arg(program.path()).args(arguments))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A cgroup is busy for a moment after its last process.
        let deadline = Instant::now() + Duration::from_secs(5);
        for path in self.made.iter().rev() {
            while std::fs::remove_dir(path).is_err() && path.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
