//! A page as metrics: the rules of the compatibility specification, "Prometheus Metric points to OTLP".
//!
//! Names stay as they are, `_total` too, as with the collector's Prometheus receiver. `Point` has no time of its own, so
//! timestamps of samples end here, and those of exemplars live on. Refuses: clocks (time is an argument), and merging
//! with other targets.

mod distribution;
mod start;
mod unit;

use std::collections::HashMap;

pub use start::Starts;

use super::loss::{Loss, Losses};
use super::target::Target;
use super::text::{Family, Kind, Labels, Page, Role, Sample};
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Value, Vocabulary};

/// Names of the metrics that tell of the scrape itself, as Prometheus gives them. A page cannot have them.
pub const OWN_NAMES: [&str; 3] = ["up", "scrape_duration_seconds", "scrape_samples_scraped"];

/// What a page says.
#[derive(Debug, Default, PartialEq)]
pub struct Translated {
    /// Its metrics, each name once for each kind.
    pub metrics: Vec<Metric>,
    /// Samples of the page that are not in them.
    pub losses: Losses,
}

/// What all families of a page share.
struct Context<'a> {
    owner: Owner,
    starts: &'a mut Starts,
    time_unix_ns: u64,
    losses: Losses,
}

/// Translates the page that `target` gave at `time_unix_ns`.
pub fn translate(mut page: Page, target: &Target, starts: &mut Starts, time_unix_ns: u64) -> Translated {
    let owner = target.endpoint(target_info(&mut page));
    starts.begin(time_unix_ns);
    let mut context = Context { owner, starts, time_unix_ns, losses: Losses::default() };
    let mut metrics = Vec::new();
    for family in page.families {
        if !family.samples.is_empty() {
            context.family(family, &mut metrics);
        }
    }
    let losses = context.losses;
    starts.end();
    Translated { metrics, losses }
}

/// The metrics of a scrape itself. A failed one has taken no samples.
pub fn own(target: &Target, samples: Option<usize>, duration_s: f64) -> Vec<Metric> {
    let owner = target.endpoint(Vec::new());
    let gauge = |name: &'static str, unit: &'static str, description: &'static str, value: f64| Metric {
        vocabulary: Vocabulary::Application,
        ..Metric::new(MetricKind::Gauge, name, unit, description).with(vec![Point::number(
            owner.clone(),
            Vec::new(),
            0,
            value,
        )])
    };
    let [up, duration, scraped] = OWN_NAMES;
    vec![
        gauge(up, "", "The scraping was successful", f64::from(u8::from(samples.is_some()))),
        gauge(duration, "s", "Duration of the scrape", duration_s),
        gauge(scraped, "", "The number of samples the target exposed", samples.unwrap_or(0) as f64),
    ]
}

/// Takes `target_info` out of the page: its labels belong to the resource ("Resource Attributes").
fn target_info(page: &mut Page) -> Vec<(Text, Text)> {
    let is_info = |family: &Family, sample: &Sample| match family.name.as_str() {
        "target" => sample.role == Role::Info,
        "target_info" => sample.role == Role::Plain,
        _ => false,
    };
    let mut labels = Vec::new();
    for family in &mut page.families {
        if let Some(sample) = family.samples.first().filter(|sample| is_info(family, sample)) {
            labels.clone_from(&sample.labels);
            family.samples.clear();
        }
    }
    // Prometheus' own names of the target; ours are there already.
    labels.retain(|(name, _)| name != "job" && name != "instance");
    labels
}

impl Context<'_> {
    fn family(&mut self, mut family: Family, metrics: &mut Vec<Metric>) {
        if OWN_NAMES.contains(&family.name.as_str()) {
            return self.losses.add(Loss::Reserved, family.samples.len());
        }
        let samples = std::mem::take(&mut family.samples);
        match family.kind.unwrap_or(Kind::Unknown) {
            Kind::Counter => self.counters(&family, samples, metrics),
            Kind::Gauge => self.numbers(&family, MetricKind::Gauge, samples, metrics),
            Kind::Unknown => self.numbers(&family, MetricKind::Unknown, samples, metrics),
            Kind::Info | Kind::StateSet => self.numbers(&family, MetricKind::UpDownCounter, samples, metrics),
            Kind::Histogram => self.histograms(&family, samples, metrics),
            Kind::Summary => self.summaries(&family, samples, metrics),
            Kind::GaugeHistogram => self.losses.add(Loss::Kind, samples.len()),
        }
    }

    fn counters(&mut self, family: &Family, samples: Vec<Sample>, metrics: &mut Vec<Metric>) {
        let (created, samples): (Vec<_>, Vec<_>) =
            samples.into_iter().partition(|sample| sample.role == Role::Created);
        let created: HashMap<Labels, f64> =
            created.into_iter().map(|sample| (sample.labels, sample.value)).collect();
        for role in [Role::Total, Role::Plain] {
            let mut points = Vec::new();
            for sample in samples.iter().filter(|sample| sample.role == role) {
                if sample.value.is_nan() || sample.value < 0.0 {
                    self.losses.add(Loss::Inconsistent, 1);
                    continue;
                }
                let key = self.starts.key(&family.name, role, &sample.labels);
                let since = created.get(&sample.labels).copied();
                let start_unix_ns = self.starts.of(key, since, [sample.value, 0.0]);
                points.push(self.point(sample.labels.clone(), start_unix_ns, Value::Number(sample.value)));
            }
            push(metrics, family, role, MetricKind::Counter, points);
        }
    }

    fn numbers(
        &mut self,
        family: &Family,
        kind: MetricKind,
        samples: Vec<Sample>,
        metrics: &mut Vec<Metric>,
    ) {
        let (info, plain): (Vec<_>, Vec<_>) =
            samples.into_iter().partition(|sample| sample.role == Role::Info);
        for (role, samples) in [(Role::Plain, plain), (Role::Info, info)] {
            let mut points = Vec::with_capacity(samples.len());
            for sample in samples {
                let start_unix_ns = match kind {
                    MetricKind::UpDownCounter => {
                        let key = self.starts.key(&family.name, role, &sample.labels);
                        self.starts.of(key, None, [0.0, 0.0])
                    }
                    _ => 0,
                };
                points.push(self.point(sample.labels, start_unix_ns, Value::Number(sample.value)));
            }
            push(metrics, family, role, kind, points);
        }
    }

    fn point(&self, attributes: Labels, start_unix_ns: u64, value: Value) -> Point {
        Point { owner: self.owner.clone(), attributes, start_unix_ns, value }
    }
}

/// Adds a metric if it has points.
fn push(metrics: &mut Vec<Metric>, family: &Family, role: Role, kind: MetricKind, points: Vec<Point>) {
    if points.is_empty() {
        return;
    }
    metrics.push(Metric {
        name: format!("{}{}", family.name, role.suffix()).into(),
        description: family.help.clone().unwrap_or_default().into(),
        unit: unit::ucum(family.unit.as_deref().unwrap_or_default()),
        kind,
        vocabulary: Vocabulary::Application,
        points,
    });
}

#[cfg(test)]
mod tests;
