//! What observing every system call costs the call: the agent's hook, and what a ring of the last calls would need.
//!
//! Refuses: an estimate of the ring. bpftrace keeps the last call of each thread, which is the least a ring does.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::super::agent::{Agent, FREQUENCY_HZ, Peer};
use super::super::figures::Measured;
use super::super::interrupt::pause;
use super::super::io::NO_BUDGET;
use super::super::numbers::{Spread, seconds};
use super::super::report::table;
use super::super::setup::Bench;
use super::super::tools::find;
use super::programs::Call;
use super::spawns::NO_STDERR;

/// The last call of each thread and its result. `->` is understood by all versions.
const RING_PROGRAM: &str = "tracepoint:raw_syscalls:sys_enter { @[tid] = args->id } \
                            tracepoint:raw_syscalls:sys_exit { @r[tid] = args->ret }";

const RING_PROGRAMS: usize = 2;

/// Where bpftrace looks for tracepoints.
const TRACEPOINTS: [&str; 2] =
    ["/sys/kernel/tracing/events/raw_syscalls", "/sys/kernel/debug/tracing/events/raw_syscalls"];

/// Who observes the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Observer {
    Nobody,
    Agent,
    AgentWithoutStderr,
    Ring,
}

/// Nobody at both ends, so that a drift of the machine shows.
const TURNS: [Observer; 5] =
    [Observer::Nobody, Observer::Agent, Observer::AgentWithoutStderr, Observer::Ring, Observer::Nobody];

/// Nanoseconds per call, run by run.
#[derive(Default)]
struct Runs {
    by_observer: [Vec<f64>; 4],
    /// Why there is no ring.
    ring_error: Option<anyhow::Error>,
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let calls = bench.crash_programs.calls_of(Call::Getppid, bench.plan.crash_run / 2)?;
    let mut runs = Runs::default();
    for round in 0..bench.plan.crash_call_rounds {
        let mut turns = TURNS;
        if round % 2 == 1 {
            turns.reverse();
        }
        for observer in turns {
            runs.measure(bench, observer, calls)?;
        }
    }
    let text = format!(
        "A loop of getppid on one CPU, two runs of about {} per turn, {} rounds. The ring: `bpftrace -e '{RING_PROGRAM}'`, \
         which is two hooks and two maps; a ring of the last calls needs both hooks and more than that in each.\n\n{}",
        seconds(bench.plan.crash_run / 2),
        bench.plan.crash_call_rounds,
        runs.table()?,
    );
    Ok(Measured { summary: runs.summary()?, is_met: None, text })
}

impl Runs {
    fn measure(&mut self, bench: &Bench, observer: Observer, calls: u64) -> Result<()> {
        let pair = || -> Result<[f64; 2]> {
            let run = || bench.crash_programs.call(Call::Getppid, calls);
            Ok([run()?, run()?])
        };
        let with_agent = |settings: &[&str]| {
            let mut agent = Agent::start_with(bench, FREQUENCY_HZ, settings)?;
            agent.run_for(bench.plan.settle)?;
            let pair = pair()?;
            agent.stop(bench)?;
            Ok::<_, anyhow::Error>(pair)
        };
        let pair = match observer {
            Observer::Nobody => pair()?,
            Observer::Agent => with_agent(&[NO_BUDGET])?,
            Observer::AgentWithoutStderr => with_agent(&[NO_BUDGET, NO_STDERR])?,
            Observer::Ring => match start_ring(bench) {
                Ok(_ring) => pair()?,
                Err(error) => {
                    self.ring_error = Some(error);
                    return Ok(());
                }
            },
        };
        self.by_observer[observer as usize].extend(pair);
        Ok(())
    }

    fn of(&self, observer: Observer) -> Option<Spread> {
        Spread::of(&self.by_observer[observer as usize])
    }

    /// What the observer adds to a call.
    fn cost_ns(&self, observer: Observer) -> Option<f64> {
        Some(self.of(observer)?.median - self.of(Observer::Nobody)?.median)
    }

    fn table(&self) -> Result<String> {
        let nobody = self.of(Observer::Nobody).context("there were no runs")?;
        let row = |(name, observer): (&str, Observer)| match self.of(observer) {
            Some(ns) => vec![
                name.to_owned(),
                ns.text(1),
                format!("{:+.1}", ns.median - nobody.median),
                format!("{:.2}", ns.median / nobody.median),
            ],
            None => vec![name.to_owned(), self.not_measured(), String::new(), String::new()],
        };
        let rows = [
            ("nobody", Observer::Nobody),
            ("the agent", Observer::Agent),
            ("the agent with `crash.stderr=false`", Observer::AgentWithoutStderr),
            ("the last call of each thread (bpftrace)", Observer::Ring),
        ];
        Ok(table(&["observed by", "ns per call", "more than nobody", "ratio"], &rows.map(row)))
    }

    fn summary(&self) -> Result<String> {
        let hook_ns = self.cost_ns(Observer::Agent).context("there were no runs")?;
        Ok(match self.cost_ns(Observer::Ring) {
            Some(ring_ns) => {
                format!("ns per call: {ring_ns:+.0} with the last calls, {hook_ns:+.0} with the agent's hook")
            }
            None => format!(
                "ns per call: {hook_ns:+.0} with the agent's hook; the last calls {}",
                self.not_measured()
            ),
        })
    }

    fn not_measured(&self) -> String {
        self.ring_error.as_ref().map_or("not measured".to_owned(), |error| format!("not measured: {error:#}"))
    }
}

fn start_ring(bench: &Bench) -> Result<Peer> {
    if find("bpftrace").is_none() {
        bail!("no bpftrace");
    }
    if !TRACEPOINTS.iter().any(|path| Path::new(path).exists()) {
        bail!("no tracefs (mount -t tracefs none /sys/kernel/tracing)");
    }
    let is_ready = |held: &super::super::programs::Held| held.tracepoint_programs() >= RING_PROGRAMS;
    let ring = Peer::start_program(bench, RING_PROGRAM, is_ready)?;
    pause(bench.plan.settle)?;
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(by_observer: [&[f64]; 4]) -> Runs {
        Runs { by_observer: by_observer.map(<[f64]>::to_vec), ring_error: None }
    }

    #[test]
    fn costs_are_above_nobody() {
        let runs = runs([&[100.0, 102.0], &[131.0], &[101.0], &[401.0]]);
        let summary = runs.summary().expect("there are runs");
        assert_eq!(summary, "ns per call: +300 with the last calls, +30 with the agent's hook");
        let table = runs.table().expect("there are runs");
        assert!(table.contains("| nobody | 101.0 (100.0 to 102.0) | +0.0 | 1.00 |"), "{table}");
    }

    #[test]
    fn a_ring_that_is_missing_says_why() {
        let mut runs = runs([&[100.0], &[130.0], &[101.0], &[]]);
        runs.ring_error = Some(anyhow::anyhow!("no bpftrace"));
        let summary = runs.summary().expect("there are runs");
        assert_eq!(
            summary,
            "ns per call: +30 with the agent's hook; the last calls not measured: no bpftrace"
        );
        assert!(runs.table().expect("there are runs").contains("not measured: no bpftrace"));
        assert!(Runs::default().table().is_err());
    }
}
