//! Connections that begin, move bytes and end, and the series that they make.

use collector_common::event::Head;
use collector_common::flow::OpenRecord;
use zerocopy::FromZeros;

use super::super::fixture::opened;
use super::*;
use crate::telemetry::ProcessName;

const SECOND_NS: u64 = 1_000_000_000;

fn open(service: &str, role: Role, is_owned: bool) -> Connection {
    let head = Head { kind: 0, record_bytes: 0, time_ns: SECOND_NS };
    let record = OpenRecord { head, sequence: 7, ..opened(5, [80, 5000], role) };
    let process = ProcessName { pid: 1, executable_name: service.into(), executable_path: None };
    Connection::new(&record, (Arc::new(Subject::named(service)), Arc::new(process)), is_owned)
}

fn closed(bytes: [u64; 2], error: u32, states: [u32; 2]) -> CloseRecord {
    CloseRecord {
        head: Head { kind: 0, record_bytes: 0, time_ns: 3 * SECOND_NS },
        opened_ns: SECOND_NS,
        bytes,
        segments: [3, 2],
        retransmits: 1,
        error,
        states,
        ..CloseRecord::new_zeroed()
    }
}

/// Expects all series but those without a connection, as `name{attributes} value`, without what all have in common.
#[track_caller]
fn check(networks: &Networks, expected: &[&str]) {
    let mut found = Vec::new();
    for metric in networks.metrics(0) {
        for point in &metric.points {
            let owner = match &point.owner {
                Owner::Subject(subject) => subject.service_name(),
                _ => "host",
            };
            let labels: Vec<&str> = point.attributes.iter().map(|(_, value)| &**value).collect();
            let value = match &point.value {
                Value::Number(number) => *number,
                Value::Histogram(histogram) => histogram.count() as f64,
                other => panic!("unexpected {other:?}"),
            };
            if value != 0.0 {
                let name = metric.name.trim_start_matches("network.flow.");
                found.push(format!("{owner} {name} {} {value}", labels[1..].join(" ")));
            }
        }
    }
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn the_life_of_a_connection() {
    let mut networks = Networks::new(0);
    let mut connection = open("shop", Role::Client, true);
    let peer = Some(Arc::new(Subject::named("cart")));
    networks.place(&mut connection, SECOND_NS);
    assert!(networks.moved(&mut connection, peer.clone(), [100, 900], 2 * SECOND_NS));
    assert!(!networks.moved(&mut connection, peer.clone(), [100, 900], 2 * SECOND_NS));
    check(
        &networks,
        &[
            "shop connections.active client 1",
            "shop connections.opened client 1",
            "shop io client receive cart 900",
            "shop io client transmit cart 100",
        ],
    );
    networks.closed(&mut connection, peer, &closed([150, 1000], 0, [4, 5]));
    check(
        &networks,
        &[
            "shop connection.duration client 1",
            "shop connections.closed client local_close 1",
            "shop connections.opened client 1",
            "shop io client receive cart 1000",
            "shop io client transmit cart 150",
            "shop retransmits client cart 1",
            "shop segments client receive cart 2",
            "shop segments client transmit cart 3",
        ],
    );
}

#[test]
fn a_connection_that_nobody_has_is_the_hosts_until_somebody_takes_it() {
    let mut networks = Networks::new(0);
    let mut connection = open("", Role::Server, false);
    networks.place(&mut connection, SECOND_NS);
    check(&networks, &["host connections.active server 1", "host connections.opened server 1"]);
    let process = Arc::clone(&connection.process);
    connection.set_owner((Arc::new(Subject::named("cart")), process));
    networks.place(&mut connection, SECOND_NS);
    check(&networks, &["cart connections.active server 1", "host connections.opened server 1"]);
    networks.forgotten(&mut connection, 9 * SECOND_NS);
    check(&networks, &["cart connections.closed server idle 1", "host connections.opened server 1"]);
}

#[test]
fn what_could_not_be_opened_has_a_reason() {
    let mut networks = Networks::new(0);
    let whose = Some(Arc::new(Subject::named("shop")));
    for error in [111, 110, 113, 0] {
        networks.failed(whose.clone(), &closed([0; 2], error, [0, 2]));
    }
    check(
        &networks,
        &[
            "shop connections.failed client abandoned 1",
            "shop connections.failed client refused 1",
            "shop connections.failed client timeout 1",
            "shop connections.failed client unreachable 1",
        ],
    );
}

#[test]
fn series_are_bounded_and_end() {
    let mut networks = Networks::new(0);
    for number in 0..SERIES_MAX + 10 {
        let mut connection = open(&format!("service-{number}"), Role::Client, true);
        networks.place(&mut connection, SECOND_NS);
        networks.moved(&mut connection, None, [1, 1], SECOND_NS);
        networks.forgotten(&mut connection, SECOND_NS);
    }
    assert_eq!((networks.counts.len(), networks.traffic.len()), (SERIES_MAX + 1, SERIES_MAX + 1));
    let host = Kind { whose: None, role: Role::Client, transport: "tcp" };
    assert_eq!(networks.counts[&host].opened, 10);
    networks.sweep(SECOND_NS + IDLE_NS);
    assert!(networks.counts.is_empty() && networks.traffic.is_empty());
}
