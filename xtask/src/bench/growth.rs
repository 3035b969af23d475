//! What the agent costs as the node grows: by processes, and by frequency.
//!
//! Refuses: a target. The tables show the slope.

use std::process::Command;

use anyhow::{Context, Result};

use super::agent::{Agent, FREQUENCY_HZ};
use super::children::Guarded;
use super::figures::Measured;
use super::interrupt::pause;
use super::meter::{Cost, Meter};
use super::numbers::{mib, seconds};
use super::procfs::{self, Memory};
use super::programs::{Held, Statistics};
use super::report::table;
use super::setup::Bench;
use super::workloads::RESIDENTS_BURN_CPUS;

const PROCESSES: [usize; 3] = [10, 100, 1_000];

const FREQUENCIES_HZ: [u32; 3] = [19, FREQUENCY_HZ, 997];

pub fn measure(bench: &Bench) -> Result<Measured> {
    let _statistics = Statistics::switch_on()?;
    let mut by_processes = Vec::new();
    for count in PROCESSES {
        eprintln!("bench: {count} processes");
        let load = bench.workloads.start_residents(count)?;
        by_processes.push((count.to_string(), Point::measure(bench, load, FREQUENCY_HZ)?));
    }
    let mut by_frequency = Vec::new();
    for frequency_hz in FREQUENCIES_HZ {
        eprintln!("bench: {frequency_hz} Hz");
        let load = bench.workloads.start_deep_spin()?;
        by_frequency.push((frequency_hz.to_string(), Point::measure(bench, load, frequency_hz)?));
    }
    let text = format!(
        "Each row is an agent of its own, measured for {} after {}; processor time in % of one CPU, memory in MiB.\n\n\
         By processes, at {FREQUENCY_HZ} Hz; most sleep, the others burn {RESIDENTS_BURN_CPUS} CPU together at any number:\n\n\
         {}\nBy frequency, all CPUs spin:\n\n{}",
        seconds(bench.plan.growth),
        seconds(bench.plan.growth_warm_up),
        points("processes", &by_processes),
        points("Hz", &by_frequency),
    ) + &rings(bench)?;
    let summary = format!("{}; {}", slope("processes", &by_processes), slope("Hz", &by_frequency));
    Ok(Measured { summary, is_met: None, text })
}

/// The sizes of the rings, as the agent computes them.
fn rings(bench: &Bench) -> Result<String> {
    let output =
        Command::new(&bench.agent).args(["doctor", "--json"]).output().context("cannot start the agent")?;
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("doctor --json is not JSON")?;
    let cell = |ring: &serde_json::Value, key: &str| {
        ring[key].as_u64().map_or("?".to_owned(), |bytes| (bytes / 1024).to_string())
    };
    let row = |ring: &serde_json::Value| {
        let cpus = ring["cpus"].to_string();
        vec![cpus, cell(ring, "sample_bytes"), cell(ring, "process_bytes"), cell(ring, "sideband_bytes")]
    };
    let rows: Vec<_> = report["rings"].as_array().into_iter().flatten().map(row).collect();
    let header = ["CPUs", "sample ring KiB", "process ring KiB", "side-band rings KiB"];
    Ok(format!(
        "\nKernel memory of the rings at {FREQUENCY_HZ} Hz, computed by the agent:\n\n{}",
        table(&header, &rows)
    ))
}

/// What one agent cost.
struct Point {
    cost: Cost,
    memory: Memory,
    map_kib: u64,
}

impl Point {
    /// Under a load that ends with the measurement.
    fn measure(bench: &Bench, load: Vec<Guarded>, frequency_hz: u32) -> Result<Self> {
        pause(bench.plan.settle)?;
        let mut agent = Agent::start(bench, frequency_hz)?;
        agent.run_for(bench.plan.growth_warm_up)?;
        let meter = Meter::start(agent.pid())?;
        agent.run_for(bench.plan.growth)?;
        let cost = meter.finish()?;
        let memory = procfs::memory(agent.pid())?;
        let map_kib = Held::of(agent.pid())?.map_kib();
        agent.stop(bench)?;
        drop(load);
        Ok(Self { cost, memory, map_kib })
    }
}

fn points(by: &str, points: &[(String, Point)]) -> String {
    let row = |(name, point): &(String, Point)| {
        let Cost { user_percent, system_percent, programs_percent, .. } = &point.cost;
        vec![
            name.clone(),
            format!("{:.2}", point.cost.total_percent()),
            format!("{user_percent:.2}"),
            format!("{system_percent:.2}"),
            format!("{programs_percent:.2}"),
            mib(point.memory.resident_kib),
            mib(point.memory.anonymous_kib),
            mib(point.map_kib),
        ]
    };
    let header = [by, "CPU", "user", "system", "BPF programs", "resident", "anonymous", "BPF maps (kernel)"];
    table(&header, &points.iter().map(row).collect::<Vec<_>>())
}

/// The first and the last point in a few words.
fn slope(by: &str, points: &[(String, Point)]) -> String {
    let (Some((first, least)), Some((last, most))) = (points.first(), points.last()) else {
        return String::new();
    };
    format!(
        "{first} to {last} {by}: {:.2} to {:.2} % CPU, {} to {} MiB",
        least.cost.total_percent(),
        most.cost.total_percent(),
        mib(least.memory.resident_kib),
        mib(most.memory.resident_kib),
    )
}
