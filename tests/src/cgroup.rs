//! Cgroups as container runtimes make them, removed with their handle: in the unified hierarchy of this machine, which the
//! agent attributes by, and for containers in those of the v1 controllers too.
//!
//! Refuses: real containers ([`crate::container`] makes those).

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::workload::{Program, Running, utf8};

/// Where the unified hierarchy is mounted: `/sys/fs/cgroup`, or beside v1.
pub fn mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc(5)");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
    PathBuf::from(mount.split(' ').nth(4).expect("proc(5)"))
}

/// The cgroups of this test that are there. Several may be below one that was made for the first of them.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A cgroup that goes with its handle. Its parents that were made for it go with the last one below them.
pub struct Cgroup {
    mount: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup, given its path below the mount.
    pub fn make(below: &str) -> Self {
        Self::make_in(mount(), below)
    }

    fn make_in(mount: PathBuf, below: &str) -> Self {
        let mut path = mount.clone();
        for segment in below.split('/').filter(|segment| !segment.is_empty()) {
            path.push(segment);
            if !path.exists() {
                std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                inherit_cpus(&path);
                made().insert(path.clone());
            }
        }
        Self { mount, path }
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

/// A shell that stops itself and, once it is told to go on, becomes the program that is added to its arguments. The
/// process id is the program's.
pub fn held() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    command
}

/// Waits until a [`held`] command has stopped.
pub fn wait_until_held(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("our child");
    while !stat().contains(") T ") {
        assert!(Instant::now() < deadline, "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Moves a process into cgroups.
pub fn move_into(pid: u32, cgroups: &[&Cgroup]) {
    for cgroup in cgroups {
        let path = cgroup.path.join("cgroup.procs");
        std::fs::write(&path, pid.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Above the pods of the test containers. A path of Kubernetes has `kubepods` in it.
const PARENT: &str = "kansoku-test.kubepods/besteffort";

/// The cgroups of a container as the kubelet's cgroupfs driver makes them, one in each hierarchy.
pub struct ContainerCgroup {
    id: String,
    /// By the name of the controllers' mount, empty for the unified one, which is the last.
    cgroups: Vec<(String, Cgroup)>,
}

impl ContainerCgroup {
    /// Makes the cgroups of a container whose id begins with these hexadecimal digits.
    pub fn make(id_start: &str) -> Self {
        let id = format!("{id_start:0<64}");
        let below = format!("{PARENT}/pod6b1c7c3e-0000-4000-8000-0000000000aa/{id}");
        let mut mounts: Vec<(String, PathBuf)> = controllers();
        mounts.push((String::new(), mount()));
        let cgroups = mounts.into_iter().map(|(names, mount)| (names, Cgroup::make_in(mount, &below)));
        Self { id, cgroups: cgroups.collect() }
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The label of its series.
    pub fn label(&self) -> (&'static str, &str) {
        ("container_id", &self.id)
    }

    /// All its cgroups, the unified one last.
    pub fn cgroups(&self) -> Vec<&Cgroup> {
        self.cgroups.iter().map(|(_, cgroup)| cgroup).collect()
    }

    /// A file of a v1 controller, or of the unified hierarchy where that has the controller.
    pub fn file(&self, controller: &str, name: &str) -> PathBuf {
        let has = |names: &str| names.split(',').any(|name| name == controller);
        let found = self.cgroups.iter().find(|(names, _)| has(names)).or(self.cgroups.last());
        found.expect("the unified one is there").1.path().join(name)
    }

    /// Whether a controller has a v1 hierarchy.
    pub fn is_v1(&self, controller: &str) -> bool {
        self.cgroups.iter().any(|(names, _)| names.split(',').any(|name| name == controller))
    }

    /// What a controller's file says, which is one number.
    pub fn number(&self, controller: &str, name: &str) -> f64 {
        let text = self.text(controller, name);
        text.trim().parse().unwrap_or_else(|_| panic!("{name}: {text:?}"))
    }

    /// A line of `memory.stat`, by its keys in v1 and v2.
    pub fn statistic(&self, keys: [&str; 2]) -> f64 {
        keyed(&self.text("memory", "memory.stat"), keys[usize::from(!self.is_v1("memory"))])
    }

    /// What a controller's file says.
    pub fn text(&self, controller: &str, name: &str) -> String {
        let path = self.file(controller, name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes to a controller's file.
    pub fn set(&self, controller: &str, name: &str, value: &str) {
        let path = self.file(controller, name);
        std::fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Has its I/O at the device of a file accounted: v1's block controller does nothing where no limit is set
    /// (`blk-throttle` is off until then, since 6.10).
    pub fn account_io(&self, path: &Path) {
        let device = std::fs::metadata(path).expect("it is there").dev();
        let limit = format!("{}:{} 1000000000000", device >> 8 & 0xfff, device & 0xff);
        if self.is_v1("blkio") {
            self.set("blkio", "blkio.throttle.read_bps_device", &limit);
            self.set("blkio", "blkio.throttle.write_bps_device", &limit);
        }
    }

    /// What v1's block controller counted, over all devices: of reads and of writes.
    pub fn blkio(&self, name: &str) -> [f64; 2] {
        let text = self.text("blkio", name);
        // `8:0 Read 4096`
        ["Read", "Write"].map(|direction| {
            let lines = text.lines().filter_map(|line| line.split_once(' ')?.1.strip_prefix(direction));
            lines.map(|value| value.trim().parse::<f64>().expect("a number")).sum()
        })
    }

    /// Runs a command in it, from its `execve` on: nothing before that counts for the container.
    pub fn enter(&self, command: Command) -> Inside {
        let child = self.hold(command);
        child.let_go();
        child
    }

    /// Puts a command into it, which waits before its `execve` until it is [let go](Inside::let_go).
    pub fn hold(&self, command: Command) -> Inside {
        let mut held = held();
        held.arg(command.get_program()).args(command.get_args());
        held.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = held.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child =
            Inside { child: child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")) };
        wait_until_held(child.pid());
        move_into(child.pid(), &self.cgroups());
        child
    }

    /// Runs a command in it to its good end; returns what it wrote.
    pub fn run(&self, command: Command) -> String {
        self.enter(command).output()
    }
}

impl Drop for ContainerCgroup {
    fn drop(&mut self) {
        // What its first process left behind.
        if let Some((_, unified)) = self.cgroups.last() {
            let _none_left = std::fs::write(unified.path.join("cgroup.kill"), "1");
        }
    }
}

/// A program in a container's cgroups, which bounds its own time or is killed with its handle.
pub struct Inside {
    child: Child,
}

impl Inside {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it execute, if it is held.
    pub fn let_go(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("our child");
    }

    /// Waits for its good end; returns what it wrote, which is less than a pipe holds.
    pub fn output(mut self) -> String {
        let mut text = [String::new(), String::new()];
        let status = self.child.wait().expect("our child");
        let [stdout, stderr] = &mut text;
        let _no_text = self.child.stdout.take().map(|mut pipe| pipe.read_to_string(stdout));
        let _no_text = self.child.stderr.take().map(|mut pipe| pipe.read_to_string(stderr));
        assert!(status.success(), "{status}: {text:?}");
        std::mem::take(&mut text[0])
    }

    /// Waits until it has written a line; returns that.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let pipe = self.child.stdout.as_mut().expect("standard output is a pipe");
        let mut byte = [0];
        while pipe.read_exact(&mut byte).is_ok() && byte != *b"\n" {
            line.push(byte[0].into());
        }
        line
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A value of a file of keys and values (cgroup-v2.rst, "flat keyed").
#[track_caller]
pub fn keyed(text: &str, key: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// The mounts of v1 controllers, by their names.
fn controllers() -> Vec<(String, PathBuf)> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc(5)");
    let of_line = |line: &str| {
        let (_, rest) = line.split_once(" - cgroup ")?;
        let options = rest.rsplit(' ').next()?.split(',').filter(|option| *option != "rw");
        Some((options.collect::<Vec<_>>().join(","), PathBuf::from(line.split(' ').nth(4)?)))
    };
    mounts.lines().filter_map(of_line).collect()
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
        for path in self.path.ancestors().take_while(|path| made().contains(*path)) {
            if !remove(path) {
                break;
            }
            made().remove(path);
        }
    }
}

fn made() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new v1 cgroup of `cpuset` takes nobody before it has CPUs and memory.
fn inherit_cpus(path: &Path) {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let of_parent = path.parent().map(|parent| parent.join(name)).expect("below the mount");
        // Other hierarchies have no such file, and in the unified one nothing in it means the parent's.
        let value = std::fs::read_to_string(of_parent).unwrap_or_default();
        if !value.trim().is_empty() {
            std::fs::write(path.join(name), value.trim()).expect("cpuset(7)");
        }
    }
}

/// Removes a cgroup, which is busy for a moment after its last process, unless others are below it; whether it is gone.
fn remove(path: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    let has_others = || {
        let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    };
    while std::fs::remove_dir(path).is_err() && path.exists() {
        if has_others() || Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
