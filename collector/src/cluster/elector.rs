//! One candidate of the election: waits for its turn, leads, and waits again.
//!
//! Refuses: knowing what a leader does; that is started and ended by [`Office`].

use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Stats;
use super::election::{JITTER_MAX, Observation, RENEW_PERIOD};
use super::lease::{Leases, Write, record};
use super::term::Term;
use crate::clock::boottime_ns;
use crate::identity::kubernetes::describe;

/// How long the lease's return may take at the stop.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// After a renewal that failed the next one comes sooner.
const RETRY: Duration = Duration::from_millis(500);

/// What a leader does.
pub trait Office {
    /// We lead from now on.
    fn begin(&mut self);

    /// We do not lead any more, and nothing of it may be exported.
    fn end(&mut self);
}

/// A candidate.
pub struct Elector<'a, O> {
    leases: Leases,
    term: &'a Term,
    stats: &'a Stats,
    office: O,
    observation: Observation,
    /// An error is said when it begins, not each time.
    is_told: bool,
}

/// Why a term ended.
enum End {
    Lost,
    Stop,
}

type Lease = Box<k8s_openapi::api::coordination::v1::Lease>;

impl<'a, O: Office> Elector<'a, O> {
    /// Knows nothing of the lease yet.
    pub fn new(leases: Leases, term: &'a Term, stats: &'a Stats, office: O) -> Self {
        Self { leases, term, stats, office, observation: Observation::default(), is_told: false }
    }

    /// Runs until `stop` has no sender any more.
    pub async fn run(mut self, mut stop: watch::Receiver<()>) {
        while let Some((lease, sent_ns)) = self.campaign(&mut stop).await {
            self.term.renew(sent_ns);
            Stats::count(&self.stats.elected);
            tracing::info!(identity = self.leases.identity(), "this agent tells of the whole cluster now");
            // What was seen before we led says nothing of what comes after.
            self.observation = Observation::default();
            self.office.begin();
            let (end, lease) = self.lead(lease, &mut stop).await;
            // First nobody exports any more, then the lease is free.
            self.term.end();
            self.office.end();
            match end {
                End::Stop => return self.release(*lease).await,
                End::Lost => {
                    Stats::count(&self.stats.lost);
                    tracing::warn!("the lease is lost: this agent does not tell of the cluster any more");
                }
            }
        }
    }

    /// Waits until the lease is free and takes it; `None` at the stop.
    async fn campaign(&mut self, stop: &mut watch::Receiver<()>) -> Option<(Lease, u64)> {
        let mut changes = std::pin::pin!(self.leases.watch());
        let jitter_ns = fastrand::u64(0..JITTER_MAX.as_nanos() as u64);
        let mut not_before = Instant::now();
        loop {
            let free_at = self.observation.free_at_ns().map(|free_ns| {
                let left_ns = free_ns.saturating_add(jitter_ns).saturating_sub(boottime_ns());
                (Instant::now() + Duration::from_nanos(left_ns)).max(not_before)
            });
            tokio::select! {
                _ = stop.changed() => return None,
                Some(change) = changes.next() => match change {
                    Ok(lease) => {
                        self.is_told = false;
                        self.observation.observe(lease.as_ref().map(record), boottime_ns());
                    }
                    Err(error) => self.fail(&describe(&error)),
                },
                () = sleep_until(free_at.unwrap_or_else(Instant::now)), if free_at.is_some() => {
                    match self.attempt().await {
                        Ok(Some(won)) => return Some(won),
                        Ok(None) => not_before = Instant::now() + RETRY,
                        Err(error) => {
                            self.fail(&format!("{error:#}"));
                            not_before = Instant::now() + RENEW_PERIOD;
                        }
                    }
                }
            }
        }
    }

    /// Reads the lease anew and takes it if it is still free. With it, the moment that the request was sent.
    async fn attempt(&mut self) -> Result<Option<(Lease, u64)>> {
        let read = self.leases.read().await?;
        self.observation.observe(read.as_ref().map(record), boottime_ns());
        if !self.observation.is_free(boottime_ns()) {
            return Ok(None);
        }
        let sent_ns = boottime_ns();
        Ok(match self.leases.take(read).await? {
            Write::Done(lease) => Some((lease, sent_ns)),
            Write::Conflict => None,
        })
    }

    /// Renews the lease until it is lost or the agent stops. With it, the last version of the lease.
    async fn lead(&mut self, mut lease: Lease, stop: &mut watch::Receiver<()>) -> (End, Lease) {
        let mut pause = RENEW_PERIOD;
        loop {
            tokio::select! {
                _ = stop.changed() => return (End::Stop, lease),
                () = sleep(pause.min(self.term.left())) => {}
            }
            let left = self.term.left();
            if left.is_zero() {
                return (End::Lost, lease);
            }
            match timeout(left, self.renew(&lease)).await {
                Ok(Ok(Some((renewed, sent_ns)))) => {
                    (lease, pause, self.is_told) = (renewed, RENEW_PERIOD, false);
                    self.term.renew(sent_ns);
                }
                Ok(Ok(None)) => return (End::Lost, lease),
                Ok(Err(error)) => {
                    self.fail(&format!("{error:#}"));
                    pause = RETRY;
                }
                Err(_) => self.fail("no answer in time"),
            }
        }
    }

    /// Renews once; `None` if somebody else holds the lease. A write of another kind (a label) came before at most.
    async fn renew(&self, lease: &Lease) -> Result<Option<(Lease, u64)>> {
        let sent_ns = boottime_ns();
        if let Write::Done(lease) = self.leases.renew((**lease).clone()).await? {
            return Ok(Some((lease, sent_ns)));
        }
        let read = self.leases.read().await?;
        let Some(read) = read.filter(|read| record(read).holder == self.leases.identity()) else {
            return Ok(None);
        };
        let sent_ns = boottime_ns();
        Ok(match self.leases.renew(read).await? {
            Write::Done(lease) => Some((lease, sent_ns)),
            Write::Conflict => None,
        })
    }

    async fn release(&self, lease: k8s_openapi::api::coordination::v1::Lease) {
        match timeout(RELEASE_MAX, self.leases.release(lease)).await {
            Ok(Ok(Write::Done(_))) => tracing::info!("the lease is given back"),
            Ok(Ok(Write::Conflict)) => tracing::debug!("somebody else holds the lease already"),
            Ok(Err(_)) | Err(_) => {
                Stats::count(&self.stats.lease_errors);
                tracing::warn!("the lease could not be given back: it ends by itself");
            }
        }
    }

    fn fail(&mut self, error: &str) {
        Stats::count(&self.stats.lease_errors);
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                error,
                "the API server does not answer about the lease as it should; it is asked again"
            );
        }
    }
}
