//! How long a scrape takes on a node of many containers, by format: with a snapshot of its own, and with one that another
//! scrape just got.
//!
//! Refuses: few series that look fast, and the second kind of scrape as the figure.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::interrupt::pause;
use super::super::numbers::Spread;
use super::super::report::table;
use super::super::setup::Bench;
use super::containers::{INTERVAL, NO_OTLP_METRICS};
use super::kubepods::Kubepods;
use super::prometheus::{Format, Scraper};

pub const TARGET_SERIES: usize = 50_000;

pub const TARGET_MS_MAX: f64 = 250.0;

/// So many have the target's series, and not many more.
const CONTAINERS: usize = 280;

/// A snapshot is given out for 0.9 s.
const STALE: Duration = Duration::from_millis(1_200);

/// Scrapes of one format.
struct Scrapes {
    format: Format,
    bytes: u64,
    /// Each collects a snapshot.
    cold_ms: Spread,
    /// Each gets the snapshot of the one before.
    shared_ms: Spread,
}

pub fn target() -> String {
    format!("{TARGET_SERIES} series in {TARGET_MS_MAX} ms")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let _kubepods = Kubepods::start(bench, CONTAINERS)?;
    let scraper = Scraper::prepare(bench)?;
    let mut agent = Agent::start_with(bench, FREQUENCY_HZ, &[INTERVAL, NO_OTLP_METRICS])?;
    agent.run_for(bench.plan.io_containers_warm_up)?;
    scraper.scrape(Format::Text)?;
    let series = scraper.series()?;
    ensure!(series >= TARGET_SERIES, "{CONTAINERS} containers have {series} series only");
    let mut found = Format::ALL.map(|format| (format, 0, Vec::new(), Vec::new()));
    for _ in 0..bench.plan.io_scrapes {
        // In turns, so that a drift of the machine falls on all alike.
        for (format, bytes, cold, shared) in &mut found {
            pause(STALE)?;
            let scrape = scraper.scrape(*format)?;
            *bytes = scrape.bytes;
            cold.push(scrape.milliseconds);
            shared.push(scraper.scrape(*format)?.milliseconds);
        }
    }
    agent.stop(bench)?;
    let scrapes = found.map(|(format, bytes, cold, shared)| {
        let [cold_ms, shared_ms] = [cold, shared].map(|times| Spread::of(&times).context("no scrapes"));
        Ok(Scrapes { format, bytes, cold_ms: cold_ms?, shared_ms: shared_ms? })
    });
    Ok(measured(series, &scrapes.into_iter().collect::<Result<Vec<_>>>()?))
}

fn measured(series: usize, scrapes: &[Scrapes]) -> Measured {
    let uncompressed = scrapes.iter().filter(|scrapes| scrapes.format != Format::OpenMetricsGzip);
    let slowest_ms = uncompressed.map(|scrapes| scrapes.cold_ms.median).fold(0.0, f64::max);
    let row = |scrapes: &Scrapes| {
        vec![
            scrapes.format.name().to_owned(),
            scrapes.bytes.to_string(),
            scrapes.cold_ms.text(1),
            scrapes.shared_ms.text(1),
        ]
    };
    let text = format!(
        "{CONTAINERS} containers, {series} series (lines that are no comments), {} pairs of scrapes of each format in turns, by \
         `curl` on the same machine: from the start of its connection to the last byte. The first of a pair comes after {} ms \
         without a scrape, so that it waits for a collection of everything; the second gets the same snapshot, but is \
         encoded anew if the agent does not keep bodies. The target is for the first, for the slower of the two formats \
         that are not compressed.\n\n{}",
        scrapes.first().map_or(0, |scrapes| scrapes.cold_ms.runs),
        STALE.as_millis(),
        table(
            &["format", "bytes", "ms, first (least to most)", "ms, second"],
            &scrapes.iter().map(row).collect::<Vec<_>>()
        ),
    );
    Measured {
        summary: format!("{series} series in {slowest_ms:.0} ms"),
        is_met: Some(series >= TARGET_SERIES && slowest_ms <= TARGET_MS_MAX),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrapes(format: Format, cold_ms: f64) -> Scrapes {
        let spread = |milliseconds| Spread::of(&[milliseconds]).expect("there is one");
        Scrapes { format, bytes: 1, cold_ms: spread(cold_ms), shared_ms: spread(1.0) }
    }

    fn check(series: usize, [text_ms, gzip_ms]: [f64; 2], expected: bool) {
        let scrapes = [scrapes(Format::Text, text_ms), scrapes(Format::OpenMetricsGzip, gzip_ms)];
        assert_eq!(measured(series, &scrapes).is_met, Some(expected), "{series}");
    }

    #[test]
    fn few_series_prove_nothing() {
        check(TARGET_SERIES, [249.0, 900.0], true);
        check(TARGET_SERIES, [251.0, 1.0], false);
        check(TARGET_SERIES / 2, [10.0, 10.0], false);
    }
}
