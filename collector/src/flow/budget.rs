//! How many exchanges the node can afford to look at: above it, a share is left out before it costs anything.
//!
//! Refuses: to choose which. That is a hash of the connection and the place in its bytes, so that both ends agree.

/// All of them: shares are of 2^32.
const ALL: f64 = (1u64 << 32) as f64;

const SECOND_NS: u64 = 1_000_000_000;

/// The budget, and what this second needed so far.
#[derive(Debug)]
pub struct Budget {
    per_second_max: u64,
    second_start_ns: u64,
    seen_at_start: u64,
    share: u32,
}

impl Budget {
    /// Nothing left out yet.
    pub fn new(per_second_max: u64) -> Self {
        Self { per_second_max, second_start_ns: 0, seen_at_start: 0, share: 0 }
    }

    /// The share that is to be left out from now on. `seen` is since the start, with those that were left out. It follows
    /// each second's load, and rises at once in a second that is over already.
    pub fn share(&mut self, now_ns: u64, seen: u64) -> u32 {
        let elapsed_ns = now_ns.saturating_sub(self.second_start_ns);
        let exchanges = seen.saturating_sub(self.seen_at_start);
        let is_whole = elapsed_ns >= SECOND_NS;
        if is_whole || exchanges > self.per_second_max {
            let per_second = exchanges as f64 * SECOND_NS as f64 / elapsed_ns.max(1) as f64;
            let over = (1.0 - self.per_second_max as f64 / per_second.max(1.0)).max(0.0);
            let share = (over * ALL) as u32;
            self.share = if is_whole { share } else { self.share.max(share) };
        }
        if is_whole {
            (self.second_start_ns, self.seen_at_start) = (now_ns, seen);
        }
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At each moment, in milliseconds, so many exchanges were seen in all; expects the share in percent.
    fn check(per_second_max: u64, moments: &[(u64, u64)], expected: &[u32]) {
        let mut budget = Budget::new(per_second_max);
        let share = |&(moment_ms, seen): &(u64, u64)| {
            let share = budget.share(moment_ms * 1_000_000, seen);
            (f64::from(share) * 100.0 / ALL).round() as u32
        };
        let found: Vec<u32> = moments.iter().map(share).collect();
        assert_eq!(found, expected, "{moments:?}");
    }

    #[test]
    fn the_share_follows_the_load() {
        check(1000, &[(1000, 10), (2000, 1010)], &[0, 0]);
        check(1000, &[(1000, 4000), (2000, 8000), (3000, 10_000), (4000, 10_500)], &[75, 75, 50, 0]);
        check(0, &[(1000, 4000)], &[100]);
    }

    #[test]
    fn a_storm_is_met_within_its_second() {
        check(1000, &[(1000, 0), (1100, 900), (1200, 2000), (1500, 2100), (2000, 2200)], &[0, 0, 90, 90, 55]);
    }
}
