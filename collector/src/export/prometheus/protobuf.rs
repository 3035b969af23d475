//! The protobuf format: `io.prometheus.client.MetricFamily`, each with its length before it.
//!
//! The messages are declared here for prost by the field numbers of `metrics.proto` in prometheus/client_model.
//! Histograms are both native and classic. Refuses: reading the format, summaries, float histograms.

use prost::Message;

use super::buckets::{self, Native};
use super::encode::Sink;
use super::families::Family;
use super::labels::SeriesLabels;
use super::text::exemplar_labels;
use crate::telemetry::{Exemplar, ExponentialHistogram, MetricKind};

/// Writes delimited messages. One message is used for all series.
#[derive(Default)]
pub(super) struct ProtobufSink {
    out: Vec<u8>,
    family: Vec<u8>,
    series: proto::Series,
    labels_spare: Vec<proto::LabelPair>,
    histogram: proto::Histogram,
    native: Native,
    cumulative: Vec<u64>,
}

impl ProtobufSink {
    fn begin(&mut self, header: &proto::MetricFamily) {
        self.family.clear();
        write(header, &mut self.family);
    }

    fn series(&mut self, labels: &SeriesLabels, value: proto::Metric) {
        let metric = self.series.metric.get_or_insert_default();
        let mut kept = std::mem::take(&mut metric.label);
        let mut count = 0;
        for (name, value) in labels.pairs() {
            if count == kept.len() {
                kept.push(self.labels_spare.pop().unwrap_or_default());
            }
            let pair = &mut kept[count];
            pair.name.clear();
            pair.name.push_str(name);
            pair.value.clear();
            pair.value.push_str(value);
            count += 1;
        }
        self.labels_spare.extend(kept.drain(count..));
        *metric = proto::Metric { label: kept, ..value };
        write(&self.series, &mut self.family);
    }

    fn fill_native(&mut self, histogram: &ExponentialHistogram) {
        let native = self.native.fill(histogram);
        let message = &mut self.histogram;
        message.positive_span.clear();
        message.positive_delta.clear();
        message.schema = native.then_some(self.native.schema);
        message.zero_threshold = native.then_some(0.0);
        message.zero_count = native.then_some(histogram.zero_count);
        if !native {
            return;
        }
        let span = |(offset, length): &(i32, u32)| proto::BucketSpan { offset: *offset, length: *length };
        message.positive_span.extend(self.native.spans.iter().map(span));
        message.positive_delta.extend(&self.native.deltas);
        if message.positive_span.is_empty() {
            // A span of nothing is what tells an empty native histogram from a classic one.
            message.positive_span.push(proto::BucketSpan::default());
        }
    }
}

impl Sink for ProtobufSink {
    fn target(&mut self, labels: &SeriesLabels) {
        self.begin(&proto::MetricFamily {
            name: "target_info".to_owned(),
            help: "The node that the series are of.".to_owned(),
            r#type: Some(proto::GAUGE),
            unit: String::new(),
        });
        let gauge = Some(proto::Number { value: Some(1.0) });
        self.series(labels, proto::Metric { gauge, ..proto::Metric::default() });
        self.end_family();
    }

    fn start_family(&mut self, family: &Family) {
        self.begin(&proto::MetricFamily {
            name: family.name.series.clone(),
            help: family.help.to_owned(),
            r#type: Some(match family.kind {
                MetricKind::Counter => proto::COUNTER,
                MetricKind::Gauge | MetricKind::UpDownCounter => proto::GAUGE,
                MetricKind::Histogram => proto::HISTOGRAM,
                // Summaries are of applications, which are not exposed.
                MetricKind::Unknown | MetricKind::Summary => proto::UNTYPED,
            }),
            unit: family.name.unit.clone().unwrap_or_default(),
        });
    }

    fn number(&mut self, family: &Family, labels: &SeriesLabels, start_unix_ns: u64, value: f64) {
        let number = Some(proto::Number { value: Some(value) });
        let empty = proto::Metric::default();
        let metric = match family.kind {
            MetricKind::Counter => {
                let created_timestamp = timestamp(start_unix_ns);
                proto::Metric {
                    counter: Some(proto::Counter { value: Some(value), created_timestamp }),
                    ..empty
                }
            }
            MetricKind::Unknown => proto::Metric { untyped: number, ..empty },
            _ => proto::Metric { gauge: number, ..empty },
        };
        self.series(labels, metric);
    }

    fn histogram(
        &mut self,
        family: &Family,
        labels: &SeriesLabels,
        start_unix_ns: u64,
        histogram: &ExponentialHistogram,
    ) {
        let mut cumulative = std::mem::take(&mut self.cumulative);
        let all = buckets::classic(histogram, family.bounds, &mut cumulative);
        self.fill_native(histogram);
        let mut message = std::mem::take(&mut self.histogram);
        message.sample_count = Some(all);
        message.sample_sum = Some(histogram.sum);
        message.created_timestamp = timestamp(start_unix_ns);
        message.bucket.clear();
        let uppers = family.bounds.bounds.iter().map(|bound| bound.upper).chain([f64::INFINITY]);
        for (position, upper) in uppers.enumerate() {
            let exemplar = buckets::exemplar(histogram, family.bounds, position);
            message.bucket.push(proto::Bucket {
                cumulative_count: Some(cumulative.get(position).copied().unwrap_or(all)),
                upper_bound: Some(upper),
                exemplar: exemplar.map(exemplar_message),
            });
        }
        message.exemplars.clear();
        let dated = histogram.exemplars.iter().filter(|exemplar| exemplar.time_unix_ns > 0);
        message.exemplars.extend(dated.map(exemplar_message));
        self.cumulative = cumulative;
        self.series(labels, proto::Metric { histogram: Some(message), ..proto::Metric::default() });
        // The message's lists are used again.
        let metric = self.series.metric.as_mut();
        self.histogram = metric.and_then(|metric| metric.histogram.take()).unwrap_or_default();
    }

    fn end_family(&mut self) {
        // A buffer that grows has room for any length.
        if prost::encode_length_delimiter(self.family.len(), &mut self.out).is_ok() {
            self.out.extend_from_slice(&self.family);
        }
    }

    fn end(&mut self) {}

    fn piece(&self) -> &[u8] {
        &self.out
    }

    fn clear(&mut self) {
        self.out.clear();
    }
}

/// A vector grows: writing to it has no error.
fn write(message: &impl Message, out: &mut Vec<u8>) {
    message.encode(out).unwrap_or_default();
}

fn exemplar_message(exemplar: &Exemplar) -> proto::Exemplar {
    let label = exemplar_labels(exemplar).into_iter();
    proto::Exemplar {
        label: label.map(|(name, value)| proto::LabelPair { name, value: value.to_owned() }).collect(),
        value: Some(exemplar.value),
        timestamp: timestamp(exemplar.time_unix_ns),
    }
}

fn timestamp(unix_ns: u64) -> Option<proto::Timestamp> {
    let seconds = i64::try_from(unix_ns / 1_000_000_000).ok()?;
    (unix_ns > 0).then_some(proto::Timestamp { seconds, nanos: (unix_ns % 1_000_000_000) as i32 })
}

/// `metrics.proto`, the fields that are written.
pub(super) mod proto {
    /// `MetricType`
    pub const COUNTER: i32 = 0;
    pub const GAUGE: i32 = 1;
    pub const UNTYPED: i32 = 3;
    pub const HISTOGRAM: i32 = 4;

    /// `MetricFamily` without its metrics, which follow it on the wire as [`Series`].
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricFamily {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub help: String,
        #[prost(int32, optional, tag = "3")]
        pub r#type: Option<i32>,
        #[prost(string, tag = "5")]
        pub unit: String,
    }

    /// `MetricFamily` with nothing but one of its metrics: protobuf joins the parts of a message.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Series {
        #[prost(message, optional, tag = "4")]
        pub metric: Option<Metric>,
    }

    /// `Metric`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub gauge: Option<Number>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Counter>,
        #[prost(message, optional, tag = "5")]
        pub untyped: Option<Number>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
    }

    /// `LabelPair`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LabelPair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    /// `Gauge` and `Untyped`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Number {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
    }

    /// `Counter`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Counter {
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub created_timestamp: Option<Timestamp>,
    }

    /// `Histogram`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Histogram {
        #[prost(uint64, optional, tag = "1")]
        pub sample_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub sample_sum: Option<f64>,
        #[prost(message, repeated, tag = "3")]
        pub bucket: Vec<Bucket>,
        #[prost(sint32, optional, tag = "5")]
        pub schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub zero_count: Option<u64>,
        #[prost(message, repeated, tag = "12")]
        pub positive_span: Vec<BucketSpan>,
        #[prost(sint64, repeated, packed = "false", tag = "13")]
        pub positive_delta: Vec<i64>,
        #[prost(message, optional, tag = "15")]
        pub created_timestamp: Option<Timestamp>,
        #[prost(message, repeated, tag = "16")]
        pub exemplars: Vec<Exemplar>,
    }

    /// `Bucket`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bucket {
        #[prost(uint64, optional, tag = "1")]
        pub cumulative_count: Option<u64>,
        #[prost(double, optional, tag = "2")]
        pub upper_bound: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub exemplar: Option<Exemplar>,
    }

    /// `BucketSpan`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct BucketSpan {
        #[prost(sint32, tag = "1")]
        pub offset: i32,
        #[prost(uint32, tag = "2")]
        pub length: u32,
    }

    /// `Exemplar`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub label: Vec<LabelPair>,
        #[prost(double, optional, tag = "2")]
        pub value: Option<f64>,
        #[prost(message, optional, tag = "3")]
        pub timestamp: Option<Timestamp>,
    }

    /// `google.protobuf.Timestamp`
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }
}
