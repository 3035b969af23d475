//! Golden requests, and requests under a size.

use std::fmt::Write;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use proptest::prelude::*;

use super::*;
use crate::identity::Subject;
use crate::telemetry::{
    Exemplar, ExplicitHistogram, ExponentialHistogram, OVERFLOW_ATTRIBUTE, Point, Summary, Value,
};

/// As a receiver reads it; written anew it has the same bytes, but that ours may stand in another order.
fn decode(request: &[u8]) -> ExportMetricsServiceRequest {
    let decoded = ExportMetricsServiceRequest::decode(request).expect("a request");
    assert_eq!(decoded.encoded_len(), request.len());
    decoded
}

fn subject(name: &str) -> Owner {
    Owner::Subject(Arc::new(Subject::named(name)))
}

fn host() -> HostResource {
    HostResource::read(&["host.name", "host.id", "host.arch", "os.type", "os.version"].map(|key| {
        let value = if key == "host.name" { "node" } else { "" };
        (key.to_owned(), value.to_owned())
    }))
}

fn text(attributes: &[KeyValue]) -> String {
    let texts = attributes.iter().filter_map(|attribute| {
        let value = attribute.value.as_ref()?.value.as_ref()?;
        match value {
            any_value::Value::StringValue(value) if value.is_empty() => None,
            any_value::Value::StringValue(value) => Some(format!("{}={value}", attribute.key)),
            other => Some(format!("{}:{other:?}", attribute.key)),
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// A line for each resource, scope, metric and point.
fn golden(request: &ExportMetricsServiceRequest) -> String {
    let mut lines = String::new();
    for of_resource in &request.resource_metrics {
        writeln!(lines, "{}", text(&of_resource.resource.as_ref().unwrap().attributes)).unwrap();
        for of_scope in &of_resource.scope_metrics {
            writeln!(lines, " {}", of_scope.scope.as_ref().unwrap().name).unwrap();
            for metric in &of_scope.metrics {
                golden_metric(&mut lines, metric);
            }
        }
    }
    lines
}

fn golden_metric(lines: &mut String, metric: &proto::Metric) {
    let (what, numbers) = match metric.data.as_ref().unwrap() {
        proto::metric::Data::Gauge(gauge) => ("gauge".to_owned(), &gauge.data_points[..]),
        proto::metric::Data::Sum(sum) => {
            (format!("sum {} {}", sum.aggregation_temporality, sum.is_monotonic), &sum.data_points[..])
        }
        proto::metric::Data::ExponentialHistogram(histogram) => {
            (format!("histogram {} {:?}", histogram.aggregation_temporality, histogram.data_points), &[][..])
        }
        other => panic!("{other:?}"),
    };
    writeln!(lines, "  {} [{}] {}: {what}", metric.name, metric.unit, metric.description).unwrap();
    for point in numbers {
        let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
        let value = point.value.as_ref().unwrap();
        writeln!(lines, "   {start}..{time} {value:?} {}", text(&point.attributes)).unwrap();
    }
}

fn metric(kind: MetricKind, name: &'static str, unit: &'static str, points: Vec<Point>) -> Metric {
    Metric::new(kind, name, unit, "d").with(points)
}

fn number(owner: &Owner, start: u64, value: f64) -> Point {
    Point::number(owner.clone(), Vec::new(), start, value)
}

fn some_snapshot() -> Snapshot {
    let (a, b) = (subject("a"), subject("b"));
    let mut scraped = metric(MetricKind::Counter, "app_bytes_total", "By", vec![number(&a, 5, 4.0)]);
    scraped.vocabulary = Vocabulary::Application;
    let mut cadvisor = metric(MetricKind::Counter, "container_x", "By", vec![number(&a, 5, 4.0)]);
    cadvisor.vocabulary = Vocabulary::Cadvisor;
    let mut overflow = number(&a, 5, 9.0);
    overflow.attributes = vec![(OVERFLOW_ATTRIBUTE.into(), "true".into())];
    let metrics = vec![
        scraped,
        cadvisor,
        metric(MetricKind::UpDownCounter, "z.memory", "By", vec![number(&a, 5, 1.0), number(&b, 5, 2.4)]),
        metric(MetricKind::Counter, "cpu.time", "s", vec![number(&b, 5, 3.0), overflow]),
        metric(MetricKind::Gauge, "load", "1", vec![number(&Owner::Host, 0, 2.0)]),
        metric(MetricKind::Unknown, "what", "By", vec![number(&Owner::Agent, 0, 1.0)]),
        metric(MetricKind::UpDownCounter, "limit", "{cpu}", vec![number(&Owner::Agent, 0, 1.0)]),
        metric(MetricKind::Counter, "empty", "By", vec![]),
    ];
    Snapshot { time_unix_ns: 100, metrics }
}

#[test]
fn golden_cumulative() {
    let found = metrics_requests(&some_snapshot(), &host(), TemporalityPreference::Cumulative, 1 << 20);
    assert_eq!((found.requests.len(), found.requests[0].1, found.refused), (1, 8, 0));
    let expected = "\
service.name=a host.name=node
 kansoku
  cpu.time [s] d: sum 2 true
   5..100 AsDouble(9.0) otel.metric.overflow:BoolValue(true)
  z.memory [By] d: sum 2 false
   5..100 AsInt(1) 
 kansoku/scrape
  app_bytes_total [By] d: sum 2 true
   5..100 AsDouble(4.0) 
";
    let found = golden(&decode(&found.requests[0].0));
    assert!(found.contains(expected), "{found}");
    let first = "service.name=b host.name=node\n kansoku\n  cpu.time [s] d: sum 2 true\n   5..100 AsDouble(3.0) \n  z.memory [By] d: sum 2 false\n   5..100 AsInt(2) \n";
    assert!(found.starts_with(first), "{found}");
    let agent = format!(
        "service.name=kansoku host.name=node service.version={}\n kansoku\n  limit [{{cpu}}] d: sum 2 false\n   0..100 AsDouble(1.0) \n  what [By] d: gauge\n   0..100 AsDouble(1.0) \n",
        crate::export::VERSION
    );
    assert!(found.contains(&agent), "{found}");
    assert!(
        found.contains("\nhost.name=node\n kansoku\n  load [1] d: gauge\n   0..100 AsDouble(2.0) \n"),
        "{found}"
    );
    assert!(!found.contains("container_x") && !found.contains("empty"), "{found}");
}

#[test]
fn temporality_by_kind() {
    for (preference, counter) in [(TemporalityPreference::Delta, 1), (TemporalityPreference::LowMemory, 2)] {
        let found = metrics_requests(&some_snapshot(), &host(), preference, 1 << 20);
        let found = golden(&decode(&found.requests[0].0));
        assert!(found.contains(&format!("cpu.time [s] d: sum {counter} true")), "{found}");
        assert!(found.contains("z.memory [By] d: sum 2 false"), "{found}");
    }
}

#[test]
fn whole_numbers() {
    use MetricKind::{Counter, Gauge, UpDownCounter};
    let check = |kind, unit, expected| {
        assert_eq!(is_whole(&metric(kind, "m", unit, vec![])), expected, "{kind:?} {unit}");
    };
    check(Counter, "By", true);
    check(Counter, "{fault}", true);
    check(UpDownCounter, "{process}", true);
    check(Gauge, "By", true);
    check(Gauge, "{thread}", false);
    check(UpDownCounter, "{cpu}", false);
    check(Counter, "s", false);
    check(Gauge, "1", false);
    check(Counter, "By/s", false);
    check(MetricKind::Unknown, "By", false);
}

#[test]
fn histogram_with_exemplars() {
    let exemplar = |trace: &str, span: &str| Exemplar {
        value: 1.5,
        time_unix_ns: 90,
        trace_id: Some(trace.into()),
        span_id: Some(span.into()),
        attributes: vec![("process.pid".into(), "7".into())],
    };
    let trace = "0123456789abcdef0123456789abcdef";
    let exemplars = vec![exemplar(trace, "00000000000000ff"), exemplar("+0123", "0000000000000000")];
    let buckets = vec![1, 0, 2];
    let histogram =
        ExponentialHistogram { scale: 2, offset: -3, buckets, zero_count: 4, sum: 7.5, exemplars };
    let value = Value::Histogram(Box::new(histogram));
    let point = Point { owner: Owner::Agent, attributes: Vec::new(), start_unix_ns: 5, value };
    let number = number(&Owner::Agent, 5, 1.0);
    let metrics = vec![metric(MetricKind::Histogram, "h", "s", vec![point, number])];
    let snapshot = Snapshot { time_unix_ns: 100, metrics };
    let found = metrics_requests(&snapshot, &host(), TemporalityPreference::LowMemory, 1 << 20);
    assert_eq!((found.requests[0].1, found.refused), (1, 1));
    let request = decode(&found.requests[0].0);
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(proto::metric::Data::ExponentialHistogram(data)) = &metric.data else { panic!("{metric:?}") };
    assert_eq!(data.aggregation_temporality, 1);
    let point = &data.data_points[0];
    assert_eq!((point.scale, point.zero_count, point.sum, point.count), (2, 4, Some(7.5), 7));
    assert_eq!(point.positive, Some(Buckets { offset: -3, bucket_counts: vec![1, 0, 2] }));
    let ids: Vec<_> = point
        .exemplars
        .iter()
        .map(|exemplar| (exemplar.trace_id.clone(), exemplar.span_id.clone()))
        .collect();
    let half = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    assert_eq!(ids, [([half, half].concat(), vec![0, 0, 0, 0, 0, 0, 0, 255]), (vec![], vec![])]);
    assert_eq!(text(&point.exemplars[0].filtered_attributes), "process.pid=7");
}

#[test]
fn what_applications_say() {
    let histogram = ExplicitHistogram {
        bounds: vec![1.0, 2.0],
        counts: vec![3, 0, 4],
        sum: Some(9.5),
        ..ExplicitHistogram::default()
    };
    let summary = Summary { count: 5, sum: 7.5, quantiles: vec![(0.5, 1.5)] };
    let of = |kind, name, value| {
        let attributes = vec![("server.port".into(), "80".into()), ("code".into(), "".into())];
        let point = Point { owner: Owner::Host, attributes, start_unix_ns: 5, value };
        Metric { vocabulary: Vocabulary::Application, ..metric(kind, name, "s", vec![point]) }
    };
    let metrics = vec![
        of(MetricKind::Histogram, "h", Value::ExplicitHistogram(Box::new(histogram))),
        of(MetricKind::Summary, "s", Value::Summary(Box::new(summary))),
    ];
    let snapshot = Snapshot { time_unix_ns: 100, metrics };
    let found = metrics_requests(&snapshot, &host(), TemporalityPreference::Cumulative, 1 << 20);
    let request = decode(&found.requests[0].0);
    let of_scope = &request.resource_metrics[0].scope_metrics[0];
    let data = of_scope.metrics.iter().map(|metric| metric.data.clone().expect("data")).collect::<Vec<_>>();
    let [proto::metric::Data::Histogram(histogram), proto::metric::Data::Summary(summary)] = &data[..] else {
        panic!("{data:?}");
    };
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum, histogram.aggregation_temporality), (7, Some(9.5), 2));
    assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[3, 0, 4][..], &[1.0, 2.0][..]));
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, 100));
    assert_eq!(text(&point.attributes), "server.port:IntValue(80)");
    assert_eq!((summary.data_points[0].count, summary.data_points[0].sum), (5, 7.5));
    assert_eq!(summary.data_points[0].attributes, point.attributes);
}

#[test]
fn refused_points() {
    let check = |unit: &'static str, value: f64, bytes_max: usize, expected: (u64, u64)| {
        let metrics = vec![metric(MetricKind::Counter, "m", unit, vec![number(&Owner::Host, 5, value)])];
        let snapshot = Snapshot { time_unix_ns: 100, metrics };
        let found = metrics_requests(&snapshot, &host(), TemporalityPreference::Cumulative, bytes_max);
        let points = found.requests.iter().map(|(_, points)| points).sum();
        assert_eq!((points, found.refused), expected, "{unit} {value} {bytes_max}");
    };
    check("By", 1e300, 1 << 20, (1, 0));
    check("By", f64::NAN, 1 << 20, (0, 1));
    check("s", f64::NAN, 1 << 20, (1, 0));
    check("s", 1.0, 50, (0, 1));
    let nothing = metrics_requests(&Snapshot::default(), &host(), TemporalityPreference::Delta, 1 << 20);
    assert_eq!(nothing, MetricsRequests::default());
}

#[test]
fn a_resource_that_fits_is_not_cut() {
    let owners: Vec<Owner> = (0..40).map(|i| subject(&format!("service-{i}"))).collect();
    let points = |count: u64| {
        let all = owners.iter().flat_map(move |owner| (0..count).map(move |start| number(owner, start, 1.0)));
        all.collect()
    };
    let metrics = vec![
        metric(MetricKind::Counter, "a", "By", points(5)),
        metric(MetricKind::Counter, "b", "s", points(7)),
    ];
    let snapshot = Snapshot { time_unix_ns: 100, metrics };
    let found = metrics_requests(&snapshot, &host(), TemporalityPreference::Cumulative, 2_000);
    let resources: usize =
        found.requests.iter().map(|(request, _)| decode(request).resource_metrics.len()).sum();
    assert!(found.requests.len() > 5, "{}", found.requests.len());
    assert_eq!(resources, owners.len());
}

proptest! {
    #[test]
    fn every_request_is_small_and_none_is_lost(
        points in proptest::collection::vec((0..4usize, 0..5usize, 0..400usize, any::<bool>()), 0..200),
        bytes_max in 300..6_000usize,
    ) {
        let owners = [Owner::Agent, Owner::Host, subject("a"), subject("b")];
        let names = ["m0", "m1", "m2", "m3", "m4"];
        let mut metrics: Vec<Metric> = names.iter().map(|name| metric(MetricKind::Counter, name, "s", vec![])).collect();
        metrics[3].vocabulary = Vocabulary::Application;
        metrics[4].kind = MetricKind::Histogram;
        for (number_of, (owner, metric, length, is_long)) in points.iter().enumerate() {
            let label = "x".repeat(if *is_long { *length } else { 3 });
            let mut point = number(&owners[*owner], 5, number_of as f64);
            point.attributes = vec![("label".into(), label.into())];
            if *metric == 4 {
                let buckets = vec![u64::MAX / 1000; length / 10];
                let histogram = ExponentialHistogram { buckets, offset: i32::MIN, ..ExponentialHistogram::default() };
                point.value = Value::Histogram(Box::new(histogram));
            }
            metrics[*metric].points.push(point);
        }
        let snapshot = Snapshot { time_unix_ns: 100, metrics };
        let whole = metrics_requests(&snapshot, &host(), TemporalityPreference::Cumulative, usize::MAX / 2);
        prop_assert_eq!(whole.refused, 0);
        let found = metrics_requests(&snapshot, &host(), TemporalityPreference::Cumulative, bytes_max);
        let sum: u64 = found.requests.iter().map(|(_, points)| points).sum();
        prop_assert_eq!(sum + found.refused, points.len() as u64);
        let mut parts = Vec::new();
        for (request, points) in &found.requests {
            prop_assert!(request.len() <= bytes_max);
            let of_request = flat(&decode(request));
            prop_assert_eq!(of_request.len() as u64, *points);
            parts.extend(of_request);
        }
        let all: Vec<_> = whole.requests.iter().flat_map(|(request, _)| flat(&decode(request))).collect();
        if found.refused == 0 {
            prop_assert_eq!(parts, all);
        } else {
            prop_assert!(bytes_max < 1_500 && parts.iter().all(|part| all.contains(part)));
        }
    }
}

/// Each point with its resource, scope and metric, in order.
fn flat(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let mut points = Vec::new();
    for of_resource in &request.resource_metrics {
        for of_scope in &of_resource.scope_metrics {
            for metric in &of_scope.metrics {
                let place = format!("{:?} {:?} {}", of_resource.resource, of_scope.scope, metric.name);
                match metric.data.as_ref().unwrap() {
                    proto::metric::Data::Sum(sum) => {
                        points.extend(sum.data_points.iter().map(|point| format!("{place} {point:?}")));
                    }
                    proto::metric::Data::ExponentialHistogram(data) => {
                        points.extend(data.data_points.iter().map(|point| format!("{place} {point:?}")));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    points
}
