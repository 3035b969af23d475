//! Traces end to end: real servers, real clients, and the spans and metrics that a backend gets.
//!
//! Refuses: "some spans came". What a client did and what arrived are compared one by one, and every loss is a number.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use tempfile::TempDir;
use tests::agent::{Agent, Finished, STOP_MAX, run_to_end};
use tests::nginx::Nginx;
use tests::postgres::Postgres;
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

/// Expects that each server span is the child of the client span of the same request, by the connection.
#[track_caller]
fn expect_joined(clients: &[&Span], servers: &[&Span]) {
    let by_id: HashMap<&[u8], &Span> = clients.iter().map(|span| (&*span.id, *span)).collect();
    for server in servers {
        let client = by_id.get(&*server.parent).unwrap_or_else(|| panic!("no parent of {server:?}"));
        assert_eq!((&client.trace_id, &client.name), (&server.trace_id, &server.name));
        assert_eq!(server.attribute("kansoku.link.proof"), "connection");
        assert!(client.seconds() + 1e-3 >= server.seconds(), "{client:?} {server:?}");
    }
}

#[test]
fn nginx_and_curl() {
    let nginx = Nginx::start(1, 200_000, &[]);
    let url = |path: &str| format!("http://{}{path}", nginx.address());
    let mut times = String::new();
    let (spans, _, _) = observe(&[], || {
        let write = "%{http_code} %{time_pretransfer} %{time_total}\\n";
        times = curl(&["-w", write, &url("/file"), "-o", "/dev/null", &url("/orders/17?token=x&page=2")]);
        curl(&["-I", &url("/file")]);
        curl(&["-X", "POST", "-H", "Transfer-Encoding: chunked", "-d", "a=1", &url("/orders/9")]);
    });
    let (clients, servers) = (at(&spans, nginx.address(), true), at(&spans, nginx.address(), false));
    let names = |spans: &[&Span]| {
        let mut spans: Vec<_> = spans
            .iter()
            .map(|span| {
                (span.start_ns, format!("{} {}", span.name, span.attribute("http.response.status_code")))
            })
            .collect();
        spans.sort_unstable();
        spans.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    let expected = ["GET /file 200", "GET /orders/{id} 404", "HEAD /file 200", "POST /orders/{id} 404"];
    // nginx answers a POST to a file that is not there with 404 or 405, by its modules.
    let same = |found: Vec<String>| {
        found.iter().map(|name| name.replace("405", "404")).collect::<Vec<_>>() == expected
    };
    assert!(same(names(&clients)), "{:?}", names(&clients));
    assert!(same(names(&servers)), "{:?}", names(&servers));
    expect_joined(&clients, &servers);
    for span in clients.iter().chain(&servers) {
        assert_eq!(span.attribute("network.protocol.version"), "1.1");
        assert_eq!(span.attribute("network.transport"), "tcp");
        assert!(span.attribute("user_agent.original").starts_with("curl/"), "{span:?}");
    }
    let order = clients.iter().find(|span| span.name == "GET /orders/{id}").expect("it was asked for");
    assert_eq!(order.attribute("url.query"), "token=REDACTED&page=2");
    assert!(order.is_error && order.attribute("error.type") == "404", "{order:?}");
    assert!(servers.iter().all(|span| !span.is_error), "a 404 is no error of the server");
    // curl's own clock: from when the request could be sent to the end.
    let mut sorted: Vec<&&Span> = clients.iter().collect();
    sorted.sort_by_key(|span| span.start_ns);
    for (line, span) in times.lines().zip(sorted) {
        let words: Vec<f64> =
            line.split(' ').map(|word| word.parse().expect("curl writes numbers")).collect();
        let difference = span.seconds() - (words[2] - words[1]);
        assert!(difference.abs() < 1e-3, "{} differs by {difference} s from {line}", span.name);
    }
}

/// What wrk asked as fast as it could is seen at both ends or counted as lost: to the last one, unless the ring overflowed. Then
/// how many exchanges a hole held is known by turns of direction but for its edges, where a connection's end can be lost too.
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
        assert!(
            difference * 20 <= account.lost_as("ring_full"),
            "both ends of {served}: {difference} differ"
        );
    }
}

/// Three services with a thread per connection and a database: one trace per request, with the right parents, all of them.
#[test]
fn a_chain_of_threads() {
    let redis = Service::redis();
    let last = Service::script("python3", "shop.py", &[0, redis.port()]);
    let middle = Service::script("python3", "shop.py", &[last.port()]);
    let first = Service::script("python3", "shop.py", &[middle.port()]);
    const REQUESTS: usize = 60;
    let (spans, bytes, _) = observe(&[], || ask_at_once(first.address(), REQUESTS, 6));
    let by_id = spans::by_id(&spans);
    let mut complete = 0;
    for root in at(&spans, first.address(), true) {
        assert!(root.parent.is_empty(), "the client of the test has no parent: {root:?}");
        let trace: Vec<&Span> = spans.iter().filter(|span| span.trace_id == root.trace_id).collect();
        // A client and a server span for each of four connections.
        assert_eq!(trace.len(), 8, "{trace:#?}");
        for span in trace.iter().filter(|span| !span.parent.is_empty()) {
            let parent = by_id.get(&*span.parent).expect("parents are in the trace");
            let proof = if span.is_client() { "thread" } else { "connection" };
            assert_eq!(span.attribute("kansoku.link.proof"), proof, "{span:?}");
            assert_ne!(parent.is_client(), span.is_client(), "sides alternate");
            if span.attribute("db.system.name").is_empty() {
                assert_eq!(parent.attribute("url.path"), span.attribute("url.path"), "{parent:?} {span:?}");
            }
            assert!(parent.start_ns <= span.start_ns + 1_000_000, "{parent:?} {span:?}");
        }
        complete += 1;
    }
    assert_eq!(complete, REQUESTS);
    println!("{complete} of {REQUESTS} traces are complete");
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!has(b"secret-key") && !has(b"secret-value"), "keys and values of Redis never leave");
}

/// Requests that overlap on one thread have no parent that is wrong, and those at both ends of a connection have one.
#[test]
fn an_event_loop_has_no_wrong_parents() {
    let next = Service::script("python3", "shop.py", &[]);
    let service = Service::script("node", "loop.js", &[next.port()]);
    const REQUESTS: usize = 200;
    let (spans, _, _) = observe(&[], || ask_at_once(service.address(), REQUESTS, 20));
    let by_id = spans::by_id(&spans);
    let (mut linked, mut thread) = (0, 0);
    for span in &spans {
        let Some(parent) = by_id.get(&*span.parent) else { continue };
        assert_eq!(parent.attribute("url.path"), span.attribute("url.path"), "{parent:?} {span:?}");
        linked += 1;
        thread += usize::from(span.attribute("kansoku.link.proof") == "thread");
    }
    let asked = at(&spans, next.address(), true).len();
    println!("{linked} links, {thread} of {asked} calls of the loop have a parent by their thread");
    assert_eq!(at(&spans, service.address(), false).len(), REQUESTS);
    assert_eq!(asked, REQUESTS);
    assert_eq!(thread, 0, "an event loop proves nothing by its thread");
    assert_eq!(linked, 2 * REQUESTS, "both ends of every connection are one trace");
}

#[test]
fn the_callers_trace_is_honoured() {
    let service = Service::script("python3", "shop.py", &[]);
    let url = |path: &str| format!("http://{}{path}", service.address());
    let (spans, _, finished) = observe(&[], || {
        let header = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        curl(&["-H", header, &url("/alpha")]);
        curl(&["-H", "b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", &url("/beta")]);
        curl(&["-H", "traceparent: 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00", &url("/gamma")]);
        curl(&["-H", "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01", &url("/delta")]);
    });
    let of = |name: &str| spans.iter().find(|span| span.name == format!("GET {name}") && span.is_client());
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let check = |name: &str, trace: &str, parent: &str| {
        let span = of(name).unwrap_or_else(|| panic!("no span of {name}"));
        assert_eq!((&*hexadecimal(&span.trace_id), &*hexadecimal(&span.parent)), (trace, parent), "{name}");
        assert_eq!(span.attribute("kansoku.link.proof"), "header");
    };
    check("/alpha", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    check("/beta", "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    assert!(of("/gamma").is_none(), "the caller does not record it");
    let zero = of("/delta").expect("an invalid parent is none");
    assert!(zero.parent.is_empty(), "{zero:?}");
    assert_eq!(finished.books().of("span").lost_as("sampled_out"), 2, "both ends of the one");
}

#[test]
fn postgres_by_statement() {
    let postgres = Postgres::start(&[]);
    let statements = [
        ("create table orders(id int, note text)", "CREATE TABLE orders", ""),
        ("insert into orders values (4711, 'my-secret-note')", "INSERT orders", ""),
        ("select note from orders where id = 4711", "SELECT orders", ""),
        ("select 1/0", "SELECT", "22012"),
        ("select * from nowhere", "SELECT nowhere", "42P01"),
    ];
    let (spans, bytes, _) = observe(&[], || {
        for (statement, _, state) in statements {
            assert_eq!(postgres.succeeds_over_tcp(statement), state.is_empty(), "{statement}");
        }
    });
    let clients = at(&spans, postgres.address(), true);
    let servers = at(&spans, postgres.address(), false);
    let mut sorted = clients.clone();
    sorted.sort_by_key(|span| span.start_ns);
    let found: Vec<(&str, &str)> =
        sorted.iter().map(|span| (&*span.name, span.attribute("db.response.status_code"))).collect();
    let expected: Vec<(&str, &str)> = statements.iter().map(|(_, name, state)| (*name, *state)).collect();
    assert_eq!(found, expected);
    expect_joined(&clients, &servers);
    let select = sorted[2];
    assert_eq!(select.attribute("db.query.text"), "select note from orders where id = ?");
    assert_eq!(select.attribute("db.system.name"), "postgresql");
    assert_eq!(select.attribute("db.response.returned_rows"), "1");
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!has(b"my-secret-note") && !has(b"4711"), "literals never leave");
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

/// Bytes of no protocol, cut off anywhere, and a peer that never answers: the agent goes on and its books balance.
#[test]
fn bytes_of_no_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let server = std::thread::spawn(move || {
        for stream in listener.incoming().take(40) {
            let mut stream = stream.expect("a client");
            let mut buffer = [0; 65_536];
            while let Ok(1..) = stream.read(&mut buffer) {}
        }
    });
    let (spans, _, finished) = observe(&[], || {
        let mut noise = 12_345u32;
        for index in 0..40usize {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let starts: [&[u8]; 5] = [
                b"",
                b"GET /x HTTP/1.1\r\nHost: a\r\n",
                b"*3\r\n$3\r\nSET\r\n",
                b"Q\0\0\0\x0e",
                b"HTTP/1.1 200 OK\r\n",
            ];
            let mut bytes = starts[index % starts.len()].to_vec();
            bytes.extend((0..index * 300).map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            }));
            stream.write_all(&bytes).expect("it reads");
        }
        let mut stream = TcpStream::connect(address);
        drop(stream.as_mut().map(|stream| stream.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")));
    });
    drop(server);
    let account = finished.books();
    println!("{} spans, {:?}", spans.len(), account.of("span"));
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

/// Asks for `/item/N` with each number once, from so many threads with a connection each.
fn ask_at_once(address: SocketAddr, requests: usize, threads: usize) {
    let asked: HashSet<usize> = std::thread::scope(|scope| {
        let ask = |thread: usize| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let mut asked = Vec::new();
            for number in (0..requests).filter(|number| number % threads == thread) {
                let request = format!("GET /item/{number} HTTP/1.1\r\nHost: {address}\r\n\r\n");
                stream.write_all(request.as_bytes()).expect("it reads");
                read_response(&mut stream);
                asked.push(number);
            }
            asked
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || ask(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("every request is answered")).collect()
    });
    assert_eq!(asked.len(), requests);
}

/// Reads a response with a length or in chunks to its end.
fn read_response(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let is_whole = match length {
                Some(length) => body.len() >= length.trim().parse().expect("a length"),
                None => body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                return;
            }
        }
        let count = stream.read(&mut buffer).expect("it answers");
        assert!(count > 0, "closed in the middle: {text}");
        bytes.extend_from_slice(&buffer[..count]);
    }
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
