//! The agent's own metrics: the ledger, its CPU time and memory, the kernel time of its programs.
//!
//! Refuses: metrics of anything else than the agent.

use procfs::process::Process;

use crate::clock::unix_ns;
use crate::kernel::{ProgramTime, SystemCalls, Watched, pages_replaced};
use crate::loss::{Account, Ledger};
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text};

/// Reads the agent's own state.
pub struct AgentMetrics {
    own: Option<Process>,
    ticks_per_second: f64,
    page_bytes: u64,
    start_unix_ns: u64,
}

/// What the agent uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time in user mode, seconds.
    pub user_s: f64,
    /// CPU time in the kernel, seconds.
    pub system_s: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self {
            own: Process::myself().ok(),
            ticks_per_second: procfs::ticks_per_second() as f64,
            page_bytes: procfs::page_size(),
            start_unix_ns: unix_ns(),
        }
    }
}

/// What the pipeline counts itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Processes in the table.
    pub processes: usize,
    /// Samples since the start whose request was not looked for.
    pub samples_of_unknown_requests: u64,
}

impl AgentMetrics {
    /// CPU time and memory of this process; zeros where `/proc` cannot be read.
    pub fn usage(&self) -> Usage {
        let Some(stat) = self.own.as_ref().and_then(|own| own.stat().ok()) else { return Usage::default() };
        Usage {
            user_s: stat.utime as f64 / self.ticks_per_second,
            system_s: stat.stime as f64 / self.ticks_per_second,
            resident_bytes: stat.rss * self.page_bytes,
        }
    }

    /// All metrics of the agent now.
    pub fn read(
        &self,
        ledger: &Ledger,
        programs: &[ProgramTime],
        system_calls: Option<SystemCalls>,
        counts: Counts,
    ) -> Vec<Metric> {
        let usage = self.usage();
        let accounts = ledger.accounts();
        let mut metrics = vec![
            counter(
                "process.cpu.time",
                "CPU time of the agent.",
                "s",
                vec![
                    point(&[("cpu.mode", "user")], usage.user_s),
                    point(&[("cpu.mode", "system")], usage.system_s),
                ],
            ),
            Metric::new(
                MetricKind::UpDownCounter,
                "process.memory.usage",
                "By",
                "Resident memory of the agent.",
            )
            .with(vec![point(&[], usage.resident_bytes as f64)]),
            counter(
                "kansoku.symbols.pages_gone",
                "Pages of symbol files that were truncated while they were read.",
                "{page}",
                vec![point(&[], pages_replaced() as f64)],
            ),
            gauge(
                "kansoku.processes",
                "Processes in the agent's table.",
                "{process}",
                counts.processes as f64,
            ),
            counter(
                "kansoku.samples.request_unknown",
                "Samples whose request was not looked for, because their window had too many.",
                "{sample}",
                vec![point(&[], counts.samples_of_unknown_requests as f64)],
            ),
        ];
        metrics.extend(ledger_metrics(&accounts));
        metrics.extend(program_metrics(programs));
        metrics.extend(system_calls.iter().flat_map(system_call_metrics));
        // All began with the agent.
        for point in metrics
            .iter_mut()
            .filter(|metric| matches!(metric.kind, MetricKind::Counter | MetricKind::UpDownCounter))
            .flat_map(|metric| &mut metric.points)
        {
            point.start_unix_ns = self.start_unix_ns;
        }
        metrics
    }
}

fn ledger_metrics(accounts: &[Account]) -> Vec<Metric> {
    let stage = |name, description, value: fn(&Account) -> u64| {
        let points =
            accounts.iter().map(|account| point(&[("signal", account.signal.name())], value(account) as f64));
        counter(name, description, "{record}", points.collect())
    };
    let lost = accounts.iter().flat_map(|account| {
        account.lost.iter().map(|(reason, count)| {
            point(&[("signal", account.signal.name()), ("reason", reason.name())], *count as f64)
        })
    });
    vec![
        stage("kansoku.records.seen", "Records that the kernel side wanted to send.", |account| account.seen),
        stage("kansoku.records.decoded", "Records that became typed events.", |account| account.decoded),
        stage("kansoku.records.represented", "Records in flushed windows or live state.", |account| {
            account.represented
        }),
        stage("kansoku.records.exported", "Records that reached their receiver.", |account| account.exported),
        counter("kansoku.records.lost", "Records lost, by reason.", "{record}", lost.collect()),
    ]
}

fn program_metrics(programs: &[ProgramTime]) -> Vec<Metric> {
    let points = |value: fn(&ProgramTime) -> f64| {
        programs.iter().map(|program| point(&[("program", &program.name)], value(program))).collect()
    };
    vec![
        counter(
            "kansoku.bpf.run_time",
            "Kernel time of the agent's programs while the kernel's statistics were on.",
            "s",
            points(|program| program.run_time_ns as f64 / 1e9),
        ),
        counter(
            "kansoku.bpf.runs",
            "Runs of the agent's programs while the kernel's statistics were on.",
            "{run}",
            points(|program| program.runs as f64),
        ),
    ]
}

/// How complete the counts of system calls are.
fn system_call_metrics(calls: &SystemCalls) -> Vec<Metric> {
    let states = [Watched::Nothing, Watched::Returns, Watched::Everything];
    let seconds = states.map(|state| calls.time.of(state) as f64 / 1e9);
    let names = ["nothing", "returns", "everything"];
    let times = names.into_iter().zip(seconds).map(|(name, seconds)| point(&[("watched", name)], seconds));
    let costs = [("returns", calls.costs.returns_ns), ("everything", calls.costs.everything_ns)];
    let costs = costs.map(|(name, ns)| point(&[("watched", name)], ns / 1e9));
    vec![
        counter(
            "kansoku.syscalls.time",
            "Time by what was watched of system calls. Where it is not all everything, their counts are estimates.",
            "s",
            times.collect(),
        ),
        Metric::new(
            MetricKind::Gauge,
            "kansoku.syscalls.cost",
            "s",
            "What a system call costs more while it is watched, measured at the start and whenever watching begins anew.",
        )
        .with(costs.into()),
    ]
}

fn counter(name: &'static str, description: &'static str, unit: &'static str, points: Vec<Point>) -> Metric {
    Metric::new(MetricKind::Counter, name, unit, description).with(points)
}

fn gauge(name: &'static str, description: &'static str, unit: &'static str, value: f64) -> Metric {
    Metric::new(MetricKind::Gauge, name, unit, description).with(vec![point(&[], value)])
}

fn point(attributes: &[(&'static str, &str)], value: f64) -> Point {
    let attributes = attributes.iter().map(|&(key, value)| (Text::from(key), Text::from(value.to_owned())));
    Point::number(Owner::Agent, attributes.collect(), 0, value)
}
