//! The programs that start, signal, call and die: C, from `xtask/fixtures/bench`.
//!
//! Refuses: core files. A program that dies here leaves none.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::children::Guarded;
use super::super::machine::cpus;
use super::super::workloads::{compile, first_numbers, on_cpus};

/// The executable that dies; records of other deaths on this machine are not counted.
pub const CRASHER: &str = "bench_crasher";

/// Spawns that are timed to choose how many make a run.
const CALIBRATION_SPAWNS: u64 = 1_000;

/// System calls that are timed to choose how many make a run.
const CALIBRATION_CALLS: u64 = 500_000;

/// Rounds of work that are timed to choose how many make a run.
const CALIBRATION_ROUNDS: u64 = 2_000;

/// No C library, so that the program is nothing but its start and its end.
const TINY_FLAGS: [&str; 3] = ["-static", "-nostdlib", "-ffreestanding"];

/// The executables.
pub struct CrashPrograms {
    spawn_loop: PathBuf,
    tiny: PathBuf,
    handled_signals: PathBuf,
    crasher: PathBuf,
    call_loop: PathBuf,
}

/// A system call in a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The cheapest one that the kernel really enters.
    Getppid,
    /// A line to descriptor 2.
    Stderr,
    /// A signal to itself, which it handles: two calls, the handler's return included.
    Signal,
}

/// Work that signals interrupted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interrupted {
    /// Rounds per second, all CPUs together.
    pub rounds_per_second: f64,
    /// Signals that were handled per second on each CPU.
    pub signals_per_second: f64,
}

impl CrashPrograms {
    pub fn compile(fixtures: &Path, directory: &Path) -> Result<Self> {
        let build = |name: &str, flags: &[&str]| {
            compile(&fixtures.join(format!("{name}.c")), directory.join(name), flags)
        };
        Ok(Self {
            spawn_loop: build("spawn_loop", &[])?,
            tiny: build("tiny", &TINY_FLAGS)?,
            // Before glibc 2.34 timers have a library of their own.
            handled_signals: build("handled_signals", &["-lrt"])?,
            crasher: build(CRASHER, &[])?,
            call_loop: build("call_loop", &[])?,
        })
    }

    /// Starts the tiny program so often on each of so many CPUs at once; returns spawns per second, all together.
    pub fn spawn(&self, count: u64, cpus: usize) -> Result<f64> {
        let tiny = self.tiny.to_str().context("the path of the tiny program is not UTF-8")?;
        let said = on_cpus(cpus, "spawn_loop", &self.spawn_loop, &[&count.to_string(), tiny])?;
        Ok(said.iter().map(|[elapsed_ns]| count as f64 * 1e9 / elapsed_ns).sum())
    }

    /// How many spawns on each CPU take about this long on all of them at once.
    pub fn spawns_of(&self, duration: Duration) -> Result<u64> {
        Ok(share(self.spawn(CALIBRATION_SPAWNS, cpus())?, duration))
    }

    /// Works on every CPU at once while a handled signal comes once per period.
    pub fn work_interrupted(&self, rounds: u64, period: Duration) -> Result<Interrupted> {
        let arguments = [rounds.to_string(), period.as_nanos().to_string()];
        let said: Vec<[f64; 2]> = on_cpus(
            cpus(),
            "handled_signals",
            &self.handled_signals,
            &arguments.each_ref().map(String::as_str),
        )?;
        let sum =
            |of: fn(f64, &[f64; 2]) -> f64| said.iter().map(|said| of(rounds as f64, said)).sum::<f64>();
        Ok(Interrupted {
            rounds_per_second: sum(|rounds, [elapsed_ns, _]| rounds * 1e9 / elapsed_ns),
            signals_per_second: sum(|_, [elapsed_ns, handled]| handled * 1e9 / elapsed_ns) / cpus() as f64,
        })
    }

    /// How many interrupted rounds per CPU take about this long.
    pub fn interrupted_rounds_of(&self, duration: Duration, period: Duration) -> Result<u64> {
        Ok(share(self.work_interrupted(CALIBRATION_ROUNDS, period)?.rounds_per_second, duration))
    }

    /// Makes a system call so often, on the last CPU alone; returns nanoseconds per call.
    pub fn call(&self, call: Call, count: u64) -> Result<f64> {
        let mut command = Command::new(&self.call_loop);
        let name = match call {
            Call::Getppid => "getppid",
            Call::Stderr => "stderr",
            Call::Signal => "signal",
        };
        command.args([&(cpus() - 1).to_string(), &count.to_string(), name]).stdout(Stdio::piped());
        let said = Guarded::start("call_loop", &mut command)?.finish()?;
        let [elapsed_ns] = first_numbers::<1>(&said).with_context(|| format!("call_loop said {said:?}"))?;
        Ok(elapsed_ns / count as f64)
    }

    /// How many calls take about this long.
    pub fn calls_of(&self, call: Call, duration: Duration) -> Result<u64> {
        Ok((duration.as_nanos() as f64 / self.call(call, CALIBRATION_CALLS)?).ceil() as u64)
    }

    /// Lets so many processes die of SIGSEGV, one per period; a period of zero is as fast as `at_once_max` at a time
    /// allow. Returns how long that took.
    pub fn crash(&self, count: u64, period: Duration, at_once_max: u64) -> Result<Duration> {
        let mut command = Command::new(&self.crasher);
        let arguments = [count.to_string(), period.as_micros().to_string(), at_once_max.to_string()];
        command.args(arguments).stdout(Stdio::piped());
        let said = Guarded::start(CRASHER, &mut command)?.finish()?;
        let [elapsed_ns, died] = first_numbers(&said).with_context(|| format!("{CRASHER} said {said:?}"))?;
        anyhow::ensure!(died == count as f64, "{died} of {count} processes died of SIGSEGV");
        Ok(Duration::from_nanos(elapsed_ns as u64))
    }
}

/// One CPU's share of what all do in this time.
fn share(per_second: f64, duration: Duration) -> u64 {
    (per_second / cpus() as f64 * duration.as_secs_f64()).ceil() as u64
}
