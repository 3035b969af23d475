//! The speed of a program that handles many signals, with and without the crash probes of the agent.
//!
//! Refuses: to trust the timer. The rate is what the handler counted, and a lower one than was wanted has no verdict.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::figures::Measured;
use super::super::numbers::{Spread, seconds};
use super::super::setup::Bench;
use super::super::turns::Speeds;
use super::spawns::NO_CRASHES;

pub const TARGET_RATIO_MIN: f64 = 0.99;

/// 10 kHz.
pub const PERIOD: Duration = Duration::from_micros(100);

/// On a busy machine signals merge; less than this is another, easier load.
const SIGNALS_PER_SECOND_MIN: f64 = 9_000.0;

pub fn target() -> String {
    format!("ratio >= {TARGET_RATIO_MIN}")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let programs = &bench.crash_programs;
    let rounds = programs.interrupted_rounds_of(bench.plan.crash_run, PERIOD)?;
    let mut rates = Vec::new();
    let ratios = Speeds::measure(bench, bench.plan.crash_rounds, &[], Some(&[NO_CRASHES]), || {
        let run = programs.work_interrupted(rounds, PERIOD)?;
        rates.push(run.signals_per_second);
        Ok(run.rounds_per_second)
    })?;
    let rate = Spread::of(&rates).context("there were no runs")?;
    let text = format!(
        "Fixed work on every CPU at once, about {} per run, {} pairs in the order without, with, with, without, while a \
         timer of each thread sends it a SIGPROF every {} µs, which it handles. Handled per second and CPU: {}.\n\n{}",
        seconds(bench.plan.crash_run),
        ratios.by_pair.runs,
        PERIOD.as_micros(),
        rate.text(0),
        ratios.table("rounds"),
    );
    Ok(Measured {
        summary: format!("ratio {:.4} at {:.0} signals per second and CPU", ratios.of_medians, rate.median),
        is_met: verdict(ratios.of_medians, rate.median),
        text,
    })
}

fn verdict(ratio: f64, signals_per_second: f64) -> Option<bool> {
    (signals_per_second >= SIGNALS_PER_SECOND_MIN).then_some(ratio >= TARGET_RATIO_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_signals_prove_nothing() {
        assert_eq!(verdict(0.999, 9_900.0), Some(true));
        assert_eq!(verdict(0.980, 9_900.0), Some(false));
        assert_eq!(verdict(0.999, 5_000.0), None);
    }
}
