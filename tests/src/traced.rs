//! An agent that traces, with a receiver of its own: started, asked for what has arrived, stopped, and read to the end.
//!
//! Refuses: to leave anything out unless the test says so, and to be stopped with books that do not balance.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::agent::{Agent, STOP_MAX};
use crate::ledger::Books;
use crate::profile::{self, Stack};
use crate::receiver::{Behaviour, Protocol, Receiver};
use crate::spans::Span;

/// Every span is kept, and comes soon.
const SETTINGS: [&str; 7] = [
    "profile.window_ms=250",
    "profile.frequency_hz=1",
    "metrics.interval_ms=500",
    "otlp.queue_bytes_max=67108864",
    "trace.spans_per_second_max=1000000",
    "trace.exchanges_per_second_max=1000000000",
    "prometheus.listen=none",
];

/// How long spans may take to arrive: those whose parent goes on wait for it.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);

/// After so long without another one there are no more: longer than any waits for the other end of its connection.
const QUIET: Duration = Duration::from_secs(4);

/// How often they are looked for.
const POLL: Duration = Duration::from_millis(50);

/// A running agent, and who gets its telemetry.
pub struct Traced {
    agent: Agent,
    receiver: Receiver,
}

/// All that an agent said until its end.
pub struct Told {
    /// Its spans.
    pub spans: Vec<Span>,
    /// Its samples.
    pub stacks: Vec<Stack>,
    /// All of its telemetry as it is encoded.
    pub bytes: Vec<u8>,
    /// Its ledger.
    pub books: Books,
}

impl Traced {
    /// Starts an agent and waits until it is hooked in. These settings come after those that keep all.
    pub fn start(protocol: Protocol, settings: &[&str]) -> Self {
        let receiver = Receiver::start(protocol, Behaviour::Accept);
        let settings: Vec<&str> =
            SETTINGS.iter().chain(settings).flat_map(|setting| ["--set", setting]).collect();
        let [endpoint, protocol] = receiver.variables();
        let variables = [(&*endpoint.0, &*endpoint.1), (&*protocol.0, &*protocol.1)];
        Self { agent: Agent::run(&settings, &variables), receiver }
    }

    /// Waits until so many spans arrived whose server is at one of these ports.
    #[track_caller]
    pub fn wait_at(&self, ports: &[u16], count: usize) {
        self.wait_for("spans", count, |span| span.is_at(ports));
    }

    /// Waits until so many spans arrived whose server is at one of these ports, or no more of them come: some may be lost.
    pub fn wait_for_rest_at(&self, ports: &[u16], count: usize) {
        let found = || self.receiver.spans().iter().filter(|span| span.is_at(ports)).count();
        let mut before = (Instant::now(), found());
        while before.1 < count && before.0.elapsed() < QUIET {
            std::thread::sleep(POLL);
            let now = found();
            if now > before.1 {
                before = (Instant::now(), now);
            }
        }
    }

    /// Waits until enough spans of a kind arrived.
    #[track_caller]
    pub fn wait_for(&self, what: &str, count: usize, is_wanted: impl Fn(&Span) -> bool) {
        let deadline = Instant::now() + ARRIVAL_MAX;
        loop {
            let spans = self.receiver.spans();
            let found = spans.iter().filter(|span| is_wanted(span)).count();
            if found >= count {
                return;
            }
            if Instant::now() >= deadline {
                let mut names: BTreeMap<String, usize> = BTreeMap::new();
                spans.iter().for_each(|span| *names.entry(span.summary()).or_default() += 1);
                panic!("{found} of {count} {what} arrived, among: {names:#?}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// The agent's resident memory now, and the most it ever had, in bytes.
    pub fn resident_bytes(&self) -> (u64, u64) {
        self.agent.resident_bytes()
    }

    /// Stops the agent, whose books must balance.
    #[track_caller]
    pub fn stop(self) -> Told {
        self.agent.terminate();
        let books = self.agent.finish(STOP_MAX).expect_code(0).books();
        books.expect_balance();
        assert_eq!(self.receiver.complaints(), Vec::<String>::new());
        let told = Told {
            spans: self.receiver.spans(),
            stacks: profile::of_requests(&self.receiver.profiles()),
            bytes: self.receiver.bytes(),
            books,
        };
        assert_eq!(told.books.of("span").exported, Some(told.spans.len() as u64), "all that was sent came");
        told
    }
}

impl Told {
    /// Expects that a text is nowhere in the telemetry.
    #[track_caller]
    pub fn expect_none_of(&self, text: &str) {
        let found = self.bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = found {
            let around = &self.bytes[at.saturating_sub(200)..self.bytes.len().min(at + 200)];
            panic!("{text} has left: {}", String::from_utf8_lossy(around).escape_debug());
        }
    }

    /// Spans of one side whose server is at a port.
    pub fn at(&self, port: u16, is_client: bool) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.is_client() == is_client && span.is_at(&[port])).collect()
    }

    /// Leaves out what others on this machine do: spans whose server is at none of these ports.
    pub fn keep(&mut self, ports: &[u16]) {
        self.spans.retain(|span| span.is_at(ports));
    }
}
