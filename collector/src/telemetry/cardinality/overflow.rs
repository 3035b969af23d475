//! The overflow series of a metric: what the series without a place counted, added up.
//!
//! Counters and histograms are added up by what each counted since it was last seen, so that one which vanishes or begins
//! anew takes nothing away. The start is the earliest of the series that it began with, and stays: another start would
//! tell receivers that it began anew. Refuses: exemplars; those of some would stand for all.

use super::series_set::{Id, Target};
use super::{Cut, OVERFLOW_ATTRIBUTE};
use crate::telemetry::increments::ABSENT_TURNS_MAX;
use crate::telemetry::{
    ByFingerprint, Fingerprint, Increments, Metric, MetricKind, Owner, Point, Step, Value,
};

/// The overflow series by owner.
#[derive(Debug, Default)]
pub struct Overflows {
    by_owner: ByFingerprint<Overflow>,
    begun: u64,
}

/// The sum of what was folded.
#[derive(Debug)]
struct Overflow {
    owner: Owner,
    /// Which it was of those of the metric.
    number: u64,
    begun_turn: u64,
    seen_turn: u64,
    start_unix_ns: u64,
    value: Value,
}

/// What folding needs beside the metric.
pub struct Fold<'a> {
    /// What each folded series was when last seen.
    pub folded: &'a mut Increments,
    /// The host's fingerprint.
    pub host: Fingerprint,
    /// The snapshot's number.
    pub turn: u64,
    /// What was cut.
    pub cut: &'a mut Cut,
}

impl Overflows {
    /// Takes the points that have no place out of a metric and adds the overflow series to it. `ids` and `targets` are
    /// those of its points, in order.
    pub fn fold(
        &mut self,
        metric: &mut Metric,
        ids: &[Id],
        targets: &[Target],
        time_unix_ns: u64,
        fold: Fold,
    ) {
        if self.by_owner.is_empty() && targets.iter().all(|target| *target == Target::Own) {
            return;
        }
        let turn = fold.turn;
        self.see(ids, fold.host, turn);
        if metric.kind == MetricKind::UpDownCounter {
            // Added up anew each time.
            self.by_owner.values_mut().for_each(|overflow| overflow.value = Value::Number(0.0));
        }
        let kind = metric.kind;
        let mut ids_and_targets = ids.iter().zip(targets);
        metric.points.retain_mut(|point| {
            let Some((id, target)) = ids_and_targets.next().filter(|(_, target)| **target != Target::Own)
            else {
                return true;
            };
            let counted = counted(kind, id.series, point, time_unix_ns, fold.folded);
            let is_folded = counted.is_some_and(|value| match target {
                Target::OfHost => self.add(fold.host, &Owner::Host, point.start_unix_ns, value, turn),
                _ => self.add(id.owner, &point.owner, point.start_unix_ns, value, turn),
            });
            fold.cut.folded += u64::from(is_folded);
            fold.cut.dropped += u64::from(!is_folded);
            false
        });
        self.by_owner.retain(|_, overflow| overflow.seen_turn + ABSENT_TURNS_MAX >= turn);
        metric.points.extend(self.points(turn));
    }

    /// An overflow series lives as long as its owner has any point, and the host's as long as the metric.
    fn see(&mut self, ids: &[Id], host: Fingerprint, turn: u64) {
        for owner in ids.iter().map(|id| id.owner).chain([host]) {
            if let Some(overflow) = self.by_owner.get_mut(&owner) {
                overflow.seen_turn = turn;
            }
        }
    }

    /// Adds to an owner's series. Whether it could: a number and a histogram do not add up.
    fn add(&mut self, key: Fingerprint, owner: &Owner, start_unix_ns: u64, value: Value, turn: u64) -> bool {
        let Some(overflow) = self.by_owner.get_mut(&key) else {
            self.begun += 1;
            let (owner, number) = (owner.clone(), self.begun);
            let overflow =
                Overflow { owner, number, begun_turn: turn, seen_turn: turn, start_unix_ns, value };
            self.by_owner.insert(key, overflow);
            return true;
        };
        match (&mut overflow.value, value) {
            (Value::Number(sum), Value::Number(number)) => *sum += number,
            (Value::Histogram(sum), Value::Histogram(histogram)) => sum.merge(&histogram),
            _ => return false,
        }
        if overflow.begun_turn == turn {
            overflow.start_unix_ns = overflow.start_unix_ns.min(start_unix_ns);
        }
        true
    }

    fn points(&self, turn: u64) -> impl Iterator<Item = Point> {
        let mut seen: Vec<&Overflow> =
            self.by_owner.values().filter(|overflow| overflow.seen_turn == turn).collect();
        seen.sort_by_key(|overflow| overflow.number);
        seen.into_iter().map(|overflow| Point {
            owner: overflow.owner.clone(),
            attributes: vec![(OVERFLOW_ATTRIBUTE.into(), "true".into())],
            start_unix_ns: overflow.start_unix_ns,
            value: overflow.value.clone(),
        })
    }
}

/// What a point adds to the overflow series, if it can.
fn counted(
    kind: MetricKind,
    series: Fingerprint,
    point: &Point,
    time_unix_ns: u64,
    folded: &mut Increments,
) -> Option<Value> {
    let mut value = match (kind, &point.value) {
        (MetricKind::Gauge | MetricKind::Unknown | MetricKind::Summary, _) => return None,
        (MetricKind::UpDownCounter, Value::Number(number)) if number.is_finite() => point.value.clone(),
        (MetricKind::UpDownCounter, _) => return None,
        (MetricKind::Counter, Value::Number(_)) | (MetricKind::Histogram, Value::Histogram(_)) => {
            match folded.advance(series, point, time_unix_ns) {
                Step::First => point.value.clone(),
                Step::Since { increment, .. } => increment,
                Step::Full | Step::Invalid => return None,
            }
        }
        (MetricKind::Counter | MetricKind::Histogram, _) => return None,
    };
    if let Value::Histogram(histogram) = &mut value {
        histogram.exemplars = Vec::new();
    }
    Some(value)
}
