//! Request metrics: how long exchanges took, by what they were, all of them, whether they become spans or not.
//!
//! Names, units and attributes by the semantic conventions. Bounded: what finds no room adds up in one series per service and
//! metric. Refuses: which exchanges are worth a span.

use std::collections::HashMap;
use std::sync::Arc;

use super::connection::Connection;
use super::describe::is_client;
use super::protocol::{Attribute, Exchange, Pattern, Protocol, Value};
use super::sampling::{duration_ns, end_ns};
use crate::identity::Subject;
use crate::telemetry::{
    ByFingerprint, Exemplar, ExponentialHistogram, Fingerprint, Metric, MetricKind, OVERFLOW_ATTRIBUTE,
    Owner, Point, SeriesHasher, Span, SpanKind, Text, Value as MetricValue, hexadecimal,
};

/// Series of all services together.
const SERIES_MAX: usize = 20_000;

/// Buckets per doubling of the time: 2^3. A value is known to 9 %.
const SCALE: i32 = 3;

/// Times are kept from 1 µs to an hour: the buckets of one series have at most so many places.
const SECONDS_MIN: f64 = 1e-6;
const SECONDS_MAX: f64 = 3600.0;

/// An exemplar of a series is so much later than the one before: the page shows the last one only, and Prometheus, which keeps
/// milliseconds, refuses one that is not later.
const EXEMPLAR_STEP_NS: u64 = 100_000_000;

/// A series that counts nothing for so long ends; if it counts again, it begins anew.
const IDLE_NS: u64 = 600_000_000_000;

/// Which series an exchange counted in.
pub type SeriesId = Fingerprint;

/// Counts.
#[derive(Default)]
pub struct Requests {
    /// From the kernel's clock to the epoch, once for all: starts of series must not move.
    start_offset_ns: u64,
    hasher: SeriesHasher,
    series: ByFingerprint<Series>,
}

struct Series {
    metric: &'static str,
    subject: Arc<Subject>,
    attributes: Vec<(Text, Text)>,
    times: Times,
    exemplar: Option<Exemplar>,
    /// When the exemplar's span ended: `CLOCK_MONOTONIC`.
    exemplar_ns: u64,
    /// When the first exchange began, and the last one ended: `CLOCK_MONOTONIC`.
    start_ns: u64,
    last_ns: u64,
}

/// How often which times were seen.
#[derive(Debug, Default)]
pub struct Times {
    offset: i32,
    buckets: Vec<u64>,
    sum_seconds: f64,
}

impl Requests {
    /// Nothing counted yet. `monotonic_to_unix_ns` is how far the kernel's clock is from the epoch now.
    pub fn new(monotonic_to_unix_ns: u64) -> Self {
        Self { start_offset_ns: monotonic_to_unix_ns, ..Self::default() }
    }

    /// Counts an exchange.
    pub fn observe(
        &mut self,
        connection: &Connection,
        exchange: &Exchange,
        side: SpanKind,
        ended_ns: u64,
    ) -> SeriesId {
        let metric = metric_name(exchange.protocol, exchange.pattern, side);
        let error = exchange.failure.as_ref().map(|failure| &*failure.kind);
        let server = is_client(side).then(|| connection.client_first().peer);
        let subject = Arc::as_ptr(&connection.subject) as usize;
        let values = exchange.attributes.iter().filter(|attribute| attribute.is_metric);
        let path = connection.path.as_ref().filter(|_| server.is_some());
        let mut fingerprint = self.hasher.start(&(subject, metric, error, server, path));
        for Attribute { key, value, .. } in values {
            match value {
                Value::Text(text) => fingerprint.add(&(key, text)),
                Value::Integer(number) => fingerprint.add(&(key, number)),
                Value::Texts(texts) => fingerprint.add(&(key, texts)),
            }
        }
        let mut id = fingerprint.finish();
        if !self.series.contains_key(&id) && self.series.len() >= SERIES_MAX {
            id = self.hasher.start(&(subject, metric, OVERFLOW_ATTRIBUTE)).finish();
            // Even of overflow there is a last place.
            if !self.series.contains_key(&id) && self.series.len() >= 2 * SERIES_MAX {
                return id;
            }
        }
        let is_full = self.series.len() >= SERIES_MAX;
        let series = self.series.entry(id).or_insert_with(|| Series {
            metric,
            // Kept alive, so that its address means nobody else.
            subject: Arc::clone(&connection.subject),
            attributes: match is_full {
                true => vec![(OVERFLOW_ATTRIBUTE.into(), "true".into())],
                false => metric_attributes(connection, exchange, side),
            },
            times: Times::default(),
            exemplar: None,
            exemplar_ns: 0,
            start_ns: exchange.request.first.begun_ns,
            last_ns: 0,
        });
        series.times.add(duration_ns(exchange, ended_ns) as f64 / 1e9);
        series.last_ns = end_ns(exchange, ended_ns);
        id
    }

    /// Ends series that count nothing any more.
    pub fn sweep(&mut self, now_ns: u64) {
        self.series.retain(|_, series| now_ns.saturating_sub(series.last_ns) < IDLE_NS);
    }

    /// Remembers a span as an example of its series. The span's times are still `CLOCK_MONOTONIC`.
    pub fn exemplar(&mut self, id: SeriesId, span: &Span) {
        let Some(series) = self.series.get_mut(&id) else { return };
        series.remember(span.end_unix_ns, || Exemplar {
            value: span.duration_ns() as f64 / 1e9,
            time_unix_ns: 0,
            trace_id: Some(hexadecimal(&span.trace_id).into()),
            span_id: Some(hexadecimal(&span.span_id).into()),
            attributes: Vec::new(),
        });
    }

    /// All that was counted since the start.
    pub fn metrics(&mut self, monotonic_to_unix_ns: u64) -> Vec<Metric> {
        let mut metrics: Vec<Metric> = Vec::new();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for series in self.series.values_mut() {
            let index = *by_name.entry(series.metric).or_insert_with(|| {
                let description = "Time from the first byte of a request to the last byte of its response";
                metrics.push(Metric::new(MetricKind::Histogram, series.metric, "s", description));
                metrics.len() - 1
            });
            metrics[index].add(series.point(self.start_offset_ns, monotonic_to_unix_ns));
        }
        metrics
    }
}

impl Times {
    /// Adds one.
    pub fn add(&mut self, seconds: f64) {
        let bounded = seconds.clamp(SECONDS_MIN, SECONDS_MAX);
        // Bucket `i` holds `(2^(i/8), 2^((i+1)/8)]`.
        let index = (bounded.log2() * f64::from(1 << SCALE)).ceil() as i32 - 1;
        self.count(index, 1);
        self.sum_seconds += seconds;
    }

    /// Adds what others had.
    pub fn add_all(&mut self, other: &Self) {
        for (place, count) in other.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.count(other.offset + place as i32, *count);
        }
        self.sum_seconds += other.sum_seconds;
    }

    fn count(&mut self, index: i32, count: u64) {
        if self.buckets.is_empty() {
            self.offset = index;
        }
        if index < self.offset {
            let more = (self.offset - index) as usize;
            self.buckets.splice(0..0, std::iter::repeat_n(0, more));
            self.offset = index;
        }
        let place = (index - self.offset) as usize;
        if place >= self.buckets.len() {
            self.buckets.resize(place + 1, 0);
        }
        self.buckets[place] += count;
    }

    /// All of them.
    pub fn histogram(&self) -> ExponentialHistogram {
        ExponentialHistogram {
            scale: SCALE,
            offset: self.offset,
            buckets: self.buckets.clone(),
            zero_count: 0,
            sum: self.sum_seconds,
            exemplars: Vec::new(),
        }
    }
}

impl Series {
    /// Keeps an exemplar that is later than the one before: links settle in any order.
    fn remember(&mut self, ended_ns: u64, exemplar: impl FnOnce() -> Exemplar) {
        if ended_ns >= self.exemplar_ns + EXEMPLAR_STEP_NS {
            self.exemplar = Some(exemplar());
            self.exemplar_ns = ended_ns;
        }
    }

    fn point(&mut self, start_offset_ns: u64, monotonic_to_unix_ns: u64) -> Point {
        // Told once, its time stays as it was: clocks move against one another.
        if let Some(exemplar) = self.exemplar.as_mut().filter(|exemplar| exemplar.time_unix_ns == 0) {
            exemplar.time_unix_ns = self.exemplar_ns + monotonic_to_unix_ns;
        }
        Point {
            owner: Owner::Subject(Arc::clone(&self.subject)),
            attributes: self.attributes.clone(),
            start_unix_ns: self.start_ns + start_offset_ns,
            value: MetricValue::Histogram(Box::new(ExponentialHistogram {
                exemplars: self.exemplar.iter().cloned().collect(),
                ..self.times.histogram()
            })),
        }
    }
}

/// The metric of an exchange. Servers of databases and name servers have no convention: named like their clients' one.
fn metric_name(protocol: Protocol, pattern: Pattern, side: SpanKind) -> &'static str {
    match (protocol, pattern, side) {
        (_, Pattern::Publish | Pattern::Deliver, SpanKind::Consumer) => "messaging.process.duration",
        (_, Pattern::Publish | Pattern::Deliver, _) => "messaging.client.operation.duration",
        (Protocol::Http1, _, SpanKind::Server) => "http.server.request.duration",
        (Protocol::Http1, ..) => "http.client.request.duration",
        (Protocol::Postgres | Protocol::Redis, _, SpanKind::Server) => "db.server.operation.duration",
        (Protocol::Postgres | Protocol::Redis, ..) => "db.client.operation.duration",
        (Protocol::Dns, _, SpanKind::Server) => "dns.server.lookup.duration",
        (Protocol::Dns, ..) => "dns.lookup.duration",
    }
}

fn metric_attributes(connection: &Connection, exchange: &Exchange, side: SpanKind) -> Vec<(Text, Text)> {
    let text = |value: &Value| -> Text {
        match value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string().into(),
            Value::Texts(texts) => texts.join(",").into(),
        }
    };
    let own = exchange.attributes.iter().filter(|attribute| attribute.is_metric);
    let mut attributes: Vec<(Text, Text)> =
        own.map(|attribute| (attribute.key.into(), text(&attribute.value))).collect();
    if let (true, Some(path)) = (is_client(side), &connection.path) {
        attributes.push(("server.address".into(), path.to_string().into()));
    } else if is_client(side) {
        let server = connection.client_first().peer;
        if !server.ip().is_unspecified() {
            attributes.push(("server.address".into(), server.ip().to_string().into()));
        }
        attributes.push(("server.port".into(), server.port().to_string().into()));
    }
    if let Some(failure) = &exchange.failure {
        attributes.push(("error.type".into(), failure.kind.clone()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds times; expects that each lies within its bucket, and the number of buckets.
    fn check(seconds: &[f64], expected_buckets: usize) {
        let mut times = Times::default();
        seconds.iter().for_each(|seconds| times.add(*seconds));
        let histogram = times.histogram();
        assert_eq!(histogram.count(), seconds.len() as u64);
        assert_eq!(histogram.buckets.len(), expected_buckets, "{seconds:?}");
        for value in seconds.iter().filter(|value| (SECONDS_MIN..=SECONDS_MAX).contains(*value)) {
            let place = (0..histogram.buckets.len())
                .find(|place| *value <= histogram.upper_bound(*place) * 1.000_001);
            assert!(place.is_some_and(|place| histogram.buckets[place] > 0), "{value} of {histogram:?}");
        }
    }

    #[test]
    fn times_have_their_buckets() {
        check(&[], 0);
        check(&[1.0], 1);
        check(&[1.0, 2.0], 9);
        check(&[2.0, 1.0], 9);
        check(&[0.001, 0.001_01], 1);
        check(&[0.0, 1e9], 255);
    }

    #[test]
    fn exemplars_go_forward_in_time() {
        let mut series = Series {
            metric: "http.server.request.duration",
            subject: Arc::new(Subject::named("shop")),
            attributes: Vec::new(),
            times: Times::default(),
            exemplar: None,
            exemplar_ns: 0,
            start_ns: 0,
            last_ns: 0,
        };
        // An exemplar ends, and the page is told with this distance of the clocks; expects which is told, and when it was.
        let mut check = |ended_ns: u64, offset_ns: u64, expected: (f64, u64)| {
            let (trace_id, span_id, attributes) = (None, None, Vec::new());
            let value = ended_ns as f64 / 1e9;
            series.remember(ended_ns, || Exemplar { value, time_unix_ns: 0, trace_id, span_id, attributes });
            let MetricValue::Histogram(told) = series.point(0, offset_ns).value else {
                panic!("no histogram")
            };
            let told: Vec<(f64, u64)> =
                told.exemplars.iter().map(|one| (one.value, one.time_unix_ns)).collect();
            assert_eq!(told, [expected]);
        };
        let later = 1_000_000_000 + EXEMPLAR_STEP_NS;
        check(1_000_000_000, 50, (1.0, 1_000_000_050));
        check(900_000_000, 40, (1.0, 1_000_000_050));
        check(later - 1, 40, (1.0, 1_000_000_050));
        check(later, 40, (1.1, later + 40));
    }

    #[test]
    fn metrics_by_protocol_and_side() {
        let name = |protocol, side| metric_name(protocol, Pattern::Call, side);
        assert_eq!(name(Protocol::Http1, SpanKind::Server), "http.server.request.duration");
        assert_eq!(name(Protocol::Postgres, SpanKind::Client), "db.client.operation.duration");
        assert_eq!(name(Protocol::Dns, SpanKind::Client), "dns.lookup.duration");
    }
}
