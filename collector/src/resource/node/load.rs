//! `/proc/loadavg`: how many threads ran or waited for a CPU or a disk (proc(5)).
//!
//! The conventions have no name for it; `system.cpu.load_average.*` is what the Collector's host metrics receiver uses.
//! The `procfs` crate has it in 32 bits, and 1.42 as 1.4199999570846558; so this parser is our own.

use anyhow::{Context, Result};

use super::Reading;
use super::family::{node_gauge, point};
use crate::telemetry::{Metric, MetricKind};

/// Minutes, node_exporter's name and the Collector's.
const AVERAGES: [(&str, &str, &str); 3] = [
    ("1m load average.", "node_load1", "system.cpu.load_average.1m"),
    ("5m load average.", "node_load5", "system.cpu.load_average.5m"),
    ("15m load average.", "node_load15", "system.cpu.load_average.15m"),
];

/// The three averages.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/loadavg")?;
    let averages = parse(&text).context("/proc/loadavg is broken")?;
    let both = AVERAGES.iter().zip(averages).flat_map(|((description, node, own), value)| {
        let own = Metric::new(MetricKind::Gauge, *own, "{thread}", *description);
        [node_gauge(*node, "", *description, value), own.with(vec![point(0, [], value)])]
    });
    Ok(both.collect())
}

fn parse(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split_ascii_whitespace();
    let mut average =
        || words.next()?.parse().ok().filter(|average: &f64| average.is_finite() && *average >= 0.0);
    Some([average()?, average()?, average()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (text, expected) in [
            ("1.42 1.73 1.41 1/105 29661\n", Some([1.42, 1.73, 1.41])),
            ("1.42 1.73", None),
            ("1.42 x 1.41", None),
            ("nan inf -1", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
