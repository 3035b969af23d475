//! How many exchanges the node can afford to look at: above it, a share is left out before it costs anything.
//!
//! Refuses: to choose which. That is a hash of the connection and the place in its bytes, so that both ends agree.

/// All of them: shares are of 2^32.
const ALL: f64 = (1u64 << 32) as f64;

/// The budget, and what the second before it needed.
#[derive(Debug)]
pub struct Budget {
    per_second_max: u64,
    seen: u64,
}

impl Budget {
    /// Nothing left out yet.
    pub fn new(per_second_max: u64) -> Self {
        Self { per_second_max, seen: 0 }
    }

    /// The share that is to be left out in the next second, by what there was in the last one. `seen` is since the start,
    /// with those that were left out.
    pub fn next_share(&mut self, seen: u64) -> u32 {
        let exchanges = seen.saturating_sub(self.seen);
        self.seen = seen;
        if exchanges <= self.per_second_max {
            return 0;
        }
        let share = 1.0 - self.per_second_max as f64 / exchanges as f64;
        (share * ALL) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each second has exchanges; expects the share in percent after each.
    fn check(per_second_max: u64, seconds: &[u64], expected: &[u32]) {
        let mut budget = Budget::new(per_second_max);
        let mut seen = 0;
        let mut found = Vec::new();
        for exchanges in seconds {
            seen += exchanges;
            let share = budget.next_share(seen);
            found.push((f64::from(share) * 100.0 / ALL).round() as u32);
        }
        assert_eq!(found, expected, "{seconds:?}");
    }

    #[test]
    fn the_share_follows_the_load() {
        check(1000, &[10, 1000], &[0, 0]);
        check(1000, &[4000, 4000, 2000, 500], &[75, 75, 50, 0]);
        check(0, &[4000], &[100]);
    }
}
