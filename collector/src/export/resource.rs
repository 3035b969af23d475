//! The attributes of the host, which go on every resource beside those of the subject.
//!
//! Refuses: cloud metadata services: the agent asks no network for who it is.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::identity::Subject;
use crate::telemetry::{Endpoint, Owner};

/// Attributes of resources that are numbers.
const NUMBERS: [&str; 2] = ["k8s.container.restart_count", "server.port"];

/// Attributes of the host and those that the user added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResource {
    attributes: Vec<(String, String)>,
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
        Self { attributes }
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

    /// The resource of an endpoint: its owner's, with what tells it from the owner's other endpoints.
    pub fn of_endpoint(&self, endpoint: &Endpoint) -> Resource {
        let mut resource = match &endpoint.owner {
            Owner::Subject(subject) => self.of(subject),
            Owner::Agent => self.of_agent(),
            // An endpoint of an endpoint is not made.
            Owner::Host | Owner::Endpoint(_) => self.of_host(),
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

/// An attribute of a resource: a number where the conventions have one, else a text.
fn typed(key: &str, value: &str) -> KeyValue {
    match value.parse() {
        Ok(number) if NUMBERS.contains(&key) => KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::IntValue(number)) }),
            ..KeyValue::default()
        },
        _ => attribute(key, value.to_owned()),
    }
}

/// `host.arch` by the semantic conventions.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
