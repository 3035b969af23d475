//! Medians and spreads, and how numbers are written in the report.
//!
//! Refuses: means of repeated runs; one disturbed run would move them.

use std::time::Duration;

/// The middle and the extent of repeated runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub runs: usize,
}

impl Spread {
    /// `None` without runs.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&least, &most) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, least, most, runs: sorted.len() })
    }

    /// Such as `9950 (9800 to 10100)`.
    pub fn text(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$} to {:.decimals$})", self.median, self.least, self.most)
    }
}

/// The least value that so many percent do not exceed; 0 of nothing is 0.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Part of a whole in percent; 0 of nothing is 0.
pub fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// Kibibytes as the report writes memory.
pub fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

/// Such as `60 s` or `1.5 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_odd_even_and_no_runs() {
        let spread =
            |values: &[f64]| Spread::of(values).map(|spread| (spread.median, spread.least, spread.most));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&values, percent)), [100.0, 198.0, 200.0]);
        assert_eq!([0, 50, 99].map(|percent| percentile(&[7.0], percent)), [7.0; 3]);
        assert_eq!(percentile(&[], 99), 0.0);
    }

    #[test]
    fn a_part_of_nothing_is_nothing() {
        assert_eq!(percent(1.0, 4.0), 25.0);
        assert_eq!(percent(0.0, 0.0), 0.0);
    }
}
