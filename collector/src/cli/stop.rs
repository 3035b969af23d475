//! The user's word to stop: SIGINT or SIGTERM. A second one ends the process at once.
//!
//! Refuses: to be asked over and over. Who waits is woken, so that an agent with nothing to do sleeps.
//! How long a command runs is waited for here, too.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::exit;

/// How often a thread is looked for that ended by itself.
const POLL: Duration = Duration::from_secs(1);

/// Whether to stop.
pub struct Stop {
    is_set: Arc<AtomicBool>,
    /// Each signal writes a byte to the other end.
    bell: UnixStream,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor or handler left.
    pub fn listen() -> Result<Self> {
        let is_set = Arc::new(AtomicBool::new(false));
        let (bell, clapper) = UnixStream::pair().context("cannot make a socket pair")?;
        for signal in [SIGINT, SIGTERM] {
            let clapper = clapper.try_clone().context("cannot duplicate a descriptor")?;
            signal_hook::flag::register_conditional_shutdown(
                signal,
                i32::from(exit::FAILED),
                Arc::clone(&is_set),
            )
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&is_set)))
            .and_then(|_| signal_hook::low_level::pipe::register(signal, clapper))
            .context("cannot listen for signals")?;
        }
        Ok(Self { is_set, bell })
    }

    /// Whether the signal came.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Waits for the signal, for the end of `duration` if there is one, and until something failed.
    pub fn wait_for_end(&self, duration: Option<Duration>, has_failed: impl Fn() -> bool) {
        let end = duration.map(|duration| Instant::now() + duration);
        let left = || end.map_or(POLL, |end| POLL.min(end.saturating_duration_since(Instant::now())));
        while !self.is_set() && !left().is_zero() && !has_failed() {
            self.wait(left());
        }
    }

    /// Waits for the signal, for so long at most.
    pub fn wait(&self, most: Duration) {
        // The socket refuses a time of zero.
        let timeout = Some(most.max(Duration::from_millis(1)));
        if self.is_set() || self.bell.set_read_timeout(timeout).is_err() {
            return;
        }
        let _came_or_did_not = (&self.bell).read(&mut [0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, for a signal reaches all who listen.
    #[test]
    fn what_ends_a_wait() {
        let stop = Stop::listen().expect("descriptors");
        let started = Instant::now();
        stop.wait_for_end(Some(Duration::from_millis(30)), || false);
        assert!((30..1000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        stop.wait_for_end(None, || true);
        stop.wait(Duration::from_millis(20));
        assert!(!stop.is_set());
        let started = Instant::now();
        signal_hook::low_level::raise(SIGTERM).expect("a signal");
        stop.wait(Duration::from_secs(60));
        assert!(stop.is_set() && started.elapsed() < Duration::from_secs(30));
        // What rang before does not matter any more.
        stop.wait(Duration::from_secs(60));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
