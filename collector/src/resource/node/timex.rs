//! How the host's clock is held to the true time: adjtimex(2), under node_exporter's names, for its alerts on clocks that
//! drift or follow nobody.
//!
//! The clock is the host's in every container. Refuses: numbers of a pulse-per-second signal where there is none.

use anyhow::{Context, Result};

use super::Reading;
use super::family::{node_counter, node_gauge};
use crate::kernel::clock_discipline;
use crate::telemetry::Metric;

/// `TIME_ERROR`, `STA_NANO` and `STA_PPSSIGNAL` of `include/uapi/linux/timex.h`.
const TIME_ERROR: i32 = 5;
const STA_NANO: i32 = 0x2000;
const STA_PPSSIGNAL: i32 = 0x0100;

const US_PER_S: f64 = 1e6;
const NS_PER_S: f64 = 1e9;

/// Parts per million with a fraction of 16 bits.
const SCALED_PPM: f64 = 65_536.0 * 1e6;

/// The clock's state now.
pub(super) fn metrics(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let (state, numbers) = clock_discipline().context("adjtimex(2)")?;
    Ok(of_numbers(state, &numbers, reading.starts.boot()))
}

fn of_numbers(state: i32, numbers: &libc::timex, boot_unix_ns: u64) -> Vec<Metric> {
    let resolution = if numbers.status & STA_NANO == 0 { US_PER_S } else { NS_PER_S };
    let is_synchronized = f64::from(u8::from(state != TIME_ERROR));
    let frequency = 1.0 + numbers.freq as f64 / SCALED_PPM;
    let gauges = [
        ("sync_status", "", "Is clock synchronized to a reliable server (1 = yes, 0 = no).", is_synchronized),
        (
            "offset_seconds",
            "s",
            "Time offset in between local system and reference clock.",
            numbers.offset as f64 / resolution,
        ),
        ("frequency_adjustment_ratio", "", "Local clock frequency adjustment.", frequency),
        ("maxerror_seconds", "s", "Maximum error in seconds.", numbers.maxerror as f64 / US_PER_S),
        ("estimated_error_seconds", "s", "Estimated error in seconds.", numbers.esterror as f64 / US_PER_S),
        ("status", "", "Value of the status array bits.", f64::from(numbers.status)),
        ("loop_time_constant", "", "Phase-locked loop time constant.", numbers.constant as f64),
        ("tick_seconds", "s", "Seconds between clock ticks.", numbers.tick as f64 / US_PER_S),
        ("tai_offset_seconds", "s", "International Atomic Time (TAI) offset.", f64::from(numbers.tai)),
    ];
    let mut metrics: Vec<Metric> = gauges.into_iter().map(gauge).collect();
    if numbers.status & STA_PPSSIGNAL != 0 {
        metrics.extend(pulses(numbers, resolution, boot_unix_ns));
    }
    metrics
}

/// A number by its name, its unit, what it is, and its value.
fn gauge((name, unit, description, value): (&str, &'static str, &'static str, f64)) -> Metric {
    node_gauge(format!("node_timex_{name}"), unit, description, value)
}

/// What is known of a pulse each second.
fn pulses(numbers: &libc::timex, resolution: f64, boot_unix_ns: u64) -> Vec<Metric> {
    let gauges = [
        ("pps_frequency_hertz", "Hz", "Pulse per second frequency.", numbers.ppsfreq as f64 / SCALED_PPM),
        ("pps_jitter_seconds", "s", "Pulse per second jitter.", numbers.jitter as f64 / resolution),
        ("pps_shift_seconds", "s", "Pulse per second interval duration.", f64::from(numbers.shift)),
        (
            "pps_stability_hertz",
            "Hz",
            "Pulse per second stability, average of recent frequency changes.",
            numbers.stabil as f64 / SCALED_PPM,
        ),
    ];
    let counters = [
        ("jitter_total", "Pulse per second count of jitter limit exceeded events.", numbers.jitcnt),
        ("calibration_total", "Pulse per second count of calibration intervals.", numbers.calcnt),
        ("error_total", "Pulse per second count of calibration errors.", numbers.errcnt),
        (
            "stability_exceeded_total",
            "Pulse per second count of stability limit exceeded events.",
            numbers.stbcnt,
        ),
    ];
    let counter = |(name, description, value): (&str, _, _)| {
        node_counter(format!("node_timex_pps_{name}"), "", description, boot_unix_ns, value as f64)
    };
    gauges.into_iter().map(gauge).chain(counters.into_iter().map(counter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Value;

    /// Expects some of what a state and numbers mean, in the order of the names.
    #[track_caller]
    fn check(state: i32, set: impl FnOnce(&mut libc::timex), expected: &[(&str, f64)]) {
        let (_, mut numbers) = clock_discipline().expect("readable");
        // What was read decides nothing but the type.
        (numbers.status, numbers.offset, numbers.maxerror, numbers.freq, numbers.tai) = (0, 0, 0, 0, 0);
        set(&mut numbers);
        let metrics = of_numbers(state, &numbers, 7);
        for (name, value) in expected {
            let found = metrics.iter().find(|metric| metric.name == format!("node_timex_{name}"));
            let found = found.unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(found.points[0].value, Value::Number(*value), "{name}");
        }
        let has_pulses = metrics.iter().any(|metric| metric.name.contains("_pps_"));
        assert_eq!(has_pulses, numbers.status & STA_PPSSIGNAL != 0);
    }

    #[test]
    fn what_numbers_mean() {
        check(0, |numbers| numbers.offset = 1500, &[("sync_status", 1.0), ("offset_seconds", 0.0015)]);
        check(
            TIME_ERROR,
            |numbers| {
                (numbers.status, numbers.offset, numbers.maxerror) = (STA_NANO | 0x40, -1500, 16_000_000)
            },
            &[
                ("sync_status", 0.0),
                ("offset_seconds", -1.5e-6),
                ("maxerror_seconds", 16.0),
                ("status", 8256.0),
            ],
        );
        check(
            0,
            |numbers| (numbers.freq, numbers.tai) = (-65_536, 37),
            &[("frequency_adjustment_ratio", 1.0 - 1e-6), ("tai_offset_seconds", 37.0)],
        );
        check(
            0,
            |numbers| (numbers.status, numbers.jitter, numbers.jitcnt) = (STA_PPSSIGNAL | STA_NANO, 2_000, 3),
            &[("pps_jitter_seconds", 2e-6), ("pps_jitter_total", 3.0)],
        );
    }
}
