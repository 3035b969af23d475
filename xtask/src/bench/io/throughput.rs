//! The speed of programs that do I/O: with the agent as it is, with I/O or traces alone, and with neither.
//!
//! Refuses: to end because a program is missing. The others are measured, and the verdict stays open.

use std::rc::Rc;

use anyhow::Result;

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::interrupt;
use super::super::numbers::seconds;
use super::super::report::table;
use super::super::setup::Bench;
use super::super::turns::{Ratios, Speeds};
use super::nginx::{self, Nginx};
use super::postgres::{self, Postgres, Transactions};
use super::programs::COPY_BLOCK_BYTES;
use super::{NO_BUDGET, NO_IO, NO_STDERR, NO_TRACES};

pub const TARGET_RATIO_MIN: f64 = 0.97;

/// The agents, and how the report calls them; the first has the target.
const AGENTS: [(&str, &[&str]); 5] = [
    ("defaults", &[]),
    ("every call watched", &[NO_BUDGET]),
    ("I/O alone, every call watched", &[NO_BUDGET, NO_STDERR, NO_TRACES]),
    ("traces alone", &[NO_IO, NO_STDERR]),
    ("neither", &[NO_IO, NO_STDERR, NO_TRACES]),
];

/// One run: returns a speed.
type Run = Box<dyn Fn() -> Result<f64>>;

/// A program that does I/O, and what it reached.
struct Load {
    name: &'static str,
    unit: &'static str,
    has_target: bool,
    /// Or why it cannot run, or why it ended.
    run: Result<Run>,
    /// By [`AGENTS`].
    speeds: [Speeds; AGENTS.len()],
}

pub fn target() -> String {
    format!("ratio >= {TARGET_RATIO_MIN}")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let mut loads = loads(bench);
    for round in 0..bench.plan.io_rounds {
        eprintln!("bench: round {} of {}", round + 1, bench.plan.io_rounds);
        measure_round(bench, &mut loads, round)?;
    }
    let rows = loads.iter().map(Row::of).collect::<Vec<_>>();
    let text = format!(
        "About {} per run, {} rounds: every program by turns beside no agent, twice beside an agent with one of the \
         settings, beside no agent, and so on; each agent's runs are paired with those before and after it. {FREQUENCY_HZ} \
         Hz, and a backend on the same machine. dd: 128 MiB at a time, `bs={COPY_BLOCK_BYTES}`; from /dev/zero to /dev/null \
         it does nothing but system calls, which is the worst case and has no target. nginx: one worker, a file of {} bytes, \
         `wrk` with {} connections. PostgreSQL: pgbench with {} clients at scale {}, no wait for the disk. The agent's \
         defaults have the target; they watch system calls as long as their budget allows, and for a part of the time beyond it. \
         The others leave out of `{NO_IO}`, `{NO_STDERR}` and `{NO_TRACES}` what they name, or watch every call by \
         `{NO_BUDGET}`.\n\n{}",
        seconds(bench.plan.io_run),
        bench.plan.io_rounds,
        nginx::FILE_BYTES,
        nginx::CONNECTIONS,
        postgres::CLIENTS,
        postgres::SCALE,
        table_of(&rows),
    );
    Ok(Measured { summary: summary(&rows), is_met: verdict(&rows), text })
}

/// The programs; servers run until all is measured.
fn loads(bench: &Bench) -> [Load; 5] {
    let duration = bench.plan.io_run;
    let load = |name, unit, has_target, run| Load { name, unit, has_target, run, speeds: Default::default() };
    let file = bench.io_programs.copy_of_file().map(|copy| -> Run { Box::new(move || copy.run(duration)) });
    let nothing = bench.io_programs.copy_of_nothing();
    let nginx = Nginx::start(bench).map(|nginx| -> Run { Box::new(move || nginx.run(duration)) });
    // One server for both; the error, which cannot be shared, is told twice.
    let postgres = Postgres::start(bench).map(Rc::new).map_err(|error| format!("{error:#}"));
    let pgbench = |transactions: Transactions| match &postgres {
        Ok(postgres) => {
            let postgres = Rc::clone(postgres);
            Ok(Box::new(move || postgres.run(transactions, duration)) as Run)
        }
        Err(error) => Err(anyhow::anyhow!("{error}")),
    };
    [
        load("dd, file to file", "blocks", true, file),
        load("nginx", "requests", true, nginx),
        load("pgbench -S", "transactions", true, pgbench(Transactions::ReadOnly)),
        load("pgbench", "transactions", true, pgbench(Transactions::Mixture)),
        load("dd, nothing to nothing", "blocks", false, Ok(Box::new(move || nothing.run(duration)))),
    ]
}

/// Every agent once, with no agent before, between and after.
fn measure_round(bench: &Bench, loads: &mut [Load], round: usize) -> Result<()> {
    let mut before = visit(loads)?;
    for turn in 0..AGENTS.len() {
        // Another agent begins each round.
        let agent_index = (round + turn) % AGENTS.len();
        let mut agent = Agent::start_with(bench, FREQUENCY_HZ, AGENTS[agent_index].1)?;
        agent.run_for(bench.plan.settle)?;
        let with = [visit(loads)?, visit(loads)?];
        agent.stop(bench)?;
        let after = visit(loads)?;
        for (index, load) in loads.iter_mut().enumerate() {
            let speeds = [before[index], with[0][index], with[1][index], after[index]];
            if let [Some(before), Some(first), Some(second), Some(after)] = speeds {
                load.speeds[agent_index].add_round([before, after], [first, second]);
            }
        }
        before = after;
    }
    Ok(())
}

/// One run of each program; `None` for those that cannot. One that fails does not run again.
fn visit(loads: &mut [Load]) -> Result<Vec<Option<f64>>> {
    let mut speeds = Vec::new();
    for load in loads {
        let speed = load.run.as_ref().ok().map(|run| run());
        interrupt::check()?;
        speeds.push(match speed {
            Some(Err(error)) => {
                load.run = Err(error);
                None
            }
            speed => speed.and_then(Result::ok),
        });
    }
    Ok(speeds)
}

/// A program's line of the report.
struct Row<'a> {
    load: &'a Load,
    /// By [`AGENTS`]; or why there are none.
    ratios: Result<Vec<Ratios>, String>,
}

impl<'a> Row<'a> {
    fn of(load: &'a Load) -> Self {
        let ratios = match &load.run {
            Ok(_) => load.speeds.iter().map(Speeds::ratios).collect::<Result<_>>(),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        Self { load, ratios: ratios.map_err(|error| format!("{error:#}")) }
    }

    /// The ratio that has the target.
    fn ratio(&self) -> Option<f64> {
        Some(self.ratios.as_ref().ok()?.first()?.of_medians)
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.load.name.to_owned()];
        match &self.ratios {
            Ok(ratios) => {
                let ratio = |ratios: &Ratios| format!("{:.3}; {}", ratios.of_medians, ratios.by_pair.text(3));
                cells.extend(ratios.iter().map(ratio));
                if let Some(first) = ratios.first() {
                    cells.push(first.noise.text(3));
                    cells.push(format!("{} {}", first.without.text(0), self.load.unit));
                }
            }
            Err(error) => cells.push(format!("not measured: {error}")),
        }
        // A table of Markdown has as many cells in each row.
        cells.resize(AGENTS.len() + 3, String::new());
        cells
    }
}

fn table_of(rows: &[Row]) -> String {
    let agents = AGENTS.map(|(name, _)| format!("{name}: ratio of medians; by pair"));
    let header: Vec<&str> = std::iter::once("program")
        .chain(agents.iter().map(String::as_str))
        .chain(["noise: without against without", "per second without"])
        .collect();
    table(&header, &rows.iter().map(Row::cells).collect::<Vec<_>>())
}

fn summary(rows: &[Row]) -> String {
    let part = |row: &Row| {
        let ratio = row.ratio().map_or("not measured".to_owned(), |ratio| format!("{ratio:.3}"));
        format!("{} {ratio}{}", row.load.name, if row.load.has_target { "" } else { " (no target)" })
    };
    format!("ratios: {}", rows.iter().map(part).collect::<Vec<_>>().join(", "))
}

/// One program below the target is a miss; one that was not measured leaves it open.
fn verdict(rows: &[Row]) -> Option<bool> {
    let ratios = || rows.iter().filter(|row| row.load.has_target).map(Row::ratio);
    if ratios().flatten().any(|ratio| ratio < TARGET_RATIO_MIN) {
        return Some(false);
    }
    ratios().all(|ratio| ratio.is_some()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(with: Option<f64>, has_target: bool) -> Load {
        let mut load = Load {
            name: "x",
            unit: "blocks",
            has_target,
            run: with.map(|_| -> Run { Box::new(|| Ok(1.0)) }).ok_or_else(|| anyhow::anyhow!("no x")),
            speeds: Default::default(),
        };
        for speeds in &mut load.speeds {
            speeds.add_round([100.0, 100.0], [with.unwrap_or_default(); 2]);
        }
        load
    }

    fn check(loads: &[Load], expected: Option<bool>, expected_summary: &str) {
        let rows: Vec<Row> = loads.iter().map(Row::of).collect();
        assert_eq!((verdict(&rows), summary(&rows).as_str()), (expected, expected_summary));
        assert!(rows.iter().all(|row| row.cells().len() == AGENTS.len() + 3));
    }

    #[test]
    fn every_program_with_a_target_must_reach_it() {
        let worst = || load(Some(50.0), false);
        check(&[load(Some(98.0), true), worst()], Some(true), "ratios: x 0.980, x 0.500 (no target)");
        check(&[load(Some(98.0), true), load(Some(90.0), true)], Some(false), "ratios: x 0.980, x 0.900");
        check(&[load(None, true), load(Some(98.0), true)], None, "ratios: x not measured, x 0.980");
    }

    #[test]
    fn a_program_that_fails_runs_no_more() {
        let mut loads = [load(Some(98.0), true), load(Some(98.0), true)];
        loads[1].run = Ok(Box::new(|| anyhow::bail!("it broke")));
        assert_eq!(visit(&mut loads).expect("no interrupt"), [Some(1.0), None]);
        let row = Row::of(&loads[1]);
        assert_eq!(row.cells()[1], "not measured: it broke");
    }
}
