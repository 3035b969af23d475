//! Since when the counters of a cgroup count: its beginning, or the reading before one that went back.
//!
//! Source: OpenTelemetry metrics data model, "Resets and gaps". Refuses: a start that is later than the reading.

use super::usage::CgroupUsage;

/// Groups of counters that can begin anew apart from the others.
pub const GROUPS: usize = 4;

/// A group of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Processor time and throttling.
    Cpu,
    /// Faults, hits of limits, OOM kills.
    Memory,
    /// Block I/O.
    Io,
    /// Pressure.
    Pressure,
}

/// Since when the groups count, nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    starts: [u64; GROUPS],
}

impl Starts {
    /// All since `unix_ns`.
    pub fn since(unix_ns: u64) -> Self {
        Self { starts: [unix_ns; GROUPS] }
    }

    /// The start of a group.
    pub fn of(&self, group: Group) -> u64 {
        self.starts[group as usize]
    }

    /// Compares two readings: what went back counts since `before_unix_ns`, the time of the reading before.
    pub fn compare(&mut self, before: &CgroupUsage, now: &CgroupUsage, before_unix_ns: u64) {
        let pairs: [(Group, bool); GROUPS] = [
            (Group::Cpu, cpu_went_back(before, now)),
            (Group::Memory, memory_went_back(before, now)),
            (Group::Io, io_went_back(before, now)),
            (Group::Pressure, pressure_went_back(before, now)),
        ];
        for (group, _) in pairs.iter().filter(|(_, went_back)| *went_back) {
            self.starts[*group as usize] = before_unix_ns;
        }
    }
}

/// When a process started, nanoseconds since the epoch, by `/proc/PID/stat` and the boot's time in seconds.
pub fn process_start_unix_ns(ticks: u64, boot_unix_s: u64) -> u64 {
    let tick_ns = 1_000_000_000 / procfs::ticks_per_second().max(1);
    boot_unix_s.saturating_mul(1_000_000_000).saturating_add(ticks.saturating_mul(tick_ns))
}

fn is_less(now: Option<u64>, before: Option<u64>) -> bool {
    matches!((now, before), (Some(now), Some(before)) if now < before)
}

fn cpu_went_back(before: &CgroupUsage, now: &CgroupUsage) -> bool {
    // User and system time are estimates that may go back by themselves; their sum does not.
    is_less(now.cpu.total_ns, before.cpu.total_ns)
        || is_less(now.cpu.periods, before.cpu.periods)
        || is_less(now.cpu.throttled_ns, before.cpu.throttled_ns)
}

fn memory_went_back(before: &CgroupUsage, now: &CgroupUsage) -> bool {
    is_less(now.memory.faults, before.memory.faults)
        || is_less(now.memory.limit_hits, before.memory.limit_hits)
        || is_less(now.memory.oom_kills, before.memory.oom_kills)
}

fn io_went_back(before: &CgroupUsage, now: &CgroupUsage) -> bool {
    let (Some(before), Some(now)) = (&before.io, &now.io) else { return false };
    now.iter().any(|io| {
        let other = before.binary_search_by_key(&io.device, |before| before.device).ok();
        other.and_then(|index| before.get(index)).is_some_and(|before| {
            is_less(io.read_bytes, before.read_bytes) || is_less(io.written_bytes, before.written_bytes)
        })
    })
}

fn pressure_went_back(before: &CgroupUsage, now: &CgroupUsage) -> bool {
    is_less(now.pressure.cpu.some_us, before.pressure.cpu.some_us)
        || is_less(now.pressure.memory.some_us, before.pressure.memory.some_us)
        || is_less(now.pressure.io.some_us, before.pressure.io.some_us)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::cgroup::usage::{DeviceIo, DeviceNumber};

    fn usage(cpu: u64, faults: u64, read: u64, waited: u64) -> CgroupUsage {
        let mut usage = CgroupUsage::default();
        usage.cpu.total_ns = Some(cpu);
        usage.memory.faults = Some(faults);
        let device = DeviceNumber { major: 8, minor: 0 };
        usage.io = Some(vec![DeviceIo { device, read_bytes: Some(read), ..DeviceIo::default() }]);
        usage.pressure.io.some_us = Some(waited);
        usage
    }

    #[test]
    fn what_went_back_begins_anew() {
        let check = |now: CgroupUsage, expected: [u64; GROUPS]| {
            let mut starts = Starts::since(100);
            starts.compare(&usage(5, 5, 5, 5), &now, 200);
            assert_eq!(starts.starts, expected, "{now:?}");
        };
        check(usage(5, 6, 7, 8), [100; GROUPS]);
        check(usage(4, 6, 7, 8), [200, 100, 100, 100]);
        check(usage(5, 4, 5, 5), [100, 200, 100, 100]);
        check(usage(5, 5, 4, 5), [100, 100, 200, 100]);
        check(usage(5, 5, 5, 0), [100, 100, 100, 200]);
        check(CgroupUsage::default(), [100; GROUPS]);
    }
}
