//! The requests of the last window for the local view: by service, side and name.
//!
//! Refuses: history, and what the sampling left out (the metrics have it).

use std::collections::HashMap;

use crate::telemetry::Span;

const REQUESTS_SHOWN: usize = 8;
const NAME_CHARS_MAX: usize = 40;

/// Requests of one service, side and name.
#[derive(Default)]
struct Row {
    durations_ns: Vec<u64>,
    errors: usize,
}

/// The busiest requests; empty where nothing was said.
pub(super) fn table(spans: &[Span]) -> String {
    let mut rows: HashMap<(&str, &str, &str), Row> = HashMap::new();
    for span in spans {
        let row = rows.entry((span.subject.service_name(), span.kind.name(), &span.name)).or_default();
        row.durations_ns.push(span.duration_ns());
        row.errors += usize::from(span.error.is_some());
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|(one_key, one), (other_key, other)| {
        other.durations_ns.len().cmp(&one.durations_ns.len()).then_with(|| one_key.cmp(other_key))
    });
    let mut text = "\n COUNT  ERRORS    P50 MS    MAX MS  REQUESTS (kansoku trace)\n".to_owned();
    for ((service, side, name), mut row) in rows.into_iter().take(REQUESTS_SHOWN) {
        row.durations_ns.sort_unstable();
        let milliseconds = |nanoseconds: Option<&u64>| nanoseconds.map_or(0.0, |value| *value as f64 / 1e6);
        let middle = milliseconds(row.durations_ns.get(row.durations_ns.len() / 2));
        let most = milliseconds(row.durations_ns.last());
        let name: String = name.escape_debug().take(NAME_CHARS_MAX).collect();
        let (count, errors) = (row.durations_ns.len(), row.errors);
        text += &format!("{count:6}  {errors:6}  {middle:8.3}  {most:8.3}  {service} {side} {name}\n");
    }
    text
}
