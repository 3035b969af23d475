//! Sequences of snapshots: which series stay, and what the overflow series says.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::identity::Subject;
use crate::telemetry::{ExponentialHistogram, Metric, MetricKind, Value};

fn owner(name: &str) -> Owner {
    match name {
        "host" => Owner::Host,
        "agent" => Owner::Agent,
        _ => Owner::Subject(Arc::new(Subject::named(name))),
    }
}

/// Owner, label, start, value.
type Series<'a> = (&'a str, &'a str, u64, f64);

fn snapshot(kind: MetricKind, name: &'static str, series: &[Series]) -> Snapshot {
    let point = |(of, label, start, value): &Series| {
        Point::number(owner(of), vec![("l".into(), (*label).to_owned().into())], *start, *value)
    };
    let metric = Metric::new(kind, name, "By", "").with(series.iter().map(point).collect());
    Snapshot { time_unix_ns: 100, metrics: vec![metric] }
}

fn found(snapshot: &Snapshot) -> Vec<String> {
    let line = |point: &Point| {
        let of = match &point.owner {
            Owner::Agent => "agent",
            Owner::Host => "host",
            Owner::Subject(subject) => &subject.own_name,
            Owner::Object(_) | Owner::Endpoint(_) | Owner::Cgroup(_) => "endpoint",
        };
        let (key, label) = &point.attributes[0];
        let label = if key == OVERFLOW_ATTRIBUTE { format!("!{label}") } else { label.to_string() };
        let value = match &point.value {
            Value::Number(number) => number.to_string(),
            Value::Histogram(histogram) => format!("{}/{}", histogram.count(), histogram.sum),
            other => format!("{other:?}"),
        };
        format!("{of} {label} {} {value}", point.start_unix_ns)
    };
    snapshot.metrics[0].points.iter().map(line).collect()
}

fn limits(per_owner: usize, per_metric: usize) -> Limits {
    Limits { series_per_owner_max: per_owner, series_per_metric_max: per_metric, overrides: Vec::new() }
}

/// What is given, what is left, how many are folded and dropped.
type Row<'a> = (&'a [Series<'a>], &'a [&'a str], (u64, u64));

fn check(limits: Limits, kind: MetricKind, rows: &[Row]) {
    let mut cardinality = Cardinality::new(limits);
    for (turn, (given, expected, (folded, dropped))) in rows.iter().enumerate() {
        let mut snapshot = snapshot(kind, "m", given);
        let cut = cardinality.limit(&mut snapshot);
        assert_eq!(found(&snapshot), *expected, "turn {turn}");
        assert_eq!(
            (cut.folded, cut.dropped, cut.points()),
            (*folded, *dropped, folded + dropped),
            "turn {turn}"
        );
    }
}

#[test]
fn counters_never_go_back() {
    check(
        limits(2, 100),
        MetricKind::Counter,
        &[
            (&[("a", "1", 5, 1.0), ("a", "2", 5, 2.0)], &["a 1 5 1", "a 2 5 2"], (0, 0)),
            // First come, whatever the order; another owner has places of its own.
            (
                &[
                    ("a", "4", 7, 40.0),
                    ("a", "3", 6, 30.0),
                    ("a", "2", 5, 2.0),
                    ("a", "1", 5, 1.0),
                    ("agent", "3", 9, 3.0),
                ],
                &["a 2 5 2", "a 1 5 1", "agent 3 9 3", "a !true 6 70"],
                (2, 0),
            ),
            // "3" vanishes, "4" grows.
            (
                &[("a", "1", 5, 1.0), ("a", "2", 5, 2.0), ("a", "4", 7, 41.0)],
                &["a 1 5 1", "a 2 5 2", "a !true 6 71"],
                (1, 0),
            ),
            // "4" begins anew, "3" is back, "2" vanishes: its place stays free for it, the folded stay folded.
            (
                &[("a", "1", 5, 1.0), ("a", "4", 50, 2.0), ("a", "3", 6, 31.0)],
                &["a 1 5 1", "a !true 6 74"],
                (2, 0),
            ),
            // A new one takes the place of "2".
            (
                &[("a", "1", 5, 1.0), ("a", "9", 1, 9.0), ("a", "3", 6, 31.0)],
                &["a 1 5 1", "a 9 1 9", "a !true 6 74"],
                (1, 0),
            ),
            // All are gone but one: the overflow series stays. Its start stays with an older one that comes.
            (&[("a", "1", 5, 1.0)], &["a 1 5 1", "a !true 6 74"], (0, 0)),
            (
                &[("a", "1", 5, 1.0), ("a", "9", 1, 9.0), ("a", "8", 2, 8.0)],
                &["a 1 5 1", "a 9 1 9", "a !true 6 82"],
                (1, 0),
            ),
            // Not a value of a counter.
            (
                &[("a", "1", 5, 1.0), ("a", "9", 1, 9.0), ("a", "8", 2, f64::NAN)],
                &["a 1 5 1", "a 9 1 9", "a !true 6 82"],
                (0, 1),
            ),
        ],
    );
}

#[test]
fn up_down_counters_are_added_up_anew() {
    check(
        limits(1, 100),
        MetricKind::UpDownCounter,
        &[
            (
                &[("host", "1", 5, 1.0), ("host", "2", 5, 20.0), ("host", "3", 4, 3.0)],
                &["host 1 5 1", "host !true 4 23"],
                (2, 0),
            ),
            (&[("host", "1", 5, 1.0), ("host", "2", 5, 5.0)], &["host 1 5 1", "host !true 4 5"], (1, 0)),
            (&[("host", "1", 5, 1.0)], &["host 1 5 1", "host !true 4 0"], (0, 0)),
        ],
    );
}

#[test]
fn gauges_are_dropped() {
    for kind in [MetricKind::Gauge, MetricKind::Unknown] {
        let given: &[Series] = &[("a", "1", 0, 1.0), ("a", "2", 0, 2.0), ("b", "1", 0, 3.0)];
        check(limits(1, 100), kind, &[(given, &["a 1 0 1", "b 1 0 3"], (0, 1))]);
    }
}

#[test]
fn too_many_owners_go_to_the_host() {
    check(
        limits(2, 3),
        MetricKind::Counter,
        &[
            (
                &[
                    ("a", "1", 5, 1.0),
                    ("a", "2", 5, 2.0),
                    ("a", "3", 5, 4.0),
                    ("b", "1", 5, 8.0),
                    ("c", "1", 5, 16.0),
                    ("d", "1", 3, 32.0),
                ],
                &["a 1 5 1", "a 2 5 2", "b 1 5 8", "a !true 5 4", "host !true 3 48"],
                (3, 0),
            ),
            (&[("b", "1", 5, 8.0), ("c", "1", 5, 17.0)], &["b 1 5 8", "host !true 3 49"], (1, 0)),
        ],
    );
}

#[test]
fn an_owner_that_vanished_is_forgotten() {
    let mut cardinality = Cardinality::new(limits(1, 100));
    let mut limit = |series: &[Series]| {
        let mut snapshot = snapshot(MetricKind::Counter, "m", series);
        cardinality.limit(&mut snapshot);
        (found(&snapshot), cardinality.series)
    };
    let both: &[Series] = &[("a", "1", 5, 1.0), ("a", "2", 5, 2.0)];
    assert_eq!(limit(both).0, ["a 1 5 1", "a !true 5 2"]);
    for _ in 0..=ABSENT_TURNS_MAX {
        limit(&[("b", "1", 5, 1.0)]);
    }
    assert_eq!(limit(&[("b", "1", 5, 1.0)]), (vec!["b 1 5 1".to_owned()], 1));
    assert_eq!(limit(both).0, ["a 1 5 1", "a !true 5 2"]);
}

#[test]
fn histograms_are_merged() {
    let mut cardinality = Cardinality::new(limits(1, 100));
    for (values, expected) in [(&[1.0, 2.0][..], "2/3"), (&[1.0, 2.0, 4.0], "3/7"), (&[8.0], "4/15")] {
        let mut histogram = ExponentialHistogram { scale: 4, ..ExponentialHistogram::default() };
        values.iter().for_each(|value| assert!(histogram.observe(*value)));
        let mut given = snapshot(MetricKind::Histogram, "m", &[("a", "1", 5, 0.0), ("a", "2", 5, 0.0)]);
        for point in &mut given.metrics[0].points {
            point.value = Value::Histogram(Box::new(histogram.clone()));
        }
        cardinality.limit(&mut given);
        assert_eq!(found(&given)[1], format!("a !true 5 {expected}"));
    }
}

#[test]
fn without_memory_they_are_dropped() {
    let mut cardinality = Cardinality::with_room(limits(1, 100), 100);
    let mut given =
        snapshot(MetricKind::Counter, "m", &[("a", "1", 5, 1.0), ("a", "2", 5, 2.0), ("a", "3", 5, 4.0)]);
    assert_eq!(cardinality.limit(&mut given), Cut { folded: 1, dropped: 1 });
    assert_eq!(found(&given), ["a 1 5 1", "a !true 5 2"]);
}

#[test]
fn overrides() {
    let limits = limits(7, 100).with_override("app.*.bytes", 1).unwrap().with_override("app?*", 2).unwrap();
    let check = |name: &str, expected: usize| assert_eq!(limits.per_owner_max(name), expected, "{name}");
    check("app.x.bytes", 1);
    check("app.x.bytes.total", 2);
    check("appXxXbytes", 2);
    check("app", 7);
    check("my.app.x.bytes", 7);
    assert!(Limits::default().with_override(&"*?".repeat(4_000_000), 1).is_err());
}

proptest! {
    /// Whichever series come, go and begin anew: no series is above its limit, the overflow series never goes back, and
    /// what all counters counted is there.
    #[test]
    fn nothing_is_lost(rows in proptest::collection::vec(proptest::collection::vec((0..8usize, 1..9u32, 0..6u8), 0..8), 1..40)) {
        let mut cardinality = Cardinality::new(limits(3, 100));
        let labels = ["0", "1", "2", "3", "4", "5", "6", "7"];
        // All have places or are folded from the beginning.
        let mut now = [(1u64, 1f64); 8];
        let (mut before, mut counted) = (5f64, 5f64);
        for (turn, changes) in std::iter::once(Vec::new()).chain(rows).enumerate() {
            let (mut is_absent, mut is_changed) = ([false; 8], [false; 8]);
            for (which, amount, action) in changes {
                // What is counted and begins anew before anyone looks is not there to be seen.
                if std::mem::replace(&mut is_changed[which], true) { continue; }
                if action == 0 { now[which] = (turn as u64 + 10, 0.0); }
                // Every second turn has all, so none is forgotten.
                if action == 1 && turn % 2 == 1 { is_absent[which] = true; continue; }
                now[which].1 += f64::from(amount);
                if which >= 3 { counted += f64::from(amount); }
            }
            let series: Vec<Series> = (0..8).filter(|i| !is_absent[*i]).map(|i| ("a", labels[i], now[i].0, now[i].1)).collect();
            let mut given = snapshot(MetricKind::Counter, "m", &series);
            let cut = cardinality.limit(&mut given);
            let points = &given.metrics[0].points;
            prop_assert_eq!(points.len() as u64 + cut.folded, series.len() as u64 + 1);
            prop_assert!(points.len() <= 4);
            let last = points.last().map(|point| point.value.clone());
            let Some(Value::Number(overflow)) = last else { panic!("{last:?}") };
            prop_assert!(overflow >= before, "{} after {}", overflow, before);
            before = overflow;
            if is_absent == [false; 8] {
                prop_assert_eq!(overflow, counted);
            }
        }
    }
}
