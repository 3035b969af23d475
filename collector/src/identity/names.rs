//! Finds the pods of containers, on a thread of its own: what was known before, the runtime's files and socket, the API
//! server's watch, and the kubelet's links to logs.
//!
//! Nobody waits here: who asks gets a place that is filled in later, once all sources that can be reached have been heard. A
//! source that does not know a container of a pod yet may know it a moment later, so only time ends that wait.
//! Refuses: guesses, and more than `WAITING_MAX` open questions.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::cache::{Cache, Unsaved};
use super::kubernetes::{self, ApiAccess, ApiEvent, ApiPod};
use super::log_path::Links;
use super::peer_watch::{self, PeerFeed};
use super::peers::PeerEvent;
use super::pods::Pods;
use super::stats::{NameStats, Source};
use super::{Choice, Container, CriSocket, Facts, LatePod, Pod, PodPlace, bundle, cri};
use crate::clock::monotonic_ns;
use crate::health::{Health, Part};
use crate::telemetry::Metric;

/// How long records of a container wait for its pod.
const WAIT_NS: u64 = 5_000_000_000;

/// How long a pod is looked for after that, for records to come, unless the API server is away: then until it is back.
const SEARCH_NS: u64 = 60_000_000_000;

/// Open questions.
const WAITING_MAX: usize = 8_192;

/// Questions that wait to be heard.
const REQUESTS_MAX: usize = 4_096;

/// What the API server told and was not heard yet; above it the watch waits.
const EVENTS_MAX: usize = 64;

/// Questions that the runtime is asked at once.
const LOOKUPS_MAX: usize = 8;

/// How long after an answer that said nothing the runtime is asked again; it doubles.
const RETRY_NS: u64 = 100_000_000;

/// The longest of these pauses while records wait: the last question is then within that time.
const RETRY_AWAITED_NS_MAX: u64 = 1_600_000_000;

/// How often what is due is looked at, with records that wait and without.
const BUSY_TURN: Duration = Duration::from_millis(50);
const IDLE_TURN: Duration = Duration::from_secs(5);

/// How often pods are published while they change.
const PUBLISH_NS: u64 = 1_000_000_000;

/// How often new names are written to disk.
const SAVE_NS: u64 = 5_000_000_000;

/// Where and what to ask.
#[derive(Clone, Debug, Default)]
pub struct NameOptions {
    /// The runtime's socket.
    pub cri: CriSocket,
    /// The API server.
    pub api: ApiAccess,
    /// This node's name there.
    pub node: String,
    /// What of a pod goes out.
    pub choice: Choice,
    /// Whether the addresses of all pods and Services are watched too.
    pub peers: bool,
    /// The file of what was known; `None` for none.
    pub cache: Option<PathBuf>,
    /// Whether it is written too: by the agent alone, not by commands beside it.
    pub keeps_cache: bool,
    /// Where the thread shows that it lives.
    pub health: Health,
}

/// Asks for names. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Names {
    requests: Option<Sender<Request>>,
    node_pods: Option<watch::Receiver<Arc<[NodePod]>>>,
    stats: Arc<NameStats>,
}

/// A pod of this node with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePod {
    /// The pod itself, of no container.
    pub pod: Pod,
    /// Its address.
    pub address: IpAddr,
    /// The ports that its containers name.
    pub ports: Vec<u16>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
}

/// The thread that finds them. It ends when nobody can ask any more.
pub struct NameThread {
    thread: JoinHandle<()>,
    peers: Option<PeerFeed>,
}

#[derive(Debug)]
struct Request {
    container_id: String,
    pod_uid: Option<String>,
    place: LatePod,
    asked_ns: u64,
}

impl Names {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the thread or its runtime cannot be made.
    pub fn start(options: NameOptions) -> Result<(Self, NameThread)> {
        let (requests, input) = channel(REQUESTS_MAX);
        let stats = Arc::new(NameStats::new(crate::clock::unix_ns()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot make the runtime that finds names")?;
        let (publish, node_pods) = watch::channel(Arc::default());
        let (feed, peers) = options.peers.then(PeerFeed::channel).unzip();
        let finder = Finder::new(options, publish, Arc::clone(&stats));
        let thread = Builder::new()
            .name("names".to_owned())
            .spawn(move || run(&runtime, finder, input, feed))
            .context("cannot start the thread that finds names")?;
        let names = Self { requests: Some(requests), node_pods: Some(node_pods), stats };
        Ok((names, NameThread { thread, peers }))
    }

    /// The place of a container's pod, which is filled in when it is found. Records wait only for what is certainly in a pod.
    pub fn pod_of(&self, container: &Container, pod: Option<&PodPlace>) -> LatePod {
        let Some(requests) = &self.requests else { return LatePod::default() };
        let asked_ns = monotonic_ns();
        let place = LatePod::awaited(if pod.is_some() { asked_ns + WAIT_NS } else { 0 });
        let request = Request {
            container_id: pod.map_or(&container.id, |pod| &pod.container_id).clone(),
            pod_uid: pod.map(|pod| pod.uid.clone()),
            place: place.clone(),
            asked_ns,
        };
        match requests.try_send(request) {
            Ok(()) => place,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                self.stats.count_refused();
                LatePod::default()
            }
        }
    }

    /// This node's pods as the API server tells them, anew whenever they change; `None` where nobody asks it.
    pub fn node_pods(&self) -> Option<watch::Receiver<Arc<[NodePod]>>> {
        self.node_pods.clone()
    }

    /// How many were found, by which source and how late.
    pub fn metrics(&self) -> Vec<Metric> {
        self.stats.metrics()
    }

    /// What the metrics are made of.
    pub fn stats(&self) -> &NameStats {
        &self.stats
    }
}

impl NameThread {
    /// The addresses of the cluster, for one listener; `None` if nobody wanted them, and the second time.
    pub fn take_peers(&mut self) -> Option<PeerFeed> {
        self.peers.take()
    }

    /// Waits for its end; what was found is on disk then. All [`Names`] must be gone.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the thread that finds names panicked: please report this");
        }
    }
}

fn run(
    runtime: &Runtime,
    mut finder: Finder,
    mut input: Receiver<Request>,
    peers: Option<Sender<PeerEvent>>,
) {
    let pulse = finder.options.health.start(Part::Names);
    runtime.block_on(async {
        if let Some(peers) = peers {
            let _ends_with_us =
                tokio::spawn(watch_peers(finder.options.clone(), Arc::clone(&finder.stats), peers));
        }
        let (sender, mut events) = channel(EVENTS_MAX);
        // The sender stays here, so that the channel is open where there is no server.
        let _watch = tokio::spawn(watch_api(finder.options.clone(), sender.clone()));
        loop {
            pulse.beat(monotonic_ns());
            let pause = finder.pause(monotonic_ns());
            tokio::select! {
                request = input.recv() => match request {
                    Some(request) => finder.ask(request),
                    None => break,
                },
                Some(event) = events.recv() => finder.on_api(event, monotonic_ns()),
                Some(Ok((id, answer))) = finder.lookups.join_next(), if !finder.lookups.is_empty() => {
                    finder.on_runtime(&id, answer);
                }
                () = tokio::time::sleep(pause) => {}
            }
            finder.turn(monotonic_ns());
        }
        while let Some(saved) = finder.saves.join_next().await {
            finder.on_saved(saved);
        }
        if let Some(unsaved) = finder.unsaved() {
            finder.on_saved(Ok(unsaved.save()));
        }
    });
}

async fn watch_api(options: NameOptions, events: Sender<ApiEvent>) {
    match kubernetes::config(&options.api).await {
        Ok(Some(config)) => kubernetes::watch(config, options.node, events).await,
        Ok(None) => {}
        Err(error) => {
            let _nobody_listens = events.send(ApiEvent::Down(format!("{error:#}"))).await;
        }
    }
}

async fn watch_peers(options: NameOptions, stats: Arc<NameStats>, peers: Sender<PeerEvent>) {
    // Why there is no server was told by the watch of this node's pods.
    if let Ok(Some(config)) = kubernetes::config(&options.api).await {
        peer_watch::watch(config, options.choice, &stats, peers).await;
    }
}

/// What the API server can be expected to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    /// Nobody asks it, so nobody waits for it.
    Absent,
    /// It has not told all pods yet.
    Beginning,
    /// It has.
    Live,
}

/// One open question.
struct Waiting {
    places: Vec<LatePod>,
    pod_uid: Option<String>,
    asked_ns: u64,
    /// What the node's own sources said.
    facts: Facts,
    source: Source,
    /// Whether the runtime was heard, be it that it knows nothing.
    is_heard: bool,
    /// Whether the links to logs were looked at while others may still tell.
    has_read_links: bool,
    /// When the runtime is asked next; `None` while it is, and once it has told.
    lookup_ns: Option<u64>,
    lookup_delay_ns: u64,
    /// Whether records do not wait any more.
    is_late: bool,
}

/// The open questions and what is known.
struct Finder {
    options: NameOptions,
    roots: Vec<PathBuf>,
    waiting: HashMap<String, Waiting>,
    lookups: JoinSet<(String, Result<Option<Facts>>)>,
    api: Api,
    /// Whether there was a runtime to ask when somebody was to be asked about last.
    has_runtime: bool,
    /// Since when the API server gives errors.
    down_since_ns: Option<u64>,
    pods: Pods,
    publish: watch::Sender<Arc<[NodePod]>>,
    /// Whether pods changed since they were published, at the time after it.
    has_changed: bool,
    published_ns: u64,
    cache: Cache,
    saved_ns: u64,
    /// The save that goes on, if one does: names do not wait for a disk.
    saves: JoinSet<Result<()>>,
    stats: Arc<NameStats>,
}

impl Finder {
    fn new(options: NameOptions, publish: watch::Sender<Arc<[NodePod]>>, stats: Arc<NameStats>) -> Self {
        Self {
            api: if options.api.is_there() { Api::Beginning } else { Api::Absent },
            cache: Cache::open(options.cache.clone()),
            options,
            roots: super::roots(),
            waiting: HashMap::new(),
            lookups: JoinSet::new(),
            has_runtime: true,
            down_since_ns: None,
            pods: Pods::default(),
            publish,
            has_changed: false,
            published_ns: 0,
            saved_ns: 0,
            saves: JoinSet::new(),
            stats,
        }
    }

    /// Until the next turn: soon if records wait, else when the runtime is to be asked again. The server is heard when it tells.
    fn pause(&self, now_ns: u64) -> Duration {
        if self.has_changed || self.waiting.values().any(|waiting| !waiting.is_late) {
            return BUSY_TURN;
        }
        let due_ns = self.waiting.values().filter_map(|waiting| waiting.lookup_ns).min();
        let until_due = due_ns.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)));
        until_due.unwrap_or(IDLE_TURN).clamp(BUSY_TURN, IDLE_TURN)
    }

    /// Takes a question. What is known is told at once.
    fn ask(&mut self, request: Request) {
        let Request { container_id, pod_uid, place, asked_ns } = request;
        if let Some(known) = self.cache.get(&container_id) {
            place.tell(known.clone());
            return self.stats.count_named(Source::Cache, 0);
        }
        if let Some(waiting) = self.waiting.get_mut(&container_id) {
            if waiting.is_late {
                place.stop_waiting();
            }
            return waiting.places.push(place);
        }
        if self.waiting.len() >= WAITING_MAX {
            place.stop_waiting();
            return self.stats.count_refused();
        }
        let facts = self.roots.iter().find_map(|root| bundle::facts_of(&container_id, root));
        let waiting = Waiting {
            places: vec![place],
            pod_uid,
            asked_ns,
            source: Source::Bundle,
            facts: facts.unwrap_or_default(),
            is_heard: self.options.cri == CriSocket::None,
            has_read_links: false,
            lookup_ns: Some(asked_ns).filter(|_| self.options.cri != CriSocket::None),
            lookup_delay_ns: RETRY_NS,
            is_late: false,
        };
        self.waiting.insert(container_id, waiting);
    }

    fn on_api(&mut self, event: ApiEvent, now_ns: u64) {
        self.has_changed = true;
        match event {
            ApiEvent::Begin => self.pods.begin(),
            ApiEvent::Live => {
                self.pods.end();
                if self.api != Api::Live {
                    let (pods, node) = (self.pods.len(), &self.options.node);
                    tracing::info!(pods, node, "the API server tells this node's pods");
                }
                (self.api, self.down_since_ns) = (Api::Live, None);
            }
            ApiEvent::Down(why) => {
                if self.down_since_ns.is_none() {
                    tracing::warn!(why, "the API server does not tell this node's pods; it is asked again");
                }
                self.down_since_ns.get_or_insert(now_ns);
                self.stats.count_api_error();
            }
            ApiEvent::Pod(pod) => {
                self.down_since_ns = None;
                self.pods.insert(*pod);
            }
            ApiEvent::Gone(pod) => self.pods.gone(&pod.node_uid),
        }
    }

    fn on_runtime(&mut self, container_id: &str, answer: Result<Option<Facts>>) {
        let Some(waiting) = self.waiting.get_mut(container_id) else { return };
        waiting.is_heard = true;
        match answer {
            Ok(Some(facts)) => {
                waiting.source = Source::Cri;
                waiting.facts.add(facts);
            }
            // A container that was just made, or that is none of a pod.
            Ok(None) => waiting.retry(),
            Err(error) => {
                tracing::debug!(container_id, error = format!("{error:#}"), "the runtime says nothing");
                self.stats.count_cri_error();
                waiting.retry();
            }
        }
    }

    /// Asks the runtime what is due, tells what is known, and gives up what is too old.
    fn turn(&mut self, now_ns: u64) {
        self.look_up(now_ns);
        self.publish(now_ns);
        // A server that answers again within the time that records wait is waited for.
        let is_down = self.down_since_ns.is_some_and(|since_ns| now_ns.saturating_sub(since_ns) >= WAIT_NS);
        let is_absent = self.api == Api::Absent || is_down;
        let may_come = self.api == Api::Beginning || self.down_since_ns.is_some();
        let has_nobody =
            self.api == Api::Absent && !(self.has_runtime && self.options.cri != CriSocket::None);
        let Self { waiting, pods, cache, stats, options, roots, .. } = self;
        // They are read once for all that have nobody else, and only if there is one.
        let links = OnceCell::new();
        let links = || links.get_or_init(|| Links::read(roots));
        waiting.retain(|id, waiting| {
            let age_ns = now_ns.saturating_sub(waiting.asked_ns);
            let by_api = waiting.by_api(id, pods);
            let is_all_heard = waiting.is_heard && (by_api.is_some() || is_absent);
            let is_over = age_ns >= WAIT_NS;
            if (is_all_heard || is_over) && !waiting.is_late {
                waiting.last_resort(id, by_api, is_over, links);
                // A runtime lists a container after it made its cgroup, and the server knows it later still.
                let may_be_named = waiting.pod_uid.is_some() && !has_nobody;
                if is_over || !may_be_named || waiting.is_named(id, by_api) {
                    waiting.give_up_waiting(id, by_api, stats);
                }
            }
            if !waiting.is_late || !waiting.is_named(id, by_api) {
                let is_given_up = age_ns >= SEARCH_NS && !(may_come && waiting.pod_uid.is_some());
                if is_given_up && waiting.pod_uid.is_some() {
                    stats.count_unnamed();
                }
                return !is_given_up;
            }
            let (facts, source) = waiting.answer(id, by_api);
            let pod = Pod::of(&facts, &options.choice);
            waiting.places.iter().for_each(|place| place.tell(pod.clone()));
            cache.insert(id.clone(), pod);
            stats.count_named(source, age_ns);
            false
        });
        self.save(now_ns);
    }

    /// Tells the pods that are there, if they changed.
    fn publish(&mut self, now_ns: u64) {
        if !self.has_changed || now_ns.saturating_sub(self.published_ns) < PUBLISH_NS {
            return;
        }
        (self.has_changed, self.published_ns) = (false, now_ns);
        let node_pod = |pod: &ApiPod| {
            let facts = Facts { container: Some(String::new()), ..pod.facts.clone() };
            Some(NodePod {
                pod: Pod::of(&facts, &self.options.choice),
                address: pod.address?,
                ports: pod.ports.clone(),
                annotations: pod.facts.annotations.clone(),
            })
        };
        let pods: Vec<NodePod> = self.pods.present().filter_map(node_pod).collect();
        self.publish.send_replace(pods.into());
    }

    fn look_up(&mut self, now_ns: u64) {
        let due = |waiting: &Waiting| waiting.lookup_ns.is_some_and(|due_ns| due_ns <= now_ns);
        if self.lookups.len() >= LOOKUPS_MAX || !self.waiting.values().any(due) {
            return;
        }
        let socket = self.options.cri.find(&self.roots);
        self.has_runtime = socket.is_some();
        for (id, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| due(waiting)) {
            let Some(socket) = socket.clone() else {
                // There is none; one may come.
                waiting.is_heard = true;
                waiting.retry();
                continue;
            };
            if self.lookups.len() >= LOOKUPS_MAX {
                break;
            }
            waiting.lookup_ns = None;
            let id = id.clone();
            self.lookups.spawn(async move {
                let answer = cri::facts_of(&socket, &id).await;
                (id, answer)
            });
        }
    }

    fn save(&mut self, now_ns: u64) {
        while let Some(saved) = self.saves.try_join_next() {
            self.on_saved(saved);
        }
        if now_ns.saturating_sub(self.saved_ns) < SAVE_NS || !self.saves.is_empty() {
            return;
        }
        self.saved_ns = now_ns;
        if let Some(unsaved) = self.unsaved() {
            self.saves.spawn_blocking(move || unsaved.save());
        }
    }

    fn unsaved(&mut self) -> Option<Unsaved> {
        self.options.keeps_cache.then(|| self.cache.take_changes()).flatten()
    }

    fn on_saved(&mut self, saved: Result<Result<()>, JoinError>) {
        if let Err(error) = saved.map_err(anyhow::Error::from).flatten() {
            tracing::debug!(error = format!("{error:#}"), "names are not remembered over a restart");
            self.cache.set_changed();
        }
    }
}

impl Waiting {
    fn retry(&mut self) {
        let delay_max_ns = if self.is_late { u64::MAX } else { RETRY_AWAITED_NS_MAX };
        self.lookup_ns = Some(monotonic_ns().saturating_add(self.lookup_delay_ns));
        self.lookup_delay_ns = self.lookup_delay_ns.saturating_mul(2).min(delay_max_ns);
    }

    /// Nobody is left to hear now: the links to logs may say it. They are read when that begins and when it is over.
    fn last_resort<'a>(
        &mut self,
        container_id: &str,
        by_api: Option<&ApiPod>,
        is_over: bool,
        links: impl Fn() -> &'a Links,
    ) {
        let has_read = std::mem::replace(&mut self.has_read_links, true);
        if (is_over || !has_read)
            && !self.is_named(container_id, by_api)
            && let Some(facts) = links().facts_of(container_id)
        {
            self.facts.add(facts);
            self.source = Source::LogPath;
        }
    }

    /// What is known must do. Records go on without a name if that is nothing; what comes later is for those after them.
    fn give_up_waiting(&mut self, container_id: &str, by_api: Option<&ApiPod>, stats: &NameStats) {
        self.is_late = true;
        self.places.iter().for_each(LatePod::stop_waiting);
        if self.pod_uid.is_some() && !self.is_named(container_id, by_api) {
            stats.count_late();
        }
    }

    /// The pod that the API server told.
    fn by_api<'a>(&self, container_id: &str, pods: &'a Pods) -> Option<&'a ApiPod> {
        let uid = self.pod_uid.as_ref().or(Some(&self.facts.uid).filter(|uid| !uid.is_empty()));
        pods.of(container_id, uid.map(String::as_str))
    }

    /// Whether what is known names it. Asked of all at each turn, so nothing is copied.
    fn is_named(&self, container_id: &str, by_api: Option<&ApiPod>) -> bool {
        by_api.map_or(self.facts.are_enough(), |pod| pod.names(container_id, &self.facts))
    }

    /// What is known, and who told most of it.
    fn answer(&self, container_id: &str, by_api: Option<&ApiPod>) -> (Facts, Source) {
        match by_api {
            Some(pod) => (pod.facts_of(container_id, &self.facts), Source::Api),
            None => (self.facts.clone(), self.source),
        }
    }
}

#[cfg(test)]
mod tests;
