//! Who calls whom: requests, failures and times by client and server, all exchanges, sampled or not.
//!
//! The metrics have the names of the OpenTelemetry Collector's service graph connector, which Grafana and Tempo know. An edge
//! is told once: by the client's end, or by the server's where the client is neither on this node nor a pod of another one.
//! Refuses: ends that are not on this node get no service's name, only their address, unless the API server tells whose it is.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::requests::Times;
use crate::identity::{Peer, PeerKind};
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Value};

/// Edges that are told apart.
const EDGES_MAX: usize = 4_096;

/// The name of both ends of all edges beyond that.
const OTHER: &str = "other";

/// Which edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeId(usize);

/// An edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Service name of the client, or `user`.
    pub client: String,
    /// Service name of the server, or its address and port.
    pub server: String,
    /// `database` for servers that are one; else empty.
    pub connection_type: &'static str,
}

/// All edges.
pub struct ServiceMap {
    start_unix_ns: u64,
    by_edge: HashMap<Edge, EdgeId>,
    edges: Vec<(Edge, Counts)>,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    failed: u64,
    times: Times,
}

impl ServiceMap {
    /// No edges yet.
    pub fn new(start_unix_ns: u64) -> Self {
        Self { start_unix_ns, by_edge: HashMap::new(), edges: Vec::new() }
    }

    /// The edge, made if it is new.
    pub fn edge(&mut self, edge: Edge) -> EdgeId {
        if let Some(known) = self.by_edge.get(&edge) {
            return *known;
        }
        if self.edges.len() >= EDGES_MAX && edge.client != OTHER {
            let (client, server) = (OTHER.to_owned(), OTHER.to_owned());
            return self.edge(Edge { client, server, connection_type: "" });
        }
        let id = EdgeId(self.edges.len());
        self.edges.push((edge.clone(), Counts::default()));
        self.by_edge.insert(edge, id);
        id
    }

    /// Counts an exchange.
    pub fn observe(&mut self, id: EdgeId, has_failed: bool, seconds: f64) {
        let Some((_, counts)) = self.edges.get_mut(id.0) else { return };
        counts.requests += 1;
        counts.failed += u64::from(has_failed);
        counts.times.add(seconds);
    }

    /// All that was counted since the start.
    pub fn metrics(&self) -> Vec<Metric> {
        if self.edges.is_empty() {
            return Vec::new();
        }
        let points = |value: fn(&Counts) -> Value| {
            let point = |(edge, counts): &(Edge, Counts)| Point {
                owner: Owner::Host,
                attributes: attributes(edge),
                start_unix_ns: self.start_unix_ns,
                value: value(counts),
            };
            self.edges.iter().map(point).collect::<Vec<_>>()
        };
        vec![
            Metric::new(
                MetricKind::Counter,
                "traces_service_graph_request_total",
                "",
                "Requests by client and server.",
            )
            .with(points(|counts| Value::Number(counts.requests as f64))),
            Metric::new(
                MetricKind::Counter,
                "traces_service_graph_request_failed_total",
                "",
                "Failed requests by client and server.",
            )
            .with(points(|counts| Value::Number(counts.failed as f64))),
            Metric::new(
                MetricKind::Histogram,
                "traces_service_graph_request_seconds",
                "",
                "Times of requests by client and server, as the end saw them that told.",
            )
            .with(points(|counts| Value::Histogram(Box::new(counts.times.histogram())))),
        ]
    }
}

/// Whether the client's end tells of an exchange: it is on this node, or a pod of another one, whose agent tells it.
pub fn is_told_by_client(local_client: Option<&str>, peer: Option<&Peer>) -> bool {
    local_client.is_some() || peer.is_some_and(|peer| peer.kind == PeerKind::Pod)
}

/// How a client's end names its server: as the server's end does if that is on this node, else as the API server does.
pub fn server_name(local_server: Option<&str>, peer: Option<&Peer>, address: SocketAddr) -> String {
    match (local_server, peer) {
        (Some(name), _) => name.to_owned(),
        (None, Some(peer)) => peer.service_name().to_owned(),
        (None, None) => address.to_string(),
    }
}

fn attributes(edge: &Edge) -> Vec<(Text, Text)> {
    vec![
        ("client".into(), edge.client.clone().into()),
        ("server".into(), edge.server.clone().into()),
        ("connection_type".into(), edge.connection_type.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Choice, Facts};

    /// Observes `(client, server, failed)`; expects requests and failures of each edge.
    fn check(exchanges: &[(&str, &str, bool)], expected: &[(&str, &str, u64, u64)]) {
        let mut map = ServiceMap::new(7);
        for (client, server, has_failed) in exchanges {
            let edge =
                Edge { client: (*client).to_owned(), server: (*server).to_owned(), connection_type: "" };
            let id = map.edge(edge);
            map.observe(id, *has_failed, 0.5);
        }
        let found: Vec<_> = map
            .edges
            .iter()
            .map(|(edge, counts)| (&*edge.client, &*edge.server, counts.requests, counts.failed))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(map.metrics().is_empty(), expected.is_empty());
    }

    #[test]
    fn edges_add_up() {
        check(&[], &[]);
        check(
            &[("shop", "db", false), ("shop", "db", true), ("user", "shop", false)],
            &[("shop", "db", 2, 1), ("user", "shop", 1, 0)],
        );
    }

    #[test]
    fn who_tells_an_edge_and_under_which_name() {
        let peer = |kind| {
            let facts = Facts { has_metadata: true, ..Facts::of_pod("shop", "db", "1", "") };
            Peer::of(kind, &facts, &Choice::default())
        };
        let (pod, service) = (peer(PeerKind::Pod), peer(PeerKind::Service));
        let check = |local: Option<&str>, peer: Option<&Peer>, is_told: bool, name: &str| {
            let address = SocketAddr::from(([10, 0, 0, 1], 80));
            assert_eq!(is_told_by_client(local, peer), is_told, "{local:?} {peer:?}");
            assert_eq!(server_name(local, peer, address), name, "{local:?} {peer:?}");
        };
        check(None, None, false, "10.0.0.1:80");
        check(Some("local"), None, true, "local");
        check(Some("local"), Some(&pod), true, "local");
        check(None, Some(&pod), true, "db");
        check(None, Some(&service), false, "db");
    }

    #[test]
    fn edges_beyond_the_limit_are_one() {
        let mut map = ServiceMap::new(0);
        let edge =
            |index: usize| Edge { client: "shop".to_owned(), server: index.to_string(), connection_type: "" };
        for index in 0..EDGES_MAX + 10 {
            let id = map.edge(edge(index));
            map.observe(id, false, 1.0);
        }
        assert_eq!(map.edges.len(), EDGES_MAX + 1);
        assert_eq!(map.edges[EDGES_MAX].1.requests, 10);
    }
}
