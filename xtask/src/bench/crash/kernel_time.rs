//! Kernel time per run of the programs behind crash records, under the loads that run them.
//!
//! Refuses: a mean over loads. What a program does depends on who runs it.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::machine::cpus;
use super::super::programs::{Held, ProgramRuns, Statistics};
use super::super::report::table;
use super::super::setup::Bench;
use super::programs::Call;
use super::signals;

/// The agent's names of its programs, and the tracepoints that they hook.
const PROGRAMS: [(&str, &str); 4] = [
    ("crash_sender", "signal_generate"),
    ("crash_signal", "signal_deliver"),
    ("crash_stderr", "sys_exit"),
    ("process_exit", "sched_process_exit"),
];

const DEATHS: u64 = 100;

const DEATHS_PERIOD: Duration = Duration::from_millis(20);

/// A program that ran more rarely has no figure: these runs were somebody else's.
const RUNS_MIN: u64 = 50;

/// What ran meanwhile.
struct Load {
    name: &'static str,
    runs: [Option<ProgramRuns>; PROGRAMS.len()],
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let programs = &bench.crash_programs;
    let (run, period) = (bench.plan.crash_run, signals::PERIOD);
    let rounds = programs.interrupted_rounds_of(run, period)?;
    let spawns = programs.spawns_of(run)?;
    let calls = programs.calls_of(Call::Getppid, run)?;
    let writes = programs.calls_of(Call::Stderr, run)?;

    let _statistics = Statistics::switch_on()?;
    let mut agent = Agent::start(bench, FREQUENCY_HZ)?;
    agent.run_for(bench.plan.settle)?;
    let pid = agent.pid();
    let mut by_spawn = Vec::new();
    let loads = [
        load(pid, "deaths by SIGSEGV", || programs.crash(DEATHS, DEATHS_PERIOD, 1).map(drop))?,
        load(pid, "handled signals", || programs.work_interrupted(rounds, period).map(drop))?,
        load(pid, "starts and ends of programs", || {
            let before = Held::of(pid)?;
            programs.spawn(spawns, cpus())?;
            by_spawn = per_spawn(&before, &Held::of(pid)?, spawns * cpus() as u64);
            Ok(())
        })?,
        load(pid, "getppid", || programs.call(Call::Getppid, calls).map(drop))?,
        load(pid, "writes of 86 bytes to standard error", || programs.call(Call::Stderr, writes).map(drop))?,
    ];
    agent.stop(bench)?;

    let header: Vec<&str> =
        std::iter::once("while there were").chain(PROGRAMS.iter().map(|(name, _)| *name)).collect();
    let rows: Vec<_> = loads.iter().map(Load::row).collect();
    let text = format!(
        "Nanoseconds per run (runs) of the agent's programs by the kernel's BPF statistics, which cost some \
         themselves.\n\n{}\nWhat one start and end of a program pays, all programs of the agent:\n\n{}",
        table(&header, &rows),
        table(&["tracepoint", "runs", "ns per run", "ns together"], &by_spawn),
    );
    Ok(Measured { summary: summary(&loads)?, is_met: None, text })
}

/// What the programs did while `run` ran.
fn load(pid: u32, name: &'static str, run: impl FnOnce() -> Result<()>) -> Result<Load> {
    let before = Held::of(pid)?;
    run()?;
    let after = Held::of(pid)?;
    let runs = PROGRAMS.map(|(_, tracepoint)| {
        let since = after.at_tracepoint(tracepoint)?.since(before.at_tracepoint(tracepoint)?);
        (since.runs >= RUNS_MIN).then_some(since)
    });
    Ok(Load { name, runs })
}

/// Tracepoint by tracepoint, the dearest first, and all of them, the sampler included.
fn per_spawn(before: &Held, after: &Held, spawns: u64) -> Vec<Vec<String>> {
    let per_spawn = |value: u64| value as f64 / spawns as f64;
    let since = |(name, runs): (&str, ProgramRuns)| {
        (name.to_owned(), runs.since(before.at_tracepoint(name).unwrap_or_default()))
    };
    let mut programs: Vec<(String, ProgramRuns)> = after.tracepoints().map(since).collect();
    programs.retain(|(_, runs)| runs.runs >= RUNS_MIN);
    programs.sort_by_key(|(_, runs)| std::cmp::Reverse(runs.run_time_ns));
    let row = |(name, runs): (String, ProgramRuns)| {
        vec![
            format!("`{name}`"),
            format!("{:.2}", per_spawn(runs.runs)),
            format!("{:.0}", runs.run_time_ns as f64 / runs.runs as f64),
            format!("{:.0}", per_spawn(runs.run_time_ns)),
        ]
    };
    let all_ns = per_spawn(after.run_time_ns_since(before));
    let all =
        vec!["all, the sampler included".to_owned(), String::new(), String::new(), format!("{all_ns:.0}")];
    programs.into_iter().map(row).chain([all]).collect()
}

impl Load {
    fn row(&self) -> Vec<String> {
        let cell = |runs: &Option<ProgramRuns>| {
            let ns = runs.and_then(|runs| Some((runs.ns_per_run().ok()?, runs.runs)));
            ns.map_or("-".to_owned(), |(ns, runs)| format!("{ns:.0} ({runs})"))
        };
        std::iter::once(self.name.to_owned()).chain(self.runs.iter().map(cell)).collect()
    }
}

/// Every program under the load that is its own.
fn summary(loads: &[Load; 5]) -> Result<String> {
    let [deaths, handled, spawns, calls, _] = loads;
    let own = [handled, deaths, calls, spawns];
    let mut parts = Vec::new();
    for (index, ((name, _), load)) in PROGRAMS.iter().zip(own).enumerate() {
        let runs = load.runs[index].with_context(|| format!("{name} did not run with {}", load.name))?;
        parts.push(format!("{name} {:.0}", runs.ns_per_run()?));
    }
    Ok(format!("ns per run: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_of(name: &'static str, runs: u64) -> Load {
        Load { name, runs: [Some(ProgramRuns { kind: 26, run_time_ns: 100 * runs, runs }); 4] }
    }

    #[test]
    fn programs_that_did_not_run_have_no_figure() {
        let mut load = load_of("x", 2);
        load.runs[1] = None;
        assert_eq!(load.row(), ["x", "100 (2)", "-", "100 (2)", "100 (2)"]);
    }

    #[test]
    fn a_summary_needs_every_program_under_its_own_load() {
        let mut loads = ["a", "b", "c", "d", "e"].map(|name| load_of(name, 1));
        let text = summary(&loads).expect("all ran");
        assert_eq!(
            text,
            "ns per run: crash_sender 100, crash_signal 100, crash_stderr 100, process_exit 100"
        );
        loads[0].runs[1] = None;
        let error = summary(&loads).expect_err("crash_signal did not run").to_string();
        assert_eq!(error, "crash_signal did not run with a");
    }
}
