//! The clocks: what the kernel side stamps records with, and what telemetry is told in.
//!
//! Refuses: being asked from a signal; there time is an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, nanoseconds, as the kernel side reads it.
pub fn monotonic_ns() -> u64 {
    kernel_ns(ClockId::Monotonic)
}

/// `CLOCK_BOOTTIME`, nanoseconds, as the kernel keeps starts of processes.
pub fn boottime_ns() -> u64 {
    kernel_ns(ClockId::Boottime)
}

/// Nanoseconds since the epoch.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn kernel_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
