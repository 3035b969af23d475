//! Spans -> OTLP requests that a receiver takes, by the semantic conventions, `kansoku.*` for the rest.
//!
//! Written as bytes: a window may have ten thousand spans, and what turns them into requests runs beside what it observes.
//! Field numbers: opentelemetry/proto/trace/v1/trace.proto. Refuses: which spans there are.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use fnv::FnvBuildHasher;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as OtlpKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

use super::any_value::{AnyValue, attribute};
use super::resource::{HostResource, scope};
use super::{SCOPE_NAME, wire};
use crate::identity::{Key, Subject};
use crate::telemetry::{Span, SpanKind, SpanLink, SpanValue};

/// Bits of `flags`: the trace is sampled; the next ones say whether the parent is known to be of another process.
/// opentelemetry-proto, `SpanFlags`.
const FLAG_SAMPLED: u32 = 1;

/// Bytes of a span, about, so that most windows need no second allocation.
const SPAN_BYTES: usize = 768;

/// The requests for a backend, each an encoded `ExportTraceServiceRequest` of at most `bytes_max` with the number of its
/// spans; a span that is too large alone has a request of its own. Spans of one subject share a resource.
pub fn traces_requests(spans: &[Span], host: &HostResource, bytes_max: usize) -> Vec<(Vec<u8>, u64)> {
    let mut encoded = Vec::with_capacity(spans.len() * SPAN_BYTES);
    let mut subjects = Subjects::default();
    for span in spans {
        let start = encoded.len();
        write_span(span, &mut encoded);
        subjects.spans_of(&span.subject).push(start..encoded.len());
    }
    let mut packer = Packer {
        encoded: &encoded,
        scope: scope(SCOPE_NAME).encode_to_vec(),
        bytes_max,
        done: Vec::new(),
        request: Vec::new(),
        bytes: 0,
        count: 0,
    };
    for (subject, spans) in subjects.in_order {
        packer.add(&host.of(subject).encode_to_vec(), &spans);
    }
    packer.finish()
}

/// Subjects in the order in which they are first seen, with their spans.
#[derive(Default)]
struct Subjects<'a> {
    in_order: Vec<(&'a Subject, Vec<Range<usize>>)>,
    by_key: HashMap<Key, usize>,
    /// Spares making a key for each span.
    by_address: HashMap<usize, usize, FnvBuildHasher>,
}

impl<'a> Subjects<'a> {
    fn spans_of(&mut self, subject: &'a Arc<Subject>) -> &mut Vec<Range<usize>> {
        let Self { in_order, by_key, by_address } = self;
        let position = *by_address.entry(Arc::as_ptr(subject) as usize).or_insert_with(|| {
            *by_key.entry(subject.key()).or_insert_with(|| {
                in_order.push((subject, Vec::new()));
                in_order.len() - 1
            })
        });
        &mut in_order[position].1
    }
}

/// Fills requests. What stands around spans is taken for as long as it may be, see [`wire::NESTING_BYTES`].
struct Packer<'a> {
    encoded: &'a [u8],
    scope: Vec<u8>,
    bytes_max: usize,
    done: Vec<(Vec<u8>, u64)>,
    request: Vec<u8>,
    /// What the request has at most.
    bytes: usize,
    count: u64,
}

impl Packer<'_> {
    /// Adds all spans of an encoded resource.
    fn add(&mut self, resource: &[u8], spans: &[Range<usize>]) {
        let around = resource.len() + self.scope.len() + 4 * wire::NESTING_BYTES;
        let mut first = 0;
        for (position, span) in spans.iter().enumerate() {
            let bytes = span.len() + wire::NESTING_BYTES;
            let is_open = position > first;
            let needed = if is_open { bytes } else { around + bytes };
            if self.bytes + needed > self.bytes_max && (is_open || self.count > 0) {
                self.write(resource, &spans[first..position]);
                self.close();
                first = position;
                self.bytes = around + bytes;
            } else {
                self.bytes += needed;
            }
        }
        self.write(resource, &spans[first..]);
    }

    /// Writes a resource with these spans into the request.
    fn write(&mut self, resource: &[u8], spans: &[Range<usize>]) {
        if spans.is_empty() {
            return;
        }
        let spans_bytes: usize = spans.iter().map(|span| wire::part_bytes(span.len())).sum();
        let scope_bytes = wire::part_bytes(self.scope.len()) + spans_bytes;
        let out = &mut self.request;
        wire::head(out, 1, wire::part_bytes(resource.len()) + wire::part_bytes(scope_bytes));
        wire::part(out, 1, resource);
        wire::head(out, 2, scope_bytes);
        wire::part(out, 1, &self.scope);
        spans.iter().for_each(|span| wire::part(out, 2, &self.encoded[span.clone()]));
        self.count += spans.len() as u64;
    }

    fn close(&mut self) {
        if self.count > 0 {
            self.done.push((std::mem::take(&mut self.request), self.count));
        }
        (self.bytes, self.count) = (0, 0);
    }

    fn finish(mut self) -> Vec<(Vec<u8>, u64)> {
        self.close();
        self.done
    }
}

fn write_span(span: &Span, out: &mut Vec<u8>) {
    wire::part(out, 1, &span.trace_id);
    wire::part(out, 2, &span.span_id);
    if !span.trace_state.is_empty() {
        wire::part(out, 3, span.trace_state.as_bytes());
    }
    if let Some((id, _)) = &span.parent {
        wire::part(out, 4, id);
    }
    if !span.name.is_empty() {
        wire::part(out, 5, span.name.as_bytes());
    }
    wire::unsigned(out, 6, kind(span.kind) as u64);
    wire::fixed_unless_zero(out, 7, span.start_unix_ns);
    wire::fixed_unless_zero(out, 8, span.end_unix_ns);
    write_attributes(span, out);
    if let Some(link) = &span.link {
        let mut bytes = Vec::with_capacity(96);
        write_link(link, &mut bytes);
        wire::part(out, 13, &bytes);
    }
    if let Some(message) = &span.error {
        write_status(message, out);
    }
    wire::fixed32(out, 16, FLAG_SAMPLED);
}

fn write_attributes(span: &Span, out: &mut Vec<u8>) {
    for (key, value) in &span.attributes {
        let value = match value {
            SpanValue::Text(text) => AnyValue::Text(text),
            SpanValue::Integer(number) => AnyValue::Integer(*number),
            SpanValue::Number(number) => AnyValue::Number(*number),
            SpanValue::Texts(texts) => AnyValue::Texts(texts),
        };
        attribute(out, 9, key, &value);
    }
    attribute(out, 9, "process.pid", &AnyValue::Integer(i64::from(span.process.pid)));
    attribute(out, 9, "process.executable.name", &AnyValue::Text(&span.process.executable_name));
    if let Some((_, proof)) = &span.parent {
        attribute(out, 9, "kansoku.link.proof", &AnyValue::Text(proof.name()));
    }
}

fn write_link(link: &SpanLink, out: &mut Vec<u8>) {
    wire::part(out, 1, &link.to.trace_id);
    wire::part(out, 2, &link.to.span_id);
    attribute(out, 4, "kansoku.link.proof", &AnyValue::Text(link.doubt.name()));
    wire::fixed32(out, 6, FLAG_SAMPLED);
}

fn write_status(message: &str, out: &mut Vec<u8>) {
    let code = StatusCode::Error as u64;
    let message_bytes = if message.is_empty() { 0 } else { wire::part_bytes(message.len()) };
    wire::head(out, 15, message_bytes + 1 + wire::varint_bytes(code));
    if !message.is_empty() {
        wire::part(out, 2, message.as_bytes());
    }
    wire::unsigned(out, 3, code);
}

fn kind(kind: SpanKind) -> OtlpKind {
    match kind {
        SpanKind::Client => OtlpKind::Client,
        SpanKind::Server => OtlpKind::Server,
        SpanKind::Producer => OtlpKind::Producer,
        SpanKind::Consumer => OtlpKind::Consumer,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue as AnyValueMessage, ArrayValue, KeyValue};
    use opentelemetry_proto::tonic::trace::v1::span::Link;
    use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status};
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::{Doubt, ProcessName, Proof, SpanContext};

    const BYTES_MAX: usize = 1 << 20;

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

    fn decode(request: &[u8]) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(request).expect("a request")
    }

    /// Expects the services of resources, with their numbers of spans.
    fn check(spans: &[Span], expected: &[(&str, usize)]) {
        let requests = traces_requests(spans, &HostResource::default(), BYTES_MAX);
        let found: Vec<(String, usize)> =
            requests.iter().flat_map(|(request, _)| of_resources(request)).collect();
        let expected: Vec<(String, usize)> =
            expected.iter().map(|(service, spans)| ((*service).to_owned(), *spans)).collect();
        assert_eq!(found, expected);
    }

    fn of_resources(request: &[u8]) -> Vec<(String, usize)> {
        let of_resource = decode(request).resource_spans.into_iter().map(|of_resource| {
            let [of_scope] = &of_resource.scope_spans[..] else { panic!("one scope: {of_resource:?}") };
            assert_eq!(of_scope.scope, Some(scope(SCOPE_NAME)));
            let resource = of_resource.resource.clone().expect("a resource");
            let Some(Value::StringValue(service)) =
                resource.attributes[0].value.clone().and_then(|v| v.value)
            else {
                panic!("{resource:?}")
            };
            (service, of_scope.spans.len())
        });
        of_resource.collect()
    }

    #[test]
    fn spans_are_grouped_by_subject() {
        check(&[], &[]);
        let with_parent = span("b", Some(([3; 8], Proof::Thread)), None);
        check(&[span("a", None, None), with_parent, span("a", None, None)], &[("a", 2), ("b", 1)]);
    }

    /// The one span of a request with this one.
    fn exported(span: Span) -> OtlpSpan {
        let requests = traces_requests(&[span], &HostResource::default(), BYTES_MAX);
        let [(request, 1)] = &requests[..] else { panic!("one request: {requests:?}") };
        decode(request).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
    }

    #[test]
    fn only_children_have_a_proof() {
        for parent in [None, Some(([3; 8], Proof::Thread))] {
            let span = exported(span("a", parent, None));
            assert_eq!((span.trace_id.len(), span.span_id.len(), span.end_time_unix_nano), (16, 8, 9));
            let proof = span.attributes.iter().any(|attribute| attribute.key == "kansoku.link.proof");
            assert_eq!(proof, !span.parent_span_id.is_empty());
        }
    }

    #[test]
    fn what_may_have_caused_a_root_is_a_link() {
        let to = SpanContext { trace_id: [7; 16], span_id: [8; 8] };
        let doubt = Doubt::ThreadPolled;
        let root = exported(Span { link: Some(SpanLink { to, doubt }), ..span("a", None, None) });
        let [link] = &root.links[..] else { panic!("one link") };
        assert_eq!((&link.trace_id[..], &link.span_id[..]), (&[7; 16][..], &[8; 8][..]));
        let proof = Value::StringValue("thread_polled".to_owned());
        assert_eq!(link.attributes, [key_value("kansoku.link.proof", proof)]);
    }

    #[test]
    fn errors_have_a_status() {
        let status = exported(span("a", None, Some("500"))).status;
        assert_eq!(status.map(|status| status.code), Some(StatusCode::Error.into()));
    }

    fn key_value(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValueMessage { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    /// What the generated messages make of a span.
    fn message(span: &Span) -> OtlpSpan {
        let text = |text: &str| Value::StringValue(text.to_owned());
        let own = span.attributes.iter().map(|(key, value)| {
            let value = match value {
                SpanValue::Text(value) => text(value),
                SpanValue::Integer(number) => Value::IntValue(*number),
                SpanValue::Number(number) => Value::DoubleValue(*number),
                SpanValue::Texts(texts) => {
                    let values = texts.iter().map(|value| AnyValueMessage { value: Some(text(value)) });
                    Value::ArrayValue(ArrayValue { values: values.collect() })
                }
            };
            key_value(key, value)
        });
        let process = [
            key_value("process.pid", Value::IntValue(span.process.pid.into())),
            key_value("process.executable.name", text(&span.process.executable_name)),
        ];
        let proof = span.parent.map(|(_, proof)| key_value("kansoku.link.proof", text(proof.name())));
        let link = |link: &SpanLink| Link {
            trace_id: link.to.trace_id.to_vec(),
            span_id: link.to.span_id.to_vec(),
            attributes: vec![key_value("kansoku.link.proof", text(link.doubt.name()))],
            flags: 1,
            ..Link::default()
        };
        let status = |message: &String| Status { message: message.clone(), code: 2 };
        OtlpSpan {
            trace_id: span.trace_id.to_vec(),
            span_id: span.span_id.to_vec(),
            trace_state: span.trace_state.clone(),
            parent_span_id: span.parent.map(|(id, _)| id.to_vec()).unwrap_or_default(),
            flags: 1,
            name: span.name.to_string(),
            kind: kind(span.kind).into(),
            start_time_unix_nano: span.start_unix_ns,
            end_time_unix_nano: span.end_unix_ns,
            attributes: own.chain(process).chain(proof).collect(),
            links: span.link.iter().map(link).collect(),
            status: span.error.as_ref().map(status),
            ..OtlpSpan::default()
        }
    }

    fn some_span() -> impl Strategy<Value = Span> {
        let proof = prop_oneof![Just(Proof::Header), Just(Proof::Connection), Just(Proof::Thread)];
        let kind = prop_oneof![
            Just(SpanKind::Client),
            Just(SpanKind::Server),
            Just(SpanKind::Producer),
            Just(SpanKind::Consumer)
        ];
        let value = prop_oneof![
            ".{0,300}".prop_map(|text| SpanValue::Text(text.into())),
            any::<i64>().prop_map(SpanValue::Integer),
            any::<f64>().prop_map(SpanValue::Number),
            proptest::collection::vec(".{0,20}".prop_map(Into::into), 0..4).prop_map(SpanValue::Texts),
        ];
        let link = any::<Option<([u8; 16], [u8; 8])>>();
        let ids =
            (any::<[u8; 16]>(), any::<[u8; 8]>(), proptest::option::of((any::<[u8; 8]>(), proof)), link);
        let texts = (".{0,40}", ".{0,200}", proptest::option::of(".{0,200}"), "[ab]");
        let attributes = proptest::collection::vec((Just("server.address"), value), 0..6);
        (ids, texts, kind, attributes, any::<(u64, u64)>()).prop_map(
            |(ids, texts, kind, attributes, times)| {
                let (trace_id, span_id, parent, link) = ids;
                let (trace_state, name, error, service) = texts;
                let link = link.map(|(trace_id, span_id)| SpanLink {
                    to: SpanContext { trace_id, span_id },
                    doubt: Doubt::ThreadPolled,
                });
                let (start_unix_ns, end_unix_ns) = times;
                Span {
                    trace_id,
                    span_id,
                    link,
                    trace_state,
                    name: name.into(),
                    kind,
                    start_unix_ns,
                    end_unix_ns,
                    attributes,
                    ..span(&service, parent, error.as_deref())
                }
            },
        )
    }

    proptest! {
        #[test]
        fn as_generated(span in some_span()) {
            let mut written = Vec::new();
            write_span(&span, &mut written);
            let decoded = OtlpSpan::decode(&written[..]).expect("a span");
            // Numbers that are none equal nothing, not even themselves.
            prop_assert_eq!(decoded.encode_to_vec(), message(&span).encode_to_vec());
            prop_assert_eq!(written.len(), decoded.encoded_len());
        }

        #[test]
        fn every_request_is_small_and_none_is_lost(
            spans in proptest::collection::vec(some_span(), 0..60),
            bytes_max in 0..20_000usize,
        ) {
            let requests = traces_requests(&spans, &HostResource::default(), bytes_max);
            let mut found = Vec::new();
            for (request, count) in &requests {
                let flat: Vec<OtlpSpan> = decode(request)
                    .resource_spans
                    .into_iter()
                    .flat_map(|resource| resource.scope_spans)
                    .flat_map(|scope| scope.spans)
                    .collect();
                prop_assert_eq!(flat.len() as u64, *count);
                prop_assert!(request.len() <= bytes_max || *count == 1);
                found.extend(flat.iter().map(OtlpSpan::encode_to_vec));
            }
            let mut expected: Vec<Vec<u8>> = spans.iter().map(|span| message(span).encode_to_vec()).collect();
            expected.sort();
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
