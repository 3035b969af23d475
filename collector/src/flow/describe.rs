//! An exchange of a connection -> the span of this side, still without its trace.
//!
//! Adds what a protocol does not know: addresses, the transport, how the time was spent. Refuses: parents and ids.

use std::net::SocketAddr;

use collector_common::flow::{Spent, Times};

use super::connection::Connection;
use super::ends::Ends;
use super::link::{Place, Waiting, Wire};
use super::protocol::{Exchange, Mark, Value};
use super::requests::SeriesId;
use super::sampling::end_ns;
use crate::identity::{Peer, PeerKind};
use crate::telemetry::{Span, SpanKind, SpanValue};

/// Names of the attributes that say where the time went, in the order of [`Times`].
const TIME_KEYS: [&str; 6] = [
    "kansoku.time.on_cpu",
    "kansoku.time.run_queue",
    "kansoku.time.lock",
    "kansoku.time.disk",
    "kansoku.time.network",
    "kansoku.time.other",
];

const _: () = assert!(TIME_KEYS.len() == Spent::Other as usize + 1);

/// The span of this side. `other` is the connection as its other end sees it, if that is on this node.
pub fn span(
    connection: &Connection,
    exchange: Exchange,
    side: SpanKind,
    series: SeriesId,
    must_stay: bool,
    ended_ns: u64,
    other: Option<Ends>,
) -> Waiting {
    let first = exchange.request.first;
    let has_response = exchange.response.is_some();
    let last = exchange.response.map_or(exchange.request.last, |response| response.last);
    let place = Place {
        thread: first.thread,
        is_of_one_thread: first.thread == last.thread,
        // Without an end that it saw, only a thread that never asks is known not to have asked.
        has_polled: if exchange.response.is_some() { first.polls != last.polls } else { first.polls != 0 },
        start_ns: first.begun_ns,
        end_ns: end_ns(&exchange, ended_ns),
    };
    let is_error =
        exchange.failure.as_ref().is_some_and(|failure| failure.is_servers || side != SpanKind::Server);
    let error = exchange.failure.as_ref().filter(|_| is_error).map(|failure| failure.message.clone());
    let mut attributes = own_attributes(&exchange);
    add_ends(&mut attributes, connection, side, other);
    if let Some(callee) = connection.callee() {
        add_callee(&mut attributes, callee);
    }
    for peer in connection.peer().into_iter().chain(connection.backend()) {
        attributes.push((peer_name_key(peer.kind), SpanValue::Text(peer.name.to_string().into())));
    }
    if let Some(failure) = exchange.failure.filter(|_| is_error) {
        attributes.push(("error.type", SpanValue::Text(failure.kind)));
    }
    if place.is_of_one_thread && has_response {
        add_times(&mut attributes, first, last);
    }
    if exchange.is_partial {
        attributes.push(("kansoku.partial", SpanValue::Text("true".into())));
    }
    let span = Span {
        subject: connection.subject.clone(),
        process: connection.process.clone(),
        trace_id: [0; 16],
        span_id: [0; 8],
        parent: None,
        link: None,
        trace_state: String::new(),
        protocol: exchange.protocol.name(),
        kind: side,
        name: exchange.name,
        start_unix_ns: place.start_ns,
        end_unix_ns: place.end_ns,
        attributes,
        error,
    };
    let is_client = is_client(side);
    let line = connection.line_of(is_client, other);
    let wire = Wire { line, position: first.position, is_client };
    Waiting { span, context: exchange.context, place, wire, series, must_stay }
}

/// Whether a side is the one that the request came from.
pub fn is_client(side: SpanKind) -> bool {
    matches!(side, SpanKind::Client | SpanKind::Producer)
}

fn own_attributes(exchange: &Exchange) -> Vec<(&'static str, SpanValue)> {
    let value = |value: &Value| match value {
        Value::Text(text) => SpanValue::Text(text.clone()),
        Value::Integer(number) => SpanValue::Integer(*number),
        Value::Texts(texts) => SpanValue::Texts(texts.clone()),
    };
    exchange.attributes.iter().map(|attribute| (attribute.key, value(&attribute.value))).collect()
}

/// `server.*`, `client.*` and `network.*` of the semantic conventions. Behind a translation of addresses the server is named by the
/// address that the client asked for, and the peer by its own.
fn add_ends(
    attributes: &mut Vec<(&'static str, SpanValue)>,
    connection: &Connection,
    side: SpanKind,
    other: Option<Ends>,
) {
    attributes.push(("network.transport", SpanValue::Text(connection.transport_name().into())));
    if let Some(path) = &connection.path {
        let text = || SpanValue::Text(path.to_string().into());
        attributes.push(("server.address", text()));
        if is_client(side) {
            attributes.push(("network.peer.address", text()));
        }
        return;
    }
    let Ends { local: client, peer: server } = connection.client_first();
    let text = |address: SocketAddr| SpanValue::Text(address.ip().to_string().into());
    let port = |address: SocketAddr| SpanValue::Integer(i64::from(address.port()));
    let has = |attributes: &[(&str, SpanValue)], key: &str| attributes.iter().any(|(name, _)| *name == key);
    if !has(attributes, "server.address") && !server.ip().is_unspecified() {
        attributes.push(("server.address", text(server)));
    }
    if !has(attributes, "server.port") {
        attributes.push(("server.port", port(server)));
    }
    let seen = if is_client(side) { server } else { client };
    let peer = other.map_or(seen, |other| other.local);
    let client = if is_client(side) { client } else { peer };
    if !is_client(side) && !client.ip().is_unspecified() {
        attributes.push(("client.address", text(client)));
        attributes.push(("client.port", port(client)));
    }
    if !peer.ip().is_unspecified() {
        attributes.push(("network.peer.address", text(peer)));
        attributes.push(("network.peer.port", port(peer)));
    }
}

/// Who is at the other end: `service.peer.*` of the semantic conventions (1.39), which have no names for a peer's pod.
fn add_callee(attributes: &mut Vec<(&'static str, SpanValue)>, peer: &Peer) {
    let mut add = |key, value: &str| attributes.push((key, SpanValue::Text(value.to_owned().into())));
    add("service.peer.name", peer.service_name());
    add("service.peer.namespace", peer.service_namespace());
    add("kansoku.peer.k8s.namespace.name", &peer.namespace);
}

fn peer_name_key(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Pod => "kansoku.peer.k8s.pod.name",
        PeerKind::Service => "kansoku.peer.k8s.service.name",
    }
}

/// What the thread spent its time on, seconds. The call that began before it was counted was on the CPU.
fn add_times(attributes: &mut Vec<(&'static str, SpanValue)>, first: Mark, last: Mark) {
    let mut spent: Times = std::array::from_fn(|kind| last.times[kind].saturating_sub(first.times[kind]));
    spent[Spent::OnCpu as usize] += first.time_ns.saturating_sub(first.begun_ns);
    for (key, spent_ns) in TIME_KEYS.into_iter().zip(spent) {
        attributes.push((key, SpanValue::Number(spent_ns as f64 / 1e9)));
    }
}
