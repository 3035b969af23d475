//! The ends of a connection, and how both of them name it.
//!
//! Addresses are not enough: NAT gives each end others, and two network namespaces may have the same. The first sequence
//! numbers of TCP are the same at both ends. Refuses: tables of translations.

use std::net::{Ipv4Addr, SocketAddr};

use collector_common::flow::Ends as RawEnds;

use crate::address;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// This side.
    pub local: SocketAddr,
    /// The other side; its address is unspecified where the socket does not know (UDP servers).
    pub peer: SocketAddr,
}

/// A connection, under a name that both of its ends know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// By its addresses, the client's first: where no more is known.
    Addresses(Ends),
    /// By a number that the kernel has at both ends.
    Number(u64),
    /// Datagrams, by who asks: a server that listens at all addresses of its host does not know at which one it was asked.
    Asker(SocketAddr),
}

/// One end of a connection, under a name that the other end can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// By its addresses, its own first.
    Addresses(Ends),
    /// By the connection's number, and which end it is.
    Numbered {
        /// The number.
        number: u64,
        /// Whether it is the client's end.
        is_client: bool,
    },
}

impl Ends {
    /// As the kernel tells them.
    pub fn of(raw: &RawEnds) -> Self {
        let unknown = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let address = |index: usize| {
            let port = raw.ports[index];
            address::of(raw.family, raw.addresses[index], port).unwrap_or_else(|| unknown(port))
        };
        Self { local: address(0), peer: address(1) }
    }

    /// The same connection, seen from its other end.
    pub fn reversed(self) -> Self {
        Self { local: self.peer, peer: self.local }
    }
}

impl Line {
    /// The client's end of it, where that is known by this name.
    pub fn client_end(self) -> Option<End> {
        match self {
            Self::Addresses(ends) => Some(End::Addresses(ends)),
            Self::Number(number) => Some(End::Numbered { number, is_client: true }),
            Self::Asker(_) => None,
        }
    }
}

impl End {
    /// The other end of the connection.
    pub fn other(self) -> Self {
        match self {
            Self::Addresses(ends) => Self::Addresses(ends.reversed()),
            Self::Numbered { number, is_client } => Self::Numbered { number, is_client: !is_client },
        }
    }
}
