//! The flow signal: what is said over connections becomes exchanges, exchanges become spans and request metrics.
//!
//! Time is an argument, and bytes come from the kernel as they were captured: all of this can be replayed. Refuses: the words
//! of single protocols (they stand in `protocol`), symbols, clocks, I/O.

mod budget;
mod connection;
mod describe;
mod ends;
#[cfg(test)]
mod fixture;
mod kernel_state;
mod link;
mod migration;
mod network;
mod owner;
pub mod protocol;
mod requests;
mod sampling;
mod service_map;
mod state;
#[cfg(test)]
mod tests;
mod translations;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use collector_common::flow::{
    AddresseeRecord, CloseRecord, ConnectionState, Message, OpenRecord, Role, UnixOpenRecord,
};

use crate::address;
use crate::identity::{PeerEvent, Peers, Subject};
use crate::loss::{Ledger, LossReason, Signal};
use crate::process::ProcessTable;
use crate::telemetry::{self, Metric, MetricKind, Point, ProcessName, Span};

use budget::Budget;
use connection::{Connection, Verdict};
use ends::Ends;
use link::Linker;
pub use link::Serving;
use network::Networks;
use owner::{Owner, owner};
use protocol::{Exchange, Output};
use requests::Requests;
pub use sampling::SamplingOptions;
use sampling::{Sampler, duration_ns, end_ns};
use service_map::{Parties, Party, ServiceMap, is_told_by_client};
use state::States;
pub use translations::Translate;
use translations::Translations;

/// Connections that are followed at a time: more than the kernel side has places for, of all kinds of sockets.
const CONNECTIONS_MAX: usize = 131_072;

/// How often connections are looked for that are idle.
const SWEEP_NS: u64 = 10_000_000_000;

/// How connections are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowOptions {
    /// Which spans are kept.
    pub sampling: SamplingOptions,
    /// Exchanges on the node that are looked at in a second; above it a share is left out in the kernel, counted.
    pub exchanges_per_second_max: u64,
    /// Whether it is known when threads ask event queues: without, no thread proves a parent.
    pub counts_polls: bool,
    /// The network namespace whose connection tracking knows the pods behind IPs of Services; `None` for not to ask.
    pub node_network: Option<PathBuf>,
}

/// What of connections found no room in the kernel's ring since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLosses {
    /// Records.
    pub records: u64,
    /// Exchanges that nothing else tells of: they and the end of their connection were lost.
    pub exchanges: u64,
}

/// How many bytes of a connection's messages are wanted from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Number of the connection.
    pub connection: u64,
    /// Of those that are sent.
    pub sent_bytes: u16,
    /// Of those that are received.
    pub received_bytes: u16,
}

/// All connections, and what they gave.
pub struct Flows {
    connections: HashMap<u64, Connection>,
    states: States,
    linker: Linker,
    requests: Requests,
    networks: Networks,
    service_map: ServiceMap,
    peers: Peers,
    translations: Translations,
    /// Who has a connection that nobody has taken up.
    nobody: (Arc<Subject>, Arc<ProcessName>),
    sampler: Sampler,
    budget: Budget,
    skip_share: u32,
    /// Exchanges that came here, or should have.
    exchanges: u64,
    captured_bytes: u64,
    start_unix_ns: u64,
    decisions: Vec<Decision>,
    output: Output,
    sweep_ns: u64,
    counted_ns: u64,
    losses: FlowLosses,
    /// When it was last seen that records were lost.
    lost_ns: u64,
    ledger: Arc<Ledger>,
}

impl Flows {
    /// None yet. `now_unix_ns` is now, and `monotonic_to_unix_ns` how far the kernel's clock is from that.
    pub fn new(
        options: &FlowOptions,
        now_unix_ns: u64,
        monotonic_to_unix_ns: u64,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            connections: HashMap::new(),
            states: States::default(),
            linker: Linker::new(options.counts_polls, Arc::clone(&ledger)),
            budget: Budget::new(options.exchanges_per_second_max),
            skip_share: 0,
            exchanges: 0,
            captured_bytes: 0,
            requests: Requests::new(monotonic_to_unix_ns),
            networks: Networks::new(monotonic_to_unix_ns),
            nobody: (
                Arc::new(Subject::default()),
                Arc::new(ProcessName { pid: 0, executable_name: "".into(), executable_path: None }),
            ),
            service_map: ServiceMap::new(now_unix_ns),
            peers: Peers::default(),
            translations: Translations::default(),
            start_unix_ns: now_unix_ns,
            sampler: Sampler::new(options.sampling.clone()),
            decisions: Vec::new(),
            output: Output::default(),
            sweep_ns: 0,
            counted_ns: 0,
            losses: FlowLosses::default(),
            lost_ns: 0,
            ledger,
        }
    }

    /// Asks this who is behind the IP of a Service from now on.
    pub fn set_translate(&mut self, translate: Translate) {
        self.translations = Translations::by(translate);
    }

    /// Whose an address of the cluster is from now on.
    pub fn on_peer(&mut self, event: PeerEvent, now_ns: u64) {
        self.peers.on_event(event, now_ns);
    }

    /// A connection is established, or a process uses it for the first time, or goes on with one of another process.
    pub fn on_open(&mut self, record: &OpenRecord, processes: &mut ProcessTable) {
        let owner = match owner(&record.task, processes) {
            Owner::Known(subject, process) => Some((subject, process)),
            Owner::Unknown => None,
            Owner::NoRoom => return self.ledger.lost(Signal::Flow, LossReason::ProcessTableFull, 1),
        };
        if !self.connections.contains_key(&record.connection) {
            if self.connections.len() >= CONNECTIONS_MAX {
                return self.ledger.lost(Signal::Flow, LossReason::ConnectionUnknown, 1);
            }
            let of_cgroup = processes.subject_of_cgroup(record.task.cgroup_id);
            let subject = of_cgroup.unwrap_or_else(|| Arc::clone(&self.nobody.0));
            let connection = Connection::new(record, (subject, Arc::clone(&self.nobody.1)), false);
            self.connections.insert(record.connection, connection);
        }
        if let Some(connection) = self.connections.get_mut(&record.connection) {
            if let Some(owner) = owner {
                connection.set_owner(owner);
                self.linker.on_open(connection);
            }
            connection.find_peer(&self.peers, &mut self.translations, record.head.time_ns);
            if network::is_known(connection) {
                self.networks.place(connection, record.head.time_ns);
            }
        }
        self.ledger.represented(Signal::Flow, 1);
    }

    /// A process uses a Unix connection for the first time, or after some silence.
    pub fn on_unix_open(&mut self, record: &UnixOpenRecord, processes: &mut ProcessTable) {
        let Owner::Known(subject, process) = owner(&record.open.task, processes) else {
            return self.ledger.lost(Signal::Flow, LossReason::ProcessTableFull, 1);
        };
        let number = record.open.connection;
        if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(&number) {
            return self.ledger.lost(Signal::Flow, LossReason::ConnectionUnknown, 1);
        }
        let owner = (subject, process);
        let new = || Connection::of_unix(record, owner.clone());
        let connection = self.connections.entry(number).or_insert_with(new);
        connection.set_owner(owner.clone());
        self.linker.on_open(connection);
        self.ledger.represented(Signal::Flow, 1);
    }

    /// Whom the next message of a connection goes to.
    pub fn on_addressee(&mut self, record: &AddresseeRecord) {
        let address = address::of(record.family, record.address, record.port);
        if let Some(connection) = self.connections.get_mut(&record.connection) {
            connection.addressee = address.map(|address| (record.number, address));
        }
        self.ledger.represented(Signal::Flow, 1);
    }

    /// Something was said.
    pub fn on_message(&mut self, message: &Message<'_>) {
        self.captured_bytes += u64::from(message.head.captured);
        let known = self.connections.get_mut(&message.head.connection);
        let Some(connection) = known.filter(|connection| connection.is_owned) else {
            return self.ledger.lost(Signal::Flow, LossReason::ConnectionUnknown, 1);
        };
        self.ledger.represented(Signal::Flow, 1);
        connection.addressee.take_if(|(number, _)| *number != message.head.number);
        let verdict = connection.take(message, &mut self.output);
        self.linker.on_message(connection, message);
        self.states.set(message.head.connection, connection.held_bytes());
        let lost = connection.take_lost_exchanges();
        match verdict {
            Verdict::Wait => {}
            Verdict::Want { sent_bytes, received_bytes } => {
                let connection = message.head.connection;
                self.decisions.push(Decision { connection, sent_bytes, received_bytes });
            }
        }
        // Of this second, unlike what ends of connections tell, which the budget must not take for a rate.
        self.exchanges += lost;
        self.count_lost(lost);
        self.settle_output(message.head.connection, message.head.head.time_ns);
        for number in self.states.excess() {
            self.forget_state(number);
        }
    }

    /// Drops what the protocol of a connection keeps: what waits there for a response is counted as broken.
    fn forget_state(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.forget_state(&mut self.output);
        self.states.set(number, connection.held_bytes());
        let last_ns = connection.last_ns;
        self.settle_output(number, last_ns);
    }

    /// A connection ended, or could not be opened.
    pub fn on_close(&mut self, record: &CloseRecord, processes: &ProcessTable) {
        self.ledger.represented(Signal::Flow, 1);
        if let Some(connection) = self.connections.get_mut(&record.connection) {
            connection.close(record, &mut self.output);
            let lost = connection.take_lost_exchanges();
            let peer = self.linker.other_end(connection).map(|other| Arc::clone(&other.subject));
            self.networks.closed(connection, peer, record);
            self.count_lost(lost);
            self.settle_output(record.connection, record.head.time_ns);
        } else {
            // Whatever told of it was lost.
            self.count_lost(record.untold_exchanges);
            if record.role == Role::Client as u32 && record.opened_ns == 0 && record.begun_ns != 0 {
                let process = processes.get(record.tgid).map(|process| Arc::clone(&process.subject));
                let whose = process.or_else(|| processes.subject_of_cgroup(record.cgroup_id));
                self.networks.failed(whose, record);
            }
        }
        if let Some(connection) = self.connections.remove(&record.connection) {
            self.states.set(record.connection, 0);
            self.linker.on_close(&connection, record.head.time_ns);
        }
    }

    /// What the kernel side lost until now.
    pub fn on_losses(&mut self, losses: FlowLosses, now_ns: u64) {
        if losses.records != self.losses.records {
            self.lost_ns = now_ns;
        }
        self.count_lost(losses.exchanges.saturating_sub(self.losses.exchanges));
        self.losses = losses;
    }

    /// A connection has ended, which nobody told.
    fn forget(&mut self, number: u64, now_ns: u64) {
        if let Some(connection) = self.connections.get_mut(&number) {
            self.networks.forgotten(connection, now_ns);
        }
        self.settle_output(number, now_ns);
        if let Some(connection) = self.connections.remove(&number) {
            self.states.set(number, 0);
            self.linker.on_close(&connection, now_ns);
        }
    }

    /// Settles what has its parent now or waited long enough, and forgets what is idle, given the kernel's state of connections as
    /// in [`Self::count_moved`].
    pub fn turn(&mut self, now_ns: u64, state: impl Fn(u64, u64, bool) -> Option<ConnectionState>) {
        self.sampler.turn(now_ns);
        self.translations.turn(now_ns);
        self.service_map.turn(now_ns);
        self.linker.turn(now_ns, &self.sampler, &mut self.requests);
        if now_ns.saturating_sub(self.sweep_ns) >= SWEEP_NS {
            self.sweep_ns = now_ns;
            self.requests.sweep(now_ns);
            self.networks.sweep(now_ns);
            self.sweep(now_ns, state);
        }
    }

    /// What the kernel side must hear: what it shall capture from now on.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// The share of exchanges, of 2^32, that the kernel side shall leave out from now on, if it changed. `skipped` is how many it
    /// left out since the start.
    pub fn new_skip_share(&mut self, now_ns: u64, skipped: u64) -> Option<u32> {
        let share = self.budget.share(now_ns, self.exchanges + skipped);
        let is_new = share != self.skip_share;
        self.skip_share = share;
        is_new.then_some(share)
    }

    /// The spans that are settled. `is_last` settles all that wait.
    pub fn flush(&mut self, monotonic_to_unix_ns: u64, is_last: bool) -> Vec<Span> {
        if is_last {
            let numbers: Vec<u64> = self.connections.keys().copied().collect();
            for number in numbers {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.abandon(&mut self.output);
                }
                self.settle_output(number, 0);
            }
            self.linker.settle_all(&self.sampler, &mut self.requests);
        }
        self.linker.take_spans(monotonic_to_unix_ns)
    }

    /// Requests by what they were, and connections, since the start.
    pub fn metrics(&mut self, now_ns: u64, monotonic_to_unix_ns: u64) -> Vec<Metric> {
        let mut metrics = self.requests.metrics(monotonic_to_unix_ns);
        metrics.extend(self.networks.metrics(now_ns));
        metrics.extend(self.service_map.metrics());
        metrics.extend(self.peers.metrics(self.start_unix_ns));
        metrics.extend(self.translations.metrics(self.start_unix_ns));
        metrics.extend(self.states.metrics(self.start_unix_ns));
        metrics.push(self.captured());
        metrics
    }

    fn captured(&self) -> Metric {
        let agent = telemetry::Owner::Agent;
        let point = Point::number(agent, Vec::new(), self.start_unix_ns, self.captured_bytes as f64);
        let description = "Bytes of messages that were copied out of the kernel, to be parsed.";
        Metric::new(MetricKind::Counter, "kansoku.flow.captured", "By", description).with(vec![point])
    }

    /// What a thread served from one moment to another, both of `CLOCK_MONOTONIC`.
    pub fn serving(&self, thread: u32, start_ns: u64, end_ns: u64) -> Serving {
        self.linker.serving(thread, start_ns, end_ns)
    }

    /// Connections that are followed now.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether no connection is followed.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Counts exchanges of which nothing came out of the ring.
    fn count_lost(&mut self, lost: u64) {
        if lost > 0 {
            self.ledger.seen(Signal::Span, lost);
            self.ledger.lost(Signal::Span, LossReason::RingFull, lost);
        }
    }

    /// Counts the exchanges that a parser gave, and hands on those whose spans are wanted.
    /// `now_ns` is when those without a response were given up.
    fn settle_output(&mut self, number: u64, now_ns: u64) {
        let Output { abandoned, rejected, .. } = self.output;
        self.output.abandoned = 0;
        self.output.rejected = 0;
        if abandoned + rejected > 0 {
            self.ledger.seen(Signal::Span, abandoned + rejected);
            self.ledger.decoded(Signal::Span, abandoned);
            self.ledger.lost(Signal::Span, LossReason::ExchangeBroken, abandoned);
            self.ledger.lost(Signal::Span, LossReason::Malformed, rejected);
        }
        if self.output.exchanges.is_empty() {
            return;
        }
        let mut exchanges = std::mem::take(&mut self.output.exchanges);
        self.exchanges += exchanges.len() as u64;
        if let Some(connection) = self.connections.get_mut(&number) {
            for exchange in exchanges.drain(..) {
                let begun_ns = exchange.request.first.begun_ns;
                connection.find_peer(&self.peers, &mut self.translations, begun_ns);
                observe_edge(connection, &exchange, now_ns, &mut self.service_map, &self.linker);
                settle(
                    connection,
                    exchange,
                    now_ns,
                    &mut self.requests,
                    &mut self.sampler,
                    &mut self.linker,
                    &self.ledger,
                );
            }
        }
        self.output.exchanges = exchanges;
    }
}

/// Counts an exchange by who called whom, once: at the client's end if that is on a node with an agent.
fn observe_edge(
    connection: &mut Connection,
    exchange: &Exchange,
    ended_ns: u64,
    map: &mut ServiceMap,
    linker: &Linker,
) {
    let is_client = describe::is_client(connection.side(exchange.pattern));
    let other = linker.other_end(connection);
    if !is_client && is_told_by_client(other.is_some(), connection.peer().map(Arc::as_ref)) {
        return;
    }
    let has_failed = exchange.failure.as_ref().is_some_and(|failure| failure.is_servers);
    let seconds = duration_ns(exchange, ended_ns) as f64 / 1e9;
    if let Some(edge) = connection.edge {
        return map.observe(edge, has_failed, seconds);
    }
    let own = Party::Service(Arc::clone(&connection.subject));
    let (client, server) = match (is_client, other) {
        (true, Some(server)) => (own, Party::Service(Arc::clone(&server.subject))),
        (true, None) => {
            let callee = connection.callee();
            let name =
                callee.map_or_else(|| connection.server_name(), |callee| callee.service_name().to_owned());
            (own, Party::Named(name))
        }
        (false, _) => (Party::Named("user".to_owned()), own),
    };
    let connection_type = if exchange.protocol.is_database() { "database" } else { "" };
    let parties = Parties { client, server, connection_type };
    connection.edge = map.observe_between(parties, has_failed, seconds, end_ns(exchange, ended_ns));
}

/// One exchange: always in the metrics, and a span if the sampler lets it.
fn settle(
    connection: &mut Connection,
    exchange: Exchange,
    ended_ns: u64,
    requests: &mut Requests,
    sampler: &mut Sampler,
    linker: &mut Linker,
    ledger: &Ledger,
) {
    ledger.seen(Signal::Span, 1);
    ledger.decoded(Signal::Span, 1);
    let side = connection.side(exchange.pattern);
    let series = requests.observe(connection, &exchange, side, ended_ns);
    let must_stay = sampler.must_stay(&exchange, ended_ns);
    if !sampler.wants(&connection.subject, must_stay) {
        return ledger.lost(Signal::Span, LossReason::SampledOut, 1);
    }
    let to_addressee = |(_, local)| Ends { local, peer: connection.ends.local };
    let other = connection.addressee.map(to_addressee);
    let other = other.or_else(|| linker.other_end(connection).map(|other| other.ends));
    let other = other.or_else(|| connection.translated());
    let waiting = describe::span(connection, exchange, side, series, must_stay, ended_ns, other);
    linker.add(waiting);
}
