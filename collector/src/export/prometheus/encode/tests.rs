//! Golden texts, protobuf read back, and the judgement of Prometheus's own tools.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use super::super::protobuf::proto;
use super::*;
use crate::identity::{Choice, Container, Facts, LatePod, Pod, Subject};
use crate::telemetry::{Exemplar, Metric, Owner};

const START_NS: u64 = 1_700_000_000_250_000_000;

fn subject() -> Owner {
    let facts = Facts { image: Some("shop:1".to_owned()), ..Facts::of_pod("default", "shop-1", "u", "web") };
    Owner::Subject(Arc::new(Subject {
        container: Some(Container { id: "c0ffee".to_owned(), runtime: None }),
        pod: LatePod::known(Pod::of(&facts, &Choice::default())),
        ..Subject::named("shop")
    }))
}

fn number(owner: Owner, attributes: &[(&'static str, &str)], value: f64) -> Point {
    let attributes =
        attributes.iter().map(|(key, value)| ((*key).into(), (*value).to_owned().into())).collect();
    Point::number(owner, attributes, START_NS, value)
}

fn histogram() -> ExponentialHistogram {
    let exemplar = |value: f64, trace: &str| Exemplar {
        value,
        time_unix_ns: START_NS,
        trace_id: Some(trace.into()),
        span_id: None,
        attributes: vec![("process.pid".into(), "7".into()), ("long".into(), "x".repeat(200).into())],
    };
    ExponentialHistogram {
        scale: 1,
        offset: 0,
        buckets: vec![1, 2, 0, 0, 0, 0, 4],
        zero_count: 3,
        sum: 50.5,
        exemplars: vec![exemplar(1.5, "aa"), exemplar(1.9, "bb"), exemplar(9.0, "cc")],
    }
}

fn snapshot() -> Snapshot {
    let mut metrics =
        vec![
            Metric::new(MetricKind::Counter, "container.cpu.time", "s", "CPU \"time\"\nof\\all").with(vec![
                number(subject(), &[("cpu.mode", "user")], 1.5),
                number(subject(), &[("cpu.mode", "user")], 2.5),
                number(subject(), &[("cpu.mode", "a\"b\\c\nd"), ("pod", "other")], 1e20),
                number(subject(), &[("cpu.mode", "system")], f64::NAN),
            ]),
            Metric::new(MetricKind::UpDownCounter, "system.memory.usage", "By", "Memory.")
                .with(vec![number(Owner::Host, &[], 4096.0)]),
            Metric::new(MetricKind::Gauge, "x", "", "").with(vec![
                number(Owner::Agent, &[("a", "1")], f64::NAN),
                number(Owner::Agent, &[("a", "2")], f64::NEG_INFINITY),
            ]),
            Metric::new(MetricKind::Histogram, "size", "By", "Sizes.").with(vec![Point {
                owner: Owner::Host,
                attributes: Vec::new(),
                start_unix_ns: START_NS,
                value: Value::Histogram(Box::new(histogram())),
            }]),
            Metric::new(MetricKind::Unknown, "node_netstat_Tcp_InSegs", "", "Statistic TcpInSegs.")
                .with(vec![number(Owner::Host, &[], 5.0)]),
            Metric::new(MetricKind::Gauge, "theirs", "", "").with(vec![number(Owner::Host, &[], 1.0)]),
        ];
    metrics[4].vocabulary = Vocabulary::NodeExporter;
    metrics[5].vocabulary = Vocabulary::Application;
    Snapshot { time_unix_ns: START_NS, metrics }
}

fn encode(snapshot: &Snapshot, format: Format) -> (Vec<u8>, Omitted) {
    let vocabularies = HashSet::from([
        Vocabulary::OpenTelemetry,
        Vocabulary::Cadvisor,
        Vocabulary::NodeExporter,
        Vocabulary::Application,
    ]);
    let encoder = Encoder::new(vocabularies, vec![("host.name".into(), "n1".into())], true);
    let mut out = Vec::new();
    let omitted = encoder.encode(snapshot, format, &mut out).expect("a vector takes all");
    (out, omitted)
}

/// Lines of the golden text that have `size_bytes_bucket` are compared by their first and last ones.
fn check(format: Format, expected: &str) {
    let (out, omitted) = encode(&snapshot(), format);
    assert_eq!(omitted, Omitted { duplicates: 1, conflicts: 0, unfit: 1 });
    let text = String::from_utf8(out).unwrap();
    let shown =
        |line: &&str| !line.starts_with("size_bytes_bucket") || SHOWN.iter().any(|le| line.contains(le));
    let found: Vec<&str> = text.lines().filter(shown).collect();
    assert_eq!(found, expected.lines().collect::<Vec<_>>());
    assert_eq!(text.lines().filter(|line| line.starts_with("size_bytes_bucket")).count(), 30);
}

const SHOWN: [&str; 5] = ["\"16\"", "\"16.0\"", "\"32\"", "\"32.0\"", "+Inf"];

const SHOP: &str = r#"namespace="default",pod="shop-1",container="web",image="shop:1",container_id="c0ffee",service_name="web""#;

#[test]
fn text() {
    let expected = r#"# TYPE target_info gauge
# HELP target_info The node that the series are of.
target_info{host_name="n1"} 1
# HELP container_cpu_time_seconds_total CPU "time"\nof\\all
# TYPE container_cpu_time_seconds_total counter
container_cpu_time_seconds_total{SHOP,cpu_mode="user"} 1.5
container_cpu_time_seconds_total{SHOP,cpu_mode="a\"b\\c\nd",exported_pod="other"} 1e+20
# HELP system_memory_usage_bytes Memory.
# TYPE system_memory_usage_bytes gauge
system_memory_usage_bytes 4096
# TYPE x gauge
x{a="1"} NaN
x{a="2"} -Inf
# HELP size_bytes Sizes.
# TYPE size_bytes histogram
size_bytes_bucket{le="16"} 10
size_bytes_bucket{le="32"} 10
size_bytes_bucket{le="+Inf"} 10
size_bytes_sum 50.5
size_bytes_count 10
# HELP node_netstat_Tcp_InSegs Statistic TcpInSegs.
# TYPE node_netstat_Tcp_InSegs untyped
node_netstat_Tcp_InSegs 5
"#;
    check(Format::Text, &expected.replace("SHOP", SHOP));
}

#[test]
fn open_metrics() {
    let expected = r##"# TYPE target info
# HELP target The node that the series are of.
target_info{host_name="n1"} 1
# TYPE container_cpu_time_seconds counter
# UNIT container_cpu_time_seconds seconds
# HELP container_cpu_time_seconds CPU \"time\"\nof\\all
container_cpu_time_seconds_total{SHOP,cpu_mode="user"} 1.5
container_cpu_time_seconds_created{SHOP,cpu_mode="user"} 1700000000.250
container_cpu_time_seconds_total{SHOP,cpu_mode="a\"b\\c\nd",exported_pod="other"} 1e+20
container_cpu_time_seconds_created{SHOP,cpu_mode="a\"b\\c\nd",exported_pod="other"} 1700000000.250
# TYPE system_memory_usage_bytes gauge
# UNIT system_memory_usage_bytes bytes
# HELP system_memory_usage_bytes Memory.
system_memory_usage_bytes 4096
# TYPE x gauge
x{a="1"} NaN
x{a="2"} -Inf
# TYPE size_bytes histogram
# UNIT size_bytes bytes
# HELP size_bytes Sizes.
size_bytes_bucket{le="16.0"} 10 # {trace_id="cc",process_pid="7"} 9 1700000000.250
size_bytes_bucket{le="32.0"} 10
size_bytes_bucket{le="+Inf"} 10
size_bytes_sum 50.5
size_bytes_count 10
size_bytes_created 1700000000.250
# TYPE node_netstat_Tcp_InSegs unknown
# HELP node_netstat_Tcp_InSegs Statistic TcpInSegs.
node_netstat_Tcp_InSegs 5
# EOF
"##;
    check(Format::OpenMetrics, &expected.replace("SHOP", SHOP));
}

/// The whole `MetricFamily`, as a reader knows it.
#[derive(Clone, PartialEq, prost::Message)]
struct WholeFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<proto::Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

#[test]
fn protobuf() {
    let (out, omitted) = encode(&snapshot(), Format::Protobuf);
    assert_eq!(omitted.count(), 2);
    let mut rest = out.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(WholeFamily::decode_length_delimited(&mut rest).unwrap());
    }
    let names: Vec<_> = families
        .iter()
        .map(|family| (family.name.as_str(), family.kind.unwrap(), family.metric.len()))
        .collect();
    assert_eq!(
        names,
        [
            ("target_info", proto::GAUGE, 1),
            ("container_cpu_time_seconds_total", proto::COUNTER, 2),
            ("system_memory_usage_bytes", proto::GAUGE, 1),
            ("x", proto::GAUGE, 2),
            ("size_bytes", proto::HISTOGRAM, 1),
            ("node_netstat_Tcp_InSegs", proto::UNTYPED, 1),
        ]
    );
    let started = proto::Timestamp { seconds: 1_700_000_000, nanos: 250_000_000 };
    let counter = families[1].metric[0].counter.as_ref().unwrap();
    assert_eq!((counter.value, counter.created_timestamp), (Some(1.5), Some(started)));
    assert_eq!((families[1].unit.as_str(), families[1].metric[1].label.len()), ("seconds", 8));
    assert_eq!(families[1].metric[0].label[6].value, "user");
    assert_eq!(families[5].metric[0].untyped.as_ref().unwrap().value, Some(5.0));
    let histogram = families[4].metric[0].histogram.as_ref().unwrap();
    assert_eq!((histogram.sample_count, histogram.sample_sum), (Some(10), Some(50.5)));
    assert_eq!(
        (histogram.schema, histogram.zero_count, histogram.zero_threshold),
        (Some(1), Some(3), Some(0.0))
    );
    let spans: Vec<_> = histogram.positive_span.iter().map(|span| (span.offset, span.length)).collect();
    assert_eq!((spans, histogram.positive_delta.as_slice()), (vec![(1, 2), (4, 1)], [1, 1, 2].as_slice()));
    assert_eq!((histogram.bucket.len(), histogram.exemplars.len()), (30, 3));
    assert_eq!(histogram.bucket[29].upper_bound, Some(f64::INFINITY));
    assert_eq!(histogram.created_timestamp, Some(started));
}

#[test]
fn promtool_accepts_it() {
    let (out, _) = encode(&snapshot(), Format::Text);
    let spawn = |program: &str| {
        let mut command = Command::new(program);
        command.args(["check", "metrics"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let Ok(mut child) = spawn("promtool").or_else(|_| spawn("/usr/bin/promtool")) else {
        return println!("skipped: there is no promtool on the PATH or in /usr/bin");
    };
    child.stdin.take().unwrap().write_all(&out).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Exit code 3 is for the lint: names that end in `_info`, families without help.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(!said.contains("error while linting"), "{said}");
}

/// For a look by other parsers: `OPENMETRICS_FILE=/tmp/x cargo test --lib open_metrics_to_a_file`.
#[test]
fn open_metrics_to_a_file() {
    let (out, _) = encode(&snapshot(), Format::OpenMetrics);
    if let Ok(path) = std::env::var("OPENMETRICS_FILE") {
        std::fs::write(path, &out).unwrap();
    }
    assert!(out.ends_with(b"# EOF\n"));
}

/// The labels of a sample line.
fn parsed(line: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let mut rest = line.split_once('{').unwrap().1;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    char => char,
                }),
                (at, '"') => break at,
                (_, char) => value.push(char),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        rest = &after[end + 1..];
        if rest.starts_with('}') {
            break;
        }
    }
    labels
}

proptest! {
    #[test]
    fn any_labels(bytes: Vec<u8>, text in "[\\\\\"\n{}=,#é]{1,20}") {
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        for (format, prefix) in [(Format::Text, "y{"), (Format::OpenMetrics, "y{")] {
            let point = number(Owner::Host, &[("a", &text), ("b", &lossy)], 1.0);
            let metrics = vec![Metric::new(MetricKind::Gauge, "y", "", lossy.clone()).with(vec![point])];
            let (out, _) = encode(&Snapshot { time_unix_ns: 0, metrics }, format);
            let out = String::from_utf8(out).unwrap();
            let line = out.split('\n').find(|line| line.starts_with(prefix)).unwrap();
            let mut expected = vec![("a".to_owned(), text.clone())];
            if !lossy.is_empty() { expected.push(("b".to_owned(), lossy.clone())); }
            prop_assert_eq!(parsed(line), expected);
        }
    }
}
