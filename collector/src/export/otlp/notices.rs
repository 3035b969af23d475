//! Tells the user when a backend stops or starts answering: once per change, and not more than once a minute.
//!
//! Refuses to count: the loss ledger does. It also keeps the agent's own logs, which travel through the exporter
//! too, from feeding on their own failure.

use std::time::Duration;

use tokio::time::Instant;

use super::{Signal, answer::Answer};

/// Shortest time between two warnings of one kind.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// What the user has been told about one signal's backend.
pub(super) struct Notices {
    signal: Signal,
    /// Scheme, host and port; a path or query may hold tokens.
    backend: String,
    health: Health,
    /// When it went wrong, if the user was told.
    told: Option<Instant>,
    changes: Throttle,
    messages: Throttle,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Health {
    Up,
    /// Doesn't answer, or asks for patience.
    Down,
    /// Answers that it doesn't want the payloads.
    Refusing,
}

#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
}

impl Notices {
    pub(super) fn new(signal: Signal, backend: &str) -> Notices {
        Notices {
            signal,
            backend: backend.to_owned(),
            health: Health::Up,
            told: None,
            changes: Throttle::default(),
            messages: Throttle::default(),
        }
    }

    pub(super) fn observe(&mut self, answer: &Answer, now: Instant) {
        let (signal, backend) = (self.signal, self.backend.as_str());
        match answer {
            Answer::Accepted { rejected, notice } => {
                if let Some(since) = self.told.take() {
                    let down_s = now.duration_since(since).as_secs();
                    tracing::info!(%signal, backend, down_s, "the backend takes data again");
                }
                self.health = Health::Up;
                if (*rejected > 0 || notice.is_some()) && self.messages.ready(now) {
                    let notice = notice.as_deref().unwrap_or("no reason given");
                    tracing::warn!(%signal, backend, rejected, notice, "the backend took the data with a remark");
                }
            }
            Answer::Retry { why, .. } => {
                if self.worsens(Health::Down, now) {
                    tracing::warn!(%signal, backend = self.backend, why, "the backend takes no data; trying on");
                }
            }
            Answer::Refused { why } => {
                if self.worsens(Health::Refusing, now) {
                    tracing::warn!(%signal, backend = self.backend, why, "the backend refuses data, which is lost");
                }
            }
        }
    }

    /// Notes the change and whether to tell about it. An untold change stays pending, so that the next failure past
    /// the interval tells it.
    fn worsens(&mut self, health: Health, now: Instant) -> bool {
        if (self.health == health && self.told.is_some()) || !self.changes.ready(now) {
            return false;
        }
        self.health = health;
        self.told.get_or_insert(now);
        true
    }
}

impl Throttle {
    fn ready(&mut self, now: Instant) -> bool {
        let ready = self.last.is_none_or(|last| now.duration_since(last) >= WARNING_INTERVAL);
        if ready {
            self.last = Some(now);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `(second, health)` and expects the seconds at which a change for the worse is told.
    #[track_caller]
    fn check(observed: &[(u64, Health)], expected_s: &[u64]) {
        let start = Instant::now();
        let mut notices = Notices::new(Signal::Logs, "http://backend:4318");
        let mut told = Vec::new();
        for (second, health) in observed {
            let now = start + Duration::from_secs(*second);
            if *health == Health::Up {
                notices.observe(&Answer::Accepted { rejected: 0, notice: None }, now);
                assert_eq!(notices.told, None);
            } else if notices.worsens(*health, now) {
                told.push(*second);
            }
        }
        assert_eq!(told, expected_s);
    }

    #[test]
    fn changes_are_told_once() {
        use Health::{Down, Refusing, Up};
        check(&[(0, Up), (1, Up)], &[]);
        check(&[(0, Down), (1, Down), (100, Down), (5000, Down)], &[0]);
        check(&[(0, Down), (100, Up), (200, Down)], &[0, 200]);
        check(&[(0, Down), (100, Refusing), (101, Refusing)], &[0, 100]);
    }

    #[test]
    fn flapping_is_told_once_a_minute() {
        use Health::{Down, Refusing, Up};
        check(&[(0, Down), (1, Up), (2, Down), (3, Up), (4, Down), (61, Down), (62, Down)], &[0, 61]);
        check(&[(0, Refusing), (1, Up), (30, Refusing), (31, Up), (90, Refusing)], &[0, 90]);
    }
}
