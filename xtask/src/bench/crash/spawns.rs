//! How many programs a second start and end, with and without the agent.
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

/// Without the hook on all system calls.
pub const NO_STDERR: &str = "crash.stderr=false";

pub fn target() -> String {
    format!("ratio >= {TARGET_RATIO_MIN}")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let programs: &CrashPrograms = &bench.crash_programs;
    let count = programs.spawns_of(bench.plan.crash_run)?;
    let measure = |settings: &[&str], cpus: usize| {
        Speeds::measure(bench, bench.plan.crash_rounds, settings, || programs.spawn(count, cpus))
    };
    let default = measure(&[], cpus())?;
    let no_stderr = measure(&[NO_STDERR], cpus())?;
    let one_cpu = measure(&[], 1)?;
    let text = format!(
        "On every CPU at once a loop of vfork, execve and wait starts a static program that ends at once: about {} per \
         run, {} pairs in the order without, with, with, without. The whole agent is measured, at {FREQUENCY_HZ} Hz and \
         with a backend on the same machine: it also learns what each program is.\n\n\
         The agent as it is by default; this has the target:\n\n{}\nWith `{NO_STDERR}`:\n\n{}\n\
         By default, but one loop on one CPU, so that the agent's threads have another:\n\n{}",
        seconds(bench.plan.crash_run),
        default.by_pair.runs,
        default.table("spawns"),
        no_stderr.table("spawns"),
        one_cpu.table("spawns"),
    );
    Ok(Measured {
        summary: format!(
            "ratio {:.4} (without the standard-error hook {:.4}; on one CPU {:.4})",
            default.of_medians, no_stderr.of_medians, one_cpu.of_medians
        ),
        is_met: Some(default.of_medians >= TARGET_RATIO_MIN),
        text,
    })
}
