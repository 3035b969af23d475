//! Lets so many deaths of one kind through in a minute, holds the last one back, and counts the rest.
//!
//! When a minute of a key is over, the death that was held comes out with the number of those it stands for: so what
//! came out, what it stands for and what was refused is exactly what died. Refuses: clocks; time is an argument.

use std::collections::HashMap;
use std::hash::Hash;

/// Length of a key's period.
const PERIOD_NS: u64 = 60_000_000_000;

/// Keys at once. Deaths of more are refused.
const KEYS_MAX: usize = 1_024;

/// Deaths by key.
pub struct Limiter<K, D> {
    keys: HashMap<K, Period<D>>,
    per_period_max: u32,
}

struct Period<D> {
    start_ns: u64,
    passed: u32,
    held: Option<D>,
    /// Deaths that `held` stands for, itself not counted.
    suppressed: u64,
}

/// What became of a death.
#[derive(Debug, PartialEq, Eq)]
pub enum Passage<D> {
    /// It goes on.
    Passes(D),
    /// It waits, to stand for those that waited before it.
    Held,
    /// There are too many keys: nothing will stand for it.
    Refused,
}

impl<K: Hash + Eq + Clone, D> Limiter<K, D> {
    /// Lets `per_period_max` deaths of a key through in a minute.
    pub fn new(per_period_max: u32) -> Self {
        Self { keys: HashMap::new(), per_period_max }
    }

    /// Whether a death of this key passes now.
    pub fn has_room(&self, key: &K) -> bool {
        match self.keys.get(key) {
            Some(period) => period.passed < self.per_period_max,
            None => self.keys.len() < KEYS_MAX,
        }
    }

    /// Decides about a death.
    pub fn admit(&mut self, key: K, death: D, now_ns: u64) -> Passage<D> {
        if !self.keys.contains_key(&key) && self.keys.len() >= KEYS_MAX {
            return Passage::Refused;
        }
        let period =
            self.keys.entry(key).or_insert(Period { start_ns: now_ns, passed: 0, held: None, suppressed: 0 });
        if period.passed < self.per_period_max {
            period.passed += 1;
            return Passage::Passes(death);
        }
        period.suppressed += u64::from(period.held.replace(death).is_some());
        Passage::Held
    }

    /// Takes the deaths out whose minute is over, with the number of those they stand for. `u64::MAX` takes all.
    pub fn take_due(&mut self, now_ns: u64) -> Vec<(D, u64)> {
        let mut due = Vec::new();
        self.keys.retain(|_, period| {
            let is_over = now_ns.saturating_sub(period.start_ns) >= PERIOD_NS;
            if is_over && let Some(held) = period.held.take() {
                due.push((held, period.suppressed));
            }
            !is_over
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Admits deaths by (key, time in seconds) with a limit of 2; expects how many pass, and what is due at 60 s.
    fn check(deaths: &[(char, u64)], expected_passed: usize, expected_due: &[(u64, u64)]) {
        let mut limiter = Limiter::new(2);
        let mut passed = 0;
        for &(key, time) in deaths {
            passed += usize::from(matches!(limiter.admit(key, time, time * SECOND), Passage::Passes(_)));
        }
        let mut due = limiter.take_due(60 * SECOND);
        due.sort_unstable();
        assert_eq!((passed, due.as_slice()), (expected_passed, expected_due), "{deaths:?}");
        let stood_for: u64 = due.iter().map(|(_, suppressed)| suppressed + 1).sum();
        assert_eq!(passed as u64 + stood_for, deaths.len() as u64);
    }

    #[test]
    fn limits_and_sums() {
        check(&[], 0, &[]);
        check(&[('a', 0), ('a', 0)], 2, &[]);
        check(&[('a', 0), ('a', 0), ('a', 1), ('a', 2), ('a', 3)], 2, &[(3, 2)]);
        check(&[('a', 0), ('b', 0), ('a', 0), ('b', 0), ('b', 7)], 4, &[(7, 0)]);
    }

    #[test]
    fn a_new_period_starts_with_nothing_suppressed() {
        let mut limiter = Limiter::new(1);
        assert_eq!(limiter.admit('a', 1, 0), Passage::Passes(1));
        assert_eq!(limiter.admit('a', 2, 0), Passage::Held);
        assert_eq!(limiter.admit('a', 3, 0), Passage::Held);
        assert_eq!(limiter.take_due(SECOND), []);
        assert_eq!(limiter.take_due(u64::MAX), [(3, 1)]);
        assert_eq!(limiter.admit('a', 4, 61 * SECOND), Passage::Passes(4));
    }

    #[test]
    fn too_many_keys_are_refused() {
        let mut limiter = Limiter::new(1);
        for key in 0..KEYS_MAX {
            assert_eq!(limiter.admit(key, (), 0), Passage::Passes(()));
        }
        assert_eq!(limiter.admit(KEYS_MAX, (), 0), Passage::Refused);
    }
}
