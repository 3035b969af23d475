//! Real programs to observe: compiled from `tests/workloads` and run, each killed when its handle goes.
//!
//! Every program ends by itself after the seconds it is given, so that nothing outlives a killed test. Refuses:
//! prebuilt binaries: what a compiler of this machine makes is what is observed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::tools;

/// Frame pointers everywhere, leaves too, and functions that stay functions.
pub const FRAME_POINTERS: &[&str] = &["-O1", "-fno-omit-frame-pointer", LEAF_FRAME_POINTERS];

#[cfg(target_arch = "x86_64")]
const LEAF_FRAME_POINTERS: &str = "-mno-omit-leaf-frame-pointer";
#[cfg(not(target_arch = "x86_64"))]
const LEAF_FRAME_POINTERS: &str = "-fno-optimize-sibling-calls";

/// A source file of `tests/workloads`.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads").join(name)
}

/// A compiled program in a directory of its own, which goes with it.
pub struct Program {
    directory: TempDir,
    path: PathBuf,
}

impl Program {
    /// Compiles C with gcc. The program is named as the source is.
    pub fn c(name: &str, flags: &[&str]) -> Self {
        Self::build(name, |source, output| command("gcc", &[flags, &[source, "-o", output]].concat()))
    }

    /// Compiles C++ with g++.
    pub fn cpp(name: &str, flags: &[&str]) -> Self {
        Self::build(name, |source, output| command("g++", &[flags, &[source, "-o", output]].concat()))
    }

    /// Compiles Rust with rustc.
    pub fn rust(name: &str) -> Self {
        let flags =
            ["--edition", "2024", "-C", "opt-level=1", "-C", "force-frame-pointers=yes", "-C", "debuginfo=0"];
        Self::build(name, |source, output| command("rustc", &[&flags[..], &[source, "-o", output]].concat()))
    }

    /// Compiles Go.
    pub fn go(name: &str) -> Self {
        Self::build(name, |source, output| {
            let mut go = tools::go();
            go.args(["build", "-o", output, source]);
            go
        })
    }

    fn build(name: &str, compiler: impl Fn(&str, &str) -> Command) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let source = source(name);
        let path = directory.path().join(source.file_stem().expect("a source has a name"));
        let mut command = compiler(utf8(&source), utf8(&path));
        tools::succeed(command.current_dir(directory.path()));
        Self { directory, path }
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The name that a profile should give it.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("our names are UTF-8")
    }

    /// A command that runs it in its own directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(utf8(&self.path), arguments);
        command.current_dir(self.directory());
        command
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(Command::new(&self.path).args(arguments))
    }
}

/// A running program, in a process group of its own. Killed with its children when the handle goes.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts a command, silently. The command bounds its own time.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")) }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time of its first thread until now, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let statistics = std::fs::read_to_string(format!("/proc/{}/schedstat", self.pid())).expect("it runs");
        let nanoseconds = statistics.split(' ').next().and_then(|text| text.parse::<u64>().ok());
        nanoseconds.expect("nanoseconds come first") as f64 / 1e9
    }

    /// Waits for the end and fails unless it was a good one.
    pub fn expect_success(self, time_max: Duration) {
        let status = self.wait(time_max);
        assert!(status.success(), "the workload ended with {status}");
    }

    /// Waits for the end, whatever it is.
    pub fn wait(mut self, time_max: Duration) -> ExitStatus {
        let deadline = Instant::now() + time_max;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the workload still runs after {time_max:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a file in `/proc` of the process satisfies a condition.
    pub fn wait_until(&self, is_ready: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_ready(&format!("/proc/{}", self.pid())) {
            assert!(Instant::now() < deadline, "the workload does not get ready");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group has the id of the child, which stays ours until it is waited for. It may have ended already.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ended = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
        let _reaped = self.child.wait();
    }
}

/// A path as text.
pub fn utf8(path: &Path) -> &str {
    path.to_str().expect("our paths are UTF-8")
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
