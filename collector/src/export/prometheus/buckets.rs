//! Exponential histograms -> the buckets of Prometheus, classic and native.
//!
//! Classic bounds are powers of two, and the same in each scrape: a bound that comes and goes breaks
//! `histogram_quantile`. Refuses: negative values, which [`ExponentialHistogram`] has none of.

use std::sync::LazyLock;

use crate::telemetry::{Exemplar, ExponentialHistogram};

/// The classic bounds of a family.
#[derive(Debug, PartialEq)]
pub struct Bounds {
    /// The exponent of the first bound: it is `2^first`.
    first: i32,
    /// From one bound to the next the exponent grows by this.
    step: i32,
    /// The bounds with how both text formats write them.
    pub bounds: Vec<Bound>,
}

/// One upper bound.
#[derive(Debug, PartialEq)]
pub struct Bound {
    /// The bound.
    pub upper: f64,
    /// `le` in text 0.0.4: `1`
    pub text: String,
    /// `le` in OpenMetrics, which wants a float there: `1.0`
    pub open_metrics: String,
}

/// The classic bounds of a unit, which is the same set for all families of the unit:
/// `s` from 2^-20 (0.95 us) to 2^6 (64 s), each four times the one before, for half the lines; `By` from 2^4 (16 B) to 2^32 (4 GiB), others from 2^-6 to 2^22.
/// What is beneath the first bound counts there, what is above the last in `+Inf` only.
pub fn bounds(unit: &str) -> &'static Bounds {
    static SECONDS: LazyLock<Bounds> = LazyLock::new(|| Bounds::new(-20, 6, 2));
    static BYTES: LazyLock<Bounds> = LazyLock::new(|| Bounds::new(4, 32, 1));
    static OTHERS: LazyLock<Bounds> = LazyLock::new(|| Bounds::new(-6, 22, 1));
    match unit {
        "s" => &SECONDS,
        "By" => &BYTES,
        _ => &OTHERS,
    }
}

/// Fills `cumulative` with the count up to each of `bounds`, and returns the count of all.
///
/// A bucket that is coarser than the bounds counts where all of it surely is: at its upper bound.
pub fn classic(histogram: &ExponentialHistogram, bounds: &Bounds, cumulative: &mut Vec<u64>) -> u64 {
    cumulative.clear();
    cumulative.resize(bounds.bounds.len(), 0);
    let mut all = histogram.zero_count;
    if let Some(first) = cumulative.first_mut() {
        *first = histogram.zero_count;
    }
    for (position, count) in histogram.buckets.iter().enumerate() {
        all = all.saturating_add(*count);
        let upper = upper_exponent(histogram.scale, index(histogram, position));
        let above = upper.saturating_sub(i64::from(bounds.first)).max(0);
        // Up to the next bound.
        let place = above.saturating_add(i64::from(bounds.step) - 1) / i64::from(bounds.step);
        if let Some(bucket) = usize::try_from(place).ok().and_then(|place| cumulative.get_mut(place)) {
            *bucket = bucket.saturating_add(*count);
        }
    }
    let mut sum = 0u64;
    for bucket in cumulative {
        sum = sum.saturating_add(*bucket);
        *bucket = sum;
    }
    all
}

/// The exemplar of the bucket at `position` of `bounds`, or of `+Inf` behind the last: the largest that is in it.
pub fn exemplar<'a>(
    histogram: &'a ExponentialHistogram,
    bounds: &Bounds,
    position: usize,
) -> Option<&'a Exemplar> {
    let upper = bounds.bounds.get(position).map_or(f64::INFINITY, |bound| bound.upper);
    let lower = position.checked_sub(1).and_then(|before| bounds.bounds.get(before));
    let lower = lower.map_or(f64::NEG_INFINITY, |bound| bound.upper);
    let inside = |exemplar: &&Exemplar| exemplar.value > lower && exemplar.value <= upper;
    histogram.exemplars.iter().filter(inside).max_by(|one, other| one.value.total_cmp(&other.value))
}

/// A histogram in the form of Prometheus's native ones.
#[derive(Debug, Default, PartialEq)]
pub struct Native {
    /// The scale, from -4 to 8.
    pub schema: i32,
    /// Adjacent buckets: the gap to those before (the index of the first), and how many.
    pub spans: Vec<(i32, u32)>,
    /// Each bucket's count, as the difference to the bucket before.
    pub deltas: Vec<i64>,
}

impl Native {
    /// Fills this from `histogram`; false if its scale is coarser than any schema, or an index beyond 32 bits.
    pub fn fill(&mut self, histogram: &ExponentialHistogram) -> bool {
        self.spans.clear();
        self.deltas.clear();
        if histogram.scale < SCHEMA_MIN {
            return false;
        }
        self.schema = histogram.scale.min(SCHEMA_MAX);
        let shift = u32::try_from(histogram.scale - self.schema).unwrap_or(0).min(63);
        let (mut next, mut before, mut at) = (None::<i64>, 0i64, 0);
        while at < histogram.buckets.len() {
            let merged = index(histogram, at) >> shift;
            let mut count = 0u64;
            while at < histogram.buckets.len() && index(histogram, at) >> shift == merged {
                count = count.saturating_add(histogram.buckets[at]);
                at += 1;
            }
            if count == 0 {
                continue;
            }
            // A bucket of Prometheus has its upper bound's index, one of OpenTelemetry its lower bound's.
            let here = merged + 1;
            let gap = here - next.unwrap_or(0);
            match self.spans.last_mut() {
                Some(span) if gap <= GAP_FILLED_MAX => {
                    for _ in 0..gap {
                        self.deltas.push(-before);
                        before = 0;
                    }
                    span.1 += 1 + gap as u32;
                }
                _ => {
                    let Ok(gap) = i32::try_from(gap) else { return false };
                    self.spans.push((gap, 1));
                }
            }
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.deltas.push(count.saturating_sub(before));
            (next, before) = (Some(here + 1), count);
        }
        true
    }
}

/// The coarsest and the finest schema of Prometheus.
const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;
/// Empty buckets between two others that are cheaper written than a new span.
const GAP_FILLED_MAX: i64 = 2;

impl Bounds {
    fn new(first: i32, last: i32, step: i32) -> Self {
        let bound = |exponent: i32| {
            let upper = f64::from(exponent).exp2();
            let text = c_format(upper);
            let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
            Bound { upper, open_metrics: if is_integer { format!("{text}.0") } else { text.clone() }, text }
        };
        Self { first, step, bounds: (first..=last).step_by(step as usize).map(bound).collect() }
    }
}

/// The number as Go and C write it (`%g` in its shortest exact form), which is what other exporters' bounds look like.
fn c_format(bound: f64) -> String {
    if bound >= 1e-4 {
        return format!("{bound}");
    }
    let text = format!("{bound:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text,
    }
}

/// The index of the bucket at `position`.
fn index(histogram: &ExponentialHistogram, position: usize) -> i64 {
    i64::from(histogram.offset).saturating_add(i64::try_from(position).unwrap_or(i64::MAX))
}

/// The least `n` with the whole bucket at or beneath `2^n`.
fn upper_exponent(scale: i32, index: i64) -> i64 {
    if scale >= 0 {
        return (index >> scale.min(63)).saturating_add(1);
    }
    let factor = 1i64 << scale.unsigned_abs().min(62);
    index.saturating_add(1).saturating_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn histogram(scale: i32, offset: i32, zero_count: u64, buckets: &[u64]) -> ExponentialHistogram {
        let buckets = buckets.to_vec();
        ExponentialHistogram { scale, offset, zero_count, buckets, ..ExponentialHistogram::default() }
    }

    fn check_classic(histogram: &ExponentialHistogram, expected: &[u64], all: u64) {
        let bounds = Bounds::new(0, 3, 1);
        let mut cumulative = Vec::new();
        assert_eq!(classic(histogram, &bounds, &mut cumulative), all);
        assert_eq!(cumulative, expected, "{histogram:?}");
    }

    #[test]
    fn merged_to_powers_of_two() {
        check_classic(&histogram(0, -1, 0, &[1, 2, 4, 8, 16]), &[1, 3, 7, 15], 31);
        check_classic(&histogram(0, -5, 7, &[1]), &[8, 8, 8, 8], 8);
        check_classic(&histogram(1, 0, 0, &[1, 2, 4, 8]), &[0, 3, 15, 15], 15);
        check_classic(&histogram(1, -1, 0, &[1, 2]), &[1, 3, 3, 3], 3);
        check_classic(&histogram(-1, 0, 0, &[1, 2]), &[0, 0, 1, 1], 3);
        check_classic(&histogram(20, 0, 0, &[1, 2]), &[0, 3, 3, 3], 3);
        check_classic(&histogram(0, i32::MAX, 0, &[1, 1]), &[0, 0, 0, 0], 2);
        check_classic(&histogram(i32::MIN, i32::MIN, 0, &[1]), &[1, 1, 1, 1], 1);
    }

    #[test]
    fn merged_to_every_second_power() {
        let mut cumulative = Vec::new();
        let all = classic(&histogram(0, -1, 0, &[1, 2, 4, 8, 16]), &Bounds::new(0, 4, 2), &mut cumulative);
        assert_eq!((all, cumulative.as_slice()), (31, [1, 7, 31].as_slice()));
    }

    fn check_native(histogram: &ExponentialHistogram, schema: i32, spans: &[(i32, u32)], deltas: &[i64]) {
        let mut native = Native::default();
        assert!(native.fill(histogram));
        assert_eq!(native.schema, schema);
        assert_eq!((native.spans.as_slice(), native.deltas.as_slice()), (spans, deltas), "{histogram:?}");
    }

    #[test]
    fn native() {
        check_native(&histogram(0, -2, 3, &[1, 2, 0, 4]), 0, &[(-1, 4)], &[1, 1, -2, 4]);
        check_native(&histogram(3, 4, 0, &[5, 0, 0, 0, 7]), 3, &[(5, 1), (3, 1)], &[5, 2]);
        check_native(&histogram(9, 0, 0, &[1, 2, 4, 8]), 8, &[(1, 2)], &[3, 9]);
        check_native(&histogram(9, -1, 0, &[1, 2]), 8, &[(0, 2)], &[1, 1]);
        check_native(&histogram(-4, 0, 0, &[0, 0]), -4, &[], &[]);
        assert!(!Native::default().fill(&histogram(-5, 0, 0, &[1])));
    }

    #[test]
    fn bounds_as_text() {
        let bounds = bounds("s");
        assert_eq!(bounds.bounds.len(), 14);
        assert_eq!(bounds.bounds[0].text, "9.5367431640625e-07");
        assert_eq!(bounds.bounds[10].text, "1");
        assert_eq!(bounds.bounds[10].open_metrics, "1.0");
        assert_eq!(bounds.bounds[13].open_metrics, "64.0");
    }

    proptest! {
        #[test]
        fn any_histogram(
            scale: i32, offset: i32, zero_count: u64, buckets in proptest::collection::vec(any::<u64>(), 0..40),
        ) {
            let histogram = histogram(scale, offset, zero_count, &buckets);
            let mut cumulative = Vec::new();
            let all = classic(&histogram, bounds("s"), &mut cumulative);
            prop_assert!(cumulative.is_sorted());
            prop_assert!(cumulative.last().is_none_or(|last| *last <= all));
            Native::default().fill(&histogram);
        }

        #[test]
        fn native_buckets_are_the_same_values(
            scale in -4..12i32, offset in -100..100i32, buckets in proptest::collection::vec(0..5u64, 0..60),
        ) {
            let histogram = histogram(scale, offset, 0, &buckets);
            let mut native = Native::default();
            prop_assert!(native.fill(&histogram));
            let mut found = std::collections::BTreeMap::new();
            let (mut index, mut count, mut deltas) = (0i64, 0i64, native.deltas.iter());
            for (gap, length) in &native.spans {
                index += i64::from(*gap);
                for _ in 0..*length {
                    count += deltas.next().unwrap();
                    if count > 0 { found.insert(index, count as u64); }
                    index += 1;
                }
            }
            let mut expected = std::collections::BTreeMap::new();
            for (position, count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
                let shift = (scale - 8).max(0);
                let index = (i64::from(offset) + position as i64).div_euclid(1 << shift) + 1;
                *expected.entry(index).or_insert(0) += count;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
