//! `/proc/schedstat`: how long tasks ran on and waited for each CPU (`Documentation/scheduler/sched-stats.rst`; kernels
//! with `CONFIG_SCHEDSTATS`).
//!
//! Refuses: the scheduling domains.

use anyhow::{Result, ensure};

use super::Reading;
use super::family::{node, point};
use crate::telemetry::{Metric, MetricKind, Text};

/// The most CPUs; those beyond are cut.
const CPUS_MAX: usize = 1024;
const S_PER_NS: f64 = 1e-9;

/// Name, unit, scale and description of the last three fields of a CPU.
const NODE: [(&str, &str, f64, &str); 3] = [
    ("node_schedstat_running_seconds_total", "s", S_PER_NS, "Number of seconds CPU spent running a process."),
    (
        "node_schedstat_waiting_seconds_total",
        "s",
        S_PER_NS,
        "Number of seconds spent by processing waiting for this CPU.",
    ),
    ("node_schedstat_timeslices_total", "", 1.0, "Number of timeslices executed by CPU."),
];

/// The times of each CPU.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/schedstat")?;
    let mut cpus: Vec<(&str, [u64; 3])> = text.lines().filter_map(parse).collect();
    ensure!(!cpus.is_empty(), "/proc/schedstat is broken");
    *reading.cut += cpus.len().saturating_sub(CPUS_MAX) as u64;
    cpus.truncate(CPUS_MAX);
    let mut metrics = NODE.map(|(name, unit, _, text)| node(MetricKind::Counter, name, unit, text));
    for (cpu, values) in &mut cpus {
        let start = reading.starts.of("schedstat", cpu, values, 0);
        for ((metric, value), (_, _, scale, _)) in metrics.iter_mut().zip(values).zip(NODE) {
            metric.add(point(start, [("cpu", Text::from((*cpu).to_owned()))], *value as f64 * scale));
        }
    }
    Ok(metrics.into())
}

/// `cpu0 0 0 0 0 0 0 running_ns waiting_ns timeslices`
fn parse(line: &str) -> Option<(&str, [u64; 3])> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.strip_prefix("cpu").filter(|number| number.parse::<u32>().is_ok())?;
    let mut words = words.skip(6);
    let mut value = || words.next()?.parse().ok();
    Some((number, [value()?, value()?, value()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (line, expected) in [
            ("cpu3 1 2 3 4 5 6 7 8 9", Some(("3", [7, 8, 9]))),
            ("cpu3 1 2 3 4 5 6 7 8", None),
            ("cpu 1 2 3 4 5 6 7 8 9", None),
            ("domain0 MC 3 1 2 3 4 5 6 7 8", None),
            ("version 17", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
