//! The speed of programs that do I/O: with the agent as it is, with metrics or traces alone, and with neither.
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
use super::redis::{self, Redis};
use super::{NO_BUDGET, NO_IO, NO_STDERR, NO_TRACES};

/// The agents, and how the report calls them.
const AGENTS: [(&str, &[&str]); 5] = [
    ("defaults", &[]),
    ("without traces", &[NO_TRACES]),
    ("traces alone", &[NO_IO, NO_STDERR]),
    ("neither", &[NO_IO, NO_STDERR, NO_TRACES]),
    ("every call watched", &[NO_BUDGET]),
];

/// Places in [`AGENTS`].
const DEFAULTS: usize = 0;
const WITHOUT_TRACES: usize = 1;

/// The least ratio beside an agent.
type Target = (usize, f64);

/// The target of metrics, which traces are no part of.
const METRICS: Target = (WITHOUT_TRACES, 0.97);

/// One run: returns a speed.
type Run = Box<dyn Fn() -> Result<f64>>;

/// A program that does I/O, and what it reached.
struct Load {
    name: &'static str,
    unit: &'static str,
    targets: Vec<Target>,
    /// Or why it cannot run, or why it ended.
    run: Result<Run>,
    /// By [`AGENTS`].
    speeds: [Speeds; AGENTS.len()],
}

pub fn target() -> String {
    let metrics = METRICS.1;
    format!("{} >= {metrics}; {} >= 0.85 to {metrics}", AGENTS[WITHOUT_TRACES].0, AGENTS[DEFAULTS].0)
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
         settings, beside no agent, and so on; each agent's runs are paired with those before and after it; it has met each program \
         once before. {FREQUENCY_HZ} Hz, and a backend on the same machine. dd: 128 MiB at a time, `bs={COPY_BLOCK_BYTES}`; from /dev/zero to /dev/null \
         it does nothing but system calls, which is the worst case and has no target. nginx: one worker, a file of {} bytes, \
         `wrk` with {} connections. PostgreSQL: pgbench with {} clients at scale {}, no wait for the disk. Redis: GET by \
         redis-benchmark with {} connections, one request at a time on each. The agent's defaults watch system calls and \
         exchanges as long as their budgets allow, and a part beyond it. The others leave out of `{NO_IO}`, `{NO_STDERR}` and \
         `{NO_TRACES}` what they name, or watch every call by `{NO_BUDGET}`. In bold what has a target.\n\n{}",
        seconds(bench.plan.io_run),
        bench.plan.io_rounds,
        nginx::FILE_BYTES,
        nginx::CONNECTIONS,
        postgres::CLIENTS,
        postgres::SCALE,
        redis::CONNECTIONS,
        table_of(&rows),
    );
    Ok(Measured { summary: summary(&rows), is_met: verdict(&rows), text })
}

/// The programs; servers run until all is measured.
fn loads(bench: &Bench) -> [Load; 6] {
    let duration = bench.plan.io_run;
    let load = |name, unit, targets: &[Target], run| Load {
        name,
        unit,
        targets: targets.to_vec(),
        run,
        speeds: Default::default(),
    };
    let file = bench.io_programs.copy_of_file().map(|copy| -> Run { Box::new(move || copy.run(duration)) });
    let nothing = bench.io_programs.copy_of_nothing();
    let nginx = Nginx::start(bench).map(|nginx| -> Run { Box::new(move || nginx.run(duration)) });
    let redis = Redis::start(bench).map(|redis| -> Run { Box::new(move || redis.run(duration)) });
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
        load("dd, file to file", "blocks", &[METRICS, (DEFAULTS, 0.97)], file),
        load("nginx", "requests", &[METRICS, (DEFAULTS, 0.93)], nginx),
        load("pgbench -S", "transactions", &[METRICS, (DEFAULTS, 0.95)], pgbench(Transactions::ReadOnly)),
        load("pgbench", "transactions", &[METRICS], pgbench(Transactions::Mixture)),
        load("Redis GET", "requests", &[(DEFAULTS, 0.85)], redis),
        load("dd, nothing to nothing", "blocks", &[], Ok(Box::new(move || nothing.run(duration)))),
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
        // It names the functions of programs and of the kernel when it first meets them, which is its start and no rate.
        visit(loads)?;
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

    /// What has a target beside an agent: the target, and the ratio if there is one.
    fn aims(&self) -> impl Iterator<Item = (usize, f64, Option<f64>)> {
        self.load.targets.iter().map(|&(agent, target)| {
            let ratios = self.ratios.as_ref().ok().and_then(|ratios| ratios.get(agent));
            (agent, target, ratios.map(|ratios| ratios.of_medians))
        })
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.load.name.to_owned()];
        match &self.ratios {
            Ok(ratios) => {
                cells.extend(ratios.iter().enumerate().map(|(agent, ratios)| {
                    let ratio = format!("{:.3}", ratios.of_medians);
                    let has_target = self.load.targets.iter().any(|(of, _)| *of == agent);
                    let ratio = if has_target { format!("**{ratio}**") } else { ratio };
                    format!("{ratio}; {}", ratios.by_pair.text(3))
                }));
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

/// The ratios that have a target, by agent.
fn summary(rows: &[Row]) -> String {
    let of = |agent: usize| {
        let aims = rows.iter().flat_map(|row| row.aims().map(|aim| (row.load.name, aim)));
        let parts = aims.filter(|(_, (of, ..))| *of == agent).map(|(name, (_, target, ratio))| {
            let ratio = ratio.map_or("not measured".to_owned(), |ratio| format!("{ratio:.3}"));
            format!("{name} {ratio} (>= {target})")
        });
        format!("{}: {}", AGENTS[agent].0, parts.collect::<Vec<_>>().join(", "))
    };
    [WITHOUT_TRACES, DEFAULTS].map(of).join("; ")
}

/// One ratio below its target is a miss; one that was not measured leaves it open.
fn verdict(rows: &[Row]) -> Option<bool> {
    let aims = || rows.iter().flat_map(Row::aims);
    if aims().any(|(_, target, ratio)| ratio.is_some_and(|ratio| ratio < target)) {
        return Some(false);
    }
    aims().all(|(.., ratio)| ratio.is_some()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(with: Option<f64>, targets: &[Target]) -> Load {
        let mut load = Load {
            name: "x",
            unit: "blocks",
            targets: targets.to_vec(),
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
    fn every_ratio_with_a_target_must_reach_it() {
        let good = || load(Some(98.0), &[METRICS]);
        let worst = || load(Some(50.0), &[]);
        check(&[good(), worst()], Some(true), "without traces: x 0.980 (>= 0.97); defaults: ");
        check(
            &[good(), load(Some(92.0), &[(DEFAULTS, 0.93)])],
            Some(false),
            "without traces: x 0.980 (>= 0.97); defaults: x 0.920 (>= 0.93)",
        );
        check(
            &[load(None, &[(DEFAULTS, 0.9)]), good()],
            None,
            "without traces: x 0.980 (>= 0.97); defaults: x not measured (>= 0.9)",
        );
    }

    #[test]
    fn a_program_that_fails_runs_no_more() {
        let mut loads = [load(Some(98.0), &[]), load(Some(98.0), &[])];
        loads[1].run = Ok(Box::new(|| anyhow::bail!("it broke")));
        assert_eq!(visit(&mut loads).expect("no interrupt"), [Some(1.0), None]);
        let row = Row::of(&loads[1]);
        assert_eq!(row.cells()[1], "not measured: it broke");
    }
}
