//! Counters as a backend sees them.
//!
//! Refuses: gauges and histograms; what is tested is what was counted.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, metric, number_data_point};

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
