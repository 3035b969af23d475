//! Spans as a user's backend sees them, and who is whose parent.
//!
//! Refuses: to repair what does not fit: a missing attribute is a failed test.

use std::collections::{BTreeMap, HashMap};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

/// A span with its resource.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name`
    pub service: String,
    /// Its name.
    pub name: String,
    /// Which side it tells.
    pub kind: SpanKind,
    /// The trace.
    pub trace_id: Vec<u8>,
    /// The span.
    pub id: Vec<u8>,
    /// The parent; empty for a root.
    pub parent: Vec<u8>,
    /// The caller's `tracestate`.
    pub trace_state: String,
    /// Start, nanoseconds since the epoch.
    pub start_ns: u64,
    /// End, likewise.
    pub end_ns: u64,
    /// Attributes as texts.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub is_error: bool,
}

impl Span {
    /// An attribute; empty if it is not there.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// What was asked of an HTTP server: the path with its query.
    pub fn target(&self) -> String {
        let (path, query) = (self.attribute("url.path"), self.attribute("url.query"));
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// A line that tells it to a reader.
    pub fn summary(&self) -> String {
        let status = [self.attribute("http.response.status_code"), self.attribute("db.response.status_code")];
        format!(
            "{:?} {} of {} at {}:{}: {} {} {} [{}]",
            self.kind,
            self.name,
            self.service,
            self.attribute("server.address"),
            self.attribute("server.port"),
            self.target(),
            status.concat(),
            self.attribute("error.type"),
            self.attribute("kansoku.link.proof")
        )
    }

    /// How long it took, seconds.
    pub fn seconds(&self) -> f64 {
        self.end_ns.saturating_sub(self.start_ns) as f64 / 1e9
    }

    /// Whether its server is at one of these ports.
    pub fn is_at(&self, ports: &[u16]) -> bool {
        self.attribute("server.port").parse().is_ok_and(|port| ports.contains(&port))
    }

    /// Whether it tells the client's side.
    pub fn is_client(&self) -> bool {
        self.kind == SpanKind::Client
    }
}

/// All spans of some requests.
pub fn of_requests(requests: &[ExportTraceServiceRequest]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in requests.iter().flat_map(|request| &request.resource_spans) {
        let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
        let service = attributes.filter(|attribute| attribute.key == "service.name").map(text).next();
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8), "{span:?}");
            spans.push(Span {
                service: service.clone().expect("every resource names its service"),
                name: span.name.clone(),
                kind: span.kind(),
                trace_id: span.trace_id.clone(),
                id: span.span_id.clone(),
                parent: span.parent_span_id.clone(),
                trace_state: span.trace_state.clone(),
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
                attributes: span.attributes.iter().map(|item| (item.key.clone(), text(item))).collect(),
                is_error: span.status.as_ref().is_some_and(|status| status.code == 2),
            });
        }
    }
    spans
}

/// Spans by their ids.
pub fn by_id(spans: &[Span]) -> HashMap<&[u8], &Span> {
    spans.iter().map(|span| (span.id.as_slice(), span)).collect()
}

fn text(attribute: &KeyValue) -> String {
    fn of(value: &AnyValue) -> String {
        match &value.value {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            Some(Value::ArrayValue(array)) => array.values.iter().map(of).collect::<Vec<_>>().join(","),
            other => panic!("no text: {other:?}"),
        }
    }
    attribute.value.as_ref().map(of).unwrap_or_default()
}
