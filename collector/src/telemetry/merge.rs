//! Arithmetic of exponential histograms: into a coarser scale, sums, differences, and one value more.
//!
//! OpenTelemetry metrics data model, "ExponentialHistogram": scales and bucket indices. Refuses: finer scales, since
//! what was counted together cannot be told apart.

use super::ExponentialHistogram;

/// The finest scale that indices fit in: OpenTelemetry SDK specification, "MaxScale".
pub const SCALE_MAX: i32 = 20;

/// Buckets that a histogram has at most, after which it becomes coarser: the specification's default for "MaxSize".
pub const BUCKETS_MAX: usize = 160;

/// By how much a sum may be smaller than one before it because it was added up in another order.
const SUM_ROUNDING: f64 = 1e-9;

impl ExponentialHistogram {
    /// The same at a coarser scale; itself if `scale` is not coarser.
    #[must_use]
    pub fn downscaled(&self, scale: i32) -> Self {
        let mut coarse = self.clone();
        coarse.downscale(scale);
        coarse
    }

    /// Adds another. The result has the coarser of both scales, or one at which it fits into [`BUCKETS_MAX`].
    pub fn merge(&mut self, other: &Self) {
        self.trim();
        let mut other = other.clone();
        other.trim();
        let scale = self.scale.min(other.scale);
        self.downscale(scale);
        other.downscale(scale);
        let ranges = self.range().into_iter().chain(other.range());
        if let Some((low, high)) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
            let steps = steps_to_fit(low, high);
            self.coarsen(steps);
            other.coarsen(steps);
        }
        for (position, count) in other.buckets.iter().enumerate() {
            self.add(i64::from(other.offset) + position as i64, *count);
        }
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.sum += other.sum;
        self.exemplars.append(&mut other.exemplars);
    }

    /// What was counted since `older`, which was the same histogram at a time before. `None` if it cannot have been:
    /// something is smaller now, or the scale is finer.
    pub fn minus(&self, older: &Self) -> Option<Self> {
        if older.scale < self.scale || older.zero_count > self.zero_count {
            return None;
        }
        if older.sum - self.sum > older.sum.abs() * SUM_ROUNDING {
            return None;
        }
        let older = older.downscaled(self.scale);
        let mut since = self.clone();
        for (position, count) in older.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let position = i64::from(older.offset) + position as i64 - i64::from(self.offset);
            let bucket = since.buckets.get_mut(usize::try_from(position).ok()?)?;
            *bucket = bucket.checked_sub(*count)?;
        }
        since.zero_count -= older.zero_count;
        since.sum = (self.sum - older.sum).max(0.0);
        since.trim();
        Some(since)
    }

    /// Counts a value. Returns whether it did: negative values and those that are not finite are refused.
    pub fn observe(&mut self, value: f64) -> bool {
        if !value.is_finite() || value < 0.0 {
            return false;
        }
        self.sum += value;
        if value == 0.0 {
            self.zero_count = self.zero_count.saturating_add(1);
            return true;
        }
        self.downscale(SCALE_MAX);
        let index = index_at_scale_max(value);
        let at = |scale: i32| index >> shift(SCALE_MAX, scale);
        if let Some((low, high)) = self.range() {
            let (low, high) = (low.min(at(self.scale)), high.max(at(self.scale)));
            if high - low >= BUCKETS_MAX as i64 {
                // Free places at the ends must not cost resolution.
                self.trim();
            }
        }
        if let Some((low, high)) = self.range() {
            self.coarsen(steps_to_fit(low.min(at(self.scale)), high.max(at(self.scale))));
        }
        self.add(at(self.scale), 1);
        true
    }

    /// Index of the first and of the last bucket.
    fn range(&self) -> Option<(i64, i64)> {
        let last = i64::try_from(self.buckets.len()).ok()? - 1;
        (last >= 0).then(|| (i64::from(self.offset), i64::from(self.offset) + last))
    }

    fn downscale(&mut self, scale: i32) {
        if scale < self.scale {
            self.coarsen(shift(self.scale, scale));
            self.scale = scale;
        }
    }

    /// Halves the resolution so many times. Buckets come together even where the scale cannot get any smaller, which only
    /// a scale that nobody means can be.
    fn coarsen(&mut self, shift: u32) {
        if shift == 0 {
            return;
        }
        self.scale = self.scale.saturating_sub_unsigned(shift);
        let fine = std::mem::take(&mut self.buckets);
        let fine_offset = i64::from(self.offset);
        let offset = fine_offset >> shift;
        self.offset = offset as i32;
        for (position, count) in fine.into_iter().enumerate() {
            let coarse = ((fine_offset + position as i64) >> shift) - offset;
            let coarse = coarse as usize;
            if coarse >= self.buckets.len() {
                self.buckets.resize(coarse + 1, 0);
            }
            self.buckets[coarse] = self.buckets[coarse].saturating_add(count);
        }
    }

    /// Adds to a bucket; the caller has made it fit into [`BUCKETS_MAX`].
    fn add(&mut self, index: i64, count: u64) {
        let Some((low, _)) = self.range() else {
            self.offset = index as i32;
            self.buckets.push(count);
            return;
        };
        if index < low {
            let missing = (low - index) as usize;
            self.buckets.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = index as i32;
        }
        let position = (index - low.min(index)) as usize;
        if position >= self.buckets.len() {
            self.buckets.resize(position + 1, 0);
        }
        self.buckets[position] = self.buckets[position].saturating_add(count);
    }

    /// Without empty buckets at its ends.
    fn trim(&mut self) {
        let used = self.buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        self.buckets.truncate(used);
        let empty = self.buckets.iter().take_while(|count| **count == 0).count();
        self.buckets.drain(..empty);
        self.offset = if self.buckets.is_empty() { 0 } else { self.offset.saturating_add(empty as i32) };
    }
}

/// Index of a positive value's bucket at [`SCALE_MAX`]. Its upper bound is part of a bucket: exact powers of two belong
/// to the bucket below, and so do their equals at all coarser scales, whose indices are this one shifted.
fn index_at_scale_max(value: f64) -> i64 {
    // Subnormal numbers have their exponent in the fraction: make them normal.
    let (value, added) = if value < f64::MIN_POSITIVE { (value * 64f64.exp2(), 64) } else { (value, 0) };
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i64 - 1023 - added;
    let fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let steps = (1i64 << SCALE_MAX) as f64;
    let within = (fraction.log2() * steps).ceil() as i64 - 1;
    (exponent << SCALE_MAX) + within
}

/// How many times the resolution must be halved for the buckets from `low` to `high` to be at most [`BUCKETS_MAX`].
fn steps_to_fit(mut low: i64, mut high: i64) -> u32 {
    let mut steps = 0;
    while high - low >= BUCKETS_MAX as i64 {
        low >>= 1;
        high >>= 1;
        steps += 1;
    }
    steps
}

/// Bits that an index loses between two scales; 63 leaves nothing but its sign.
fn shift(from: i32, to: i32) -> u32 {
    u32::try_from(i64::from(from) - i64::from(to)).unwrap_or(0).min(63)
}

#[cfg(test)]
mod tests;
