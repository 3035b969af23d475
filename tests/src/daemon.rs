//! Servers that the tests start: each gets ready or fails with its log, and goes with its handle.
//!
//! Refuses: to outlive the test. The handle stops the server, and if the test is killed the kernel does
//! (`PR_SET_PDEATHSIG`), so a server is to be started by the thread that keeps its handle.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::cgroup::{Cgroup, entering, held, move_into, wait_until_held};
use crate::strace::{Calls, Strace};

/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(20);

/// How long a server may take to end after it was asked to.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How often a server is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The signal that asks a server to end at once but in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `SIGTERM`: for most.
    Term,
    /// `SIGINT`: for PostgreSQL, to which `SIGTERM` means to wait for its clients.
    Int,
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Int => "INT",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
        }
    }
}

/// A user and its group, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The id of its own group.
    pub gid: u32,
}

impl User {
    /// The first of these that the machine knows.
    pub fn first_known(names: &[&str]) -> Option<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd(5)");
        names.iter().find_map(|name| {
            let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
            let fields = lines.find(|fields| fields.first() == Some(name))?;
            Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
        })
    }

    /// What `setpriv` is told to become this user.
    pub fn setpriv_arguments(self) -> [String; 3] {
        [format!("--reuid={}", self.uid), format!("--regid={}", self.gid), "--clear-groups".to_owned()]
    }
}

/// What a server is started with.
#[derive(Clone, Copy)]
pub struct Launch<'a> {
    /// How it is asked to end.
    pub stop: Stop,
    /// The user it runs as; root, if none is given.
    pub user: Option<User>,
    /// The cgroups it enters before it is executed.
    pub cgroups: &'a [&'a Cgroup],
    /// Whether strace, which stays outside of them, follows it and all that it starts from its `execve` on.
    pub is_traced: bool,
    /// Where its output goes.
    pub log: &'a Path,
}

impl<'a> Launch<'a> {
    /// As root, in the test's own cgroups, ended by `SIGTERM`.
    pub fn plain(log: &'a Path) -> Self {
        Self { stop: Stop::Term, user: None, cgroups: &[], is_traced: false, log }
    }
}

/// A running server.
pub struct Daemon {
    child: Child,
    stop: Stop,
    log: PathBuf,
    strace: Option<Strace>,
}

impl Daemon {
    /// Starts a program with these words as its arguments.
    pub fn start(program: &Path, arguments: &[&str], launch: Launch) -> Self {
        let mut command = if launch.is_traced { held() } else { entering(launch.cgroups) };
        command.args(["/usr/bin/setpriv", "--pdeathsig", launch.stop.name()]);
        if let Some(user) = launch.user {
            command.args(user.setpriv_arguments());
        }
        command.arg("--").arg(program).args(arguments);
        Self::spawn(command, launch)
    }

    fn spawn(mut command: Command, launch: Launch) -> Self {
        let log = std::fs::File::create(launch.log).expect("the log's directory exists");
        let same_log = log.try_clone().expect("a file descriptor");
        command.stdin(Stdio::null()).stdout(log).stderr(same_log).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let strace = launch.is_traced.then(|| {
            wait_until_held(child.id());
            move_into(child.id(), launch.cgroups);
            let strace = Strace::attach(child.id());
            kill_process(Pid::from_child(&child), Signal::CONT).expect("our child");
            strace
        });
        Self { child, stop: launch.stop, log: launch.log.to_owned(), strace }
    }

    /// Ends a traced server in order; returns what it and all that it started did from first to last.
    pub fn calls(mut self) -> Calls {
        let strace = self.strace.take().expect("it is traced");
        assert!(self.end(), "it had to be killed; its log:\n{}", self.log());
        strace.finish()
    }

    /// The process id of the server's first process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the server answers. Fails with its log if it ends or takes too long.
    pub fn wait_until(&mut self, what: &str, is_ready: impl Fn() -> bool) {
        let deadline = Instant::now() + START_MAX;
        while !is_ready() {
            let ended = self.child.try_wait().expect("the server is our child");
            let in_time = Instant::now() < deadline;
            assert!(ended.is_none() && in_time, "{what} is not ready (ended: {ended:?}):\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Asks the server to end and waits for it. One that does not is killed; returns whether it ended by itself.
    fn end(&mut self) -> bool {
        // Until it is waited for, its id stays ours. It may have ended already.
        let _ended = kill_process(Pid::from_child(&self.child), self.stop.signal());
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(POLL);
        }
        let _killed = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _reaped = self.child.wait();
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && !self.end() {
            eprintln!("a server had to be killed; its log:\n{}", self.log());
        }
    }
}
