//! The kernel's counts by owner: what cgroups of one owner did adds up, and what a cgroup did stays when it is gone.
//!
//! Refuses: names of metrics. Time is an argument.

use std::collections::HashMap;

use collector_common::io::{Distribution, Key as KernelKey, Measure, OVERFLOW_CGROUP};

use crate::identity::{self, KEEP_ENDED_NS};

/// Whose a series is: `None` for what belongs to no container and no service.
pub type OwnerKey = Option<identity::Key>;

/// What makes a series one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// Whose it is.
    pub owner: OwnerKey,
    /// The process or the device, 0 for none.
    pub detail: u32,
    /// A [`Measure`]
    pub measure: u8,
    /// An [`collector_common::io::Operation`]
    pub operation: u8,
    /// By the measure.
    pub label: u8,
    /// An [`collector_common::io::ErrorClass`]
    pub error: u8,
}

/// A series.
#[derive(Clone, Debug)]
pub struct Series {
    /// What was counted since `start_unix_ns`.
    pub counts: Distribution,
    /// When it began to count, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    /// When its process was missed first, `CLOCK_MONOTONIC`.
    ended_ns: Option<u64>,
}

/// All series, and what each of the kernel's counts was when it was read last.
pub struct AllSeries {
    series: HashMap<SeriesKey, Series>,
    /// What was taken of each place of the kernel's map, and whose counts these were.
    read: Vec<Option<(KernelKey, Distribution)>>,
    overflow: u64,
    read_unix_ns: u64,
    start_unix_ns: u64,
}

impl AllSeries {
    /// No series yet; counting began at `start_unix_ns`.
    pub fn new(start_unix_ns: u64) -> Self {
        Self {
            series: HashMap::new(),
            read: Vec::new(),
            overflow: 0,
            read_unix_ns: start_unix_ns,
            start_unix_ns,
        }
    }

    /// Whether one of the kernel's counts is as it was taken. Most are: most containers rest.
    pub fn has(&self, place: u32, key: &KernelKey, counts: &Distribution) -> bool {
        let read = self.read.get(place as usize).and_then(Option::as_ref);
        read.is_some_and(|(known, taken)| known == key && taken == counts)
    }

    /// Takes one of the kernel's counts.
    pub fn take(&mut self, place: u32, key: &KernelKey, counts: &Distribution, owner: OwnerKey) {
        let place = place as usize;
        if place >= self.read.len() {
            self.read.resize(place + 1, None);
        }
        let before = self.read[place].replace((*key, *counts));
        let before = before.filter(|(known, _)| known == key).map_or(Distribution::EMPTY, |(_, taken)| taken);
        let grown = difference(counts, &before);
        if grown == Distribution::EMPTY {
            return;
        }
        if key.cgroup_id == OVERFLOW_CGROUP {
            self.overflow += operations(&grown);
            return;
        }
        let key = SeriesKey {
            owner,
            detail: key.detail,
            measure: key.measure,
            operation: key.operation,
            label: key.label,
            error: key.error,
        };
        // It had not counted anything when the counts were read before.
        let start_unix_ns = self.read_unix_ns;
        let series = self.series.entry(key).or_insert(Series {
            counts: Distribution::EMPTY,
            start_unix_ns,
            ended_ns: None,
        });
        add(&mut series.counts, &grown);
    }

    /// Ends a reading: the next series begin now. A clock that was put back does not put them before the agent. Forgets
    /// series of owners that nobody knows any more.
    pub fn end_reading(&mut self, now_unix_ns: u64, is_known: impl Fn(&OwnerKey) -> bool) {
        self.read_unix_ns = now_unix_ns.max(self.start_unix_ns);
        self.series.retain(|key, _| is_known(&key.owner));
    }

    /// Forgets series of processes that ended a while ago.
    pub fn forget_processes(&mut self, now_ns: u64, mut is_running: impl FnMut(u32) -> bool) {
        self.series.retain(|key, series| {
            if key.detail == 0 || key.measure != Measure::Syscall as u8 || is_running(key.detail) {
                return true;
            }
            let ended_ns = *series.ended_ns.get_or_insert(now_ns);
            now_ns.saturating_sub(ended_ns) < KEEP_ENDED_NS
        });
    }

    /// The kernel's counts that were taken, with their places.
    pub fn kernel_keys(&self) -> impl Iterator<Item = (u32, &KernelKey)> {
        (0..).zip(&self.read).filter_map(|(place, read)| Some((place, &read.as_ref()?.0)))
    }

    /// One of the kernel's counts is gone from its map.
    pub fn forget(&mut self, place: u32) {
        if let Some(read) = self.read.get_mut(place as usize) {
            *read = None;
        }
    }

    /// All series.
    pub fn iter(&self) -> impl Iterator<Item = (&SeriesKey, &Series)> {
        self.series.iter()
    }

    /// Operations that found no room in the kernel's map.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }
}

/// Operations of a distribution, those without a time included.
pub fn operations(counts: &Distribution) -> u64 {
    counts.buckets.iter().fold(counts.untimed, |sum, count| sum.wrapping_add(*count))
}

/// The measure of a series; `None` for numbers of another version of the kernel side.
pub fn measure(key: &SeriesKey) -> Option<Measure> {
    use Measure::{Block, PageFault, Reclaim, RunQueue, Syscall, TcpConnect, TcpEvent, TcpRoundTrip, Uring};
    [Syscall, Uring, Block, RunQueue, Reclaim, TcpConnect, TcpRoundTrip, TcpEvent, PageFault]
        .into_iter()
        .find(|measure| *measure as u8 == key.measure)
}

/// Adds what grew.
pub fn add(sum: &mut Distribution, grown: &Distribution) {
    sum.bytes = sum.bytes.wrapping_add(grown.bytes);
    sum.time_ns = sum.time_ns.wrapping_add(grown.time_ns);
    sum.untimed = sum.untimed.wrapping_add(grown.untimed);
    for (sum, grown) in sum.buckets.iter_mut().zip(grown.buckets) {
        *sum = sum.wrapping_add(grown);
    }
}

/// What was counted between two readings. A count that is smaller than before was freed and begun anew in between.
fn difference(now: &Distribution, before: &Distribution) -> Distribution {
    if operations(now) < operations(before) {
        return *now;
    }
    let mut grown = Distribution {
        bytes: now.bytes.saturating_sub(before.bytes),
        time_ns: now.time_ns.saturating_sub(before.time_ns),
        untimed: now.untimed.saturating_sub(before.untimed),
        buckets: now.buckets,
    };
    for (grown, before) in grown.buckets.iter_mut().zip(before.buckets) {
        *grown = grown.saturating_sub(before);
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel_key(cgroup_id: u64) -> KernelKey {
        KernelKey { cgroup_id, detail: 0, measure: Measure::Syscall as u8, operation: 1, label: 1, error: 0 }
    }

    fn counts(operations: u64) -> Distribution {
        let mut counts = Distribution::EMPTY;
        counts.buckets[3] = operations;
        counts.bytes = operations * 10;
        counts
    }

    fn owner(name: &str) -> OwnerKey {
        Some(identity::Key::Container(name.to_owned()))
    }

    /// Readings of (cgroup, operations); each inner list is one reading, a second apart. Expects operations and start
    /// (seconds) of the owner's one series.
    fn check(readings: &[&[(u64, u64)]], expected: Option<(u64, u64)>) {
        let mut all = AllSeries::new(0);
        for (second, reading) in readings.iter().enumerate() {
            let now = (second as u64 + 1) * 1_000_000_000;
            for &(cgroup_id, operations) in *reading {
                let place = cgroup_id as u32;
                all.take(place, &kernel_key(cgroup_id), &counts(operations), owner("a"));
                assert!(all.has(place, &kernel_key(cgroup_id), &counts(operations)));
                assert!(!all.has(place, &kernel_key(9), &counts(operations)), "another's place");
            }
            all.end_reading(now, |_| true);
        }
        let found = all.iter().next().map(|(_, series)| {
            assert_eq!(series.counts.bytes, operations(&series.counts) * 10);
            (operations(&series.counts), series.start_unix_ns / 1_000_000_000)
        });
        assert_eq!(found, expected, "{readings:?}");
        assert!(all.iter().count() <= 1);
    }

    #[test]
    fn cgroups_of_an_owner_add_up() {
        check(&[], None);
        check(&[&[(1, 0)]], None);
        check(&[&[(1, 5)], &[(1, 9)]], Some((9, 0)));
        check(&[&[], &[(1, 5)], &[(1, 5)]], Some((5, 1)));
        check(&[&[(1, 5), (2, 7)], &[(1, 6), (2, 7)]], Some((13, 0)));
        // One cgroup is gone, the other goes on.
        check(&[&[(1, 5), (2, 7)], &[(2, 8)]], Some((13, 0)));
        // Freed and begun anew.
        check(&[&[(1, 5)], &[(1, 2)]], Some((7, 0)));
    }

    #[test]
    fn what_found_no_room_is_counted_apart() {
        let mut all = AllSeries::new(0);
        all.take(0, &kernel_key(OVERFLOW_CGROUP), &counts(3), None);
        assert_eq!((all.overflow(), all.iter().count()), (3, 0));
    }

    #[test]
    fn series_of_what_is_gone_go() {
        let mut all = AllSeries::new(0);
        all.take(1, &kernel_key(1), &counts(3), owner("a"));
        let process = KernelKey { detail: 77, ..kernel_key(1) };
        all.take(2, &process, &counts(3), owner("a"));
        all.end_reading(2, |_| true);
        all.forget_processes(5, |_| false);
        assert_eq!(all.iter().count(), 2);
        all.forget_processes(5 + KEEP_ENDED_NS, |_| false);
        assert_eq!(all.iter().count(), 1);
        all.end_reading(3, |_| false);
        assert_eq!(all.iter().count(), 0);
    }
}
