//! A point -> its encoded message.
//!
//! Numbers and the agent's own histograms, of which there are tens of thousands, are written without a message in between;
//! what applications said goes through one. Field numbers: opentelemetry/proto/metrics/v1/metrics.proto. Refuses: values
//! that their metric cannot have.

use opentelemetry_proto::tonic::metrics::v1 as proto;
use prost::Message;

use crate::export::any_value::{self, AnyValue};
use crate::export::resource::{attribute, is_number};
use crate::export::wire;
use crate::telemetry::{
    Exemplar, ExplicitHistogram, ExponentialHistogram, Metric, MetricKind, OVERFLOW_ATTRIBUTE, Point,
    Summary, Text, Value, Vocabulary,
};

/// Adds a point's message. Whether its metric can have it; nothing is added otherwise.
pub fn data_point(
    metric: &Metric,
    is_whole: bool,
    point: &Point,
    time_unix_ns: u64,
    out: &mut Vec<u8>,
) -> bool {
    let is_application = metric.vocabulary == Vocabulary::Application;
    match (&point.value, metric.kind) {
        (Value::Histogram(histogram), MetricKind::Histogram) if !is_application => {
            histogram_point(point, histogram, time_unix_ns, out);
        }
        (Value::ExplicitHistogram(histogram), MetricKind::Histogram) if is_application => {
            explicit_point(point, histogram, time_unix_ns, out);
        }
        (Value::Summary(summary), MetricKind::Summary) => summary_point(point, summary, time_unix_ns, out),
        (Value::Number(_), MetricKind::Histogram | MetricKind::Summary)
        | (Value::Histogram(_) | Value::ExplicitHistogram(_) | Value::Summary(_), _) => return false,
        (Value::Number(number), _) if is_whole && !number.is_finite() => return false,
        (Value::Number(number), _) => {
            times(point, time_unix_ns, out);
            match is_whole {
                false => wire::fixed(out, 4, number.to_bits()),
                // A value beyond 2^63 becomes the largest integer.
                true => wire::fixed(out, 6, (number.round() as i64).cast_unsigned()),
            }
            attributes(&point.attributes, 7, out);
        }
    }
    true
}

/// When a point began. A clock that was put back does not let it begin after its end.
fn start(point: &Point, time_unix_ns: u64) -> u64 {
    point.start_unix_ns.min(time_unix_ns)
}

/// The fields that all kinds of points have in common.
fn times(point: &Point, time_unix_ns: u64, out: &mut Vec<u8>) {
    wire::fixed_unless_zero(out, 2, start(point, time_unix_ns));
    wire::fixed_unless_zero(out, 3, time_unix_ns);
}

fn histogram_point(point: &Point, histogram: &ExponentialHistogram, time_unix_ns: u64, out: &mut Vec<u8>) {
    attributes(&point.attributes, 1, out);
    times(point, time_unix_ns, out);
    wire::fixed_unless_zero(out, 4, histogram.count());
    wire::fixed(out, 5, histogram.sum.to_bits());
    wire::signed(out, 6, histogram.scale);
    wire::fixed_unless_zero(out, 7, histogram.zero_count);
    let mut positive = Vec::with_capacity(16 + histogram.buckets.len() * 2);
    wire::signed(&mut positive, 1, histogram.offset);
    if !histogram.buckets.is_empty() {
        let counts = histogram.buckets.iter();
        wire::head(&mut positive, 2, counts.map(|count| wire::varint_bytes(*count)).sum());
        histogram.buckets.iter().for_each(|count| wire::varint(&mut positive, *count));
    }
    wire::part(out, 8, &positive);
    for one in &histogram.exemplars {
        wire::part(out, 11, &exemplar(one).encode_to_vec());
    }
}

/// A vector grows: writing to it has no error.
fn write(message: &impl Message, out: &mut Vec<u8>) {
    message.encode(out).unwrap_or_default();
}

fn explicit_point(point: &Point, histogram: &ExplicitHistogram, time_unix_ns: u64, out: &mut Vec<u8>) {
    attributes(&point.attributes, 9, out);
    let message = proto::HistogramDataPoint {
        start_time_unix_nano: start(point, time_unix_ns),
        time_unix_nano: time_unix_ns,
        count: histogram.count(),
        sum: histogram.sum,
        bucket_counts: histogram.counts.clone(),
        explicit_bounds: histogram.bounds.clone(),
        exemplars: histogram.exemplars.iter().map(exemplar).collect(),
        ..proto::HistogramDataPoint::default()
    };
    write(&message, out);
}

fn summary_point(point: &Point, summary: &Summary, time_unix_ns: u64, out: &mut Vec<u8>) {
    attributes(&point.attributes, 7, out);
    let quantile = |&(quantile, value)| proto::summary_data_point::ValueAtQuantile { quantile, value };
    let message = proto::SummaryDataPoint {
        start_time_unix_nano: start(point, time_unix_ns),
        time_unix_nano: time_unix_ns,
        count: summary.count,
        sum: summary.sum,
        quantile_values: summary.quantiles.iter().map(quantile).collect(),
        ..proto::SummaryDataPoint::default()
    };
    write(&message, out);
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

fn attributes(attributes: &[(Text, Text)], field: u8, out: &mut Vec<u8>) {
    for (key, value) in attributes {
        let value = match value.parse() {
            // OpenTelemetry metrics SDK, "Overflow attribute".
            _ if key == OVERFLOW_ATTRIBUTE && value == "true" => AnyValue::Flag,
            Ok(number) if is_number(key) => AnyValue::Integer(number),
            _ => AnyValue::Text(value),
        };
        any_value::attribute(out, field, key, &value);
    }
}
