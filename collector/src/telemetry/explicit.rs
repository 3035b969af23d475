//! Distributions as applications make them: buckets of chosen bounds, and quantiles.
//!
//! OpenTelemetry metrics data model, "Histogram" and "Summary (Legacy)". Refuses: re-bucketing.

use super::Exemplar;

/// How often which values were seen, by buckets of chosen bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExplicitHistogram {
    /// Upper bounds (inclusive) of all buckets but the last, which has none; finite, ascending.
    pub bounds: Vec<f64>,
    /// Counts of the buckets, not cumulative; one more than `bounds`.
    pub counts: Vec<u64>,
    /// Sum of all values, if known.
    pub sum: Option<f64>,
    /// Values with where they came from.
    pub exemplars: Vec<Exemplar>,
}

impl ExplicitHistogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What came since `older`; `None` if that is no earlier state of the same distribution.
    pub fn minus(&self, older: &Self) -> Option<Self> {
        if self.bounds != older.bounds || self.counts.len() != older.counts.len() {
            return None;
        }
        let counts = self.counts.iter().zip(&older.counts).map(|(now, before)| now.checked_sub(*before));
        let sum = self.sum.zip(older.sum).map(|(now, before)| now - before);
        Some(Self {
            bounds: self.bounds.clone(),
            counts: counts.collect::<Option<_>>()?,
            sum,
            exemplars: Vec::new(),
        })
    }
}

/// Quantiles that the source computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Quantile (0 to 1) and its value; NaN if nothing was seen lately.
    pub quantiles: Vec<(f64, f64)>,
    /// Sum of all values; 0 if not known.
    pub sum: f64,
    /// How many values.
    pub count: u64,
}
