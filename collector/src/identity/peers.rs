//! Whose an address of the cluster is: pods and Services by their IPs, and for a while who had an IP before.
//!
//! An address is a name's only for the time in which it was that owner's: who asks says when. Refuses: addresses that many
//! share (the node's own, of pods on its network), and more than `ADDRESSES_MAX`.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Choice, Facts, Pod};
use crate::telemetry::{Metric, MetricKind, Owner as MetricOwner, Point};

/// Addresses that are known at a time; those beyond are counted and stay without a name.
const ADDRESSES_MAX: usize = 20_000;

/// Addresses of one pod or Service: one of each family.
const ADDRESSES_PER_OWNER_MAX: usize = 2;

/// Former owners that are remembered, and for how long. Connections keep whom they found; this is for what is told late.
const FORMER_MAX: usize = 4_096;
const FORMER_KEEP_NS: u64 = 120_000_000_000;

/// How long after a pod began to talk its address may become known: the kubelet tells it once the containers were started.
const LAG_NS: u64 = 30_000_000_000;

/// What has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// A pod, on whatever node.
    Pod,
    /// A Service with an IP of the cluster.
    Service,
}

/// Who is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub kind: PeerKind,
    /// `metadata.namespace`
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
    /// `service.name`, found as for a pod of this node; `None` if that is the name.
    service_name: Option<Box<str>>,
    /// `service.namespace`; `None` if that is the namespace.
    service_namespace: Option<Box<str>>,
}

/// A pod or Service as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerObject {
    /// `metadata.uid`
    pub uid: u128,
    /// `metadata.creationTimestamp`, seconds since the epoch by the API server's clock.
    pub created_unix_s: i64,
    /// Where it is.
    pub addresses: Box<[IpAddr]>,
    /// Who it is.
    pub peer: Peer,
}

/// What the API server told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// All of this kind are told anew.
    Begin(PeerKind),
    /// They have been told.
    Live(PeerKind),
    /// One is there, or changed.
    Here(Box<PeerObject>),
    /// One is gone, or has no address any more.
    Gone(u128),
}

/// Peers by their addresses.
#[derive(Debug, Default)]
pub struct Peers {
    owners: HashMap<u128, Owner>,
    by_address: HashMap<IpAddr, Holding>,
    former: HashMap<IpAddr, Vec<Former>>,
    /// The order in which former owners are forgotten.
    ages: VecDeque<(u64, IpAddr)>,
    listings: [Listing; 2],
    refused: u64,
}

#[derive(Debug)]
struct Owner {
    peer: Arc<Peer>,
    created_unix_s: i64,
    addresses: Box<[IpAddr]>,
    /// The list that told it last.
    list: u32,
}

/// An address and whose it is since when, `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
struct Holding {
    uid: u128,
    from_ns: u64,
}

#[derive(Debug)]
struct Former {
    peer: Arc<Peer>,
    from_ns: u64,
    end_ns: u64,
}

/// How far the lists of a kind are.
#[derive(Clone, Copy, Debug, Default)]
struct Listing {
    number: u32,
    /// Whether one was told to its end: what comes now is new, and not only new to us.
    is_live: bool,
}

impl Peer {
    /// The pod or Service of which the API server said this.
    pub fn of(kind: PeerKind, facts: &Facts, choice: &Choice) -> Self {
        let Facts { namespace, name, .. } = facts;
        let pod = Pod::of(facts, choice);
        let service_namespace = pod.attributes.into_iter().find(|(key, _)| key == "service.namespace");
        let service_namespace = service_namespace.map(|(_, value)| value);
        let unlike = |value: Option<String>, usual: &str| {
            value.filter(|value| !value.is_empty() && value != usual).map(String::into_boxed_str)
        };
        Self {
            kind,
            service_name: unlike(pod.service_name, name),
            service_namespace: unlike(service_namespace, namespace),
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
        }
    }

    /// `service.name` of what answers there.
    pub fn service_name(&self) -> &str {
        self.service_name.as_deref().unwrap_or(&self.name)
    }

    /// `service.namespace` of it.
    pub fn service_namespace(&self) -> &str {
        self.service_namespace.as_deref().unwrap_or(&self.namespace)
    }
}

impl Peers {
    /// Takes what the API server told.
    pub fn on_event(&mut self, event: PeerEvent, now_ns: u64) {
        match event {
            PeerEvent::Begin(kind) => self.listings[kind as usize].number += 1,
            PeerEvent::Live(kind) => self.end_list(kind, now_ns),
            PeerEvent::Here(object) => self.insert(*object, now_ns),
            PeerEvent::Gone(uid) => self.remove(uid, now_ns),
        }
    }

    /// Who had an address at a time of `CLOCK_MONOTONIC`.
    pub fn at(&self, address: IpAddr, time_ns: u64) -> Option<&Arc<Peer>> {
        let address = address.to_canonical();
        let holding = self.by_address.get(&address).filter(|holding| holding.from_ns <= time_ns);
        if let Some(holding) = holding {
            return self.owners.get(&holding.uid).map(|owner| &owner.peer);
        }
        let mut former = self.former.get(&address)?.iter();
        former.find(|former| (former.from_ns..former.end_ns).contains(&time_ns)).map(|former| &former.peer)
    }

    /// How many addresses are known, and how many were refused; nothing where nobody tells.
    pub fn metrics(&self, start_unix_ns: u64) -> Vec<Metric> {
        if self.listings.iter().all(|listing| listing.number == 0) {
            return Vec::new();
        }
        let count = |kind: PeerKind, name: &'static str| {
            let owners = self.owners.values().filter(|owner| owner.peer.kind == kind);
            let addresses = owners.map(|owner| owner.addresses.len()).sum::<usize>();
            let attributes = vec![("kansoku.peer.kind".into(), name.into())];
            Point::number(MetricOwner::Agent, attributes, start_unix_ns, addresses as f64)
        };
        let refused = Point::number(MetricOwner::Agent, Vec::new(), start_unix_ns, self.refused as f64);
        vec![
            Metric::new(
                MetricKind::Gauge,
                "kansoku.peers.addresses",
                "{address}",
                "Addresses of the cluster whose pod or Service is known.",
            )
            .with(vec![count(PeerKind::Pod, "pod"), count(PeerKind::Service, "service")]),
            Metric::new(
                MetricKind::Counter,
                "kansoku.peers.refused",
                "{address}",
                "Addresses of the cluster that were not remembered, because there are too many.",
            )
            .with(vec![refused]),
        ]
    }

    fn insert(&mut self, object: PeerObject, now_ns: u64) {
        let PeerObject { uid, created_unix_s, addresses, peer } = object;
        let listing = self.listings[peer.kind as usize];
        let before = self.owners.remove(&uid);
        let peer = match &before {
            Some(owner) if *owner.peer == peer => Arc::clone(&owner.peer),
            _ => Arc::new(peer),
        };
        if let Some(owner) = before {
            let left = owner.addresses.iter().filter(|address| !addresses.contains(address));
            left.for_each(|address| self.release(*address, uid, &owner.peer, now_ns));
        }
        let from_ns = if listing.is_live { now_ns.saturating_sub(LAG_NS) } else { 0 };
        let taken: Box<[IpAddr]> = addresses
            .iter()
            .take(ADDRESSES_PER_OWNER_MAX)
            .map(IpAddr::to_canonical)
            .filter(|address| self.take(*address, uid, created_unix_s, from_ns, now_ns))
            .collect();
        if !taken.is_empty() {
            let owner = Owner { peer, created_unix_s, addresses: taken, list: listing.number };
            self.owners.insert(uid, owner);
        }
    }

    /// Gives an address to an owner, unless a newer one has it.
    fn take(&mut self, address: IpAddr, uid: u128, created_unix_s: i64, from_ns: u64, now_ns: u64) -> bool {
        match self.by_address.get(&address).copied() {
            Some(holding) if holding.uid == uid => return true,
            Some(holding) => {
                let other = self.owners.get_mut(&holding.uid);
                if other.as_ref().is_some_and(|other| other.created_unix_s > created_unix_s) {
                    return false;
                }
                if let Some(other) = other {
                    other.addresses = other.addresses.iter().copied().filter(|own| *own != address).collect();
                    let peer = Arc::clone(&other.peer);
                    if other.addresses.is_empty() {
                        self.owners.remove(&holding.uid);
                    }
                    self.release(address, holding.uid, &peer, now_ns);
                }
            }
            None if self.by_address.len() >= ADDRESSES_MAX => {
                self.refused += 1;
                return false;
            }
            None => {}
        }
        let ends = self.former.get(&address).and_then(|former| former.last()).map(|former| former.end_ns);
        let from_ns = from_ns.max(ends.unwrap_or(0));
        self.by_address.insert(address, Holding { uid, from_ns });
        true
    }

    fn remove(&mut self, uid: u128, now_ns: u64) {
        if let Some(owner) = self.owners.remove(&uid) {
            owner.addresses.iter().for_each(|address| self.release(*address, uid, &owner.peer, now_ns));
        }
    }

    /// What the list that ends did not tell is gone.
    fn end_list(&mut self, kind: PeerKind, now_ns: u64) {
        let listing = &mut self.listings[kind as usize];
        listing.is_live = true;
        let number = listing.number;
        let is_gone = |owner: &Owner| owner.peer.kind == kind && owner.list != number;
        let owners = self.owners.iter().filter(|(_, owner)| is_gone(owner));
        let gone: Vec<u128> = owners.map(|(uid, _)| *uid).collect();
        gone.into_iter().for_each(|uid| self.remove(uid, now_ns));
    }

    /// An address is nobody's any more; who had it is remembered for a while.
    fn release(&mut self, address: IpAddr, uid: u128, peer: &Arc<Peer>, now_ns: u64) {
        let Some(holding) = self.by_address.get(&address).copied().filter(|holding| holding.uid == uid)
        else {
            return;
        };
        self.by_address.remove(&address);
        while self.ages.len() >= FORMER_MAX
            || self.ages.front().is_some_and(|(end_ns, _)| end_ns + FORMER_KEEP_NS <= now_ns)
        {
            self.forget_oldest();
        }
        let former = Former { peer: Arc::clone(peer), from_ns: holding.from_ns, end_ns: now_ns };
        self.former.entry(address).or_default().push(former);
        self.ages.push_back((now_ns, address));
    }

    fn forget_oldest(&mut self) {
        let Some((_, address)) = self.ages.pop_front() else { return };
        if let Some(former) = self.former.get_mut(&address) {
            former.remove(0);
            if former.is_empty() {
                self.former.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn object(uid: u128, kind: PeerKind, created_unix_s: i64, addresses: &[&str]) -> PeerEvent {
        let facts =
            Facts { has_metadata: true, ..Facts::of_pod("shop", &format!("p{uid}"), &uid.to_string(), "") };
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let peer = Peer::of(kind, &facts, &Choice::default());
        PeerEvent::Here(Box::new(PeerObject { uid, created_unix_s, addresses, peer }))
    }

    fn pod(uid: u128, created_unix_s: i64, address: &str) -> PeerEvent {
        object(uid, PeerKind::Pod, created_unix_s, &[address])
    }

    /// After these events at their seconds: who is at an address for a connection that began at some second.
    fn check(events: &[(u64, PeerEvent)], expected: &[(&str, u64, Option<&str>)]) {
        let mut peers = Peers::default();
        for (time_s, event) in events {
            peers.on_event(event.clone(), time_s * S);
        }
        for (address, began_s, name) in expected {
            let found = peers.at(address.parse().expect("an address"), began_s * S);
            assert_eq!(found.map(|peer| &*peer.name), *name, "{address} at {began_s} s: {peers:#?}");
        }
        let addresses: usize = peers.owners.values().map(|owner| owner.addresses.len()).sum();
        assert_eq!(peers.by_address.len(), addresses);
        assert_eq!(peers.ages.len(), peers.former.values().map(Vec::len).sum::<usize>());
    }

    #[test]
    fn what_was_there_before_us_names_all_connections() {
        let begin = (100, PeerEvent::Begin(PeerKind::Pod));
        check(
            &[begin, (100, pod(1, 5, "10.0.0.1"))],
            &[("10.0.0.1", 0, Some("p1")), ("::ffff:10.0.0.1", 200, Some("p1")), ("10.0.0.2", 200, None)],
        );
    }

    #[test]
    fn who_comes_later_names_what_began_shortly_before_but_nothing_older() {
        let events = [(100, PeerEvent::Live(PeerKind::Pod)), (200, pod(1, 5, "10.0.0.1"))];
        check(
            &events,
            &[("10.0.0.1", 169, None), ("10.0.0.1", 170, Some("p1")), ("10.0.0.1", 300, Some("p1"))],
        );
    }

    #[test]
    fn a_reused_address_is_the_newest_owners_and_the_former_keeps_its_connections() {
        let live = (1, PeerEvent::Live(PeerKind::Pod));
        let reused = [
            live.clone(),
            (100, pod(1, 100, "10.0.0.1")),
            (200, PeerEvent::Gone(1)),
            (210, pod(2, 209, "10.0.0.1")),
        ];
        check(
            &reused,
            &[("10.0.0.1", 199, Some("p1")), ("10.0.0.1", 200, Some("p2")), ("10.0.0.1", 300, Some("p2"))],
        );
        // The same before the end of the first is told, and what is told of the first afterwards.
        let late = [
            live.clone(),
            (100, pod(1, 100, "10.0.0.1")),
            (210, pod(2, 209, "10.0.0.1")),
            (211, pod(1, 100, "10.0.0.1")),
            (212, PeerEvent::Gone(1)),
        ];
        check(&late, &[("10.0.0.1", 209, Some("p1")), ("10.0.0.1", 210, Some("p2"))]);
        // In a list the order says nothing, the time of creation does.
        check(&[(0, pod(2, 209, "10.0.0.1")), (0, pod(1, 100, "10.0.0.1"))], &[("10.0.0.1", 9, Some("p2"))]);
    }

    #[test]
    fn addresses_that_go_and_change() {
        let gone = [(0, pod(1, 1, "10.0.0.1")), (5, PeerEvent::Gone(1)), (5, PeerEvent::Gone(7))];
        check(&gone, &[("10.0.0.1", 4, Some("p1")), ("10.0.0.1", 5, None)]);
        let both = object(1, PeerKind::Pod, 1, &["10.0.0.1", "fd00::1", "10.0.0.3"]);
        let moved = [(0, both), (5, pod(1, 1, "10.0.0.2"))];
        check(
            &moved,
            &[
                ("fd00::1", 4, Some("p1")),
                ("fd00::1", 6, None),
                ("10.0.0.2", 6, Some("p1")),
                ("10.0.0.3", 4, None),
            ],
        );
    }

    #[test]
    fn a_list_without_it_tells_that_it_is_gone_of_its_kind_only() {
        let service = object(9, PeerKind::Service, 1, &["10.96.0.1"]);
        let events = [
            (0, PeerEvent::Begin(PeerKind::Pod)),
            (0, pod(1, 1, "10.0.0.1")),
            (0, pod(2, 1, "10.0.0.2")),
            (0, service),
            (1, PeerEvent::Live(PeerKind::Pod)),
            (50, PeerEvent::Begin(PeerKind::Pod)),
            (50, pod(2, 1, "10.0.0.2")),
            (51, PeerEvent::Live(PeerKind::Pod)),
        ];
        check(
            &events,
            &[
                ("10.0.0.1", 60, None),
                ("10.0.0.1", 50, Some("p1")),
                ("10.0.0.2", 60, Some("p2")),
                ("10.96.0.1", 60, Some("p9")),
            ],
        );
    }

    #[test]
    fn too_many_are_counted() {
        let mut peers = Peers::default();
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number)).to_string();
        for number in 0..ADDRESSES_MAX as u32 + 3 {
            peers.on_event(pod(number.into(), 1, &address(number)), S);
        }
        assert_eq!(
            (peers.by_address.len(), peers.owners.len(), peers.refused),
            (ADDRESSES_MAX, ADDRESSES_MAX, 3)
        );
        for number in 0..ADDRESSES_MAX as u32 {
            peers.on_event(PeerEvent::Gone(number.into()), 2 * S);
        }
        assert_eq!((peers.owners.len(), peers.ages.len()), (0, FORMER_MAX));
        peers.on_event(pod(1, 1, "10.9.9.9"), 3 * S);
        peers.on_event(PeerEvent::Gone(1), 3 * S + FORMER_KEEP_NS);
        assert_eq!((peers.ages.len(), peers.former.len()), (1, 1), "what is old is forgotten");
    }

    #[test]
    fn a_peer_has_the_name_of_its_service() {
        let mut facts = Facts { has_metadata: true, ..Facts::of_pod("shop", "cart-7d9c-x", "1", "") };
        let name = |facts: &Facts| {
            let peer = Peer::of(PeerKind::Pod, facts, &Choice::default());
            (peer.service_namespace().to_owned(), peer.service_name().to_owned())
        };
        assert_eq!(name(&facts), ("shop".to_owned(), "cart-7d9c-x".to_owned()));
        facts.labels.insert("app.kubernetes.io/name".to_owned(), "cart".to_owned());
        facts.annotations.insert("resource.opentelemetry.io/service.namespace".to_owned(), "eu".to_owned());
        assert_eq!(name(&facts), ("eu".to_owned(), "cart".to_owned()));
    }
}
