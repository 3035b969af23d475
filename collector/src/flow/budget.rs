//! How many exchanges the node can afford to look at: above it, a share is left out before it costs much.
//!
//! What is left out still has to be counted: its messages take some 0.1 microseconds each in the kernel, while one that is
//! looked at takes 0.5 there and 4 in the daemon with its span. So the budget pays for both, and of a flood fewer are looked at,
//! which are enough: they are a sample then anyway. Refuses: to choose which. That is a hash of the connection and the place in its bytes, so that both ends agree.

/// All of them: shares are of 2^32.
const ALL: f64 = (1u64 << 32) as f64;

/// So many that are left out cost what one costs that is looked at, by the kernel's BPF statistics and the agent's processor time
/// beside nginx at full load.
const SKIPPED_PER_LOOK: u64 = 20;

/// What is looked at however many are left out, a part of the budget.
const LEAST_PART: u64 = 10;

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
            let over = (1.0 - self.affordable(per_second as u64) as f64 / per_second.max(1.0)).max(0.0);
            let share = (over * ALL) as u32;
            self.share = if is_whole { share } else { self.share.max(share) };
        }
        if is_whole {
            (self.second_start_ns, self.seen_at_start) = (now_ns, seen);
        }
        self.share
    }

    /// How many can be looked at of so many in a second.
    fn affordable(&self, per_second: u64) -> u64 {
        let over = per_second.saturating_sub(self.per_second_max);
        let left = self.per_second_max.saturating_sub(over / SKIPPED_PER_LOOK);
        left.max(self.per_second_max / LEAST_PART)
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
        check(1000, &[(1000, 4000), (2000, 8000), (3000, 10_000), (4000, 10_500)], &[79, 79, 52, 0]);
        check(0, &[(1000, 4000)], &[100]);
    }

    #[test]
    fn what_is_left_out_costs_too() {
        check(1000, &[(1000, 11_000), (2000, 22_000)], &[95, 95]);
        check(1000, &[(1000, 100_000)], &[100]);
        let affordable: Vec<u64> =
            [500, 1000, 3000, 11_000, 1_000_000].map(|n| Budget::new(1000).affordable(n)).into();
        assert_eq!(affordable, [1000, 1000, 900, 500, 100]);
    }

    #[test]
    fn a_storm_is_met_within_its_second() {
        check(1000, &[(1000, 0), (1100, 900), (1200, 2000), (1500, 2100), (2000, 2200)], &[0, 0, 94, 94, 57]);
    }
}
