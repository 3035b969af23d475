//! What it costs to count I/O, and to watch and tell of many containers.
//!
//! Refuses: measuring; each part has a file.

use anyhow::Result;

use super::figures::Measured;
use super::parts::{self, Part};
use super::setup::Bench;

pub use kubepods::{Kubepods, container_name, pod_name};
pub use nginx::Nginx;
pub use programs::IoPrograms;
pub use prometheus::{Format, Scraper};

mod kubepods;
mod nginx;
mod postgres;
mod programs;
mod prometheus;
mod redis;
pub mod server;

mod calls;
mod containers;
mod scrape;
mod throughput;

/// Containers of the populated node that has the targets.
pub const CONTAINERS: usize = 1_000;

/// The agent without the hooks of I/O and scheduling.
const NO_IO: &str = "io.enabled=false";

/// Every system call is watched, whatever that costs.
pub const NO_BUDGET: &str = "budget.syscalls_percent=0";

/// Without the hook of the scheduler.
const NO_SCHEDULER: &str = "io.scheduler=false";

/// Without following connections.
const NO_TRACES: &str = "trace.enabled=false";

/// Without the crash records' hook on all system calls.
const NO_STDERR: &str = "crash.stderr=false";

/// What all parts must reach, in short.
pub fn target() -> String {
    format!(
        "a call: + {} ns; ratios {}; {} containers: {} % of one CPU; {} series in {} ms",
        calls::TARGET_NS_MAX,
        throughput::target(),
        CONTAINERS,
        containers::TARGET_PERCENT_MAX,
        scrape::TARGET_SERIES,
        scrape::TARGET_MS_MAX,
    )
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let part = |title, name, target, measure| Part { title, name, target, measure };
    let parts = vec![
        part("Added cost of a read or a write", "calls", calls::target(), calls::measure),
        part("Programs that do I/O", "throughput", throughput::target(), throughput::measure),
        part("Many containers", "containers", containers::target(), containers::measure),
        part("Scrapes of many containers", "scrape", scrape::target(), scrape::measure),
    ];
    parts::measure("io", parts, bench)
}
