//! Parents: which span caused which, only where it can be proven.
//!
//! Three proofs, in this order: the two spans are the ends of one connection at one place in its bytes; the message named its
//! parent; one thread did nothing but serve the parent while it made the child. A span waits, bounded, until its parent
//! has ended. Wrong is worse than missing: a thread that served two requests at once, or asked an event queue meanwhile,
//! proves nothing, and no thread of a process whose requests change their threads. Where one request alone may have caused a span
//! and that is not proven, the span is a root with a link to it. Refuses: clocks, and guesses.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use collector_common::flow::{Message, Role, Way};

use super::connection::Connection;
use super::ends::{End, Ends, Line};
use super::migration::Migrations;
use super::protocol::TraceContext;
use super::requests::{Requests, SeriesId};
use super::sampling::Sampler;
use crate::identity::Subject;
use crate::loss::{Ledger, LossReason, Signal};
use crate::telemetry::{Doubt, Proof, Span, SpanContext, SpanKind, SpanLink};

/// How long a span waits for the other end of its connection, which tells of the exchange when it has read the response.
const OTHER_END_NS: u64 = 1_000_000_000;

/// How long a span waits while its thread still serves the request that may have caused it.
const PARENT_NS: u64 = 30_000_000_000;

/// How long settled spans can become parents, or be named by what happened in them.
const KEEP_SETTLED_NS: u64 = 15_000_000_000;

/// Spans that wait for their parents, and that wait for the end of the window; more are lost as `spans_full`.
const WAITING_MAX: usize = 16_384;
const SPANS_MAX: usize = 65_536;

/// Settled spans that can be found; what is settled beyond that becomes nobody's parent.
const SETTLED_MAX: usize = 32_768;

/// Places of served requests of one thread that are kept.
const SERVED_PER_THREAD_MAX: usize = 64;

/// Closed connections that are kept for their other ends.
const CLOSED_MAX: usize = 16_384;

/// Passes over the waiting spans in one turn: each settles the children of those of the pass before.
const PASSES_MAX: usize = 16;

/// When a span was, and on which thread.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The thread that moved the first byte.
    pub thread: u32,
    /// Whether the same one moved the last.
    pub is_of_one_thread: bool,
    /// Whether it asked an event queue meanwhile.
    pub has_polled: bool,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub start_ns: u64,
    /// Likewise.
    pub end_ns: u64,
}

/// Where an exchange stands on the wire: the same for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    /// The connection.
    pub line: Line,
    /// Bytes that went the same way before its first one; of datagrams a number that both ends say.
    pub position: u64,
    /// Whether this is the client's end of it.
    pub is_client: bool,
}

/// A span that ended just now, without a trace.
#[derive(Debug)]
pub struct Waiting {
    /// The span.
    pub span: Span,
    /// The trace that its request named.
    pub context: Option<TraceContext>,
    /// When and on which thread it was.
    pub place: Place,
    /// Where it stands on the wire.
    pub wire: Wire,
    /// Which series it counted in.
    pub series: SeriesId,
    /// Whether it is kept although its trace is not.
    pub must_stay: bool,
}

/// A span with its trace, as others need it.
#[derive(Clone, Copy, Debug)]
struct Settled {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    is_sampled: bool,
    start_ns: u64,
    end_ns: u64,
}

/// An end of a connection on this node.
#[derive(Clone, Debug)]
pub struct Local {
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// The connection as it sees it.
    pub ends: Ends,
    /// Number of the connection.
    connection: u64,
}

/// A request that a thread served.
#[derive(Clone, Copy, Debug)]
struct Served {
    process: u32,
    place: Place,
    wire: Wire,
}

/// What may be said of a span's parent.
enum Parent {
    /// It is there.
    Found(Settled, Proof),
    /// It may come yet.
    Later,
    /// There is none; of a single one that may be it, there is a link.
    None(Option<SpanLink>),
}

/// What a thread served at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// This request, and nothing else.
    Known(SpanContext),
    /// It may be known once the request that goes on has ended.
    Later,
    /// Nothing, or nothing that can be proven.
    Nothing,
}

/// The requests that a thread served at some time.
enum Around<'a> {
    One(&'a Served),
    /// One that goes around it, and proves nothing.
    Doubtful(&'a Served, Doubt),
    /// Several, or one that does not go around it.
    Unproven,
    /// None that ended; one may go on.
    None,
}

/// Finds parents.
pub struct Linker {
    waiting: Vec<Waiting>,
    settled: HashMap<Wire, Settled>,
    /// The order in which settled spans may be forgotten.
    ages: VecDeque<(u64, Wire)>,
    spans: Vec<Span>,
    /// Requests served, by thread.
    served: HashMap<u32, VecDeque<Served>>,
    /// Processes whose requests change their threads.
    migrations: Migrations,
    /// Connections whose request a thread has received and not answered, by thread.
    serving: HashMap<u32, HashSet<End>>,
    /// The thread that received the last request of a connection.
    receivers: HashMap<End, u32>,
    /// Ends of connections on this node.
    local: HashMap<End, Local>,
    /// When ends closed that are local still, and the connections' numbers.
    closed: VecDeque<(u64, End, u64)>,
    /// Whether it is known when threads ask event queues.
    counts_polls: bool,
    ledger: Arc<Ledger>,
}

impl Linker {
    /// Knows nothing yet.
    pub fn new(counts_polls: bool, ledger: Arc<Ledger>) -> Self {
        Self {
            waiting: Vec::new(),
            settled: HashMap::new(),
            ages: VecDeque::new(),
            spans: Vec::new(),
            served: HashMap::new(),
            migrations: Migrations::default(),
            serving: HashMap::new(),
            receivers: HashMap::new(),
            local: HashMap::new(),
            closed: VecDeque::new(),
            counts_polls,
            ledger,
        }
    }

    /// A connection is used on this node.
    pub fn on_open(&mut self, connection: &Connection) {
        let Connection { subject, ends, number, .. } = connection;
        let local = Local { subject: Arc::clone(subject), ends: *ends, connection: *number };
        self.local.insert(connection.end(), local);
    }

    /// The other end of a connection, if it is on this node.
    pub fn other_end(&self, connection: &Connection) -> Option<&Local> {
        self.local.get(&connection.end().other())
    }

    /// A connection ended. Its other end may ask for it yet, for some time.
    pub fn on_close(&mut self, connection: &Connection, now_ns: u64) {
        let end = connection.end();
        self.answered(&end);
        self.closed.push_back((now_ns, end, connection.number));
        if self.closed.len() > CLOSED_MAX {
            self.forget_closed();
        }
    }

    fn forget_closed(&mut self) {
        let Some((_, end, number)) = self.closed.pop_front() else { return };
        if self.local.get(&end).is_some_and(|local| local.connection == number) {
            self.local.remove(&end);
        }
    }

    /// A thread takes a request up, or answers it.
    pub fn on_message(&mut self, connection: &Connection, message: &Message<'_>) {
        if connection.role != Role::Server || connection.protocol().is_none() || connection.is_datagram() {
            return;
        }
        if message.head.way == Way::Sent as u16 {
            // A call that sends ends late where its thread lost the CPU: the next request may have been received meanwhile.
            if connection.is_idle() {
                self.answered(&connection.end());
            }
            return;
        }
        let thread = message.head.tid;
        let end = connection.end();
        let before = self.receivers.insert(end, thread);
        if let Some(before) = before.filter(|before| *before != thread) {
            self.stop_serving(before, &end);
        }
        self.serving.entry(thread).or_default().insert(end);
    }

    /// What a thread served from one moment to another.
    pub fn serving(&self, thread: u32, start_ns: u64, end_ns: u64) -> Serving {
        match self.around(thread, start_ns, end_ns) {
            Around::One(served) => match self.settled.get(&served.wire) {
                Some(Settled { trace_id, span_id, is_sampled: true, .. }) => {
                    Serving::Known(SpanContext { trace_id: *trace_id, span_id: *span_id })
                }
                Some(_) => Serving::Nothing,
                None => Serving::Later,
            },
            Around::None if self.is_serving_one(thread) => Serving::Later,
            Around::Doubtful(..) | Around::Unproven | Around::None => Serving::Nothing,
        }
    }

    /// Takes a span that ended.
    pub fn add(&mut self, waiting: Waiting) {
        if self.waiting.len() >= WAITING_MAX {
            return self.ledger.lost(Signal::Span, LossReason::SpansFull, 1);
        }
        let process = waiting.span.process.pid;
        if !waiting.place.is_of_one_thread {
            self.migrations.add(process, waiting.place.end_ns);
        }
        if waiting.span.kind == SpanKind::Server {
            let served = self.served.entry(waiting.place.thread).or_default();
            if served.len() >= SERVED_PER_THREAD_MAX {
                served.pop_front();
            }
            served.push_back(Served { process, place: waiting.place, wire: waiting.wire });
        }
        self.waiting.push(waiting);
    }

    /// Settles what can be, and forgets what is old.
    pub fn turn(&mut self, now_ns: u64, sampler: &Sampler, requests: &mut Requests) {
        self.settle_waiting(now_ns, sampler, requests);
        while self.closed.front().is_some_and(|(closed_ns, ..)| closed_ns + OTHER_END_NS <= now_ns) {
            self.forget_closed();
        }
        while let Some(&(end_ns, wire)) = self.ages.front()
            && end_ns + KEEP_SETTLED_NS <= now_ns
        {
            self.ages.pop_front();
            if self.settled.get(&wire).is_some_and(|settled| settled.end_ns == end_ns) {
                self.settled.remove(&wire);
            }
        }
        self.served.retain(|_, served| {
            served.retain(|served| served.place.end_ns + PARENT_NS > now_ns);
            !served.is_empty()
        });
        self.migrations.turn(now_ns);
    }

    /// Settles everything: what has no parent by now gets none.
    pub fn settle_all(&mut self, sampler: &Sampler, requests: &mut Requests) {
        self.settle_waiting(u64::MAX, sampler, requests);
    }

    fn settle_waiting(&mut self, now_ns: u64, sampler: &Sampler, requests: &mut Requests) {
        for _ in 0..PASSES_MAX {
            if !self.pass(now_ns, sampler, requests) {
                break;
            }
        }
    }

    /// The settled spans.
    pub fn take_spans(&mut self, monotonic_to_unix_ns: u64) -> Vec<Span> {
        let mut spans = std::mem::take(&mut self.spans);
        for span in &mut spans {
            span.start_unix_ns += monotonic_to_unix_ns;
            span.end_unix_ns += monotonic_to_unix_ns;
        }
        spans
    }

    /// One look at each waiting span; returns whether any was settled.
    fn pass(&mut self, now_ns: u64, sampler: &Sampler, requests: &mut Requests) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        let before = waiting.len();
        // Those that wait may be parents of each other: what is awaited must be known.
        let awaited: HashSet<Wire> = waiting.iter().map(|waiting| waiting.wire).collect();
        let mut rest = Vec::new();
        for mut span in waiting {
            match self.parent_of(&span, now_ns, &awaited) {
                Parent::Later => rest.push(span),
                Parent::Found(parent, proof) => self.settle(span, Some((parent, proof)), sampler, requests),
                Parent::None(link) => {
                    span.span.link = link;
                    self.settle(span, None, sampler, requests);
                }
            }
        }
        let is_progress = rest.len() < before;
        self.waiting = rest;
        is_progress && !self.waiting.is_empty()
    }

    fn parent_of(&self, waiting: &Waiting, now_ns: u64, awaited: &HashSet<Wire>) -> Parent {
        let age_ns = now_ns.saturating_sub(waiting.place.end_ns);
        if !waiting.wire.is_client {
            let other = Wire { is_client: true, ..waiting.wire };
            if let Some(parent) = self.settled.get(&other).filter(|parent| parent.may_be_asker(waiting)) {
                return Parent::Found(*parent, Proof::Connection);
            }
            let client_end = waiting.wire.line.client_end();
            let is_local = client_end.is_none_or(|end| self.local.contains_key(&end));
            let may_come =
                awaited.contains(&other) && age_ns < PARENT_NS || is_local && age_ns < OTHER_END_NS;
            if may_come {
                return Parent::Later;
            }
        }
        if let Some(context) = &waiting.context {
            let is_sampled = context.is_sampled != Some(false);
            let (trace_id, span_id) = (context.trace_id, context.span_id);
            let parent = Settled { trace_id, span_id, is_sampled, start_ns: 0, end_ns: 0 };
            return Parent::Found(parent, Proof::Header);
        }
        if waiting.wire.is_client {
            self.parent_by_thread(waiting, age_ns, awaited)
        } else {
            Parent::None(None)
        }
    }

    /// The one request that the thread served from before the span's start until after its end.
    fn parent_by_thread(&self, waiting: &Waiting, age_ns: u64, awaited: &HashSet<Wire>) -> Parent {
        let place = &waiting.place;
        let (served, doubt) = match self.around(place.thread, place.start_ns, place.end_ns) {
            Around::One(served) => (served, own_doubt(place)),
            Around::Doubtful(served, doubt) => (served, Some(doubt)),
            Around::None if self.is_serving_one(place.thread) && age_ns < PARENT_NS => return Parent::Later,
            Around::Unproven | Around::None => return Parent::None(None),
        };
        match (self.settled.get(&served.wire), doubt) {
            (Some(settled), None) => Parent::Found(*settled, Proof::Thread),
            (Some(settled), Some(doubt)) => Parent::None(settled.link(doubt)),
            (None, _) if awaited.contains(&served.wire) && age_ns < 2 * PARENT_NS => Parent::Later,
            (None, _) => Parent::None(None),
        }
    }

    /// The one request that a thread served around some time.
    fn around(&self, thread: u32, start_ns: u64, end_ns: u64) -> Around<'_> {
        if !self.counts_polls {
            return Around::Unproven;
        }
        let at_once = |served: &&Served| served.place.start_ns <= end_ns && served.place.end_ns >= start_ns;
        let mut around = self.served.get(&thread).into_iter().flatten().filter(at_once);
        match (around.next(), around.next()) {
            (None, _) => Around::None,
            (Some(only), None) => {
                let place = &only.place;
                let is_around = place.start_ns <= start_ns && end_ns <= place.end_ns;
                match own_doubt(place) {
                    _ if !is_around || self.migrations.has(only.process) => Around::Unproven,
                    None => Around::One(only),
                    Some(doubt) => Around::Doubtful(only, doubt),
                }
            }
            (Some(_), Some(_)) => Around::Unproven,
        }
    }

    fn is_serving_one(&self, thread: u32) -> bool {
        self.serving.get(&thread).is_some_and(|connections| connections.len() == 1)
    }

    fn settle(
        &mut self,
        waiting: Waiting,
        parent: Option<(Settled, Proof)>,
        sampler: &Sampler,
        requests: &mut Requests,
    ) {
        let Waiting { mut span, context, place, wire, series, must_stay } = waiting;
        span.span_id = random();
        let is_sampled = match parent {
            Some((parent, proof)) => {
                span.trace_id = parent.trace_id;
                span.parent = Some((parent.span_id, proof));
                parent.is_sampled
            }
            None => {
                span.trace_id = random();
                sampler.keeps(&span.trace_id)
            }
        };
        span.trace_state = context.map(|context| context.state).unwrap_or_default();
        let (trace_id, span_id) = (span.trace_id, span.span_id);
        let settled =
            Settled { trace_id, span_id, is_sampled, start_ns: place.start_ns, end_ns: place.end_ns };
        if self.settled.len() < SETTLED_MAX {
            self.settled.insert(wire, settled);
            self.ages.push_back((place.end_ns, wire));
        }
        if !is_sampled && !must_stay {
            return self.ledger.lost(Signal::Span, LossReason::SampledOut, 1);
        }
        if self.spans.len() >= SPANS_MAX {
            return self.ledger.lost(Signal::Span, LossReason::SpansFull, 1);
        }
        requests.exemplar(series, &span);
        self.ledger.represented(Signal::Span, 1);
        self.spans.push(span);
    }

    fn answered(&mut self, end: &End) {
        if let Some(thread) = self.receivers.remove(end) {
            self.stop_serving(thread, end);
        }
    }

    fn stop_serving(&mut self, thread: u32, end: &End) {
        if let Some(connections) = self.serving.get_mut(&thread) {
            connections.remove(end);
            if connections.is_empty() {
                self.serving.remove(&thread);
            }
        }
    }
}

/// Why a thread's place proves nothing.
fn own_doubt(place: &Place) -> Option<Doubt> {
    match (place.is_of_one_thread, place.has_polled) {
        (false, _) => Some(Doubt::ThreadLeft),
        (true, true) => Some(Doubt::ThreadPolled),
        (true, false) => None,
    }
}

impl Settled {
    /// Whether it may be the other end of what stands at the same place. Who asks by datagrams uses its numbers again.
    fn may_be_asker(&self, waiting: &Waiting) -> bool {
        match waiting.wire.line {
            Line::Asker(_) => (self.start_ns..=self.end_ns).contains(&waiting.place.start_ns),
            Line::Addresses(_) | Line::Number(_) => true,
        }
    }

    /// A link to it; none to a span that is not kept.
    fn link(&self, doubt: Doubt) -> Option<SpanLink> {
        let to = SpanContext { trace_id: self.trace_id, span_id: self.span_id };
        self.is_sampled.then_some(SpanLink { to, doubt })
    }
}

/// Random bytes, never all zero, which would mean none.
fn random<const BYTES: usize>() -> [u8; BYTES] {
    loop {
        let mut bytes = [0; BYTES];
        fastrand::fill(&mut bytes);
        if bytes != [0; BYTES] {
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests;
