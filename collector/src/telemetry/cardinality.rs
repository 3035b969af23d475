//! A bound on series by rule: what comes first keeps its series, the rest is one overflow series.
//!
//! As in the OpenTelemetry metrics SDK ("Cardinality limits") the attribute is `otel.metric.overflow=true`. The limit is
//! per metric and owner, since a thousand containers with one series each are legitimate; a second one per metric
//! bounds the owners. What goes over the first is added to its owner's overflow series, what goes over the second to the
//! host's. Counters and histograms are added up and never go back, whichever series come and go; up-down-counters are
//! added up anew each time; gauges are dropped and counted, because a sum of gauges is a lie.
//!
//! A counter that was folded stays so until it is forgotten: a series of its own would be counted twice. Refuses: choosing
//! by value or name; the order of appearance decides.

mod overflow;
mod series_set;

use std::collections::HashMap;

use anyhow::{Context, Result};
use regex::Regex;

use self::overflow::{Fold, Overflows};
use self::series_set::{Id, SeriesSet};
use super::increments::ABSENT_TURNS_MAX;
use super::{ByFingerprint, Increments, Owner, OwnerFingerprints, Point, SeriesHasher, Snapshot};

/// The attribute of the series that holds the rest.
pub const OVERFLOW_ATTRIBUTE: &str = "otel.metric.overflow";

/// Metrics that are known; all points of others are dropped, counted.
const METRICS_MAX: usize = 20_000;

/// Series that are known over all metrics, about 48 bytes each. Beyond, no metric gets new ones.
const SERIES_MAX: usize = 400_000;

/// What is remembered of folded counters, bytes. Those beyond are dropped, counted.
const FOLDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many series a metric may have.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of one owner; beside them one overflow series. The SDK's default is 2,000.
    pub series_per_owner_max: usize,
    /// Of all owners together; beside them the overflow series.
    pub series_per_metric_max: usize,
    overrides: Vec<(Regex, usize)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series_per_owner_max: 2_000, series_per_metric_max: 100_000, overrides: Vec::new() }
    }
}

impl Limits {
    /// With another limit per owner for metrics whose whole name is like `glob`: `*` is any text, `?` any character. The
    /// first that fits is taken.
    ///
    /// # Errors
    ///
    /// For a glob that is too long.
    pub fn with_override(mut self, glob: &str, series_per_owner_max: usize) -> Result<Self> {
        let pattern = regex::escape(glob).replace(r"\*", ".*").replace(r"\?", ".");
        let pattern =
            Regex::new(&format!("(?s)^{pattern}$")).with_context(|| format!("metric name {glob:?}"))?;
        self.overrides.push((pattern, series_per_owner_max));
        Ok(self)
    }

    fn per_owner_max(&self, name: &str) -> usize {
        let found = self.overrides.iter().find(|(pattern, _)| pattern.is_match(name));
        found.map_or(self.series_per_owner_max, |(_, series_max)| *series_max)
    }
}

/// Points that a snapshot no longer has: `points before = points after - overflow points + folded + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// In an overflow series now.
    pub folded: u64,
    /// Gone: gauges, what no counter can be, what there is no memory for.
    pub dropped: u64,
}

impl Cut {
    /// All points that lost their own series.
    pub fn points(self) -> u64 {
        self.folded + self.dropped
    }
}

/// Limits snapshots. Lives as long as the agent, and sees each snapshot before all exporters.
#[derive(Debug)]
pub struct Cardinality {
    limits: Limits,
    hasher: SeriesHasher,
    folded: Increments,
    metrics: ByFingerprint<Known>,
    series: usize,
    turn: u64,
}

/// What is known of a metric.
#[derive(Debug)]
struct Known {
    set: SeriesSet,
    overflows: Overflows,
    turn: u64,
}

impl Cardinality {
    /// Knows no series yet.
    pub fn new(limits: Limits) -> Self {
        Self::with_room(limits, FOLDED_BYTES_MAX)
    }

    fn with_room(limits: Limits, folded_bytes_max: usize) -> Self {
        let (hasher, metrics) = (SeriesHasher::default(), HashMap::default());
        Self { limits, hasher, folded: Increments::new(folded_bytes_max), metrics, series: 0, turn: 0 }
    }

    /// Takes what is over the limits out of a snapshot, and adds the overflow series. Snapshots come in order.
    pub fn limit(&mut self, snapshot: &mut Snapshot) -> Cut {
        self.turn += 1;
        self.folded.begin();
        let mut cut = Cut::default();
        let mut room = SERIES_MAX.saturating_sub(self.series);
        let mut owners = OwnerFingerprints::new(&self.hasher);
        let host = self.hasher.owner(&Owner::Host);
        let mut metrics: Vec<_> =
            snapshot.metrics.iter_mut().filter(|metric| !metric.points.is_empty()).collect();
        // What the agent and the node say of themselves finds room before ten thousand containers.
        metrics.sort_by_key(|metric| metric.points.iter().any(|point| !is_own(&point.owner)));
        for metric in metrics {
            let name = self.hasher.metric(metric);
            if self.metrics.len() >= METRICS_MAX && !self.metrics.contains_key(&name) {
                cut.dropped += metric.points.len() as u64;
                metric.points.clear();
                continue;
            }
            let id = |point: &Point| {
                let owner = owners.of(&point.owner);
                Id { owner, series: self.hasher.series(name, owner, point) }
            };
            let ids: Vec<Id> = metric.points.iter().map(id).collect();
            let known = self.metrics.entry(name).or_insert_with(|| Known::new(&self.limits, &metric.name));
            known.turn = self.turn;
            let targets = known.set.admit(&ids, &self.folded, self.turn, &mut room);
            let fold = Fold { folded: &mut self.folded, host, turn: self.turn, cut: &mut cut };
            known.overflows.fold(metric, &ids, &targets, snapshot.time_unix_ns, fold);
        }
        self.folded.end();
        let turn = self.turn;
        self.metrics.retain(|_, known| known.turn + ABSENT_TURNS_MAX >= turn);
        self.series = self.metrics.values().map(|known| known.set.len()).sum();
        cut
    }
}

fn is_own(owner: &Owner) -> bool {
    matches!(owner, Owner::Agent | Owner::Host)
}

impl Known {
    fn new(limits: &Limits, name: &str) -> Self {
        let set = SeriesSet::new(limits.per_owner_max(name), limits.series_per_metric_max);
        Self { set, overflows: Overflows::default(), turn: 0 }
    }
}

#[cfg(test)]
mod tests;
