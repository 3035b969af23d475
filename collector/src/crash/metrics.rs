//! Counters of deaths by workload. They outlive the container: a series stays until the agent ends.
//!
//! A death is counted under its workload's name, so one in a new pod waits until that is known. Refuses: unbounded series.
//! Above the limit deaths are counted in one overflow series, as OpenTelemetry names it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::record::Kind;
use super::verdict::Verdict;
use super::{signals, status};
use crate::dump::socket::Outcomes;
use crate::identity::Subject;
use crate::telemetry::{Metric, MetricKind, OVERFLOW_ATTRIBUTE, Owner, Point, Text};

/// Series of deaths, and of OOM kills.
const SERIES_MAX: usize = 1_024;

/// Deaths that wait for the name of their workload.
const UNNAMED_MAX: usize = 1_024;

/// Counts since the agent's start.
#[derive(Default)]
pub struct CrashMetrics {
    deaths: BTreeMap<(Workload, Kind, String), u64>,
    oom_kills: BTreeMap<Workload, u64>,
    unnamed: VecDeque<(Arc<Subject>, Kind, u32)>,
    overflow: u64,
    oom_overflow: u64,
    dump_outcomes: Option<Arc<Outcomes>>,
    recorded: u64,
    stopped: u64,
    failed: u64,
    start_unix_ns: u64,
}

/// Whose deaths are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Workload {
    service: String,
    /// Two services of one name in two namespaces are two.
    namespace: Option<String>,
}

impl CrashMetrics {
    /// Nothing is counted yet. Dumps are counted where they are taken.
    pub fn new(dump_outcomes: Option<Arc<Outcomes>>, start_unix_ns: u64) -> Self {
        Self { dump_outcomes, start_unix_ns, ..Self::default() }
    }

    /// Counts a death of a workload. `status` as `wait(2)` gives it.
    pub fn count_death(&mut self, subject: &Arc<Subject>, kind: Kind, status: u32) {
        self.recorded += 1;
        self.unnamed.push_back((Arc::clone(subject), kind, status));
        if self.unnamed.len() > UNNAMED_MAX {
            self.name_first();
        }
    }

    /// Puts the deaths under their workloads that need not wait any more, in their order; at `u64::MAX` all.
    pub fn name(&mut self, now_ns: u64) {
        while self.unnamed.front().is_some_and(|(subject, ..)| !subject.pod.is_awaited(now_ns)) {
            self.name_first();
        }
    }

    fn name_first(&mut self) {
        let Some((subject, kind, status)) = self.unnamed.pop_front() else { return };
        let workload = Workload {
            service: subject.service_name().to_owned(),
            namespace: subject.pod().map(|pod| pod.namespace.clone()),
        };
        if kind == Kind::OomKill {
            count(&mut self.oom_kills, &mut self.oom_overflow, workload.clone());
        }
        count(&mut self.deaths, &mut self.overflow, (workload, kind, reason(status)));
    }

    /// Counts an end that makes no record.
    pub fn count_end(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Stopped => self.stopped += 1,
            Verdict::Failed | Verdict::Record(_) => self.failed += 1,
        }
    }

    /// All counters now. `ends` is the number of all ends of processes.
    pub fn read(&self, ends: u64) -> Vec<Metric> {
        let deaths = self.deaths.iter().map(|((workload, kind, reason), count)| {
            let how =
                [("kansoku.crash.kind", kind.name().to_owned()), ("kansoku.crash.reason", reason.clone())];
            self.point(workload.attributes().chain(how), *count)
        });
        let oom_kills =
            self.oom_kills.iter().map(|(workload, count)| self.point(workload.attributes(), *count));
        let bad = self.recorded + self.stopped + self.failed;
        let outcomes = [
            ("success", ends.saturating_sub(bad)),
            ("stopped", self.stopped),
            ("failed", self.failed),
            ("crashed", self.recorded),
        ];
        let exits = outcomes
            .map(|(outcome, count)| self.point([("kansoku.exit.outcome", outcome.to_owned())], count));
        vec![
            counter(
                "kansoku.crashes",
                "Abnormal deaths of processes by workload.",
                "{crash}",
                deaths.chain(self.overflow(self.overflow)).collect(),
            ),
            counter(
                "kansoku.oom_kills",
                "Processes that the OOM killer chose, children of a container's main process included.",
                "{process}",
                oom_kills.chain(self.overflow(self.oom_overflow)).collect(),
            ),
            counter("kansoku.process.exits", "Ends of processes by outcome.", "{process}", exits.into()),
            counter("kansoku.dumps", "Dumps that the kernel offered, by outcome.", "{dump}", self.dumps()),
        ]
    }
}

impl Workload {
    fn attributes(&self) -> impl Iterator<Item = (&'static str, String)> {
        let namespace = self.namespace.clone().map(|namespace| ("k8s.namespace.name", namespace));
        std::iter::once(("service.name", self.service.clone())).chain(namespace)
    }
}

impl CrashMetrics {
    fn point(&self, attributes: impl IntoIterator<Item = (&'static str, String)>, value: u64) -> Point {
        let attributes = attributes.into_iter().map(|(key, value)| (Text::from(key), Text::from(value)));
        Point::number(Owner::Agent, attributes.collect(), self.start_unix_ns, value as f64)
    }

    fn overflow(&self, count: u64) -> Option<Point> {
        (count > 0).then(|| self.point([(OVERFLOW_ATTRIBUTE, "true".to_owned())], count))
    }

    fn dumps(&self) -> Vec<Point> {
        let Some(outcomes) = &self.dump_outcomes else { return Vec::new() };
        let counts = [
            ("written", &outcomes.written),
            ("truncated", &outcomes.truncated),
            ("refused_by_policy", &outcomes.refused_by_policy),
            ("busy", &outcomes.busy),
            ("failed", &outcomes.failed),
            ("foreign", &outcomes.foreign),
        ];
        let point = |(outcome, count): (&str, &AtomicU64)| {
            self.point([("kansoku.dump.outcome", outcome.to_owned())], count.load(Ordering::Relaxed))
        };
        counts.into_iter().map(point).collect()
    }
}

/// Counts in the series of a key, or beside them where there is no room for one more.
fn count<K: Ord>(series: &mut BTreeMap<K, u64>, overflow: &mut u64, key: K) {
    if series.len() >= SERIES_MAX && !series.contains_key(&key) {
        *overflow += 1;
    } else {
        *series.entry(key).or_default() += 1;
    }
}

/// The signal's name or the exit code.
fn reason(status: u32) -> String {
    match status::signal(status) {
        None => format!("exit {}", status::exit_code(status)),
        Some(signal) => signals::name(signal),
    }
}

fn counter(name: &'static str, description: &'static str, unit: &'static str, points: Vec<Point>) -> Metric {
    Metric::new(MetricKind::Counter, name, unit, description).with(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Choice, Facts, LatePod, Pod};
    use crate::telemetry::Value;

    fn number(point: &Point) -> u64 {
        match point.value {
            Value::Number(number) => number as u64,
            _ => panic!("no number: {point:?}"),
        }
    }

    #[test]
    fn every_death_is_in_one_series() {
        let mut metrics = CrashMetrics::default();
        for number in 0..SERIES_MAX + 10 {
            metrics.count_death(&Arc::new(Subject::named(&format!("service-{number}"))), Kind::OomKill, 9);
        }
        metrics.count_death(&Arc::new(Subject::named("service-0")), Kind::Crash, 11 | 0x80);
        metrics.count_end(Verdict::Failed);
        metrics.name(0);
        let read = metrics.read(5_000);
        let sum = |metric: &Metric| metric.points.iter().map(number).sum::<u64>();
        assert_eq!(sum(&read[0]), SERIES_MAX as u64 + 11);
        assert!(read[0].points.len() <= SERIES_MAX + 1);
        assert_eq!(sum(&read[1]), SERIES_MAX as u64 + 10);
        assert!(read[1].points.len() <= SERIES_MAX + 1);
        let overflow = read[1].points.last().and_then(|point| point.attributes.first());
        assert!(overflow.is_some_and(|(key, _)| &**key == OVERFLOW_ATTRIBUTE), "{overflow:?}");
        assert_eq!(sum(&read[2]), 5_000);
    }

    #[test]
    fn a_death_waits_for_its_workloads_name() {
        let pod = LatePod::awaited(50);
        let subject = Arc::new(Subject { pod: pod.clone(), ..Subject::named("sh") });
        let mut metrics = CrashMetrics::default();
        metrics.count_death(&subject, Kind::Crash, 11);
        metrics.name(49);
        assert!(metrics.read(1)[0].points.is_empty());
        pod.tell(Pod::of(&Facts::of_pod("shop", "cart-1", "12", "cart"), &Choice::default()));
        metrics.name(49);
        let points = &metrics.read(1)[0].points;
        assert_eq!(
            points[0].attributes[..2],
            [("service.name".into(), "cart".into()), ("k8s.namespace.name".into(), "shop".into()),]
        );
    }
}
