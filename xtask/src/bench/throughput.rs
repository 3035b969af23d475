//! The speed of CPU-bound programs with and without the agent.
//!
//! Refuses: programs that do more than compute; the system calls, signals and deaths of others are measured by `crash` and `io`.

use anyhow::Result;

use super::agent::FREQUENCY_HZ;
use super::figures::Measured;
use super::numbers::seconds;
use super::setup::Bench;
use super::turns::Speeds;

pub const TARGET_RATIO_MIN: f64 = 0.995;

pub fn measure(bench: &Bench) -> Result<Measured> {
    let rounds = bench.workloads.rounds_of(bench.plan.throughput_work)?;
    let ratios = Speeds::measure(bench, bench.plan.throughput_rounds, &[], None, || {
        bench.workloads.do_fixed_work(rounds)
    })?;
    let introduction = format!(
        "Fixed work on every CPU at once, about {} per run, {} pairs in the order without, with, with, without. \
         The agent runs at {FREQUENCY_HZ} Hz and exports to a backend on the same machine, whose cost counts too.\n",
        seconds(bench.plan.throughput_work),
        ratios.by_pair.runs,
    );
    Ok(Measured {
        summary: format!("ratio {:.4}", ratios.of_medians),
        is_met: Some(ratios.of_medians >= TARGET_RATIO_MIN),
        text: format!("{introduction}\n{}", ratios.table("rounds")),
    })
}
