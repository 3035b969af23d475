//! Sequences of snapshots as tables: what each series was, what is exported of it.

use proptest::prelude::*;

use super::*;
use crate::telemetry::{Exemplar, ExponentialHistogram, Metric, Owner, Vocabulary};

/// Time, then the series: name, start, value.
type Given<'a> = (u64, &'a [(&'static str, u64, f64)]);
/// The series: name, start, value.
type Expected<'a> = &'a [(&'static str, u64, f64)];

fn snapshot(kind: MetricKind, time_unix_ns: u64, series: &[(&'static str, u64, f64)]) -> Snapshot {
    let point = |(name, start, value): &(&'static str, u64, f64)| {
        Point::number(Owner::Host, vec![("name".into(), (*name).into())], *start, *value)
    };
    let metric = Metric::new(kind, "m", "By", "").with(series.iter().map(point).collect());
    Snapshot { time_unix_ns, metrics: vec![metric] }
}

fn found(snapshot: &Snapshot) -> Vec<(String, u64, f64)> {
    let series = |point: &Point| match &point.value {
        Value::Number(value) => (point.attributes[0].1.to_string(), point.start_unix_ns, *value),
        other => panic!("no number: {other:?}"),
    };
    snapshot.metrics[0].points.iter().map(series).collect()
}

fn check(first: First, rows: &[(Given, Expected, Withheld)]) {
    let mut deltas = Deltas::new(TemporalityPreference::Delta, first);
    for ((time, series), expected, withheld) in rows {
        let mut snapshot = snapshot(MetricKind::Counter, *time, series);
        let lost = deltas.apply(&mut snapshot);
        let expected: Vec<_> = expected.iter().map(|(name, a, b)| ((*name).to_owned(), *a, *b)).collect();
        assert_eq!((found(&snapshot), lost), (expected, *withheld), "at {time}");
    }
}

const NONE: Withheld = Withheld { baseline: 0, full: 0, invalid: 0 };

#[test]
fn differences_and_resets() {
    check(
        First::Everything,
        &[
            ((100, &[("a", 10, 5.0)]), &[("a", 10, 5.0)], NONE),
            ((200, &[("a", 10, 8.0), ("b", 150, 1.0)]), &[("a", 100, 3.0), ("b", 150, 1.0)], NONE),
            ((300, &[("a", 10, 8.0), ("b", 150, 1.5)]), &[("a", 200, 0.0), ("b", 200, 0.5)], NONE),
            // Smaller, with the same start: it began anew at some time since.
            ((400, &[("a", 10, 2.0)]), &[("a", 300, 2.0)], NONE),
            // Another start, larger.
            ((500, &[("a", 450, 7.0)]), &[("a", 450, 7.0)], NONE),
            // Another start that is older than the export before: intervals do not overlap.
            ((600, &[("a", 20, 9.0)]), &[("a", 500, 9.0)], NONE),
        ],
    );
}

#[test]
fn vanished_and_back() {
    check(
        First::Everything,
        &[
            ((100, &[("a", 10, 5.0)]), &[("a", 10, 5.0)], NONE),
            ((200, &[]), &[], NONE),
            ((300, &[]), &[], NONE),
            ((400, &[("a", 10, 6.0)]), &[("a", 100, 1.0)], NONE),
        ],
    );
    let gone: Vec<(Given, Expected, Withheld)> =
        (0..12).map(|i| ((200 + i, &[][..]), &[][..], NONE)).collect();
    let mut rows: Vec<(Given, Expected, Withheld)> =
        vec![((100, &[("a", 10, 5.0)]), &[("a", 10, 5.0)], NONE)];
    rows.extend(gone);
    // Forgotten: a new series.
    rows.push(((400, &[("a", 10, 6.0)]), &[("a", 10, 6.0)], NONE));
    check(First::Everything, &rows);
}

#[test]
fn clock_steps_backward() {
    check(
        First::Everything,
        &[
            ((1000, &[("a", 10, 5.0)]), &[("a", 10, 5.0)], NONE),
            ((400, &[("a", 10, 7.0)]), &[("a", 400, 2.0)], NONE),
            ((500, &[("a", 10, 8.0)]), &[("a", 400, 1.0)], NONE),
        ],
    );
}

#[test]
fn restart_of_the_agent() {
    let baseline = Withheld { baseline: 1, ..NONE };
    check(
        First::SinceAgentStart(1000),
        &[
            // The container's CPU time was exported by the agent before; "b" began after us.
            ((1100, &[("a", 10, 500.0), ("b", 1050, 2.0)]), &[("b", 1050, 2.0)], baseline),
            ((1200, &[("a", 10, 503.0), ("c", 0, 9.0)]), &[("a", 1100, 3.0)], baseline),
            ((1300, &[("c", 0, 10.0)]), &[("c", 1200, 1.0)], NONE),
        ],
    );
    check(First::Everything, &[((1100, &[("a", 10, 500.0)]), &[("a", 10, 500.0)], NONE)]);
}

#[test]
fn what_no_counter_is() {
    let invalid = Withheld { invalid: 1, ..NONE };
    check(
        First::Everything,
        &[
            ((100, &[("a", 10, 5.0), ("a", 10, 3.0)]), &[("a", 10, 5.0)], invalid),
            ((200, &[("a", 10, f64::NAN)]), &[], invalid),
            ((300, &[("a", 10, -1.0)]), &[], invalid),
            ((400, &[("a", 10, 6.0)]), &[("a", 100, 1.0)], NONE),
        ],
    );
}

#[test]
fn without_room_they_wait() {
    let mut deltas = Deltas::with_room(TemporalityPreference::Delta, First::Everything, 100);
    let full = Withheld { full: 1, ..NONE };
    let mut check = |time, series: &[_], expected: &[(&str, u64, f64)], withheld| {
        let mut snapshot = snapshot(MetricKind::Counter, time, series);
        let lost = deltas.apply(&mut snapshot);
        let expected: Vec<_> = expected.iter().map(|(name, a, b)| ((*name).to_owned(), *a, *b)).collect();
        assert_eq!((found(&snapshot), lost), (expected, withheld), "at {time}");
    };
    check(100, &[("a", 10, 5.0), ("b", 10, 7.0)], &[("a", 10, 5.0)], full);
    check(200, &[("b", 10, 8.0)], &[], full);
    // "a" was absent for a whole snapshot: "b" takes its place, with everything since its start.
    check(300, &[("b", 10, 9.0)], &[("b", 10, 9.0)], NONE);
    check(400, &[("b", 10, 9.5), ("a", 10, 5.0)], &[("b", 300, 0.5)], full);
}

#[test]
fn preferences() {
    use MetricKind::{Counter, Gauge, Histogram, Unknown, UpDownCounter};
    let check = |text: &str, expected: Option<&[MetricKind]>| {
        let all = [Counter, UpDownCounter, Gauge, Histogram, Unknown];
        let found = text.parse::<TemporalityPreference>().ok();
        let found = found
            .map(|preference| all.into_iter().filter(|kind| preference.is_delta(*kind)).collect::<Vec<_>>());
        assert_eq!(found.as_deref(), expected, "{text}");
    };
    check("cumulative", Some(&[]));
    check("Delta", Some(&[Counter, Histogram]));
    check("LOWMEMORY", Some(&[Histogram]));
    check("", None);
    check("deltas", None);
    assert_eq!(TemporalityPreference::default(), TemporalityPreference::Cumulative);
}

#[test]
fn others_are_left_alone() {
    for (kind, preference, vocabulary) in [
        (MetricKind::UpDownCounter, TemporalityPreference::Delta, Vocabulary::OpenTelemetry),
        (MetricKind::Gauge, TemporalityPreference::Delta, Vocabulary::OpenTelemetry),
        (MetricKind::Counter, TemporalityPreference::LowMemory, Vocabulary::OpenTelemetry),
        (MetricKind::Counter, TemporalityPreference::Cumulative, Vocabulary::OpenTelemetry),
        (MetricKind::Counter, TemporalityPreference::Delta, Vocabulary::Cadvisor),
        (MetricKind::Counter, TemporalityPreference::Delta, Vocabulary::NodeExporter),
    ] {
        let mut deltas = Deltas::new(preference, First::Everything);
        for time in [100, 200] {
            let mut given = snapshot(kind, time, &[("a", 10, 5.0)]);
            given.metrics[0].vocabulary = vocabulary;
            let mut applied = given.clone();
            deltas.apply(&mut applied);
            assert_eq!(applied, given, "{kind:?} {preference:?} {vocabulary:?}");
        }
    }
}

fn histogram_snapshot(time: u64, start: u64, histogram: &ExponentialHistogram) -> Snapshot {
    let value = Value::Histogram(Box::new(histogram.clone()));
    let point = Point { owner: Owner::Agent, attributes: Vec::new(), start_unix_ns: start, value };
    let metric = Metric::new(MetricKind::Histogram, "h", "s", "").with(vec![point]);
    Snapshot { time_unix_ns: time, metrics: vec![metric] }
}

fn only_histogram(snapshot: &Snapshot) -> (u64, ExponentialHistogram) {
    match &snapshot.metrics[0].points[..] {
        [Point { start_unix_ns, value: Value::Histogram(histogram), .. }] => {
            (*start_unix_ns, (**histogram).clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn histograms() {
    let histogram = |scale, offset, buckets: &[u64], sum| ExponentialHistogram {
        scale,
        offset,
        buckets: buckets.to_vec(),
        sum,
        ..ExponentialHistogram::default()
    };
    let mut deltas = Deltas::new(TemporalityPreference::LowMemory, First::Everything);
    let mut check = |time, start, given: ExponentialHistogram, expected: (u64, ExponentialHistogram)| {
        let mut snapshot = histogram_snapshot(time, start, &given);
        deltas.apply(&mut snapshot);
        assert_eq!(only_histogram(&snapshot), expected, "at {time}");
    };
    check(100, 10, histogram(1, 2, &[1, 2], 6.0), (10, histogram(1, 2, &[1, 2], 6.0)));
    // It grew to the left.
    check(200, 10, histogram(1, 1, &[4, 1, 2], 13.0), (100, histogram(1, 1, &[4], 7.0)));
    // Coarser: 1, 2, 3 at scale 1 are 0, 1, 1 at scale 0.
    check(300, 10, histogram(0, 0, &[4, 3, 1], 18.0), (200, histogram(0, 2, &[1], 5.0)));
    // Smaller: anew.
    check(400, 10, histogram(0, 0, &[4, 2, 1], 15.0), (300, histogram(0, 0, &[4, 2, 1], 15.0)));
    check(500, 450, histogram(0, 0, &[9, 9, 9], 99.0), (450, histogram(0, 0, &[9, 9, 9], 99.0)));
}

#[test]
fn exemplars_once() {
    let exemplar = |time_unix_ns| Exemplar {
        value: 1.0,
        time_unix_ns,
        trace_id: None,
        span_id: None,
        attributes: Vec::new(),
    };
    let mut deltas = Deltas::new(TemporalityPreference::Delta, First::Everything);
    let mut histogram = ExponentialHistogram::default();
    for (time, expected) in [(100, vec![90]), (200, vec![150]), (300, vec![])] {
        histogram.observe(1.0);
        histogram.exemplars = [90, 150].into_iter().filter(|at| *at < time).map(exemplar).collect();
        let mut snapshot = histogram_snapshot(time, 10, &histogram);
        deltas.apply(&mut snapshot);
        let exemplars = only_histogram(&snapshot).1.exemplars;
        let found: Vec<u64> = exemplars.iter().map(|exemplar| exemplar.time_unix_ns).collect();
        assert_eq!(found, expected, "at {time}");
    }
}

proptest! {
    /// Three series that grow, begin anew or are absent for a while: nothing is lost, nothing is negative, no intervals
    /// overlap.
    #[test]
    fn deltas_add_up(rows in proptest::collection::vec((0..3usize, 0..5u8, 0..1000u32), 1..80)) {
        let names = ["a", "b", "c"];
        let mut deltas = Deltas::new(TemporalityPreference::Delta, First::Everything);
        let mut now = [(1u64, 0f64); 3];
        let (mut counted, mut exported, mut until) = ([0f64; 3], [0f64; 3], [0u64; 3]);
        for (turn, (which, action, amount)) in rows.into_iter().enumerate() {
            let time = 100 * (turn as u64 + 1);
            if action == 0 {
                now[which] = (time - 50, 0.0);
            }
            now[which].1 += f64::from(amount);
            counted[which] += f64::from(amount);
            // At least "a" or "b" is absent, for less than it takes to be forgotten, as each third turn has all.
            let absent = (turn % 3 != 2).then_some(usize::from(action) % 3);
            let all = (0..3).filter(|i| Some(*i) != absent || *i == which);
            let series: Vec<_> = all.map(|i| (names[i], now[i].0, now[i].1)).collect();
            let mut given = snapshot(MetricKind::Counter, time, &series);
            prop_assert_eq!(deltas.apply(&mut given), NONE);
            for (name, start, value) in found(&given) {
                let i = names.iter().position(|known| *known == name).unwrap();
                prop_assert!(value >= 0.0 && start <= time && start >= until[i]);
                exported[i] += value;
                until[i] = time;
            }
        }
        let mut last = snapshot(MetricKind::Counter, 1_000_000, &[0, 1, 2].map(|i| (names[i], now[i].0, now[i].1)));
        deltas.apply(&mut last);
        found(&last).into_iter().enumerate().for_each(|(i, (_, _, value))| exported[i] += value);
        prop_assert_eq!(counted, exported);
    }

    #[test]
    fn histogram_deltas_add_up(
        rows in proptest::collection::vec(proptest::collection::vec(1e-6..1e6f64, 0..10), 1..20),
    ) {
        let mut deltas = Deltas::new(TemporalityPreference::Delta, First::Everything);
        let mut all = ExponentialHistogram { scale: 10, ..ExponentialHistogram::default() };
        let mut sum = ExponentialHistogram { scale: 10, ..ExponentialHistogram::default() };
        for (turn, values) in rows.iter().enumerate() {
            values.iter().for_each(|value| { all.observe(*value); });
            let mut given = histogram_snapshot(100 * (turn as u64 + 1), 10, &all);
            deltas.apply(&mut given);
            sum.merge(&only_histogram(&given).1);
        }
        prop_assert_eq!((sum.scale, sum.offset, &sum.buckets), (all.scale, all.offset, &all.buckets));
        prop_assert!((sum.sum - all.sum).abs() <= all.sum * 1e-9);
    }
}
