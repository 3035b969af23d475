//! The time of each CPU by mode, and how many CPUs there are.
//!
//! Refuses: frequencies and temperatures. Times of a CPU that go back a little (idle and iowait do: proc(5)) stay where
//! they were; a bigger fall is a CPU that was plugged in anew.

use std::collections::HashSet;

use anyhow::{Result, ensure};

use super::Reading;
use super::family::{node, point};
use super::root::Root;
use super::stat::{MODES, Stat};
use crate::telemetry::{Metric, MetricKind, Text};

/// The most CPUs with series of their own; those beyond are cut.
const CPUS_MAX: usize = 1024;
/// Falls of a time of a CPU that are not a restart, seconds; what node_exporter calls `jumpBackSeconds`.
const FALL_MAX_S: u64 = 3;

/// node_exporter's names of the modes.
const NODE_MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
/// The conventions' names of the same (`cpu.mode`); both kinds of interrupts are one.
const MODES_AND_FIELDS: [(&str, &[usize]); 7] = [
    ("user", &[0]),
    ("nice", &[1]),
    ("system", &[2]),
    ("idle", &[3]),
    ("iowait", &[4]),
    ("interrupt", &[5, 6]),
    ("steal", &[7]),
];
/// Times in guests, which are part of user and nice too.
const GUEST_MODES: [(&str, usize); 2] = [("user", 8), ("nice", 9)];

/// How many cores the host has, counted anew only when CPUs come or go: it takes two files of each.
#[derive(Default)]
pub(super) struct Cores {
    cpus: usize,
    cores: Option<usize>,
}

/// The series of all CPUs.
pub(super) fn metrics(stat: &Stat, cores: &mut Cores, reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    ensure!(!stat.cpus.is_empty(), "no CPUs");
    let ticks_per_s = procfs::ticks_per_second().max(1);
    let mut by_node =
        node(MetricKind::Counter, "node_cpu_seconds_total", "s", "Seconds the CPUs spent in each mode.");
    let mut guest = node(
        MetricKind::Counter,
        "node_cpu_guest_seconds_total",
        "s",
        "Seconds the CPUs spent in guests (VMs) for each mode.",
    );
    let mut time = Metric::new(
        MetricKind::Counter,
        "system.cpu.time",
        "s",
        "Seconds each logical CPU spent on each mode.",
    );
    *reading.cut += stat.cpus.len().saturating_sub(CPUS_MAX) as u64;
    for (number, times) in stat.cpus.iter().take(CPUS_MAX) {
        let number = number.to_string();
        let mut ticks = *times;
        let start = reading.starts.of("cpu", &number, &mut ticks, FALL_MAX_S * ticks_per_s);
        let seconds: [f64; MODES] = ticks.map(|ticks| ticks as f64 / ticks_per_s as f64);
        let labels = |mode: &'static str| [("cpu", Text::from(number.clone())), ("mode", Text::from(mode))];
        for (mode, seconds) in NODE_MODES.iter().zip(seconds) {
            by_node.add(point(start, labels(mode), seconds));
        }
        for (mode, field) in GUEST_MODES {
            guest.add(point(start, labels(mode), seconds[field]));
        }
        for (mode, fields) in MODES_AND_FIELDS {
            let attributes =
                [("cpu.logical_number", Text::from(number.clone())), ("cpu.mode", Text::from(mode))];
            time.add(point(start, attributes, fields.iter().map(|field| seconds[*field]).sum()));
        }
    }
    let mut metrics = vec![by_node, guest, time];
    metrics.extend(counts(stat, cores, reading));
    Ok(metrics)
}

fn counts(stat: &Stat, cores: &mut Cores, reading: &Reading<'_>) -> Vec<Metric> {
    if cores.cpus != stat.cpus.len() {
        *cores = Cores { cpus: stat.cpus.len(), cores: count_cores(stat, reading.root) };
    }
    let start = reading.starts.boot();
    let count = |name: &'static str, description: &'static str, count: usize| {
        Metric::new(MetricKind::UpDownCounter, name, "{cpu}", description).with(vec![point(
            start,
            [],
            count as f64,
        )])
    };
    let mut metrics = vec![count("system.cpu.logical.count", "Logical CPUs that are online.", cores.cpus)];
    metrics.extend(cores.cores.map(|cores| count("system.cpu.physical.count", "Processor cores.", cores)));
    metrics
}

/// Different cores of different packages; none if the host does not tell (`Documentation/admin-guide/cputopology.rst`).
fn count_cores(stat: &Stat, root: &Root) -> Option<usize> {
    let core = |number: u32| {
        let id = |file| root.number(format!("sys/devices/system/cpu/cpu{number}/topology/{file}"));
        Some((id("physical_package_id")?, id("core_id")?))
    };
    let cores: Option<HashSet<_>> =
        stat.cpus.iter().take(CPUS_MAX).map(|(number, _)| core(*number)).collect();
    cores.map(|cores| cores.len())
}
