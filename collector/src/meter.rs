//! All metrics at one moment: collects them on the tick, and for whoever scrapes, and hands out one snapshot for all.
//!
//! A tick that comes with a scrape ([`Schedule`]) gets the scrape's snapshot. Runs on the thread `metrics`: reading a thousand cgroups must not hold up the pipeline. Refuses: OTLP and Prometheus.

mod schedule;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use crate::clock::{monotonic_ns, unix_ns};
use crate::cluster::{Cluster, Words};
use crate::export::prometheus::{Server, SnapshotAnswers};
use crate::health::{Health, Part};
use crate::identity::{CgroupName, Directory, Key, Placement};
use crate::io::Io;
use crate::process::EndedName;
use crate::resource::cgroup::hierarchy::Hierarchies;
use crate::resource::cgroup::{CgroupKey, ContainerResources, Options as CgroupOptions};
use crate::resource::node::NodeResources;
use crate::scrape::{Discovery, Scraper};
use crate::telemetry::cardinality::Limits;
use crate::telemetry::{Cardinality, Metric, MetricKind, Owner, Point, Snapshot, Vocabulary};
use schedule::Schedule;

/// A scrape gets the last snapshot if it is younger than this: scrapers in step cost one collection.
pub const FRESH: Duration = Duration::from_millis(900);

/// How often news are taken when nobody scrapes. Whoever asks or stops wakes the thread.
const TURN: Duration = Duration::from_secs(1);

/// What the pipeline tells.
pub enum News {
    /// Processes were met in cgroups.
    Placements(Vec<Placement>),
    /// Processes ended that had these names.
    EndedNames(Vec<EndedName>),
    /// The agent's own metrics.
    Agent(Vec<Metric>),
}

/// Takes snapshots on the tick.
pub trait MetricSink: Send {
    /// Takes one. Runs on the thread `metrics`.
    fn accept(&mut self, snapshot: &Snapshot);

    /// Whether anybody wants one on the tick.
    fn wants(&self) -> bool {
        true
    }
}

/// What is collected.
#[derive(Clone, Debug)]
pub struct MeterOptions {
    /// Time between two snapshots for the sink.
    pub interval: Duration,
    /// Whether the node's resources are read.
    pub node: bool,
    /// Whether those of containers and services are.
    pub containers: bool,
    /// Whether in cAdvisor's words too.
    pub cadvisor: bool,
    /// Whether the files that containers wrote are added up.
    pub layers: bool,
    /// In whose words objects of the cluster are told.
    pub words: Words,
    /// Where the node's `/proc` and `/sys` are.
    pub root: PathBuf,
    /// How many series there may be.
    pub limits: Limits,
}

/// Who gives and takes, beside the sink.
pub struct Meter {
    /// How it works.
    pub options: MeterOptions,
    /// The scrapes of the endpoint.
    pub answers: SnapshotAnswers,
    /// The endpoint, for its own metrics.
    pub server: Option<Server>,
    /// The scraper of applications.
    pub scraper: Option<Scraper>,
    /// This agent's part in the election, if there is one.
    pub cluster: Option<Cluster>,
    /// Who finds applications to scrape.
    pub discovery: Discovery,
    /// Who takes a snapshot on each tick.
    pub sink: Box<dyn MetricSink>,
    /// What the endpoint says of the whole agent.
    pub health: Health,
}

impl Meter {
    /// Runs until the pipeline lets go of its end, then hands over a last snapshot.
    pub fn run(self, news: &Receiver<News>, io: Option<Io>) {
        let Self { options, answers, server, scraper, cluster, mut discovery, mut sink, health } = self;
        let pulse = health.start(Part::Metrics);
        let mut sources = Sources::new(&options, io, server, scraper, cluster);
        let mut last = Arc::new(Snapshot::default());
        let mut collected: Option<Instant> = None;
        // The sink has seen the last one.
        let mut is_accepted = false;
        let mut kernel_read = Instant::now();
        let mut schedule = Schedule::new(options.interval, Instant::now());
        loop {
            pulse.beat(monotonic_ns());
            let wait = schedule.due().saturating_duration_since(Instant::now()).min(TURN);
            let request = answers.wait(wait);
            let is_over = sources.take(news);
            if let Some(scraper) = &sources.scraper {
                discovery.turn(scraper);
            }
            // Of a thousand containers it has some 40 MiB, and nobody gets it any more.
            if collected.is_some_and(|collected| collected.elapsed() >= FRESH) {
                last = Arc::default();
                collected = None;
            }
            if let Some(request) = request {
                schedule.scraped(Instant::now());
                if collected.is_none() {
                    last = Arc::new(sources.collect(is_over));
                    collected = Some(Instant::now());
                    is_accepted = false;
                    kernel_read = Instant::now();
                }
                request.answer(Arc::clone(&last));
                answers.answer_all(&last);
            }
            if is_over || Instant::now() >= schedule.due() {
                let is_wanted = sink.wants();
                schedule.taken(Instant::now(), is_wanted);
                if !is_wanted {
                    // Scrapes make their own. But what waits in the kernel's map needs a reading now and then.
                    if is_over || kernel_read.elapsed() + TURN >= options.interval {
                        sources.read_kernel();
                        kernel_read = Instant::now();
                    }
                    if is_over {
                        return;
                    }
                    continue;
                }
                if is_over || is_accepted || collected.is_none() {
                    last = Arc::new(sources.collect(is_over));
                    collected = Some(Instant::now());
                }
                sink.accept(&last);
                is_accepted = true;
            }
            if is_over {
                return;
            }
        }
    }
}

/// Everything that gives metrics.
struct Sources {
    io: Option<Io>,
    node: Option<NodeResources>,
    containers: Option<ContainerResources>,
    server: Option<Server>,
    scraper: Option<Scraper>,
    cluster: Option<Cluster>,
    words: Words,
    agent: Vec<Metric>,
    directory: Directory,
    /// Whether a container may be there that was not at the last collection.
    has_news: bool,
    cardinality: Cardinality,
    cut: u64,
    start_unix_ns: u64,
    collections: u64,
    collection_s: f64,
}

impl Sources {
    fn new(
        options: &MeterOptions,
        io: Option<Io>,
        server: Option<Server>,
        scraper: Option<Scraper>,
        cluster: Option<Cluster>,
    ) -> Self {
        let cgroup_options = CgroupOptions {
            wants_cadvisor: options.cadvisor,
            wants_layers: options.layers,
            ..CgroupOptions::default()
        };
        let containers = options.containers.then(Hierarchies::find).and_then(|found| match found {
            Ok(hierarchies) => Some(ContainerResources::new(hierarchies, cgroup_options, classify)),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "no metrics of containers' resources");
                None
            }
        });
        Self {
            io,
            node: options.node.then(|| NodeResources::new(options.root.clone())),
            containers,
            server,
            scraper,
            cluster,
            words: options.words,
            agent: Vec::new(),
            directory: Directory::default(),
            has_news: true,
            cardinality: Cardinality::new(options.limits.clone()),
            cut: 0,
            start_unix_ns: unix_ns(),
            collections: 0,
            collection_s: 0.0,
        }
    }

    /// Takes the pipeline's news; returns whether it has ended.
    fn take(&mut self, news: &Receiver<News>) -> bool {
        loop {
            match news.try_recv() {
                Ok(News::Placements(placements)) => {
                    self.has_news = true;
                    placements.into_iter().for_each(|placement| self.directory.place(placement));
                }
                Ok(News::EndedNames(names)) => {
                    self.io.iter_mut().for_each(|io| io.learn_names(&names));
                }
                Ok(News::Agent(metrics)) => self.agent = metrics,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Takes the kernel's counts, so that those of cgroups that end are not lost.
    fn read_kernel(&mut self) {
        if let Some(io) = &mut self.io {
            io.read(unix_ns(), &mut self.directory);
        }
    }

    /// All metrics now. Series of containers whose pods are about to be known come with the next snapshot: they would be other
    /// series then. The last one has them all.
    fn collect(&mut self, is_last: bool) -> Snapshot {
        let started = Instant::now();
        let now_unix_ns = unix_ns();
        let mut metrics = self.agent.clone();
        if let Some(io) = &mut self.io {
            metrics.extend(io.collect(now_unix_ns, &mut self.directory));
        }
        if let Some(containers) = &mut self.containers {
            let directory = &self.directory;
            let has_news = std::mem::take(&mut self.has_news);
            metrics.extend(containers.collect(now_unix_ns, has_news, |_, key| {
                let key = match key {
                    CgroupKey::Container(id) => Key::Container(id.to_string()),
                    CgroupKey::Unit(unit) => Key::Unit(unit.to_string()),
                    CgroupKey::Root | CgroupKey::PodLevel(_) => return None,
                };
                directory.subject(&key).cloned()
            }));
        }
        if let Some(node) = &mut self.node {
            metrics.extend(node.collect(now_unix_ns));
        }
        metrics.extend(self.server.iter().flat_map(Server::metrics));
        let leads = self.cluster.as_ref().is_some_and(Cluster::leads);
        if let Some(scraper) = &self.scraper {
            metrics.extend([scraper.metrics(), scraper.latest(leads)].into_iter().flatten());
        }
        if let Some(cluster) = &self.cluster {
            metrics.extend([cluster.metrics(), cluster.latest(self.words)].into_iter().flatten());
        }
        metrics.extend(self.own());
        let mut snapshot = Snapshot { time_unix_ns: now_unix_ns, metrics: merged(metrics) };
        if !is_last {
            let now_ns = monotonic_ns();
            snapshot.metrics.iter_mut().for_each(|metric| {
                metric.points.retain(|point| !point.owner.is_awaited(now_ns));
            });
        }
        self.cut += self.cardinality.limit(&mut snapshot).points();
        self.collections += 1;
        self.collection_s += started.elapsed().as_secs_f64();
        snapshot
    }

    /// What the collection says of itself: up to the one before.
    fn own(&self) -> Vec<Metric> {
        let left_out = self.containers.as_ref().map_or(0, ContainerResources::left_out);
        let counter = |name: &'static str, unit: &'static str, description: &'static str, value: f64| {
            let point = Point::number(Owner::Agent, Vec::new(), self.start_unix_ns, value);
            Metric::new(MetricKind::Counter, name, unit, description).with(vec![point])
        };
        let gauge = Point::number(Owner::Agent, Vec::new(), 0, left_out as f64);
        vec![
            counter(
                "kansoku.metrics.collections",
                "{collection}",
                "Snapshots taken.",
                self.collections as f64,
            ),
            counter("kansoku.metrics.collection.time", "s", "Time spent taking them.", self.collection_s),
            counter(
                "kansoku.metrics.series.cut",
                "{series}",
                "Series over a limit, folded or dropped, in all snapshots.",
                self.cut as f64,
            ),
            counter(
                "kansoku.node.left_out",
                "{item}",
                "Processors, devices, mounts and lines of /proc beyond the limits, in all snapshots.",
                self.node.as_ref().map_or(0, |node| node.cut) as f64,
            ),
            Metric::new(
                MetricKind::Gauge,
                "kansoku.cgroups.left_out",
                "{cgroup}",
                "Cgroups beyond the limit at the last collection.",
            )
            .with(vec![gauge]),
        ]
    }
}

/// Whose a path in the hierarchy is.
fn classify(path: &str) -> Option<CgroupKey> {
    match CgroupName::parse(path).key() {
        Some(Key::Container(id)) => Some(CgroupKey::Container(id.into())),
        Some(Key::Unit(unit)) => Some(CgroupKey::Unit(unit.into())),
        _ if path == "/" => Some(CgroupKey::Root),
        _ => crate::identity::pod_uid(path).map(|uid| CgroupKey::PodLevel(uid.into())),
    }
}

/// Metrics of one name are one metric: two sources may know series of it. Those in the words of others come first: where a
/// format has one namespace for all, `container_memory_usage_bytes` is what existing dashboards know.
fn merged(metrics: Vec<Metric>) -> Vec<Metric> {
    let mut places: HashMap<(String, Vocabulary, MetricKind), usize> = HashMap::new();
    let mut merged: Vec<Metric> = Vec::with_capacity(metrics.len());
    for metric in metrics {
        let place =
            *places.entry((metric.name.to_string(), metric.vocabulary, metric.kind)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(same) => same.points.extend(metric.points),
            None => merged.push(metric),
        }
    }
    merged.sort_by_key(|metric| metric.vocabulary == Vocabulary::OpenTelemetry);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        let found = classify(path).map(|key| format!("{key:?}"));
        assert_eq!(found.as_deref(), expected, "{path}");
    }

    #[test]
    fn whose_a_path_is() {
        let id = "0123456789abcdef".repeat(4);
        check("/", Some("Root"));
        check("/user.slice", None);
        check("/system.slice/nginx.service", Some("Unit(\"nginx.service\")"));
        check(&format!("/kubepods/besteffort/pod12-34/{id}"), Some(&format!("Container({id:?})")));
        check("/kubepods/besteffort/pod12-34", Some("PodLevel(\"12-34\")"));
        check("/kubepods.slice/kubepods-pod12_34.slice", Some("PodLevel(\"12-34\")"));
        check("/kubepods/besteffort", None);
    }

    #[test]
    fn metrics_of_one_name_are_one() {
        let point = Point::number(Owner::Host, Vec::new(), 0, 1.0);
        let metric =
            |name: &'static str| Metric::new(MetricKind::Gauge, name, "1", "").with(vec![point.clone()]);
        let found: Vec<(String, usize)> = merged(vec![metric("a"), metric("b"), metric("a")])
            .into_iter()
            .map(|metric| (metric.name.into_owned(), metric.points.len()))
            .collect();
        assert_eq!(found, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    }
}
