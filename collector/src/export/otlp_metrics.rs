//! A snapshot -> OTLP requests that a receiver takes: one resource per owner, within it metrics by name.
//!
//! A number is an integer or a double by its metric alone, see [`is_whole`]: one that changed from export to export would
//! be two streams to a backend. Refuses: the vocabularies that only Prometheus has, and making deltas; it only says of
//! a metric which it is.

use std::collections::HashMap;
use std::sync::Arc;

use fnv::FnvBuildHasher;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;

use super::HostResource;
use super::delta::TemporalityPreference;
use super::resource::{attribute, typed};
use crate::telemetry::{
    Exemplar, ExplicitHistogram, ExponentialHistogram, Metric, MetricKind, OVERFLOW_ATTRIBUTE, Owner, Point,
    Snapshot, Summary, Text, Value, Vocabulary,
};

mod packer;

use packer::{DataPoint, Packer, Piece};

/// A snapshot's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRequests {
    /// Each with the number of points in it, for whoever drops it.
    pub requests: Vec<(ExportMetricsServiceRequest, u64)>,
    /// Points in no request: of another type than their metric, not finite where the metric is whole, or alone too
    /// large. `sum of points + refused` is the number of points in the vocabularies that OTLP takes.
    pub refused: u64,
}

/// The requests for a snapshot, each of at most `bytes_max` encoded. `temporality` says which kinds of metrics
/// [`super::Deltas`] has made deltas. A resource is cut only if it is too large for a request of its own.
pub fn metrics_requests(
    snapshot: &Snapshot,
    host: &HostResource,
    temporality: TemporalityPreference,
    bytes_max: usize,
) -> MetricsRequests {
    let mut metrics: Vec<&Metric> = snapshot.metrics.iter().filter(|metric| is_exported(metric)).collect();
    // Scopes one after the other.
    metrics.sort_by(|a, b| {
        let scope = |metric: &Metric| metric.vocabulary == Vocabulary::Application;
        (scope(a), &a.name).cmp(&(scope(b), &b.name))
    });
    let mut owners = Owners::default();
    let mut refused = 0;
    for (position, metric) in metrics.iter().enumerate() {
        let is_whole = is_whole(metric);
        for point in &metric.points {
            match data_point(metric, is_whole, point, snapshot.time_unix_ns) {
                Some(data_point) => owners.pieces_of(&point.owner).push(Piece::new(position, data_point)),
                None => refused += 1,
            }
        }
    }
    let mut packer = Packer::new(&metrics, temporality, bytes_max, refused);
    for (owner, pieces) in owners.in_order {
        let resource = match owner {
            Owner::Agent => host.of_agent(),
            // Cgroups in cAdvisor's words are for the endpoint only.
            Owner::Host | Owner::Cgroup(_) => host.of_host(),
            Owner::Subject(subject) => host.of(subject),
            Owner::Object(object) => host.of_object(object),
            Owner::Endpoint(endpoint) => host.of_endpoint(endpoint),
        };
        packer.add(&resource, pieces);
    }
    packer.finish()
}

fn is_exported(metric: &Metric) -> bool {
    metric.vocabulary.is_pushed()
}

/// Whether a metric's numbers are integers: sums of bytes and of countable things (`{process}`), and gauges of bytes.
/// All else is a double: times, shares, `{cpu}` (half a CPU is one), gauges of things (they may be averages), and what
/// applications say, since Prometheus knows doubles only.
fn is_whole(metric: &Metric) -> bool {
    let is_annotation = metric.unit.starts_with('{') && metric.unit.ends_with('}') && metric.unit != "{cpu}";
    match (metric.vocabulary, metric.kind) {
        (
            Vocabulary::OpenTelemetry | Vocabulary::Cluster,
            MetricKind::Counter | MetricKind::UpDownCounter,
        ) => metric.unit == "By" || is_annotation,
        (Vocabulary::OpenTelemetry, MetricKind::Gauge) => metric.unit == "By",
        _ => false,
    }
}

/// Owners in the order in which they are first seen, with their points.
#[derive(Default)]
struct Owners<'a> {
    in_order: Vec<(&'a Owner, Vec<Piece>)>,
    by_content: HashMap<&'a Owner, usize>,
    /// Spares hashing a subject's texts for each of its points.
    by_address: HashMap<usize, usize, FnvBuildHasher>,
}

impl<'a> Owners<'a> {
    fn pieces_of(&mut self, owner: &'a Owner) -> &mut Vec<Piece> {
        let position = match owner {
            Owner::Agent | Owner::Host | Owner::Endpoint(_) | Owner::Cgroup(_) => self.position(owner),
            Owner::Subject(subject) => self.position_at(Arc::as_ptr(subject) as usize, owner),
            Owner::Object(object) => self.position_at(Arc::as_ptr(object) as usize, owner),
        };
        &mut self.in_order[position].1
    }

    fn position_at(&mut self, address: usize, owner: &'a Owner) -> usize {
        if let Some(position) = self.by_address.get(&address) {
            return *position;
        }
        let position = self.position(owner);
        self.by_address.insert(address, position);
        position
    }

    fn position(&mut self, owner: &'a Owner) -> usize {
        *self.by_content.entry(owner).or_insert_with(|| {
            self.in_order.push((owner, Vec::new()));
            self.in_order.len() - 1
        })
    }
}

fn data_point(metric: &Metric, is_whole: bool, point: &Point, time_unix_ns: u64) -> Option<DataPoint> {
    let is_application = metric.vocabulary == Vocabulary::Application;
    match (&point.value, metric.kind) {
        (Value::Histogram(histogram), MetricKind::Histogram) if !is_application => {
            Some(DataPoint::Histogram(Box::new(histogram_point(point, histogram, time_unix_ns))))
        }
        (Value::ExplicitHistogram(histogram), MetricKind::Histogram) if is_application => {
            Some(DataPoint::ExplicitHistogram(Box::new(explicit_point(point, histogram, time_unix_ns))))
        }
        (Value::Summary(summary), MetricKind::Summary) => {
            Some(DataPoint::Summary(summary_point(point, summary, time_unix_ns)))
        }
        (Value::Number(_), MetricKind::Histogram | MetricKind::Summary)
        | (Value::Histogram(_) | Value::ExplicitHistogram(_) | Value::Summary(_), _) => None,
        (Value::Number(number), _) => {
            let value = match is_whole {
                false => Number::AsDouble(*number),
                // A value beyond 2^63 becomes the largest integer.
                true if number.is_finite() => Number::AsInt(number.round() as i64),
                true => return None,
            };
            Some(DataPoint::Number(proto::NumberDataPoint {
                attributes: attributes(&point.attributes),
                start_time_unix_nano: start(point, time_unix_ns),
                time_unix_nano: time_unix_ns,
                value: Some(value),
                ..proto::NumberDataPoint::default()
            }))
        }
    }
}

/// When a point began. A clock that was put back does not let it begin after its end.
fn start(point: &Point, time_unix_ns: u64) -> u64 {
    point.start_unix_ns.min(time_unix_ns)
}

fn histogram_point(
    point: &Point,
    histogram: &ExponentialHistogram,
    time_unix_ns: u64,
) -> proto::ExponentialHistogramDataPoint {
    let positive = Buckets { offset: histogram.offset, bucket_counts: histogram.buckets.clone() };
    proto::ExponentialHistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start(point, time_unix_ns),
        time_unix_nano: time_unix_ns,
        count: histogram.count(),
        sum: Some(histogram.sum),
        scale: histogram.scale,
        zero_count: histogram.zero_count,
        positive: Some(positive),
        exemplars: histogram.exemplars.iter().map(exemplar).collect(),
        ..proto::ExponentialHistogramDataPoint::default()
    }
}

fn explicit_point(
    point: &Point,
    histogram: &ExplicitHistogram,
    time_unix_ns: u64,
) -> proto::HistogramDataPoint {
    proto::HistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start(point, time_unix_ns),
        time_unix_nano: time_unix_ns,
        count: histogram.count(),
        sum: histogram.sum,
        bucket_counts: histogram.counts.clone(),
        explicit_bounds: histogram.bounds.clone(),
        exemplars: histogram.exemplars.iter().map(exemplar).collect(),
        ..proto::HistogramDataPoint::default()
    }
}

fn summary_point(point: &Point, summary: &Summary, time_unix_ns: u64) -> proto::SummaryDataPoint {
    let quantile = |&(quantile, value)| proto::summary_data_point::ValueAtQuantile { quantile, value };
    proto::SummaryDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: start(point, time_unix_ns),
        time_unix_nano: time_unix_ns,
        count: summary.count,
        sum: summary.sum,
        quantile_values: summary.quantiles.iter().map(quantile).collect(),
        ..proto::SummaryDataPoint::default()
    }
}

fn exemplar(exemplar: &Exemplar) -> proto::Exemplar {
    let filtered = exemplar.attributes.iter().map(|(key, value)| attribute(key, value.to_string()));
    proto::Exemplar {
        filtered_attributes: filtered.collect(),
        time_unix_nano: exemplar.time_unix_ns,
        span_id: exemplar.span_id.as_deref().and_then(|id| id_bytes(id, 8)).unwrap_or_default(),
        trace_id: exemplar.trace_id.as_deref().and_then(|id| id_bytes(id, 16)).unwrap_or_default(),
        value: Some(proto::exemplar::Value::AsDouble(exemplar.value)),
    }
}

/// The bytes of a trace or span id. `None` for what is no id: another length, no hexadecimal, all zeros.
fn id_bytes(text: &str, bytes: usize) -> Option<Vec<u8>> {
    // A sign would be taken for part of a number.
    let is_hexadecimal = text.len() == bytes * 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = is_hexadecimal.then(|| u128::from_str_radix(text, 16).ok()).flatten().filter(|id| *id != 0)?;
    id.to_be_bytes().get(size_of::<u128>() - bytes..).map(<[u8]>::to_vec)
}

fn attributes(attributes: &[(Text, Text)]) -> Vec<KeyValue> {
    let encode = |(key, value): &(Text, Text)| match key.as_ref() {
        // OpenTelemetry metrics SDK, "Overflow attribute".
        OVERFLOW_ATTRIBUTE if value == "true" => KeyValue {
            key: key.clone().into_owned(),
            value: Some(AnyValue { value: Some(any_value::Value::BoolValue(true)) }),
            ..KeyValue::default()
        },
        _ => typed(key, value),
    };
    attributes.iter().map(encode).collect()
}

#[cfg(test)]
mod tests;
