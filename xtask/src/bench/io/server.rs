//! A server in a temporary directory: it ends with its guard, as a service manager ends it, and its files go too.
//!
//! Refuses: to kill at once. The workers of a killed server stay behind.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::super::children::Guarded;
use super::super::interrupt::pause;
use super::super::setup::{Bench, SERVER_LOG};

const START_TIME_MAX: Duration = Duration::from_secs(30);

const STOP_TIME_MAX: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(50);

/// A running server.
pub struct Server {
    name: &'static str,
    process: Option<Guarded>,
    /// After the process, so that it is there until the process has ended.
    directory: TempDir,
}

/// A command that is asked to end when the bench is killed, as this user if one is given.
pub fn command(program: &OsStr, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// An empty directory below the system's temporary one.
pub fn directory() -> Result<TempDir> {
    TempDir::with_prefix("kansoku-bench-").context("make a temporary directory")
}

/// A port that is free now; servers cannot choose one themselves and tell.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("read the listening address")
}

impl Server {
    /// Starts a command and waits until the server answers.
    pub fn start(
        bench: &Bench,
        name: &'static str,
        command: &mut Command,
        directory: TempDir,
        is_ready: impl Fn() -> bool,
    ) -> Result<Self> {
        let (_, log) = bench.log(SERVER_LOG)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().context("share the servers' log")?).stderr(log);
        let process = Guarded::start(name, command)?;
        let mut server = Self { name, process: Some(process), directory };
        let end = Instant::now() + START_TIME_MAX;
        while !is_ready() {
            server.check_running()?;
            if Instant::now() >= end {
                bail!("{name} does not answer; see {SERVER_LOG} in target/bench");
            }
            pause(POLL)?;
        }
        Ok(server)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn check_running(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("it has ended")?;
        process.check_running().with_context(|| format!("see {SERVER_LOG} in target/bench"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = self.process.take()
            && let Err(error) = process.terminate(STOP_TIME_MAX)
        {
            eprintln!("bench: {}: {error:#}", self.name);
        }
    }
}
