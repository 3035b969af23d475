//! How much later a server answers beside the agent: nginx at its limit, and a service and nginx well below.
//!
//! What nginx does for a small file is the least that a request can take, so that its p50 shows what a request costs more, and
//! that of a service what its users notice. Refuses: one long run of each; as with speeds, runs alternate. And the agent's start, as with speeds.

use anyhow::Result;

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::interrupt;
use super::super::io::Nginx;
use super::super::numbers::{percentile, seconds};
use super::super::report::table;
use super::super::setup::Bench;
use super::super::turns::{Ratios, Speeds};
use super::service::Service;
use super::{PACE, paced};

/// What is timed, and how many times the time without the agent it may be.
const TIMES: [(&str, Option<f64>); 3] = [
    ("nginx, p99 at full load", Some(1.10)),
    ("service, p50 below it", Some(1.02)),
    ("nginx, p50 below it", None),
];

pub fn target() -> String {
    let targets = TIMES.iter().filter_map(|(name, most)| most.map(|most| format!("{name} <= {most}")));
    targets.collect::<Vec<_>>().join("; ")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let servers = (Nginx::start(bench)?, Service::start(bench)?);
    let mut times: [Speeds; TIMES.len()] = Default::default();
    for round in 0..bench.plan.traces_rounds {
        eprintln!("bench: round {} of {}", round + 1, bench.plan.traces_rounds);
        let before = visit(bench, &servers)?;
        let mut agent = Agent::start_with(bench, FREQUENCY_HZ, &[])?;
        agent.run_for(bench.plan.settle)?;
        visit(bench, &servers)?;
        agent.run_for(bench.plan.settle)?;
        let with = [visit(bench, &servers)?, visit(bench, &servers)?];
        agent.stop(bench)?;
        let after = visit(bench, &servers)?;
        for (index, times) in times.iter_mut().enumerate() {
            times.add_round([before[index], after[index]], [with[0][index], with[1][index]]);
        }
    }
    let ratios = times.iter().map(Speeds::ratios).collect::<Result<Vec<Ratios>>>()?;
    let rows = TIMES.iter().zip(&ratios).map(|((name, _), ratios)| {
        vec![
            (*name).to_owned(),
            format!("{:.3}; {}", ratios.of_medians, ratios.by_pair.text(3)),
            ratios.noise.text(3),
            ratios.without.text(0),
            ratios.with.text(0),
        ]
    });
    let text = format!(
        "nginx as under \"Programs that do I/O\". At full load `wrk` asks as fast as it can and tells its p99; below it a client \
         asks {PACE} times a second over {} connections and takes the median. The service is one in Python with a thread for each \
         connection, which puts an answer of JSON together. Runs of {}, {} rounds in the order without, \
         with, with, without; the agent has its defaults, and has met the load once before.\n\n{}",
        paced::CONNECTIONS,
        seconds(bench.plan.traces_run),
        bench.plan.traces_rounds,
        table(
            &["time", "ratio of medians; by pair", "noise: without against without", "us without", "us with"],
            &rows.collect::<Vec<_>>()
        ),
    );
    let parts =
        TIMES.iter().zip(&ratios).map(|((name, _), ratios)| format!("{name} {:.3}", ratios.of_medians));
    let summary = parts.collect::<Vec<_>>().join(", ");
    let is_met = |(most, ratios): (&Option<f64>, &Ratios)| most.is_none_or(|most| ratios.of_medians <= most);
    let is_met = TIMES.iter().map(|(_, most)| most).zip(&ratios).all(is_met);
    Ok(Measured { summary, is_met: Some(is_met), text })
}

/// The times of [`TIMES`], microseconds.
fn visit(bench: &Bench, (nginx, service): &(Nginx, Service)) -> Result<[f64; TIMES.len()]> {
    let p99_us = nginx.run_for_p99_us(bench.plan.traces_run)?;
    let of_service = paced::ask(service.address(), PACE, bench.plan.traces_run)?;
    let of_nginx = paced::ask(nginx.address(), PACE, bench.plan.traces_run)?;
    interrupt::check()?;
    Ok([p99_us, percentile(&of_service, 50), percentile(&of_nginx, 50)])
}
