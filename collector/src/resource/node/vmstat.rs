//! `/proc/vmstat`: pages that were faulted in, paged and swapped (proc(5)).
//!
//! Refuses: its other hundred lines; node_exporter's default is these too (`^(oom_kill|pgpg|pswp|pg.*fault).*`).

use anyhow::{Result, ensure};

use super::Reading;
use super::family::{node, point};
use crate::telemetry::{Metric, MetricKind, Text};

/// The most lines that are taken; those beyond are cut.
const LINES_MAX: usize = 64;

/// Faults and operations.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/vmstat")?;
    let mut lines: Vec<(&str, u64)> = text.lines().filter_map(parse).collect();
    ensure!(!lines.is_empty(), "/proc/vmstat is broken");
    *reading.cut += lines.len().saturating_sub(LINES_MAX) as u64;
    lines.truncate(LINES_MAX);
    // One thing for each line: lines of a newer kernel must not restart the others.
    let mut starts = Vec::with_capacity(lines.len());
    for (key, value) in &mut lines {
        let mut values = [*value];
        starts.push(reading.starts.of("vmstat", key, &mut values, 0));
    }
    let mut metrics: Vec<Metric> = Vec::with_capacity(lines.len() + 2);
    for (key, value) in &lines {
        let description = format!("/proc/vmstat information field {key}.");
        let metric = node(MetricKind::Unknown, format!("node_vmstat_{key}"), "", description);
        metrics.push(metric.with(vec![point(0, [], *value as f64)]));
    }
    let of = |key: &str| {
        lines.iter().zip(&starts).find(|(line, _)| line.0 == key).map(|(line, start)| (line.1, *start))
    };
    metrics.extend(faults(of("pgfault"), of("pgmajfault")));
    metrics.extend(operations([of("pswpin"), of("pswpout"), of("pgpgin"), of("pgpgout")]));
    Ok(metrics)
}

fn parse(line: &str) -> Option<(&str, u64)> {
    let (key, value) = line.split_once(' ')?;
    let wanted = key.starts_with("oom_kill")
        || key.starts_with("pgpg")
        || key.starts_with("pswp")
        || (key.starts_with("pg") && key.contains("fault"));
    let named = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (wanted && named).then_some((key, value.trim().parse().ok()?))
}

/// `pgfault` counts the major ones too.
fn faults(all: Option<(u64, u64)>, major: Option<(u64, u64)>) -> Option<Metric> {
    let ((all, all_start), (major, major_start)) = (all?, major?);
    let series = |kind: &'static str, start, faults: u64| {
        point(start, [("system.paging.fault.type", Text::from(kind))], faults as f64)
    };
    let metric = Metric::new(MetricKind::Counter, "system.paging.faults", "{fault}", "Page faults.");
    let start = all_start.max(major_start);
    Some(
        metric.with(vec![
            series("major", major_start, major),
            series("minor", start, all.saturating_sub(major)),
        ]),
    )
}

/// Swapping is major, reading and writing files is minor: so the Collector's host metrics receiver has it too.
fn operations(counts: [Option<(u64, u64)>; 4]) -> Option<Metric> {
    const KINDS: [(&str, &str); 4] = [("major", "in"), ("major", "out"), ("minor", "in"), ("minor", "out")];
    let series = KINDS.iter().zip(counts).filter_map(|((kind, direction), count)| {
        let (count, start) = count?;
        let attributes = [
            ("system.paging.fault.type", Text::from(*kind)),
            ("system.paging.direction", Text::from(*direction)),
        ];
        Some(point(start, attributes, count as f64))
    });
    let metric =
        Metric::new(MetricKind::Counter, "system.paging.operations", "{operation}", "Paging operations.");
    Some(metric.with(series.collect())).filter(|metric| !metric.points.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (line, expected) in [
            ("pgpgin 12", Some(("pgpgin", 12))),
            ("pgmajfault 1", Some(("pgmajfault", 1))),
            ("oom_kill 0", Some(("oom_kill", 0))),
            ("nr_free_pages 7", None),
            ("pgpgin -1", None),
            ("pgpg{} 1", None),
            ("pgpgin", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
