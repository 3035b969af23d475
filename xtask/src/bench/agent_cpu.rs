//! The agent's processor time while every CPU is busy, its programs' kernel time included.
//!
//! Refuses: the first minute, in which the agent reads what runs already.

use anyhow::Result;

use super::agent::{Agent, FREQUENCY_HZ};
use super::figures::Measured;
use super::meter::{Cost, Meter};
use super::numbers::seconds;
use super::programs::Statistics;
use super::report::{fenced, table};
use super::setup::Bench;

pub const TARGET_PERCENT_MAX: f64 = 0.6;

pub fn measure(bench: &Bench) -> Result<Measured> {
    let _statistics = Statistics::switch_on()?;
    let _load = bench.workloads.start_deep_spin()?;
    let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
    agent.run_for(bench.plan.agent_cpu_warm_up)?;
    let meter = Meter::start(agent.pid())?;
    agent.run_for(bench.plan.agent_cpu)?;
    let cost = meter.finish()?;
    let stopped = agent.stop(bench)?;

    let introduction = format!(
        "All CPUs spin, {FREQUENCY_HZ} Hz, export over OTLP/HTTP to a backend on the same machine ({} requests, {} KiB). \
         Measured for {} after {}. User and system time: `/proc/PID/stat`; programs: the kernel's BPF statistics.\n",
        stopped.received.requests,
        stopped.received.bytes / 1024,
        seconds(bench.plan.agent_cpu),
        seconds(bench.plan.agent_cpu_warm_up),
    );
    let total_percent = cost.total_percent();
    Ok(Measured {
        summary: format!("{total_percent:.2} % of one CPU"),
        is_met: Some(total_percent <= TARGET_PERCENT_MAX),
        text: format!("{introduction}\n{}\n{}\n{}", parts(&cost), threads(&cost), fenced(&stopped.ledger)),
    })
}

fn parts(cost: &Cost) -> String {
    let row = |name: &str, percent: f64| vec![name.to_owned(), format!("{percent:.3}")];
    let rows = [
        row("user", cost.user_percent),
        row("system", cost.system_percent),
        row("BPF programs", cost.programs_percent),
        row("together", cost.total_percent()),
    ];
    table(&["part", "% of one CPU"], &rows)
}

fn threads(cost: &Cost) -> String {
    let row = |(name, percent): &(String, f64)| vec![format!("`{name}`"), format!("{percent:.3}")];
    table(&["thread", "% of one CPU"], &cost.threads_percent.iter().map(row).collect::<Vec<_>>())
}
