//! The attributes of the host, which go on every resource beside those of the subject.
//!
//! Refuses: cloud metadata services: the agent asks no network for who it is.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::identity::Subject;
use crate::telemetry::{ClusterObject, Endpoint, Owner};

/// Attributes of resources and metrics that are numbers.
const NUMBERS: [&str; 4] =
    ["cpu.logical_number", "http.response.status_code", "k8s.container.restart_count", "server.port"];

/// Attributes that say which host it is, whoever set them.
const HOST_PREFIXES: [&str; 3] = ["host.", "os.", "k8s.node."];

/// Attributes of the host and those that the user added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResource {
    attributes: Vec<(String, String)>,
    /// Those of the user that say nothing of this host.
    shared: Vec<(String, String)>,
}

impl HostResource {
    /// Reads the host's attributes; `extra` (`OTEL_RESOURCE_ATTRIBUTES`) wins over what is found.
    pub fn read(extra: &[(String, String)]) -> Self {
        let uname = rustix::system::uname();
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let found = [
            ("host.name", uname.nodename().to_string_lossy().into_owned()),
            ("host.id", machine_id.trim().to_owned()),
            ("host.arch", architecture().to_owned()),
            ("os.type", "linux".to_owned()),
            ("os.version", uname.release().to_string_lossy().into_owned()),
        ];
        let is_new = |key: &str| extra.iter().all(|(name, _)| name != key);
        let found = found.into_iter().filter(|(key, value)| !value.is_empty() && is_new(key));
        let mut attributes: Vec<_> = found.map(|(key, value)| (key.to_owned(), value)).collect();
        attributes.extend(extra.iter().cloned());
        let is_of_host = |key: &str| HOST_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        let shared = extra.iter().filter(|(key, _)| !is_of_host(key)).cloned().collect();
        Self { attributes, shared }
    }

    /// The resource of a subject on this host. The subject wins over the host's attributes.
    pub fn of(&self, subject: &Subject) -> Resource {
        let own = subject.attributes();
        self.merge(own.iter().map(|(key, value)| (key.as_ref(), value.as_str())))
    }

    /// The resource of a subject that is only known by its attributes any more.
    pub fn of_attributes(&self, own: &BTreeMap<String, String>) -> Resource {
        self.merge(own.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    fn merge<'a>(&'a self, own: impl Iterator<Item = (&'a str, &'a str)>) -> Resource {
        let own: Vec<(&str, &str)> = own.collect();
        let of_host = self.attributes.iter().filter(|(key, _)| own.iter().all(|(name, _)| name != key));
        let of_host = of_host.map(|(key, value)| (key.as_str(), value.as_str()));
        let attributes = own.iter().copied().chain(of_host).map(|(key, value)| typed(key, value)).collect();
        Resource { attributes, ..Resource::default() }
    }

    /// The resource of the host: its attributes alone, without a `service.name`, which would make it a service.
    pub fn of_host(&self) -> Resource {
        self.merge(std::iter::empty())
    }

    /// The resource of an object of the cluster: its own attributes and those of the user, and nothing of this host, so that it
    /// is the same whichever agent tells of it.
    pub fn of_object(&self, object: &ClusterObject) -> Resource {
        let of_user =
            self.shared.iter().filter(|(key, _)| object.attributes.iter().all(|(name, _)| name != key));
        let of_user = of_user.map(|(key, value)| (key.as_str(), value.as_str()));
        let own = object.attributes.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        let attributes = own.chain(of_user).map(|(key, value)| typed(key, value)).collect();
        Resource { attributes, ..Resource::default() }
    }

    /// The resource of an endpoint: its owner's, with what tells it from the owner's other endpoints.
    pub fn of_endpoint(&self, endpoint: &Endpoint) -> Resource {
        let mut resource = match &endpoint.owner {
            Owner::Subject(subject) => self.of(subject),
            Owner::Object(object) => self.of_object(object),
            Owner::Agent => self.of_agent(),
            // An endpoint of an endpoint or of a cgroup is not made.
            Owner::Host | Owner::Endpoint(_) | Owner::Cgroup(_) => self.of_host(),
        };
        for (key, value) in &endpoint.attributes {
            resource.attributes.retain(|known| known.key != *key);
            resource.attributes.push(typed(key, value));
        }
        resource
    }

    /// The host's attributes, for formats that have no resources.
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }

    /// The resource of the agent itself.
    pub fn of_agent(&self) -> Resource {
        let mut resource = self.of(&Subject::named("kansoku"));
        resource.attributes.push(attribute("service.version", super::VERSION.to_owned()));
        resource
    }
}

/// Who made what is exported: the agent under a name, with its version.
pub fn scope(name: &str) -> InstrumentationScope {
    InstrumentationScope {
        name: name.to_owned(),
        version: super::VERSION.to_owned(),
        ..InstrumentationScope::default()
    }
}

/// An attribute with a text value.
pub fn attribute(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    }
}

/// An attribute of a resource or a metric: a number where the conventions have one, else a text.
pub fn typed(key: &str, value: &str) -> KeyValue {
    match value.parse() {
        Ok(number) if is_number(key) => KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::IntValue(number)) }),
            ..KeyValue::default()
        },
        _ => attribute(key, value.to_owned()),
    }
}

/// Whether the conventions have a number for an attribute.
pub fn is_number(key: &str) -> bool {
    NUMBERS.contains(&key)
}

/// `host.arch` by the semantic conventions.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_nothing_of_the_host() {
        let extra = [
            ("k8s.cluster.name", "test"),
            ("k8s.node.name", "n1"),
            ("host.name", "h"),
            ("k8s.pod.name", "x"),
        ];
        let extra = extra.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let attributes =
            vec![("k8s.pod.name".into(), "shop-1".into()), ("k8s.node.name".into(), "n7".into())];
        let object = ClusterObject { attributes, ..ClusterObject::default() };
        let expected = [("k8s.pod.name", "shop-1"), ("k8s.node.name", "n7"), ("k8s.cluster.name", "test")];
        let expected = expected.map(|(key, value)| attribute(key, value.to_owned()));
        assert_eq!(HostResource::read(&extra).of_object(&object).attributes, expected);
    }
}
