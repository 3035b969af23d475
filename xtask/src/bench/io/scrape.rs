//! How long a scrape takes on a node of many containers, by format.
//!
//! Refuses: few series that look fast. Below the target's number the time is scaled up to it.

use anyhow::{Context, Result};

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::interrupt;
use super::super::numbers::Spread;
use super::super::report::table;
use super::super::setup::Bench;
use super::containers::{INTERVAL, NO_OTLP_METRICS};
use super::kubepods::Kubepods;
use super::prometheus::{Format, Scraper};

pub const TARGET_SERIES: usize = 50_000;

pub const TARGET_MS_MAX: f64 = 250.0;

/// Scrapes of one format.
struct Scrapes {
    format: Format,
    bytes: u64,
    milliseconds: Spread,
}

pub fn target() -> String {
    format!("{TARGET_SERIES} series in {TARGET_MS_MAX} ms")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let containers = bench.plan.io_containers;
    let _kubepods = Kubepods::start(bench, containers)?;
    let scraper = Scraper::prepare(bench)?;
    let mut agent = Agent::start_with(bench, FREQUENCY_HZ, &[INTERVAL, NO_OTLP_METRICS])?;
    agent.run_for(bench.plan.io_containers_warm_up)?;
    scraper.scrape(Format::Text)?;
    let series = scraper.series()?;
    let mut milliseconds = Format::ALL.map(|format| (format, 0, Vec::new()));
    for _ in 0..bench.plan.io_scrapes {
        // In turns, so that a drift of the machine falls on all alike.
        for (format, bytes, milliseconds) in &mut milliseconds {
            interrupt::check()?;
            let scrape = scraper.scrape(*format)?;
            *bytes = scrape.bytes;
            milliseconds.push(scrape.milliseconds);
        }
    }
    agent.stop(bench)?;
    let scrapes = milliseconds.map(|(format, bytes, milliseconds)| {
        let milliseconds = Spread::of(&milliseconds).context("there were no scrapes")?;
        Ok(Scrapes { format, bytes, milliseconds })
    });
    let scrapes = scrapes.into_iter().collect::<Result<Vec<_>>>()?;
    measured(containers, series, &scrapes)
}

fn measured(containers: usize, series: usize, scrapes: &[Scrapes]) -> Result<Measured> {
    let uncompressed = scrapes.iter().filter(|scrapes| scrapes.format != Format::OpenMetricsGzip);
    let slowest_ms = uncompressed.map(|scrapes| scrapes.milliseconds.median).fold(0.0, f64::max);
    let of_target_ms = of_target_ms(slowest_ms, series).context("the agent told no series")?;
    let scrapes_each = scrapes.first().map_or(0, |scrapes| scrapes.milliseconds.runs);
    let row = |scrapes: &Scrapes| {
        vec![
            scrapes.format.name().to_owned(),
            scrapes.bytes.to_string(),
            scrapes.milliseconds.text(1),
            of_target_ms_text(scrapes, series),
        ]
    };
    let text = format!(
        "{containers} containers, {series} series (lines that are no comments), {scrapes_each} scrapes of each format in \
         turns, by `curl` on the same machine: from the start of its connection to the last byte. The target is for the \
         slower of the two that are not compressed, for {TARGET_SERIES} series: fewer are scaled up in proportion.\n\n{}",
        table(
            &["format", "bytes", "ms (least to most)", "ms for the target's series"],
            &scrapes.iter().map(row).collect::<Vec<_>>()
        ),
    );
    Ok(Measured {
        summary: format!(
            "{series} series in {slowest_ms:.0} ms, {TARGET_SERIES} would take {of_target_ms:.0} ms"
        ),
        is_met: Some(of_target_ms <= TARGET_MS_MAX),
        text,
    })
}

/// What the target's number of series takes; more than that is taken as it is. `None` without series.
fn of_target_ms(milliseconds: f64, series: usize) -> Option<f64> {
    (series > 0).then(|| milliseconds * (TARGET_SERIES as f64 / series as f64).max(1.0))
}

fn of_target_ms_text(scrapes: &Scrapes, series: usize) -> String {
    of_target_ms(scrapes.milliseconds.median, series).map_or(String::new(), |ms| format!("{ms:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrapes(format: Format, milliseconds: f64) -> Scrapes {
        let milliseconds = Spread::of(&[milliseconds]).expect("there is one");
        Scrapes { format, bytes: 1, milliseconds }
    }

    fn check(series: usize, [text_ms, gzip_ms]: [f64; 2], expected: Option<bool>) {
        let scrapes = [scrapes(Format::Text, text_ms), scrapes(Format::OpenMetricsGzip, gzip_ms)];
        let measured = measured(1_000, series, &scrapes);
        assert_eq!(measured.ok().and_then(|measured| measured.is_met), expected, "{series}");
    }

    #[test]
    fn few_series_must_be_faster() {
        check(TARGET_SERIES, [249.0, 900.0], Some(true));
        check(TARGET_SERIES / 2, [124.0, 900.0], Some(true));
        check(TARGET_SERIES / 2, [126.0, 1.0], Some(false));
        check(TARGET_SERIES * 2, [260.0, 1.0], Some(false));
        check(0, [1.0, 1.0], None);
    }
}
