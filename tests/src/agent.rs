//! The agent as a child process: found, started, waited for, stopped.
//!
//! Every agent is killed when its handle goes, and every one that ends is checked for a panic. Refuses: a second
//! build: the binary under test is the one that `cargo build -p collector` made, or `KANSOKU_BIN`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ledger::Books;

/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long the agent may take to hook itself in.
const START_MAX: Duration = Duration::from_secs(20);

/// How long the agent may take to stop: the window, the symbols, five seconds for the backend.
pub const STOP_MAX: Duration = Duration::from_secs(15);

/// The agent's log line after its hooks are in place.
const HOOKED: &str = "hooked";

/// The binary under test.
pub fn binary() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/kansoku");
    let path = std::env::var_os("KANSOKU_BIN").map_or(built, PathBuf::from);
    assert!(
        path.exists(),
        "there is no agent at {}: run `cargo build -p collector`, or set KANSOKU_BIN",
        path.display()
    );
    path
}

/// The agent with these arguments and none of the caller's configuration in its environment. It watches every system call,
/// whatever else this machine is doing: what tests expect is exact.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") || name.to_string_lossy().starts_with("KANSOKU_") {
            command.env_remove(name);
        }
    }
    command.env("KANSOKU_BUDGET_SYSCALLS_PERCENT", "0").args(arguments);
    command
}

/// Runs the agent to its end.
pub fn run_to_end(arguments: &[&str], time_max: Duration) -> Finished {
    Agent::spawn(command(arguments)).finish(time_max)
}

/// A running agent.
pub struct Agent {
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

/// An agent that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: String,
}

impl Agent {
    /// Starts a command; both outputs are captured.
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent starts");
        let stdout = Capture::start(child.stdout.take().expect("standard output is a pipe"));
        let stderr = Capture::start(child.stderr.take().expect("standard error is a pipe"));
        Self { child, stdout, stderr }
    }

    /// Starts `kansoku profile` and waits until it samples.
    pub fn profile(arguments: &[&str]) -> Self {
        let agent = Self::spawn(command(&[&["profile"], arguments].concat()));
        agent.wait_for("sampling for", START_MAX)
    }

    /// Starts `kansoku run` with variables in its environment, and waits until its hooks are in place.
    pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command(&[&["run"], arguments].concat());
        command.env("KANSOKU_LOG_LEVEL", "info,collector::cli=debug").envs(variables.iter().copied());
        Self::spawn(command).wait_for(HOOKED, START_MAX)
    }

    /// Waits until standard error holds a text.
    pub fn wait_for(mut self, text: &str, time_max: Duration) -> Self {
        let deadline = Instant::now() + time_max;
        while !self.stderr().contains(text) {
            let ended = self.child.try_wait().expect("the agent is our child");
            let in_time = Instant::now() < deadline;
            assert!(ended.is_none() && in_time, "no {text:?} (ended: {ended:?}) in:\n{}", self.stderr());
            std::thread::sleep(POLL);
        }
        self
    }

    /// The agent's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard error until now.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the agent is our child").is_none()
    }

    /// Asks it to stop, as a service manager does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to stop, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the agent is our child and not yet waited for");
    }

    /// Its resident memory now, and the most it ever had, in bytes.
    pub fn resident_bytes(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent runs");
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let line = line.unwrap_or_else(|| panic!("the agent has ended:\n{}", self.stderr()));
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("proc(5)");
            kilobytes * 1024
        };
        (value("VmRSS:"), value("VmHWM:"))
    }

    /// Waits for the end. Fails if the agent is still there after this time, or if it panicked.
    pub fn finish(mut self, time_max: Duration) -> Finished {
        let status = self.wait(time_max);
        let finished =
            Finished { code: status.code(), stdout: self.stdout.end(), stderr: text(self.stderr.end()) };
        // The log may tell of others' panics.
        let is_panic = |line: &str| line.starts_with("thread '") && line.contains("panicked at");
        assert!(!finished.stderr.lines().any(is_panic), "the agent panicked:\n{}", finished.stderr);
        finished
    }

    fn wait(&mut self, time_max: Duration) -> ExitStatus {
        let deadline = Instant::now() + time_max;
        loop {
            if let Some(status) = self.child.try_wait().expect("the agent is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {time_max:?}:\n{}", self.stderr());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Finished {
    /// Fails unless the exit code is this one.
    #[track_caller]
    pub fn expect_code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "exit code; standard error:\n{}", self.stderr);
        self
    }

    /// The ledger that `run` prints at its stop.
    pub fn books(&self) -> Books {
        Books::parse(&self.stderr)
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        text(self.stdout.clone())
    }
}

/// Reads a pipe on a thread, so that a full pipe never holds up the child.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut chunk) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
            }
        });
        Self { bytes, thread: Some(thread) }
    }

    fn text(&self) -> String {
        text(self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn end(&mut self) -> Vec<u8> {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reader does not panic");
        }
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
