//! Requests that wait, and what they become.
//!
//! Refuses: to decide which response is theirs.

use super::describe::{self, describe};
use super::head::{Length, RequestHead};
use crate::flow::protocol::{Attribute, Exchange, Extent, Pattern, Protocol, Text, TraceContext};

/// A request that waits for its response.
#[derive(Debug)]
pub struct Pending {
    /// When it was sent.
    pub extent: Extent,
    /// Whether its response has no body.
    pub is_head: bool,
    /// Whether its response ends HTTP.
    pub is_connect: bool,
    /// Size of its body, if that is known.
    pub body_bytes: Option<u64>,
    /// Whether something of it is missing.
    pub is_partial: bool,
    name: Text,
    attributes: Vec<Attribute>,
    context: Option<TraceContext>,
}

/// A response that is not over.
#[derive(Debug)]
pub struct Answer {
    /// When it was sent.
    pub extent: Extent,
    /// Its status code.
    pub status: u16,
    /// Size of its body, if that is known.
    pub body_bytes: Option<u64>,
    /// Whether something of it is missing.
    pub is_partial: bool,
}

impl Pending {
    /// A request with this head.
    pub fn new(head: &RequestHead<'_>, extent: Extent, is_partial: bool) -> Self {
        let (name, attributes) = describe(head);
        Self {
            extent,
            is_head: head.method == "HEAD",
            is_connect: head.method == "CONNECT",
            body_bytes: (head.length == Length::Bytes(0)).then_some(0),
            is_partial,
            name,
            attributes,
            context: head.carriers.context(),
        }
    }

    /// With its response, or without.
    pub fn exchange(mut self, answer: Option<Answer>) -> Exchange {
        let mut note = |key, bytes: Option<u64>| {
            let bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
            self.attributes.extend(bytes.map(|bytes| Attribute::of_span(key, bytes)));
        };
        note("http.request.body.size", self.body_bytes);
        note("http.response.body.size", answer.as_ref().and_then(|answer| answer.body_bytes));
        let status = answer.as_ref().map(|answer| answer.status);
        self.attributes
            .extend(status.map(|status| Attribute::of_both("http.response.status_code", i64::from(status))));
        Exchange {
            protocol: Protocol::Http1,
            pattern: Pattern::Call,
            request: self.extent,
            response: answer.as_ref().map(|answer| answer.extent),
            name: self.name,
            attributes: self.attributes,
            failure: status.map_or_else(|| Some(describe::no_response()), describe::failure),
            context: self.context,
            is_partial: self.is_partial || answer.is_some_and(|answer| answer.is_partial),
        }
    }
}
