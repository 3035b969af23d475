//! Requests in flight: what a client logged and the spans of both ends are the same, whatever way the server works, at one at once,
//! at 50 and at 1,000. The client asks as fast as it is answered, which of 1,000 at once may be more than the agent can read on a
//! machine that is slow at the moment: what is missing then is counted, neither more nor less.
//!
//! Refuses: an uncounted loss, a wrong parent, and an agent that grows with what is in flight.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use tests::callers::Transfer;
use tests::nginx::Nginx;
use tests::parents;
use tests::postgres::Postgres;
use tests::receiver::Protocol;
use tests::services::Service;
use tests::spans::Span;
use tests::swarm;
use tests::traced::{Told, Traced};
use tests::workload::Program;

/// Requests at one time, and in all.
const LOADS: [(usize, usize); 3] = [(1, 200), (50, 1000), (BURST, 4000)];

/// The one number of requests at one time of which some may be lost.
const BURST: usize = 1000;

/// What the span of a client and its own clock differ by in half of the requests at most.
const MEDIAN_SECONDS_MAX: f64 = 1e-3;

/// By how much a span may be longer than the client's own time around it: two clocks.
const CLOCK_SECONDS: f64 = 1e-4;

/// What the requests in flight may cost the agent: prefixes of two ends, their exchanges, and up to 24,000 spans that wait.
const GROWTH_BYTES_MAX: u64 = 192 << 20;

/// The whole spans of one end by what was asked for: name and status. Fails if one is there twice.
fn said(spans: &[&Span]) -> BTreeMap<String, (String, u16)> {
    let spans: Vec<_> = spans.iter().filter(|span| span.attribute("kansoku.partial").is_empty()).collect();
    let of_span = |span: &&&Span| {
        let status = span.attribute("http.response.status_code").parse().unwrap_or(0);
        (span.target(), (span.name.clone(), status))
    };
    let said: BTreeMap<_, _> = spans.iter().map(of_span).collect();
    assert_eq!(said.len(), spans.len(), "each once");
    said
}

/// Asks a server at each load. `others` are the ports that it asks, once for each request; `pipelined` is the one of them
/// that it may ask several things with one call: those behind what is captured of a call are lost. What nobody looked at of such a
/// connection is counted by its turns.
#[track_caller]
fn in_flight(name: &str, address: SocketAddr, others: &[u16], pipelined: Option<u16>) {
    for (in_flight, requests) in LOADS {
        let traced = Traced::start(Protocol::Grpc, &[]);
        let (before, _) = traced.resident_bytes();
        let log = swarm::ask(address, requests, in_flight);
        assert_eq!(log.in_flight_max, in_flight, "all at once");
        let ports = [&[address.port()], others].concat();
        let exchanges = 2 * requests * ports.len();
        traced.wait_for_rest_at(&ports, exchanges);
        let (_, peak) = traced.resident_bytes();
        let mut told = traced.stop();
        let all = told.spans.len();
        told.keep(&ports);
        // What somebody else on this machine asked may be among the losses, which have no ports.
        let is_alone = told.spans.len() == all;
        let logged = log
            .transfers
            .iter()
            .map(|transfer| (transfer.target.clone(), ("GET /item/{id}".to_owned(), transfer.status)));
        let logged: BTreeMap<_, _> = logged.collect();
        for is_client in [true, false] {
            let spans = told.at(address.port(), is_client);
            let said = said(&spans);
            for (target, said) in &said {
                assert_eq!(Some(said), logged.get(target), "{name}: {target}, is_client: {is_client}");
            }
        }
        let missing = (exchanges - told.spans.len()) as u64;
        let lost: u64 = told.books.of("span").lost.values().sum();
        println!(
            "{name}: {in_flight} in flight: {missing} of {exchanges} spans are missing ({:.1} %), {lost} are counted: {:?}",
            missing as f64 * 100.0 / exchanges as f64,
            told.books.of("span").lost
        );
        for port in &ports {
            let [clients, servers] = [true, false].map(|is_client| told.at(*port, is_client).len());
            println!(
                "{name}: of {requests} exchanges at port {port}, {clients} spans of clients, {servers} of servers"
            );
        }
        let unread = ["over_budget", "ring_full"]
            .map(|reason| told.books.of("span").lost_as(reason))
            .iter()
            .sum::<u64>();
        let missing_ahead: u64 = pipelined.map_or(0, |port| {
            [true, false].map(|is_client| (requests - told.at(port, is_client).len()) as u64).iter().sum()
        });
        let may_be_more = if unread > 0 { missing_ahead } else { 0 };
        assert!(
            missing == lost
                || (!is_alone && missing < lost)
                || (lost < missing && missing - lost <= may_be_more),
            "spans and counted losses are all there was: {:?}",
            told.books.of("span").lost
        );
        // A server reads more of what is sent ahead with one call than is captured of it.
        assert!(missing == missing_ahead || in_flight == BURST, "none is lost but of the burst");
        assert!(missing == 0 || in_flight > 1, "one after the other, none is lost");
        // Of the burst, all spans of one side may be among those that are counted as lost.
        if in_flight < BURST || !told.at(address.port(), true).is_empty() {
            check_times(name, &told, address.port(), &log);
        }
        let links = parents::check_all(&told.spans);
        // A server's span has a child at each port that it asks, a client's has one.
        let orphans_max = missing as usize * others.len().max(1);
        assert!(links.orphans <= orphans_max, "{missing} spans are missing: {links:?}");
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{name}: {in_flight} in flight: {links:?}, lost {:?}; resident {:.1} MiB before, {:.1} at the peak",
            told.books.of("span").lost,
            mebibytes(before),
            mebibytes(peak)
        );
        assert!(peak.saturating_sub(before) <= GROWTH_BYTES_MAX, "{before} bytes, then {peak}");
    }
}

/// The client reads its clock around the calls that move its bytes: its spans lie within, and in half of the cases closely. It
/// is longer where the client was not on a CPU between its clock and its call, which no span can know.
#[track_caller]
fn check_times(name: &str, told: &Told, port: u16, log: &swarm::Log) {
    let seconds: BTreeMap<String, f64> =
        told.at(port, true).iter().map(|span| (span.target(), span.seconds())).collect();
    let difference = |transfer: &Transfer| Some(transfer.seconds - seconds.get(&transfer.target)?);
    let mut differences: Vec<f64> = log.transfers.iter().filter_map(difference).collect();
    differences.sort_by(f64::total_cmp);
    let at = |share: f64| differences[((differences.len() - 1) as f64 * share) as usize];
    let late = differences.iter().filter(|difference| difference.abs() > MEDIAN_SECONDS_MAX).count();
    println!(
        "{name}: of {} the client's time is longer by {:.3} ms (least), {:.3} (median), {:.3} (p99), {:.3} (most); {late} by \
         more than a millisecond",
        differences.len(),
        at(0.0) * 1e3,
        at(0.5) * 1e3,
        at(0.99) * 1e3,
        at(1.0) * 1e3
    );
    assert!(at(0.5).abs() <= MEDIAN_SECONDS_MAX, "{name}: the median differs by {} s", at(0.5));
    assert!(at(0.0) >= -CLOCK_SECONDS, "{name}: a span is longer than the client waited: {} s", at(0.0));
}

#[test]
fn of_nginx() {
    let nginx = Nginx::start(1, 100, &[]);
    in_flight("nginx", nginx.address(), &[], None);
}

#[test]
fn of_threads() {
    let python = Service::script("python3", "shop.py", &[]);
    in_flight("Python, a thread for each connection", python.address(), &[], None);
}

#[test]
fn of_a_pool_of_threads() {
    let next = Service::script("python3", "shop.py", &[]);
    let java = Service::script("java", "Relay.java", &[next.port()]);
    in_flight("Java, 32 threads", java.address(), &[next.port()], None);
}

#[test]
fn of_node() {
    let (redis, next) = (Service::redis(), Service::script("python3", "shop.py", &[]));
    let node = Service::script("node", "relay.js", &[next.port(), redis.port()]);
    in_flight("Node", node.address(), &[next.port(), redis.port()], Some(redis.port()));
}

#[test]
fn of_goroutines() {
    let (redis, next) = (Service::redis(), Service::script("python3", "shop.py", &[]));
    let go = Service::program(&Program::go("relay.go"), &[next.port(), redis.port()]);
    in_flight("Go", go.address(), &[next.port(), redis.port()], None);
}

#[test]
fn of_tokio() {
    let (redis, postgres) = (Service::redis(), Postgres::start(&[]));
    postgres.sql("create table shelf (id int, note text)");
    let stores = [postgres.address().port(), redis.port()];
    let tokio = Service::binary(Path::new(env!("CARGO_BIN_EXE_relay_tokio")), &stores);
    in_flight("tokio", tokio.address(), &stores, None);
}
