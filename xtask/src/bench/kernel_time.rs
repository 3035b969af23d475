//! Kernel time per sample: the agent's sampling program against bpftrace's, by the kernel's own statistics.
//!
//! Refuses: comparing runs of different loads. Both sample the same deep stack, at the same time and in turns.

use std::time::Duration;

use anyhow::{Context, Result};

use super::agent::{Agent, FREQUENCY_HZ, PEER_PROGRAM, Peer};
use super::figures::Measured;
use super::interrupt::pause;
use super::numbers::{Spread, seconds};
use super::programs::{Held, ProgramRuns, Statistics};
use super::report::table;
use super::setup::Bench;
use super::workloads::DEEP_SPIN_FRAMES;

pub fn measure(bench: &Bench) -> Result<Measured> {
    let _statistics = Statistics::switch_on()?;
    let _load = bench.workloads.start_deep_spin()?;
    match Peer::start(bench) {
        Ok(peer) => {
            drop(peer);
            compare(bench)
        }
        Err(error) => without_peer(bench, &error),
    }
}

fn compare(bench: &Bench) -> Result<Measured> {
    let mut together = Series::default();
    let mut in_turns = Series::default();
    for round in 0..bench.plan.kernel_time_rounds {
        eprintln!("bench: round {} of {}", round + 1, bench.plan.kernel_time_rounds);
        // Who starts first may get the place in the timer's queue that finds the stack in no cache.
        together.push(both(bench, Order::OursFirst)?);
        together.push(both(bench, Order::PeerFirst)?);
        let first_ns = ours_alone(bench)?;
        in_turns.push((first_ns, peer_alone(bench)?));
        let first_ns = peer_alone(bench)?;
        in_turns.push((ours_alone(bench)?, first_ns));
    }
    let (together, in_turns) = (together.spreads()?, in_turns.spreads()?);
    let plan = &bench.plan;
    let rows = [
        together.row(&format!("at the same time, {} each", seconds(plan.kernel_time_together))),
        in_turns.row(&format!("in turns A B B A, {} each", seconds(plan.kernel_time_alone))),
    ];
    let header = ["", "pairs", "Kansoku ns per sample", "bpftrace ns per sample", "ratio"];
    let text = format!(
        "{}\n{}\nMedians, least and most in brackets; the ratio is taken pair by pair.\n",
        introduction(),
        table(&header, &rows)
    );
    let (together_ratio, turns_ratio) = (together.ratio.median, in_turns.ratio.median);
    Ok(Measured {
        summary: format!("ratio {together_ratio:.3} at the same time, {turns_ratio:.3} in turns"),
        is_met: Some(together_ratio <= 1.0 && turns_ratio <= 1.0),
        text,
    })
}

fn introduction() -> String {
    format!(
        "Run time per run of the perf_event program (`run_time_ns / run_cnt`), both at {FREQUENCY_HZ} Hz, while every CPU \
         spins below a user stack of {DEEP_SPIN_FRAMES} frames. Peer: `bpftrace -e '{PEER_PROGRAM}'`.\n"
    )
}

fn without_peer(bench: &Bench, error: &anyhow::Error) -> Result<Measured> {
    let ours_ns = ours_alone(bench)?;
    Ok(Measured {
        summary: format!("{ours_ns:.0} ns; bpftrace not measured"),
        is_met: None,
        text: format!(
            "{}\nKansoku: {ours_ns:.0} ns per sample. bpftrace: not measured: {error:#}\n",
            introduction()
        ),
    })
}

/// Nanoseconds per sample; equal places are pairs.
#[derive(Default)]
struct Series {
    ours_ns: Vec<f64>,
    peer_ns: Vec<f64>,
}

struct Spreads {
    ours_ns: Spread,
    peer_ns: Spread,
    ratio: Spread,
}

impl Series {
    fn push(&mut self, (ours_ns, peer_ns): (f64, f64)) {
        self.ours_ns.push(ours_ns);
        self.peer_ns.push(peer_ns);
    }

    fn spreads(&self) -> Result<Spreads> {
        let ratios: Vec<f64> =
            self.ours_ns.iter().zip(&self.peer_ns).map(|(ours, theirs)| ours / theirs).collect();
        let spread = |values: &[f64]| Spread::of(values).context("there were no rounds");
        Ok(Spreads {
            ours_ns: spread(&self.ours_ns)?,
            peer_ns: spread(&self.peer_ns)?,
            ratio: spread(&ratios)?,
        })
    }
}

impl Spreads {
    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            self.ratio.runs.to_string(),
            self.ours_ns.text(0),
            self.peer_ns.text(0),
            self.ratio.text(3),
        ]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    OursFirst,
    PeerFirst,
}

/// Nanoseconds per sample of the agent and of bpftrace while both run.
fn both(bench: &Bench, order: Order) -> Result<(f64, f64)> {
    let early_peer = if order == Order::PeerFirst { Some(Peer::start(bench)?) } else { None };
    let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
    let peer = match early_peer {
        Some(peer) => peer,
        None => Peer::start(bench)?,
    };
    agent.run_for(bench.plan.settle)?;
    let [ours, theirs] = runs_during([agent.pid(), peer.pid()], bench.plan.kernel_time_together)?;
    agent.stop(bench)?;
    Ok((ours.ns_per_run().context("the agent")?, theirs.ns_per_run().context("bpftrace")?))
}

fn ours_alone(bench: &Bench) -> Result<f64> {
    let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
    agent.run_for(bench.plan.settle)?;
    let [ours] = runs_during([agent.pid()], bench.plan.kernel_time_alone)?;
    agent.stop(bench)?;
    ours.ns_per_run().context("the agent")
}

fn peer_alone(bench: &Bench) -> Result<f64> {
    let peer = Peer::start(bench)?;
    pause(bench.plan.settle)?;
    let [theirs] = runs_during([peer.pid()], bench.plan.kernel_time_alone)?;
    theirs.ns_per_run().context("bpftrace")
}

/// The runs of each process's sampler during the same time.
fn runs_during<const PROCESSES: usize>(
    pids: [u32; PROCESSES],
    duration: Duration,
) -> Result<[ProgramRuns; PROCESSES]> {
    let read = || pids.iter().map(|&pid| Held::of(pid)?.sampler()).collect::<Result<Vec<_>>>();
    let before = read()?;
    pause(duration)?;
    let after = read()?;
    let mut runs = [ProgramRuns::default(); PROCESSES];
    for (runs, (after, before)) in runs.iter_mut().zip(after.into_iter().zip(before)) {
        *runs = after.since(before);
    }
    Ok(runs)
}
