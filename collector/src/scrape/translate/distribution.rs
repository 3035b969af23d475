//! Classic histograms and summaries: several series of a page are one point.
//!
//! Compatibility specification, "Histograms" and "Summaries". Refuses what does not add up: a distribution is whole or lost.

use std::collections::HashMap;

use super::super::text;
use super::{Context, Family, Labels, Loss, Metric, MetricKind, Role, Sample, Value, push};
use crate::telemetry::{Exemplar, ExplicitHistogram, Summary, Text};

/// Characters of a trace's and a span's id in hexadecimal: W3C Trace Context.
const TRACE_ID_CHARS: usize = 32;
const SPAN_ID_CHARS: usize = 16;

/// The series of one distribution.
#[derive(Default)]
struct Parts {
    labels: Labels,
    /// Upper bounds or quantiles, with their values.
    steps: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
    created_s: Option<f64>,
    exemplars: Vec<text::Exemplar>,
    samples: usize,
    is_odd: bool,
}

impl Context<'_> {
    pub(super) fn histograms(&mut self, family: &Family, samples: Vec<Sample>, metrics: &mut Vec<Metric>) {
        let mut points = Vec::new();
        for mut parts in gather(samples, Role::Bucket, "le") {
            let exemplars = std::mem::take(&mut parts.exemplars);
            let Some(mut histogram) = histogram(&mut parts) else {
                self.losses.add(Loss::Inconsistent, parts.samples);
                continue;
            };
            histogram.exemplars =
                exemplars.into_iter().map(|exemplar| exemplar_of(exemplar, self.time_unix_ns)).collect();
            // A sum of values that may be negative also shrinks without a reset.
            let is_positive = histogram.bounds.first().is_none_or(|bound| *bound >= 0.0);
            let sum = histogram.sum.filter(|sum| is_positive && sum.is_finite()).unwrap_or(0.0);
            let key = self.starts.key(&family.name, Role::Plain, &parts.labels);
            let start_unix_ns = self.starts.of(key, parts.created_s, [histogram.count() as f64, sum]);
            points.push(self.point(
                parts.labels,
                start_unix_ns,
                Value::ExplicitHistogram(Box::new(histogram)),
            ));
        }
        push(metrics, family, Role::Plain, MetricKind::Histogram, points);
    }

    pub(super) fn summaries(&mut self, family: &Family, samples: Vec<Sample>, metrics: &mut Vec<Metric>) {
        let mut points = Vec::new();
        for mut parts in gather(samples, Role::Plain, "quantile") {
            let Some(summary) = summary(&mut parts) else {
                self.losses.add(Loss::Inconsistent, parts.samples);
                continue;
            };
            let key = self.starts.key(&family.name, Role::Plain, &parts.labels);
            let start_unix_ns = self.starts.of(key, parts.created_s, [summary.count as f64, 0.0]);
            points.push(self.point(parts.labels, start_unix_ns, Value::Summary(Box::new(summary))));
        }
        push(metrics, family, Role::Plain, MetricKind::Summary, points);
    }
}

/// Puts samples together whose labels are the same but for `step_label`, in the order of the page.
fn gather(samples: Vec<Sample>, step_role: Role, step_label: &str) -> Vec<Parts> {
    let mut all: Vec<Parts> = Vec::new();
    let mut positions: HashMap<Labels, usize> = HashMap::new();
    for mut sample in samples {
        let mut step = None;
        if sample.role == step_role
            && let Some(position) = sample.labels.iter().position(|(name, _)| name == step_label)
        {
            step = sample.labels.remove(position).1.parse::<f64>().ok();
        }
        let position = *positions.entry(sample.labels).or_insert_with_key(|labels| {
            all.push(Parts { labels: labels.clone(), ..Parts::default() });
            all.len() - 1
        });
        let parts = &mut all[position];
        parts.samples += 1;
        match (sample.role, step) {
            (Role::Count, _) => parts.count = Some(sample.value),
            (Role::Sum, _) => parts.sum = Some(sample.value),
            (Role::Created, _) => parts.created_s = Some(sample.value),
            (role, Some(step)) if role == step_role => parts.steps.push((step, sample.value)),
            _ => parts.is_odd = true,
        }
        parts.exemplars.extend(sample.exemplar);
    }
    all
}

fn histogram(parts: &mut Parts) -> Option<ExplicitHistogram> {
    let count = whole(parts.count?)?;
    order(parts)?;
    let mut histogram = ExplicitHistogram { sum: parts.sum, ..ExplicitHistogram::default() };
    let mut below = 0;
    for (bound, cumulative) in parts.steps.iter().filter(|(bound, _)| *bound != f64::INFINITY) {
        let cumulative = whole(*cumulative)?;
        if !bound.is_finite() {
            return None;
        }
        histogram.bounds.push(*bound);
        histogram.counts.push(cumulative.checked_sub(below)?);
        below = cumulative;
    }
    // The count, not the last bucket: they may differ by what was seen while the page was made.
    histogram.counts.push(count.checked_sub(below)?);
    Some(histogram)
}

fn summary(parts: &mut Parts) -> Option<Summary> {
    let count = whole(parts.count?)?;
    order(parts)?;
    let quantiles = std::mem::take(&mut parts.steps);
    let in_range = quantiles.iter().all(|(quantile, _)| (0.0..=1.0).contains(quantile));
    in_range.then(|| Summary { quantiles, sum: parts.sum.unwrap_or(0.0), count })
}

/// Orders the steps; `None` if one is there twice, is no number, or a sample was odd.
fn order(parts: &mut Parts) -> Option<()> {
    parts.steps.sort_by(|one, other| one.0.total_cmp(&other.0));
    let ascends = parts.steps.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let is_number = parts.steps.iter().all(|(step, _)| !step.is_nan());
    (ascends && is_number && !parts.is_odd).then_some(())
}

/// A count. The cast saturates and drops fractions.
fn whole(value: f64) -> Option<u64> {
    (value.is_finite() && value >= 0.0).then_some(value as u64)
}

fn exemplar_of(exemplar: text::Exemplar, time_unix_ns: u64) -> Exemplar {
    let time = exemplar.time_unix_ns.and_then(|time| u64::try_from(time).ok()).unwrap_or(time_unix_ns);
    let mut out = Exemplar {
        value: exemplar.value,
        time_unix_ns: time,
        trace_id: None,
        span_id: None,
        attributes: Vec::new(),
    };
    for (name, value) in exemplar.labels {
        match &*name {
            "trace_id" if is_id(&value, TRACE_ID_CHARS) => out.trace_id = Some(value.to_lowercase().into()),
            "span_id" if is_id(&value, SPAN_ID_CHARS) => out.span_id = Some(value.to_lowercase().into()),
            _ => out.attributes.push((text_of(&name), text_of(&value))),
        }
    }
    out
}

fn text_of(text: &Text) -> std::sync::Arc<str> {
    text.as_ref().into()
}

fn is_id(text: &str, chars: usize) -> bool {
    text.len() == chars
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte != b'0')
}
