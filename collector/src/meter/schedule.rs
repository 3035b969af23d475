//! When the next snapshot for the sink is due: after the interval, but with the scrape that is expected around then, so that
//! one collection serves both.
//!
//! Refuses: to wait for a scrape that does not come.

use std::time::{Duration, Instant};

use super::FRESH;

/// Scrapes are regular enough if so many of them take the interval, give or take this part of it.
const SLACK_PART: u32 = 8;

/// Knows the interval and the scrapes.
pub struct Schedule {
    interval: Duration,
    due: Instant,
    scraped: Option<Instant>,
    period: Duration,
}

impl Schedule {
    /// The first one is due after an interval.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now + interval, scraped: None, period: Duration::ZERO }
    }

    /// When the next snapshot is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Somebody scrapes. Scrapers in step count once.
    pub fn scraped(&mut self, now: Instant) {
        let passed = self.scraped.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        if self.scraped.is_none() || passed >= FRESH {
            self.period = passed;
            self.scraped = Some(now);
        }
    }

    /// A snapshot was taken: the next one is due after the interval, or, where somebody wants it, while that of the scrape
    /// nearest to then is fresh.
    pub fn taken(&mut self, now: Instant, is_wanted: bool) {
        let target = now + self.interval;
        let scrape = self.scrape_near(target).filter(|_| is_wanted);
        self.due = scrape.map_or(target, |scrape| scrape + FRESH / 2);
    }

    /// The scrape expected nearest to a moment, if so many scrapes take about an interval.
    fn scrape_near(&self, moment: Instant) -> Option<Instant> {
        let (scraped, period) = (self.scraped?, self.period);
        let scrapes = periods(self.interval, period)?;
        if (period * scrapes).abs_diff(self.interval) > self.interval / SLACK_PART {
            return None;
        }
        Some(scraped + period * periods(moment.saturating_duration_since(scraped), period)?)
    }
}

/// How many periods take nearest to a time; `None` for none.
fn periods(time: Duration, period: Duration) -> Option<u32> {
    let half = period / 2;
    let count = (time + half).as_nanos().checked_div(period.as_nanos())?;
    u32::try_from(count).ok().filter(|&count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scrapes at these seconds, a snapshot at `taken_s`: expects when the next is due, in milliseconds.
    fn check(interval_s: u64, scrapes_s: &[u64], taken_s: u64, expected_ms: u64) {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::new(Duration::from_secs(interval_s), start);
        scrapes_s.iter().for_each(|&seconds| schedule.scraped(at(seconds)));
        let mut due_ms = |is_wanted| {
            schedule.taken(at(taken_s), is_wanted);
            schedule.due().duration_since(start).as_millis() as u64
        };
        assert_eq!(due_ms(true), expected_ms, "{interval_s} {scrapes_s:?} {taken_s}");
        assert_eq!(due_ms(false), (taken_s + interval_s) * 1000, "nobody wants it");
    }

    #[test]
    fn snapshots_go_with_scrapes() {
        check(15, &[], 15, 30_000);
        check(15, &[20], 30, 45_000);
        // As often: the first one comes up to half an interval early or late, all others after an interval.
        check(15, &[5, 20], 30, 50_450);
        check(15, &[8, 23], 30, 38_450);
        check(15, &[35, 50], 50, 65_450);
        // Four times as often.
        check(60, &[5, 20], 30, 95_450);
        // Neither as often nor a part: not worth it.
        check(15, &[10, 20], 20, 35_000);
        check(15, &[0, 60], 60, 75_000);
        // Scrapers in step.
        check(15, &[5, 5, 20, 20], 30, 50_450);
    }
}
