//! Protocols: the bytes of one connection become exchanges. One file each, and one variant of [`Parser`].
//!
//! A parser gets pieces of both directions in the order in which they were moved, knows where bytes are missing, and gives
//! protocol-neutral [`Exchange`]s. It never panics, keeps a bounded state and takes time linear in the bytes. Refuses: clocks,
//! files, threads, who the peers are, and what becomes of exchanges.

pub mod dns;
pub mod http1;
pub mod postgres;
pub mod redis;
#[cfg(test)]
mod replayed;
pub mod sql;

use std::borrow::Cow;

use collector_common::flow::Times;

/// Exchanges of one connection that may wait for their response. Above it the oldest is given up.
pub const PENDING_MAX: usize = 256;

/// Bytes of a message's head that one direction of a connection may keep until the rest arrives.
pub const CARRIED_BYTES_MAX: usize = 8 * 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Response,
}

impl Direction {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Response,
            Self::Response => Self::Request,
        }
    }
}

/// When something was moved, where in the stream, and by which thread. Parsers copy it and compare nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When the call began, as far as that is known: `CLOCK_MONOTONIC`, nanoseconds. Else as `time_ns`.
    pub begun_ns: u64,
    /// When the call had moved it.
    pub time_ns: u64,
    /// The thread.
    pub thread: u32,
    /// How often the thread had asked an event queue.
    pub polls: u32,
    /// Where in the bytes of its direction the piece begins, or the message that began in it; of a datagram the number that
    /// both ends say.
    pub position: u64,
    /// What the thread had spent its time on.
    pub times: Times,
}

/// What one call moved in one direction, as far as it was captured.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The first bytes of it, in the order of the stream. May be empty.
    pub bytes: &'a [u8],
    /// Bytes of the stream that follow `bytes` and were not captured.
    pub missing: u64,
    /// Whether it is the first piece after one of the other direction: where a new message is likely to begin. A parser that
    /// lost its place finds it again here.
    pub is_turn: bool,
    /// When.
    pub mark: Mark,
}

impl Piece<'_> {
    /// The mark of a message that begins where this rest of its bytes begins: the other end of the connection may have moved
    /// the same bytes in other pieces.
    pub fn mark_at(&self, rest: &[u8]) -> Mark {
        let taken = self.bytes.len().saturating_sub(rest.len());
        Mark { position: self.mark.position.saturating_add(taken as u64), ..self.mark }
    }
}

/// The time that one message took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Its first byte.
    pub first: Mark,
    /// Its last byte.
    pub last: Mark,
    /// Its bytes, as far as they are known.
    pub bytes: u64,
}

/// A text that is often a constant.
pub type Text = Cow<'static, str>;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(Text),
    /// A number.
    Integer(i64),
    /// Several texts.
    Texts(Vec<Text>),
}

/// An attribute of a span, named by the semantic conventions.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// Whether it also goes on the metric of the exchange: only what has few values.
    pub is_metric: bool,
}

/// What an exchange is to the one who began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// A request that waits for its response: spans CLIENT and SERVER.
    Call,
    /// A message handed over to be delivered: span PRODUCER at the sender.
    Publish,
    /// A message delivered: span CONSUMER at the receiver. Its bytes go from the server to the client.
    Deliver,
}

/// How an exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `error.type`: few values.
    pub kind: Text,
    /// What the status of the span says; may be empty.
    pub message: String,
    /// Whether the server is to blame: else only the span of the client is an error (HTTP 4xx).
    pub is_servers: bool,
}

/// The trace that a message says it belongs to. W3C Trace Context, B3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, not all zero.
    pub trace_id: [u8; 16],
    /// The sender's span, not all zero.
    pub span_id: [u8; 8],
    /// Whether the sender records its spans; `None` if it left that open.
    pub is_sampled: Option<bool>,
    /// `tracestate` as it came; may be empty. At most 512 bytes.
    pub state: String,
}

/// A request with its response, or what is known of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The protocol.
    pub protocol: Protocol,
    /// What it is to the one who began it.
    pub pattern: Pattern,
    /// The request; for [`Pattern::Deliver`] the message.
    pub request: Extent,
    /// The response; `None` if the connection ended, the pattern has none, or it was lost.
    pub response: Option<Extent>,
    /// Name of the span: few values.
    pub name: Text,
    /// By the semantic conventions of the protocol. No address, port, time or error: the caller adds those.
    pub attributes: Vec<Attribute>,
    /// How it failed; `None` if it did not.
    pub failure: Option<Failure>,
    /// The trace that the request named.
    pub context: Option<TraceContext>,
    /// Whether something of it is missing, so that attributes or times may be incomplete.
    pub is_partial: bool,
}

/// What a parser says after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It wants more.
    More,
    /// What follows is not of this protocol (an upgrade, encryption, a bulk copy that takes the connection over): nothing
    /// more of this connection needs to be captured.
    Leave,
}

/// What a parser gives.
#[derive(Debug, Default)]
pub struct Output {
    /// Exchanges that are complete, in the order in which they ended.
    pub exchanges: Vec<Exchange>,
    /// Exchanges that were seen to begin or to end, and whose rest was lost or did not fit.
    pub abandoned: u64,
    /// Stretches of bytes that made no sense.
    pub rejected: u64,
}

/// The protocols, by their names in telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 and 1.1
    Http1,
    /// PostgreSQL, version 3
    Postgres,
    /// Redis, RESP2 and RESP3
    Redis,
    /// DNS
    Dns,
}

/// The state of one connection's protocol.
#[derive(Debug)]
pub enum Parser {
    /// HTTP/1.0 and 1.1
    Http1(Box<http1::Http1>),
    /// PostgreSQL
    Postgres(Box<postgres::Postgres>),
    /// Redis
    Redis(Box<redis::Redis>),
    /// DNS
    Dns(Box<dns::Dns>),
}

/// How bytes are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A stream: messages may be cut and joined.
    Tcp,
    /// Datagrams: one piece is one message.
    Udp,
}

impl Protocol {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Http1, Self::Postgres, Self::Redis, Self::Dns];

    /// Its name, as `--protocol` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Postgres => "postgresql",
            Self::Redis => "redis",
            Self::Dns => "dns",
        }
    }

    /// Whether its servers are databases.
    pub fn is_database(self) -> bool {
        matches!(self, Self::Postgres | Self::Redis)
    }

    /// A parser at the start of a connection, or in the middle of one.
    pub fn parser(self, transport: Transport) -> Parser {
        match self {
            Self::Http1 => Parser::Http1(Box::default()),
            Self::Postgres => Parser::Postgres(Box::default()),
            Self::Redis => Parser::Redis(Box::default()),
            Self::Dns => Parser::Dns(Box::new(dns::Dns::new(transport))),
        }
    }
}

/// Which protocol the first bytes of a message are of, and which way they go. `ports` are the ports of both ends, for
/// protocols that look like nothing in particular.
pub fn detect(bytes: &[u8], transport: Transport, ports: [u16; 2]) -> Option<(Protocol, Direction)> {
    Protocol::ALL.into_iter().find_map(|protocol| {
        let direction = match (protocol, transport) {
            (Protocol::Http1, Transport::Tcp) => http1::detect(bytes),
            (Protocol::Postgres, Transport::Tcp) => postgres::detect(bytes),
            (Protocol::Redis, Transport::Tcp) => redis::detect(bytes),
            (Protocol::Dns, _) => dns::detect(bytes, transport, ports),
            (_, Transport::Udp) => None,
        };
        Some((protocol, direction?))
    })
}

impl Parser {
    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Http1(_) => Protocol::Http1,
            Self::Postgres(_) => Protocol::Postgres,
            Self::Redis(_) => Protocol::Redis,
            Self::Dns(_) => Protocol::Dns,
        }
    }

    /// Takes a piece.
    pub fn take(&mut self, direction: Direction, piece: Piece<'_>, output: &mut Output) -> Progress {
        match self {
            Self::Http1(parser) => parser.take(direction, piece, output),
            Self::Postgres(parser) => parser.take(direction, piece, output),
            Self::Redis(parser) => parser.take(direction, piece, output),
            Self::Dns(parser) => parser.take(direction, piece, output),
        }
    }

    /// Whether nothing waits for its response, so that exchanges may be left out here without harm.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Http1(parser) => parser.is_idle(),
            Self::Postgres(parser) => parser.is_idle(),
            Self::Redis(parser) => parser.is_idle(),
            Self::Dns(parser) => parser.is_idle(),
        }
    }

    /// About the memory that its state takes beyond a small and constant part; 0 for those that keep no texts of requests that
    /// are over.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Postgres(parser) => parser.held_bytes(),
            Self::Http1(_) | Self::Redis(_) | Self::Dns(_) => 0,
        }
    }

    /// The connection ended, or nothing more of it will come: what waits is given out without a response.
    pub fn finish(&mut self, mark: Mark, output: &mut Output) {
        match self {
            Self::Http1(parser) => parser.finish(mark, output),
            Self::Postgres(parser) => parser.finish(mark, output),
            Self::Redis(parser) => parser.finish(mark, output),
            Self::Dns(parser) => parser.finish(mark, output),
        }
    }
}

impl Attribute {
    /// An attribute of the span alone.
    pub fn of_span(key: &'static str, value: impl Into<Value>) -> Self {
        Self { key, value: value.into(), is_metric: false }
    }

    /// An attribute of the span and of the metric.
    pub fn of_both(key: &'static str, value: impl Into<Value>) -> Self {
        Self { key, value: value.into(), is_metric: true }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// Where pieces of a test stand in their directions.
#[cfg(test)]
#[derive(Default)]
struct Positions([u64; 2]);

#[cfg(test)]
impl Positions {
    /// The position of the next piece, of so many bytes.
    fn next(&mut self, direction: Direction, bytes: u64) -> u64 {
        let position = &mut self.0[direction as usize];
        std::mem::replace(position, *position + bytes)
    }

    /// Clears all positions but those where requests begin: the others depend on how a stream is cut.
    fn keep_requests(output: &mut Output) {
        for exchange in &mut output.exchanges {
            exchange.request.last.position = 0;
            if let Some(response) = &mut exchange.response {
                (response.first.position, response.last.position) = (0, 0);
            }
        }
    }
}
