//! The agent's own metrics -> OTLP metrics, cumulative, with the agent's start as start time.
//!
//! Refuses: histograms and other signals' metrics until a signal has them.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1 as proto;

use super::resource::{HostResource, attribute};
use super::{SCOPE_NAME, VERSION};
use crate::telemetry::{Metric, MetricKind, Point};

/// The request for a backend. Times are nanoseconds since the epoch.
pub fn metrics_request(
    metrics: &[Metric],
    host: &HostResource,
    start_unix_ns: u64,
    now_unix_ns: u64,
) -> ExportMetricsServiceRequest {
    let metrics = metrics.iter().filter(|metric| !metric.points.is_empty());
    let metrics = metrics.map(|metric| encode(metric, start_unix_ns, now_unix_ns)).collect();
    let scope = InstrumentationScope {
        name: SCOPE_NAME.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_metrics = proto::ScopeMetrics { scope: Some(scope), metrics, ..proto::ScopeMetrics::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![proto::ResourceMetrics {
            resource: Some(host.of_agent()),
            scope_metrics: vec![scope_metrics],
            ..proto::ResourceMetrics::default()
        }],
    }
}

fn encode(metric: &Metric, start_unix_ns: u64, now_unix_ns: u64) -> proto::Metric {
    let point = |point: &Point| proto::NumberDataPoint {
        attributes: point.attributes.iter().map(|(key, value)| attribute(key, value.clone())).collect(),
        start_time_unix_nano: start_unix_ns,
        time_unix_nano: now_unix_ns,
        value: Some(proto::number_data_point::Value::AsDouble(point.value)),
        ..proto::NumberDataPoint::default()
    };
    let data_points = metric.points.iter().map(point).collect();
    let data = match metric.kind {
        MetricKind::Counter => proto::metric::Data::Sum(proto::Sum {
            data_points,
            aggregation_temporality: proto::AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        MetricKind::Gauge => proto::metric::Data::Gauge(proto::Gauge { data_points }),
    };
    proto::Metric {
        name: metric.name.to_owned(),
        description: metric.description.to_owned(),
        unit: metric.unit.to_owned(),
        data: Some(data),
        ..proto::Metric::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: MetricKind, points: usize, expected_points: Option<usize>) {
        let point = Point { attributes: vec![("signal", "profile".to_owned())], value: 2.5 };
        let metric = Metric { name: "m", description: "d", unit: "1", kind, points: vec![point; points] };
        let request = metrics_request(&[metric], &HostResource::default(), 1, 2);
        let encoded = request.resource_metrics[0].scope_metrics[0].metrics.first();
        let found = encoded.map(|metric| match metric.data.as_ref().expect("data") {
            proto::metric::Data::Sum(sum) => sum.data_points.len(),
            proto::metric::Data::Gauge(gauge) => gauge.data_points.len(),
            other => panic!("unexpected {other:?}"),
        });
        assert_eq!(found, expected_points, "{kind:?} with {points} points");
    }

    #[test]
    fn kinds() {
        check(MetricKind::Counter, 2, Some(2));
        check(MetricKind::Gauge, 1, Some(1));
        check(MetricKind::Counter, 0, None);
    }
}
