//! What the cluster's part of the agent counts of itself.
//!
//! Refuses: locks. The thread that elects counts, the thread of metrics reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::board::Board;
use super::term::Term;
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text};

/// Counts since the start.
#[derive(Debug)]
pub struct Stats {
    start_unix_ns: u64,
    /// Times that we became leader.
    pub elected: AtomicU64,
    /// Times that we stopped without wanting to.
    pub lost: AtomicU64,
    /// Answers about the lease that were errors.
    pub lease_errors: AtomicU64,
    /// Answers about objects that were errors.
    pub watch_errors: AtomicU64,
    /// Objects that found no place, each time that they were told.
    pub left_out: AtomicU64,
}

impl Stats {
    /// Nothing yet.
    pub fn new(start_unix_ns: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            start_unix_ns,
            elected: zero(),
            lost: zero(),
            lease_errors: zero(),
            watch_errors: zero(),
            left_out: zero(),
        }
    }

    /// One more. Whether it is the first.
    pub fn count(counter: &AtomicU64) -> bool {
        counter.fetch_add(1, Relaxed) == 0
    }

    /// All now.
    pub fn metrics(&self, term: &Term, board: &Board) -> Vec<Metric> {
        let point = |attribute: Option<(&'static str, &'static str)>, start_unix_ns, value: f64| {
            let attributes = attribute.map(|(key, value)| (Text::from(key), Text::from(value)));
            Point::number(Owner::Agent, attributes.into_iter().collect(), start_unix_ns, value)
        };
        let count = |attribute, counter: &AtomicU64| {
            point(attribute, self.start_unix_ns, counter.load(Relaxed) as f64)
        };
        let change = |name, counter| count(Some(("kansoku.cluster.change", name)), counter);
        let asked = |name, counter| count(Some(("kansoku.cluster.request", name)), counter);
        let objects = board
            .counts()
            .map(|(kind, count)| point(Some(("kansoku.cluster.kind", kind.name())), 0, count as f64));
        vec![
            Metric::new(
                MetricKind::Gauge,
                "kansoku.cluster.leader",
                "{agent}",
                "Whether this agent exports what is true for the whole cluster.",
            )
            .with(vec![point(None, 0, f64::from(u8::from(term.is_on())))]),
            Metric::new(
                MetricKind::Counter,
                "kansoku.cluster.changes",
                "{change}",
                "Times that this agent became leader, and that it lost the lease without giving it back.",
            )
            .with(vec![change("elected", &self.elected), change("lost", &self.lost)]),
            Metric::new(
                MetricKind::Counter,
                "kansoku.cluster.errors",
                "{error}",
                "Answers of the API server about the lease and about objects that were errors.",
            )
            .with(vec![asked("lease", &self.lease_errors), asked("watch", &self.watch_errors)]),
            Metric::new(
                MetricKind::Gauge,
                "kansoku.cluster.objects",
                "{object}",
                "Objects of the cluster that are held, by kind.",
            )
            .with(objects.collect()),
            Metric::new(
                MetricKind::Counter,
                "kansoku.cluster.objects.left_out",
                "{object}",
                "Objects that found no place, each time that they were told.",
            )
            .with(vec![count(None, &self.left_out)]),
        ]
    }
}
