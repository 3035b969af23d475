//! Who calls whom: requests, failures and times by client and server, all exchanges, sampled or not.
//!
//! The metrics have the names of the OpenTelemetry Collector's service graph connector, which Grafana and Tempo know. An edge
//! is told once: by the client's end, or by the server's where the client is neither on this node nor a pod of another one. An edge
//! of a container whose pod is about to be known waits for the name. Refuses: ends that are not on this node get no service's
//! name, only their address, unless the API server tells whose it is.

use std::collections::HashMap;
use std::sync::Arc;

use super::requests::Times;
use crate::identity::{Peer, PeerKind, Subject};
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Value};

/// Edges that are told apart.
const EDGES_MAX: usize = 4_096;

/// Edges that wait for names. One more is named by what is known.
const WAITING_MAX: usize = 1_024;

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

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// A service of this node.
    Service(Arc<Subject>),
    /// Somebody else, by this name.
    Named(String),
}

/// An edge whose ends may have no names yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parties {
    /// Who asks.
    pub client: Party,
    /// Who answers.
    pub server: Party,
    /// As in [`Edge`].
    pub connection_type: &'static str,
}

/// All edges.
pub struct ServiceMap {
    start_unix_ns: u64,
    waiting: HashMap<Parties, Counts>,
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
        Self { start_unix_ns, waiting: HashMap::new(), by_edge: HashMap::new(), edges: Vec::new() }
    }

    /// Counts an exchange, and returns the edge if its ends have their names.
    pub fn observe_between(
        &mut self,
        parties: Parties,
        has_failed: bool,
        seconds: f64,
        now_ns: u64,
    ) -> Option<EdgeId> {
        let must_wait = parties.is_awaited(now_ns)
            && (self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&parties));
        if must_wait {
            self.waiting.entry(parties).or_default().observe(has_failed, seconds);
            return None;
        }
        let id = self.edge(parties.edge());
        self.observe(id, has_failed, seconds);
        Some(id)
    }

    /// Counts an exchange of a known edge.
    pub fn observe(&mut self, id: EdgeId, has_failed: bool, seconds: f64) {
        if let Some((_, counts)) = self.edges.get_mut(id.0) {
            counts.observe(has_failed, seconds);
        }
    }

    /// Names what waited and has its names now, or will not get them.
    pub fn turn(&mut self, now_ns: u64) {
        let named = self.waiting.extract_if(|parties, _| !parties.is_awaited(now_ns));
        for (parties, waited) in named.collect::<Vec<_>>() {
            let id = self.edge(parties.edge());
            if let Some((_, counts)) = self.edges.get_mut(id.0) {
                counts.add(&waited);
            }
        }
    }

    /// The edge, made if it is new.
    fn edge(&mut self, edge: Edge) -> EdgeId {
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
pub fn is_told_by_client(is_client_here: bool, peer: Option<&Peer>) -> bool {
    is_client_here || peer.is_some_and(|peer| peer.kind == PeerKind::Pod)
}

impl Counts {
    fn observe(&mut self, has_failed: bool, seconds: f64) {
        self.requests += 1;
        self.failed += u64::from(has_failed);
        self.times.add(seconds);
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.times.add_all(&other.times);
    }
}

impl Parties {
    fn is_awaited(&self, now_ns: u64) -> bool {
        [&self.client, &self.server].into_iter().any(|party| match party {
            Party::Service(subject) => subject.pod.is_awaited(now_ns),
            Party::Named(_) => false,
        })
    }

    /// By the names that are known now.
    fn edge(&self) -> Edge {
        let name = |party: &Party| match party {
            Party::Service(subject) => subject.service_name().to_owned(),
            Party::Named(name) => name.clone(),
        };
        let connection_type = self.connection_type;
        Edge { client: name(&self.client), server: name(&self.server), connection_type }
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
    fn who_tells_an_edge() {
        let peer = |kind| {
            let facts = Facts { has_metadata: true, ..Facts::of_pod("shop", "db", "1", "") };
            Peer::of(kind, &facts, &Choice::default())
        };
        let (pod, service) = (peer(PeerKind::Pod), peer(PeerKind::Service));
        let check = |is_here: bool, peer: Option<&Peer>, is_told: bool| {
            assert_eq!(is_told_by_client(is_here, peer), is_told, "{is_here} {peer:?}");
        };
        check(false, None, false);
        check(true, None, true);
        check(true, Some(&pod), true);
        check(false, Some(&pod), true);
        check(false, Some(&service), false);
    }

    #[test]
    fn an_edge_waits_for_the_names_of_its_ends() {
        use crate::identity::{Container, LatePod, Pod};

        let mut map = ServiceMap::new(0);
        let (late, never) = (LatePod::awaited(50), LatePod::awaited(50));
        let parties = |id: &str, pod: &LatePod| {
            let container = Some(Container { id: id.to_owned(), runtime: None });
            let server = Subject { container, pod: pod.clone(), ..Subject::named("nginx") };
            Parties {
                client: Party::Named("user".to_owned()),
                server: Party::Service(Arc::new(server)),
                connection_type: "",
            }
        };
        for (id, pod) in [("a", &late), ("a", &late), ("b", &never)] {
            assert_eq!(map.observe_between(parties(id, pod), false, 0.5, 1), None);
        }
        map.turn(2);
        assert!(map.metrics().is_empty());
        late.tell(Pod::of(&Facts::of_pod("shop", "cart", "1", "web"), &Choice::default()));
        map.turn(3);
        assert!(map.observe_between(parties("a", &late), true, 0.5, 4).is_some());
        // Its name did not come.
        map.turn(50);
        let found: Vec<_> =
            map.edges.iter().map(|(edge, counts)| (&*edge.server, counts.requests, counts.failed)).collect();
        assert_eq!(found, [("web", 3, 1), ("nginx", 1, 0)]);
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
