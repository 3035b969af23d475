//! The agent under measurement, with its backend, and bpftrace as its peer.
//!
//! Refuses: configuration from this machine. Files and variables of the agent are shut out.

use std::env;
use std::io::{Seek, SeekFrom};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::children::Guarded;
use super::interrupt::pause;
use super::programs::Held;
use super::setup::{AGENT_LOG, Bench, PEER_LOG};
use super::sink::{HttpSink, Received};

/// The frequency of all figures that do not vary it.
pub const FREQUENCY_HZ: u32 = 97;

/// What bpftrace runs: the same aggregation in its own terms.
pub const PEER_PROGRAM: &str = "profile:hz:97 { @[ustack, kstack, comm] = count(); }";

/// Until the sampler is attached; bpftrace compiles its program first.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// The agent sends what it has before it ends.
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// An agent whose bench was killed ends by itself after this long.
const LIFETIME_MAX: &str = "2h";

/// The line after which the agent prints its ledger.
const STOPPING: &str = "stopping: what was collected still goes out";

/// A running agent that exports to a backend of its own.
pub struct Agent {
    process: Guarded,
    sink: HttpSink,
    log_start: u64,
}

/// What an agent leaves behind.
pub struct Stopped {
    pub received: Received,
    /// The agent's own account of what it saw and lost.
    pub ledger: String,
}

impl Agent {
    /// Starts the agent and waits until it samples.
    pub fn start(bench: &Bench, frequency_hz: u32) -> Result<Self> {
        let sink = HttpSink::start()?;
        let (_, mut log) = bench.log(AGENT_LOG)?;
        let log_start = log.seek(SeekFrom::End(0)).context("find the end of the agent's log")?;
        let mut command = Command::new(&bench.agent);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("OTEL_") || text.starts_with("KANSOKU_") {
                command.env_remove(name);
            }
        }
        command
            .args([
                "run",
                "--duration",
                LIFETIME_MAX,
                "--set",
                &format!("profile.frequency_hz={frequency_hz}"),
            ])
            .arg("--config")
            .arg(&bench.config)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the agent's log")?)
            .stderr(log);
        let mut process = Guarded::start("the agent", &mut command)?;
        wait_for_sampler(&mut process).with_context(|| format!("see {AGENT_LOG} in target/bench"))?;
        Ok(Self { process, sink, log_start })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits while the agent runs.
    pub fn run_for(&mut self, duration: Duration) -> Result<()> {
        pause(duration)?;
        self.process.check_running()
    }

    /// Stops the agent as a service manager does; an agent that exported nothing was not measured.
    pub fn stop(self, bench: &Bench) -> Result<Stopped> {
        let status = self.process.terminate(STOP_TIME_MAX)?;
        let (path, _) = bench.log(AGENT_LOG)?;
        let log = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let log =
            String::from_utf8_lossy(log.get(self.log_start as usize..).unwrap_or_default()).into_owned();
        if !status.success() {
            bail!("the agent failed when it was stopped ({status}): {}", log.lines().last().unwrap_or(""));
        }
        let received = self.sink.received();
        if received.requests == 0 {
            bail!("the agent exported nothing; see {}", path.display());
        }
        let ledger = log.split_once(STOPPING).map_or("", |(_, ledger)| ledger).trim().to_owned();
        Ok(Stopped { received, ledger })
    }
}

/// A running bpftrace; it is killed at its end, because printing its maps takes long.
pub struct Peer {
    process: Guarded,
}

impl Peer {
    /// Starts bpftrace and waits until it samples.
    pub fn start(bench: &Bench) -> Result<Self> {
        let (_, log) = bench.log(PEER_LOG)?;
        let mut command = Command::new("bpftrace");
        command.args(["-e", PEER_PROGRAM]).stdin(Stdio::null());
        command.stdout(log.try_clone().context("share bpftrace's log")?).stderr(log);
        let mut process = Guarded::start("bpftrace", &mut command)
            .context("is it installed? (apt-get install bpftrace)")?;
        wait_for_sampler(&mut process).with_context(|| format!("see {PEER_LOG} in target/bench"))?;
        Ok(Self { process })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn wait_for_sampler(process: &mut Guarded) -> Result<()> {
    const POLL: Duration = Duration::from_millis(100);
    let end = Instant::now() + START_TIME_MAX;
    while Instant::now() < end {
        process.check_running()?;
        if Held::of(process.pid()).is_ok_and(|held| held.sampler().is_ok()) {
            return Ok(());
        }
        pause(POLL)?;
    }
    bail!("no perf_event program after {} s", START_TIME_MAX.as_secs());
}
