//! The latest result of each target, for whoever exports.
//!
//! Holds at most `HELD_BYTES_MAX` of metrics; a page that does not fit is lost and counted, the scrape's own metrics stay.
//! Refuses: history.

use std::collections::HashMap;

use super::loss::{FAILURES, Failure, LOSSES, Loss, Losses};
use super::text::Flaw;
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Value};

/// Bytes of metrics that all targets together may have, about.
pub const HELD_BYTES_MAX: usize = 128 << 20;

/// What a target's last scrape was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The target's URL.
    pub url: String,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// The first bad lines of its page.
    pub flaws: Vec<Flaw>,
}

/// The results of all targets, and the counters.
#[derive(Default)]
pub(super) struct Board {
    slots: HashMap<u64, Slot>,
    held_bytes: usize,
    scrapes: u64,
    failures: [u64; FAILURES.len()],
    losses: Losses,
}

struct Slot {
    is_elected: bool,
    metrics: Vec<Metric>,
    bytes: usize,
    status: Status,
}

impl Board {
    /// Replaces a target's result: the metrics of the scrape itself, and those of the page. `is_elected` as in
    /// [`Target`](super::Target).
    pub(super) fn put(
        &mut self,
        (id, is_elected): (u64, bool),
        status: Status,
        own: Vec<Metric>,
        page: Vec<Metric>,
        losses: &Losses,
    ) {
        self.remove(id);
        match &status.failure {
            None => self.scrapes += 1,
            Some(failure) => self.failures[failure.position()] += 1,
        }
        self.losses.merge(losses);
        let mut metrics = own;
        let bytes: usize = page.iter().map(size).sum();
        if self.held_bytes + bytes <= HELD_BYTES_MAX {
            metrics.extend(page);
        } else {
            self.losses.add(Loss::NodeLimit, page.iter().map(|metric| metric.points.len()).sum());
        }
        let bytes: usize = metrics.iter().map(size).sum();
        self.held_bytes += bytes;
        self.slots.insert(id, Slot { is_elected, metrics, bytes, status });
    }

    /// Forgets a target.
    pub(super) fn remove(&mut self, id: u64) {
        if let Some(slot) = self.slots.remove(&id) {
            self.held_bytes -= slot.bytes;
        }
    }

    pub(super) fn statuses(&self) -> Vec<Status> {
        let mut statuses: Vec<Status> = self.slots.values().map(|slot| slot.status.clone()).collect();
        statuses.sort_by(|one, other| one.url.cmp(&other.url));
        statuses
    }

    /// The metrics of all targets, those of elected ones only if we lead; those of one name, kind and unit together.
    pub(super) fn merged(&self, leads: bool) -> Vec<Metric> {
        let mut merged: Vec<Metric> = Vec::new();
        let mut positions: HashMap<(&Text, MetricKind, &Text), usize> = HashMap::new();
        let slots = self.slots.values().filter(|slot| leads || !slot.is_elected);
        for metric in slots.flat_map(|slot| &slot.metrics) {
            match positions.get(&(&metric.name, metric.kind, &metric.unit)) {
                Some(position) => merged[*position].points.extend(metric.points.iter().cloned()),
                None => {
                    positions.insert((&metric.name, metric.kind, &metric.unit), merged.len());
                    merged.push(metric.clone());
                }
            }
        }
        merged
    }

    /// The scraper's own counters, since `start_unix_ns`.
    pub(super) fn metrics(&self, start_unix_ns: u64) -> Vec<Metric> {
        let point = |attributes: Vec<(Text, Text)>, start: u64, value: u64| {
            Point::number(Owner::Agent, attributes, start, value as f64)
        };
        let count = |name: &'static str, value: &'static str, number: u64| {
            point(vec![(name.into(), value.into())], start_unix_ns, number)
        };
        let mut scrapes = vec![point(Vec::new(), start_unix_ns, self.scrapes)];
        scrapes.extend(
            FAILURES.iter().zip(self.failures).map(|(name, number)| count("error.type", name, number)),
        );
        let losses = LOSSES.iter().map(|loss| count("reason", loss.name(), self.losses.get(*loss))).collect();
        let metric = |kind, name: &'static str, unit: &'static str, description: &'static str| {
            Metric::new(kind, name, unit, description)
        };
        vec![
            metric(
                MetricKind::Counter,
                "kansoku.scrape.scrapes",
                "{scrape}",
                "Scrapes; the failed by their reason",
            )
            .with(scrapes),
            metric(
                MetricKind::Counter,
                "kansoku.scrape.lost",
                "{sample}",
                "Samples and lines of pages that were lost",
            )
            .with(losses),
            metric(MetricKind::UpDownCounter, "kansoku.scrape.targets", "{target}", "Targets with a result")
                .with(vec![point(Vec::new(), start_unix_ns, self.slots.len() as u64)]),
            metric(MetricKind::UpDownCounter, "kansoku.scrape.held", "By", "About the memory of the results")
                .with(vec![point(Vec::new(), start_unix_ns, self.held_bytes as u64)]),
        ]
    }
}

/// About the bytes of a metric.
fn size(metric: &Metric) -> usize {
    let of_point = |point: &Point| {
        let text: usize = point.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let value = match &point.value {
            Value::ExplicitHistogram(histogram) => {
                let exemplars = histogram.exemplars.len() * size_of::<crate::telemetry::Exemplar>() * 2;
                histogram.counts.len() * 2 * size_of::<f64>() + exemplars
            }
            Value::Summary(summary) => summary.quantiles.len() * 2 * size_of::<f64>(),
            Value::Number(_) | Value::Histogram(_) => 0,
        };
        size_of::<Point>() + point.attributes.len() * size_of::<(Text, Text)>() + text + value
    };
    size_of::<Metric>()
        + metric.name.len()
        + metric.description.len()
        + metric.points.iter().map(of_point).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_lost_and_counted() {
        let long: &'static str = Box::leak("x".repeat(HELD_BYTES_MAX / 2 - 4096).into_boxed_str());
        let metrics = |name: &'static str, label: &'static str| {
            let point = Point::number(Owner::Host, vec![("a".into(), label.into())], 0, 1.0);
            vec![Metric::new(MetricKind::Gauge, name, "", "").with(vec![point])]
        };
        let mut board = Board::default();
        let put = |board: &mut Board, id: u64| {
            let status = Status { url: id.to_string(), failure: None, flaws: Vec::new() };
            board.put((id, false), status, metrics("up", "x"), metrics("page", long), &Losses::default());
            let of = |name: &str| {
                board
                    .merged(true)
                    .iter()
                    .find(|metric| metric.name == name)
                    .map_or(0, |metric| metric.points.len())
            };
            (of("up"), of("page"), board.losses.get(Loss::NodeLimit))
        };
        assert_eq!(put(&mut board, 1), (1, 1, 0));
        assert_eq!(put(&mut board, 2), (2, 2, 0));
        assert_eq!(put(&mut board, 3), (3, 2, 1));
        assert_eq!(put(&mut board, 2), (3, 2, 1));
        board.remove(1);
        assert_eq!(put(&mut board, 3), (2, 2, 1));
        board.remove(2);
        board.remove(3);
        assert_eq!(board.held_bytes, 0);
    }
}
