//! A span: what one side of an exchange did, when, as part of which trace.
//!
//! Refuses: OTLP, and how spans find their parents.

use std::sync::Arc;

use super::{ProcessName, Text};
use crate::identity::Subject;

/// Which side of an exchange a span tells. OpenTelemetry trace specification, "SpanKind".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// It asked.
    Client,
    /// It answered.
    Server,
    /// It handed a message over.
    Producer,
    /// It was given a message.
    Consumer,
}

/// A value of a span's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum SpanValue {
    /// A text.
    Text(Text),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Several texts.
    Texts(Vec<Text>),
}

/// How a span is known to belong to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// The message said so (`traceparent`, `b3`).
    Header,
    /// The two are the ends of one connection at one place in its bytes.
    Connection,
    /// One thread did nothing else from the parent's request to its response, and never asked an event queue meanwhile.
    Thread,
}

/// Why a span that may have caused another is not its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Its thread asked an event queue meanwhile, and may have done something else since.
    ThreadPolled,
    /// Another thread ended it.
    ThreadLeft,
}

/// The one span that may have caused another, where that is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLink {
    /// That span.
    pub to: SpanContext,
    /// Why it is not the parent.
    pub doubt: Doubt,
}

/// Which span something else happened in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
}

/// A span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// The process.
    pub process: Arc<ProcessName>,
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// The parent, and how it was found; `None` for a root.
    pub parent: Option<([u8; 8], Proof)>,
    /// What may have caused a root.
    pub link: Option<SpanLink>,
    /// `tracestate` as it came; may be empty.
    pub trace_state: String,
    /// The protocol, as `--protocol` takes it.
    pub protocol: &'static str,
    /// Which side it tells.
    pub kind: SpanKind,
    /// Its name, of few values.
    pub name: Text,
    /// Start, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    /// End, likewise.
    pub end_unix_ns: u64,
    /// By the semantic conventions; the resource's are not repeated.
    pub attributes: Vec<(&'static str, SpanValue)>,
    /// What went wrong; `None` where nothing did, or not by this side's fault.
    pub error: Option<String>,
}

/// Bytes of an id as lower-case hexadecimal digits.
pub fn hexadecimal(id: &[u8]) -> String {
    id.iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

impl SpanKind {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

impl Proof {
    /// The value of `kansoku.link.proof`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Connection => "connection",
            Self::Thread => "thread",
        }
    }
}

impl Doubt {
    /// The value of `kansoku.link.proof` on the link.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ThreadPolled => "thread_polled",
            Self::ThreadLeft => "thread_left",
        }
    }
}

impl Span {
    /// How long it took.
    pub fn duration_ns(&self) -> u64 {
        self.end_unix_ns.saturating_sub(self.start_unix_ns)
    }
}
