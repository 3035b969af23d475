//! What the endpoint counts about itself.
//!
//! Refuses: to be exact to the moment; each number is read on its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::{Metric, MetricKind, Owner, Point};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Answers with metrics.
    pub scrapes: Counter,
    /// Time from the head of a scrape to its body, nanoseconds.
    pub scrape_ns: Counter,
    /// Connections beyond the bound, closed at once.
    pub connections_refused: Counter,
    /// Requests without the right credentials, and TLS handshakes that failed.
    pub unauthorized: Counter,
    /// Connections cut because the answer was not read in time.
    pub slow_readers: Counter,
    /// Scrapes without an answer of the collector.
    pub unanswered: Counter,
    /// Series left out because of their names, labels or values.
    pub omitted: Counter,
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds a duration in nanoseconds.
    pub fn add_time(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// As metrics of the agent that count since `start_unix_ns`.
    pub fn metrics(&self, start_unix_ns: u64) -> Vec<Metric> {
        let counts = [
            ("scrapes", "{scrape}", "Scrapes answered with metrics.", &self.scrapes),
            (
                "connections.refused",
                "{connection}",
                "Connections beyond the bound.",
                &self.connections_refused,
            ),
            ("unauthorized", "{request}", "Requests and handshakes without credentials.", &self.unauthorized),
            ("slow_readers", "{connection}", "Connections cut because of a slow reader.", &self.slow_readers),
            ("unanswered", "{scrape}", "Scrapes that the collector did not answer.", &self.unanswered),
            ("series.omitted", "{series}", "Series left out of answers.", &self.omitted),
        ];
        let metric = |name: &str, unit: &'static str, description: &'static str, value: f64| {
            let name = format!("kansoku.prometheus.{name}");
            let point = Point::number(Owner::Agent, Vec::new(), start_unix_ns, value);
            Metric::new(MetricKind::Counter, name, unit, description).with(vec![point])
        };
        let seconds = Duration::from_nanos(self.scrape_ns.get()).as_secs_f64();
        let time = metric("scrape.time", "s", "Time that scrapes took until their body was there.", seconds);
        let counts = counts
            .map(|(name, unit, description, count)| metric(name, unit, description, count.get() as f64));
        counts.into_iter().chain([time]).collect()
    }
}
