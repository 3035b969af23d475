//! Who is at the other end, where that end is on another node: pods and Services by their IPs, as the API server tells.
//!
//! Refuses: one request under the name of somebody who had the IP at another time.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::{STOP_MAX, run_to_end};
use tests::api_server::ApiServer;
use tests::daemon::{Daemon, Launch};
use tests::pod_networks::PodNetworks;
use tests::pods::{api_pod, start, stop, uid};
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::spans::{self, Span};
use tests::workload::{source, utf8};
use tests::{metrics, tools};

const KEPT: &str = "kept.py";
const PORT: &str = "8000";
const RESOLVER: &str = "resolver.py";
const DNS_PORT: &str = "53";

/// A pod of another node with an address there.
fn remote_pod(deployment: &str, number: u32, address: &str, phase: &str) -> Value {
    let mut pod = api_pod("shop", deployment, "x", &uid(number));
    pod["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{:02}Z", number % 60).into();
    pod["spec"] = json!({"nodeName": "node-2", "containers": []});
    pod["status"] = json!({"phase": phase, "podIP": address, "podIPs": [{"ip": address}]});
    pod
}

/// A Service of the cluster.
fn service(name: &str, number: u32, address: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": uid(number)},
        "spec": {"clusterIP": address, "clusterIPs": [address]},
        "status": {},
    })
}

/// One side of a script in a pod's network: a server where it is, or a client that asks for the Service.
fn in_network(directory: &Path, network: &str, script: &str, port: &str) -> Daemon {
    let (role, address) = match network {
        PodNetworks::SERVER => ("serve", PodNetworks::SERVER_ADDRESS),
        _ => ("call", PodNetworks::SERVICE_ADDRESS),
    };
    let path = source(script);
    let words = ["netns", "exec", network, "python3", utf8(&path), role, address, port];
    let log = directory.join(format!("{script}-{role}.log"));
    let launch = Launch::plain(&log);
    Daemon::start(&tools::require("ip", "iproute2"), &words, launch)
}

#[test]
fn peers_on_other_nodes_have_names() {
    let directory = TempDir::new().expect("a temporary directory");
    let (api, _networks) = (ApiServer::start(directory.path()), PodNetworks::make());
    let afar = PodNetworks::CLIENT_FROM_AFAR;
    api.put_at("/api/v1/services", &service("db", 450, PodNetworks::SERVICE_ADDRESS));
    api.put(&remote_pod("cart", 401, afar, "Running"));
    // On its node's network: its address is the node's, and nobody's in particular.
    let mut on_node = remote_pod("proxy", 402, afar, "Running");
    on_node["spec"]["hostNetwork"] = true.into();
    api.put(&on_node);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let settings =
        [&api.setting(), "kubernetes.cri_socket=none", "kubernetes.peers=true", "trace.sample_ratio=1"];
    let agent = start(directory.path(), &receiver, &settings)
        .wait_for("tells the cluster's addresses kind=Pod", Duration::from_secs(10))
        .wait_for("tells the cluster's addresses kind=Service", Duration::from_secs(10));

    let _server = in_network(directory.path(), PodNetworks::SERVER, KEPT, PORT);
    std::thread::sleep(Duration::from_secs(1));
    let _client = in_network(directory.path(), PodNetworks::CLIENT, KEPT, PORT);
    std::thread::sleep(Duration::from_secs(3));
    // The pod ends and leaves its IP to another one.
    let ended_ns = unix_ns();
    api.put(&remote_pod("cart", 401, afar, "Succeeded"));
    api.put(&remote_pod("till", 403, afar, "Running"));
    std::thread::sleep(Duration::from_secs(1));
    let reused_ns = unix_ns();
    std::thread::sleep(Duration::from_secs(3));
    stop(agent);

    let spans = spans::of_requests(&receiver.traces());
    let peer = |span: &Span| {
        let keys = ["service.peer.name", "service.peer.namespace", "kansoku.peer.k8s.namespace.name"];
        keys.map(|key| span.attribute(key).to_owned()).join(" ")
    };
    let is_at_service = |span: &&Span| span.attribute("server.address") == PodNetworks::SERVICE_ADDRESS;
    let clients: Vec<&Span> = spans.iter().filter(|span| span.is_client()).filter(is_at_service).collect();
    assert!(clients.len() > 20, "{} spans of the client", clients.len());
    for span in clients {
        assert_eq!(peer(span), "db shop shop", "{span:#?}");
        assert_eq!(span.attribute("kansoku.peer.k8s.service.name"), "db");
        assert_eq!(span.attribute("server.address"), PodNetworks::SERVICE_ADDRESS);
    }
    let servers: Vec<&Span> = spans
        .iter()
        .filter(|span| !span.is_client() && ["/kept", "/new"].contains(&&*span.target()))
        .collect();
    let of = |path: &str, times: std::ops::Range<u64>| -> Vec<String> {
        let is_wanted = |span: &&&Span| span.target() == path && times.contains(&span.start_ns);
        let mut names: Vec<String> = servers.iter().filter(is_wanted).map(|span| peer(span)).collect();
        assert!(names.len() > 5, "{path}: {names:?}");
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(of("/kept", 0..u64::MAX), ["cart shop shop"], "a connection keeps whom it began with");
    assert_eq!(of("/new", 0..ended_ns), ["cart shop shop"]);
    assert_eq!(of("/new", reused_ns..u64::MAX), ["till shop shop"], "a reused IP is the newest owner's");

    // Both ends are on this node, which their first sequence numbers tell whatever the addresses say: the edge has the service
    // itself. The client's end tells it, and the server's does not tell it again.
    let requests = receiver.metrics();
    let edges = metrics::counter(&requests, "traces_service_graph_request_total");
    let calls = |client: &str, server: &str| {
        let is_wanted =
            |edge: &metrics::Series| edge.attribute("client") == client && edge.attribute("server") == server;
        metrics::total(&edges, is_wanted)
    };
    let own = &servers.first().expect("there are some").service;
    assert!(calls(own, own) > 40, "{edges:#?}");
    // Nobody had the IP for a moment.
    assert!(calls("user", own) < 5, "{edges:#?}");
    assert_eq!(calls("cart", own) + calls("till", own), 0, "that is for the agent of their node to tell");
    let addresses = metrics::points(&requests, "kansoku.peers.addresses");
    let count = |kind: &str| {
        let mut points = addresses.iter().rev();
        let last = points.find(|point| point.attribute("kansoku.peer.kind") == kind);
        last.expect("the agent says how many it knows").value
    };
    assert_eq!((count("pod"), count("service")), (1.0, 1.0));
}

/// A connection that began before the agent has nothing at its ends by which they would know each other, as if the server were on
/// another node: what the node's connection tracking says is all that there is.
#[test]
fn the_pod_behind_a_service_has_a_name() {
    let directory = TempDir::new().expect("a temporary directory");
    let (api, _networks) = (ApiServer::start(directory.path()), PodNetworks::make());
    api.put_at("/api/v1/services", &service("db", 450, PodNetworks::SERVICE_ADDRESS));
    api.put(&remote_pod("store", 401, PodNetworks::SERVER_ADDRESS, "Running"));
    let _server = in_network(directory.path(), PodNetworks::SERVER, KEPT, PORT);
    let _resolver = in_network(directory.path(), PodNetworks::SERVER, RESOLVER, DNS_PORT);
    std::thread::sleep(Duration::from_secs(1));
    let _asker = in_network(directory.path(), PodNetworks::CLIENT, RESOLVER, DNS_PORT);
    let _client = in_network(directory.path(), PodNetworks::CLIENT, KEPT, PORT);
    std::thread::sleep(Duration::from_secs(1));
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let network = format!("kubernetes.node_network=/run/netns/{}", PodNetworks::CLIENT);
    let [names, peers, all] = ["kubernetes.cri_socket=none", "kubernetes.peers=true", "trace.sample_ratio=1"];
    let agent = start(directory.path(), &receiver, &[&api.setting(), names, peers, all, &network])
        .wait_for("tells the cluster's addresses kind=Pod", Duration::from_secs(10))
        .wait_for("tells the cluster's addresses kind=Service", Duration::from_secs(10));
    std::thread::sleep(Duration::from_secs(4));
    stop(agent);

    let spans = spans::of_requests(&receiver.traces());
    for [key, value] in [["url.path", "/kept"], ["url.path", "/new"], ["dns.question.name", "shop.test"]] {
        let is_wanted = |span: &&Span| span.is_client() && span.attribute(key) == value;
        // What was said before the addresses were known has no names.
        let is_named = |span: &&Span| !span.attribute("kansoku.peer.k8s.service.name").is_empty();
        let clients: Vec<&Span> = spans.iter().filter(is_wanted).filter(is_named).collect();
        assert!(clients.len() > 15, "{} spans of {value}", clients.len());
        for span in clients {
            let keys = [
                "server.address",
                "network.peer.address",
                "service.peer.name",
                "kansoku.peer.k8s.service.name",
            ];
            let found = keys.map(|key| span.attribute(key));
            assert_eq!(
                found,
                [PodNetworks::SERVICE_ADDRESS, PodNetworks::SERVER_ADDRESS, "store", "db"],
                "{span:#?}"
            );
            assert_eq!(span.attribute("kansoku.peer.k8s.pod.name"), "store-7d9c5-x");
        }
    }
    let requests = receiver.metrics();
    let edges = metrics::counter(&requests, "traces_service_graph_request_total");
    assert!(metrics::total(&edges, |edge| edge.attribute("server") == "store") > 15, "{edges:#?}");
    let asked = metrics::counter(&requests, "kansoku.flow.translations");
    let count = |outcome| metrics::total(&asked, |series| series.attribute("kansoku.outcome") == outcome);
    assert!(count("found") > 15 && count("postponed") == 0, "{asked:#?}");
}

#[test]
fn the_doctor_says_what_is_forbidden() {
    let directory = TempDir::new().expect("a temporary directory");
    let api = ApiServer::start(directory.path());
    let doctor = |name: &str, network: &str| {
        let network = format!("kubernetes.node_network={network}");
        let settings = [api.setting(), "kubernetes.peers=true".to_owned(), network];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<&str> = ["doctor", "--json"].into_iter().chain(settings).collect();
        let found: Value = serde_json::from_slice(&run_to_end(&arguments, STOP_MAX).stdout).expect("JSON");
        let checks = found["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).cloned()
    };
    let check = |expected: bool, text: &str| {
        let peers = doctor("peers", "auto").expect("one of peers");
        assert_eq!(peers["ok"], expected, "{peers}");
        assert!(peers["found"].as_str().is_some_and(|found| found.contains(text)), "{peers}");
    };
    check(true, "pods and services");
    let is_good = |network| doctor("Service IPs", network).map(|check| check["ok"].clone());
    let found = ["auto", "/run/netns/none", "none"].map(is_good);
    assert_eq!(found, [Some(true.into()), Some(false.into()), None]);
    api.control(&json!({"forbid": ["services"]}));
    check(false, "Forbidden");
}

fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("a clock after 1970").as_nanos()).expect("a clock before 2554")
}
