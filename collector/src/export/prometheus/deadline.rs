//! How long a connection may take for what it is doing: sending a head, reading an answer, being idle.
//!
//! hyper has no deadline for writing; a client that does not read would hold its answer for ever. Refuses: to judge
//! speed, only the whole time counts.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The time for each phase.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a head to its last, and for a TLS handshake.
    pub head: Duration,
    /// From a head to the last byte of its answer.
    pub response: Duration,
    /// From an answer to the next head.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // Prometheus scrapes each 15 to 60 s over one connection.
        Self {
            head: Duration::from_secs(10),
            response: Duration::from_secs(30),
            idle: Duration::from_secs(150),
        }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing since the last answer.
    Idle,
    /// A head arrives.
    Head,
    /// A head is here, the answer is being made.
    Answering,
    /// The answer is on its way.
    Sending,
}

/// The clock of one connection, shared by its stream and its service.
#[derive(Debug)]
pub struct Clock {
    timeouts: Timeouts,
    phase: Cell<Phase>,
    deadline: Cell<Instant>,
    changed: Notify,
}

impl Clock {
    /// A new connection, of which a head is expected.
    pub fn new(timeouts: Timeouts) -> Self {
        let deadline = Cell::new(Instant::now() + timeouts.head);
        Self { timeouts, phase: Cell::new(Phase::Head), deadline, changed: Notify::new() }
    }

    /// From now on the connection is in `phase`. Sending has what answering left of the time.
    pub fn enter(&self, phase: Phase) {
        let before = self.phase.replace(phase);
        let timeout = match phase {
            Phase::Idle => self.timeouts.idle,
            Phase::Head => self.timeouts.head,
            Phase::Sending if before == Phase::Answering => return,
            Phase::Answering | Phase::Sending => self.timeouts.response,
        };
        self.deadline.set(Instant::now() + timeout);
        self.changed.notify_one();
    }

    /// Waits until a deadline passes; the phase that took too long.
    pub async fn expired(&self) -> Phase {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(self.deadline.get()) => return self.phase.get(),
                () = self.changed.notified() => {}
            }
        }
    }
}

/// A stream that tells its clock of heads that begin and answers that are out.
pub struct ClockedStream<S> {
    stream: S,
    clock: Rc<Clock>,
}

impl<S> ClockedStream<S> {
    /// Around `stream`.
    pub fn new(stream: S, clock: Rc<Clock>) -> Self {
        Self { stream, clock }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClockedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before && self.clock.phase.get() == Phase::Idle {
            self.clock.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClockedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes a stream when all of an answer was written to it.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.clock.phase.get() == Phase::Sending {
            self.clock.enter(Phase::Idle);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
