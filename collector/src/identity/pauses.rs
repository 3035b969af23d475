//! How long the watch of pods waits after an error: shortly at first, because records wait for names, then ever longer.
//!
//! What the watch tells says nothing of its health: it begins each list with a word of its own, also those that fail. Only
//! time without an error counts. Refuses: clocks (time is an argument), and waiting.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first wait. Records wait 5 s for their pod, and several errors on end must cost less.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Where growth ends; with what is added at random it is the 30 s of client-go's reflectors.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A watch without an error for so long is well again. Longer than a connection may take, so that a server that accepts none
/// is asked ever more seldom.
const CALM: Duration = Duration::from_secs(10);

/// The waits, doubling, each lengthened by up to its own length at random, so that a fleet doesn't return in step.
pub(super) struct Pauses {
    growing: ExponentialBackoff,
    /// When the last wait ended.
    ended: Instant,
}

impl Pauses {
    /// No error yet.
    pub fn new(now: Instant) -> Self {
        let growing = ExponentialBuilder::new().with_min_delay(PAUSE_MIN).with_max_delay(PAUSE_MAX);
        Self { growing: growing.without_max_times().with_jitter().build(), ended: now }
    }

    /// How long to wait after an error that came now.
    pub fn after_error(&mut self, now: Instant) -> Duration {
        if now.saturating_duration_since(self.ended) >= CALM {
            *self = Self::new(now);
        }
        let pause = self.growing.next().unwrap_or(PAUSE_MAX);
        self.ended = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors come, each so long after the wait for the one before; expects the least of each wait, of which it is the most
    /// twice.
    fn check(errors: &[(Duration, u64)]) {
        let mut now = Instant::now();
        let mut pauses = Pauses::new(now);
        for (after, expected_ms) in errors {
            now += *after;
            let pause = pauses.after_error(now);
            let least = Duration::from_millis(*expected_ms);
            assert!((least..=2 * least).contains(&pause), "{pause:?} of {errors:?}");
            now += pause;
        }
    }

    #[test]
    fn a_server_that_refuses_is_asked_ever_more_seldom() {
        let waits = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000];
        check(&waits.map(|wait_ms| (Duration::ZERO, wait_ms)));
        // Or accepts no connection.
        check(&waits.map(|wait_ms| (CALM / 2, wait_ms)));
    }

    #[test]
    fn a_watch_that_was_well_comes_back_at_once() {
        let at_once = Duration::ZERO;
        check(&[(at_once, 100), (at_once, 200), (CALM, 100), (at_once, 200), (3 * CALM, 100)]);
    }
}
