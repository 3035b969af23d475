//! The words of an HTTP exchange, by the semantic conventions.
//!
//! Refuses: headers that carry credentials, and values without a bound.

use std::borrow::Cow;

use super::head::RequestHead;
use super::query::redact;
use super::route::route;
use crate::flow::protocol::{Attribute, Failure, Text};

/// Bytes of a text on a span.
const TEXT_BYTES_MAX: usize = 1024;

/// Methods that keep their name (RFC 9110 and RFC 5789).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Attributes that a request and its response may have.
const ATTRIBUTES_MAX: usize = 14;

/// The known method of that name.
pub fn known_method(method: &[u8]) -> Option<&'static str> {
    METHODS.into_iter().find(|known| known.as_bytes() == method)
}

/// Name of the span and attributes of the request.
pub fn describe(head: &RequestHead<'_>) -> (Text, Vec<Attribute>) {
    let mut attributes = Vec::with_capacity(ATTRIBUTES_MAX);
    let method = known_method(head.method.as_bytes());
    attributes.push(Attribute::of_both("http.request.method", method.unwrap_or("_OTHER")));
    if method.is_none() {
        attributes.push(Attribute::of_span("http.request.method_original", clipped(head.method)));
    }
    attributes.push(Attribute::of_both("url.scheme", "http"));
    attributes.push(Attribute::of_both("network.protocol.name", "http"));
    if let Some(minor) = head.version {
        let version = if minor == 0 { "1.0" } else { "1.1" };
        attributes.push(Attribute::of_both("network.protocol.version", version));
    }
    let name = describe_target(head, method.unwrap_or("HTTP"), &mut attributes);
    if let Some((address, port)) = head.host.and_then(host) {
        attributes.push(Attribute::of_span("server.address", clipped(address)));
        attributes.extend(port.map(|port| Attribute::of_span("server.port", i64::from(port))));
    }
    if let Some(agent) = head.user_agent.filter(|agent| !agent.is_empty()) {
        attributes.push(Attribute::of_span("user_agent.original", clipped(agent)));
    }
    (name, attributes)
}

/// How a response with this status failed.
pub fn failure(status: u16) -> Option<Failure> {
    (status >= 400).then(|| Failure {
        kind: Cow::Owned(status.to_string()),
        message: String::new(),
        is_servers: status >= 500,
    })
}

/// The failure of a request that got no response.
pub fn no_response() -> Failure {
    Failure { kind: Cow::Borrowed("no_response"), message: String::new(), is_servers: true }
}

fn describe_target(head: &RequestHead<'_>, verb: &'static str, attributes: &mut Vec<Attribute>) -> Text {
    let target = head.target.split('#').next().unwrap_or_default();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    // A proxy is asked for a whole address, whose user and password are not ours to keep.
    let path = match path.split_once("://") {
        Some((_, rest)) if !path.starts_with('/') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => path,
    };
    if !path.starts_with('/') {
        return Cow::Borrowed(verb);
    }
    let route = route(path, head.is_target_cut && query.is_none());
    let name = [verb, " ", &route].concat();
    attributes.push(Attribute::of_both("http.route", route));
    attributes.push(Attribute::of_span("url.path", clipped(path)));
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        attributes.push(Attribute::of_span("url.query", redact(clip(query))));
    }
    Cow::Owned(name)
}

/// Name and port of a `host` header.
fn host(value: &str) -> Option<(&str, Option<u16>)> {
    let value = value.trim();
    let (address, port) = match value.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, port)| (address, port.strip_prefix(':')))?,
        None => value.split_once(':').map_or((value, None), |(address, port)| (address, Some(port))),
    };
    let is_address = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    let is_valid = !address.is_empty() && address.bytes().all(is_address);
    is_valid.then_some((address, port.and_then(|port| port.parse().ok())))
}

fn clipped(text: &str) -> String {
    clip(text).to_owned()
}

fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default()
}
