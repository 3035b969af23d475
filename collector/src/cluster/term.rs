//! Whether we lead, for whoever exports: until a moment, and not a moment longer.
//!
//! The moment is a number and not a flag: a thread that is held up, or a machine that slept, finds at its next look that
//! its time is over, without anybody telling it. Refuses: locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::election::RENEW_DEADLINE;
use crate::clock::boottime_ns;

/// How long we lead.
#[derive(Debug, Default)]
pub struct Term {
    /// `CLOCK_BOOTTIME`, nanoseconds; 0 for not at all.
    until_ns: AtomicU64,
}

impl Term {
    /// Whether we lead now.
    pub fn is_on(&self) -> bool {
        boottime_ns() < self.until_ns.load(Ordering::Acquire)
    }

    /// How long we still lead.
    pub fn left(&self) -> Duration {
        Duration::from_nanos(self.until_ns.load(Ordering::Acquire).saturating_sub(boottime_ns()))
    }

    /// A renewal counts that was sent at this moment: others cannot have seen it before.
    pub fn renew(&self, sent_ns: u64) {
        self.until_ns.store(sent_ns + RENEW_DEADLINE.as_nanos() as u64, Ordering::Release);
    }

    /// It is over.
    pub fn end(&self) {
        self.until_ns.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_by_itself() {
        let term = Term::default();
        assert!(!term.is_on());
        let now = boottime_ns();
        term.renew(now);
        assert!(term.is_on() && term.left() <= RENEW_DEADLINE);
        term.renew(now.saturating_sub(RENEW_DEADLINE.as_nanos() as u64));
        assert!(!term.is_on() && term.left().is_zero());
        term.renew(now);
        term.end();
        assert!(!term.is_on());
    }
}
