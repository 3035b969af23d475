//! The agent under measurement, with its backend, and bpftrace as its peer.
//!
//! Refuses: configuration from this machine. Files and variables of the agent are shut out.

use std::env;
use std::fs;
use std::io::ErrorKind;
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

/// What the ledger begins with: the rule above its table.
const LEDGER_RULE: char = '─';

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
    /// Starts the agent as it is by default and waits until it samples.
    pub fn start(bench: &Bench, frequency_hz: u32) -> Result<Self> {
        Self::start_with(bench, frequency_hz, &[])
    }

    /// Starts the agent with these settings, an empty spool, and waits until it samples.
    pub fn start_with(bench: &Bench, frequency_hz: u32, settings: &[&str]) -> Result<Self> {
        empty_spool(bench)?;
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
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            // A variable, which older agents ignore: they can still be measured.
            .env("KANSOKU_CRASH_SPOOL", bench.spool())
            .arg("--config")
            .arg(&bench.config)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the agent's log")?)
            .stderr(log);
        let mut process = Guarded::start("the agent", &mut command)?;
        wait_until(&mut process, "a perf_event program", |held| held.sampler().is_ok())
            .with_context(|| format!("see {AGENT_LOG} in target/bench"))?;
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
        let log = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let log =
            String::from_utf8_lossy(log.get(self.log_start as usize..).unwrap_or_default()).into_owned();
        if !status.success() {
            bail!("the agent failed when it was stopped ({status}): {}", log.lines().last().unwrap_or(""));
        }
        let received = self.sink.received();
        if received.requests == 0 {
            bail!("the agent exported nothing; see {}", path.display());
        }
        Ok(Stopped { received, ledger: ledger(&log).to_owned() })
    }
}

/// A running bpftrace; it is killed at its end, because printing its maps takes long.
pub struct Peer {
    process: Guarded,
}

impl Peer {
    /// Starts bpftrace's sampler and waits until it samples.
    pub fn start(bench: &Bench) -> Result<Self> {
        Self::start_program(bench, PEER_PROGRAM, |held| held.sampler().is_ok())
    }

    /// Starts bpftrace with a program and waits until it holds what makes it ready.
    pub fn start_program(bench: &Bench, program: &str, is_ready: impl Fn(&Held) -> bool) -> Result<Self> {
        let (_, log) = bench.log(PEER_LOG)?;
        let mut command = Command::new("bpftrace");
        command.args(["-e", program]).stdin(Stdio::null());
        command.stdout(log.try_clone().context("share bpftrace's log")?).stderr(log);
        let mut process = Guarded::start("bpftrace", &mut command)
            .context("is it installed? (apt-get install bpftrace)")?;
        wait_until(&mut process, "the program", is_ready)
            .with_context(|| format!("see {PEER_LOG} in target/bench"))?;
        Ok(Self { process })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The ledger in an agent's log; what the agent still logs before it is left out.
fn ledger(log: &str) -> &str {
    let end = log.split_once(STOPPING).map_or("", |(_, end)| end);
    end.find(LEDGER_RULE).map_or(end, |start| &end[start..]).trim()
}

/// Records of an earlier agent must not be counted, nor sent by the next one.
fn empty_spool(bench: &Bench) -> Result<()> {
    let spool = bench.spool();
    match fs::remove_dir_all(&spool) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("empty {}", spool.display()))
        }
        _ => Ok(()),
    }
}

fn wait_until(process: &mut Guarded, what: &str, is_ready: impl Fn(&Held) -> bool) -> Result<()> {
    const POLL: Duration = Duration::from_millis(100);
    let end = Instant::now() + START_TIME_MAX;
    while Instant::now() < end {
        process.check_running()?;
        if Held::of(process.pid()).is_ok_and(|held| is_ready(&held)) {
            return Ok(());
        }
        pause(POLL)?;
    }
    bail!("{what} is not there after {} s", START_TIME_MAX.as_secs());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(end: &str, expected: &str) {
        assert_eq!(ledger(&format!("INFO started\n{STOPPING}{end}")), expected, "{end}");
    }

    #[test]
    fn the_ledger_is_what_comes_last() {
        check("\n───\n signal\n───\n", "───\n signal\n───");
        check("\nINFO a record\n───\n signal\n", "───\n signal");
        check("\nno table\n", "no table");
        assert_eq!(ledger("INFO started\n"), "");
    }
}
