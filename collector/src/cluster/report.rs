//! Objects -> metrics: in kube-state-metrics' words for the endpoint, in OpenTelemetry's for OTLP.
//!
//! A kind says the names, this file makes the series: whose they are, what labels all have, since when they count. Refuses:
//! knowing any kind.

use std::collections::HashMap;
use std::sync::Arc;

use kube::api::ObjectMeta;

use crate::telemetry::{ClusterObject, Metric, MetricKind, Owner, Point, Text, Vocabulary};

/// Whose words are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// kube-state-metrics', for the endpoint.
    pub kube_state: bool,
    /// OpenTelemetry's, for OTLP.
    pub conventions: bool,
}

/// It is on all series of kube-state-metrics, without a value where it does not belong: a scrape that labels its targets with
/// their node would put the leader's there.
const NODE: &str = "node";

/// Metrics in the making.
pub struct Report {
    words: Words,
    places: HashMap<&'static str, usize>,
    metrics: Vec<Metric>,
}

/// The series of one object, or of one container of it. What all have in common is there once: five thousand pods have some
/// two hundred thousand.
pub struct Series<'a> {
    report: &'a mut Report,
    owner: Arc<ClusterObject>,
    /// The owner of series that name a node themselves.
    placed: Option<Arc<ClusterObject>>,
    start_unix_ns: u64,
}

/// Names with values that are known only now.
pub type Pairs<'a> = [(&'static str, &'a str)];

impl Report {
    /// Without metrics.
    pub fn new(words: Words) -> Self {
        Self { words, places: HashMap::new(), metrics: Vec::new() }
    }

    /// Begins an object: `labels` are on all its series of kube-state-metrics, `resource` is what OTLP knows it by.
    pub fn object(&mut self, meta: &ObjectMeta, labels: &Pairs<'_>, resource: &Pairs<'_>) -> Series<'_> {
        let Words { kube_state, conventions } = self.words;
        let resource = texts(resource).filter(|(_, value)| conventions && !value.is_empty());
        let attributes = exact(resource);
        let node = (NODE.into(), "".into());
        let has_node = kube_state && labels.iter().any(|(name, _)| *name == NODE);
        let labels = texts(labels).filter(|_| kube_state).chain(Some(node).filter(|_| !has_node));
        let labels = exact(labels);
        Series {
            report: self,
            owner: Arc::new(ClusterObject { attributes, labels }),
            placed: None,
            start_unix_ns: created_s(meta).map_or(0, |seconds| (seconds * 1e9) as u64),
        }
    }

    /// All metrics.
    pub fn finish(mut self) -> Vec<Metric> {
        self.metrics.iter_mut().for_each(|metric| metric.points.shrink_to_fit());
        self.metrics
    }

    fn metric(
        &mut self,
        vocabulary: Vocabulary,
        kind: MetricKind,
        [name, unit, help]: [&'static str; 3],
    ) -> &mut Metric {
        let next = self.metrics.len();
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.metrics.push(Metric { vocabulary, ..Metric::new(kind, name, unit, help) });
        }
        &mut self.metrics[place]
    }
}

impl Series<'_> {
    /// A gauge of kube-state-metrics; nothing where there is no value.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &Pairs<'_>,
        value: impl Into<Option<f64>>,
    ) {
        let Some(value) = value.into() else { return };
        self.kube_state(MetricKind::Gauge, 0, [name, "", help], texts(labels), value);
    }

    /// A counter of kube-state-metrics, since the object was made.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &Pairs<'_>, value: f64) {
        self.kube_state(MetricKind::Counter, self.start_unix_ns, [name, "", help], texts(labels), value);
    }

    /// One gauge for each of several states, 1 for that which is.
    pub fn states(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        all: &[&'static str],
        is: impl Fn(&str) -> bool,
    ) {
        for state in all {
            let labels = [(label.into(), Text::Borrowed(state))];
            self.kube_state(MetricKind::Gauge, 0, [name, "", help], labels, truth(is(state)));
        }
    }

    /// A label's value for each of the three values of a condition, 1 for that which it has.
    pub fn condition(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        more: &Pairs<'_>,
        status: &str,
    ) {
        for known in STATUSES {
            let labels = texts(more).chain([(label.into(), Text::Borrowed(known))]);
            let value = truth(status.eq_ignore_ascii_case(known));
            self.kube_state(MetricKind::Gauge, 0, [name, "", help], labels, value);
        }
    }

    /// An up-down-counter of OpenTelemetry; nothing where there is no value.
    pub fn sum(
        &mut self,
        [name, unit, help]: [&'static str; 3],
        attributes: &Pairs<'_>,
        value: impl Into<Option<f64>>,
    ) {
        let Some(value) = value.into().filter(|_| self.report.words.conventions) else { return };
        let owner = Owner::Object(Arc::clone(&self.owner));
        let point = Point::number(owner, texts(attributes).collect(), self.start_unix_ns, value);
        self.report.metric(Vocabulary::Cluster, MetricKind::UpDownCounter, [name, unit, help]).add(point);
    }

    /// Labels with names of their own; nothing where there are none.
    pub fn labels(&mut self, name: &'static str, help: &'static str, labels: Vec<(Text, Text)>) {
        if !labels.is_empty() {
            self.kube_state(MetricKind::Gauge, 0, [name, "", help], labels, 1.0);
        }
    }

    fn kube_state(
        &mut self,
        kind: MetricKind,
        start_unix_ns: u64,
        text: [&'static str; 3],
        labels: impl IntoIterator<Item = (Text, Text)>,
        value: f64,
    ) {
        if !self.report.words.kube_state {
            return;
        }
        let labels: Vec<(Text, Text)> = labels.into_iter().collect();
        let names_node = labels.iter().any(|(name, _)| name == NODE);
        let owner = if names_node { self.placed() } else { Arc::clone(&self.owner) };
        let point = Point::number(Owner::Object(owner), labels, start_unix_ns, value);
        self.report.metric(Vocabulary::KubeState, kind, text).add(point);
    }

    /// The owner without a node of its own.
    fn placed(&mut self) -> Arc<ClusterObject> {
        let owner = &self.owner;
        let placed = self.placed.get_or_insert_with(|| {
            let labels = exact(owner.labels.iter().filter(|(name, _)| name != NODE).cloned());
            Arc::new(ClusterObject { attributes: owner.attributes.clone(), labels })
        });
        Arc::clone(placed)
    }
}

/// The values of a condition, in kube-state-metrics' words.
pub const STATUSES: [&str; 3] = ["true", "false", "unknown"];

/// 1 or 0.
pub fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// When an object was made, seconds since the epoch.
pub fn created_s(meta: &ObjectMeta) -> Option<f64> {
    meta.creation_timestamp.as_ref().map(seconds)
}

/// Seconds since the epoch, whole, as kube-state-metrics has them.
pub fn seconds(time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time) -> f64 {
    time.0.as_second().max(0) as f64
}

/// In no more memory than they take.
fn exact(texts: impl Iterator<Item = (Text, Text)>) -> Vec<(Text, Text)> {
    texts.collect::<Box<[_]>>().into_vec()
}

fn texts<'a>(pairs: &'a Pairs<'_>) -> impl Iterator<Item = (Text, Text)> + use<'a> {
    pairs.iter().map(|(name, value)| (Text::Borrowed(name), Text::Owned((*value).to_owned())))
}
