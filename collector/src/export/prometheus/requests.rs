//! Asking the collector's thread for a snapshot: the server asks from async code, the thread answers from plain code.
//!
//! Refuses: more than [`REQUESTS_MAX`] questions at once, and waiting longer than [`ANSWER_TIMEOUT`].

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
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
    answerer: Arc<OnceLock<Thread>>,
}

/// The side that answers: the collector's thread.
#[derive(Debug)]
pub struct SnapshotAnswers {
    receiver: Receiver<SnapshotRequest>,
    /// Who waits for questions.
    answerer: Arc<OnceLock<Thread>>,
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
        let answerer = Arc::new(OnceLock::new());
        (Self { sender, answerer: Arc::clone(&answerer) }, SnapshotAnswers { receiver, answerer })
    }

    /// A snapshot; nothing if the collector is gone, has too many questions or takes too long.
    pub async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        let (sender, receiver) = oneshot::channel();
        self.sender.try_send(SnapshotRequest { answer: sender }).ok()?;
        // Before its first wait it looks by itself.
        self.answerer.get().into_iter().for_each(Thread::unpark);
        tokio::time::timeout(ANSWER_TIMEOUT, receiver).await.ok()?.ok()
    }
}

impl SnapshotAnswers {
    /// Waits for a question, for so long at most; whoever unparks the thread ends the wait, too.
    pub fn wait(&self, most: Duration) -> Option<SnapshotRequest> {
        self.answerer.get_or_init(thread::current);
        self.try_recv().or_else(|| {
            thread::park_timeout(most);
            self.try_recv()
        })
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
