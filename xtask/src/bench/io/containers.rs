//! The agent's processor time and memory on a node of many containers that sleep, metrics each 15 s, scraped as often.
//!
//! Refuses: the start, in which the agent meets the containers.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::meter::{Cost, Meter};
use super::super::numbers::{mib, seconds};
use super::super::procfs::{self, Memory};
use super::super::report::table;
use super::super::setup::Bench;
use super::CONTAINERS;
use super::kubepods::Kubepods;
use super::prometheus::{Format, Scraper};

pub const TARGET_PERCENT_MAX: f64 = 0.5;

/// How often the agent is scraped; [`INTERVAL`] says the same to the agent.
pub const PERIOD: Duration = Duration::from_secs(15);

pub const INTERVAL: &str = "metrics.interval_ms=15000";

/// Prometheus alone takes the metrics.
pub const NO_OTLP_METRICS: &str = "otlp.metrics.endpoint=none";

const NO_CONTAINERS: &str = "resource.containers=false";

/// The agents; the first has the target.
const AGENTS: [(&str, &[&str]); 3] = [
    ("scraped", &[INTERVAL, NO_OTLP_METRICS]),
    ("scraped, and metrics over OTLP", &[INTERVAL]),
    ("scraped, without the resources of containers", &[INTERVAL, NO_OTLP_METRICS, NO_CONTAINERS]),
];

/// What one agent cost.
struct Point {
    cost: Cost,
    memory: Memory,
    series: usize,
}

pub fn target() -> String {
    format!("<= {TARGET_PERCENT_MAX} % of one CPU with {CONTAINERS} containers")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let containers = bench.plan.io_containers;
    let started = Instant::now();
    let _kubepods = Kubepods::start(bench, containers)?;
    eprintln!("bench: {containers} containers made in {:.1} s", started.elapsed().as_secs_f64());
    let mut points = Vec::new();
    for (name, settings) in AGENTS {
        eprintln!("bench: {name}");
        points.push((name, Point::measure(bench, settings)?));
    }
    let text = format!(
        "{containers} containers of pods, each with a process that sleeps and wakes twice a minute for a handful of system \
         calls. Each row is an agent of its own at {FREQUENCY_HZ} Hz with `{INTERVAL}`, scraped each {} (OpenMetrics, gzip), \
         measured for {} after {}; user and system time of all its threads, in % of one CPU, without its BPF programs. \
         Profiles go over OTLP to a backend on the same machine.\n\n{}",
        seconds(PERIOD),
        seconds(bench.plan.io_containers_run),
        seconds(bench.plan.io_containers_warm_up),
        rows(&points),
    );
    let percent = |point: &Point| point.cost.user_percent + point.cost.system_percent;
    let summary: Vec<String> = points
        .iter()
        .map(|(name, point)| {
            format!("{name}: {:.2} %, {} MiB", percent(point), mib(point.memory.resident_kib))
        })
        .collect();
    // Fewer containers prove nothing.
    let is_enough = containers >= CONTAINERS;
    Ok(Measured {
        summary: format!("of one CPU with {containers} containers: {}", summary.join("; ")),
        is_met: points.first().filter(|_| is_enough).map(|(_, point)| percent(point) <= TARGET_PERCENT_MAX),
        text,
    })
}

impl Point {
    fn measure(bench: &Bench, settings: &[&str]) -> Result<Self> {
        let scraper = Scraper::prepare(bench)?;
        let mut agent = Agent::start_with(bench, FREQUENCY_HZ, settings)?;
        run_scraped(&mut agent, &scraper, bench.plan.io_containers_warm_up)?;
        let meter = Meter::start(agent.pid())?;
        run_scraped(&mut agent, &scraper, bench.plan.io_containers_run)?;
        let cost = meter.finish()?;
        let memory = procfs::memory(agent.pid())?;
        // The last, uncompressed, is not in the figure.
        scraper.scrape(Format::Text)?;
        let series = scraper.series()?;
        agent.stop(bench)?;
        Ok(Self { cost, memory, series })
    }
}

/// Waits while the agent runs and is scraped; the last scrape has time to end.
fn run_scraped(agent: &mut Agent, scraper: &Scraper, duration: Duration) -> Result<()> {
    let mut left = duration;
    while !left.is_zero() {
        let turn = left.min(PERIOD);
        agent.run_for(turn / 2)?;
        let start = Instant::now();
        scraper.scrape(Format::OpenMetricsGzip)?;
        agent.run_for((turn / 2).saturating_sub(start.elapsed()))?;
        left -= turn;
    }
    Ok(())
}

fn rows(points: &[(&str, Point)]) -> String {
    let row = |(name, point): &(&str, Point)| {
        let Cost { user_percent, system_percent, .. } = point.cost;
        let threads: Vec<String> = point
            .cost
            .threads_percent
            .iter()
            .take(4)
            .map(|(name, percent)| format!("`{name}` {percent:.2}"))
            .collect();
        vec![
            (*name).to_owned(),
            format!("{:.3}", user_percent + system_percent),
            format!("{user_percent:.3}"),
            format!("{system_percent:.3}"),
            threads.join(", "),
            mib(point.memory.resident_kib),
            mib(point.memory.resident_peak_kib),
            point.series.to_string(),
        ]
    };
    let header =
        ["agent", "CPU", "user", "system", "busiest threads", "resident MiB", "peak MiB", "series scraped"];
    table(&header, &points.iter().map(row).collect::<Vec<_>>())
}
