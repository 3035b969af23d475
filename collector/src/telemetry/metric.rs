//! A metric: a name, what its numbers mean, and its series. Whose a series is, is part of the series.
//!
//! Refuses: OTLP and Prometheus. Names and units are those of the OpenTelemetry semantic conventions; the families that
//! existing dashboards use have names of their own ([`Vocabulary`]).

use std::borrow::Cow;
use std::sync::Arc;

use super::{ExplicitHistogram, ExponentialHistogram, Summary};
use crate::identity::Subject;

/// A text that is mostly known when the agent is built.
pub type Text = Cow<'static, str>;

/// A metric with all its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The name, in the form of its vocabulary: `container.cpu.time`, `container_cpu_usage_seconds_total`.
    pub name: Text,
    /// What it measures.
    pub description: Text,
    /// The unit, in UCUM.
    pub unit: Text,
    /// What its numbers mean.
    pub kind: MetricKind,
    /// Who knows it by this name.
    pub vocabulary: Vocabulary,
    /// Its series.
    pub points: Vec<Point>,
}

/// What a metric's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Only grows, since the start of its series.
    Counter,
    /// A sum that also shrinks: memory in use, processes.
    UpDownCounter,
    /// A value at a moment that does not add up.
    Gauge,
    /// How often which values were seen, since the start of its series.
    Histogram,
    /// Quantiles that the source computed itself, since the start of its series.
    Summary,
    /// A number of a source that does not say what it is.
    Unknown,
}

/// Whose names a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    /// OpenTelemetry's. Exported over OTLP as they are, and to Prometheus by the rules of the compatibility specification.
    OpenTelemetry,
    /// cAdvisor's `container_*`, to Prometheus only.
    Cadvisor,
    /// node_exporter's `node_*`, to Prometheus only.
    NodeExporter,
    /// kube-state-metrics' `kube_*`, to Prometheus only.
    KubeState,
    /// OpenTelemetry's of objects of the cluster, over OTLP only: the endpoint has them in kube-state-metrics' words.
    Cluster,
    /// An application's own, over OTLP only: whoever scrapes us can scrape it.
    Application,
}

/// One series of a metric at the snapshot's time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Whose it is.
    pub owner: Owner,
    /// Its attributes; their order is that of the labels.
    pub attributes: Vec<(Text, Text)>,
    /// When it began to count, nanoseconds since the epoch; 0 for gauges.
    pub start_unix_ns: u64,
    /// Its value.
    pub value: Value,
}

/// Whose a series is: what becomes the resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The agent's itself.
    Agent,
    /// The node's.
    Host,
    /// A container's, a service's or a program's.
    Subject(Arc<Subject>),
    /// An object's of the cluster, wherever it is: nothing of this host is in its resource.
    Object(Arc<ClusterObject>),
    /// An endpoint of one of the others, with what tells it from the owner's other endpoints.
    Endpoint(Arc<Endpoint>),
    /// A cgroup's in cAdvisor's words.
    Cgroup(Arc<LabelledCgroup>),
}

/// An object that the API server tells of: a node, a pod of any node, a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterObject {
    /// Its resource attributes, such as `k8s.namespace.name` and `k8s.pod.uid`.
    pub attributes: Vec<(Text, Text)>,
    /// The labels of its series on the endpoint, those without a value too.
    pub labels: Vec<(Text, Text)>,
}

/// An endpoint that gives metrics of an owner: its resource is the owner's with these attributes added.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whose it is; never an endpoint itself.
    pub owner: Owner,
    /// Resource attributes such as `service.instance.id` and `server.port`.
    pub attributes: Vec<(Text, Text)>,
}

/// A cgroup with the labels that all its series in cAdvisor's words have: once for some forty series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelledCgroup {
    /// Whose it is; never a cgroup itself.
    pub owner: Owner,
    /// The labels, none without a value.
    pub labels: Vec<(Text, Text)>,
}

/// The value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A distribution.
    Histogram(Box<ExponentialHistogram>),
    /// A distribution over buckets whose bounds the source chose.
    ExplicitHistogram(Box<ExplicitHistogram>),
    /// Quantiles that the source computed.
    Summary(Box<Summary>),
}

/// All metrics at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The moment, nanoseconds since the epoch.
    pub time_unix_ns: u64,
    /// No two have the same name and vocabulary.
    pub metrics: Vec<Metric>,
}

impl Owner {
    /// Whether its pod is about to be known.
    pub fn is_awaited(&self, now_ns: u64) -> bool {
        match self {
            Self::Subject(subject) => subject.pod.is_awaited(now_ns),
            Self::Endpoint(endpoint) => endpoint.owner.is_awaited(now_ns),
            Self::Cgroup(cgroup) => cgroup.owner.is_awaited(now_ns),
            Self::Agent | Self::Host | Self::Object(_) => false,
        }
    }
}

impl Vocabulary {
    /// Whether its metrics go out over OTLP.
    pub fn is_pushed(self) -> bool {
        matches!(self, Self::OpenTelemetry | Self::Application | Self::Cluster)
    }
}

impl Metric {
    /// A metric of OpenTelemetry's vocabulary without series.
    pub fn new(
        kind: MetricKind,
        name: impl Into<Text>,
        unit: impl Into<Text>,
        description: impl Into<Text>,
    ) -> Self {
        let (name, unit, description) = (name.into(), unit.into(), description.into());
        let vocabulary = Vocabulary::OpenTelemetry;
        Self { name, description, unit, kind, vocabulary, points: Vec::new() }
    }

    /// Adds a series.
    pub fn add(&mut self, point: Point) {
        self.points.push(point);
    }

    /// With these series.
    #[must_use]
    pub fn with(mut self, points: Vec<Point>) -> Self {
        self.points = points;
        self
    }
}

impl Point {
    /// A series with a number that counts since `start_unix_ns` (0 for gauges).
    pub fn number(owner: Owner, attributes: Vec<(Text, Text)>, start_unix_ns: u64, value: f64) -> Self {
        Self { owner, attributes, start_unix_ns, value: Value::Number(value) }
    }
}
