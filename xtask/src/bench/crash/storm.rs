//! A thousand deaths at once: the agent's memory, and that none of them is forgotten.
//!
//! Refuses: settings that help. The agent holds back as it does by default.

use std::time::Duration;

use anyhow::Result;

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::numbers::mib;
use super::super::procfs;
use super::super::programs::Held;
use super::super::report::{fenced, table};
use super::super::setup::Bench;
use super::records;

pub const TARGET_MIB_MAX: u64 = 100;

const DEATHS: u64 = 1_000;

/// Processes that live at once.
const AT_ONCE_MAX: u64 = 64;

pub fn target() -> String {
    format!("records + suppressed = {DEATHS}, peak <= {TARGET_MIB_MAX} MiB")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
    agent.run_for(bench.plan.settle)?;
    let before = procfs::memory(agent.pid())?;
    let elapsed = bench.crash_programs.crash(DEATHS, Duration::ZERO, AT_ONCE_MAX)?;
    agent.run_for(bench.plan.settle)?;
    let after = procfs::memory(agent.pid())?;
    let map_kib = Held::of(agent.pid())?.map_kib();
    // At its stop the agent lets out what it held back.
    let stopped = agent.stop(bench)?;
    let records = records::read(&bench.spool())?;
    let told = records::deaths(&records);
    let peak = mib(after.resident_peak_kib);

    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("deaths told (records + suppressed)", told.to_string()),
        row("records", records.len().to_string()),
        row("resident before, MiB", mib(before.resident_kib)),
        row("peak before, MiB", mib(before.resident_peak_kib)),
        row("peak, MiB", peak.clone()),
        row("resident after, MiB", mib(after.resident_kib)),
        row("BPF maps (kernel), MiB", mib(map_kib)),
    ];
    let text = format!(
        "{DEATHS} processes die of SIGSEGV in {:.2} s, up to {AT_ONCE_MAX} at once ({:.0} a second).\n\n{}\n{}",
        elapsed.as_secs_f64(),
        DEATHS as f64 / elapsed.as_secs_f64(),
        table(&["", ""], &rows),
        fenced(&stopped.ledger),
    );
    Ok(Measured {
        summary: format!("{told} of {DEATHS} told, peak {peak} MiB"),
        is_met: Some(told == DEATHS && after.resident_peak_kib <= TARGET_MIB_MAX * 1024),
        text,
    })
}
