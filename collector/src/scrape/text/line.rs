//! One line of a page.
//!
//! Lenient where Prometheus' own scraper is: any blanks between tokens, unknown escapes stay as they are. Refuses: what
//! is over the limits, before it is kept.

use super::super::loss::Loss;
use super::family::{Exemplar, Kind, Labels};
use super::{Format, Limits};

/// Bytes of a family's `HELP`; the rest is cut.
const HELP_BYTES_MAX: usize = 1_024;
/// Characters of an exemplar's label names and values: OpenMetrics 1.0, "Exemplars". Longer ones are left out.
const EXEMPLAR_CHARS_MAX: usize = 128;
const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// Nothing, or a comment.
    Empty,
    /// `# EOF`
    End,
    /// `# TYPE`
    Kind(&'a str, Kind),
    /// `# HELP`
    Help(&'a str, String),
    /// `# UNIT`
    Unit(&'a str, String),
    /// A sample.
    Sample(Parsed<'a>),
}

/// A sample that has no family yet.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Labels,
    pub(super) value: f64,
    pub(super) time_unix_ns: Option<i64>,
    pub(super) exemplar: Option<Exemplar>,
}

type Reason = (Loss, &'static str);

fn malformed(why: &'static str) -> Reason {
    (Loss::Malformed, why)
}

/// Reads a line without its end.
pub(super) fn parse<'a>(line: &'a str, format: Format, limits: &Limits) -> Result<Line<'a>, Reason> {
    let line = line.trim_matches([' ', '\t', '\r']);
    match line.strip_prefix('#') {
        None if line.is_empty() => Ok(Line::Empty),
        None => sample(line, format, limits).map(Line::Sample),
        Some(comment) => describe(comment, limits),
    }
}

fn describe<'a>(comment: &'a str, limits: &Limits) -> Result<Line<'a>, Reason> {
    let (word, rest) = token(comment.trim_start_matches([' ', '\t']));
    if word == "EOF" && rest.is_empty() {
        return Ok(Line::End);
    }
    if !matches!(word, "TYPE" | "HELP" | "UNIT") {
        return Ok(Line::Empty);
    }
    let (name, rest) = token(rest);
    if !is_name(name, true) {
        return Err(malformed("a metric name was expected"));
    }
    if name.len() > limits.label_bytes_max {
        return Err((Loss::LabelLength, "a shorter name was expected"));
    }
    match word {
        "TYPE" => {
            Kind::of_name(rest).map(|kind| Line::Kind(name, kind)).ok_or(malformed("a type was expected"))
        }
        "HELP" => Ok(Line::Help(name, unescape(cut(rest, HELP_BYTES_MAX)))),
        _ => Ok(Line::Unit(name, cut(rest, limits.label_bytes_max).to_owned())),
    }
}

fn sample<'a>(line: &'a str, format: Format, limits: &Limits) -> Result<Parsed<'a>, Reason> {
    let name_end = line.find(['{', ' ', '\t']).ok_or(malformed("a value was expected"))?;
    let (name, rest) = line.split_at(name_end);
    if !is_name(name, true) {
        return Err(malformed("a metric name was expected"));
    }
    let mut rest = rest.trim_start_matches([' ', '\t']);
    let mut parsed_labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        (parsed_labels, rest) = labels(inner, limits, name.len())?;
    } else if name.len() > limits.label_bytes_max {
        return Err((Loss::LabelLength, "a shorter name was expected"));
    }
    let (rest, exemplar) = match (format, rest.split_once(" # ")) {
        (Format::OpenMetrics, Some((rest, exemplar))) => (rest, exemplar_of(exemplar, limits)?),
        _ => (rest, None),
    };
    let (value, time_unix_ns) = numbers(rest, format)?;
    Ok(Parsed { name, labels: parsed_labels, value, time_unix_ns, exemplar })
}

/// A value and, maybe, a timestamp.
fn numbers(text: &str, format: Format) -> Result<(f64, Option<i64>), Reason> {
    let (value, rest) = token(text.trim_start_matches([' ', '\t']));
    let value = value.parse().map_err(|_| malformed("a number was expected as the value"))?;
    let (time, rest) = token(rest);
    if !rest.is_empty() {
        return Err(malformed("the end of the line was expected"));
    }
    if time.is_empty() {
        return Ok((value, None));
    }
    let time_unix_ns = match format {
        Format::Prometheus => {
            time.parse::<i64>().ok().map(|milliseconds| milliseconds.saturating_mul(1_000_000))
        }
        // The cast saturates.
        Format::OpenMetrics => time
            .parse::<f64>()
            .ok()
            .filter(|seconds| seconds.is_finite())
            .map(|seconds| (seconds * NANOSECONDS_PER_SECOND) as i64),
    };
    time_unix_ns.map(|time| (value, Some(time))).ok_or(malformed("a timestamp was expected"))
}

fn exemplar_of(text: &str, limits: &Limits) -> Result<Option<Exemplar>, Reason> {
    let inner = text.trim_start_matches([' ', '\t']).strip_prefix('{');
    let (labels, rest) =
        labels(inner.ok_or(malformed("the labels of an exemplar were expected"))?, limits, 0)?;
    let (value, time_unix_ns) = numbers(rest, Format::OpenMetrics)?;
    let chars: usize = labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    Ok((chars <= EXEMPLAR_CHARS_MAX).then_some(Exemplar { labels, value, time_unix_ns }))
}

/// Labels up to the closing brace, and what follows it. `bytes` have been used already.
fn labels<'a>(text: &'a str, limits: &Limits, mut bytes: usize) -> Result<(Labels, &'a str), Reason> {
    let mut labels = Labels::new();
    let mut rest = text.trim_start_matches([' ', '\t']);
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            break rest = after;
        }
        let (name, after) = rest.split_once('=').ok_or(malformed("a label or } was expected"))?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name, false) || name == "__name__" {
            return Err(malformed("a label name was expected"));
        }
        let quoted = after.trim_start_matches([' ', '\t']).strip_prefix('"');
        let quoted = quoted.ok_or(malformed("a quoted label value was expected"))?;
        let end = closing_quote(quoted).ok_or(malformed("a closing quote was expected"))?;
        bytes += name.len() + end;
        if bytes > limits.label_bytes_max {
            return Err((Loss::LabelLength, "shorter labels were expected"));
        }
        // An empty value is the same as no label.
        if end > 0 {
            labels.push((name.to_owned().into(), unescape(&quoted[..end]).into()));
        }
        if labels.len() > limits.labels_max {
            return Err((Loss::LabelLimit, "fewer labels were expected"));
        }
        rest = quoted[end + 1..].trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start_matches([' ', '\t']),
            None if rest.starts_with('}') => {}
            None => return Err(malformed(", or } was expected after a label")),
        }
    }
    labels.sort_unstable();
    if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(malformed("no second label of the same name was expected"));
    }
    Ok((labels, rest))
}

/// Where the first quote stands that is not escaped.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match (char, chars.clone().next()) {
            ('\\', Some(next @ ('\\' | '"' | 'n'))) => {
                out.push(if next == 'n' { '\n' } else { next });
                chars.next();
            }
            _ => out.push(char),
        }
    }
    out
}

/// The first word, and what follows it.
fn token(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start_matches([' ', '\t']))
}

/// The longest start of `text` within `bytes_max`.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, and colons too in the names of metrics.
fn is_name(text: &str, colons: bool) -> bool {
    !text.is_empty()
        && !text.starts_with(|char: char| char.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || (colons && byte == b':'))
}
