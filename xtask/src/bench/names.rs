//! What names cost on a full node of a large cluster: the agent's memory and processor time without an API server, with this
//! node's pods, and with the addresses of the whole cluster, while some of both change.
//!
//! Refuses: small pods. The server's are as large as usual ones, with what the agent must skip.

use std::time::{Duration, Instant};

use anyhow::Result;

use self::api_server::{ApiServer, PEER_PODS, SERVICES};
use super::agent::{Agent, FREQUENCY_HZ};
use super::figures::Measured;
use super::io::Kubepods;
use super::meter::{Cost, Meter};
use super::numbers::{mib, seconds};
use super::procfs::{self, Memory};
use super::report::table;
use super::setup::Bench;

mod api_server;

/// Pods of this node, each with a container.
const PODS: usize = 250;

const TARGET_MIB_MAX: u64 = 20;

/// From one change to the next: a peer goes, another comes, and a pod of this node has another status.
const CHANGE_PERIOD: Duration = Duration::from_secs(1);

/// What one agent cost.
struct Point {
    cost: Cost,
    memory: Memory,
}

pub fn target() -> String {
    format!("<= {TARGET_MIB_MAX} MiB for {PODS} pods and {} peers", PEER_PODS + SERVICES)
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let _kubepods = Kubepods::start(bench, PODS)?;
    let mut server = ApiServer::start(bench, PODS)?;
    let kubeconfig = server.setting();
    let cache = format!("kubernetes.cache={}", bench.file("names.json").display());
    let node = format!("kubernetes.node_name={}", api_server::NODE);
    let common = [cache.as_str(), &node, "kubernetes.cri_socket=none"];
    let agents = [
        ("no API server", vec!["kubernetes.api=off"]),
        ("this node's pods", vec![&*kubeconfig]),
        ("this node's pods and peers", vec![&*kubeconfig, "kubernetes.peers=true"]),
    ];
    let mut points = Vec::new();
    for (name, settings) in agents {
        eprintln!("bench: {name}");
        let settings: Vec<&str> = common.into_iter().chain(settings).collect();
        points.push((name, Point::measure(bench, &mut server, &settings)?));
    }
    let text = format!(
        "{PODS} containers of pods, each with a process that sleeps. The API server's stand-in has these pods, {PEER_PODS} pods \
         of other nodes and {SERVICES} Services; a pod is {} KiB of JSON. Each {} a peer goes, another comes, and one of this \
         node's pods changes. Each row is an agent of its own at {FREQUENCY_HZ} Hz with empty files, measured for {} after {}; \
         user and system time of all its threads, in % of one CPU, without its BPF programs. MiB at the end and at most.\n\n{}",
        server.pod_bytes() / 1024,
        seconds(CHANGE_PERIOD),
        seconds(bench.plan.io_containers_run),
        seconds(bench.plan.io_containers_warm_up),
        rows(&points),
    );
    let resident = |index: usize| points.get(index).map_or(0, |(_, point)| point.memory.resident_kib);
    let kib = resident(points.len() - 1).saturating_sub(resident(0));
    Ok(Measured {
        summary: format!("{} MiB more than without an API server", mib(kib)),
        is_met: Some(kib <= TARGET_MIB_MAX * 1024),
        text,
    })
}

impl Point {
    fn measure(bench: &Bench, server: &mut ApiServer, settings: &[&str]) -> Result<Self> {
        let _none = std::fs::remove_file(bench.file("names.json"));
        let mut agent = Agent::start_with(bench, FREQUENCY_HZ, settings)?;
        run_with_changes(&mut agent, server, bench.plan.io_containers_warm_up)?;
        let meter = Meter::start(agent.pid())?;
        run_with_changes(&mut agent, server, bench.plan.io_containers_run)?;
        let cost = meter.finish()?;
        let memory = procfs::memory(agent.pid())?;
        agent.stop(bench)?;
        Ok(Self { cost, memory })
    }
}

fn run_with_changes(agent: &mut Agent, server: &mut ApiServer, duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let next = Instant::now() + CHANGE_PERIOD;
        server.change()?;
        agent.run_for(next.saturating_duration_since(Instant::now()))?;
    }
    Ok(())
}

fn rows(points: &[(&str, Point)]) -> String {
    let row = |(name, point): &(&str, Point)| {
        let Cost { user_percent, system_percent, threads_percent, .. } = &point.cost;
        let threads: Vec<String> = threads_percent
            .iter()
            .filter(|(name, _)| ["names", "pipeline"].contains(&name.as_str()))
            .map(|(name, percent)| format!("`{name}` {percent:.3}"))
            .collect();
        vec![
            (*name).to_owned(),
            format!("{:.3}", user_percent + system_percent),
            threads.join(", "),
            mib(point.memory.resident_kib),
            mib(point.memory.resident_peak_kib),
            mib(point.memory.anonymous_kib),
        ]
    };
    let header = ["agent", "CPU", "threads", "resident MiB", "peak MiB", "anonymous MiB"];
    table(&header, &points.iter().map(row).collect::<Vec<_>>())
}
