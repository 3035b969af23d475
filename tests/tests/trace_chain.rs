//! Who called whom: services that call each other, and the parents that their spans get.
//!
//! Refuses: wrong parents, anywhere; and missing ones where a thread serves a request at a time.

use std::collections::BTreeMap;
use std::path::Path;

use tests::callers::{ask_at_once, curl, items};
use tests::parents;
use tests::postgres::Postgres;
use tests::receiver::Protocol;
use tests::services::Service;
use tests::spans::Span;
use tests::traced::{Told, Traced};
use tests::workload::Program;

/// Three services with a thread per request and their stores.
struct Chain {
    first: Service,
    ports: [u16; 5],
    _others: (Service, Service, Postgres, Service),
}

/// Both ends of: curl to the first, to the middle one, to the last, to PostgreSQL, to Redis.
const SPANS_PER_TRACE: usize = 10;

impl Chain {
    fn start() -> Self {
        let (postgres, redis) = (Postgres::start(&[]), Service::redis());
        postgres.sql("create table shelf (id int, note text)");
        let last = Service::script("python3", "store.py", &[postgres.address().port(), redis.port()]);
        let middle = Service::script("java", "Relay.java", &[last.port()]);
        let first = Service::script("python3", "shop.py", &[middle.port()]);
        let ports = [first.port(), middle.port(), last.port(), postgres.address().port(), redis.port()];
        Self { first, ports, _others: (middle, last, postgres, redis) }
    }
}

/// The traces, and how far each is one tree with the client as its root.
fn traces(told: &Told) -> BTreeMap<&[u8], Vec<&Span>> {
    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in &told.spans {
        traces.entry(&span.trace_id).or_default().push(span);
    }
    traces
}

/// Every trace is whole: one root, which is curl's, and the right parent of each other span.
#[track_caller]
fn check_chain(told: &Told, requests: usize) {
    let mut complete = 0;
    for (_, spans) in traces(told) {
        let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (&*span.id, *span)).collect();
        let roots: Vec<&&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
        let lines: Vec<String> = spans.iter().map(|span| span.summary()).collect();
        let lines = lines.join("\n");
        assert_eq!((roots.len(), spans.len()), (1, SPANS_PER_TRACE), "{lines}");
        assert_eq!(roots[0].service, "curl", "{lines}");
        for span in spans.iter().filter(|span| !span.parent.is_empty()) {
            let parent = by_id.get(&*span.parent).unwrap_or_else(|| panic!("{} in\n{lines}", span.summary()));
            parents::check(parent, span);
            let proof = if span.is_client() { "thread" } else { "connection" };
            assert_eq!(span.attribute("kansoku.link.proof"), proof, "{}", span.summary());
            if span.is_client() {
                assert_eq!(parent.service, span.service, "{}", span.summary());
            }
        }
        complete += 1;
    }
    assert_eq!(complete, requests);
    println!("{complete} of {requests} traces are complete");
}

/// One trace for each request, with the right parents, all of them: one request after the other, and twenty at once.
#[test]
fn a_chain_of_threads() {
    const REQUESTS: usize = 60;
    let chain = Chain::start();
    for in_flight in ["1", "20"] {
        let traced = Traced::start(Protocol::Grpc, &[]);
        curl(
            &["--parallel", "--parallel-immediate", "--parallel-max", in_flight],
            &items(chain.first.address(), REQUESTS),
        );
        traced.wait_at(&chain.ports, REQUESTS * SPANS_PER_TRACE);
        let mut told = traced.stop();
        told.keep(&chain.ports);
        check_chain(&told, REQUESTS);
        told.expect_none_of("secret-key");
        told.expect_none_of("secret-value");
    }
}

/// A service that calls the next one and Redis for each request, so many at once: no parent is wrong. Returns how many parents
/// a thread proved.
///
/// Before a connection is recognised, 512 bytes of a message are captured. Redis reads what came meanwhile with one read, so its
/// spans of the commands behind are missing, and counted.
#[track_caller]
fn check_relay(service: &Service, next: &Service, redis: &Service, in_flight: usize) -> usize {
    const REQUESTS: usize = 300;
    let traced = Traced::start(Protocol::Grpc, &[]);
    ask_at_once(service.address(), REQUESTS, in_flight);
    let ports = [service.port(), next.port(), redis.port()];
    // Redis is not waited for; what is there at the stop is told.
    traced.wait_at(&ports[..2], REQUESTS * 4);
    let mut told = traced.stop();
    told.keep(&ports);
    let links = parents::check_all(&told.spans);
    assert_eq!(links.orphans, 0);
    for port in ports {
        let (clients, servers) = (told.at(port, true), told.at(port, false));
        let unread = if port == redis.port() { told.books.of("span").lost_as("exchange_broken") } else { 0 };
        assert_eq!(clients.len(), REQUESTS);
        assert!(
            servers.len() <= REQUESTS && servers.len() as u64 + unread >= REQUESTS as u64,
            "{unread} unread"
        );
        assert!(servers.len() * 5 >= REQUESTS * 4, "most are spans: {}", servers.len());
        let joined = servers.iter().filter(|span| span.attribute("kansoku.link.proof") == "connection");
        assert_eq!(joined.count(), servers.len(), "both ends of every connection are one trace");
    }
    links.by_thread
}

#[test]
fn an_event_loop_has_no_wrong_parents() {
    let (redis, next) = (Service::redis(), Service::script("python3", "shop.py", &[]));
    let node = Service::script("node", "relay.js", &[next.port(), redis.port()]);
    for in_flight in [1, 20] {
        let by_thread = check_relay(&node, &next, &redis, in_flight);
        assert_eq!(by_thread, 0, "an event loop proves nothing by its thread");
    }
}

#[test]
fn goroutines_have_no_wrong_parents() {
    let (redis, next) = (Service::redis(), Service::script("python3", "shop.py", &[]));
    let program = Program::go("relay.go");
    let go = Service::program(&program, &[next.port(), redis.port()]);
    for in_flight in [1, 20] {
        let by_thread = check_relay(&go, &next, &redis, in_flight);
        println!("{in_flight} in flight: {by_thread} calls of goroutines have the request as their parent");
    }
}

/// A service on tokio that asks PostgreSQL and Redis: both are told exactly, and no parent is wrong on its threads, each of which
/// is an event loop.
#[test]
fn tokio_has_no_wrong_parents() {
    const REQUESTS: usize = 300;
    let (redis, postgres) = (Service::redis(), Postgres::start(&[]));
    postgres.sql("create table shelf (id int, note text)");
    let stores = [postgres.address().port(), redis.port()];
    let tokio = Service::binary(Path::new(env!("CARGO_BIN_EXE_relay_tokio")), &stores);
    for in_flight in [1, 20] {
        let traced = Traced::start(Protocol::Grpc, &[]);
        ask_at_once(tokio.address(), REQUESTS, in_flight);
        let ports = [tokio.port(), stores[0], stores[1]];
        traced.wait_at(&ports, REQUESTS * 6);
        let mut told = traced.stop();
        told.keep(&ports);
        for port in ports {
            let sides = [true, false].map(|is_client| told.at(port, is_client).len());
            assert_eq!(sides, [REQUESTS, REQUESTS], "at {port}");
        }
        let links = parents::check_all(&told.spans);
        assert_eq!(links.orphans, 0);
        assert_eq!(links.by_connection, REQUESTS * 3, "both ends of every connection are one trace");
        println!(
            "tokio, {in_flight} in flight: {} of {} calls have their request",
            links.by_thread,
            REQUESTS * 2
        );
    }
}

/// What the caller says of its trace, and what of it the spans of both ends say. No trace means that there are none.
struct Named {
    path: &'static str,
    headers: &'static [&'static str],
    trace: Option<&'static str>,
    parent: &'static str,
    state: &'static str,
}

const NAMED: [Named; 7] = [
    Named {
        path: "/sampled",
        headers: &[
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate: vendor=opaque,other=1",
        ],
        trace: Some("0af7651916cd43dd8448eb211c80319c"),
        parent: "b7ad6b7169203331",
        state: "vendor=opaque,other=1",
    },
    Named {
        path: "/unsampled",
        headers: &["traceparent: 00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203332-00"],
        trace: None,
        parent: "",
        state: "",
    },
    Named {
        path: "/b3",
        headers: &["b3: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"],
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        parent: "00f067aa0ba902b7",
        state: "",
    },
    Named {
        path: "/b3-short",
        headers: &["b3: a3ce929d0e0e4737-00f067aa0ba902b8-1"],
        trace: Some("0000000000000000a3ce929d0e0e4737"),
        parent: "00f067aa0ba902b8",
        state: "",
    },
    Named {
        path: "/b3-unsampled",
        headers: &["b3: 4bf92f3577b34da6a3ce929d0e0e4738-00f067aa0ba902b9-0"],
        trace: None,
        parent: "",
        state: "",
    },
    Named {
        path: "/zero",
        headers: &["traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01"],
        trace: Some(""),
        parent: "",
        state: "",
    },
    Named {
        path: "/short",
        headers: &["traceparent: 00-0af7651916cd43dd"],
        trace: Some(""),
        parent: "",
        state: "",
    },
];

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The trace that a caller names is joined by all spans of its request, also those behind a service that passes no header on.
#[test]
fn the_callers_trace_is_honoured() {
    let last = Service::script("python3", "shop.py", &[]);
    let first = Service::script("python3", "shop.py", &[last.port()]);
    let traced = Traced::start(Protocol::Grpc, &[]);
    for named in &NAMED {
        let arguments: Vec<&str> = named.headers.iter().flat_map(|header| ["--header", header]).collect();
        curl(&arguments, &[format!("http://{}{}", first.address(), named.path)]);
    }
    let told_of = NAMED.iter().filter(|named| named.trace.is_some()).count();
    traced.wait_at(&[first.port(), last.port()], 4 * told_of);
    let told = traced.stop();
    for Named { path, trace, parent, state, .. } in &NAMED {
        let spans: Vec<&Span> = told.spans.iter().filter(|span| span.target() == *path).collect();
        let Some(trace) = trace else {
            assert_eq!(spans.len(), 0, "{path}: the caller does not record it");
            continue;
        };
        assert_eq!(spans.len(), 4, "{path}: both ends of two connections");
        let root = spans.iter().find(|span| span.service == "curl").expect("curl asked");
        assert_eq!((&*hexadecimal(&root.parent), &*root.trace_state), (*parent, *state), "{path}");
        let proof = if parent.is_empty() { "" } else { "header" };
        assert_eq!(root.attribute("kansoku.link.proof"), proof, "{path}");
        for span in &spans {
            assert_eq!(span.trace_id, root.trace_id, "{}", span.summary());
            assert!(trace.is_empty() || hexadecimal(&span.trace_id) == *trace, "{}", span.summary());
        }
    }
    let unsampled = NAMED.len() - told_of;
    assert_eq!(told.books.of("span").lost_as("sampled_out"), 4 * unsampled as u64);
}
