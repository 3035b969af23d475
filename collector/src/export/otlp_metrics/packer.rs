//! Points -> requests under a size, each size taken once.
//!
//! The size of a message within a message is known only when it is complete, but its prefix has at most
//! [`NESTING_BYTES`]: adding that much keeps the sum at or above what the encoder will write. Refuses: looking into a
//! point.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::MetricsRequests;
use crate::export::delta::TemporalityPreference;
use crate::export::resource::scope;
use crate::export::{SCOPE_NAME, VERSION};
use crate::telemetry::{Metric, MetricKind, Vocabulary};

/// Name of the scope of what applications said themselves.
const SCRAPE_SCOPE_NAME: &str = "kansoku/scrape";

/// A tag and a length, at most: one byte and five.
const NESTING_BYTES: usize = 6;

/// Temporality and monotonicity of a sum.
const SUM_FIELDS_BYTES: usize = 4;

/// A point as it is sent.
pub enum DataPoint {
    /// Of a sum or a gauge.
    Number(proto::NumberDataPoint),
    /// Of a histogram; boxed, as it is three times as large.
    Histogram(Box<proto::ExponentialHistogramDataPoint>),
    /// Of an application's histogram.
    ExplicitHistogram(Box<proto::HistogramDataPoint>),
    /// Of an application's summary.
    Summary(proto::SummaryDataPoint),
}

/// A point with the metric that it belongs to and its size.
pub struct Piece {
    metric: usize,
    bytes: usize,
    point: DataPoint,
}

impl Piece {
    /// `metric` is the position in the packer's metrics.
    pub fn new(metric: usize, point: DataPoint) -> Self {
        let bytes = match &point {
            DataPoint::Number(point) => point.encoded_len(),
            DataPoint::Histogram(point) => point.encoded_len(),
            DataPoint::ExplicitHistogram(point) => point.encoded_len(),
            DataPoint::Summary(point) => point.encoded_len(),
        };
        Self { metric, bytes: bytes + NESTING_BYTES, point }
    }
}

/// Fills requests.
pub struct Packer<'a> {
    metrics: &'a [&'a Metric],
    temporality: TemporalityPreference,
    bytes_max: usize,
    done: MetricsRequests,
    request: ExportMetricsServiceRequest,
    bytes: usize,
    points: u64,
    open: Open,
}

/// What of the present resource the present request already has.
#[derive(Clone, Copy, Default, PartialEq)]
struct Open {
    resource: bool,
    scope: Option<Vocabulary>,
    metric: Option<usize>,
}

impl<'a> Packer<'a> {
    /// No request yet; `refused` points were never handed in.
    pub fn new(
        metrics: &'a [&'a Metric],
        temporality: TemporalityPreference,
        bytes_max: usize,
        refused: u64,
    ) -> Self {
        let done = MetricsRequests { requests: Vec::new(), refused };
        let request = ExportMetricsServiceRequest::default();
        Self { metrics, temporality, bytes_max, done, request, bytes: 0, points: 0, open: Open::default() }
    }

    /// Adds all of a resource. `pieces` stand in the order of their metrics.
    pub fn add(&mut self, resource: &Resource, pieces: Vec<Piece>) {
        self.open = Open::default();
        let resource_bytes = resource.encoded_len() + 2 * NESTING_BYTES;
        if self.bytes + self.whole_bytes(resource_bytes, &pieces) > self.bytes_max {
            self.close();
        }
        for piece in pieces {
            let mut needed = self.opening_bytes(self.open, resource_bytes, piece.metric) + piece.bytes;
            if self.bytes + needed > self.bytes_max && self.points > 0 {
                self.close();
                needed = self.opening_bytes(self.open, resource_bytes, piece.metric) + piece.bytes;
            }
            if self.bytes + needed > self.bytes_max {
                self.done.refused += 1;
                continue;
            }
            self.bytes += needed;
            self.points += 1;
            self.push(resource, piece);
        }
    }

    /// The requests.
    pub fn finish(mut self) -> MetricsRequests {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.points > 0 {
            self.done.requests.push((std::mem::take(&mut self.request), self.points));
        }
        (self.bytes, self.points, self.open) = (0, 0, Open::default());
    }

    fn whole_bytes(&self, resource_bytes: usize, pieces: &[Piece]) -> usize {
        let mut open = Open::default();
        let mut bytes = 0;
        for piece in pieces {
            bytes += self.opening_bytes(open, resource_bytes, piece.metric) + piece.bytes;
            open = self.opened(piece.metric);
        }
        bytes
    }

    fn opened(&self, metric: usize) -> Open {
        Open { resource: true, scope: Some(self.metrics[metric].vocabulary), metric: Some(metric) }
    }

    /// What must come before a point of a metric.
    fn opening_bytes(&self, open: Open, resource_bytes: usize, position: usize) -> usize {
        if open.metric == Some(position) {
            return 0;
        }
        let metric = self.metrics[position];
        let texts = metric.name.len() + metric.description.len() + metric.unit.len();
        // The three texts, the metric and its data.
        let mut bytes = texts + 5 * NESTING_BYTES + SUM_FIELDS_BYTES;
        if open.scope != Some(metric.vocabulary) {
            // Its name, its version, itself and the metrics under it.
            bytes += scope_name(metric.vocabulary).len() + VERSION.len() + 4 * NESTING_BYTES;
        }
        if !open.resource {
            bytes += resource_bytes;
        }
        bytes
    }

    fn push(&mut self, resource: &Resource, piece: Piece) {
        let metric = self.metrics[piece.metric];
        let (before, opened) = (self.open, self.opened(piece.metric));
        self.open = opened;
        if !before.resource {
            let resource = Some(resource.clone());
            let resource_metrics = proto::ResourceMetrics { resource, ..proto::ResourceMetrics::default() };
            self.request.resource_metrics.push(resource_metrics);
        }
        let Some(of_resource) = self.request.resource_metrics.last_mut() else { return };
        if before.scope != self.open.scope {
            of_resource.scope_metrics.push(scope_metrics(metric.vocabulary));
        }
        let Some(of_scope) = of_resource.scope_metrics.last_mut() else { return };
        if before.metric != self.open.metric {
            of_scope.metrics.push(empty(metric, self.temporality));
        }
        let data = of_scope.metrics.last_mut().and_then(|metric| metric.data.as_mut());
        match (data, piece.point) {
            (Some(proto::metric::Data::Sum(sum)), DataPoint::Number(point)) => sum.data_points.push(point),
            (Some(proto::metric::Data::Gauge(gauge)), DataPoint::Number(point)) => {
                gauge.data_points.push(point)
            }
            (Some(proto::metric::Data::ExponentialHistogram(histogram)), DataPoint::Histogram(point)) => {
                histogram.data_points.push(*point);
            }
            (Some(proto::metric::Data::Histogram(histogram)), DataPoint::ExplicitHistogram(point)) => {
                histogram.data_points.push(*point);
            }
            (Some(proto::metric::Data::Summary(summary)), DataPoint::Summary(point)) => {
                summary.data_points.push(point);
            }
            _ => debug_assert!(false, "a point of another type than its metric's"),
        }
    }
}

fn scope_name(vocabulary: Vocabulary) -> &'static str {
    if vocabulary == Vocabulary::Application { SCRAPE_SCOPE_NAME } else { SCOPE_NAME }
}

fn scope_metrics(vocabulary: Vocabulary) -> proto::ScopeMetrics {
    proto::ScopeMetrics { scope: Some(scope(scope_name(vocabulary))), ..proto::ScopeMetrics::default() }
}

/// A metric without points.
fn empty(metric: &Metric, temporality: TemporalityPreference) -> proto::Metric {
    let aggregation_temporality = match temporality.is_delta(metric.kind) {
        true => proto::AggregationTemporality::Delta.into(),
        false => proto::AggregationTemporality::Cumulative.into(),
    };
    let data_points = Vec::new();
    let data = match metric.kind {
        MetricKind::Counter | MetricKind::UpDownCounter => proto::metric::Data::Sum(proto::Sum {
            data_points,
            aggregation_temporality,
            is_monotonic: metric.kind == MetricKind::Counter,
        }),
        MetricKind::Gauge | MetricKind::Unknown => proto::metric::Data::Gauge(proto::Gauge { data_points }),
        MetricKind::Summary => proto::metric::Data::Summary(proto::Summary { data_points: Vec::new() }),
        MetricKind::Histogram if metric.vocabulary == Vocabulary::Application => {
            proto::metric::Data::Histogram(proto::Histogram {
                data_points: Vec::new(),
                aggregation_temporality,
            })
        }
        MetricKind::Histogram => proto::metric::Data::ExponentialHistogram(proto::ExponentialHistogram {
            data_points: Vec::new(),
            aggregation_temporality,
        }),
    };
    proto::Metric {
        name: metric.name.clone().into_owned(),
        description: metric.description.clone().into_owned(),
        unit: metric.unit.clone().into_owned(),
        data: Some(data),
        ..proto::Metric::default()
    }
}
