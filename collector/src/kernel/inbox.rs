//! Records of all sources, held until the pipeline applies them in the order of time.
//!
//! A turn drains every source, then applies what is not newer than the turn's start; what is newer waits for the next
//! turn. So a sample always meets the process table as it was at the sample's time. Refuses: unbounded waiting.

use collector_common::event::{self, Event};
use zerocopy::IntoBytes;

use super::sideband::SidebandEvent;
use crate::loss::{Ledger, LossReason, Signal};

/// Records that may wait for their turn. Above it new ones are counted as backlog.
const RECORDS_MAX: usize = 65_536;

/// The records of a turn.
#[derive(Default)]
pub struct Inbox {
    /// Bytes of ring records, in words because records are aligned to 8.
    words: Vec<u64>,
    entries: Vec<Entry>,
}

struct Entry {
    time_ns: u64,
    content: Content,
}

enum Content {
    Ring { start: usize, bytes: usize },
    Sideband(SidebandEvent),
}

/// A record that is due.
pub enum Arrival<'a> {
    /// From one of our rings.
    Ring(Event<'a>),
    /// From the perf side-band.
    Sideband(&'a SidebandEvent),
}

impl Inbox {
    /// Takes one ring record; what is malformed or too much is counted.
    pub fn push_ring(&mut self, bytes: &[u8], signal: Signal, ledger: &Ledger) {
        let start = self.words.len();
        self.words.resize(start + bytes.len().div_ceil(8), 0);
        self.words[start..].as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        let Some(event) = event::decode(&self.words[start..].as_bytes()[..bytes.len()]) else {
            self.words.truncate(start);
            ledger.lost(signal, LossReason::Malformed, 1);
            return;
        };
        let time_ns = event.time_ns();
        ledger.decoded(signal, 1);
        if self.entries.len() >= RECORDS_MAX {
            self.words.truncate(start);
            ledger.lost(signal, LossReason::Backlog, 1);
            return;
        }
        self.entries.push(Entry { time_ns, content: Content::Ring { start, bytes: bytes.len() } });
    }

    /// Takes one event of the side-band.
    pub fn push_sideband(&mut self, event: SidebandEvent, ledger: &Ledger) {
        ledger.decoded(Signal::Mapping, 1);
        if self.entries.len() >= RECORDS_MAX {
            ledger.lost(Signal::Mapping, LossReason::Backlog, 1);
            return;
        }
        self.entries.push(Entry { time_ns: event.time_ns(), content: Content::Sideband(event) });
    }

    /// Hands over everything up to `until_ns` in the order of time, and keeps the rest.
    pub fn apply_until(&mut self, until_ns: u64, mut apply: impl FnMut(Arrival<'_>)) {
        self.entries.sort_by_key(|entry| entry.time_ns);
        let due = self.entries.partition_point(|entry| entry.time_ns <= until_ns);
        for entry in &self.entries[..due] {
            match &entry.content {
                Content::Sideband(event) => apply(Arrival::Sideband(event)),
                Content::Ring { start, bytes } => {
                    if let Some(event) = event::decode(&self.words[*start..].as_bytes()[..*bytes]) {
                        apply(Arrival::Ring(event));
                    }
                }
            }
        }
        self.entries.drain(..due);
        self.compact();
    }

    /// Moves the words of waiting records to the front.
    fn compact(&mut self) {
        let words = std::mem::take(&mut self.words);
        for entry in &mut self.entries {
            if let Content::Ring { start, bytes } = &mut entry.content {
                let moved = self.words.len();
                self.words.extend_from_slice(&words[*start..*start + bytes.div_ceil(8)]);
                *start = moved;
            }
        }
        if self.words.is_empty() {
            self.words = words;
            self.words.clear();
            self.words.shrink_to(WORDS_KEPT);
            self.entries.shrink_to(WORDS_KEPT);
        }
    }
}

/// Capacity that is kept between turns: 512 KiB, the records of a busy turn.
const WORDS_KEPT: usize = 65_536;

#[cfg(test)]
mod tests {
    use collector_common::event::{Head, Kind, Task};
    use collector_common::process::ExitRecord;

    use super::*;

    fn exit(time_ns: u64) -> ExitRecord {
        let bytes = size_of::<ExitRecord>() as u32;
        ExitRecord {
            head: Head { kind: Kind::Exit as u32, record_bytes: bytes, time_ns },
            task: Task { tgid: time_ns as u32, tid: 0, start_ns: 0, cgroup_id: 0, comm: [0; 16] },
        }
    }

    /// Pushes records with these times, then applies until each of `turns`; expects the times that come out.
    fn check(times: &[u64], turns: &[u64], expected: &[&[u64]]) {
        let ledger = Ledger::default();
        let mut inbox = Inbox::default();
        for &time in times {
            inbox.push_ring(exit(time).as_bytes(), Signal::Process, &ledger);
        }
        for (turn, expected) in turns.iter().zip(expected) {
            let mut seen = Vec::new();
            inbox.apply_until(*turn, |arrival| match arrival {
                Arrival::Ring(event) => seen.push(event.time_ns()),
                Arrival::Sideband(_) => {}
            });
            assert_eq!(&seen, expected, "until {turn} of {times:?}");
        }
    }

    #[test]
    fn order_of_time_and_waiting() {
        check(&[3, 1, 2], &[10], &[&[1, 2, 3]]);
        check(&[5, 1, 9, 2], &[2, 6, u64::MAX], &[&[1, 2], &[5], &[9]]);
        check(&[], &[1], &[&[]]);
    }

    #[test]
    fn malformed_and_backlog_are_counted() {
        let ledger = Ledger::default();
        let mut inbox = Inbox::default();
        inbox.push_ring(&[1, 2, 3], Signal::Process, &ledger);
        for time in 0..=RECORDS_MAX as u64 {
            inbox.push_ring(exit(time).as_bytes(), Signal::Process, &ledger);
        }
        let account = ledger.account(Signal::Process);
        assert_eq!(account.lost, [(LossReason::Malformed, 1), (LossReason::Backlog, 1)]);
        assert_eq!(account.decoded, RECORDS_MAX as u64 + 1);
    }
}
