//! OpenTelemetry names -> Prometheus names.
//!
//! By "Prometheus and OpenMetrics compatibility" of the OpenTelemetry specification: legal characters, the unit as a
//! suffix, `_total` on counters. Refuses: names of other vocabularies, which stay as they are, and quoted UTF-8 names.

use crate::telemetry::{Metric, MetricKind, Vocabulary};

/// The names of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyName {
    /// The name of the series; a counter's ends in `_total`.
    pub series: String,
    /// The unit's word when `family` ends in it, which OpenMetrics demands of `# UNIT`.
    pub unit: Option<String>,
}

impl FamilyName {
    /// The names of `metric`. A name without one legal character becomes `_`.
    pub fn of(metric: &Metric) -> Self {
        let unit = unit_words(&metric.unit, metric.kind);
        if metric.vocabulary != Vocabulary::OpenTelemetry {
            return Self::with_unit(legal(&metric.name, Colon::Kept), unit);
        }
        let mut name = collapsed(&legal(&metric.name, Colon::Kept));
        let is_counter = metric.kind == MetricKind::Counter;
        if is_counter {
            name.truncate(family(&name).len());
        }
        if !unit.is_empty() && !ends_with_word(&name, &unit) {
            name = format!("{}_{unit}", name.trim_end_matches('_'));
        }
        // A gauge with this ending would look like a part of a histogram.
        if let Some(start) = name.strip_suffix("_count").filter(|_| metric.kind != MetricKind::Histogram) {
            name = format!("{start}_number");
        }
        if is_counter {
            name.push_str(TOTAL);
        }
        Self::with_unit(name, unit)
    }

    fn with_unit(series: String, unit: String) -> Self {
        let has_unit = !unit.is_empty() && ends_with_word(family(&series), &unit);
        Self { unit: has_unit.then_some(unit), series }
    }
}

/// What a counter's series end in.
pub const TOTAL: &str = "_total";

/// The name of the family that OpenMetrics knows a counter's series by: without `_total`.
pub fn family(series: &str) -> &str {
    series.strip_suffix(TOTAL).filter(|family| !family.is_empty()).unwrap_or(series)
}

/// A legal label name: `[a-zA-Z_][a-zA-Z0-9_]*`, without two underscores in a row, which Prometheus keeps for itself
/// at the start of a name.
pub fn label(attribute: &str) -> String {
    collapsed(&legal(attribute, Colon::Replaced))
}

#[derive(Clone, Copy, PartialEq)]
enum Colon {
    Kept,
    Replaced,
}

/// With `_` for each character that is not allowed, and before a leading digit.
fn legal(name: &str, colon: Colon) -> String {
    let mut legal = String::with_capacity(name.len() + 1);
    if name.chars().next().is_none_or(|first| first.is_ascii_digit()) {
        legal.push('_');
    }
    legal.extend(name.chars().map(|char| match char {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => char,
        ':' if colon == Colon::Kept => ':',
        _ => '_',
    }));
    legal
}

/// With one `_` for each run of them.
fn collapsed(name: &str) -> String {
    let mut collapsed = String::with_capacity(name.len());
    for char in name.chars() {
        if char != '_' || !collapsed.ends_with('_') {
            collapsed.push(char);
        }
    }
    collapsed
}

/// Whether `name` is `words` or ends in `_words`.
fn ends_with_word(name: &str, words: &str) -> bool {
    name.strip_suffix(words).is_some_and(|before| before.is_empty() || before.ends_with('_'))
}

/// The words of a UCUM unit: `bytes_per_second` for `By/s`; none for annotations and for `1` of all but gauges.
fn unit_words(unit: &str, kind: MetricKind) -> String {
    let unit = without_annotations(unit);
    if unit == "1" {
        return if kind == MetricKind::Gauge { "ratio".to_owned() } else { String::new() };
    }
    let (main, per) = unit.split_once('/').unwrap_or((&unit, ""));
    let main = word(main, &UNITS);
    let per = word(per, &UNITS_PER);
    match (main.is_empty(), per.is_empty()) {
        (_, true) => main,
        (true, false) => format!("per_{per}"),
        (false, false) => format!("{main}_per_{per}"),
    }
}

/// Without what stands in braces: `{packet}/s` -> `/s`.
fn without_annotations(unit: &str) -> String {
    let mut depth = 0u32;
    let outside = |char: &char| match char {
        '{' => {
            depth = depth.saturating_add(1);
            false
        }
        '}' => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    };
    unit.chars().filter(outside).collect::<String>().trim().to_owned()
}

fn word(code: &str, known: &[(&str, &str)]) -> String {
    if code == "1" {
        return String::new();
    }
    match known.iter().find(|(unit, _)| *unit == code) {
        Some((_, word)) => (*word).to_owned(),
        None => {
            let kept = |char: char| if char.is_ascii_alphanumeric() { char } else { '_' };
            collapsed(&code.chars().map(kept).collect::<String>()).trim_matches('_').to_owned()
        }
    }
}

const UNITS: [(&str, &str); 27] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("kBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("bit", "bits"),
];

const UNITS_PER: [(&str, &str); 8] = [
    ("s", "second"),
    ("m", "minute"),
    ("min", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(kind: MetricKind, name: &str, unit: &str, expected: &str, expected_unit: &str) {
        let metric = Metric::new(kind, name.to_owned(), unit.to_owned(), "");
        let found = FamilyName::of(&metric);
        assert_eq!(found.series, expected, "{name} {unit}");
        assert_eq!(found.unit.unwrap_or_default(), expected_unit, "{name} {unit}");
    }

    #[test]
    fn opentelemetry() {
        use MetricKind::{Counter, Gauge, Histogram, UpDownCounter};
        check(Counter, "container.cpu.time", "s", "container_cpu_time_seconds_total", "seconds");
        check(Counter, "http.requests.total", "{request}", "http_requests_total", "");
        check(Counter, "x.bytes.total", "By", "x_bytes_total", "bytes");
        check(Counter, "total", "", "total_total", "");
        check(UpDownCounter, "container.memory.usage", "By", "container_memory_usage_bytes", "bytes");
        check(Gauge, "system.cpu.utilization", "1", "system_cpu_utilization_ratio", "ratio");
        check(Gauge, "cache.ratio", "1", "cache_ratio", "ratio");
        check(Counter, "x.share", "1", "x_share_total", "");
        check(
            Histogram,
            "http.server.request.duration",
            "s",
            "http_server_request_duration_seconds",
            "seconds",
        );
        check(Gauge, "net.rate", "By/s", "net_rate_bytes_per_second", "bytes_per_second");
        check(Gauge, "net.rate", "{packet}/s", "net_rate_per_second", "per_second");
        check(Gauge, "net.rate", "1/min", "net_rate_per_minute", "per_minute");
        check(Gauge, "seconds_before_birthday", "s", "seconds_before_birthday_seconds", "seconds");
        check(Gauge, "(lambda)..executions#", "", "_lambda_executions_", "");
        check(Gauge, "milliseconds", "s", "milliseconds_seconds", "seconds");
        check(Gauge, "1st", "", "_1st", "");
        check(Gauge, "", "s", "_seconds", "seconds");
        check(Gauge, "wind", "furlong", "wind_furlong", "furlong");
        check(Gauge, "a", "{x{y}z", "a", "");
    }

    #[test]
    fn other_vocabularies_keep_their_names() {
        let mut metric = Metric::new(MetricKind::Counter, "node_cpu_seconds_total", "s", "");
        metric.vocabulary = Vocabulary::NodeExporter;
        assert_eq!(FamilyName::of(&metric).series, "node_cpu_seconds_total");
        assert_eq!(FamilyName::of(&metric).unit.as_deref(), Some("seconds"));
        metric.name = "node_netstat_Tcp_InSegs".into();
        assert_eq!(FamilyName::of(&metric).series, "node_netstat_Tcp_InSegs");
        assert_eq!(FamilyName::of(&metric).unit, None);
    }

    #[test]
    fn labels() {
        for (attribute, expected) in [
            ("http.route", "http_route"),
            ("__name__", "_name_"),
            ("9", "_9"),
            ("", "_"),
            ("a:b", "a_b"),
            ("é", "_"),
        ] {
            assert_eq!(label(attribute), expected);
        }
    }

    proptest! {
        #[test]
        fn every_name_is_legal(name in ".*", unit in ".*") {
            let family = FamilyName::of(&Metric::new(MetricKind::Counter, name.clone(), unit, ""));
            let is_legal = |text: &str, other: char| {
                let first = text.chars().next().unwrap();
                (first.is_ascii_alphabetic() || first == '_' || first == other)
                    && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || char == other)
            };
            prop_assert!(is_legal(&family.series, ':'), "{}", family.series);
            prop_assert!(family.series.ends_with("_total"));
            prop_assert!(is_legal(&label(&name), '_'));
        }
    }
}
