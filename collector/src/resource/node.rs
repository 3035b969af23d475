//! The node's own resources: CPU, memory, disks, network, load, pressure, filesystems, from /proc and /sys.
//!
//! One reading feeds two vocabularies: the OpenTelemetry conventions (`system.*`, those of 1.40: they renamed what 1.37
//! had as `system.linux.memory.*`) and node_exporter (`node_*`, names, labels and units of 1.8), for the dashboards that
//! exist. Each area stands alone: one whose files are missing, broken or too big is left out of the collection, and
//! `node_scrape_collector_success` says so. Everything is bounded; what is beyond a bound is counted in
//! [`NodeResources::cut`]. Refuses: containers and processes, settings, sensors, and anything that another machine or
//! program would have to answer for.

mod cpu;
mod disk;
mod family;
mod filesystem;
mod interface;
mod load;
mod memory;
mod mounts;
mod netstat;
mod network;
mod pressure;
mod raid;
mod root;
mod schedule;
mod sockets;
mod starts;
mod stat;
mod system;
#[cfg(test)]
mod tests;
mod timex;
mod vmstat;

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result};

use self::cpu::Cores;
use self::family::{node, point};
use self::interface::Interfaces;
use self::root::Root;
use self::starts::Starts;
use self::stat::Stat;
use crate::telemetry::{Metric, MetricKind, Text};

const NS_PER_S: u64 = 1_000_000_000;

/// Reads the resources of the host again and again, and remembers when its counters began.
pub struct NodeResources {
    /// CPUs, disks, interfaces, mounts and lines that were beyond a bound, since this was made.
    pub cut: u64,
    root: Root,
    starts: Starts,
    cores: Cores,
    interfaces: Interfaces,
    problems: Vec<(&'static str, anyhow::Error)>,
}

/// What an area needs to read the host.
struct Reading<'a> {
    root: &'a Root,
    now_unix_ns: u64,
    starts: &'a mut Starts,
    cut: &'a mut u64,
}

/// Reads an area that remembers nothing of its own.
type Area = fn(&mut Reading<'_>) -> Result<Vec<Metric>>;

/// Areas by the names of node_exporter's collectors. `stat`, `cpu` and `netclass` remember something, and come apart.
const AREAS: [(&str, Area); 17] = [
    ("loadavg", load::metrics),
    ("meminfo", memory::metrics),
    ("vmstat", vmstat::metrics),
    ("diskstats", disk::metrics),
    ("mdadm", raid::metrics),
    ("netdev", network::metrics),
    ("netstat", netstat::metrics),
    ("sockstat", sockets::metrics),
    ("filesystem", filesystem::metrics),
    ("pressure", pressure::metrics),
    ("schedstat", schedule::metrics),
    ("filefd", system::open_files),
    ("uname", system::name),
    ("time", system::time),
    ("entropy", system::entropy),
    ("conntrack", system::tracked_connections),
    ("timex", timex::metrics),
];

impl NodeResources {
    /// The resources of the host whose root directory is `root`: `/`, or the place where a container has it mounted.
    pub fn new(root: PathBuf) -> Self {
        Self {
            cut: 0,
            root: Root::new(root),
            starts: Starts::default(),
            cores: Cores::default(),
            interfaces: Interfaces::default(),
            problems: Vec::new(),
        }
    }

    /// All metrics at `now_unix_ns`, nanoseconds since the epoch, with [`crate::telemetry::Owner::Host`]. Never fails:
    /// areas that could not be read are missing.
    pub fn collect(&mut self, now_unix_ns: u64) -> Vec<Metric> {
        self.problems.clear();
        // First, because the starts of all counters need the boot time.
        let stat = self.root.read("proc/stat").context("/proc/stat").map(|text| Stat::parse(&text));
        let boot_s = stat.as_ref().ok().and_then(|stat| stat.boot_s);
        self.starts.begin(now_unix_ns, boot_s.and_then(|seconds| seconds.checked_mul(NS_PER_S)));

        let Self { cut, root, starts, cores, interfaces, problems } = self;
        let mut reading = Reading { root, now_unix_ns, starts, cut };
        let mut done = Done { metrics: Vec::new(), names: HashSet::new(), success: Vec::new(), problems };
        match stat {
            Ok(stat) => {
                done.area("stat", stat::metrics(&stat, &mut reading));
                done.area("cpu", cpu::metrics(&stat, cores, &mut reading));
            }
            Err(error) => {
                done.area("cpu", Err(anyhow::anyhow!("{error:#}")));
                done.area("stat", Err(error));
            }
        }
        done.area("netclass", interface::metrics(interfaces, &mut reading));
        for (name, area) in AREAS {
            done.area(name, area(&mut reading));
        }
        done.metrics()
    }

    /// The areas that the last collection could not read, and why. A kernel built without one is among them.
    pub fn problems(&self) -> &[(&'static str, anyhow::Error)] {
        &self.problems
    }
}

/// What the areas gave so far.
struct Done<'a> {
    metrics: Vec<Metric>,
    /// Names that are taken: a broken file may have a line twice.
    names: HashSet<Text>,
    success: Vec<(&'static str, bool)>,
    problems: &'a mut Vec<(&'static str, anyhow::Error)>,
}

impl Done<'_> {
    fn area(&mut self, name: &'static str, result: Result<Vec<Metric>>) {
        self.success.push((name, result.is_ok()));
        match result {
            Ok(metrics) => {
                let new = metrics.into_iter().filter(|metric| self.names.insert(metric.name.clone()));
                self.metrics.extend(new);
            }
            Err(error) => self.problems.push((name, error)),
        }
    }

    fn metrics(mut self) -> Vec<Metric> {
        let series = self
            .success
            .iter()
            .map(|(name, is_ok)| point(0, [("collector", Text::from(*name))], f64::from(u8::from(*is_ok))));
        let description = "node_exporter: Whether a collector succeeded.";
        let success = node(MetricKind::Gauge, "node_scrape_collector_success", "", description);
        self.metrics.push(success.with(series.collect()));
        self.metrics
    }
}
