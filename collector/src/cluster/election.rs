//! Who leads, judged by what was observed: a lease is free once its record has not changed for as long as it lasts.
//!
//! As client-go's `leaderelection` does: clocks of other nodes and of the server count for nothing, only the time since we
//! saw the record change. Refuses: asking anybody, and clocks; time is an argument, `CLOCK_BOOTTIME`, which goes on while a
//! machine sleeps.

use std::time::Duration;

use crate::meter::FRESH;

/// How long a lease lasts after its last renewal: what a dead leader costs. client-go's default.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a leader goes on after its last renewal. client-go's default.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Time between two renewals. client-go's default.
pub const RENEW_PERIOD: Duration = Duration::from_secs(2);

/// Candidates wait up to this long once the lease is free, so that they do not all write at once.
pub const JITTER_MAX: Duration = Duration::from_secs(1);

/// The longest lease of another that is believed: a typing error must not stop the election for ever.
const FOREIGN_DURATION_MAX: Duration = Duration::from_mins(5);

// What was collected at the last moment of a term is given out for so long, and then the next term may begin.
const _: () = assert!(RENEW_DEADLINE.as_millis() + FRESH.as_millis() < LEASE_DURATION.as_millis());

/// What the lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// When the holder last renewed it, by its own clock. Only whether it changes counts.
    pub renewed: Option<String>,
    /// How long it lasts, seconds.
    pub duration_s: i32,
}

/// What a candidate knows of the lease.
#[derive(Debug, Default)]
pub struct Observation {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    /// `None` where there is no lease.
    record: Option<Record>,
    /// When it was first seen like this, nanoseconds.
    since_ns: u64,
}

impl Observation {
    /// Takes what the lease says now; `None` if there is none.
    pub fn observe(&mut self, record: Option<Record>, now_ns: u64) {
        if self.known.as_ref().is_none_or(|known| known.record != record) {
            self.known = Some(Known { record, since_ns: now_ns });
        }
    }

    /// When the lease can be taken, nanoseconds; `None` as long as nothing is known of it.
    pub fn free_at_ns(&self) -> Option<u64> {
        let known = self.known.as_ref()?;
        let held = known.record.as_ref().filter(|record| !record.holder.is_empty());
        let lasts = held.map_or(Duration::ZERO, Record::lasts);
        Some(known.since_ns.saturating_add(lasts.as_nanos() as u64))
    }

    /// Whether it can be taken now.
    pub fn is_free(&self, now_ns: u64) -> bool {
        self.free_at_ns().is_some_and(|free_ns| now_ns >= free_ns)
    }
}

impl Record {
    /// How long it lasts: not less than ours, for a holder that says nothing sensible.
    fn lasts(&self) -> Duration {
        let said = Duration::from_secs(u64::try_from(self.duration_s).unwrap_or(0));
        said.clamp(LEASE_DURATION, FOREIGN_DURATION_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn record(holder: &str, renewed: &str, duration_s: i32) -> Option<Record> {
        Some(Record { holder: holder.to_owned(), renewed: Some(renewed.to_owned()), duration_s })
    }

    /// Observations at seconds; expects when the lease is free, in seconds.
    fn check(observed: &[(u64, Option<Record>)], expected: Option<u64>) {
        let mut observation = Observation::default();
        for (second, record) in observed {
            observation.observe(record.clone(), second * SECOND);
        }
        assert_eq!(observation.free_at_ns(), expected.map(|second| second * SECOND), "{observed:?}");
        if let Some(second) = expected {
            assert!(
                observation.is_free(second * SECOND)
                    && !observation.is_free((second * SECOND).wrapping_sub(1))
            );
        }
    }

    #[test]
    fn free_by_what_was_observed() {
        check(&[], None);
        check(&[(7, None)], Some(7));
        check(&[(7, record("a", "1", 15))], Some(22));
        // The same record again is no renewal, whatever time it names.
        check(&[(7, record("a", "2999", 15)), (20, record("a", "2999", 15))], Some(22));
        check(&[(7, record("a", "1", 15)), (9, record("a", "2", 15))], Some(24));
        // A clock that goes back is another record too.
        check(&[(7, record("a", "9", 15)), (9, record("a", "2", 15))], Some(24));
        // Released.
        check(&[(7, record("a", "1", 15)), (9, record("", "2", 1))], Some(9));
        check(&[(7, record("a", "1", 15)), (9, None)], Some(9));
        // Odd durations.
        check(&[(7, record("a", "1", -5))], Some(22));
        check(&[(7, record("a", "1", i32::MAX))], Some(307));
    }
}
