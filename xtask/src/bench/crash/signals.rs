//! What the crash probes of the agent cost a program that handles many signals.
//!
//! Twice: by the time that one signal takes, in a loop of nothing else, and by the speed of work that a timer interrupts. The
//! verdict is by the first: the speed of work moves by several percent from run to run, and the question is about one.
//! Refuses: to trust the timer. The rate is what the handler counted.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::figures::Measured;
use super::super::numbers::{Spread, seconds};
use super::super::setup::Bench;
use super::super::turns::Speeds;
use super::programs::Call;
use super::spawns::NO_CRASHES;

pub const TARGET_RATIO_MIN: f64 = 0.99;

/// 10 kHz.
pub const PERIOD: Duration = Duration::from_micros(100);

pub fn target() -> String {
    format!("ratio >= {TARGET_RATIO_MIN}")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let programs = &bench.crash_programs;
    let calls = programs.calls_of(Call::Signal, bench.plan.crash_run / 2)?;
    let one = Speeds::measure(bench, bench.plan.crash_rounds, &[], Some(&[NO_CRASHES]), || {
        Ok(1e9 / programs.call(Call::Signal, calls)?)
    })?;
    let cost_ns = 1e9 / one.with.median - 1e9 / one.without.median;
    let ratio = ratio_at(cost_ns, PERIOD);
    let rounds = programs.interrupted_rounds_of(bench.plan.crash_run, PERIOD)?;
    let mut rates = Vec::new();
    let ratios = Speeds::measure(bench, bench.plan.crash_rounds, &[], Some(&[NO_CRASHES]), || {
        let run = programs.work_interrupted(rounds, PERIOD)?;
        rates.push(run.signals_per_second);
        Ok(run.rounds_per_second)
    })?;
    let rate = Spread::of(&rates).context("there were no runs")?;
    let text = format!(
        "A loop in which a thread sends itself a SIGPROF and handles it, about {} per run: {:.0} ns a signal without, {:+.0} ns \
         with the probes, which of work at 10 kHz leaves {ratio:.4}.\n\n{}\nFixed work on every CPU at once, about {} per run, {} pairs in the order without, with, with, without, while a \
         timer of each thread sends it a SIGPROF every {} µs, which it handles. Handled per second and CPU: {}.\n\n{}",
        seconds(bench.plan.crash_run / 2),
        1e9 / one.without.median,
        cost_ns,
        one.table("signals"),
        seconds(bench.plan.crash_run),
        ratios.by_pair.runs,
        PERIOD.as_micros(),
        rate.text(0),
        ratios.table("rounds"),
    );
    Ok(Measured {
        summary: format!(
            "ratio {ratio:.4} at 10 kHz by {cost_ns:+.0} ns a signal; work interrupted {:.0} times a second and CPU: {:.4}, \
             of itself {}",
            rate.median,
            ratios.of_medians,
            ratios.noise.text(2),
        ),
        is_met: Some(ratio >= TARGET_RATIO_MIN),
        text,
    })
}

/// What is left of the time when each period pays so much.
fn ratio_at(cost_ns: f64, period: Duration) -> f64 {
    1.0 - cost_ns / period.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_microsecond_of_a_hundred_is_a_hundredth() {
        assert_eq!(ratio_at(1_000.0, PERIOD), 0.99);
        assert_eq!(ratio_at(0.0, PERIOD), 1.0);
    }
}
