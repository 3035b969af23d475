//! Asking the collector's thread for a snapshot: the server asks from async code, the thread answers from plain code.
//!
//! Refuses: more than [`REQUESTS_MAX`] questions at once, and waiting longer than [`ANSWER_TIMEOUT`].

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::telemetry::Snapshot;

/// Questions that wait for the collector; those beyond are refused at once.
pub const REQUESTS_MAX: usize = 32;
/// How long a question waits.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The side that asks.
#[derive(Clone, Debug)]
pub struct SnapshotRequests {
    sender: SyncSender<SnapshotRequest>,
}

/// The side that answers: the collector's thread.
#[derive(Debug)]
pub struct SnapshotAnswers {
    receiver: Receiver<SnapshotRequest>,
}

/// One question.
#[derive(Debug)]
pub struct SnapshotRequest {
    answer: oneshot::Sender<Arc<Snapshot>>,
}

impl SnapshotRequests {
    /// Both sides.
    pub fn channel() -> (Self, SnapshotAnswers) {
        let (sender, receiver) = sync_channel(REQUESTS_MAX);
        (Self { sender }, SnapshotAnswers { receiver })
    }

    /// A snapshot; nothing if the collector is gone, has too many questions or takes too long.
    pub async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let (sender, receiver) = oneshot::channel();
        self.sender.try_send(SnapshotRequest { answer: sender }).ok()?;
        tokio::time::timeout(ANSWER_TIMEOUT, receiver).await.ok()?.ok()
    }
}

impl SnapshotAnswers {
    /// Waits for a question.
    ///
    /// # Errors
    /// Nobody asked within `timeout`, or nobody will ask any more.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<SnapshotRequest, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }

    /// A question that is there already.
    pub fn try_recv(&self) -> Option<SnapshotRequest> {
        self.receiver.try_recv().ok()
    }

    /// Answers all questions that are there with the same snapshot, so that it is encoded once a format.
    pub fn answer_all(&self, snapshot: &Arc<Snapshot>) {
        for request in self.receiver.try_iter().take(REQUESTS_MAX) {
            request.answer(Arc::clone(snapshot));
        }
    }
}

impl SnapshotRequest {
    /// Answers. A client that left meanwhile is no error.
    pub fn answer(self, snapshot: Arc<Snapshot>) {
        self.answer.send(snapshot).unwrap_or_default();
    }
}
