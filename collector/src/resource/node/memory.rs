//! `/proc/meminfo`: what memory is used for (proc(5); `fs/proc/meminfo.c`).
//!
//! node_exporter has one metric for every line, so also for those that this program was built without knowing; the
//! `procfs` crate drops them, so this parser is our own. Refuses: what a container uses.

use anyhow::{Context, Result};

use super::Reading;
use super::family::{node_gauge, point};
use crate::telemetry::{Metric, MetricKind, Text};

/// The most lines; a kernel has about sixty. Those beyond are cut.
const LINES_MAX: usize = 256;

/// A line: its key, its value, and whether that is bytes.
type Line<'a> = (&'a str, u64, bool);

/// Memory, swap and slab.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/meminfo")?;
    let mut lines: Vec<Line<'_>> = text.lines().filter_map(parse).collect();
    *reading.cut += lines.len().saturating_sub(LINES_MAX) as u64;
    lines.truncate(LINES_MAX);
    let mut metrics: Vec<Metric> = lines.iter().map(by_node).collect();
    metrics.extend(by_convention(&lines, reading.starts.boot()).context("/proc/meminfo has no memory")?);
    Ok(metrics)
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (key, value) = line.split_once(':')?;
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '(' | ')');
    if key.is_empty() || !key.chars().all(named) {
        return None;
    }
    let mut words = value.split_ascii_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    match words.next() {
        Some("kB") => Some((key, number.checked_mul(1024)?, true)),
        Some(_) => None,
        None => Some((key, number, false)),
    }
}

/// node_exporter's name: `Active(anon)` is `node_memory_Active_anon_bytes`, `HugePages_Total` has no unit.
fn by_node((key, value, is_bytes): &Line<'_>) -> Metric {
    let key = key.replace('(', "_").replace(')', "");
    let (suffix, unit) = if *is_bytes { ("_bytes", "By") } else { ("", "") };
    let description = format!("Memory information field {key}{suffix}.");
    node_gauge(format!("node_memory_{key}{suffix}"), unit, description, *value as f64)
}

/// The metrics of the conventions; none without MemTotal and MemFree.
fn by_convention(lines: &[Line<'_>], start: u64) -> Option<Vec<Metric>> {
    let of = |key: &str| lines.iter().find(|line| line.0 == key).map(|line| line.1);
    let (total, free) = (of("MemTotal").filter(|total| *total > 0)?, of("MemFree")?);
    let (buffers, cached) = (of("Buffers").unwrap_or(0), of("Cached").unwrap_or(0));
    // Linux before 3.14 has no MemAvailable.
    let available = of("MemAvailable");
    let used = total
        .saturating_sub(available.unwrap_or_else(|| free.saturating_add(buffers).saturating_add(cached)));
    let states = [("used", used), ("free", free), ("buffers", buffers), ("cached", cached)];
    let state = |name, start, scale: f64| {
        let series =
            states.map(|(state, bytes)| point(start, [(name, Text::from(state))], bytes as f64 / scale));
        series.to_vec()
    };
    let sum = |name: &'static str, description: &'static str| {
        Metric::new(MetricKind::UpDownCounter, name, "By", description)
    };
    let mut metrics = vec![
        sum("system.memory.usage", "Memory in use by state.").with(state("system.memory.state", start, 1.0)),
        Metric::new(
            MetricKind::Gauge,
            "system.memory.utilization",
            "1",
            "Fraction of memory in use by state.",
        )
        .with(state("system.memory.state", 0, total as f64)),
        sum("system.memory.limit", "Memory of the host.").with(vec![point(start, [], total as f64)]),
    ];
    if let Some(available) = available {
        let description = "Memory for new programs without swapping, as the kernel estimates it.";
        let metric = sum("system.memory.linux.available", description);
        metrics.push(metric.with(vec![point(start, [], available as f64)]));
    }
    let pair = |name: &'static str, attribute, description, states: [(&'static str, Option<u64>); 2]| {
        let series = states.iter().filter_map(|(state, bytes)| {
            Some(point(start, [(attribute, Text::from(*state))], (*bytes)? as f64))
        });
        sum(name, description).with(series.collect())
    };
    metrics.push(pair(
        "system.memory.linux.slab.usage",
        "system.memory.linux.slab.state",
        "Memory of the kernel's caches of its own objects.",
        [("reclaimable", of("SReclaimable")), ("unreclaimable", of("SUnreclaim"))],
    ));
    let (swap, swap_free) = (of("SwapTotal"), of("SwapFree"));
    let swap_used = swap.zip(swap_free).map(|(total, free)| total.saturating_sub(free));
    metrics.push(pair(
        "system.paging.usage",
        "system.paging.state",
        "Swap by state.",
        [("used", swap_used), ("free", swap_free)],
    ));
    metrics.retain(|metric| !metric.points.is_empty());
    Some(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (line, expected) in [
            ("MemTotal:       16 kB", Some(("MemTotal", 16384, true))),
            ("Active(anon):    1 kB", Some(("Active(anon)", 1024, true))),
            ("HugePages_Total:   3", Some(("HugePages_Total", 3, false))),
            ("MemTotal:       16 MB", None),
            ("MemTotal: -16 kB", None),
            ("MemTotal: 18446744073709551615 kB", None),
            ("Mem{evil}: 16 kB", None),
            (": 16 kB", None),
            ("MemTotal", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[test]
    fn names() {
        for (line, name) in [
            (("Active(anon)", 1, true), "node_memory_Active_anon_bytes"),
            (("HugePages_Total", 1, false), "node_memory_HugePages_Total"),
        ] {
            assert_eq!(by_node(&line).name, name);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text(text in "(Mem|:|kB|[0-9 \n]|.){0,200}") {
            let lines: Vec<_> = text.lines().filter_map(parse).collect();
            by_convention(&lines, 0);
        }
    }
}
