//! How many containers and records were named, by which source and how late: the agent's own metrics of it.
//!
//! Refuses: anything by container or pod; those would be series without end.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::telemetry::{ExponentialHistogram, Metric, MetricKind, Owner, Point, Text, Value};

/// Who told a container's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What was known before, on disk.
    Cache,
    /// The API server.
    Api,
    /// The runtime's socket.
    Cri,
    /// The runtime's files.
    Bundle,
    /// The links to logs.
    LogPath,
}

impl Source {
    const ALL: [(Self, &str); 5] = [
        (Self::Cache, "cache"),
        (Self::Api, "api"),
        (Self::Cri, "cri"),
        (Self::Bundle, "bundle"),
        (Self::LogPath, "log_path"),
    ];
}

/// Delays are in buckets from 2^-14 s (61 us) to 2^6 s, each twice the one before.
const FIRST_BUCKET: i32 = -14;
const BUCKETS: usize = 20;

/// The counts.
#[derive(Debug, Default)]
pub struct NameStats {
    by_source: [AtomicU64; Source::ALL.len()],
    delays: [AtomicU64; BUCKETS],
    delay_ns: AtomicU64,
    late: AtomicU64,
    unnamed: AtomicU64,
    refused: AtomicU64,
    cri_errors: AtomicU64,
    api_errors: AtomicU64,
    named_records: AtomicU64,
    unnamed_records: AtomicU64,
    start_unix_ns: u64,
}

impl NameStats {
    /// Nothing is counted yet.
    pub fn new(start_unix_ns: u64) -> Self {
        Self { start_unix_ns, ..Self::default() }
    }

    /// A container has its pod, so long after it was first met.
    pub fn count_named(&self, source: Source, delay_ns: u64) {
        self.by_source[source as usize].fetch_add(1, Relaxed);
        self.delay_ns.fetch_add(delay_ns, Relaxed);
        self.delays[bucket(delay_ns)].fetch_add(1, Relaxed);
    }

    /// Records of a container that is certainly in a pod went out before it was known.
    pub fn count_late(&self) {
        self.late.fetch_add(1, Relaxed);
    }

    /// The pod of such a container was never found.
    pub fn count_unnamed(&self) {
        self.unnamed.fetch_add(1, Relaxed);
    }

    /// A container was not even looked for: too many are.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The runtime's socket gave an error.
    pub fn count_cri_error(&self) {
        self.cri_errors.fetch_add(1, Relaxed);
    }

    /// The API server gave an error.
    pub fn count_api_error(&self) {
        self.api_errors.fetch_add(1, Relaxed);
    }

    /// Records of containers that are certainly in pods went out, with and without them.
    pub fn count_records(&self, named: u64, unnamed: u64) {
        self.named_records.fetch_add(named, Relaxed);
        self.unnamed_records.fetch_add(unnamed, Relaxed);
    }

    /// Records with their pod's name and without.
    pub fn records(&self) -> (u64, u64) {
        (self.named_records.load(Relaxed), self.unnamed_records.load(Relaxed))
    }

    /// All counts now.
    pub fn metrics(&self) -> Vec<Metric> {
        let number = |attribute: Option<(&'static str, &'static str)>, count: &AtomicU64| {
            let attributes =
                attribute.into_iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect();
            Point::number(Owner::Agent, attributes, self.start_unix_ns, count.load(Relaxed) as f64)
        };
        let counter = |name: &'static str, unit: &'static str, description: &'static str, points| {
            Metric::new(MetricKind::Counter, name, unit, description).with(points)
        };
        let sources = Source::ALL.iter().map(|(source, name)| {
            number(Some(("kansoku.name.source", name)), &self.by_source[*source as usize])
        });
        let outcome = |name, count| number(Some(("kansoku.name.outcome", name)), count);
        let histogram = ExponentialHistogram {
            scale: 0,
            offset: FIRST_BUCKET,
            buckets: self.delays.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.delay_ns.load(Relaxed) as f64 / 1e9,
            ..ExponentialHistogram::default()
        };
        let delay = Point {
            owner: Owner::Agent,
            attributes: Vec::new(),
            start_unix_ns: self.start_unix_ns,
            value: Value::Histogram(Box::new(histogram)),
        };
        vec![
            counter(
                "kansoku.names.containers",
                "{container}",
                "Containers whose pod was found, by the source that told it.",
                sources.collect(),
            ),
            Metric::new(
                MetricKind::Histogram,
                "kansoku.names.delay",
                "s",
                "Time from a container's first record until its pod was known.",
            )
            .with(vec![delay]),
            counter(
                "kansoku.names.missed",
                "{container}",
                "Containers of pods whose pod was found late, never, or not looked for.",
                vec![
                    outcome("late", &self.late),
                    outcome("never", &self.unnamed),
                    outcome("refused", &self.refused),
                ],
            ),
            counter(
                "kansoku.names.records",
                "{record}",
                "Records of containers of pods, with their pod's name and without.",
                vec![outcome("named", &self.named_records), outcome("unnamed", &self.unnamed_records)],
            ),
            counter(
                "kansoku.names.errors",
                "{error}",
                "Answers that were errors.",
                vec![
                    number(Some(("kansoku.name.source", "cri")), &self.cri_errors),
                    number(Some(("kansoku.name.source", "api")), &self.api_errors),
                ],
            ),
        ]
    }
}

/// The bucket of `(2^index, 2^(index+1)]` seconds.
fn bucket(delay_ns: u64) -> usize {
    let exponent = (delay_ns.max(1) as f64 / 1e9).log2().ceil() as i32 - 1;
    usize::try_from(exponent - FIRST_BUCKET).unwrap_or(0).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        let check = |delay_ns: u64, expected: usize| assert_eq!(bucket(delay_ns), expected, "{delay_ns}");
        check(0, 0);
        check(61_000, 0);
        check(1_000_000_000, 13);
        check(1_000_000_001, 14);
        check(u64::MAX, BUCKETS - 1);
    }

    #[test]
    fn the_sources_are_in_their_order() {
        for (index, (source, name)) in Source::ALL.iter().enumerate() {
            assert_eq!(*source as usize, index, "{name}");
        }
    }
}
