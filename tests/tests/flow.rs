//! Traces end to end: real servers, real clients, and the spans and metrics that a backend gets.
//!
//! Refuses: "some spans came". What a client did and what arrived are compared one by one, and every loss is a number.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tempfile::TempDir;
use tests::agent::{Agent, Finished, STOP_MAX, run_to_end};
use tests::callers::ask_at_once;
use tests::nginx::Nginx;
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::services::Service;
use tests::spans::{self, Span};
use tests::tools;
use tests::workload::utf8;

/// Nothing of a test is left out.
const KEEP_ALL: [&str; 3] = [
    "profile.window_ms=500",
    "trace.spans_per_second_max=1000000",
    "trace.exchanges_per_second_max=1000000000",
];

/// Runs something under an agent with a receiver; returns the spans, what the receiver got as bytes, and the agent's end.
fn observe(settings: &[&str], work: impl FnOnce()) -> (Vec<Span>, Vec<u8>, Finished) {
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let settings = KEEP_ALL.iter().chain(settings).flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = settings.collect();
    let [endpoint, protocol] = receiver.variables();
    let variables = [(&*endpoint.0, &*endpoint.1), (&*protocol.0, &*protocol.1)];
    let agent = Agent::run(&arguments, &variables);
    work();
    // Spans wait for their parents, and the last window for its end.
    std::thread::sleep(Duration::from_millis(1500));
    agent.terminate();
    let finished = agent.finish(STOP_MAX).expect_code(0);
    finished.books().expect_balance();
    assert_eq!(receiver.complaints(), Vec::<String>::new());
    let requests = receiver.traces();
    let bytes = requests.iter().flat_map(prost::Message::encode_to_vec).collect();
    (spans::of_requests(&requests), bytes, finished)
}

/// Spans of one side whose server is at an address.
fn at(spans: &[Span], address: SocketAddr, is_client: bool) -> Vec<&Span> {
    let port = address.port().to_string();
    let is_there = |span: &&Span| span.attribute("server.port") == port && span.is_client() == is_client;
    spans.iter().filter(is_there).collect()
}

fn curl(arguments: &[&str]) -> String {
    tools::output_of("curl", &[&["-s", "-o", "/dev/null"], arguments].concat())
}

/// What a span says of its connection and of who asked; credentials in a query do not leave.
#[test]
fn what_a_request_says() {
    let nginx = Nginx::start(1, 200_000, &[]);
    let url = format!("http://{}/orders/17?token=x&page=2", nginx.address());
    let (spans, ..) = observe(&[], || drop(curl(&[&url])));
    for is_client in [true, false] {
        let sides = at(&spans, nginx.address(), is_client);
        let [span] = sides[..] else { panic!("one request: {sides:?}") };
        assert_eq!(span.attribute("url.query"), "token=REDACTED&page=2");
        assert_eq!(span.attribute("network.protocol.version"), "1.1");
        assert_eq!(span.attribute("network.transport"), "tcp");
        assert!(span.attribute("user_agent.original").starts_with("curl/"), "{span:?}");
    }
}

/// What wrk asked as fast as it could is seen at both ends or counted as lost, to the last one: over the budget, and where the
/// ring overflows too. But for what nginx reads from connections that wrk has reset already, one request of each at most.
#[test]
fn every_request_of_a_full_load() {
    for (connections, budget) in [(1, "1000000000"), (50, "1000000000"), (50, "2000")] {
        let nginx = Nginx::start(1, 1000, &[]);
        let budget = format!("trace.exchanges_per_second_max={budget}");
        let agent = Agent::run(&["--set", &budget, "--set", "prometheus.listen=none"], &[]);
        let before = nginx.served().requests;
        let load = nginx.load(connections, 2, &[]);
        let served = nginx.served().requests - before;
        // What is on its way when wrk ends is closed.
        std::thread::sleep(Duration::from_millis(500));
        agent.terminate();
        let books = agent.finish(STOP_MAX).expect_code(0).books();
        books.expect_balance();
        let account = books.of("span");
        println!("{connections} connections, {budget}: wrk {load:?}, nginx {served}, {account:?}");
        // The question for the first count is an exchange too, and is not in the difference.
        let difference = account.seen.abs_diff(2 * (served + 1));
        assert!(difference <= u64::from(connections), "both ends of {served}: {difference} differ");
    }
}

/// What is slow is said: on a CPU, asleep, or in another service.
#[test]
fn where_the_time_went() {
    let service = Service::script("python3", "times.py", &[]);
    let (spans, _, _) = observe(&[], || {
        for path in ["/cpu", "/sleep", "/lock", "/network"] {
            curl(&[&format!("http://{}{path}", service.address())]);
        }
    });
    let parts = ["on_cpu", "run_queue", "lock", "disk", "network", "other"];
    for (name, part) in
        [("GET /cpu", "on_cpu"), ("GET /sleep", "other"), ("GET /lock", "lock"), ("GET /network", "network")]
    {
        let servers = at(&spans, service.address(), false);
        let span = servers.iter().find(|span| span.name == name).expect("it was asked for");
        let times: BTreeMap<&str, f64> = parts
            .iter()
            .map(|part| {
                let value = span.attribute(&format!("kansoku.time.{part}"));
                (*part, value.parse().expect("a thread served it"))
            })
            .collect();
        let sum: f64 = times.values().sum();
        assert!((sum - span.seconds()).abs() < 1e-3, "{name}: {times:?} of {} s", span.seconds());
        let most = times.iter().max_by(|one, other| one.1.total_cmp(other.1)).map(|(part, _)| *part);
        assert_eq!(most, Some(part), "{name}: {times:?}");
    }
}

/// A slow operation names the request that it was done for.
#[test]
fn a_slow_operation_knows_its_request() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("written");
    let service = Service::script_with("python3", "times.py", &[utf8(&file)]);
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let [endpoint, protocol] = receiver.variables();
    let variables = [(&*endpoint.0, &*endpoint.1), (&*protocol.0, &*protocol.1)];
    let settings = ["--set", "profile.window_ms=500", "--set", "io.slow_ms=1"];
    let agent = Agent::run(&settings, &variables);
    curl(&[&format!("http://{}/disk", service.address())]);
    std::thread::sleep(Duration::from_secs(2));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    let spans = spans::of_requests(&receiver.traces());
    let server = at(&spans, service.address(), false);
    let [server] = server[..] else { panic!("one request: {server:?}") };
    let records = log_records(&receiver);
    let of_file = records.iter().filter(|record| {
        record.event_name == "kansoku.io.slow" && format!("{:?}", record.attributes).contains("written")
    });
    let named: Vec<_> = of_file.map(|record| (&record.trace_id, &record.span_id)).collect();
    assert!(!named.is_empty(), "16 MiB reach no disk in a millisecond");
    for ids in named {
        assert_eq!(ids, (&server.trace_id, &server.id));
    }
}

/// A crash names the request that its thread served, at the backend and in the spool.
#[test]
fn a_crash_knows_its_request() {
    let service = Service::script("python3", "times.py", &[]);
    let spool = TempDir::new().expect("a temporary directory");
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let [endpoint, protocol] = receiver.variables();
    let variables = [(&*endpoint.0, &*endpoint.1), (&*protocol.0, &*protocol.1)];
    let spool_setting = format!("crash.spool={}", utf8(spool.path()));
    let settings = ["--set", "profile.window_ms=500", "--set", &spool_setting];
    let agent = Agent::run(&settings, &variables);
    let url = format!("http://{}/crash", service.address());
    let curl = std::process::Command::new("curl").args(["-s", &url]).status().expect("curl starts");
    assert!(!curl.success(), "nobody answers");
    std::thread::sleep(Duration::from_secs(3));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    let spans = spans::of_requests(&receiver.traces());
    let servers = at(&spans, service.address(), false);
    let [server] = servers[..] else { panic!("one request: {servers:?}") };
    assert_eq!((&*server.name, server.attribute("error.type")), ("GET /crash", "no_response"));
    let records = log_records(&receiver);
    let record = records.iter().find(|record| record.severity_text == "FATAL").expect("the crash is told");
    assert_eq!((&record.trace_id, &record.span_id), (&server.trace_id, &server.id));
    let client = at(&spans, service.address(), true);
    assert_eq!(client.first().map(|client| &client.trace_id), Some(&server.trace_id));
    let files = std::fs::read_dir(spool.path()).expect("the spool").flatten();
    let texts: String = files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect();
    let digits: String = server.id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(texts.contains(&digits), "{texts}");
}

/// Metrics have all requests, whatever the sampling leaves of the spans.
#[test]
fn metrics_are_not_sampled() {
    let nginx = Nginx::start(1, 10, &[]);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let [endpoint, protocol] = receiver.variables();
    let variables = [(&*endpoint.0, &*endpoint.1), (&*protocol.0, &*protocol.1)];
    let settings = ["--set", "trace.sample_ratio=0", "--set", "metrics.interval_ms=500"];
    let agent = Agent::run(&settings, &variables);
    const REQUESTS: usize = 40;
    ask_at_once(nginx.address(), REQUESTS, 4);
    std::thread::sleep(Duration::from_secs(2));
    agent.terminate();
    let books = agent.finish(STOP_MAX).expect_code(0).books();
    books.expect_balance();
    let of_nginx = at_counts(&receiver, "http.server.request.duration", "nginx");
    // The start of nginx was asked for before the agent came.
    assert_eq!(of_nginx, REQUESTS as u64);
    let spans = spans::of_requests(&receiver.traces());
    let of_requests = spans.iter().filter(|span| span.name.starts_with("GET /item")).count();
    assert_eq!(of_requests, 0, "none is slow or an error of the server");
}

#[test]
fn live_in_the_terminal() {
    let service = Service::script("python3", "shop.py", &[]);
    let address = service.address();
    let client = std::thread::spawn(move || {
        for index in 0..50 {
            std::thread::sleep(Duration::from_millis(100));
            curl(&[&format!("http://{address}/orders/{index}")]);
        }
    });
    let finished = run_to_end(&["trace", "--duration", "4s", "--protocol", "http"], Duration::from_secs(20));
    client.join().expect("curl is answered");
    let text = finished.stdout_text();
    assert!(text.contains(" client curl ("), "{text}\n{}", finished.stderr);
    let child = text.lines().find(|line| line.contains("└ server python3"));
    assert!(child.is_some_and(|line| line.contains("GET /orders/{id} 200  [connection]")), "{text}");
    let usage = run_to_end(&["trace", "--protocol", "gopher"], Duration::from_secs(5));
    assert_eq!(usage.code, Some(2), "{}", usage.stderr);
}

/// The log records that arrived.
fn log_records(receiver: &Receiver) -> Vec<LogRecord> {
    let resources = receiver.logs().into_iter().flat_map(|request| request.resource_logs);
    resources.flat_map(|resource| resource.scope_logs).flat_map(|scope| scope.log_records).collect()
}

/// The last count of a histogram of one service, all series together.
fn at_counts(receiver: &Receiver, metric: &str, service: &str) -> u64 {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let mut last = 0;
    for request in receiver.metrics() {
        for resource in &request.resource_metrics {
            let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let is_service = attributes.clone().any(|attribute| {
                attribute.key == "service.name"
                    && format!("{:?}", attribute.value).contains(&format!("\"{service}\""))
            });
            let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            let mut sum = 0;
            for found in metrics.filter(|found| is_service && found.name == metric) {
                if let Some(Data::ExponentialHistogram(histogram)) = &found.data {
                    sum += histogram.data_points.iter().map(|point| point.count).sum::<u64>();
                }
            }
            last = last.max(sum);
        }
    }
    last
}
