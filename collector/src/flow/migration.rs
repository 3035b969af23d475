//! Processes whose requests change their threads: tasks that any thread of a pool may go on with (tokio, Go).
//!
//! There a thread that took a request up may do something for another one before it answers, without asking an event queue itself:
//! one thread asks, the others are handed what is ready. What such a thread does proves nothing. Refuses: to forget a
//! process soon; one exchange that changed its thread speaks for those before and behind it.

use std::collections::HashMap;

/// How long a process is remembered after the last exchange that changed its thread.
const REMEMBERED_NS: u64 = 600_000_000_000;

/// Processes that are remembered. When there are more, every process is taken for one: nothing is proven by threads.
const PROCESSES_MAX: usize = 4096;

/// The processes, and when the last such exchange of each ended (`CLOCK_MONOTONIC`, nanoseconds).
#[derive(Debug, Default)]
pub struct Migrations {
    ends: HashMap<u32, u64>,
}

impl Migrations {
    /// An exchange of a process ended on another thread than it began on.
    pub fn add(&mut self, process: u32, end_ns: u64) {
        if self.ends.len() < PROCESSES_MAX || self.ends.contains_key(&process) {
            self.ends.insert(process, end_ns);
        }
    }

    /// Whether requests of a process may change their threads.
    pub fn has(&self, process: u32) -> bool {
        self.ends.len() >= PROCESSES_MAX || self.ends.contains_key(&process)
    }

    /// Forgets what is old.
    pub fn turn(&mut self, now_ns: u64) {
        self.ends.retain(|_, end_ns| end_ns.saturating_add(REMEMBERED_NS) > now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_remembered_for_some_time() {
        let mut migrations = Migrations::default();
        migrations.add(7, 1);
        migrations.turn(REMEMBERED_NS);
        assert_eq!((migrations.has(7), migrations.has(8)), (true, false));
        migrations.add(7, 2);
        migrations.turn(REMEMBERED_NS + 1);
        assert!(migrations.has(7));
        migrations.turn(REMEMBERED_NS + 2);
        assert!(!migrations.has(7));
    }

    #[test]
    fn with_too_many_nothing_is_proven() {
        let mut migrations = Migrations::default();
        (0..2 * PROCESSES_MAX as u32).for_each(|process| migrations.add(process, 1));
        assert!(migrations.has(u32::MAX));
        migrations.turn(u64::MAX);
        assert!(!migrations.has(0));
    }
}
