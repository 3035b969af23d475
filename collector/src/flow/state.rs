//! How much memory the states of all connections' protocols take together: bounded, whatever is said over how many.
//!
//! Above the bound the largest states are dropped, until a quarter is free again: so looking for them costs little for each byte that
//! comes. Refuses: what a protocol keeps of one connection, which is bounded there.

use std::collections::HashMap;

use crate::telemetry::{Metric, MetricKind, Owner, Point};

/// Bytes of all states together.
pub const STATE_BYTES_MAX: usize = 32 << 20;

/// What is left of them when some must go.
const STATE_BYTES_KEPT: usize = STATE_BYTES_MAX / 4 * 3;

/// The sizes of states, by the number of the connection.
#[derive(Debug, Default)]
pub struct States {
    held: HashMap<u64, usize>,
    sum_bytes: usize,
    /// States that were dropped since the start.
    pub dropped: u64,
}

impl States {
    /// The state of a connection has so many bytes now; none is 0.
    pub fn set(&mut self, connection: u64, bytes: usize) {
        let before =
            if bytes == 0 { self.held.remove(&connection) } else { self.held.insert(connection, bytes) };
        self.sum_bytes = self.sum_bytes + bytes - before.unwrap_or(0);
    }

    /// All of them.
    pub fn sum_bytes(&self) -> usize {
        self.sum_bytes
    }

    /// The connections whose states must be dropped, the largest first; mostly none. They count as dropped.
    pub fn excess(&mut self) -> Vec<u64> {
        if self.sum_bytes <= STATE_BYTES_MAX {
            return Vec::new();
        }
        let mut sizes: Vec<(usize, u64)> =
            self.held.iter().map(|(number, bytes)| (*bytes, *number)).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let mut excess = self.sum_bytes - STATE_BYTES_KEPT;
        let enough = |(bytes, _): &(usize, u64)| {
            let is_needed = excess > 0;
            excess = excess.saturating_sub(*bytes);
            is_needed
        };
        let numbers: Vec<u64> = sizes.into_iter().take_while(enough).map(|(_, number)| number).collect();
        self.dropped += numbers.len() as u64;
        numbers
    }

    /// What is kept, and how often something had to go since `start_unix_ns`.
    pub fn metrics(&self, start_unix_ns: u64) -> [Metric; 2] {
        let dropped = Point::number(Owner::Agent, Vec::new(), start_unix_ns, self.dropped as f64);
        let held = Point::number(Owner::Agent, Vec::new(), 0, self.sum_bytes() as f64);
        [
            Metric::new(
                MetricKind::Counter,
                "kansoku.flow.states.dropped",
                "{connection}",
                "States of protocols that were dropped because all together were too large.",
            )
            .with(vec![dropped]),
            Metric::new(
                MetricKind::Gauge,
                "kansoku.flow.states.size",
                "By",
                "About the memory that connections' protocols keep.",
            )
            .with(vec![held]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets sizes of connections 0, 1, 2 …; expects which must go.
    fn check(sizes: &[usize], expected: &[u64]) {
        let mut states = States::default();
        sizes.iter().enumerate().for_each(|(number, bytes)| states.set(number as u64, *bytes));
        assert_eq!(states.sum_bytes(), sizes.iter().sum::<usize>());
        assert_eq!(states.excess(), expected);
        assert_eq!(states.dropped, expected.len() as u64);
    }

    #[test]
    fn the_largest_go_until_there_is_room() {
        check(&[], &[]);
        check(&[STATE_BYTES_MAX], &[]);
        check(&[STATE_BYTES_MAX, 1], &[0]);
        check(&[STATE_BYTES_MAX / 2, STATE_BYTES_MAX / 2 + 1, 5], &[1]);
        check(&[1, STATE_BYTES_KEPT, STATE_BYTES_KEPT - 1], &[1]);
    }

    #[test]
    fn sizes_follow_their_states() {
        let mut states = States::default();
        for (bytes, sum) in [(7, 7), (3, 3), (0, 0), (0, 0)] {
            states.set(1, bytes);
            assert_eq!(states.sum_bytes(), sum);
        }
    }
}
