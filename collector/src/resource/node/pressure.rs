//! `/proc/pressure`: how long tasks waited for CPU, memory, disks and interrupts (Linux 4.20; interrupts 6.1;
//! `Documentation/accounting/psi.rst`).
//!
//! The conventions have no name for it (their proposals, open-telemetry/semantic-conventions#3068 and #3528, were
//! closed): `system.linux.psi.total_time` is ours, after the first of them. The averages are left to the backend. The
//! parser of the `procfs` crate panics on short lines, so this one is our own.

use anyhow::{Result, ensure};

use super::Reading;
use super::family::{node_counter, point};
use crate::telemetry::{Metric, MetricKind, Text};

const S_PER_US: f64 = 1e-6;

/// Resource, kind of stall, node_exporter's name and description. It has no name for the CPU's `full`, which is 0.
const LINES: [(&str, &str, &str, &str); 6] = [
    (
        "cpu",
        "some",
        "node_pressure_cpu_waiting_seconds_total",
        "Total time in seconds that processes have waited for CPU time",
    ),
    (
        "io",
        "some",
        "node_pressure_io_waiting_seconds_total",
        "Total time in seconds that processes have waited due to IO congestion",
    ),
    (
        "io",
        "full",
        "node_pressure_io_stalled_seconds_total",
        "Total time in seconds no process could make progress due to IO congestion",
    ),
    (
        "memory",
        "some",
        "node_pressure_memory_waiting_seconds_total",
        "Total time in seconds that processes have waited for memory",
    ),
    (
        "memory",
        "full",
        "node_pressure_memory_stalled_seconds_total",
        "Total time in seconds no process could make progress due to memory congestion",
    ),
    (
        "irq",
        "full",
        "node_pressure_irq_stalled_seconds_total",
        "Total time in seconds no process could make progress due to IRQ congestion",
    ),
];

/// The times of all stalls; an error on a host without any.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let mut metrics = Vec::with_capacity(LINES.len() + 1);
    let mut own = Metric::new(
        MetricKind::Counter,
        "system.linux.psi.total_time",
        "s",
        "Time that some or all tasks were stalled on a resource.",
    );
    for resource in ["cpu", "io", "memory", "irq"] {
        let Ok(text) = reading.root.read(format!("proc/pressure/{resource}")) else { continue };
        for (_, stall, name, description) in LINES.iter().filter(|line| line.0 == resource) {
            let Some(total_us) = total_us(&text, stall) else { continue };
            let mut values = [total_us];
            let start = reading.starts.of("pressure", name, &mut values, 0);
            let seconds = values[0] as f64 * S_PER_US;
            metrics.push(node_counter(*name, "s", *description, start, seconds));
            let attributes = [
                ("system.psi.resource", Text::from(resource)),
                ("system.psi.stall_type", Text::from(*stall)),
            ];
            own.add(point(start, attributes, seconds));
        }
    }
    ensure!(!metrics.is_empty(), "no pressure");
    metrics.push(own);
    Ok(metrics)
}

/// `full avg10=0.00 avg60=0.00 avg300=0.00 total=12210`: the total of the line that begins with `stall`, microseconds.
fn total_us(text: &str, stall: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut words| (words.next() == Some(stall)).then_some(words))?;
    line.find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals() {
        let text = "some avg10=1.52 avg60=5.99 avg300=5.87 total=2631600323\nfull avg10=0.00 total=7\n";
        for (text, stall, expected) in [
            (text, "some", Some(2_631_600_323)),
            (text, "full", Some(7)),
            ("full avg10=0.00 total=7\n", "some", None),
            ("some", "some", None),
            ("some total=", "some", None),
            ("some total=-1", "some", None),
            ("\u{e9}\u{e9}\u{e9} total=1", "some", None),
        ] {
            assert_eq!(total_us(text, stall), expected, "{text}");
        }
    }
}
