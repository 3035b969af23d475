//! What is true for the whole cluster, told by one agent of all: kube-state metrics, and pages of the control plane. Opt-in.
//!
//! The agents elect one by a Lease. A thread `cluster` of its own does that, and watches objects as long as we lead; who
//! exports asks [`Cluster::leads`] at the moment of each snapshot, so that a thread which is held up cannot make two agents
//! tell the same. Refuses: standing in a leader's way of stopping; everything here ends with its time.

mod board;
mod control_plane;
mod election;
mod elector;
mod kinds;
mod lease;
mod quantity;
mod report;
mod stats;
mod term;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
pub use lease::try_lease;
pub use report::Words;
use tokio::runtime::Runtime;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;

use self::board::Board;
use self::control_plane::ControlPlane;
use self::elector::{Elector, Office};
use self::lease::Leases;
use self::stats::Stats;
use self::term::Term;
use self::watch::Watches;
use crate::clock::{monotonic_ns, unix_ns};
use crate::dump::Glob;
use crate::health::{Health, Part};
use crate::scrape::{Target, TargetSpec};
use crate::telemetry::Metric;

/// How long the thread may take to end, the lease's return included.
const STOP_MAX: Duration = Duration::from_secs(3);

/// What the elected agent does.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The name of the lease.
    pub lease: String,
    /// This node's name, which the lease's holder begins with.
    pub node: String,
    /// Whether it tells of the cluster's objects.
    pub objects: bool,
    /// Labels of pods that it tells.
    pub labels: Vec<Glob>,
    /// Whether it finds and scrapes the control plane.
    pub control_plane: bool,
    /// Other pages that it scrapes.
    pub targets: Vec<Target>,
    /// Time between two scrapes of a page of the control plane.
    pub interval: Duration,
}

impl ClusterOptions {
    /// Whether anything is to be scraped.
    pub fn scrapes(&self) -> bool {
        self.control_plane || !self.targets.is_empty()
    }
}

/// This agent's part in the election, until it is dropped.
pub struct Cluster {
    shared: Arc<Shared>,
    targets: channel::Receiver<Arc<[Target]>>,
    /// `None` only while it is dropped: the thread ends when the sender does.
    stop: Option<channel::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads share.
struct Shared {
    term: Term,
    board: Arc<Mutex<Board>>,
    stats: Arc<Stats>,
}

impl Cluster {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread, its runtime or a client of the API server cannot be made.
    pub fn start(options: ClusterOptions, config: kube::Config, health: &Health) -> Result<Self> {
        let shared = Arc::new(Shared {
            term: Term::default(),
            board: Arc::default(),
            stats: Arc::new(Stats::new(unix_ns())),
        });
        let (publish, targets) = channel::channel(Arc::default());
        let (stop, stopped) = channel::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot make the cluster's runtime")?;
        let (of_thread, server) = (Arc::clone(&shared), Server::of(config, &runtime)?);
        let health = health.clone();
        let thread = std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || {
                let pulse = health.start(Part::Cluster);
                runtime.block_on(async {
                    let mut none = JoinSet::new();
                    tokio::select! {
                        () = run(options, server, &of_thread, publish, stopped) => {}
                        never = pulse.beat_with(&mut none, monotonic_ns) => match never {},
                    }
                });
                runtime.shutdown_background();
            })
            .context("cannot start the cluster's thread")?;
        Ok(Self { shared, targets, stop: Some(stop), thread: Some(thread) })
    }

    /// Whether this agent tells of the whole cluster now.
    pub fn leads(&self) -> bool {
        self.shared.term.is_on()
    }

    /// The cluster's objects as metrics; nothing if we do not lead.
    pub fn latest(&self, words: Words) -> Vec<Metric> {
        if !self.leads() {
            return Vec::new();
        }
        lock(&self.shared.board).metrics(words)
    }

    /// What is scraped as long as we lead.
    pub fn targets(&self) -> channel::Receiver<Arc<[Target]>> {
        self.targets.clone()
    }

    /// What the election and the watches say of themselves.
    pub fn metrics(&self) -> Vec<Metric> {
        self.shared.stats.metrics(&self.shared.term, &lock(&self.shared.board))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, which has been told.
            let _ = thread.join();
        }
    }
}

async fn run(
    options: ClusterOptions,
    server: Server,
    shared: &Arc<Shared>,
    targets: channel::Sender<Arc<[Target]>>,
    stop: channel::Receiver<()>,
) {
    let Server { client, namespace, page } = server;
    // Unlike that of any other process, also of one that was here before: only a clean stop gives the lease back.
    let identity = format!("{}_{:016x}", options.node, fastrand::u64(..));
    let leases = Leases::new(client.clone(), &namespace, &options.lease, identity);
    let watches = options.objects.then(|| Watches {
        client: client.clone(),
        board: Arc::clone(&shared.board),
        stats: Arc::clone(&shared.stats),
        labels: options.labels.into(),
    });
    let control_plane = ControlPlane {
        client,
        server: page,
        finds: options.control_plane,
        fixed: options.targets,
        interval: options.interval,
        targets,
        stats: Arc::clone(&shared.stats),
    };
    let office = Leader {
        watches,
        control_plane: Arc::new(control_plane),
        shared: Arc::clone(shared),
        tasks: JoinSet::new(),
    };
    let elector = Elector::new(leases, &shared.term, &shared.stats, office);
    let mut over = stop.clone();
    tokio::select! {
        () = elector.run(stop) => {}
        () = async {
            let _stopped = over.changed().await;
            tokio::time::sleep(STOP_MAX).await;
        } => tracing::warn!("the API server holds up the lease's return: it ends by itself"),
    }
}

/// The API server as this thread knows it.
struct Server {
    client: kube::Client,
    namespace: String,
    /// Its own page of metrics.
    page: Option<TargetSpec>,
}

impl Server {
    fn of(config: kube::Config, runtime: &Runtime) -> Result<Self> {
        let url = format!("{}/metrics", config.cluster_url.to_string().trim_end_matches('/'));
        let namespace = config.default_namespace.clone();
        // The client is a task of the runtime.
        let _inside = runtime.enter();
        let client = kube::Client::try_from(config).context("no client for the API server")?;
        Ok(Self { client, namespace, page: TargetSpec::of_url(&url).ok() })
    }
}

/// What this agent does while it leads.
struct Leader {
    watches: Option<Watches>,
    control_plane: Arc<ControlPlane>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Office for Leader {
    fn begin(&mut self) {
        self.tasks = self.watches.as_ref().map(Watches::start).unwrap_or_default();
        self.tasks.spawn(Arc::clone(&self.control_plane).run());
    }

    fn end(&mut self) {
        self.tasks = JoinSet::new();
        lock(&self.shared.board).clear();
        self.control_plane.forget();
    }
}

/// What the lock guards is whole after each statement, so a panic elsewhere does not spoil it.
fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
