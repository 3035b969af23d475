//! Asks the node's connection tracking where a connection goes whose address is translated: to which pod behind a Service's IP.
//!
//! Source: ctnetlink, `IPCTNL_MSG_CT_GET` (net/netfilter/nf_conntrack_netlink.c), which answers within the call. kube-proxy's rules
//! translate in the node's own network namespace. Refuses: dumps of the table, and what pods translate in theirs.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Network namespaces that may be the node's: that of its first process, and where that may not be looked at, the own one.
const NODE_NETWORKS: [&str; 2] = ["/proc/1/ns/net", "/proc/self/ns/net"];

/// Bytes of an answer; one has some 300.
const ANSWER_BYTES_MAX: usize = 4_096;

/// Answers to earlier questions that may lie before the one that is wanted.
const STALE_MAX: usize = 8;

/// The node's network namespace, as far as it can be found.
pub fn node_network() -> Option<&'static Path> {
    NODE_NETWORKS.iter().map(Path::new).find(|path| std::fs::metadata(path).is_ok())
}

/// A connection as the one who asked for it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether it is UDP, and not TCP.
    pub is_datagram: bool,
    /// The client's own address.
    pub from: SocketAddr,
    /// The address that it asked for.
    pub to: SocketAddr,
}

/// A line to the connection tracking of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: OwnedFd,
    sequence: u32,
    answer: Box<[u8; ANSWER_BYTES_MAX]>,
}

impl Conntrack {
    /// Opens it in the namespace of this file (`/proc/1/ns/net`), and tries it.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered (another one than the own needs `CAP_SYS_ADMIN`), or nobody answers there (asking needs
    /// `CAP_NET_ADMIN`, and a kernel with ctnetlink).
    pub fn open(namespace: &Path) -> Result<Self> {
        let socket = socket_in(namespace)?;
        let mut conntrack = Self { socket, sequence: 0, answer: Box::new([0; ANSWER_BYTES_MAX]) };
        let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        conntrack
            .destination(Route { is_datagram: false, from: nobody, to: nobody })
            .context("ask the kernel's connection tracking: CAP_NET_ADMIN is needed")?;
        Ok(conntrack)
    }

    /// Where a connection goes; `None` if nobody translates it, or it is not known (any more).
    ///
    /// # Errors
    ///
    /// If the kernel refuses to say, or says what cannot be understood.
    pub fn destination(&mut self, route: Route) -> io::Result<Option<SocketAddr>> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, &question(route, self.sequence), SendFlags::empty())?;
        for _ in 0..STALE_MAX {
            let (length, _) = recv(&self.socket, &mut self.answer[..], RecvFlags::DONTWAIT)?;
            let answer = self.answer.get(..length).unwrap_or_default();
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(answer).map_err(invalid)?;
            if answer.header.sequence_number == self.sequence {
                return Ok(destination(answer.payload)?.filter(|found| *found != route.to));
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// A socket stays in the namespace that it was opened in, so that a thread that ends can open it.
fn socket_in(namespace: &Path) -> Result<OwnedFd> {
    let file = File::open(namespace)
        .with_context(|| format!("open the node's network namespace {}", namespace.display()))?;
    let own = std::fs::metadata("/proc/self/ns/net").context("find the own network namespace")?.ino();
    let open = || {
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))
    };
    if file.metadata().context("look at the node's network namespace")?.ino() == own {
        return open().context("open a netlink socket");
    }
    let opened = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        open()
    });
    let opened = opened.join().map_err(|_| anyhow!("the thread that opens a netlink socket panicked"))?;
    opened.with_context(|| {
        format!("enter {}: CAP_SYS_ADMIN is needed, or the node's network (hostNetwork)", namespace.display())
    })
}

fn question(Route { is_datagram, from, to }: Route, sequence: u32) -> Vec<u8> {
    let protocol = if is_datagram { Protocol::Udp } else { Protocol::Tcp };
    let get = ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(tuple(protocol, from, to))]);
    let family = if to.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
    packet(family, sequence, get)
}

/// One direction of a connection.
fn tuple(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Vec<Tuple> {
    vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(from.ip()), IPTuple::DestinationAddress(to.ip())]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(protocol),
            ProtoTuple::SourcePort(from.port()),
            ProtoTuple::DestinationPort(to.port()),
        ]),
    ]
}

fn packet(family: NetfilterProtoFamily, sequence: u32, message: ConntrackMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Who answers the client: whoever got what it sent.
fn destination(payload: NetlinkPayload<NetfilterMessage>) -> io::Result<Option<SocketAddr>> {
    let attributes = match payload {
        NetlinkPayload::Error(error) => {
            let error = error.to_io();
            let is_unknown = error.raw_os_error() == Some(Errno::NOENT.raw_os_error());
            return if is_unknown { Ok(None) } else { Err(error) };
        }
        NetlinkPayload::InnerMessage(NetfilterMessage {
            inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
            ..
        }) => attributes,
        _ => return Ok(None),
    };
    let reply = attributes.into_iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleReply(tuple) => Some(tuple),
        _ => None,
    });
    let (mut ip, mut port) = (None, None);
    for part in reply.iter().flatten() {
        match part {
            Tuple::Ip(parts) => ip = parts.iter().find_map(source_ip),
            Tuple::Proto(parts) => port = parts.iter().find_map(source_port),
            _ => {}
        }
    }
    Ok(ip.zip(port).map(|(ip, port)| SocketAddr::new(ip, port)))
}

fn source_ip(part: &IPTuple) -> Option<IpAddr> {
    match part {
        IPTuple::SourceAddress(ip) => Some(*ip),
        _ => None,
    }
}

fn source_port(part: &ProtoTuple) -> Option<u16> {
    match part {
        ProtoTuple::SourcePort(port) => Some(*port),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// What the kernel says of a connection from `10.1.0.5:4000` to `10.96.0.1:80` that goes to `destination`.
    fn answer(destination: &str) -> Vec<u8> {
        let client = address("10.1.0.5:4000");
        let new = ConntrackMessage::New(vec![
            ConntrackAttribute::CtaTupleOrig(tuple(Protocol::Tcp, client, address("10.96.0.1:80"))),
            ConntrackAttribute::CtaTupleReply(tuple(Protocol::Tcp, address(destination), client)),
        ]);
        packet(NetfilterProtoFamily::IPv4, 1, new)
    }

    fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).ok()?;
        destination(message.payload).ok().flatten()
    }

    #[test]
    fn answers_whole_and_cut() {
        let whole = answer("10.244.3.9:8080");
        assert_eq!(read(&whole), Some(address("10.244.3.9:8080")));
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
        // A length that is none, and one beyond the end, in each byte.
        for at in 0..whole.len() {
            for byte in [0, 1, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let _none_or_another = read(&bytes);
            }
        }
    }

    /// The kernel of this machine, which needs `CAP_NET_ADMIN` here as everywhere.
    #[test]
    fn nobody_knows_a_connection_that_is_not_there() {
        let mut conntrack = Conntrack::open(Path::new("/proc/self/ns/net")).expect("root asks");
        for (from, to) in [("192.0.2.1:1", "192.0.2.2:2"), ("[2001:db8::1]:1", "[2001:db8::2]:2")] {
            for is_datagram in [false, true] {
                let route = Route { is_datagram, from: address(from), to: address(to) };
                assert_eq!(conntrack.destination(route).expect("an answer"), None, "{route:?}");
            }
        }
        assert!(Conntrack::open(Path::new("/proc/self/ns/none")).is_err());
    }
}
