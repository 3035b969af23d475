//! Application metrics: scrapes the Prometheus endpoints that it is told of, for forwarding over OTLP. Opt-in.
//!
//! A thread `scrape` of its own; nobody waits for it. A hostile target costs at most its timeout, its limits and its place
//! among eight. Refuses: discovery (who knows the pods gives the targets), relabelling, and pushing.

mod access;
mod board;
mod client;
mod discovery;
mod loss;
mod schedule;
mod target;
mod text;
mod translate;

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub use access::ClusterAccess;
use anyhow::Context;
pub use board::{HELD_BYTES_MAX, Status};
pub use client::{Client, trust};
pub use discovery::Discovery;
pub use loss::{Failure, Loss, Losses};
pub use target::{
    Access, INTERVAL_DEFAULT, INTERVAL_MIN, Scheme, TIMEOUT_DEFAULT, Target, TargetSpec, of_annotations,
};
pub use text::{Flaw, Limits, Page};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::monotonic_ns;
use crate::health::{Health, Part};
use crate::telemetry::Metric;
use board::Board;
use schedule::{lock, since_epoch};

/// Targets that are followed; further ones are left out.
pub const TARGETS_MAX: usize = 1_000;

/// Threads that look up host names. Their look-ups cannot be stopped, so there are few.
const NAME_THREADS_MAX: usize = 2;

/// Scrapes until it is dropped.
pub struct Scraper {
    board: Arc<Mutex<Board>>,
    /// `None` only while it is dropped: the thread ends when the sender does.
    targets: Option<watch::Sender<Vec<Arc<Target>>>>,
    thread: Option<JoinHandle<()>>,
    start_unix_ns: u64,
}

impl Scraper {
    /// Starts the thread, without targets.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made.
    pub fn start(client: Client, health: &Health) -> anyhow::Result<Scraper> {
        let (targets, wanted) = watch::channel(Vec::new());
        let board = Arc::new(Mutex::new(Board::default()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(NAME_THREADS_MAX)
            .thread_name("scrape-names")
            .build()
            .context("cannot make the scraper's runtime")?;
        let (shared, health) = (board.clone(), health.clone());
        let thread = std::thread::Builder::new()
            .name("scrape".to_owned())
            .spawn(move || {
                let pulse = health.start(Part::Scrape);
                runtime.block_on(async {
                    let mut none = JoinSet::new();
                    tokio::select! {
                        () = schedule::run(client, shared, wanted) => {}
                        never = pulse.beat_with(&mut none, monotonic_ns) => match never {},
                    }
                });
                // A name that is being looked up must not hold up the stop.
                runtime.shutdown_background();
            })
            .context("cannot start the scraper's thread")?;
        let start_unix_ns = since_epoch().as_nanos() as u64;
        Ok(Scraper { board, targets: Some(targets), thread: Some(thread), start_unix_ns })
    }

    /// Replaces the targets. What goes loses its metrics, what stays keeps its turn. Returns how many beyond
    /// [`TARGETS_MAX`] were left out.
    pub fn set_targets(&self, mut targets: Vec<Target>) -> usize {
        let left_out = targets.len().saturating_sub(TARGETS_MAX);
        targets.truncate(TARGETS_MAX);
        if let Some(sender) = &self.targets {
            sender.send_replace(targets.into_iter().map(Arc::new).collect());
        }
        left_out
    }

    /// The metrics of each target's last scrape. One name may be there with several kinds or units, if the
    /// applications disagree. Those that are the elected agent's are there if `leads`.
    pub fn latest(&self, leads: bool) -> Vec<Metric> {
        lock(&self.board).merged(leads)
    }

    /// How each target's last scrape went, in the order of the URLs.
    pub fn statuses(&self) -> Vec<Status> {
        lock(&self.board).statuses()
    }

    /// The scraper's own metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        lock(&self.board).metrics(self.start_unix_ns)
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        drop(self.targets.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, which has been told.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
