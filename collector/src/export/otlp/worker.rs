//! Takes one signal's payloads, one at a time, and tries each until it arrives, is refused, or has had its time.
//!
//! Refuses concurrency within a signal: one request in flight bounds memory and keeps the order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    DropReason, Limits, Signal,
    answer::Answer,
    notices::Notices,
    queue::{Flight, Queue},
    retry,
    transport::Transport,
};
use crate::clock::monotonic_ns;
use crate::health::Pulse;

/// What one signal needs to be exported.
pub(super) struct Worker {
    signal: Signal,
    queue: Arc<Queue>,
    transport: Transport,
    limits: Limits,
    stopping: watch::Receiver<Option<Duration>>,
    notices: Notices,
}

/// Drives the workers until the exporter stops, and then on until its deadline. Whatever is left is dropped as
/// `Shutdown`.
pub(super) async fn run(
    workers: Vec<Worker>,
    queue: Arc<Queue>,
    mut stopping: watch::Receiver<Option<Duration>>,
    pulse: Pulse,
) {
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(worker.run());
    }
    // An error says that every handle is gone without a stop: nobody waits, so nothing is worth a delay.
    let deadline = tokio::select! {
        seen = stopping.wait_for(Option::is_some) => seen.map_or(None, |seen| *seen).unwrap_or_default(),
        never = pulse.beat_with(&mut tasks, monotonic_ns) => match never {},
    };
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "an export worker died");
            }
        }
    };
    if timeout(deadline, finish).await.is_err() {
        tasks.shutdown().await;
    }
    queue.abandon();
}

impl Worker {
    pub(super) fn new(
        signal: Signal,
        queue: Arc<Queue>,
        transport: Transport,
        limits: Limits,
        stopping: watch::Receiver<Option<Duration>>,
    ) -> Worker {
        let notices = Notices::new(signal, transport.name());
        Worker { signal, queue, transport, limits, stopping, notices }
    }

    async fn run(mut self) {
        while let Some(flight) = self.queue.next(self.signal).await {
            self.deliver(flight).await;
        }
    }

    /// Tries one payload until its end is known. The last attempt starts within `retry_elapsed_max` of the first.
    async fn deliver(&mut self, flight: Flight) {
        let started = Instant::now();
        let mut delays = retry::delays(&self.limits);
        loop {
            let answer = self.transport.send(flight.body()).await;
            self.notices.observe(&answer, Instant::now());
            let asked = match answer {
                Answer::Accepted { rejected, .. } => return flight.exported(rejected),
                Answer::Refused { .. } => return flight.dropped(DropReason::Refused),
                Answer::Retry { after, .. } => after,
            };
            let own = delays.next().unwrap_or(self.limits.retry_delay_max);
            let delay = retry::delay(own, asked, self.limits.retry_delay_max);
            if started.elapsed().saturating_add(delay) > self.limits.retry_elapsed_max {
                return flight.dropped(DropReason::RetryExhausted);
            }
            self.pause(delay, asked.is_some()).await;
        }
    }

    /// Waits before a retry. A stop cuts a wait of our own short, once, since there may be no later chance; a wait
    /// that the backend asked for is kept.
    async fn pause(&mut self, delay: Duration, asked: bool) {
        if asked {
            return sleep(delay).await;
        }
        tokio::select! {
            () = sleep(delay) => {}
            _ = self.stopping.changed() => {}
        }
    }
}
