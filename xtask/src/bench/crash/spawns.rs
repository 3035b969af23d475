//! How many programs a second start and end, with and without the crash probes of the agent, and of the whole agent.
//!
//! Refuses: programs that do something. Nothing but start and end is the worst case for what hooks both.

use anyhow::Result;

use super::super::agent::FREQUENCY_HZ;
use super::super::figures::Measured;
use super::super::machine::cpus;
use super::super::numbers::seconds;
use super::super::setup::Bench;
use super::super::turns::Speeds;
use super::programs::CrashPrograms;

pub const TARGET_RATIO_MIN: f64 = 0.99;

/// The agent without anything of crashes: what the probes are measured against.
pub const NO_CRASHES: &str = "crash.enabled=false";

/// Without the hook on all system calls.
pub const NO_STDERR: &str = "crash.stderr=false";

pub fn target() -> String {
    format!("ratio >= {TARGET_RATIO_MIN}")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let programs: &CrashPrograms = &bench.crash_programs;
    let count = programs.spawns_of(bench.plan.crash_run)?;
    let measure = |settings: &[&str], baseline: Option<&[&str]>, cpus: usize| {
        Speeds::measure(bench, bench.plan.crash_rounds, settings, baseline, || programs.spawn(count, cpus))
    };
    let default = measure(&[], Some(&[NO_CRASHES]), 1)?;
    let no_stderr = measure(&[NO_STDERR], Some(&[NO_CRASHES]), 1)?;
    let whole = measure(&[], None, cpus())?;
    let text = format!(
        "A loop of vfork, execve and wait starts a static program that ends at once: about {} per run, {} pairs in the \
         order without, with, with, without. An agent with the crash probes against one with `{NO_CRASHES}`, one loop on \
         one CPU, so that the agent's threads have another; this has the target:\n\n{}\nThe same with \
         `{NO_STDERR}`:\n\n{}\nThe whole agent against none, at {FREQUENCY_HZ} Hz with a backend on the same machine and \
         loops on every CPU, whose programs the agent's threads compete with and learn of:\n\n{}",
        seconds(bench.plan.crash_run),
        default.by_pair.runs,
        default.table("spawns"),
        no_stderr.table("spawns"),
        whole.table("spawns"),
    );
    Ok(Measured {
        summary: format!(
            "crash probes: ratio {:.4} (without the standard-error hook {:.4}); the whole agent: {:.4}",
            default.of_medians, no_stderr.of_medians, whole.of_medians
        ),
        is_met: Some(default.of_medians >= TARGET_RATIO_MIN),
        text,
    })
}
