//! What the agent cost between two moments: its processor time, its programs' kernel time, thread by thread.
//!
//! Refuses: instantaneous values; everything is a difference over the measured time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::procfs::{self, CpuTicks, ThreadTime};
use super::programs::Held;

/// A first reading.
pub struct Meter {
    pid: u32,
    at: Instant,
    ticks: CpuTicks,
    threads: BTreeMap<u32, ThreadTime>,
    held: Held,
}

/// Shares of one CPU, in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    pub user_percent: f64,
    pub system_percent: f64,
    /// Kernel time of the agent's BPF programs, whomever they interrupted. 0 while the statistics are off.
    pub programs_percent: f64,
    /// By the name of the thread, the largest first.
    pub threads_percent: Vec<(String, f64)>,
}

impl Cost {
    pub fn total_percent(&self) -> f64 {
        self.user_percent + self.system_percent + self.programs_percent
    }
}

impl Meter {
    pub fn start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            at: Instant::now(),
            ticks: procfs::cpu_ticks(pid)?,
            threads: procfs::threads(pid)?,
            held: Held::of(pid)?,
        })
    }

    pub fn finish(self) -> Result<Cost> {
        let now = Self::start(self.pid)?;
        let elapsed = now.at - self.at;
        let ticks_percent = |before: u64, after: u64| {
            let seconds =
                after.saturating_sub(before) as f64 / rustix::param::clock_ticks_per_second() as f64;
            100.0 * seconds / elapsed.as_secs_f64()
        };
        Ok(Cost {
            user_percent: ticks_percent(self.ticks.user, now.ticks.user),
            system_percent: ticks_percent(self.ticks.system, now.ticks.system),
            programs_percent: ns_percent(now.held.run_time_ns_since(&self.held), elapsed),
            threads_percent: threads_percent(&self.threads, &now.threads, elapsed),
        })
    }
}

fn ns_percent(ns: u64, elapsed: Duration) -> f64 {
    100.0 * ns as f64 / elapsed.as_nanos() as f64
}

/// Threads of the same name are one line.
fn threads_percent(
    before: &BTreeMap<u32, ThreadTime>,
    after: &BTreeMap<u32, ThreadTime>,
    elapsed: Duration,
) -> Vec<(String, f64)> {
    let mut by_name = BTreeMap::<&str, u64>::new();
    for (id, thread) in after {
        let earlier_ns = before.get(id).map_or(0, |thread| thread.on_cpu_ns);
        *by_name.entry(&thread.name).or_default() += thread.on_cpu_ns.saturating_sub(earlier_ns);
    }
    let mut shares: Vec<(String, f64)> =
        by_name.into_iter().map(|(name, ns)| (name.to_owned(), ns_percent(ns, elapsed))).collect();
    shares.sort_by(|left, right| right.1.total_cmp(&left.1));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_joined_by_name_and_sorted_by_cost() {
        let thread = |name: &str, on_cpu_ns| ThreadTime { name: name.to_owned(), on_cpu_ns };
        let before = BTreeMap::from([(1, thread("main", 500)), (2, thread("worker", 100))]);
        let after = BTreeMap::from([
            (1, thread("main", 600)),
            (2, thread("worker", 300)),
            (3, thread("worker", 100)),
        ]);
        let shares = threads_percent(&before, &after, Duration::from_nanos(1_000));
        assert_eq!(shares, [("worker".to_owned(), 30.0), ("main".to_owned(), 10.0)]);
    }
}
