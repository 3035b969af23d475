//! The time from a death to its record on the disk.
//!
//! Refuses: the agent's own clock for the end. The file system's times tell when the record was there.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::interrupt::pause;
use super::super::numbers::{percentile, seconds};
use super::super::report::table;
use super::super::setup::Bench;
use super::records::{self, Record};

pub const TARGET_MS_MAX: f64 = 1_000.0;

const DEATHS: u64 = 200;

/// No death is held back; and without a lane for records nothing renames a file after it was placed.
const SETTINGS: [&str; 2] = ["crash.records_per_minute=10000", "otlp.logs.endpoint=none"];

/// What is not there by then is missing.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub fn target() -> String {
    format!("p99 < {TARGET_MS_MAX} ms, {DEATHS} records")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let mut agent = Agent::start_with(bench, FREQUENCY_HZ, &SETTINGS)?;
    agent.run_for(bench.plan.settle)?;
    bench.crash_programs.crash(DEATHS, bench.plan.crash_period, 1)?;
    let end = Instant::now() + WAIT_MAX;
    while records::read(&bench.spool())?.len() < DEATHS as usize && Instant::now() < end {
        pause(Duration::from_millis(200))?;
    }
    let records = records::read(&bench.spool())?;
    agent.stop(bench)?;
    if records.is_empty() {
        bail!("{DEATHS} processes died and the agent kept no record");
    }
    let count = records.len() as u64;
    let written = delays_ms(&records, |record| record.written_ns);
    let placed = delays_ms(&records, |record| record.placed_ns);
    let placed_p99_ms = percentile(&placed, 99);
    let rows = [row("written (`mtime`)", &written), row("on the disk, under its name (`ctime`)", &placed)];
    let text = format!(
        "{DEATHS} processes die of SIGSEGV, each just started, one every {}. {count} records. From `time_unix_ns` of the \
         record to the times of its file, which the kernel may round down to its tick.\n\n{}",
        seconds(bench.plan.crash_period),
        table(&["ms from the death until it was", "p50", "p99", "most"], &rows),
    );
    Ok(Measured {
        summary: format!("p99 {placed_p99_ms:.1} ms, {count} records of {DEATHS}"),
        is_met: Some(placed_p99_ms < TARGET_MS_MAX && count == DEATHS),
        text,
    })
}

fn delays_ms(records: &[Record], until_ns: impl Fn(&Record) -> u64) -> Vec<f64> {
    // Signed: a file's time may be rounded to before the death.
    records.iter().map(|record| (until_ns(record) as f64 - record.died_ns as f64) / 1e6).collect()
}

fn row(name: &str, delays_ms: &[f64]) -> Vec<String> {
    let value = |percent| format!("{:.1}", percentile(delays_ms, percent));
    vec![name.to_owned(), value(50), value(99), value(100)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_differences_and_may_be_negative() {
        let record = |died_ns| Record { died_ns, suppressed: 0, written_ns: 3_000_000, placed_ns: 5_000_000 };
        let records = [record(1_000_000), record(4_000_000)];
        assert_eq!(delays_ms(&records, |record| record.written_ns), [2.0, -1.0]);
        assert_eq!(row("x", &delays_ms(&records, |record| record.placed_ns)), ["x", "1.0", "4.0", "4.0"]);
    }
}
