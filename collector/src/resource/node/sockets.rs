//! `/proc/net/sockstat` and `sockstat6` of the host's first process: sockets by protocol (proc(5)).
//!
//! Of the conventions' states of connections only `time_wait` is known from here: `inuse` of TCP mixes all others. The
//! exact states would need a walk over all sockets. Refuses: whose a socket is.

use anyhow::{Result, ensure};

use super::Reading;
use super::family::{node_gauge, point};
use crate::telemetry::{Metric, MetricKind, Text};

/// The most numbers; those beyond are cut.
const NUMBERS_MAX: usize = 128;

/// A number: protocol, field, value.
type Number<'a> = (&'a str, &'a str, u64);

/// Sockets of all protocols. A host without IPv6 has no `sockstat6`.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read_of_init("net/sockstat")?;
    let text6 = reading.root.read_of_init("net/sockstat6").unwrap_or_default();
    let mut numbers: Vec<Number<'_>> = text.lines().chain(text6.lines()).flat_map(parse).collect();
    ensure!(!numbers.is_empty(), "/proc/net/sockstat is broken");
    *reading.cut += numbers.len().saturating_sub(NUMBERS_MAX) as u64;
    numbers.truncate(NUMBERS_MAX);
    let mut metrics: Vec<Metric> = numbers.iter().flat_map(by_node).collect();
    metrics.extend(connections(&numbers, reading.starts.boot()));
    Ok(metrics)
}

/// `TCP: inuse 1 orphan 0`. What is broken is left out.
fn parse(line: &str) -> Vec<Number<'_>> {
    let named = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
    let Some((protocol, rest)) = line.split_once(':').filter(|(protocol, _)| named(protocol)) else {
        return Vec::new();
    };
    let mut words = rest.split_ascii_whitespace();
    let mut numbers = Vec::new();
    while let (Some(field), Some(value)) = (words.next(), words.next()) {
        if let Ok(value) = value.parse() {
            numbers.extend(named(field).then_some((protocol, field, value)));
        }
    }
    numbers
}

/// Memory of TCP and UDP is in pages, and node_exporter has it in bytes too.
fn by_node((protocol, field, value): &Number<'_>) -> Vec<Metric> {
    let description = format!("Number of {protocol} sockets in state {field}.");
    let name = format!("node_sockstat_{protocol}_{field}");
    let mut metrics = Vec::new();
    if *field == "mem" {
        let bytes = value.saturating_mul(procfs::page_size());
        let description = format!("Number of {protocol} sockets in state {field}_bytes.");
        metrics.push(node_gauge(format!("{name}_bytes"), "By", description, bytes as f64));
    }
    metrics.push(node_gauge(name, "", description, *value as f64));
    metrics
}

fn connections(numbers: &[Number<'_>], start: u64) -> Option<Metric> {
    let waiting = numbers.iter().find(|number| (number.0, number.1) == ("TCP", "tw"))?.2;
    let attributes =
        [("network.connection.state", Text::from("time_wait")), ("network.transport", Text::from("tcp"))];
    let metric = Metric::new(
        MetricKind::UpDownCounter,
        "system.network.connection.count",
        "{connection}",
        "Connections by state.",
    );
    Some(metric.with(vec![point(start, attributes, waiting as f64)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (line, expected) in [
            ("TCP: inuse 1 mem 0", &[("TCP", "inuse", 1), ("TCP", "mem", 0)][..]),
            ("sockets: used 15", &[("sockets", "used", 15)]),
            ("TCP: inuse", &[]),
            ("TCP: inuse -1 tw 2", &[("TCP", "tw", 2)]),
            ("T{P: inuse 1", &[]),
            ("TCP inuse 1", &[]),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
