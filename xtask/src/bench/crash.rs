//! What the records of crashes cost those who do not crash, and how soon and how completely deaths are told.
//!
//! Refuses: measuring; each part has a file.

use anyhow::Result;

use super::figures::Measured;
use super::parts::{self, NO_TARGET, Part};
use super::setup::Bench;

pub use programs::CrashPrograms;

mod programs;
mod records;

mod calls;
mod delay;
mod kernel_time;
mod signals;
mod spawns;
mod storm;

/// What all parts must reach, in short.
pub fn target() -> String {
    format!(
        "ratios >= {} and {}; record in {} ms; storm in {} MiB",
        spawns::TARGET_RATIO_MIN,
        signals::TARGET_RATIO_MIN,
        delay::TARGET_MS_MAX,
        storm::TARGET_MIB_MAX
    )
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let none = || NO_TARGET.to_owned();
    let part = |title, name, target, measure| Part { title, name, target, measure };
    let parts = vec![
        part("Programs that start and end", "spawns", spawns::target(), spawns::measure),
        part("Handled signals", "signals", signals::target(), signals::measure),
        part("From death to record", "record", delay::target(), delay::measure),
        part("A storm of deaths", "storm", storm::target(), storm::measure),
        part("Kernel time of the crash programs", "kernel time", none(), kernel_time::measure),
        part("What a ring of the last system calls would cost", "calls", none(), calls::measure),
    ];
    parts::measure("crash", parts, bench)
}
