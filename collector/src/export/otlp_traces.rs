//! Spans -> OTLP traces, by the semantic conventions, `kansoku.*` for the rest.
//!
//! Refuses: which spans there are.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind as OtlpKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status};

use super::SCOPE_NAME;
use super::resource::{HostResource, attribute, scope};
use crate::telemetry::{Span, SpanKind, SpanLink, SpanValue};

/// Bits of `flags`: the trace is sampled; the next ones say whether the parent is known to be of another process.
/// opentelemetry-proto, `SpanFlags`.
const FLAG_SAMPLED: u32 = 1;

/// The request for a backend. Spans of one subject share a resource.
pub fn traces_request(spans: &[Span], host: &HostResource) -> ExportTraceServiceRequest {
    let mut resource_spans: Vec<ResourceSpans> = Vec::new();
    let mut by_subject = std::collections::HashMap::new();
    for span in spans {
        let index = *by_subject.entry(span.subject.key()).or_insert_with(|| {
            resource_spans.push(ResourceSpans {
                resource: Some(host.of(&span.subject)),
                scope_spans: vec![ScopeSpans { scope: Some(scope(SCOPE_NAME)), ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            });
            resource_spans.len() - 1
        });
        resource_spans[index].scope_spans[0].spans.push(otlp_span(span));
    }
    ExportTraceServiceRequest { resource_spans }
}

fn otlp_span(span: &Span) -> OtlpSpan {
    OtlpSpan {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent.map(|(id, _)| id.to_vec()).unwrap_or_default(),
        flags: FLAG_SAMPLED,
        name: span.name.to_string(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.end_unix_ns,
        attributes: attributes(span),
        links: span.link.iter().map(link).collect(),
        status: span
            .error
            .as_ref()
            .map(|message| Status { message: message.clone(), code: StatusCode::Error.into() }),
        ..OtlpSpan::default()
    }
}

fn link(link: &SpanLink) -> Link {
    Link {
        trace_id: link.to.trace_id.to_vec(),
        span_id: link.to.span_id.to_vec(),
        attributes: vec![attribute("kansoku.link.proof", link.doubt.name().to_owned())],
        flags: FLAG_SAMPLED,
        ..Link::default()
    }
}

fn kind(kind: SpanKind) -> OtlpKind {
    match kind {
        SpanKind::Client => OtlpKind::Client,
        SpanKind::Server => OtlpKind::Server,
        SpanKind::Producer => OtlpKind::Producer,
        SpanKind::Consumer => OtlpKind::Consumer,
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let own = span.attributes.iter().map(|(key, value)| KeyValue {
        key: (*key).to_owned(),
        value: Some(any_value(value)),
        ..KeyValue::default()
    });
    let process = [
        KeyValue {
            key: "process.pid".to_owned(),
            value: Some(any_value(&SpanValue::Integer(i64::from(span.process.pid)))),
            ..KeyValue::default()
        },
        attribute("process.executable.name", span.process.executable_name.to_string()),
    ];
    let proof = span.parent.map(|(_, proof)| attribute("kansoku.link.proof", proof.name().to_owned()));
    own.chain(process).chain(proof).collect()
}

fn any_value(value: &SpanValue) -> AnyValue {
    let value = match value {
        SpanValue::Text(text) => Value::StringValue(text.to_string()),
        SpanValue::Integer(number) => Value::IntValue(*number),
        SpanValue::Number(number) => Value::DoubleValue(*number),
        SpanValue::Texts(texts) => {
            let text = |text: &std::borrow::Cow<'static, str>| AnyValue {
                value: Some(Value::StringValue(text.to_string())),
            };
            Value::ArrayValue(ArrayValue { values: texts.iter().map(text).collect() })
        }
    };
    AnyValue { value: Some(value) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Subject;
    use crate::telemetry::{Doubt, ProcessName, Proof, SpanContext};

    fn span(service: &str, parent: Option<([u8; 8], Proof)>, error: Option<&str>) -> Span {
        Span {
            subject: Arc::new(Subject::named(service)),
            process: Arc::new(ProcessName { pid: 7, executable_name: "shop".into(), executable_path: None }),
            trace_id: [1; 16],
            span_id: [2; 8],
            parent,
            link: None,
            trace_state: String::new(),
            protocol: "http",
            kind: SpanKind::Server,
            name: "GET /orders/{id}".into(),
            start_unix_ns: 5,
            end_unix_ns: 9,
            attributes: vec![("http.response.status_code", SpanValue::Integer(500))],
            error: error.map(str::to_owned),
        }
    }

    /// Expects the number of spans of each resource.
    fn check(spans: &[Span], expected: &[usize]) {
        let request = traces_request(spans, &HostResource::default());
        let found: Vec<usize> =
            request.resource_spans.iter().map(|resource| resource.scope_spans[0].spans.len()).collect();
        assert_eq!(found, expected);
        let flat: Vec<&OtlpSpan> =
            request.resource_spans.iter().flat_map(|resource| &resource.scope_spans[0].spans).collect();
        for span in flat {
            assert_eq!((span.trace_id.len(), span.span_id.len(), span.end_time_unix_nano), (16, 8, 9));
            let proof = span.attributes.iter().any(|attribute| attribute.key == "kansoku.link.proof");
            assert_eq!(proof, !span.parent_span_id.is_empty());
        }
    }

    #[test]
    fn spans_are_grouped_by_subject() {
        check(&[], &[]);
        check(
            &[span("a", None, None), span("b", Some(([3; 8], Proof::Thread)), None), span("a", None, None)],
            &[2, 1],
        );
    }

    #[test]
    fn what_may_have_caused_a_root_is_a_link() {
        let to = SpanContext { trace_id: [7; 16], span_id: [8; 8] };
        let doubt = Doubt::ThreadPolled;
        let root = Span { link: Some(SpanLink { to, doubt }), ..span("a", None, None) };
        let request = traces_request(&[root], &HostResource::default());
        let [link] = &request.resource_spans[0].scope_spans[0].spans[0].links[..] else { panic!("one link") };
        assert_eq!((&link.trace_id[..], &link.span_id[..]), (&[7; 16][..], &[8; 8][..]));
        assert_eq!(link.attributes, [attribute("kansoku.link.proof", "thread_polled".to_owned())]);
    }

    #[test]
    fn errors_have_a_status() {
        let request = traces_request(&[span("a", None, Some("500"))], &HostResource::default());
        let status = request.resource_spans[0].scope_spans[0].spans[0].status.clone();
        assert_eq!(status.map(|status| status.code), Some(StatusCode::Error.into()));
    }
}
