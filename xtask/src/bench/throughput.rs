//! The speed of CPU-bound programs with and without the agent.
//!
//! Refuses: one long run of each. Runs alternate A B B A, so that a drift of the machine falls on both alike.

use anyhow::{Context, Result};

use super::agent::{Agent, FREQUENCY_HZ};
use super::figures::Measured;
use super::numbers::{Spread, seconds};
use super::report::table;
use super::setup::Bench;

pub const TARGET_RATIO_MIN: f64 = 0.995;

pub fn measure(bench: &Bench) -> Result<Measured> {
    let rounds = bench.workloads.rounds_of(bench.plan.throughput_work)?;
    let mut speeds = Speeds::default();
    for round in 0..bench.plan.throughput_rounds {
        eprintln!("bench: round {} of {}", round + 1, bench.plan.throughput_rounds);
        speeds.measure_round(bench, rounds)?;
    }
    let ratios = speeds.ratios()?;
    let introduction = format!(
        "Fixed work on every CPU at once, about {} per run, {} pairs in the order without, with, with, without. \
         The agent runs at {FREQUENCY_HZ} Hz and exports to a backend on the same machine, whose cost counts too.\n",
        seconds(bench.plan.throughput_work),
        ratios.by_pair.runs,
    );
    let row = |name: &str, text: String| vec![name.to_owned(), text];
    let rows = [
        row("ratio of medians", format!("{:.4}", ratios.of_medians)),
        row("ratio by pair", ratios.by_pair.text(4)),
        row("noise: without against without", ratios.noise.text(4)),
        row("rounds per second without", ratios.without.text(0)),
        row("rounds per second with", ratios.with.text(0)),
    ];
    Ok(Measured {
        summary: format!("ratio {:.4}", ratios.of_medians),
        is_met: Some(ratios.of_medians >= TARGET_RATIO_MIN),
        text: format!("{introduction}\n{}", table(&["", "median (least to most)"], &rows)),
    })
}

/// Rounds per second, run by run; equal places are pairs.
#[derive(Default)]
struct Speeds {
    without: Vec<f64>,
    with: Vec<f64>,
}

struct Ratios {
    of_medians: f64,
    by_pair: Spread,
    /// The last run without the agent against the first of the same round: what the machine does by itself.
    noise: Spread,
    without: Spread,
    with: Spread,
}

impl Speeds {
    fn measure_round(&mut self, bench: &Bench, rounds: u64) -> Result<()> {
        self.without.push(bench.workloads.do_fixed_work(rounds)?);
        let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
        agent.run_for(bench.plan.settle)?;
        for _ in 0..2 {
            self.with.push(bench.workloads.do_fixed_work(rounds)?);
        }
        agent.stop(bench)?;
        self.without.push(bench.workloads.do_fixed_work(rounds)?);
        Ok(())
    }

    fn ratios(&self) -> Result<Ratios> {
        let pairs: Vec<f64> =
            self.with.iter().zip(&self.without).map(|(with, without)| with / without).collect();
        let noise: Vec<f64> = self.without.chunks_exact(2).map(|round| round[1] / round[0]).collect();
        let spread = |values: &[f64]| Spread::of(values).context("there were no runs");
        let (without, with) = (spread(&self.without)?, spread(&self.with)?);
        Ok(Ratios {
            of_medians: with.median / without.median,
            by_pair: spread(&pairs)?,
            noise: spread(&noise)?,
            without,
            with,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_of_medians_pairs_and_noise() {
        let speeds = Speeds { without: vec![100.0, 110.0, 100.0, 90.0], with: vec![99.0, 99.0, 98.0, 90.0] };
        let ratios = speeds.ratios().expect("there are runs");
        assert_eq!(ratios.of_medians, 98.5 / 100.0);
        assert_eq!(ratios.by_pair.most, 1.0);
        assert_eq!((ratios.noise.least, ratios.noise.most), (0.9, 1.1));
        assert!(Speeds::default().ratios().is_err());
    }
}
