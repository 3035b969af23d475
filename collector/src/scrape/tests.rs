//! The whole scraper against a server that counts and then forgets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::*;
use crate::health::Health;
use crate::telemetry::Value;

/// Answers each request with the next page, and with the last one for ever.
fn serve(pages: &'static [&'static str]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (turn, stream) in listener.incoming().enumerate() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            let _ = stream.read(&mut request);
            let page = pages[turn.min(pages.len() - 1)];
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{page}", page.len());
        }
    });
    port
}

fn target(key: &str, port: u16) -> Target {
    let target = Target::of_config(key, &format!("http://127.0.0.1:{port}/"), None).unwrap();
    Target { interval: INTERVAL_MIN, timeout: Duration::from_millis(500), ..target }
}

fn number(metrics: &[Metric], name: &str) -> Vec<(u64, f64)> {
    let points = metrics.iter().filter(|metric| metric.name == name).flat_map(|metric| &metric.points);
    points
        .map(|point| match point.value {
            Value::Number(number) => (point.start_unix_ns, number),
            _ => panic!("{name}"),
        })
        .collect()
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(15);
    while !done() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn targets_are_scraped_reset_and_replaced() {
    let counter = serve(&["# TYPE a_total counter\na_total 9\n", "# TYPE a_total counter\na_total 2\nbad\n"]);
    let scraper =
        Scraper::start(Client::new(trust(None).unwrap(), Limits::default()), &Health::default()).unwrap();
    assert_eq!(scraper.latest(false), []);
    // Nobody listens on port 1.
    assert_eq!(scraper.set_targets(vec![target("good", counter), target("dead", 1), target("again", 1)]), 0);
    wait("the first page", || {
        number(&scraper.latest(false), "a_total").iter().any(|(_, value)| *value == 9.0)
    });
    let before = number(&scraper.latest(false), "a_total")[0].0;
    wait("the reset", || {
        number(&scraper.latest(false), "a_total")
            .iter()
            .any(|(start, value)| *value == 2.0 && *start > before)
    });
    wait("both targets", || scraper.statuses().len() == 2);
    let mut up: Vec<f64> = number(&scraper.latest(false), "up").iter().map(|(_, value)| *value).collect();
    up.sort_by(f64::total_cmp);
    assert_eq!(up, [0.0, 1.0]);
    assert_eq!(scraper.latest(false).iter().filter(|metric| metric.name == "up").count(), 1);
    let statuses = scraper.statuses();
    let dead = statuses.iter().find(|status| status.url.contains(":1/")).unwrap();
    assert_eq!(dead.failure.as_ref().unwrap().name(), "connection");
    let good = statuses.iter().find(|status| !status.url.contains(":1/")).unwrap();
    assert_eq!(good.flaws[0].to_string(), "line 3: a value was expected");
    let of = |name: &str| number(&scraper.metrics(), name).iter().map(|(_, value)| value).sum::<f64>();
    assert!(of("kansoku.scrape.scrapes") >= 3.0 && of("kansoku.scrape.lost") >= 1.0);
    assert_eq!(of("kansoku.scrape.targets"), 2.0);
    assert!(of("kansoku.scrape.held") > 100.0);

    scraper.set_targets(vec![]);
    wait("the end of both", || scraper.latest(false).is_empty());
    assert_eq!(of("kansoku.scrape.held"), 0.0);
}

#[test]
fn there_are_not_too_many_targets() {
    let scraper =
        Scraper::start(Client::new(trust(None).unwrap(), Limits::default()), &Health::default()).unwrap();
    let far =
        |number: usize| Target { interval: Duration::from_hours(1), ..target(&format!("t{number}"), 1) };
    assert_eq!(scraper.set_targets((0..TARGETS_MAX + 7).map(far).collect()), 7);
    let started = Instant::now();
    drop(scraper);
    assert!(started.elapsed() < Duration::from_secs(5));
}
