//! The stream of a core with an end: the kernel's, our deadline's, or the agent's.
//!
//! To a reader each of them looks like the end of the file, so that what was read can still be finished and kept.
//! [`Stream::is_short`] tells them apart. Refuses: to block beyond the deadline.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::dump::extent::Extent;

/// How soon a stop of the agent is noticed.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// A core as it comes.
pub(super) struct Stream<'a, R> {
    inner: R,
    deadline: Instant,
    stopping: &'a AtomicBool,
    bytes: u64,
    extent: Extent,
    is_cut: bool,
}

impl<'a, R: Read + AsFd> Stream<'a, R> {
    /// Reads from `inner` until the deadline or until the agent stops.
    pub(super) fn new(inner: R, deadline: Instant, stopping: &'a AtomicBool) -> Self {
        Self { inner, deadline, stopping, bytes: 0, extent: Extent::default(), is_cut: false }
    }

    /// Bytes read.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes
    }

    /// Whether less came than the core's own headers announce, or we ended it.
    pub(super) fn is_short(&self) -> bool {
        self.is_cut || self.extent.end().is_some_and(|end| self.bytes < end)
    }

    /// Waits for bytes; `false` if we gave up.
    fn wait(&self) -> io::Result<bool> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let timeout = Timespec::try_from(left.min(STOP_CHECK)).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(&self.inner, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<R: Read + AsFd> Read for Stream<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_cut || !self.wait()? {
            self.is_cut = true;
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        self.extent.feed(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
