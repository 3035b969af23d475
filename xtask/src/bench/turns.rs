//! The speed of programs with and without the agent, in turns, and what that says about the agent.
//!
//! Refuses: one long run of each. Runs alternate A B B A, so that a drift of the machine falls on both alike.

use anyhow::{Context, Result};

use super::agent::{Agent, FREQUENCY_HZ};
use super::numbers::Spread;
use super::report::table;
use super::setup::Bench;

/// Speeds, run by run; equal places are pairs.
#[derive(Default)]
pub struct Speeds {
    without: Vec<f64>,
    with: Vec<f64>,
}

/// What the speeds say.
pub struct Ratios {
    pub of_medians: f64,
    pub by_pair: Spread,
    /// The last run without the agent against the first of the same round: what the machine does by itself.
    pub noise: Spread,
    pub without: Spread,
    pub with: Spread,
}

impl Speeds {
    /// Rounds of one agent with these settings against none, or against one with the settings of `baseline`; `run`
    /// returns the speed of one run.
    pub fn measure(
        bench: &Bench,
        rounds: usize,
        settings: &[&str],
        baseline: Option<&[&str]>,
        mut run: impl FnMut() -> Result<f64>,
    ) -> Result<Ratios> {
        let mut speeds = Self::default();
        for round in 0..rounds {
            eprintln!("bench: round {} of {rounds}", round + 1);
            speeds.measure_round(bench, settings, baseline, &mut run)?;
        }
        speeds.ratios()
    }

    /// A round that was measured elsewhere, in the order without, with, with, without.
    pub fn add_round(&mut self, without: [f64; 2], with: [f64; 2]) {
        self.without.extend(without);
        self.with.extend(with);
    }

    fn measure_round(
        &mut self,
        bench: &Bench,
        settings: &[&str],
        baseline: Option<&[&str]>,
        run: &mut impl FnMut() -> Result<f64>,
    ) -> Result<()> {
        self.without.push(under(bench, baseline, run)?);
        let mut agent = Agent::start_with(bench, FREQUENCY_HZ, settings)?;
        agent.run_for(bench.plan.settle)?;
        for _ in 0..2 {
            self.with.push(run()?);
        }
        agent.stop(bench)?;
        self.without.push(under(bench, baseline, run)?);
        Ok(())
    }

    /// What the rounds say; an error without any.
    pub fn ratios(&self) -> Result<Ratios> {
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

/// One run beside nobody, or beside an agent with these settings.
fn under(bench: &Bench, baseline: Option<&[&str]>, run: &mut impl FnMut() -> Result<f64>) -> Result<f64> {
    let Some(settings) = baseline else { return run() };
    let mut agent = Agent::start_with(bench, FREQUENCY_HZ, settings)?;
    agent.run_for(bench.plan.settle)?;
    let speed = run()?;
    agent.stop(bench)?;
    Ok(speed)
}

impl Ratios {
    /// A table; `unit` is what the speeds count.
    pub fn table(&self, unit: &str) -> String {
        let row = |name: String, text: String| vec![name, text];
        let rows = [
            row("ratio of medians".to_owned(), format!("{:.4}", self.of_medians)),
            row("ratio by pair".to_owned(), self.by_pair.text(4)),
            row("noise: without against without".to_owned(), self.noise.text(4)),
            row(format!("{unit} per second without"), self.without.text(0)),
            row(format!("{unit} per second with"), self.with.text(0)),
        ];
        table(&["", "median (least to most)"], &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_of_medians_pairs_and_noise() {
        let mut speeds = Speeds::default();
        speeds.add_round([100.0, 110.0], [99.0, 99.0]);
        speeds.add_round([100.0, 90.0], [98.0, 90.0]);
        let ratios = speeds.ratios().expect("there are runs");
        assert_eq!(ratios.of_medians, 98.5 / 100.0);
        assert_eq!(ratios.by_pair.most, 1.0);
        assert_eq!((ratios.noise.least, ratios.noise.most), (0.9, 1.1));
        assert!(Speeds::default().ratios().is_err());
    }
}
