//! Readings of cgroups as metrics, in OpenTelemetry's and in cAdvisor's words.
//!
//! Refuses: reading. A number that is absent makes no series.

use std::sync::Arc;

use super::CgroupKey;
use super::device::DeviceNames;
use super::network::NamespaceUsage;
use super::start::{Group, Starts};
use super::usage::{CgroupUsage, FilesystemUsage, InterfaceUsage};
use crate::identity::Subject;
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Vocabulary};

pub mod cadvisor;
pub mod opentelemetry;

/// What was read of one cgroup.
pub struct Reading<'a> {
    /// Its path.
    pub path: &'a str,
    /// Whose it is.
    pub key: &'a CgroupKey,
    /// Whose it is, by name; the root has none, a pod may.
    pub subject: Option<&'a Arc<Subject>>,
    /// Whether it is the first path of its key: others would repeat its series where paths are not told.
    pub is_first: bool,
    /// What it uses.
    pub usage: &'a CgroupUsage,
    /// Processors in use since the reading before.
    pub cpu_cores: Option<f64>,
    /// The root's own interfaces, since the root's start.
    pub host_interfaces: &'a [InterfaceUsage],
    /// Its network namespace, unless that is the host's.
    pub namespace: Option<NamespaceUsage>,
    /// Whether it is the first path that is in the namespace.
    pub is_first_in_namespace: bool,
    /// Its root file system.
    pub filesystem: Option<&'a FilesystemUsage>,
    /// Since when its counters count.
    pub starts: Starts,
    /// When it began, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    /// The time of the reading.
    pub time_unix_ns: u64,
}

/// The machine: `machine_*` of cAdvisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processors that are online.
    pub cpu_cores: Option<u64>,
    /// Memory.
    pub memory_bytes: Option<u64>,
}

impl Reading<'_> {
    fn owner(&self) -> Owner {
        self.subject.map_or(Owner::Host, |subject| Owner::Subject(subject.clone()))
    }

    /// The interfaces that are its own, and since when they count.
    fn interfaces(&self) -> (&[InterfaceUsage], u64) {
        match &self.namespace {
            Some(namespace) => (&namespace.interfaces, namespace.start_unix_ns.min(self.time_unix_ns)),
            None => (self.host_interfaces, self.start_unix_ns),
        }
    }
}

/// A metric with at most one series for each cgroup.
struct Family {
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    /// The group of its counter; gauges and the like have none.
    kind: MetricKind,
    group: Option<Group>,
    value: fn(&Reading<'_>) -> Option<f64>,
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    group: Group,
    value: fn(&Reading<'_>) -> Option<f64>,
) -> Family {
    Family { name, unit, description, kind: MetricKind::Counter, group: Some(group), value }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    value: fn(&Reading<'_>) -> Option<f64>,
) -> Family {
    Family { name, unit, description, kind: MetricKind::Gauge, group: None, value }
}

/// A sum that also shrinks. It counts since the cgroup's beginning.
const fn sum(
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    value: fn(&Reading<'_>) -> Option<f64>,
) -> Family {
    Family { name, unit, description, kind: MetricKind::UpDownCounter, group: None, value }
}

/// The one attribute that the series of some families have.
type Label = fn(&Reading<'_>) -> Option<(Text, Text)>;

impl Family {
    fn point(&self, reading: &Reading<'_>, owner: &Owner, label: Option<Label>) -> Option<Point> {
        let start_unix_ns = match (self.kind, self.group) {
            (MetricKind::Gauge, _) => 0,
            (_, Some(group)) => reading.starts.of(group),
            (_, None) => reading.start_unix_ns,
        };
        let value = (self.value)(reading)?;
        let attributes = label.and_then(|label| label(reading)).into_iter().collect();
        Some(Point::number(owner.clone(), attributes, start_unix_ns, value))
    }

    /// The metric over these cgroups with their owners; `None` without series.
    fn metric(
        &self,
        vocabulary: Vocabulary,
        readings: &[(&Reading<'_>, Owner)],
        label: Option<Label>,
    ) -> Option<Metric> {
        let mut points = Vec::with_capacity(readings.len());
        points.extend(readings.iter().filter_map(|(reading, owner)| self.point(reading, owner, label)));
        let mut metric = Metric::new(self.kind, self.name, self.unit, self.description).with(points);
        metric.vocabulary = vocabulary;
        (!metric.points.is_empty()).then_some(metric)
    }
}

fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn seconds_of_ns(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64 / 1e9)
}

fn seconds_of_us(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64 / 1e6)
}

/// All metrics of `readings`.
pub fn metrics(
    readings: &[Reading<'_>],
    names: &DeviceNames,
    machine: Machine,
    wants_cadvisor: bool,
) -> Vec<Metric> {
    let mut metrics = opentelemetry::metrics(readings, names);
    if wants_cadvisor {
        metrics.extend(cadvisor::metrics(readings, names, machine));
    }
    metrics
}
