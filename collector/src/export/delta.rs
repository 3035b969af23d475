//! Cumulative points -> what was counted since the export before, for backends that want deltas.
//!
//! By the OTLP metrics exporter specification ("Additional Configuration"): `delta` makes counters and histograms
//! deltas and leaves up-down-counters cumulative; `lowmemory` makes synchronous counters and histograms deltas. Our
//! counters are read at each snapshot, so they are asynchronous in its words and stay cumulative under `lowmemory`;
//! histograms have no asynchronous form and become deltas under both.
//!
//! A delta that does not arrive is lost: no later one repeats it, unlike a cumulative point. So the exporter counts the
//! points of a request that it drops ([`super::MetricsRequests`] says how many each has).
//!
//! Refuses: negative deltas, and a cumulative point in a stream of deltas: what cannot be remembered waits, counted,
//! and carries everything since its start once there is room.

use std::str::FromStr;

use anyhow::{Error, bail};

use crate::telemetry::{
    Fingerprint, Increments, MetricKind, OwnerFingerprints, Point, SeriesHasher, Snapshot, Step, Value,
};

/// What is remembered of series, bytes: about 340,000 numbers or 21,000 full histograms. More wait, counted.
pub const SERIES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TemporalityPreference {
    /// All since their start.
    #[default]
    Cumulative,
    /// Counters and histograms since the export before.
    Delta,
    /// Histograms since the export before; counters too where they are synchronous, which ours are not.
    LowMemory,
}

impl TemporalityPreference {
    /// Whether metrics of a kind are exported as deltas.
    pub fn is_delta(self, kind: MetricKind) -> bool {
        match kind {
            MetricKind::Counter => self == Self::Delta,
            MetricKind::Histogram => self != Self::Cumulative,
            MetricKind::UpDownCounter | MetricKind::Gauge | MetricKind::Unknown | MetricKind::Summary => {
                false
            }
        }
    }
}

impl FromStr for TemporalityPreference {
    type Err = Error;

    /// In any case, as the specification asks.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "cumulative" => Ok(Self::Cumulative),
            "delta" => Ok(Self::Delta),
            "lowmemory" => Ok(Self::LowMemory),
            _ => bail!("{text:?} is no temporality preference: cumulative, delta or lowmemory"),
        }
    }
}

/// What the first delta of a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Everything since its start. After a restart of the agent that is exported a second time for whatever outlived it,
    /// such as the CPU time of a container.
    Everything,
    /// The same for a series that began after this time, nanoseconds since the epoch: the agent's start. One that is
    /// older, or does not say when it began, begins with its second snapshot, since an agent before may have exported
    /// what it counted. The OpenTelemetry Collector does so too (cumulativetodelta, `initial_value: auto`).
    SinceAgentStart(u64),
}

/// Points that a snapshot lost on the way to deltas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Series that are seen for the first time and began before the agent: remembered only. No loss.
    pub baseline: u64,
    /// Series that there is no room for. They are late, not lost: their first delta will carry everything.
    pub full: u64,
    /// Values that no counter has (negative, not finite), and second points of a series.
    pub invalid: u64,
}

/// Turns snapshots into deltas. Lives as long as the exporter.
#[derive(Debug)]
pub struct Deltas {
    preference: TemporalityPreference,
    first: First,
    hasher: SeriesHasher,
    increments: Increments,
}

impl Deltas {
    /// No series known yet.
    pub fn new(preference: TemporalityPreference, first: First) -> Self {
        Self::with_room(preference, first, SERIES_BYTES_MAX)
    }

    fn with_room(preference: TemporalityPreference, first: First, bytes_max: usize) -> Self {
        let (hasher, increments) = (SeriesHasher::default(), Increments::new(bytes_max));
        Self { preference, first, hasher, increments }
    }

    /// Replaces what goes out over OTLP as deltas by what was counted since the snapshot before, with that one's time as
    /// start. A series that began anew (another start, or something is smaller) carries all of its value.
    pub fn apply(&mut self, snapshot: &mut Snapshot) -> Withheld {
        let mut withheld = Withheld::default();
        let mut owners = OwnerFingerprints::new(&self.hasher);
        let mut taker = Taker {
            first: self.first,
            time_unix_ns: snapshot.time_unix_ns,
            increments: &mut self.increments,
            withheld: &mut withheld,
        };
        taker.increments.begin();
        for metric in &mut snapshot.metrics {
            if !metric.vocabulary.is_pushed() || !self.preference.is_delta(metric.kind) {
                continue;
            }
            let name = self.hasher.metric(metric);
            metric.points.retain_mut(|point| {
                let series = self.hasher.series(name, owners.of(&point.owner), point);
                taker.take(series, point)
            });
        }
        taker.increments.end();
        withheld
    }
}

/// Takes the points of one snapshot.
struct Taker<'a> {
    first: First,
    time_unix_ns: u64,
    increments: &'a mut Increments,
    withheld: &'a mut Withheld,
}

impl Taker<'_> {
    /// Makes a point a delta. Whether it is to be exported.
    fn take(&mut self, series: Fingerprint, point: &mut Point) -> bool {
        match self.increments.advance(series, point, self.time_unix_ns) {
            Step::First => {
                let is_baseline = match self.first {
                    First::Everything => false,
                    First::SinceAgentStart(agent_start) => point.start_unix_ns < agent_start,
                };
                self.withheld.baseline += u64::from(is_baseline);
                !is_baseline
            }
            Step::Since { increment, time_unix_ns: since } => {
                // Intervals must not overlap. A clock that was put back makes an empty one, never one that ends before
                // it begins.
                point.start_unix_ns = since.max(point.start_unix_ns).min(self.time_unix_ns);
                point.value = increment;
                if let Value::Histogram(histogram) = &mut point.value {
                    histogram.exemplars.retain(|exemplar| exemplar.time_unix_ns > since);
                }
                true
            }
            Step::Full => {
                self.withheld.full += 1;
                false
            }
            Step::Invalid => {
                self.withheld.invalid += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
