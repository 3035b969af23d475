//! How long to wait before the next attempt. Refuses to decide whether there is one, and to read clocks.
//!
//! Spec: <https://opentelemetry.io/docs/specs/otlp/#otlphttp-throttling>, RFC 9110 section 10.2.3 (`Retry-After`).

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::Limits;

/// Floor of the first wait, whatever is configured: retries never spin.
const DELAY_MIN: Duration = Duration::from_millis(10);

/// The waits of one payload, without end: doubling from `retry_initial`, each lengthened by up to its own length at
/// random, so that a fleet doesn't return in step. Growth ends at half of `retry_delay_max`, which leaves the jitter
/// its room below the limit.
pub(super) fn delays(limits: &Limits) -> ExponentialBackoff {
    let ceiling = (limits.retry_delay_max / 2).max(DELAY_MIN);
    ExponentialBuilder::new()
        .with_factor(2.0)
        .with_min_delay(limits.retry_initial.clamp(DELAY_MIN, ceiling))
        .with_max_delay(ceiling)
        .without_max_times()
        .with_jitter()
        .build()
}

/// The next wait: our own, or what the backend asked for if that is longer, up to `max`. A backend that asks for a
/// longer wait than `max` is met early rather than trusted with silencing the agent.
pub(super) fn delay(own: Duration, asked: Option<Duration>, max: Duration) -> Duration {
    own.max(asked.unwrap_or_default().min(max))
}

/// Reads `Retry-After`: seconds, or a date relative to `now` (a past one is zero). `None` if it is neither.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_within_bounds() {
        #[track_caller]
        fn check(initial_ms: u64, max_ms: u64, expected_ms: &[u64]) {
            let limits = Limits {
                retry_initial: Duration::from_millis(initial_ms),
                retry_delay_max: Duration::from_millis(max_ms),
                ..Limits::default()
            };
            for (delay, expected_ms) in delays(&limits).zip(expected_ms) {
                let expected = Duration::from_millis(*expected_ms);
                assert!((expected..=2 * expected).contains(&delay), "{delay:?} for {expected:?}");
            }
        }
        check(1000, 30_000, &[1000, 2000, 4000, 8000, 15_000, 15_000]);
        check(1000, 1000, &[500, 500, 500]);
        check(0, 1000, &[10, 20, 40]);
        check(0, 0, &[10, 10]);
        check(u64::MAX, u64::MAX, &[u64::MAX / 2]);
    }

    #[test]
    fn the_longer_wait_counts_up_to_the_limit() {
        #[track_caller]
        fn check(own: u64, asked: Option<u64>, expected: u64) {
            let [own, max, expected] = [own, 30, expected].map(Duration::from_secs);
            assert_eq!(delay(own, asked.map(Duration::from_secs), max), expected);
        }
        check(2, None, 2);
        check(2, Some(0), 2);
        check(2, Some(5), 5);
        check(2, Some(3600), 30);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        #[track_caller]
        fn check(value: &str, expected_s: Option<u64>) {
            // Sun, 06 Nov 1994 08:49:37 GMT
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
            assert_eq!(retry_after(value, now), expected_s.map(Duration::from_secs), "{value:?}");
        }
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("18446744073709551615", Some(u64::MAX));
        check("18446744073709551616", None);
        check("-1", None);
        check("1.5", None);
        check("", None);
        check("soon", None);
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Sun, 99 Nov 1994 08:50:37 GMT", None);
    }
}
