//! Pages as exporters write them, and as nobody should.

use proptest::prelude::*;

use super::*;

fn read(format: Format, page: &[u8], limits: &Limits) -> Result<Page, Failure> {
    let mut parser = Parser::new(format, limits.clone());
    parser.feed(page);
    parser.finish()
}

fn tell(page: &Page) -> Vec<String> {
    let of_family = |family: &Family| {
        let head = format!("{} {:?}", family.name, family.kind);
        let of_sample = |sample: &Sample| {
            let labels: Vec<String> =
                sample.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let time = sample.time_unix_ns.map_or(String::new(), |time| format!(" @{time}"));
            let exemplar =
                sample.exemplar.as_ref().map_or(String::new(), |exemplar| format!(" #{}", exemplar.value));
            format!("  {:?} {} {}{time}{exemplar}", sample.role, labels.join(","), sample.value)
        };
        std::iter::once(head).chain(family.samples.iter().map(of_sample)).collect::<Vec<_>>()
    };
    page.families.iter().flat_map(of_family).collect()
}

#[test]
fn pages_are_read() {
    #[track_caller]
    fn check(format: Format, page: &str, expected: &[&str]) {
        let whole = read(format, page.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(tell(&whole), expected);
        assert_eq!(whole.flaws, []);
        let mut parser = Parser::new(format, Limits::default());
        for byte in page.as_bytes() {
            parser.feed(&[*byte]);
        }
        assert_eq!(parser.finish().map(|page| tell(&page)), Ok(tell(&whole)));
    }
    use Format::{OpenMetrics, Prometheus};
    check(Prometheus, "", &[]);
    check(Prometheus, "\n# just words\n#\n\r\n", &[]);
    check(Prometheus, "a 1", &["a None", "  Plain  1"]);
    check(
        Prometheus,
        "# HELP a_total what\n# TYPE a_total counter\na_total{x=\"1\" , y = \"a,b}\\\"c\\\\\\n\\d\",}\t2.5e1 1395066363000\r\n",
        &["a_total Some(Counter)", "  Plain x=1,y=a,b}\"c\\\n\\d 25 @1395066363000000000"],
    );
    check(
        Prometheus,
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_sum NaN\nh_count 3\nh_other -Inf\n",
        &[
            "h Some(Histogram)",
            "  Bucket le=+Inf 3",
            "  Sum  NaN",
            "  Count  3",
            "h_other None",
            "  Plain  -inf",
        ],
    );
    check(Prometheus, "a{b=\"\",c=\"d\"} 1 -5\n", &["a None", "  Plain c=d 1 @-5000000"]);
    check(
        OpenMetrics,
        "# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{p=\" # \"} 1 1.5 # {trace_id=\"ab\"} 0.7 9\na_seconds_created{p=\" # \"} 5\n# EOF\n",
        &["a_seconds Some(Counter)", "  Total p= #  1 @1500000000 #0.7", "  Created p= #  5"],
    );
    check(
        OpenMetrics,
        "# TYPE b info\nb_info{v=\"1\"} 1\n# TYPE s stateset\ns{s=\"on\"} 1\n# TYPE g gaugehistogram\ng_gcount 1\n# EOF",
        &[
            "b Some(Info)",
            "  Info v=1 1",
            "s Some(StateSet)",
            "  Plain s=on 1",
            "g Some(GaugeHistogram)",
            "  GaugeCount  1",
        ],
    );
}

#[test]
fn a_bad_line_loses_that_line() {
    #[track_caller]
    fn check(line: &str, loss: Loss, why: &str) {
        let page = format!("before 1\n{line}\nafter{{x=\"1\"}} 2\n");
        let page = read(Format::Prometheus, page.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(page.flaws.len(), 1, "{line}: {:?}", page.flaws);
        assert_eq!((page.flaws[0].line, page.flaws[0].loss), (2, loss), "{line}");
        assert!(page.flaws[0].to_string().contains(why), "{line}: {}", page.flaws[0]);
        assert_eq!(page.losses.get(loss), 1);
        let kept: Vec<&str> = page
            .families
            .iter()
            .filter(|family| !family.samples.is_empty())
            .map(|family| family.name.as_str())
            .collect();
        assert_eq!(kept, ["before", "after"], "{line}");
    }
    check("a", Loss::Malformed, "a value");
    check("a x", Loss::Malformed, "a number");
    check("a 1 2 3", Loss::Malformed, "the end");
    check("a 1 x", Loss::Malformed, "a timestamp");
    check("1a 1", Loss::Malformed, "a metric name");
    check("é 1", Loss::Malformed, "a metric name");
    check("{\"a.b\"} 1", Loss::Malformed, "a metric name");
    check("a{b=\"1\" 1", Loss::Malformed, "after a label");
    check("a{b=\"1} 1", Loss::Malformed, "a closing quote");
    check("a{b=1} 1", Loss::Malformed, "quoted");
    check("a{b} 1", Loss::Malformed, "a label");
    check("a{b:c=\"1\"} 1", Loss::Malformed, "label name");
    check("a{__name__=\"b\"} 1", Loss::Malformed, "label name");
    check("a{b=\"1\",b=\"2\"} 1", Loss::Malformed, "second label");
    check("a{b=\"1\"}", Loss::Malformed, "a number");
    check("<html>", Loss::Malformed, "a value");
    check("# TYPE a wonder", Loss::Malformed, "a type");
    check("# TYPE", Loss::Malformed, "a metric name");
    check("before 7", Loss::Duplicate, "second sample");
    check("# TYPE before gauge", Loss::Metadata, "late");
    check(&format!("a{{b=\"{}\"}} 1", "é".repeat(2050)), Loss::LabelLength, "shorter labels");
    check(&format!("a{{{}}} 1", "b=\"1\",".repeat(70)), Loss::LabelLimit, "fewer labels");
    check(&"a".repeat(70_000), Loss::LineLength, "shorter line");
}

#[test]
fn bytes_that_are_no_text_lose_their_line() {
    let page = read(Format::Prometheus, b"a 1\nb{c=\"\xff\"} 1\nd 1\n\xf0\x9f", &Limits::default()).unwrap();
    assert_eq!(page.losses.get(Loss::Malformed), 2);
    assert_eq!(tell(&page), ["a None", "  Plain  1", "d None", "  Plain  1"]);
}

#[test]
fn limits_hold() {
    let limits =
        Limits { series_max: 3, families_max: 2, labels_max: 2, label_bytes_max: 20, ..Limits::default() };
    #[track_caller]
    fn check(limits: &Limits, page: &str, loss: Loss, lost: u64, kept: usize) {
        let page = read(Format::Prometheus, page.as_bytes(), limits).unwrap();
        assert_eq!(page.losses.get(loss), lost, "{:?}", page.flaws);
        assert_eq!(page.families.iter().map(|family| family.samples.len()).sum::<usize>(), kept);
    }
    let series: String = (0..10).map(|number| format!("a{{b=\"{number}\"}} 1\n")).collect();
    check(&limits, &series, Loss::SeriesLimit, 7, 3);
    let families: String = (0..10).map(|number| format!("# TYPE a{number} gauge\n")).collect();
    check(&limits, &families, Loss::FamilyLimit, 8, 0);
    check(&limits, "a{b=\"1\",c=\"2\",d=\"3\"} 1\na{b=\"1\",c=\"2\",d=\"\"} 1\n", Loss::LabelLimit, 1, 1);
    check(
        &limits,
        "a{b=\"123456789012345678\"} 1\na{b=\"1234567890123456789\"} 1\n",
        Loss::LabelLength,
        1,
        1,
    );
    check(&limits, "a2345678901234567890 1\na23456789012345678901 1\n", Loss::LabelLength, 1, 1);
}

#[test]
fn duplicate_families_keep_the_first_description() {
    let page = b"# TYPE a counter\n# HELP a first\n# TYPE a gauge\n# HELP a second\na 1\na 2\n";
    let page = read(Format::Prometheus, page, &Limits::default()).unwrap();
    assert_eq!(tell(&page), ["a Some(Counter)", "  Plain  1"]);
    assert_eq!(page.families[0].help.as_deref(), Some("first"));
    assert_eq!((page.losses.get(Loss::Metadata), page.losses.get(Loss::Duplicate)), (2, 1));
}

#[test]
fn an_open_metrics_page_has_an_end() {
    let limits = Limits::default();
    assert_eq!(read(Format::OpenMetrics, b"a 1\n", &limits).unwrap_err().name(), "incomplete");
    let page = read(Format::OpenMetrics, b"a 1\n# EOF\nb 1\n\n", &limits).unwrap();
    assert_eq!((page.families.len(), page.losses.get(Loss::Malformed)), (1, 1));
    assert_eq!(read(Format::Prometheus, b"# EOF\nb 1\n", &limits).unwrap().families.len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2048), open_metrics: bool) {
        let format = if open_metrics { Format::OpenMetrics } else { Format::Prometheus };
        let _ = read(format, &bytes, &Limits::default());
    }

    #[test]
    fn what_looks_like_a_page_is_survived_and_the_same_in_pieces(
        page in "(# (TYPE|HELP|UNIT|EOF) |[ab]_?(total|bucket|sum|count|created)?|\\{|\\}|[a-c]=\"|le=\"|\\\\|\"|,| |[0-9.]|NaN|\n|# \\{|é){0,120}",
        cut in 0usize..400,
        open_metrics: bool,
    ) {
        let format = if open_metrics { Format::OpenMetrics } else { Format::Prometheus };
        let limits = Limits { series_max: 20, families_max: 10, labels_max: 3, label_bytes_max: 64, line_bytes_max: 128, ..Limits::default() };
        let bytes = page.as_bytes();
        let cut = cut.min(bytes.len());
        let mut parser = Parser::new(format, limits.clone());
        parser.feed(&bytes[..cut]);
        parser.feed(&bytes[cut..]);
        let (whole, pieces) = (read(format, bytes, &limits), parser.finish());
        prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        if let Ok(page) = whole {
            prop_assert!(page.families.len() <= 10 && page.flaws.len() <= FLAWS_MAX);
            for sample in page.families.iter().flat_map(|family| &family.samples) {
                prop_assert!(sample.labels.len() <= 3);
            }
        }
    }

    #[test]
    fn labels_come_back(value in "\\PC{0,40}|[\\\\\"\n]{0,9}", number: f64) {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let page = read(Format::Prometheus, format!("a{{b=\"{escaped}\"}} {number:?}\n").as_bytes(), &Limits::default()).unwrap();
        let sample = &page.families[0].samples[0];
        prop_assert_eq!(sample.labels.first().map_or("", |(_, value)| value), &value);
        prop_assert!(sample.value.to_bits() == number.to_bits() || number.is_nan());
    }
}
