//! The two text formats: Prometheus text 0.0.4 and OpenMetrics 1.0.0.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/> and
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>. Refuses: timestamps of samples (a scrape is now).

use super::buckets;
use super::encode::Sink;
use super::families::Family;
use super::labels::{BUCKET_LABEL, SeriesLabels, write_pair};
use super::names::{self, TOTAL};
use super::numbers;
use crate::telemetry::{Exemplar, ExponentialHistogram, MetricKind};

/// Which of the two formats.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dialect {
    Text,
    OpenMetrics { created: bool },
}

/// Characters of all names and values of an exemplar's labels: OpenMetrics 1.0.0, "Exemplars".
pub const EXEMPLAR_CHARS_MAX: usize = 128;

/// Writes text.
pub(super) struct TextSink {
    out: String,
    dialect: Dialect,
    /// The labels of the series at hand, for those that have several lines.
    labels: String,
    cumulative: Vec<u64>,
}

impl TextSink {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { out: String::new(), dialect, labels: String::new(), cumulative: Vec::new() }
    }

    fn is_open_metrics(&self) -> bool {
        self.dialect != Dialect::Text
    }

    fn metadata(&mut self, keyword: &str, name: &str, value: &str) {
        for part in ["# ", keyword, " ", name, " ", value, "\n"] {
            self.out.push_str(part);
        }
    }

    fn help(&mut self, name: &str, help: &str) {
        if help.is_empty() {
            return;
        }
        for part in ["# HELP ", name, " "] {
            self.out.push_str(part);
        }
        numbers::help(&mut self.out, help, self.dialect != Dialect::Text);
        self.out.push('\n');
    }

    /// Begins a line with the labels at hand.
    fn begin(&mut self, name: &str, suffix: &str, le: Option<&str>) {
        self.out.push_str(name);
        self.out.push_str(suffix);
        if self.labels.is_empty() && le.is_none() {
            self.out.push(' ');
            return;
        }
        self.out.push('{');
        self.out.push_str(&self.labels);
        if let Some(le) = le {
            write_pair(&mut self.out, BUCKET_LABEL, le);
        }
        self.out.pop();
        self.out.push_str("} ");
    }

    fn created(&mut self, name: &str, start_unix_ns: u64) {
        if self.dialect == (Dialect::OpenMetrics { created: true }) && start_unix_ns > 0 {
            self.begin(name, "_created", None);
            numbers::moment(&mut self.out, start_unix_ns);
            self.out.push('\n');
        }
    }

    fn bucket(&mut self, name: &str, le: &str, count: u64, exemplar: Option<&Exemplar>) {
        self.begin(name, "_bucket", Some(le));
        numbers::count(&mut self.out, count);
        if let Some(exemplar) = exemplar.filter(|_| self.is_open_metrics()) {
            self.out.push_str(" # {");
            let before = self.out.len();
            for (name, value) in exemplar_labels(exemplar) {
                write_pair(&mut self.out, &name, value);
            }
            if self.out.len() > before {
                self.out.pop();
            }
            self.out.push_str("} ");
            numbers::value(&mut self.out, exemplar.value);
            if exemplar.time_unix_ns > 0 {
                self.out.push(' ');
                numbers::moment(&mut self.out, exemplar.time_unix_ns);
            }
        }
        self.out.push('\n');
    }

    fn keep_labels(&mut self, labels: &SeriesLabels) {
        self.labels.clear();
        labels.write(&mut self.labels);
    }
}

/// The labels of an exemplar as far as they fit into [`EXEMPLAR_CHARS_MAX`]: `trace_id`, `span_id`, its attributes.
pub(super) fn exemplar_labels(exemplar: &Exemplar) -> Vec<(String, &str)> {
    let ids = [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)];
    let ids = ids.into_iter().filter_map(|(name, id)| Some((name, id.as_deref()?)));
    let attributes = exemplar.attributes.iter().map(|(key, value)| (&**key, &**value));
    let mut labels: Vec<(String, &str)> = Vec::new();
    let mut chars = 0;
    for (key, value) in ids.chain(attributes) {
        let name = names::label(key);
        let length = name.chars().count() + value.chars().count();
        if chars + length <= EXEMPLAR_CHARS_MAX && labels.iter().all(|(known, _)| *known != name) {
            chars += length;
            labels.push((name, value));
        }
    }
    labels
}

impl Sink for TextSink {
    fn target(&mut self, labels: &SeriesLabels) {
        let (name, kind) = if self.is_open_metrics() { ("target", "info") } else { ("target_info", "gauge") };
        self.metadata("TYPE", name, kind);
        self.help(name, "The node that the series are of.");
        self.keep_labels(labels);
        self.begin("target_info", "", None);
        self.out.push_str("1\n");
    }

    fn start_family(&mut self, family: &Family) {
        let series = family.name.series.as_str();
        if !self.is_open_metrics() {
            let kind = match family.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge | MetricKind::UpDownCounter => "gauge",
                MetricKind::Histogram => "histogram",
                MetricKind::Unknown | MetricKind::Summary => "untyped",
            };
            self.help(series, family.help);
            return self.metadata("TYPE", series, kind);
        }
        let is_counter = family.kind == MetricKind::Counter && series.ends_with(TOTAL);
        let name = if is_counter { names::family(series) } else { series };
        let kind = match family.kind {
            MetricKind::Counter if is_counter => "counter",
            // OpenMetrics has no counters without `_total`.
            MetricKind::Counter | MetricKind::Unknown | MetricKind::Summary => "unknown",
            MetricKind::Gauge | MetricKind::UpDownCounter => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.metadata("TYPE", name, kind);
        let has_unit = name != series || !series.ends_with(TOTAL);
        if let Some(unit) = family.name.unit.as_deref().filter(|_| has_unit) {
            self.metadata("UNIT", name, unit);
        }
        self.help(name, family.help);
    }

    fn number(&mut self, family: &Family, labels: &SeriesLabels, start_unix_ns: u64, value: f64) {
        let series = family.name.series.as_str();
        self.keep_labels(labels);
        self.begin(series, "", None);
        numbers::value(&mut self.out, value);
        self.out.push('\n');
        if family.kind == MetricKind::Counter && series.ends_with(TOTAL) {
            self.created(names::family(series), start_unix_ns);
        }
    }

    fn histogram(
        &mut self,
        family: &Family,
        labels: &SeriesLabels,
        start_unix_ns: u64,
        histogram: &ExponentialHistogram,
    ) {
        let name = family.name.series.as_str();
        self.keep_labels(labels);
        let mut cumulative = std::mem::take(&mut self.cumulative);
        let all = buckets::classic(histogram, family.bounds, &mut cumulative);
        let is_open_metrics = self.is_open_metrics();
        for (position, (bound, count)) in family.bounds.bounds.iter().zip(&cumulative).enumerate() {
            let le = if is_open_metrics { &bound.open_metrics } else { &bound.text };
            self.bucket(name, le, *count, buckets::exemplar(histogram, family.bounds, position));
        }
        let exemplar = buckets::exemplar(histogram, family.bounds, cumulative.len());
        self.bucket(name, "+Inf", all, exemplar);
        self.cumulative = cumulative;
        self.begin(name, "_sum", None);
        numbers::value(&mut self.out, histogram.sum);
        self.out.push('\n');
        self.begin(name, "_count", None);
        numbers::count(&mut self.out, all);
        self.out.push('\n');
        self.created(name, start_unix_ns);
    }

    fn end_family(&mut self) {}

    fn end(&mut self) {
        if self.is_open_metrics() {
            self.out.push_str("# EOF\n");
        }
    }

    fn piece(&self) -> &[u8] {
        self.out.as_bytes()
    }

    fn clear(&mut self) {
        self.out.clear();
    }
}
