//! Metrics of connections, whatever is said over them: how many, how they began and ended, how long they were, what moved.
//!
//! By service, role and transport; what moved also by the service at the other end, where that is on this node. Bounded: what
//! finds no room counts as the host's. Refuses: what `tcp.*` has already (connect times, round trips), and addresses of peers.

mod ending;

use std::collections::HashMap;
use std::sync::Arc;

use collector_common::flow::{CloseRecord, Role};

use self::ending::{CAUSES, Cause, FAILURES, Failure};
use super::connection::Connection;
use super::requests::Times;
use crate::identity::Subject;
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Value};

/// Series of all services together, of either kind.
const SERIES_MAX: usize = 16_384;

/// A series without connections that counts nothing for so long ends; if it counts again, it begins anew.
const IDLE_NS: u64 = 600_000_000_000;

/// The name of all peers that are not on this node.
const OTHER: &str = "other";

/// Whose connections; `None` for those that no service of this node is known to have.
type Whose = Option<Arc<Subject>>;

/// Connections that count together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    whose: Whose,
    role: Role,
    transport: &'static str,
}

/// Where a connection is counted, and how much of it.
#[derive(Debug)]
pub struct Account {
    kind: Kind,
    /// Bytes sent and received that are counted.
    moved: [u64; 2],
}

/// Connections of one kind.
#[derive(Default)]
struct Counts {
    opened: u64,
    active: u64,
    closed: [u64; CAUSES],
    failed: [u64; FAILURES],
    durations: Times,
    has_durations: bool,
    start_ns: u64,
    last_ns: u64,
}

/// What moved over connections of one kind to one peer.
#[derive(Default)]
struct Traffic {
    bytes: [u64; 2],
    segments: [u64; 2],
    retransmits: u64,
    start_ns: u64,
    last_ns: u64,
}

/// All of it.
pub struct Networks {
    /// From the kernel's clock to the epoch, once for all: starts of series must not move.
    start_offset_ns: u64,
    counts: HashMap<Kind, Counts>,
    /// By the kind and the peer.
    traffic: HashMap<(Kind, Whose), Traffic>,
}

impl Networks {
    /// Nothing counted yet. `monotonic_to_unix_ns` is how far the kernel's clock is from the epoch now.
    pub fn new(monotonic_to_unix_ns: u64) -> Self {
        Self { start_offset_ns: monotonic_to_unix_ns, counts: HashMap::new(), traffic: HashMap::new() }
    }

    /// Counts a connection where it belongs by what is known of it now.
    pub fn place(&mut self, connection: &mut Connection, now_ns: u64) {
        let whose = is_known(connection).then(|| Arc::clone(&connection.subject));
        let kind = self.kind(whose, connection.role, connection.transport_name());
        let before = match &mut connection.account {
            Some(account) if account.kind == kind => return,
            Some(account) => Some(std::mem::replace(&mut account.kind, kind.clone())),
            None => {
                connection.account = Some(Account { kind: kind.clone(), moved: [0; 2] });
                None
            }
        };
        let counts = self.counts(kind, now_ns);
        counts.active += 1;
        counts.opened += u64::from(before.is_none() && connection.was_seen_opening());
        if let Some(before) = before.and_then(|before| self.counts.get_mut(&before)) {
            before.active = before.active.saturating_sub(1);
        }
    }

    /// So many bytes were sent and received over a connection until now; returns whether that is more than before.
    pub fn moved(&mut self, connection: &mut Connection, peer: Whose, moved: [u64; 2], now_ns: u64) -> bool {
        let Some(account) = &mut connection.account else { return false };
        let more = [0, 1].map(|way| moved[way].saturating_sub(account.moved[way]));
        if more == [0; 2] {
            return false;
        }
        account.moved = [0, 1].map(|way| account.moved[way] + more[way]);
        let kind = account.kind.clone();
        let traffic = self.traffic(kind, peer, now_ns);
        (0..2).for_each(|way| traffic.bytes[way] += more[way]);
        true
    }

    /// A connection ended.
    pub fn closed(&mut self, connection: &mut Connection, peer: Whose, record: &CloseRecord) {
        let now_ns = record.head.time_ns;
        self.place(connection, now_ns);
        self.moved(connection, peer.clone(), moved_in_all(record), now_ns);
        let Some(Account { kind, .. }) = connection.account.take() else { return };
        if record.segments != [0; 2] && record.opened_ns != 0 {
            let traffic = self.traffic(kind.clone(), peer, now_ns);
            (0..2).for_each(|way| traffic.segments[way] += u64::from(record.segments[way]));
            traffic.retransmits += u64::from(record.retransmits);
        }
        let lasted_ns = (record.opened_ns != 0).then(|| now_ns.saturating_sub(record.opened_ns));
        self.end(kind, Cause::of(record), lasted_ns, now_ns);
    }

    /// Nothing was said for so long over a connection that tells no end, or whose end was lost.
    pub fn forgotten(&mut self, connection: &mut Connection, now_ns: u64) {
        if let Some(Account { kind, .. }) = connection.account.take() {
            self.end(kind, Cause::Idle, None, now_ns);
        }
    }

    /// A connection could not be opened.
    pub fn failed(&mut self, whose: Whose, record: &CloseRecord) {
        let kind = self.kind(whose, Role::Client, "tcp");
        let counts = self.counts(kind, record.head.time_ns);
        counts.failed[Failure::of(record.error) as usize] += 1;
    }

    /// Ends series that count nothing any more.
    pub fn sweep(&mut self, now_ns: u64) {
        let is_idle = |last_ns: u64| now_ns.saturating_sub(last_ns) >= IDLE_NS;
        self.counts.retain(|_, counts| counts.active > 0 || !is_idle(counts.last_ns));
        self.traffic.retain(|_, traffic| !is_idle(traffic.last_ns));
    }

    /// All that was counted since the start. What moved to a peer whose pod is about to be known is told when it is.
    pub fn metrics(&self, now_ns: u64) -> Vec<Metric> {
        let mut table = Table::default();
        for (kind, counts) in &self.counts {
            let row = Row { kind, peer: None, start_unix_ns: counts.start_ns + self.start_offset_ns };
            table.add_counts(&row, counts);
        }
        // Several containers may be one service.
        let mut by_name: HashMap<(&Kind, &str), Traffic> = HashMap::new();
        for ((kind, peer), traffic) in &self.traffic {
            if peer.as_ref().is_some_and(|peer| peer.pod.is_awaited(now_ns)) {
                continue;
            }
            let name = peer.as_ref().map_or(OTHER, |peer| peer.service_name());
            by_name.entry((kind, name)).or_default().add(traffic);
        }
        for ((kind, peer), traffic) in &by_name {
            let start_unix_ns = traffic.start_ns + self.start_offset_ns;
            table.add_traffic(&Row { kind, peer: Some(peer), start_unix_ns }, traffic);
        }
        table.into_metrics()
    }

    fn end(&mut self, kind: Kind, cause: Cause, lasted_ns: Option<u64>, now_ns: u64) {
        let counts = self.counts(kind, now_ns);
        counts.active = counts.active.saturating_sub(1);
        counts.closed[cause as usize] += 1;
        if let Some(lasted_ns) = lasted_ns {
            counts.durations.add(lasted_ns as f64 / 1e9);
            counts.has_durations = true;
        }
    }

    /// The kind, or that of the host where there is no room for one more.
    fn kind(&self, whose: Whose, role: Role, transport: &'static str) -> Kind {
        let kind = Kind { whose, role, transport };
        let has_room = self.counts.len() < SERIES_MAX || self.counts.contains_key(&kind);
        if has_room { kind } else { Kind { whose: None, ..kind } }
    }

    fn counts(&mut self, kind: Kind, now_ns: u64) -> &mut Counts {
        let new = || Counts { start_ns: now_ns, ..Counts::default() };
        let counts = self.counts.entry(kind).or_insert_with(new);
        counts.last_ns = now_ns;
        counts
    }

    fn traffic(&mut self, kind: Kind, peer: Whose, now_ns: u64) -> &mut Traffic {
        let mut key = (kind, peer);
        if self.traffic.len() >= SERIES_MAX && !self.traffic.contains_key(&key) {
            key.1 = None;
            if !self.traffic.contains_key(&key) {
                key.0.whose = None;
            }
        }
        let new = || Traffic { start_ns: now_ns, ..Traffic::default() };
        let traffic = self.traffic.entry(key).or_insert_with(new);
        traffic.last_ns = now_ns;
        traffic
    }
}

/// Whether it is known whose a connection is: a process's that uses it, else that of the container whose cgroup the socket has.
pub fn is_known(connection: &Connection) -> bool {
    let subject = &connection.subject;
    connection.is_owned || subject.container.is_some() || subject.unit.is_some()
}

/// Bytes that a connection moved while the agent was there. What TCP counted has what no call told, and a FIN for a received byte
/// (RFC 9293, 3.4).
fn moved_in_all(record: &CloseRecord) -> [u64; 2] {
    let CloseRecord { moved, bytes: [sent, received], .. } = *record;
    match (record.opened_ns, received == moved[1] + 1) {
        (0, _) => moved,
        (_, true) => [sent, moved[1]],
        (_, false) => [sent, received],
    }
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        let is_first = self.start_ns == 0;
        self.start_ns = if is_first { other.start_ns } else { self.start_ns.min(other.start_ns) };
        for way in 0..2 {
            self.bytes[way] += other.bytes[way];
            self.segments[way] += other.segments[way];
        }
        self.retransmits += other.retransmits;
    }
}

/// What a series is of.
struct Row<'a> {
    kind: &'a Kind,
    peer: Option<&'a str>,
    start_unix_ns: u64,
}

/// The metrics as they are put together.
struct Table {
    opened: Metric,
    active: Metric,
    closed: Metric,
    failed: Metric,
    durations: Metric,
    bytes: Metric,
    segments: Metric,
    retransmits: Metric,
}

impl Default for Table {
    fn default() -> Self {
        let counter = |name, unit, description| Metric::new(MetricKind::Counter, name, unit, description);
        Self {
            opened: counter("network.flow.connections.opened", "{connection}", "Connections established."),
            active: Metric::new(
                MetricKind::UpDownCounter,
                "network.flow.connections.active",
                "{connection}",
                "Connections that are there.",
            ),
            closed: counter(
                "network.flow.connections.closed",
                "{connection}",
                "Connections by how they ended.",
            ),
            failed: counter(
                "network.flow.connections.failed",
                "{connection}",
                "Connections that could not be opened.",
            ),
            durations: Metric::new(
                MetricKind::Histogram,
                "network.flow.connection.duration",
                "s",
                "Time from the establishment of connections to their end.",
            ),
            bytes: counter("network.flow.io", "By", "Bytes that connections moved, by the other end."),
            segments: counter(
                "network.flow.segments",
                "{segment}",
                "TCP segments of connections, acknowledgements included, counted at their end.",
            ),
            retransmits: counter(
                "network.flow.retransmits",
                "{segment}",
                "TCP segments that were sent again, by the other end, counted at the connection's end.",
            ),
        }
    }
}

impl Table {
    fn add_counts(&mut self, row: &Row<'_>, counts: &Counts) {
        let number = |value: u64| Value::Number(value as f64);
        self.opened.add(row.point(None, number(counts.opened)));
        let active = Point { start_unix_ns: 0, ..row.point(None, number(counts.active)) };
        self.active.add(active);
        for cause in Cause::ALL {
            let count = counts.closed[cause as usize];
            if count > 0 {
                let attribute = ("network.flow.close.cause", cause.name());
                self.closed.add(row.point(Some(attribute), number(count)));
            }
        }
        for failure in Failure::ALL {
            let count = counts.failed[failure as usize];
            if count > 0 {
                self.failed.add(row.point(Some(("error.type", failure.name())), number(count)));
            }
        }
        if counts.has_durations {
            let histogram = Value::Histogram(Box::new(counts.durations.histogram()));
            self.durations.add(row.point(None, histogram));
        }
    }

    fn add_traffic(&mut self, row: &Row<'_>, traffic: &Traffic) {
        let number = |value: u64| Value::Number(value as f64);
        for (way, direction) in ["transmit", "receive"].into_iter().enumerate() {
            let attribute = Some(("network.io.direction", direction));
            self.bytes.add(row.point(attribute, number(traffic.bytes[way])));
            if traffic.segments != [0; 2] {
                self.segments.add(row.point(attribute, number(traffic.segments[way])));
            }
        }
        if traffic.retransmits > 0 {
            self.retransmits.add(row.point(None, number(traffic.retransmits)));
        }
    }

    fn into_metrics(self) -> Vec<Metric> {
        let Self { opened, active, closed, failed, durations, bytes, segments, retransmits } = self;
        let all = [opened, active, closed, failed, durations, bytes, segments, retransmits];
        all.into_iter().filter(|metric| !metric.points.is_empty()).collect()
    }
}

impl Row<'_> {
    fn point(&self, attribute: Option<(&'static str, &'static str)>, value: Value) -> Point {
        let Kind { whose, role, transport } = self.kind;
        let role = match role {
            Role::Client => "client",
            Role::Server => "server",
            Role::Unknown => "unknown",
        };
        let text = |key: &'static str, value: &'static str| (Text::from(key), Text::from(value));
        let mut attributes = vec![text("network.transport", transport), text("network.flow.role", role)];
        attributes.extend(attribute.map(|(key, value)| text(key, value)));
        attributes.extend(self.peer.map(|peer| ("service.peer.name".into(), Text::from(peer.to_owned()))));
        let owner = whose.as_ref().map_or(Owner::Host, |whose| Owner::Subject(Arc::clone(whose)));
        Point { owner, attributes, start_unix_ns: self.start_unix_ns, value }
    }
}

#[cfg(test)]
mod tests;
