//! Cgroups as container runtimes make them, in the unified hierarchy of this machine, removed with their handle.
//!
//! Refuses: v1 controllers other than memory; the agent attributes by the unified hierarchy.

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
    mount: PathBuf,
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes a cgroup, given its path below the mount.
    pub fn make(below: &str) -> Self {
        Self::make_in(mount(), below)
    }

    fn make_in(mount: PathBuf, below: &str) -> Self {
        let mut path = mount.clone();
        let mut made = Vec::new();
        for segment in below.split('/').filter(|segment| !segment.is_empty()) {
            path.push(segment);
            if !path.exists() {
                std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                made.push(path.clone());
            }
        }
        Self { mount, path, made }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path below the mount, with a slash in front.
    pub fn below(&self) -> String {
        format!("/{}", utf8(self.path.strip_prefix(&self.mount).expect("made below the mount")))
    }

    /// Starts a program in the cgroup: like a runtime, enters first and executes then.
    pub fn start(&self, program: &Program, arguments: &[&str]) -> Running {
        let mut command = entering(&[self]);
        Running::start(command.arg(program.path()).args(arguments))
    }
}

/// A shell that enters these cgroups and then becomes the program that is added to its arguments. The process id is the
/// program's.
pub fn entering(cgroups: &[&Cgroup]) -> Command {
    let enter = cgroups.iter().map(|cgroup| format!("echo $$ > {}/cgroup.procs && ", cgroup.path.display()));
    let enter: String = enter.chain(["exec \"$@\"".to_owned()]).collect();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &enter, "sh"]);
    command
}

/// A cgroup with a memory limit: in the unified hierarchy, and at the same path below the v1 controller if the machine
/// has that.
pub struct MemoryCgroup {
    unified: Cgroup,
    of_controller: Option<Cgroup>,
}

impl MemoryCgroup {
    /// Makes it, given its path below the mounts.
    pub fn make(below: &str, limit_bytes: u64) -> Self {
        let unified = Cgroup::make(below);
        let of_controller = memory_mount().map(|mount| Cgroup::make_in(mount, below));
        let limit = if let Some(cgroup) = &of_controller {
            cgroup.path.join("memory.limit_in_bytes")
        } else {
            let parents: Vec<&Path> = unified.path.ancestors().skip(1).collect();
            let below_mount = parents.iter().rev().skip_while(|path| **path != unified.mount);
            for parent in below_mount {
                // It may be on already.
                let _switched_on = std::fs::write(parent.join("cgroup.subtree_control"), "+memory");
            }
            unified.path.join("memory.max")
        };
        std::fs::write(&limit, limit_bytes.to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", limit.display()));
        Self { unified, of_controller }
    }

    /// Starts a command in the cgroup: enters first and executes then.
    pub fn start(&self, words: &[&str]) -> Running {
        let cgroups: Vec<&Cgroup> = self.of_controller.iter().chain([&self.unified]).collect();
        Running::start(entering(&cgroups).args(words))
    }
}

/// Where the v1 memory controller is mounted, if it is.
fn memory_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc(5)");
    let is_memory = |line: &str| {
        let options = line.split_once(" - cgroup ").and_then(|(_, rest)| rest.rsplit(' ').next());
        options.is_some_and(|options| options.split(',').any(|option| option == "memory"))
    };
    let mount = mounts.lines().find(|line| is_memory(line))?;
    mount.split(' ').nth(4).map(PathBuf::from)
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
