//! Exponential histograms: buckets whose bounds are powers of one base.
//!
//! Bucket `index` holds values in `(base^index, base^(index+1)]`, `base = 2^(2^-scale)`: OpenTelemetry metrics data
//! model, "ExponentialHistogram". Refuses: negative values, and values that are not finite.

use std::sync::Arc;

/// How often which values were seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExponentialHistogram {
    /// Resolution: the base is `2^(2^-scale)`.
    pub scale: i32,
    /// Index of the first of `buckets`.
    pub offset: i32,
    /// Counts of adjacent buckets.
    pub buckets: Vec<u64>,
    /// Values that were zero.
    pub zero_count: u64,
    /// Sum of all values.
    pub sum: f64,
    /// Values with where they came from.
    pub exemplars: Vec<Exemplar>,
}

/// A value with what it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The value.
    pub value: f64,
    /// When, nanoseconds since the epoch.
    pub time_unix_ns: u64,
    /// The trace it is of, if any; lower-case hexadecimal, 32 characters.
    pub trace_id: Option<Arc<str>>,
    /// The span it is of, if any; lower-case hexadecimal, 16 characters.
    pub span_id: Option<Arc<str>>,
    /// More about it, such as the process.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl ExponentialHistogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(self.zero_count, |sum, count| sum.saturating_add(*count))
    }

    /// Upper bound of the bucket at `position` in `buckets`, in the unit of the values.
    pub fn upper_bound(&self, position: usize) -> f64 {
        let exponent = (f64::from(self.offset) + position as f64 + 1.0) * f64::from(-self.scale).exp2();
        exponent.exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scale: i32, offset: i32, position: usize, expected: f64) {
        let histogram = ExponentialHistogram { scale, offset, ..ExponentialHistogram::default() };
        let found = histogram.upper_bound(position);
        assert!((found - expected).abs() < expected * 1e-12, "{scale} {offset} {position}: {found}");
    }

    #[test]
    fn bounds() {
        check(0, 0, 0, 2.0);
        check(0, -1, 0, 1.0);
        check(0, -30, 3, (-26f64).exp2());
        check(1, 0, 0, std::f64::consts::SQRT_2);
        check(2, 3, 0, 2.0);
        check(-1, 0, 0, 4.0);
    }
}
