//! Pages and what becomes of them.

use proptest::prelude::*;

use super::super::text::{Format, Limits, Parser};
use super::*;

const SECOND: u64 = 1_000_000_000;

fn target() -> Target {
    Target::of_config("shop", "http://10.0.0.1:80/metrics", None).unwrap()
}

fn page(format: Format, text: &str) -> Page {
    let mut parser = Parser::new(format, Limits::default());
    parser.feed(text.as_bytes());
    let page = parser.finish().unwrap();
    assert_eq!(page.flaws, []);
    page
}

fn tell(metrics: &[Metric]) -> Vec<String> {
    let of_point = |metric: &Metric, point: &Point| {
        let labels: Vec<String> =
            point.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let value = match &point.value {
            Value::Number(number) => format!("{number}"),
            Value::ExplicitHistogram(one) => format!("{:?} {:?} {:?}", one.bounds, one.counts, one.sum),
            Value::Summary(one) => format!("{:?} {} {}", one.quantiles, one.sum, one.count),
            Value::Histogram(_) => unreachable!(),
        };
        let start = point.start_unix_ns / SECOND;
        format!(
            "{} {:?} [{}] {{{}}} {value} since {start}",
            metric.name,
            metric.kind,
            metric.unit,
            labels.join(",")
        )
    };
    metrics.iter().flat_map(|metric| metric.points.iter().map(move |point| of_point(metric, point))).collect()
}

#[track_caller]
fn check(format: Format, text: &str, expected: &[&str], lost: &[(Loss, u64)]) {
    let translated = translate(page(format, text), &target(), &mut Starts::default(), 100 * SECOND);
    assert_eq!(tell(&translated.metrics), expected);
    let mut losses = Losses::default();
    lost.iter().for_each(|(loss, count)| losses.add(*loss, *count as usize));
    assert_eq!(translated.losses, losses);
    assert!(translated.metrics.iter().all(|metric| metric.vocabulary == Vocabulary::Application));
}

#[test]
fn numbers() {
    use Format::{OpenMetrics, Prometheus};
    check(
        Prometheus,
        "# TYPE a_total counter\na_total{x=\"1\"} 5\n# TYPE b gauge\nb NaN\nc 3\n",
        &["a_total Counter [] {x=1} 5 since 100", "b Gauge [] {} NaN since 0", "c Unknown [] {} 3 since 0"],
        &[],
    );
    check(
        OpenMetrics,
        "# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 5\na_seconds_created 7\n# EOF\n",
        &["a_seconds_total Counter [s] {} 5 since 7"],
        &[],
    );
    // A start in the future is none.
    check(
        OpenMetrics,
        "# TYPE a counter\na_total 5\na_created 101\n# EOF\n",
        &["a_total Counter [] {} 5 since 100"],
        &[],
    );
    check(
        OpenMetrics,
        "# TYPE a info\na_info{v=\"1\"} 1\n# TYPE s stateset\ns{s=\"on\"} 1\n# EOF\n",
        &["a_info UpDownCounter [] {v=1} 1 since 100", "s UpDownCounter [] {s=on} 1 since 100"],
        &[],
    );
    check(Prometheus, "# TYPE a counter\na{x=\"1\"} NaN\na{x=\"2\"} -1\n", &[], &[(Loss::Inconsistent, 2)]);
    check(Prometheus, "up 7\nscrape_duration_seconds 1\n", &[], &[(Loss::Reserved, 2)]);
    check(OpenMetrics, "# TYPE g gaugehistogram\ng_gcount 1\ng_gsum 1\n# EOF\n", &[], &[(Loss::Kind, 2)]);
}

#[test]
fn distributions() {
    #[track_caller]
    fn histogram(samples: &str, expected: &[&str], lost: usize) {
        let lost = [(Loss::Inconsistent, lost as u64)];
        check(Format::Prometheus, &format!("# TYPE h histogram\n{samples}"), expected, &lost);
    }
    histogram(
        "h_bucket{le=\"+Inf\",x=\"1\"} 9\nh_bucket{le=\"0.5\",x=\"1\"} 2\nh_bucket{le=\"1e1\",x=\"1\"} 5\nh_sum{x=\"1\"} 2.5\nh_count{x=\"1\"} 9\nh_count{x=\"2\"} 4\n",
        &[
            "h Histogram [] {x=1} [0.5, 10.0] [2, 3, 4] Some(2.5) since 100",
            "h Histogram [] {x=2} [] [4] None since 100",
        ],
        0,
    );
    histogram("h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\n", &[], 3);
    histogram("h_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 4\nh_count 5\n", &[], 3);
    histogram("h_bucket{le=\"1\"} 5\nh_bucket{le=\"1.0\"} 5\nh_count 5\n", &[], 3);
    histogram("h_bucket{le=\"1\"} 5\nh_count 4\n", &[], 2);
    histogram("h_bucket{le=\"NaN\"} 5\nh_count 5\n", &[], 2);
    histogram("h_bucket{le=\"x\"} 5\nh_count 5\n", &[], 2);
    histogram("h_bucket 5\nh_count 5\n", &[], 2);
    histogram("h_bucket{le=\"1\"} -1\nh_count 5\n", &[], 2);
    histogram("h_count NaN\n", &[], 1);
    histogram("h 5\nh_count 5\n", &[], 2);
    let summary = "# TYPE s summary\ns{quantile=\"0.9\"} 3\ns{quantile=\"0.5\"} NaN\ns_count 4\n";
    check(Format::Prometheus, summary, &["s Summary [] {} [(0.5, NaN), (0.9, 3.0)] 0 4 since 100"], &[]);
    let odd = "# TYPE s summary\ns{quantile=\"1.5\"} 3\ns_count 4\n";
    check(Format::Prometheus, odd, &[], &[(Loss::Inconsistent, 2)]);
    check(Format::Prometheus, "# TYPE s summary\ns_sum 3\n", &[], &[(Loss::Inconsistent, 1)]);
}

#[test]
fn exemplars_keep_their_trace() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let text = format!(
        "# TYPE h histogram\nh_bucket{{le=\"1\"}} 1 # {{trace_id=\"{trace}\",span_id=\"x\"}} 0.5 9\nh_count 1\n# EOF\n"
    );
    let translated =
        translate(page(Format::OpenMetrics, &text), &target(), &mut Starts::default(), 100 * SECOND);
    let Value::ExplicitHistogram(histogram) = &translated.metrics[0].points[0].value else { panic!() };
    let exemplar = &histogram.exemplars[0];
    assert_eq!((exemplar.trace_id.as_deref(), exemplar.time_unix_ns), (Some(trace), 9 * SECOND));
    assert_eq!((exemplar.span_id.as_deref(), exemplar.attributes.len()), (None, 1));
}

#[test]
fn starts_follow_resets() {
    let mut starts = Starts::default();
    let mut check = |seconds: u64, text: &str, expected: &[u64]| {
        let translated = translate(page(Format::Prometheus, text), &target(), &mut starts, seconds * SECOND);
        let found: Vec<u64> = translated
            .metrics
            .iter()
            .flat_map(|metric| &metric.points)
            .map(|point| point.start_unix_ns / SECOND)
            .collect();
        assert_eq!(found, expected, "at {seconds}");
    };
    let both = |counter: u64, count: u64, sum: u64| {
        format!("# TYPE a counter\na {counter}\n# TYPE h histogram\nh_count {count}\nh_sum {sum}\n")
    };
    check(10, &both(5, 5, 5), &[10, 10]);
    check(20, &both(5, 6, 6), &[10, 10]);
    check(30, &both(4, 7, 7), &[30, 10]);
    check(40, &both(9, 8, 1), &[30, 40]);
    check(50, &both(9, 7, 2), &[30, 50]);
    // A series that was away starts anew, a new one at its first scrape.
    check(60, "# TYPE b counter\nb 1\n", &[60]);
    check(70, &both(9, 9, 9), &[70, 70]);
}

#[test]
fn target_info_becomes_the_resource() {
    for (format, text) in [
        (Format::Prometheus, "# TYPE target_info gauge\ntarget_info{region=\"x\",job=\"y\"} 1\na 1\n"),
        (Format::OpenMetrics, "# TYPE target info\ntarget_info{region=\"x\",job=\"y\"} 1\na 1\n# EOF\n"),
    ] {
        let translated = translate(page(format, text), &target(), &mut Starts::default(), SECOND);
        assert_eq!(tell(&translated.metrics), ["a Unknown [] {} 1 since 0"]);
        assert_eq!(
            translated.metrics[0].points[0].owner,
            target().endpoint(vec![("region".into(), "x".into())])
        );
    }
}

#[test]
fn the_scrape_tells_of_itself() {
    let expected = ["up Gauge [] {} 1 since 0", "scrape_duration_seconds Gauge [s] {} 0.5 since 0"];
    let told = tell(&own(&target(), Some(3), 0.5));
    assert_eq!(told[..2], expected);
    assert_eq!(told[2], "scrape_samples_scraped Gauge [] {} 3 since 0");
    assert_eq!(tell(&own(&target(), None, 0.5))[0], "up Gauge [] {} 0 since 0");
}

proptest! {
    #[test]
    fn any_page_is_survived_and_gives_sound_points(
        lines in proptest::collection::vec(
            "# TYPE [ab] (counter|histogram|summary|info|gaugehistogram)|[ab](_total|_bucket|_count|_sum|_created)?(\\{(le|quantile|x)=\"(1|0.5|[+]Inf|NaN)\"\\})? (-?[0-9]{1,3}|NaN|1e400)",
            0..20,
        ),
    ) {
        let mut parser = Parser::new(Format::Prometheus, Limits::default());
        parser.feed(lines.join("\n").as_bytes());
        let translated = translate(parser.finish().unwrap(), &target(), &mut Starts::default(), SECOND);
        for metric in &translated.metrics {
            prop_assert!(!metric.points.is_empty());
            for point in &metric.points {
                if let Value::ExplicitHistogram(histogram) = &point.value {
                    prop_assert_eq!(histogram.counts.len(), histogram.bounds.len() + 1);
                    prop_assert!(histogram.bounds.windows(2).all(|pair| pair[0] < pair[1]));
                }
                prop_assert!(metric.kind != MetricKind::Counter || point.start_unix_ns > 0);
            }
        }
    }
}
