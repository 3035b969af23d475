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
    let together = Together::measure(bench)?;
    let turns = Turns::measure(bench)?;
    let (together_ratio, turns_ratio) = (together.ours_ns / together.peer_ns, turns.ratio.median);
    let rows = [
        vec![
            format!("at the same time, {}", seconds(bench.plan.kernel_time_together)),
            format!("{:.0} ({} samples)", together.ours_ns, together.ours_runs),
            format!("{:.0} ({} samples)", together.peer_ns, together.peer_runs),
            format!("{together_ratio:.3}"),
        ],
        vec![
            format!(
                "in turns A B B A, {} each, {} pairs",
                seconds(bench.plan.kernel_time_alone),
                turns.ratio.runs
            ),
            turns.ours_ns.text(0),
            turns.peer_ns.text(0),
            turns.ratio.text(3),
        ],
    ];
    let text = format!(
        "{}\n{}\nIn turns: the median of the runs, least and most in brackets; the ratio is taken pair by pair.\n",
        introduction(),
        table(&["", "Kansoku ns per sample", "bpftrace ns per sample", "ratio"], &rows)
    );
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

struct Together {
    ours_ns: f64,
    ours_runs: u64,
    peer_ns: f64,
    peer_runs: u64,
}

impl Together {
    fn measure(bench: &Bench) -> Result<Self> {
        let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
        let peer = Peer::start(bench)?;
        agent.run_for(bench.plan.settle)?;
        let [ours, theirs] = runs_during([agent.pid(), peer.pid()], bench.plan.kernel_time_together)?;
        agent.stop(bench)?;
        Ok(Self {
            ours_ns: ours.ns_per_run().context("the agent")?,
            ours_runs: ours.runs,
            peer_ns: theirs.ns_per_run().context("bpftrace")?,
            peer_runs: theirs.runs,
        })
    }
}

struct Turns {
    ours_ns: Spread,
    peer_ns: Spread,
    ratio: Spread,
}

impl Turns {
    fn measure(bench: &Bench) -> Result<Self> {
        let (mut ours_ns, mut peer_ns) = (Vec::new(), Vec::new());
        for _ in 0..bench.plan.kernel_time_rounds {
            ours_ns.push(ours_alone(bench)?);
            peer_ns.push(peer_alone(bench)?);
            peer_ns.push(peer_alone(bench)?);
            ours_ns.push(ours_alone(bench)?);
        }
        let ratios: Vec<f64> = ours_ns.iter().zip(&peer_ns).map(|(ours, theirs)| ours / theirs).collect();
        let spread = |values: &[f64]| Spread::of(values).context("there were no turns");
        Ok(Self { ours_ns: spread(&ours_ns)?, peer_ns: spread(&peer_ns)?, ratio: spread(&ratios)? })
    }
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
