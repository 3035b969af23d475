//! When series began to count.
//!
//! `_created` if the page has it. Else the first scrape that saw the series, and after a reset the scrape that saw the
//! reset: metrics data model, "Cumulative streams: handling unknown start time", and the collector's initial-point
//! adjuster. Values stay as they are. Refuses: `process_start_time_seconds`, which is another's start.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::{Labels, Role};

const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// The starts of one target's series. Forgets a series that a scrape does not have, so it holds one page's series.
#[derive(Default)]
pub struct Starts {
    /// Its key is random: a target cannot choose two series that collide.
    hasher: RandomState,
    before: HashMap<u64, Seen>,
    now: HashMap<u64, Seen>,
    time_unix_ns: u64,
}

struct Seen {
    start_unix_ns: u64,
    /// Numbers that only grow as long as there is no reset.
    levels: [f64; 2],
}

impl Starts {
    /// Starts a scrape's page.
    pub(super) fn begin(&mut self, time_unix_ns: u64) {
        self.time_unix_ns = time_unix_ns;
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    pub(super) fn key(&self, name: &str, role: Role, labels: &Labels) -> u64 {
        self.hasher.hash_one((name, role, labels))
    }

    /// The start of a series that stands at `levels`, nanoseconds since the epoch. `created_s` are seconds.
    pub(super) fn of(&mut self, key: u64, created_s: Option<f64>, levels: [f64; 2]) -> u64 {
        // The cast saturates; NaN becomes 0.
        let created = created_s.map(|seconds| (seconds * NANOSECONDS_PER_SECOND) as u64);
        let created = created.filter(|created| (1..=self.time_unix_ns).contains(created));
        let grew = |seen: &&Seen| seen.levels.iter().zip(levels).all(|(before, now)| now >= *before);
        let start_unix_ns = created
            .or_else(|| self.before.get(&key).filter(grew).map(|seen| seen.start_unix_ns))
            .unwrap_or(self.time_unix_ns);
        self.now.insert(key, Seen { start_unix_ns, levels });
        start_unix_ns
    }
}
