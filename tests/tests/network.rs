//! Connections end to end: how they began and ended, what moved, and both ends as one trace whatever rewrites their addresses.
//!
//! Each workload runs in a container's cgroups or a network namespace of its own. Refuses: tolerance where a number is known.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tests::agent::STOP_MAX;
use tests::cgroup::ContainerCgroup;
use tests::dnsmasq::{Dnsmasq, NAME, dig};
use tests::endpoint::{self, Page};
use tests::postgres::Postgres;
use tests::receiver::{Protocol, free_address};
use tests::spans::Span;
use tests::tools;
use tests::traced::Traced;
use tests::workload::utf8;

/// A script of the workloads with its arguments.
fn python(words: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads").join(words[0]);
    let mut command = Command::new(tools::require("python3", "python3"));
    command.arg(script).args(&words[1..]);
    command
}

/// Shell lines in a network namespace of their own.
fn isolated(lines: &str) -> Command {
    let mut command = Command::new(tools::require("unshare", "util-linux"));
    command.args(["--net", "sh", "-ec", lines]);
    command
}

/// What a container counts by a metric and these labels.
fn counts(page: &Page, container: &ContainerCgroup, name: &str, labels: &[&str]) -> BTreeMap<String, f64> {
    page.by(name, &[container.label()], labels)
}

fn expected<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

const ROLE: &str = "network_flow_role";

/// Connections opened and closed by each side and cause, failures, what moved to whom: to the last one, also those over which
/// nothing is said.
#[test]
fn every_connection_is_counted() {
    let (agent, endpoint) = endpoint::start(&[]);
    let (server, client) = (ContainerCgroup::make("c501"), ContainerCgroup::make("c502"));
    let mut serving = server.enter(python(&["connections.py", "server"]));
    let port = serving.line();
    let mut calling = client.enter(python(&["connections.py", "client", port.trim()]));
    assert_eq!(calling.line().trim(), "moved");
    // One is open still; what moved over it is known before its end.
    let page = endpoint.scrape_until("what moved", |page| {
        let moved = counts(page, &client, "network_flow_io_bytes_total", &["network_io_direction"]);
        moved.get("receive").is_some_and(|bytes| *bytes >= 4096.0)
    });
    let active = "network_flow_connections_active";
    assert_eq!(counts(&page, &client, active, &[ROLE]), expected([("client", 1.0)]));
    assert_eq!(counts(&page, &server, active, &[ROLE]), expected([("server", 1.0)]));
    let caller = Pid::from_raw(calling.pid().cast_signed()).expect("a process");
    kill_process(caller, Signal::USR1).expect("our child");
    calling.output();
    serving.output();
    let closed = "network_flow_connections_closed_total";
    let page = endpoint.scrape_until("the last end", |page| {
        counts(page, &server, closed, &[ROLE]).get("server") == Some(&11.0)
    });
    let cause = [ROLE, "network_flow_close_cause"];
    let ends = [
        ("client local_close", 6.0),
        ("client remote_close", 2.0),
        ("client reset_received", 1.0),
        ("client reset_sent", 2.0),
    ];
    assert_eq!(counts(&page, &client, closed, &cause), expected(ends));
    let ends = [
        ("server local_close", 2.0),
        ("server remote_close", 6.0),
        ("server reset_received", 2.0),
        ("server reset_sent", 1.0),
    ];
    assert_eq!(counts(&page, &server, closed, &cause), expected(ends));
    for (container, role) in [(&client, "client"), (&server, "server")] {
        let opened = counts(&page, container, "network_flow_connections_opened_total", &[ROLE]);
        assert_eq!(opened, expected([(role, 11.0)]));
        assert_eq!(counts(&page, container, active, &[ROLE]), expected([]));
        let durations = counts(&page, container, "network_flow_connection_duration_seconds_count", &[ROLE]);
        assert_eq!(durations, expected([(role, 11.0)]));
        let peers = counts(&page, container, "network_flow_io_bytes_total", &["service_peer_name"]);
        let peers: Vec<(&str, f64)> = peers.iter().map(|(peer, bytes)| (&**peer, *bytes)).collect();
        assert!(matches!(peers[..], [(peer, 8201.0)] if peer.starts_with("python3")), "{peers:?}");
    }
    let failed = "network_flow_connections_failed_total";
    assert_eq!(counts(&page, &client, failed, &["error_type"]), expected([("refused", 4.0)]));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// Why a connection could not be opened.
#[test]
fn unanswered_connects_have_a_reason() {
    tools::require("nft", "nftables");
    let (agent, endpoint) = endpoint::start(&[]);
    let container = ContainerCgroup::make("c503");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/connections.py");
    let lines = format!(
        "ip link add swallows type veth peer name hole
         ip link set swallows arp off
         ip link set hole up
         ip address add 192.0.2.2/24 dev swallows
         ip link set swallows up
         ip link set lo up
         ip route add 198.51.100.0/24 dev swallows
         nft -f - <<'RULES'
         table ip router {{
           chain output {{
             type filter hook output priority 0;
             ip daddr 198.51.100.9 reject with icmp type host-unreachable;
           }}
         }}
RULES
         exec python3 {} unanswered",
        utf8(&script)
    );
    container.enter(isolated(&lines)).output();
    let name = "network_flow_connections_failed_total";
    let reasons = expected([("timeout", 1.0), ("unreachable", 1.0)]);
    endpoint.scrape_until("both", |page| counts(page, &container, name, &["error_type"]) == reasons);
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// A service's address that is rewritten to a pod's, and the client's too, as kube-proxy does: both ends are one trace, and each
/// knows the other's own address.
#[test]
fn both_ends_behind_nat_are_one_trace() {
    tools::require("nft", "nftables");
    let traced = Traced::start(Protocol::Grpc, &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/shop.py");
    let lines = format!(
        "ip link set lo up
         ip address add 10.1.0.5/32 dev lo
         ip address add 10.1.0.99/32 dev lo
         ip route add 10.96.0.0/16 dev lo src 10.1.0.5
         nft -f - <<'RULES'
         table ip service {{
           chain output {{
             type nat hook output priority -100;
             ip daddr 10.96.0.1 tcp dport 80 dnat to 127.0.0.1:8080;
           }}
           chain postrouting {{
             type nat hook postrouting priority 100;
             ip saddr 10.1.0.5 tcp dport 8080 snat to 10.1.0.99;
           }}
         }}
RULES
         python3 {} 8080 &
         curl --silent --retry 9 --retry-connrefused --retry-delay 1 http://10.96.0.1/warm
         curl --silent 'http://10.96.0.1/orders/[1-5]'
         kill $!",
        utf8(&script)
    );
    tools::succeed(&mut isolated(&lines));
    let is_of_test = |span: &Span| span.attribute("url.path").starts_with("/orders/");
    traced.wait_for("spans", 10, is_of_test);
    let told = traced.stop();
    let (clients, servers): (Vec<&Span>, Vec<&Span>) =
        told.spans.iter().filter(|span| is_of_test(span)).partition(|span| span.is_client());
    assert_eq!((clients.len(), servers.len()), (5, 5));
    for server in servers {
        let client = clients.iter().find(|client| client.id == server.parent).expect("its parent is curl's");
        assert_eq!((&client.trace_id, client.target()), (&server.trace_id, server.target()));
        assert_eq!(server.attribute("kansoku.link.proof"), "connection");
        assert_eq!(
            (client.attribute("server.address"), client.attribute("server.port")),
            ("10.96.0.1", "80")
        );
        assert_eq!(client.attribute("network.peer.address"), "127.0.0.1");
        assert_eq!(client.attribute("network.peer.port"), "8080");
        assert_eq!(server.attribute("client.address"), "10.1.0.5");
    }
}

/// psql over PostgreSQL's socket: both ends are one trace, named by its path.
#[test]
fn both_ends_of_a_unix_socket_are_one_trace() {
    let postgres = Postgres::start(&[]);
    let traced = Traced::start(Protocol::Grpc, &[]);
    for _ in 0..5 {
        postgres.sql("select 17 as unix_socket");
    }
    let is_of_test = |span: &Span| span.attribute("db.query.text").contains("unix_socket");
    traced.wait_for("spans", 10, is_of_test);
    let told = traced.stop();
    let (clients, servers): (Vec<&Span>, Vec<&Span>) =
        told.spans.iter().filter(|span| is_of_test(span)).partition(|span| span.is_client());
    assert_eq!((clients.len(), servers.len()), (5, 5));
    let path = format!("{}/.s.PGSQL.{}", utf8(postgres.socket_directory()), postgres.address().port());
    for server in servers {
        let client = clients.iter().find(|client| client.id == server.parent).expect("its parent is psql's");
        assert_eq!(server.attribute("kansoku.link.proof"), "connection");
        assert_eq!((&*client.service, &client.trace_id), ("psql", &server.trace_id));
        for side in [*client, server] {
            assert_eq!(side.attribute("network.transport"), "unix");
            assert_eq!((side.attribute("server.address"), side.attribute("server.port")), (&*path, ""));
        }
    }
}

/// A name server's spans say who asked, also over a socket that has no fixed peer.
#[test]
fn a_datagram_server_knows_who_asked() {
    let server = Dnsmasq::start(free_address());
    let traced = Traced::start(Protocol::Grpc, &[]);
    for _ in 0..3 {
        dig(server.address(), &[NAME]);
    }
    let port = server.address().port();
    traced.wait_for("spans", 3, |span| span.is_at(&[port]) && !span.is_client());
    let told = traced.stop();
    let (clients, servers) = (told.at(port, true), told.at(port, false));
    let ports = |spans: &[&Span], key: &str| -> Vec<String> {
        let mut ports: Vec<String> = spans.iter().map(|span| span.attribute(key).to_owned()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(servers.len(), 3);
    assert!(servers.iter().all(|span| span.attribute("client.address") == "127.0.0.1"), "{servers:?}");
    assert!(ports(&servers, "client.port").iter().all(|port| !port.is_empty()));
    assert_eq!(clients.len(), 3);
}
