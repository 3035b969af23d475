//! What each series counted since it was last seen: the last value of each, bounded.
//!
//! A series that is absent for some snapshots is still known, so that a scrape that fails once does not count all again.
//! Refuses: series that do not only grow, and values that no counter has (negative, not finite).

use std::collections::HashMap;

use super::{ByFingerprint, Fingerprint, Point, Value};

/// Snapshots that a series may be absent from before it is forgotten.
pub const ABSENT_TURNS_MAX: u64 = 10;

/// What one remembered number costs: key, entry and the table's free places, bytes.
const NUMBER_BYTES: usize = 96;

/// What one remembered distribution costs beside its buckets, bytes.
const HISTOGRAM_BYTES: usize = 224;

/// The last values of series.
#[derive(Debug)]
pub struct Increments {
    series: ByFingerprint<Last>,
    bytes: usize,
    bytes_max: usize,
    turn: u64,
    is_swept: bool,
}

/// A series as it was last seen.
#[derive(Debug)]
struct Last {
    start_unix_ns: u64,
    time_unix_ns: u64,
    turn: u64,
    value: Value,
}

/// What became of a series since it was last seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It was not known: it counted all of its value. It is known from now on.
    First,
    /// It was known.
    Since {
        /// What it counted; all of its value if it began anew.
        increment: Value,
        /// When it was last seen, nanoseconds since the epoch.
        time_unix_ns: u64,
    },
    /// It was not known and there is no room for it.
    Full,
    /// It is not a value of a counter, or the second one in this snapshot.
    Invalid,
}

impl Increments {
    /// Knows nothing yet, and never holds more than about so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { series: HashMap::default(), bytes: 0, bytes_max, turn: 0, is_swept: false }
    }

    /// Begins a snapshot.
    pub fn begin(&mut self) {
        self.turn += 1;
        self.is_swept = false;
    }

    /// Whether a series is known.
    pub fn knows(&self, series: Fingerprint) -> bool {
        self.series.contains_key(&series)
    }

    /// What a series counted since it was last seen. `time_unix_ns` is the snapshot's.
    pub fn advance(&mut self, series: Fingerprint, point: &Point, time_unix_ns: u64) -> Step {
        if !is_countable(&point.value) {
            return Step::Invalid;
        }
        if let Some(last) = self.series.get_mut(&series) {
            if last.turn == self.turn {
                return Step::Invalid;
            }
            let increment = last.increment(point);
            let since = last.time_unix_ns;
            *last = Last::of(point, time_unix_ns, self.turn);
            return Step::Since { increment, time_unix_ns: since };
        }
        let bytes = bytes_of(&point.value);
        if self.bytes + bytes > self.bytes_max && !self.is_swept {
            // Whatever was not in the snapshot before this one either makes room.
            self.sweep(1);
            self.is_swept = true;
        }
        if self.bytes + bytes > self.bytes_max {
            return Step::Full;
        }
        self.bytes += bytes;
        self.series.insert(series, Last::of(point, time_unix_ns, self.turn));
        Step::First
    }

    /// Ends a snapshot: forgets what is absent for long.
    pub fn end(&mut self) {
        self.sweep(ABSENT_TURNS_MAX);
    }

    fn sweep(&mut self, absent_turns_max: u64) {
        let turn = self.turn;
        self.series.retain(|_, last| last.turn + absent_turns_max >= turn);
        if self.series.capacity() / 4 > self.series.len() {
            self.series.shrink_to_fit();
        }
        // Histograms grow: their cost is taken anew.
        self.bytes = self.series.values().map(|last| bytes_of(&last.value)).sum();
    }
}

impl Last {
    fn of(point: &Point, time_unix_ns: u64, turn: u64) -> Self {
        let mut value = point.value.clone();
        if let Value::Histogram(histogram) = &mut value {
            histogram.exemplars = Vec::new();
        }
        Self { start_unix_ns: point.start_unix_ns, time_unix_ns, turn, value }
    }

    fn increment(&self, point: &Point) -> Value {
        if point.start_unix_ns != self.start_unix_ns {
            return point.value.clone();
        }
        match (&point.value, &self.value) {
            (Value::Number(now), Value::Number(before)) if now >= before => Value::Number(now - before),
            (Value::Histogram(now), Value::Histogram(before)) => now
                .minus(before)
                .map_or_else(|| point.value.clone(), |since| Value::Histogram(Box::new(since))),
            (Value::ExplicitHistogram(now), Value::ExplicitHistogram(before)) => now
                .minus(before)
                .map_or_else(|| point.value.clone(), |since| Value::ExplicitHistogram(Box::new(since))),
            _ => point.value.clone(),
        }
    }
}

fn is_countable(value: &Value) -> bool {
    let number = match value {
        Value::Number(number) => *number,
        Value::Histogram(histogram) => histogram.sum,
        Value::ExplicitHistogram(histogram) => histogram.sum.unwrap_or(0.0),
        Value::Summary(_) => return false,
    };
    number.is_finite() && number >= 0.0
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Number(_) => NUMBER_BYTES,
        Value::Histogram(histogram) => HISTOGRAM_BYTES + histogram.buckets.len() * size_of::<u64>(),
        Value::ExplicitHistogram(histogram) => {
            HISTOGRAM_BYTES + histogram.bounds.len() * 2 * size_of::<u64>()
        }
        Value::Summary(summary) => HISTOGRAM_BYTES + summary.quantiles.len() * 2 * size_of::<u64>(),
    }
}
