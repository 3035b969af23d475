//! Metrics and series of the host, in few words.
//!
//! Refuses: names. A metric is built by the area that reads its numbers.

use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Vocabulary};

/// A metric of node_exporter's.
pub(super) fn node(
    kind: MetricKind,
    name: impl Into<Text>,
    unit: &'static str,
    description: impl Into<Text>,
) -> Metric {
    let mut metric = Metric::new(kind, name, unit, description);
    metric.vocabulary = Vocabulary::NodeExporter;
    metric
}

/// A gauge of node_exporter's with one series without labels.
pub(super) fn node_gauge(
    name: impl Into<Text>,
    unit: &'static str,
    description: impl Into<Text>,
    value: f64,
) -> Metric {
    node(MetricKind::Gauge, name, unit, description).with(vec![point(0, [], value)])
}

/// A counter of node_exporter's with one series without labels.
pub(super) fn node_counter(
    name: impl Into<Text>,
    unit: &'static str,
    description: impl Into<Text>,
    start_unix_ns: u64,
    value: f64,
) -> Metric {
    node(MetricKind::Counter, name, unit, description).with(vec![point(start_unix_ns, [], value)])
}

/// A series of the host's. `start_unix_ns` is 0 for gauges.
pub(super) fn point<const N: usize>(
    start_unix_ns: u64,
    attributes: [(&'static str, Text); N],
    value: f64,
) -> Point {
    let attributes = attributes.into_iter().map(|(name, value)| (Text::Borrowed(name), value)).collect();
    Point::number(Owner::Host, attributes, start_unix_ns, value)
}
