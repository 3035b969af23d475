//! The ledger: for each signal, what was seen equals what came out plus every counted loss.
//!
//! Refuses: clocks, I/O, and losses without a reason. Counters only ever grow; anyone may read at any time, and the
//! books balance exactly once the pipeline has stopped.

use std::sync::atomic::{AtomicU64, Ordering};

pub use collector_common::loss::{LossReason, Signal, Stage};

/// Counts of all signals. Shared by the threads; every update is one atomic addition.
#[derive(Debug, Default)]
pub struct Ledger {
    books: [Book; Signal::ALL.len()],
}

#[derive(Debug, Default)]
struct Book {
    seen: AtomicU64,
    left_out: AtomicU64,
    carried: AtomicU64,
    decoded: AtomicU64,
    represented: AtomicU64,
    exported: AtomicU64,
    lost: [AtomicU64; LossReason::ALL.len()],
}

/// The counts of one signal at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The signal.
    pub signal: Signal,
    /// Records that the kernel (or the daemon, for signals it makes itself) wanted to send.
    pub seen: u64,
    /// Records that became typed events.
    pub decoded: u64,
    /// Records that are part of a flushed window or of live state.
    pub represented: u64,
    /// Records that reached their receiver: the backend, or the local view where there is none.
    pub exported: u64,
    /// Losses by reason, only those above zero, in the order of [`LossReason::ALL`].
    pub lost: Vec<(LossReason, u64)>,
}

impl Ledger {
    /// Sets a signal's kernel counters, which the kernel side counts from zero itself.
    pub fn set_kernel(&self, signal: Signal, seen: u64, losses: &[(LossReason, u64)]) {
        let book = self.book(signal);
        book.seen.store(seen, Ordering::Relaxed);
        for &(reason, count) in losses {
            book.lost[reason as usize].store(count, Ordering::Relaxed);
        }
    }

    /// Sets how many of a signal that the daemon counts itself the kernel side saw and left out, for one reason.
    pub fn set_left_out(&self, signal: Signal, reason: LossReason, count: u64) {
        let book = self.book(signal);
        book.left_out.store(count, Ordering::Relaxed);
        book.lost[reason as usize].store(count, Ordering::Relaxed);
    }

    /// Adds to what a source in the daemon has seen.
    pub fn seen(&self, signal: Signal, count: u64) {
        self.book(signal).seen.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds records of an earlier run that wait for their export still: seen, decoded and represented there.
    pub fn carried_over(&self, signal: Signal, count: u64) {
        self.book(signal).carried.fetch_add(count, Ordering::Relaxed);
        self.decoded(signal, count);
        self.represented(signal, count);
    }

    /// Adds to what became typed events.
    pub fn decoded(&self, signal: Signal, count: u64) {
        self.book(signal).decoded.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds to what is part of a window or of live state.
    pub fn represented(&self, signal: Signal, count: u64) {
        self.book(signal).represented.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds to what reached its receiver.
    pub fn exported(&self, signal: Signal, count: u64) {
        self.book(signal).exported.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a loss.
    pub fn lost(&self, signal: Signal, reason: LossReason, count: u64) {
        self.book(signal).lost[reason as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// The counts of one signal now.
    pub fn account(&self, signal: Signal) -> Account {
        let book = self.book(signal);
        let lost = LossReason::ALL
            .into_iter()
            .map(|reason| (reason, book.lost[reason as usize].load(Ordering::Relaxed)))
            .filter(|&(_, count)| count > 0)
            .collect();
        Account {
            signal,
            seen: [&book.seen, &book.carried, &book.left_out]
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .sum(),
            decoded: book.decoded.load(Ordering::Relaxed),
            represented: book.represented.load(Ordering::Relaxed),
            exported: book.exported.load(Ordering::Relaxed),
            lost,
        }
    }

    /// The counts of every signal now.
    pub fn accounts(&self) -> Vec<Account> {
        Signal::ALL.into_iter().map(|signal| self.account(signal)).collect()
    }

    fn book(&self, signal: Signal) -> &Book {
        &self.books[signal as usize]
    }
}

impl Account {
    /// Losses at one stage.
    pub fn lost_at(&self, stage: Stage) -> u64 {
        self.lost.iter().filter(|(reason, _)| reason.stage() == stage).map(|&(_, count)| count).sum()
    }

    /// Whether the signal's records leave the agent. Process and mapping records and the
    /// details of crashes feed the live state and end there.
    pub fn is_exported(&self) -> bool {
        matches!(
            self.signal,
            Signal::Profile | Signal::Metric | Signal::Crash | Signal::SlowOperation | Signal::Span
        )
    }

    /// The records that no equation explains: 0 for books that balance. In a running agent, records on their way
    /// show up here.
    pub fn unexplained(&self) -> u64 {
        let kernel = self.lost_at(Stage::Kernel) + self.lost_at(Stage::Decode) + self.decoded;
        let represent = self.lost_at(Stage::Represent) + self.represented;
        let export = self.lost_at(Stage::Export) + self.exported;
        let exported_gap = if self.is_exported() { self.represented.abs_diff(export) } else { 0 };
        self.seen.abs_diff(kernel) + self.decoded.abs_diff(represent) + exported_gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ledgers are described by their steps; the expected value is what no equation explains.
    fn check(steps: &[(&str, u64)], expected_unexplained: u64) {
        let ledger = Ledger::default();
        for &(step, count) in steps {
            match step {
                "seen" => ledger.seen(Signal::Profile, count),
                "ring full" => ledger.lost(Signal::Profile, LossReason::RingFull, count),
                "malformed" => ledger.lost(Signal::Profile, LossReason::Malformed, count),
                "decoded" => ledger.decoded(Signal::Profile, count),
                "window full" => ledger.lost(Signal::Profile, LossReason::WindowFull, count),
                "represented" => ledger.represented(Signal::Profile, count),
                "refused" => ledger.lost(Signal::Profile, LossReason::ExportRefused, count),
                "exported" => ledger.exported(Signal::Profile, count),
                other => panic!("no such step: {other}"),
            }
        }
        assert_eq!(ledger.account(Signal::Profile).unexplained(), expected_unexplained, "{steps:?}");
    }

    #[test]
    fn books_balance_or_say_by_how_much_not() {
        check(&[], 0);
        check(&[("seen", 10), ("decoded", 10), ("represented", 10), ("exported", 10)], 0);
        check(
            &[
                ("seen", 10),
                ("ring full", 3),
                ("malformed", 1),
                ("decoded", 6),
                ("window full", 2),
                ("represented", 4),
                ("refused", 1),
                ("exported", 3),
            ],
            0,
        );
        check(&[("seen", 10), ("decoded", 9), ("represented", 9), ("exported", 9)], 1);
        check(&[("seen", 10), ("decoded", 10), ("represented", 10), ("exported", 7)], 3);
        check(&[("seen", 5), ("decoded", 5), ("represented", 6), ("exported", 6)], 1);
    }
}
