//! Who is at the other end of a connection: whom its address names, and the pod behind the IP of a Service.
//!
//! A stream keeps whom it found, whoever has the address later; a datagram socket can outlive its peer, so there the time of the
//! exchange counts. Refuses: names of ends on this node, which know each other by their bytes.

use std::sync::Arc;

use collector_common::flow::Role;

use super::super::ends::Ends;
use super::super::translations::Translations;
use super::Connection;
use crate::identity::{Peer, PeerKind, Peers};
use crate::kernel::Route;

impl Connection {
    /// Looks for who is at the other end.
    pub fn find_peer(&mut self, peers: &Peers, translations: &mut Translations, exchange_ns: u64) {
        let time_ns = if self.is_datagram() { exchange_ns } else { self.began_ns };
        if self.peer.is_none() || self.is_datagram() {
            let found = peers.at(self.ends.peer.ip(), time_ns);
            if self.peer.as_ref() != found {
                self.peer = found.cloned();
                self.edge = None;
            }
        }
        if self.backend.is_none() || self.is_datagram() {
            self.find_backend(peers, translations, time_ns);
        }
    }

    /// Looks for the pod that a client's connection goes to instead of the IP of a Service.
    fn find_backend(&mut self, peers: &Peers, translations: &mut Translations, time_ns: u64) {
        let is_service = self.peer.as_ref().is_some_and(|peer| peer.kind == PeerKind::Service);
        let is_asked = is_service && self.role != Role::Server;
        if !is_asked || self.is_datagram() {
            self.translation = None;
        }
        if is_asked && self.translation.is_none() {
            let Ends { local: from, peer: to } = self.ends;
            self.translation = translations.of(Route { is_datagram: self.is_datagram(), from, to });
        }
        let address = self.translation.flatten();
        let found = address.and_then(|address| peers.at(address.ip(), time_ns));
        if self.backend.as_ref() != found {
            self.backend = found.cloned();
            self.edge = None;
        }
    }

    /// Whom the address names.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
    }

    /// The pod behind the IP of a Service, once that is known.
    pub fn backend(&self) -> Option<&Arc<Peer>> {
        self.backend.as_ref()
    }

    /// Who is called over it: the pod that answers, or else whom the address names.
    pub fn callee(&self) -> Option<&Arc<Peer>> {
        self.backend().or_else(|| self.peer())
    }

    /// The connection as its other end sees it, as far as the node translates its address.
    pub fn translated(&self) -> Option<Ends> {
        self.translation.flatten().map(|server| Ends { local: server, peer: self.ends.local })
    }
}
