//! The agent's work for each span, and the bytes that it copies: at a pace that it looks at whole, and at full load.
//!
//! Refuses: what the agent costs when nobody asks anything; that is measured first and taken off.

use anyhow::{Context, Result};

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::io::{Format, Nginx, Scraper};
use super::super::meter::Meter;
use super::super::numbers::seconds;
use super::super::programs::Statistics;
use super::super::report::table;
use super::super::setup::Bench;
use super::{PACE, paced};

/// The agent tells of its own counts each 5 s, and a scrape may be answered with the page of a second before.
const NEWS: std::time::Duration = std::time::Duration::from_secs(7);

/// What the agent says of spans.
#[derive(Clone, Copy)]
struct Counts {
    seen: f64,
    exported: f64,
    lost: f64,
    captured_bytes: f64,
}

/// What a load was, and cost.
struct Row {
    name: String,
    requests: f64,
    counts: Counts,
    /// Of one CPU, beyond what the agent costs without it.
    percent: f64,
    programs_percent: f64,
    cpu_ms_of_1000_spans: f64,
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let nginx = Nginx::start(bench)?;
    let scraper = Scraper::prepare(bench)?;
    let statistics = Statistics::switch_on()?;
    let mut agent = Agent::start_with(bench, FREQUENCY_HZ, &[])?;
    agent.run_for(bench.plan.settle)?;
    let meter = Meter::start(agent.pid())?;
    agent.run_for(bench.plan.traces_cost_run)?;
    let idle = meter.finish()?;
    let duration = bench.plan.traces_cost_run;
    let paced = || Ok(paced::ask(nginx.address(), PACE, duration)?.len() as f64);
    let full = || Ok(nginx.run(duration)? * duration.as_secs_f64());
    let loads: [(String, &dyn Fn() -> Result<f64>); 2] =
        [(format!("{PACE} requests a second"), &paced), ("full load".to_owned(), &full)];
    let mut rows = Vec::new();
    for (name, load) in loads {
        eprintln!("bench: {name}");
        let before = counts(&mut agent, &scraper)?;
        let meter = Meter::start(agent.pid())?;
        let requests = load()?;
        let cost = meter.finish()?;
        let counts = counts(&mut agent, &scraper)?.since(before);
        let percent = cost.user_percent + cost.system_percent - idle.user_percent - idle.system_percent;
        let cpu_ms = percent / 100.0 * duration.as_secs_f64() * 1e3;
        let cpu_ms_of_1000_spans = cpu_ms * 1e3 / counts.exported.max(1.0);
        let programs_percent = cost.programs_percent;
        rows.push(Row { name, requests, counts, percent, programs_percent, cpu_ms_of_1000_spans });
    }
    agent.stop(bench)?;
    drop(statistics);
    let first = rows.first().context("there is a load")?;
    let summary = format!(
        "{:.1} ms of a CPU for 1000 spans, {:.0} bytes copied of a request",
        first.cpu_ms_of_1000_spans,
        first.captured_bytes_of_a_request()
    );
    let text = format!(
        "One agent with its defaults, each load for {}. A request gives two spans, for both of its ends are on this machine. The \
         agent's processor time is that of its threads, without its {:.2} % of one CPU when nobody asks; programs are its BPF \
         programs. What is lost is counted: what the sampling leaves out (1,000 spans a second of one service), and at full load \
         the budget of exchanges.\n\n{}",
        seconds(duration),
        idle.user_percent + idle.system_percent,
        table_of(&rows),
    );
    Ok(Measured { summary, is_met: None, text })
}

fn counts(agent: &mut Agent, scraper: &Scraper) -> Result<Counts> {
    agent.run_for(NEWS)?;
    scraper.scrape(Format::Text)?;
    let records = |what: &str| scraper.sum(&format!("kansoku_records_{what}_total"), "signal=\"span\"");
    Ok(Counts {
        seen: records("seen")?,
        exported: records("exported")?,
        lost: records("lost")?,
        captured_bytes: scraper.sum("kansoku_flow_captured_bytes_total", "")?,
    })
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            seen: self.seen - before.seen,
            exported: self.exported - before.exported,
            lost: self.lost - before.lost,
            captured_bytes: self.captured_bytes - before.captured_bytes,
        }
    }
}

impl Row {
    fn captured_bytes_of_a_request(&self) -> f64 {
        self.counts.captured_bytes / self.requests.max(1.0)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            format!("{:.0}", self.requests),
            format!("{:.0}", self.counts.seen),
            format!("{:.0}", self.counts.exported),
            format!("{:.0}", self.counts.lost),
            format!("{:.2}", self.percent),
            format!("{:.2}", self.programs_percent),
            format!("{:.1}", self.cpu_ms_of_1000_spans),
            format!("{:.0}", self.captured_bytes_of_a_request()),
        ]
    }
}

fn table_of(rows: &[Row]) -> String {
    let header = [
        "load",
        "requests",
        "spans seen",
        "exported",
        "lost",
        "agent, % of one CPU",
        "programs, % of one CPU",
        "agent, ms for 1000 spans",
        "bytes copied of a request",
    ];
    table(&header, &rows.iter().map(Row::cells).collect::<Vec<_>>())
}
