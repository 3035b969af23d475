//! Metrics as a backend sees them: counters summed up, and single points.
//!
//! Refuses: gauges as counters; what is tested is what was counted.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, metric, number_data_point,
};

/// One time series of a counter.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// What was counted in all.
    pub value: f64,
}

impl Series {
    /// An attribute, empty if it is not there.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// All series of a counter, from requests in the order of their arrival.
pub fn counter(requests: &[ExportMetricsServiceRequest], name: &str) -> Vec<Series> {
    let mut series: BTreeMap<BTreeMap<String, String>, f64> = BTreeMap::new();
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    let metrics = resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
    for metric in metrics.filter(|metric| metric.name == name) {
        let Some(metric::Data::Sum(sum)) = &metric.data else { panic!("{name} is no counter: {metric:#?}") };
        assert!(sum.is_monotonic, "{name} may fall");
        let is_delta = sum.aggregation_temporality == i32::from(AggregationTemporality::Delta);
        for point in &sum.data_points {
            let attributes = point.attributes.iter().map(|pair| {
                let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
                let text = match value {
                    Some(Value::StringValue(text)) => text.clone(),
                    Some(Value::IntValue(number)) => number.to_string(),
                    Some(Value::BoolValue(flag)) => flag.to_string(),
                    other => panic!("{name}: {} is {other:?}", pair.key),
                };
                (pair.key.clone(), text)
            });
            let value = match point.value {
                Some(number_data_point::Value::AsDouble(value)) => value,
                Some(number_data_point::Value::AsInt(value)) => value as f64,
                None => panic!("{name} without a value"),
            };
            let entry = series.entry(attributes.collect()).or_default();
            *entry = if is_delta { *entry + value } else { value };
        }
    }
    series.into_iter().map(|(attributes, value)| Series { attributes, value }).collect()
}

/// The sum over the series that satisfy a condition.
pub fn total(series: &[Series], is_wanted: impl Fn(&Series) -> bool) -> u64 {
    series.iter().filter(|series| is_wanted(series)).map(|series| series.value as u64).sum()
}

/// One point of a series, whatever its type.
#[derive(Clone, Debug)]
pub struct Point {
    /// The attributes of its resource.
    pub resource: BTreeMap<String, String>,
    /// Its own attributes.
    pub attributes: BTreeMap<String, String>,
    /// Since when it counts.
    pub start_unix_ns: u64,
    /// When it was taken.
    pub time_unix_ns: u64,
    /// A number; of a histogram how much was counted.
    pub value: f64,
    /// Of an exponential histogram at scale 0: the index of the first bucket, and the buckets.
    pub buckets: (i32, Vec<u64>),
    /// Whether it counts since the point before.
    pub is_delta: bool,
    /// The name of its scope.
    pub scope: String,
}

impl Point {
    /// An attribute of the point or of its resource, empty if it is not there.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).or(self.resource.get(key)).map_or("", String::as_str)
    }

    /// The upper bound of the bucket in which a quantile is.
    pub fn quantile_bound(&self, quantile: f64) -> f64 {
        let (offset, buckets) = &self.buckets;
        let rank = quantile * buckets.iter().sum::<u64>() as f64;
        let mut below = 0;
        let bucket = buckets.iter().position(|count| {
            below += count;
            below as f64 >= rank
        });
        2f64.powi(offset + bucket.expect("the buckets are not empty") as i32 + 1)
    }
}

/// All points of a metric, in the order of their arrival.
pub fn points(requests: &[ExportMetricsServiceRequest], name: &str) -> Vec<Point> {
    let mut points = Vec::new();
    for resource in requests.iter().flat_map(|request| &request.resource_metrics) {
        let of_resource = resource.resource.as_ref().map(|resource| texts(&resource.attributes));
        let of_resource = of_resource.unwrap_or_default();
        for scope in &resource.scope_metrics {
            let scope_name = scope.scope.as_ref().map_or(String::new(), |scope| scope.name.clone());
            for metric in scope.metrics.iter().filter(|metric| metric.name == name) {
                let mut of_metric = points_of(metric);
                for point in &mut of_metric {
                    point.resource.clone_from(&of_resource);
                    point.scope.clone_from(&scope_name);
                }
                points.extend(of_metric);
            }
        }
    }
    points
}

fn points_of(metric: &Metric) -> Vec<Point> {
    let is_delta = |temporality: i32| temporality == i32::from(AggregationTemporality::Delta);
    let of_number = |point: &NumberDataPoint, is_delta| Point {
        resource: BTreeMap::new(),
        attributes: texts(&point.attributes),
        start_unix_ns: point.start_time_unix_nano,
        time_unix_ns: point.time_unix_nano,
        value: match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None => panic!("{} without a value", metric.name),
        },
        buckets: (0, Vec::new()),
        is_delta,
        scope: String::new(),
    };
    match &metric.data {
        Some(metric::Data::Gauge(gauge)) => {
            gauge.data_points.iter().map(|point| of_number(point, false)).collect()
        }
        Some(metric::Data::Sum(sum)) => {
            let is_delta = is_delta(sum.aggregation_temporality);
            sum.data_points.iter().map(|point| of_number(point, is_delta)).collect()
        }
        Some(metric::Data::ExponentialHistogram(histogram)) => {
            let points = histogram.data_points.iter().map(|point| {
                assert_eq!(point.scale, 0, "{}", metric.name);
                let buckets = point.positive.as_ref();
                Point {
                    resource: BTreeMap::new(),
                    attributes: texts(&point.attributes),
                    start_unix_ns: point.start_time_unix_nano,
                    time_unix_ns: point.time_unix_nano,
                    value: point.count as f64,
                    buckets: buckets
                        .map_or((0, Vec::new()), |found| (found.offset, found.bucket_counts.clone())),
                    is_delta: is_delta(histogram.aggregation_temporality),
                    scope: String::new(),
                }
            });
            points.collect()
        }
        other => panic!("{}: {other:?}", metric.name),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let text = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            Some(Value::BoolValue(flag)) => flag.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}
