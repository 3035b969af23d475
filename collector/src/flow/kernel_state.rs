//! What the kernel's state of connections tells that no record does: what moved, what was lost last, and who is gone.
//!
//! Refuses: connections that nobody knows of.

use std::sync::Arc;

use collector_common::flow::ConnectionState;
use collector_common::limits::SILENCE_S;

use super::{Flows, network};

/// A socket that tells no end and says nothing for so long is forgotten, and a TCP connection, whose end must have been lost. One
/// that is used again is told anew.
const SILENT_IDLE_NS: u64 = 60_000_000_000;
pub(super) const STREAM_IDLE_NS: u64 = 3_600_000_000_000;

const _: () = assert!(SILENT_IDLE_NS > 1_000_000_000 * SILENCE_S as u64);

/// A connection that nobody takes up for so long is the host's.
pub(super) const UNOWNED_NS: u64 = 10_000_000_000;

/// How often it is asked how much has moved, at most.
pub(super) const COUNT_NS: u64 = 1_000_000_000;

impl Flows {
    /// Asks for the kernel's state of each connection: its key, its number, and whether it is of datagrams. Counts what has moved
    /// until now, and gives up those whose end was lost. Does nothing soon after the last time.
    pub fn count_moved(&mut self, now_ns: u64, state: impl Fn(u64, u64, bool) -> Option<ConnectionState>) {
        if now_ns.saturating_sub(self.counted_ns) < COUNT_NS {
            return;
        }
        self.counted_ns = now_ns;
        let mut ended = Vec::new();
        for (number, connection) in &mut self.connections {
            // Somebody may be about to take it up, who shall have opened it.
            let is_new = now_ns.saturating_sub(connection.last_ns) < UNOWNED_NS;
            if connection.path.is_some() || (is_new && !network::is_known(connection)) {
                continue;
            }
            self.networks.place(connection, now_ns);
            let Some(state) = state(connection.key, *number, connection.is_datagram()) else {
                // Its end is on its way; if it was on its way the last time too, it was lost.
                if connection.tells_end() && std::mem::replace(&mut connection.is_gone, true) {
                    ended.push(*number);
                }
                continue;
            };
            let peer = self.linker.other_end(connection).map(|other| Arc::clone(&other.subject));
            if self.networks.moved(connection, peer, state.moved, now_ns) {
                connection.last_ns = now_ns;
            }
        }
        for number in ended {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.abandon(&mut self.output);
            }
            self.forget(number, now_ns);
        }
    }

    /// Counts what was lost of connections that go on.
    pub fn catch_up(&mut self, state: impl Fn(u64, u64, bool) -> Option<ConnectionState>) {
        let mut lost = 0;
        for (number, connection) in &mut self.connections {
            if let Some(state) = state(connection.key, *number, connection.is_datagram()) {
                connection.catch_up(state.messages, state.turns);
                lost += connection.take_lost_exchanges();
            }
        }
        self.count_lost(lost);
    }

    /// Forgets connections that say nothing any more.
    pub(super) fn sweep(&mut self, now_ns: u64, state: impl Fn(u64, u64, bool) -> Option<ConnectionState>) {
        let idle: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let most = match connection.tells_end() {
                    true => STREAM_IDLE_NS,
                    false if connection.is_datagram() || connection.is_idle() => SILENT_IDLE_NS,
                    false => STREAM_IDLE_NS,
                };
                now_ns.saturating_sub(connection.last_ns) > most
            })
            .map(|(number, _)| *number)
            .collect();
        for number in idle {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            let state = (!connection.tells_end())
                .then(|| state(connection.key, number, connection.is_datagram()))
                .flatten();
            if let Some(state) = &state {
                let silence_s = ((now_ns / 1_000_000_000) as u32).wrapping_sub(state.used_s);
                if silence_s <= SILENCE_S {
                    // What it says is left out or lost. The kernel side tells it anew after a silence only.
                    continue;
                }
            }
            match state {
                Some(state) => connection.finish_after(state.messages, state.turns, now_ns, &mut self.output),
                // What it waits for may be among what was lost.
                None if connection.heard_ns <= self.lost_ns => connection.abandon(&mut self.output),
                None => connection.finish(now_ns, &mut self.output),
            }
            let lost = connection.take_lost_exchanges();
            self.count_lost(lost);
            self.forget(number, now_ns);
        }
    }
}
