//! The metrics of a snapshot as Prometheus's families: one name, one type, all series together.
//!
//! Refuses: two families that would share the name of a series; the first stays, the other's series are counted.

use std::collections::{HashMap, HashSet};

use super::buckets::{self, Bounds};
use super::names::{self, FamilyName, TOTAL};
use crate::telemetry::{Metric, MetricKind, Snapshot, Vocabulary};

/// One family.
pub struct Family<'a> {
    /// Its names.
    pub name: FamilyName,
    /// What its numbers mean.
    pub kind: MetricKind,
    /// What it measures.
    pub help: &'a str,
    /// The bounds of its classic buckets, if it is a histogram.
    pub bounds: &'static Bounds,
    /// The metrics that have this name; almost always one.
    pub metrics: Vec<&'a Metric>,
}

/// The families of `snapshot` in its order, without those of other vocabularies and without empty ones, and how many
/// series had a name that was taken.
pub fn families<'a>(snapshot: &'a Snapshot, vocabularies: &HashSet<Vocabulary>) -> (Vec<Family<'a>>, u64) {
    let mut families: Vec<Family> = Vec::new();
    let mut taken: HashMap<String, Option<usize>> =
        TARGET.iter().map(|name| ((*name).to_owned(), None)).collect();
    let mut conflicts = 0;
    for metric in &snapshot.metrics {
        let is_exposed = !matches!(metric.vocabulary, Vocabulary::Application | Vocabulary::Cluster);
        if !is_exposed || !vocabularies.contains(&metric.vocabulary) || metric.points.is_empty() {
            continue;
        }
        let name = FamilyName::of(metric);
        let known = taken.get(&name.series).copied().flatten().and_then(|at| families.get_mut(at));
        if let Some(family) = known.filter(|family| is_same(family, &name, metric.kind)) {
            family.metrics.push(metric);
            continue;
        }
        let series = series_names(&name.series, metric.kind);
        if series.iter().any(|name| taken.contains_key(name)) {
            conflicts += metric.points.len() as u64;
            continue;
        }
        taken.extend(series.into_iter().map(|name| (name, Some(families.len()))));
        let bounds = buckets::bounds(&metric.unit);
        families.push(Family {
            name,
            kind: metric.kind,
            help: &metric.description,
            bounds,
            metrics: vec![metric],
        });
    }
    (families, conflicts)
}

/// The names of the family that tells of the target, which no metric can have.
const TARGET: [&str; 2] = ["target", "target_info"];

fn is_same(family: &Family, name: &FamilyName, kind: MetricKind) -> bool {
    family.name.series == name.series && family.kind == kind
}

/// All names that a family takes in any of the formats.
fn series_names(series: &str, kind: MetricKind) -> Vec<String> {
    let with =
        |name: &str, suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
    match kind {
        MetricKind::Counter if series.ends_with(TOTAL) => {
            with(names::family(series), &["", TOTAL, "_created"])
        }
        MetricKind::Histogram => with(series, &["", "_bucket", "_count", "_sum", "_created"]),
        _ => vec![series.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Owner, Point};

    fn check(metrics: &[(MetricKind, &'static str, Vocabulary)], expected: &[&str], conflicts: u64) {
        let metrics = metrics.iter().map(|(kind, name, vocabulary)| {
            let mut metric = Metric::new(*kind, *name, "", "");
            metric.vocabulary = *vocabulary;
            metric.add(Point::number(Owner::Host, Vec::new(), 0, 1.0));
            metric
        });
        let snapshot = Snapshot { time_unix_ns: 0, metrics: metrics.collect() };
        let vocabularies =
            HashSet::from([Vocabulary::OpenTelemetry, Vocabulary::Cadvisor, Vocabulary::Application]);
        let (families, found) = families(&snapshot, &vocabularies);
        let names: Vec<_> = families.iter().map(|family| family.name.series.as_str()).collect();
        assert_eq!((names.as_slice(), found), (expected, conflicts));
    }

    #[test]
    fn one_name_one_family() {
        use MetricKind::{Counter, Gauge, Histogram, UpDownCounter};
        use Vocabulary::{Application, Cadvisor, NodeExporter, OpenTelemetry};
        check(&[(Counter, "a", OpenTelemetry), (Counter, "a_total", Cadvisor)], &["a_total"], 0);
        check(&[(Gauge, "a.b", OpenTelemetry), (UpDownCounter, "a_b", OpenTelemetry)], &["a_b"], 1);
        check(&[(Counter, "a", OpenTelemetry), (Gauge, "a", OpenTelemetry)], &["a_total"], 1);
        check(&[(Gauge, "a_count", OpenTelemetry), (Histogram, "a", OpenTelemetry)], &["a_number", "a"], 0);
        check(&[(Gauge, "a_count", Cadvisor), (Histogram, "a", OpenTelemetry)], &["a_count"], 1);
        check(&[(Gauge, "a", Application), (Gauge, "b", NodeExporter)], &[], 0);
        check(&[(Gauge, "target_info", OpenTelemetry)], &[], 1);
    }
}
