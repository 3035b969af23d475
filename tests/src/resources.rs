//! Whose what arrived is: the resources of all signals, as a backend sees them.
//!
//! Refuses: to leave anything out. Two resources of one container that differ in one byte are two.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::receiver::Receiver;

/// The attributes of a resource.
pub type Attributes = BTreeMap<String, String>;

/// The signals, in the order of [`of_containers`]' keys.
pub const SIGNALS: [&str; 4] = ["logs", "metrics", "profiles", "traces"];

/// The resources with a `container.id`, by that and by signal.
pub fn of_containers(receiver: &Receiver) -> BTreeMap<(String, &'static str), BTreeSet<Attributes>> {
    let mut found: BTreeMap<(String, &'static str), BTreeSet<Attributes>> = BTreeMap::new();
    let mut add = |signal, resource: Option<&Resource>| {
        let attributes = resource.map(attributes).unwrap_or_default();
        if let Some(id) = attributes.get("container.id").cloned() {
            found.entry((id, signal)).or_default().insert(attributes);
        }
    };
    for request in receiver.logs() {
        request.resource_logs.iter().for_each(|one| add("logs", one.resource.as_ref()));
    }
    for request in receiver.metrics() {
        request.resource_metrics.iter().for_each(|one| add("metrics", one.resource.as_ref()));
    }
    for request in receiver.profiles() {
        request.resource_profiles.iter().for_each(|one| add("profiles", one.resource.as_ref()));
    }
    for request in receiver.traces() {
        request.resource_spans.iter().for_each(|one| add("traces", one.resource.as_ref()));
    }
    found
}

fn attributes(resource: &Resource) -> Attributes {
    let text = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            other => panic!("{} is {other:?}", pair.key),
        };
        (pair.key.clone(), text)
    };
    resource.attributes.iter().map(text).collect()
}
