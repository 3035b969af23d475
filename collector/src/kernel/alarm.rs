//! What ends the pipeline's pause before its time: a ring that fills, and the stop.
//!
//! Only wake-ups of the kernel count, not that there is something in a ring: most of the time there is. Refuses: to say which it was.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

/// Wake-ups that are taken at a time.
const EVENTS_MAX: usize = 2;

/// Ends pauses.
#[derive(Debug)]
pub struct Alarm {
    queue: OwnedFd,
    bell: OwnedFd,
}

impl Alarm {
    /// One that nothing but [`Alarm::ring`] sets off.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn new() -> Result<Self> {
        let queue = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an event queue")?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an event descriptor")?;
        let alarm = Self { queue, bell };
        alarm.watch(&alarm.bell)?;
        Ok(alarm)
    }

    /// Is set off by this descriptor's wake-ups too.
    pub(super) fn watch(&self, source: impl AsFd) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&self.queue, source, epoll::EventData::new_u64(0), flags)
            .context("cannot watch for wake-ups")
    }

    /// Ends the pause that goes on, or the next one.
    pub fn ring(&self) {
        // Its number is never taken: it can't be full before there were 2^64 stops.
        let _told = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Waits until it is set off, for so long at most.
    pub fn pause(&self, most: Duration) {
        let timeout = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        let mut events = Vec::with_capacity(EVENTS_MAX);
        // A signal ends it too, which costs a turn. Where nothing else can be waited for, time still passes.
        match epoll::wait(&self.queue, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Expects that the next pause ends before its time, and the one after that does not.
    fn check_ends_one_pause(alarm: &Alarm) {
        let begin = Instant::now();
        alarm.pause(LONG);
        assert!(begin.elapsed() < LONG / 2);
        let begin = Instant::now();
        let short = Duration::from_millis(20);
        alarm.pause(short);
        assert!(begin.elapsed() >= short);
    }

    #[test]
    fn a_ring_ends_one_pause() {
        let alarm = Alarm::new().expect("descriptors");
        alarm.ring();
        check_ends_one_pause(&alarm);
    }

    #[test]
    fn what_is_there_already_is_no_wake_up() {
        let alarm = Alarm::new().expect("descriptors");
        let source = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
        alarm.watch(&source).expect("it can be watched");
        rustix::io::write(&source, &1u64.to_ne_bytes()).expect("there is room");
        check_ends_one_pause(&alarm);
    }
}
