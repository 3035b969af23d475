//! The harness itself, against the real programs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, exponential_histogram_data_point::Buckets, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tests::cgroup::{Cgroup, mount};
use tests::http;
use tests::nginx::Nginx;
use tests::postgres::Postgres;
use tests::prometheus::{Login, Prometheus, Scrape, promtool_check};
use tests::victoria_metrics::{Naming, VictoriaMetrics};

const SOON: Duration = Duration::from_secs(5);

/// Serves a page for ever; those without the right header get 401.
fn serve(page: &'static str, authorization: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                let Ok(length @ 1..) = stream.read(&mut chunk) else { break };
                request.extend_from_slice(&chunk[..length]);
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            let is_allowed = request.contains(&authorization.to_lowercase());
            let (status, page) = if is_allowed { ("200 OK", page) } else { ("401 Unauthorized", "") };
            let _closed = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    address
}

const PAGE: &str = "# HELP container_cpu_usage_seconds_total Time.\n# TYPE container_cpu_usage_seconds_total counter\n\
    container_cpu_usage_seconds_total{namespace=\"a\",pod=\"b\",container=\"c\",image=\"d\"} 12.5\n\
    # HELP node_load1 Load.\n# TYPE node_load1 gauge\nnode_load1 0.5\n";

#[test]
fn prometheus_scrapes_and_answers() {
    let open = serve(PAGE, "");
    let mut kubelet = Scrape::new("kubelet", open);
    kubelet.keep = "container_.*".into();
    kubelet.labels =
        vec![("cluster".into(), "test".into()), ("metrics_path".into(), "/metrics/cadvisor".into())];
    let mut node = Scrape::new("node-exporter", serve(PAGE, "authorization: bearer s3cret"));
    node.login = Login::Bearer("s3cret".into());
    node.keep = "node_.*".into();
    let mut basic = Scrape::new("basic", serve(PAGE, "authorization: basic dTpw"));
    basic.login = Login::Basic("u".into(), "p".into());
    let mut wrong = Scrape::new("wrong", serve(PAGE, "authorization: bearer other"));
    wrong.login = Login::Bearer("s3cret".into());
    for has_native_histograms in [false, true] {
        let scrapes = [kubelet.clone(), node.clone(), basic.clone(), wrong.clone()];
        let started = std::time::Instant::now();
        let prometheus = Prometheus::start(&scrapes, has_native_histograms);
        println!("prometheus is ready after {:?}", started.elapsed());
        let errors = prometheus.scrape_errors(Duration::from_secs(10));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].0, "wrong");
        assert!(errors[0].1.contains("401"), "{errors:?}");
        let expression = r#"sum by (cluster, pod) (container_cpu_usage_seconds_total{job="kubelet", metrics_path="/metrics/cadvisor", image!=""})"#;
        let samples =
            prometheus.query_until(expression, Duration::from_secs(10), |samples| samples.len() == 1);
        assert_eq!(
            (samples[0].label("pod"), samples[0].label("cluster"), samples[0].value),
            ("b", "test", 12.5)
        );
        assert_eq!(prometheus.query(r#"node_load1{job="node-exporter"}"#)[0].value, 0.5);
        assert_eq!(prometheus.query(r#"node_load1{job="kubelet"}"#), []);
        assert_eq!(prometheus.query("vector(1) / 0")[0].value, f64::INFINITY);
        let started = std::time::Instant::now();
        drop(prometheus);
        println!("prometheus is gone after {:?}", started.elapsed());
    }
    assert_eq!(promtool_check(PAGE), Ok(()));
    let complaint = promtool_check("# TYPE x counter\nx 1\n").unwrap_err();
    assert!(complaint.contains("_total"), "{complaint}");
    promtool_check("x{ 1\n").unwrap_err();
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) })
}

fn request(data: metric::Data, name: &str, unit: &str) -> Vec<u8> {
    let metric = Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Default::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..Default::default() };
    let mut resource = ResourceMetrics { scope_metrics: vec![scope], ..Default::default() };
    let pair = KeyValue { key: "service.name".into(), value: text("kansoku"), ..Default::default() };
    resource.resource =
        Some(Resource { attributes: vec![pair], dropped_attributes_count: 0, entity_refs: Vec::new() });
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }.encode_to_vec()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_nanos().try_into().expect("before 2554")
}

#[test]
fn victoria_metrics_takes_otlp() {
    for naming in [Naming::AsSent, Naming::Prometheus] {
        let started = std::time::Instant::now();
        let victoria = VictoriaMetrics::start(naming);
        println!("victoria-metrics is ready after {:?}", started.elapsed());
        assert!(victoria.otlp_url().ends_with("/opentelemetry"));
        let point = NumberDataPoint {
            time_unix_nano: now(),
            value: Some(number_data_point::Value::AsDouble(12.5)),
            ..Default::default()
        };
        let sum = Sum {
            data_points: vec![point],
            is_monotonic: true,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        };
        let histogram = ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint {
                time_unix_nano: now(),
                count: 10,
                sum: Some(25.0),
                scale: 0,
                positive: Some(Buckets { offset: 1, bucket_counts: vec![10] }),
                ..Default::default()
            }],
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        };
        let headers = [("content-type", "application/x-protobuf")];
        for body in [
            request(metric::Data::Sum(sum), "container.cpu.time", "s"),
            request(metric::Data::ExponentialHistogram(histogram), "kansoku.latency", "s"),
        ] {
            http::post(victoria.address(), "/opentelemetry/v1/metrics", &headers, body)
                .unwrap()
                .expect_success();
        }
        let name = match naming {
            Naming::AsSent => "container.cpu.time",
            Naming::Prometheus => "container_cpu_time_seconds_total",
        };
        let samples =
            victoria.query_until(&format!("{{__name__=\"{name}\"}}"), SOON, |samples| samples.len() == 1);
        println!("found after {:?}", started.elapsed());
        println!("{samples:?}\n{:?}", victoria.query("{__name__=~\"kansoku.*\"}"));
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].value, 12.5);
        let histogram = if naming == Naming::AsSent { "kansoku.latency" } else { "kansoku_latency_seconds" };
        let count = victoria.query(&format!("{{__name__=\"{histogram}_count\"}}"));
        assert_eq!(count[0].value, 10.0);
        let quantile = victoria.query(&format!(
            "histogram_quantile(0.5, sum({{__name__=\"{histogram}_bucket\"}}) by (vmrange))"
        ));
        println!("quantile {quantile:?}");
        assert!((2.0..=4.0).contains(&quantile[0].value), "{quantile:?}");
    }
}

fn members(cgroup: &Cgroup) -> Vec<u32> {
    let members = std::fs::read_to_string(cgroup.path().join("cgroup.procs")).expect("a cgroup");
    members.lines().map(|line| line.parse().expect("a process id")).collect()
}

#[test]
fn nginx_serves_in_its_cgroup() {
    let cgroup = Cgroup::make("kansoku-test-nginx");
    let nginx = Nginx::start(2, 100, &[&cgroup]);
    let inside = members(&cgroup);
    assert_eq!(inside.len(), 3, "a master and two workers: {inside:?}");
    assert!(inside.contains(&nginx.pid()));
    let before = nginx.served();
    let client = Cgroup::make("kansoku-test-wrk");
    let load = nginx.load(8, 2, &[&client]);
    let after = nginx.served();
    println!("{load:?} {before:?} {after:?}");
    assert_eq!((load.bad_answers, load.socket_errors), (0, 0));
    let served = after.requests - before.requests;
    assert!((load.requests + 1..=load.requests + 1 + 8).contains(&served), "{load:?} {served}");
    let path = mount().join("kansoku-test-nginx");
    drop(nginx);
    assert_eq!(members(&cgroup), Vec::<u32>::new());
    drop(cgroup);
    assert!(!path.exists());
}

#[test]
fn postgres_works_in_its_cgroup() {
    let cgroup = Cgroup::make("kansoku-test-postgres");
    let started = std::time::Instant::now();
    let postgres = Postgres::start(&[&cgroup]);
    println!("postgres is ready after {:?}", started.elapsed());
    assert!(members(&cgroup).contains(&postgres.pid()));
    assert!(members(&cgroup).len() > 3, "the postmaster and its helpers: {:?}", members(&cgroup));
    postgres.prepare_bench(1);
    let transactions = "select xact_commit from pg_stat_database where datname = 'postgres'";
    for is_read_only in [true, false] {
        let count = || {
            std::thread::sleep(Duration::from_millis(300));
            postgres.sql(transactions).parse::<u64>().unwrap()
        };
        let before = count();
        let bench = postgres.bench(2, 500, is_read_only, &[]);
        println!("{bench:?}; committed: {}", count() - before);
        assert_eq!((bench.transactions, bench.failed), (1000, 0));
    }
    assert_eq!(postgres.sql("select count(*) from pgbench_history"), "1000");
    let directory = postgres.socket_directory().to_owned();
    let started = std::time::Instant::now();
    drop(postgres);
    println!("postgres is gone after {:?}", started.elapsed());
    assert!(!Path::new(&directory).exists());
    assert_eq!(members(&cgroup), Vec::<u32>::new());
}
