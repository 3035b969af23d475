//! What it costs to watch a system call, by calls of our own: beside the hooks, and without them.
//!
//! A machine is not equally fast at all times: a processor's other thread wakes, a neighbour of the virtual machine works. Two
//! trials apart from each other may differ by more than what they are to find, so they are made close together, again and
//! again, and the middle of the last counts. Refuses: attaching.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Instant;

/// The fastest of so many batches counts, because the others were disturbed.
const BATCHES: usize = 8;
const BATCH_CALLS: u32 = 64;

/// Of so many costs the middle counts.
const REMEMBERED_MAX: usize = 9;

/// A call never costs less, whatever was measured, nanoseconds.
const COST_NS_MIN: f64 = 10.0;

/// What a trial calls: reads of zeros and writes into nothing by turns, because programs that do little else do both.
pub struct Trial {
    zeros: File,
    nothing: File,
}

/// What the hooks cost one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Nanoseconds of its CPU.
    pub ns: f64,
    /// Share that it takes from the time of a loop of such calls.
    pub share: f64,
}

/// The costs that were measured last.
#[derive(Debug, Default)]
pub struct Measured {
    costs: VecDeque<Cost>,
}

impl Trial {
    /// Opens the devices.
    ///
    /// # Errors
    ///
    /// If one of them is not there.
    pub fn open() -> io::Result<Self> {
        Ok(Self { zeros: File::open("/dev/zero")?, nothing: File::options().write(true).open("/dev/null")? })
    }

    /// Nanoseconds that a call takes now; a trial takes a fifth of a millisecond.
    ///
    /// # Errors
    ///
    /// If a device refuses, which is not known to happen.
    pub fn call_ns(&mut self) -> io::Result<f64> {
        let mut byte = [0];
        let mut fastest_ns = f64::INFINITY;
        for _ in 0..BATCHES {
            let start = Instant::now();
            for _ in 0..BATCH_CALLS / 2 {
                self.zeros.read_exact(&mut byte)?;
                self.nothing.write_all(&byte)?;
            }
            fastest_ns = fastest_ns.min(start.elapsed().as_nanos() as f64 / f64::from(BATCH_CALLS));
        }
        Ok(fastest_ns)
    }
}

impl Measured {
    /// Calls took so long without the hooks and beside them, nanoseconds.
    pub fn add(&mut self, free_ns: f64, watched_ns: f64) {
        if self.costs.len() == REMEMBERED_MAX {
            self.costs.pop_front();
        }
        let ns = (watched_ns - free_ns).max(COST_NS_MIN);
        self.costs.push_back(Cost { ns, share: ns / (free_ns + ns) });
    }

    /// What the hooks cost a call; `None` if nothing was measured.
    pub fn cost(&self) -> Option<Cost> {
        Some(Cost { ns: self.middle(|cost| cost.ns)?, share: self.middle(|cost| cost.share)? })
    }

    /// Of an even number the lower one: where a call is taken as too dear, calls are told that were not there.
    fn middle(&self, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.costs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(f64, f64)], expected: Option<(f64, f64)>) {
        let mut measured = Measured::default();
        pairs.iter().for_each(|&(free_ns, watched_ns)| measured.add(free_ns, watched_ns));
        assert_eq!(measured.cost().map(|cost| (cost.ns, cost.share)), expected, "{pairs:?}");
    }

    #[test]
    fn the_middle_counts() {
        check(&[], None);
        check(&[(100.0, 400.0)], Some((300.0, 0.75)));
        check(&[(100.0, 400.0), (100.0, 800.0), (150.0, 300.0)], Some((300.0, 0.75)));
        check(&[(100.0, 800.0), (100.0, 400.0)], Some((300.0, 0.75)));
    }

    #[test]
    fn a_machine_that_changed_is_found_out() {
        let changed = [[(100.0, 500.0); 30], [(50.0, 250.0); 30]].concat();
        check(&changed, Some((200.0, 0.8)));
        check(&changed[..34], Some((400.0, 0.8)));
        check(&changed[..35], Some((200.0, 0.8)));
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        check(&[(90.0, 80.0)], Some((COST_NS_MIN, 0.1)));
    }

    #[test]
    fn devices_answer() {
        let call_ns = Trial::open().unwrap().call_ns().unwrap();
        assert!(call_ns.is_finite() && call_ns > 0.0, "{call_ns}");
    }
}
