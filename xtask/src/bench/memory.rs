//! The agent's memory on a populated node, followed over time.
//!
//! Refuses: a single reading at the end; growth must show.

use anyhow::Result;

use super::agent::{Agent, FREQUENCY_HZ};
use super::figures::Measured;
use super::interrupt::pause;
use super::numbers::{mib, seconds};
use super::procfs::{self, Memory};
use super::programs::Held;
use super::report::{fenced, table};
use super::setup::Bench;
use super::workloads::{RESIDENT_VARIANTS, RESIDENTS_BURN_CPUS};

pub const TARGET_MIB_MAX: u64 = 40;

const PROCESSES: usize = 200;

/// Readings over the measured time.
const READINGS: u32 = 10;

/// Mappings that the report names.
const MAPPINGS_MAX: usize = 8;

pub fn measure(bench: &Bench) -> Result<Measured> {
    let _load = bench.workloads.start_residents(PROCESSES)?;
    pause(bench.plan.settle)?;
    let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
    let step = bench.plan.memory / READINGS;
    let mut rows = Vec::new();
    let mut last = Memory::default();
    for reading in 1..=READINGS {
        agent.run_for(step)?;
        last = procfs::memory(agent.pid())?;
        rows.push(row(&seconds(step * reading), last));
    }
    let mappings = largest(&procfs::mappings(agent.pid())?);
    let map_kib = Held::of(agent.pid())?.map_kib();
    let stopped = agent.stop(bench)?;

    let language = if bench.workloads.has_python() { "one in ten in Python" } else { "no Python here" };
    let introduction = format!(
        "{PROCESSES} processes of {RESIDENT_VARIANTS} executables ({language}), most asleep, the others together \
         {RESIDENTS_BURN_CPUS} CPU. MiB of `/proc/PID/status`. The kernel's memory for BPF maps comes on top: {} MiB.\n",
        mib(map_kib)
    );
    let header = ["after", "resident", "peak so far", "anonymous", "file", "shared"];
    Ok(Measured {
        summary: format!("{} MiB (peak {} MiB)", mib(last.resident_kib), mib(last.resident_peak_kib)),
        is_met: Some(last.resident_kib <= TARGET_MIB_MAX * 1024),
        text: format!("{introduction}\n{}\n{mappings}\n{}", table(&header, &rows), fenced(&stopped.ledger)),
    })
}

/// What fills the memory at the end.
fn largest(mappings: &[(String, u64)]) -> String {
    let row = |(name, kib): &(String, u64)| {
        let name = if name.is_empty() { "unnamed".to_owned() } else { format!("`{name}`") };
        vec![name, mib(*kib)]
    };
    let rows: Vec<_> = mappings.iter().take(MAPPINGS_MAX).map(row).collect();
    table(&["largest mappings at the end", "resident"], &rows)
}

fn row(after: &str, memory: Memory) -> Vec<String> {
    let columns = [
        memory.resident_kib,
        memory.resident_peak_kib,
        memory.anonymous_kib,
        memory.file_kib,
        memory.shared_kib,
    ];
    std::iter::once(after.to_owned()).chain(columns.map(mib)).collect()
}
