//! Metric families and their samples, as both formats have them.
//!
//! Refuses: meaning beyond the names. Which samples make a histogram is `translate`'s.

use crate::telemetry::Text;

/// Labels in the order of their names; none is empty, no name is twice.
pub type Labels = Vec<(Text, Text)>;

/// Samples under one name and description.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family {
    /// Its name, without the suffixes of its samples.
    pub name: String,
    /// Its `TYPE`, if given.
    pub kind: Option<Kind>,
    /// Its `HELP`, cut to `HELP_BYTES_MAX`, if given.
    pub help: Option<String>,
    /// Its `UNIT` in Prometheus' words, if given.
    pub unit: Option<String>,
    /// Its samples in their order on the page.
    pub samples: Vec<Sample>,
}

/// What a family's samples are: the types of both formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// A value at a moment.
    Gauge,
    /// Cumulative buckets with `le`.
    Histogram,
    /// Buckets that may shrink.
    GaugeHistogram,
    /// Quantiles that the application computed.
    Summary,
    /// A text in labels; the value is 1.
    Info,
    /// Which of some states is on.
    StateSet,
    /// Not said: `unknown`, and `untyped` in Prometheus' format.
    Unknown,
}

impl Kind {
    pub(super) fn of_name(name: &str) -> Option<Kind> {
        Some(match name {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "gaugehistogram" => Kind::GaugeHistogram,
            "summary" => Kind::Summary,
            "info" => Kind::Info,
            "stateset" => Kind::StateSet,
            "unknown" | "untyped" => Kind::Unknown,
            _ => return None,
        })
    }

    /// Whether families of this kind have samples of this role.
    pub(super) fn has(self, role: Role) -> bool {
        match role {
            Role::Plain => true,
            Role::Total => self == Kind::Counter,
            Role::Created => matches!(self, Kind::Counter | Kind::Histogram | Kind::Summary),
            Role::Bucket => matches!(self, Kind::Histogram | Kind::GaugeHistogram),
            Role::Count | Role::Sum => matches!(self, Kind::Histogram | Kind::Summary),
            Role::GaugeCount | Role::GaugeSum => self == Kind::GaugeHistogram,
            Role::Info => self == Kind::Info,
        }
    }
}

/// What a sample is in its family, by the suffix of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The family's name itself.
    Plain,
    /// `_total`
    Total,
    /// `_bucket`
    Bucket,
    /// `_count`
    Count,
    /// `_sum`
    Sum,
    /// `_created`
    Created,
    /// `_info`
    Info,
    /// `_gcount`
    GaugeCount,
    /// `_gsum`
    GaugeSum,
}

impl Role {
    /// All roles with a suffix.
    pub(super) const SUFFIXED: [Role; 8] = [
        Role::Total,
        Role::Bucket,
        Role::Count,
        Role::Sum,
        Role::Created,
        Role::Info,
        Role::GaugeCount,
        Role::GaugeSum,
    ];

    /// What a sample's name has more than its family's.
    pub fn suffix(self) -> &'static str {
        match self {
            Role::Plain => "",
            Role::Total => "_total",
            Role::Bucket => "_bucket",
            Role::Count => "_count",
            Role::Sum => "_sum",
            Role::Created => "_created",
            Role::Info => "_info",
            Role::GaugeCount => "_gcount",
            Role::GaugeSum => "_gsum",
        }
    }
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is in its family.
    pub role: Role,
    /// Its labels, `le` and `quantile` too.
    pub labels: Labels,
    /// Its value; may be NaN or infinite.
    pub value: f64,
    /// When it was taken, nanoseconds since the epoch, if the page says so.
    pub time_unix_ns: Option<i64>,
    /// A single value of it, in OpenMetrics.
    pub exemplar: Option<Exemplar>,
}

/// A single value with what it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its labels, such as `trace_id`.
    pub labels: Labels,
    /// The value.
    pub value: f64,
    /// When, nanoseconds since the epoch, if the page says so.
    pub time_unix_ns: Option<i64>,
}
