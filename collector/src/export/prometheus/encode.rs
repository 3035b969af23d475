//! Snapshot -> the body of an answer, in one of three formats.
//!
//! What all formats share: which series there are, and their labels. The body goes out in pieces, so that one that is
//! compressed never stands in memory as a whole. Refuses: HTTP.

use std::collections::HashSet;
use std::io::{self, Write};

use super::families::{Family, families};
use super::labels::{Labels, SeriesLabels};
use super::protobuf::ProtobufSink;
use super::text::{Dialect, TextSink};
use crate::telemetry::{ExponentialHistogram, MetricKind, Point, Snapshot, Text, Value, Vocabulary};

/// A piece of a body is handed on once it has so many bytes; it fits into the caches of a processor.
const PIECE_BYTES: usize = 64 * 1024;

/// A format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Text 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
    Text,
    /// OpenMetrics 1.0.0: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily`, delimited: the one that carries native histograms.
    Protobuf,
}

impl Format {
    /// The `Content-Type` of an answer in this format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// Series that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// A series of the same name and labels came before.
    pub duplicates: u64,
    /// Another family has a series of this name.
    pub conflicts: u64,
    /// A histogram that is a number or the reverse; a counter below zero or not a number.
    pub unfit: u64,
}

impl Omitted {
    /// How many in all.
    pub fn count(&self) -> u64 {
        self.duplicates + self.conflicts + self.unfit
    }
}

/// Encodes snapshots.
#[derive(Clone, Debug)]
pub struct Encoder {
    vocabularies: HashSet<Vocabulary>,
    target: Vec<(Text, Text)>,
    created: bool,
}

impl Encoder {
    /// Exposes metrics of `vocabularies`, except those that only OTLP has. `target` becomes `target_info`, if there
    /// is any; `created` adds a `_created` series for each counter and histogram of OpenMetrics.
    pub fn new(vocabularies: HashSet<Vocabulary>, target: Vec<(Text, Text)>, created: bool) -> Self {
        Self { vocabularies, target, created }
    }

    /// Writes `snapshot` in `format`.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn encode(&self, snapshot: &Snapshot, format: Format, out: &mut impl Write) -> io::Result<Omitted> {
        match format {
            Format::Protobuf => self.write(snapshot, ProtobufSink::default(), out),
            Format::Text => self.write(snapshot, TextSink::new(Dialect::Text), out),
            Format::OpenMetrics => {
                let dialect = Dialect::OpenMetrics { created: self.created };
                self.write(snapshot, TextSink::new(dialect), out)
            }
        }
    }

    fn write(&self, snapshot: &Snapshot, mut sink: impl Sink, out: &mut impl Write) -> io::Result<Omitted> {
        let (families, conflicts) = families(snapshot, &self.vocabularies);
        let mut omitted = Omitted { conflicts, ..Omitted::default() };
        let mut labels = Labels::new();
        if !self.target.is_empty() {
            sink.target(&labels.of_attributes(&self.target));
        }
        for family in &families {
            labels.start_family();
            sink.start_family(family);
            for metric in &family.metrics {
                for point in &metric.points {
                    if !is_fit(point, family.kind) {
                        omitted.unfit += 1;
                    } else if let Some(labels) = labels.read(point, metric.vocabulary) {
                        sink.point(family, &labels, point);
                        if sink.piece().len() >= PIECE_BYTES {
                            out.write_all(sink.piece())?;
                            sink.clear();
                        }
                    } else {
                        omitted.duplicates += 1;
                    }
                }
            }
            sink.end_family();
        }
        sink.end();
        out.write_all(sink.piece())?;
        Ok(omitted)
    }
}

/// What a format does with families and series.
pub(super) trait Sink {
    /// The attributes of the target.
    fn target(&mut self, labels: &SeriesLabels);
    /// A family begins.
    fn start_family(&mut self, family: &Family);
    /// A series with a number.
    fn number(&mut self, family: &Family, labels: &SeriesLabels, start_unix_ns: u64, value: f64);
    /// A series with a distribution.
    fn histogram(
        &mut self,
        family: &Family,
        labels: &SeriesLabels,
        start_unix_ns: u64,
        histogram: &ExponentialHistogram,
    );
    /// The family ends.
    fn end_family(&mut self);
    /// All ends.
    fn end(&mut self);
    /// What of the body is there and was not cleared.
    fn piece(&self) -> &[u8];
    /// The piece was handed on.
    fn clear(&mut self);

    /// A series.
    fn point(&mut self, family: &Family, labels: &SeriesLabels, point: &Point) {
        match &point.value {
            Value::Number(value) => self.number(family, labels, point.start_unix_ns, *value),
            Value::Histogram(histogram) => self.histogram(family, labels, point.start_unix_ns, histogram),
            // Of applications, which are not exposed.
            Value::ExplicitHistogram(_) | Value::Summary(_) => {}
        }
    }
}

fn is_fit(point: &Point, kind: MetricKind) -> bool {
    match (&point.value, kind) {
        (Value::Histogram(_), kind) => kind == MetricKind::Histogram,
        (Value::ExplicitHistogram(_) | Value::Summary(_), _) => false,
        (Value::Number(_), MetricKind::Histogram | MetricKind::Summary) => false,
        (Value::Number(value), MetricKind::Counter) => *value >= 0.0,
        (Value::Number(_), _) => true,
    }
}

#[cfg(test)]
mod tests;
