//! What the kernel side tells of connections: that one is used, what was said over it, that it ended.
//!
//! Refuses: meaning. A message is some bytes that one call moved; where requests begin is the daemon's business.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Head, Task};
use crate::limits::{CAPTURE_BYTES_MAX, UNIX_PATH_BYTES};

/// Who began a connection, seen from this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// It was there before the agent, or has no beginning (UDP).
    Unknown = 0,
    /// This side connected.
    Client = 1,
    /// This side accepted.
    Server = 2,
}

/// Which way a message went, seen from this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Way {
    /// This side sent it.
    Sent = 0,
    /// This side received it.
    Received = 1,
}

/// What carries a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Transport {
    /// TCP
    Tcp = 0,
    /// UDP
    Udp = 1,
    /// A Unix socket of type `SOCK_STREAM`
    Unix = 2,
}

/// What a thread spent its time on. The order of [`Times`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Spent {
    /// Running on a CPU.
    OnCpu = 0,
    /// Ready to run, waiting for a CPU.
    RunQueue = 1,
    /// Asleep in a futex.
    Lock = 2,
    /// Asleep for a disk.
    Disk = 3,
    /// Asleep in a call on a socket or in a poll.
    Network = 4,
    /// Asleep for another reason.
    Other = 5,
}

/// Kinds of [`Spent`].
pub const SPENT_KINDS: usize = 6;

/// Nanoseconds by [`Spent`], since the agent first met the thread.
pub type Times = [u64; SPENT_KINDS];

/// The ends of a connection, as this socket knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Ends {
    /// Local and remote address, IPv4 ones in the first four bytes.
    pub addresses: [[u8; 16]; 2],
    /// Local and remote port.
    pub ports: [u16; 2],
    /// Address family, `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u16,
}

/// What the kernel side knows of a connection, as it stands in its maps.
///
/// What each message reads and writes comes first and is 64 bytes, one line of a processor's cache (see [`StreamPlace`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConnectionState {
    /// Address of the socket.
    pub sock: u64,
    /// The connection's number.
    pub number: u64,
    /// Bytes by [`Way`], since it was met.
    pub moved: [u64; 2],
    /// Messages of both ways.
    pub messages: u32,
    /// Turns of direction.
    pub turns: u32,
    /// The process that used it last.
    pub tgid: u32,
    /// Messages that one call sent before: `sendmmsg` tells of each on its own.
    pub batch: u32,
    /// The same for both ends of a connection.
    pub wire: u32,
    /// A [`Way`], or a number that is none.
    pub last_way: u8,
    /// The [`Way`] of the first message, or a number that is none.
    pub first_way: u8,
    /// A [`Role`]
    pub role: u8,
    /// A [`Transport`]
    pub transport: u8,
    /// Whether the exchange that goes on is left out.
    pub is_skipping: u16,
    /// Whether any was since the last message that the daemon has.
    pub has_skipped: u16,
    /// Turns of direction until the last message that found room in the ring, it included.
    pub told_turns: u32,
    /// When it was last used, seconds of `CLOCK_MONOTONIC`, where no end is told.
    pub used_s: u32,
    /// The state that it was in after being established; 0 while it is.
    pub left: u32,
    /// Begin of its connect, `CLOCK_MONOTONIC`; 0 if it was accepted or its begin was not seen.
    pub begun_ns: u64,
    /// When it was established, likewise; 0 if that was not seen.
    pub opened_ns: u64,
    /// The first numbers of both directions, of the client's in the upper half: both ends have the same, whatever rewrites the
    /// addresses between them. 0 if its begin was not seen.
    pub sequence: u64,
    /// The process that connected.
    pub opener: u32,
    /// Local port of UDP sockets, inode of Unix ones: another one is another socket at the same address.
    pub port: u32,
}

/// A place for a TCP connection, by the hash of its socket's address. Two lines of a processor's cache, as long as the first
/// place stands at the beginning of one: so it does in a map that user space may map (kernel 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct StreamPlace {
    /// Who has it; [`ConnectionState::sock`] is 0 if nobody does.
    pub connection: ConnectionState,
    /// Who has it and who tries to, counted.
    pub claims: u64,
    /// Nothing.
    pub rest: [u64; 2],
}

const _: () = {
    const LINE_BYTES: usize = 64;
    assert!(core::mem::offset_of!(ConnectionState, used_s) == LINE_BYTES);
    assert!(size_of::<StreamPlace>() == 2 * LINE_BYTES);
};

/// A connection is established, or a process uses it for the first time, or instead of another process. Of one that is
/// established the task has no thread: it is who connected, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct OpenRecord {
    /// The head.
    pub head: Head,
    /// Who uses it.
    pub task: Task,
    /// Number of the connection, never used again.
    pub connection: u64,
    /// Its ends.
    pub ends: Ends,
    /// A [`Role`]
    pub role: u32,
    /// Nothing.
    pub padding: u32,
    /// [`ConnectionState::sequence`]
    pub sequence: u64,
    /// Where the kernel keeps its state: the socket's address, or of UDP its place.
    pub key: u64,
}

/// As [`OpenRecord`], of a Unix socket. `ends` has no addresses: the path stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct UnixOpenRecord {
    /// What all connections have.
    pub open: OpenRecord,
    /// Where the server listens: a path, or after a zero a name of no file.
    pub path: [u8; UNIX_PATH_BYTES],
    /// Bytes of it.
    pub path_bytes: u32,
}

/// Whom a datagram goes to that one call sends over a socket without a fixed peer. Comes before its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AddresseeRecord {
    /// The head.
    pub head: Head,
    /// Number of the connection.
    pub connection: u64,
    /// Its address, an IPv4 one in the first four bytes.
    pub address: [u8; 16],
    /// Number of the message.
    pub number: u32,
    /// Its port.
    pub port: u16,
    /// Address family, `AF_INET` or `AF_INET6`.
    pub family: u16,
}

/// What one call moved. The captured bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MessageHead {
    /// The head; its time is that of the call's end.
    pub head: Head,
    /// Number of the connection.
    pub connection: u64,
    /// Bytes that went the same way before.
    pub position: u64,
    /// Bytes moved.
    pub length: u32,
    /// Bytes of them that follow this head.
    pub captured: u32,
    /// Process id of the caller.
    pub tgid: u32,
    /// Thread id of the caller.
    pub tid: u32,
    /// Number of the message in its connection, of both ways together.
    pub number: u32,
    /// How often the direction had changed, this message included.
    pub turns: u32,
    /// A [`Way`]
    pub way: u16,
    /// 1 if exchanges before it were left out because there were too many on the node.
    pub is_after_skip: u16,
    /// Grows each time that the thread asks an event queue (epoll) what is next. Where that may have been missed, no two
    /// messages have the same.
    pub polls: u32,
    /// When the call began; 0 if that is not known.
    pub begun_ns: u64,
    /// What the thread spent its time on until now.
    pub times: Times,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    /// Its head.
    pub head: &'a MessageHead,
    /// Its first bytes.
    pub bytes: &'a [u8],
}

/// A TCP connection ended, or could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CloseRecord {
    /// The head.
    pub head: Head,
    /// Number of the connection.
    pub connection: u64,
    /// Messages of both ways.
    pub messages: u32,
    /// Turns of direction.
    pub turns: u32,
    /// [`ConnectionState::begun_ns`]
    pub begun_ns: u64,
    /// [`ConnectionState::opened_ns`]
    pub opened_ns: u64,
    /// Bytes by [`Way`] without those that were sent again, since the socket is there.
    pub bytes: [u64; 2],
    /// The same as far as calls on sockets told, since the connection was met.
    pub moved: [u64; 2],
    /// Segments by [`Way`], acknowledgements included.
    pub segments: [u32; 2],
    /// Segments that were sent again.
    pub retransmits: u32,
    /// `errno` that the socket ended with; 0 for none.
    pub error: u32,
    /// TCP states (include/net/tcp_states.h): the first one after ESTABLISHED, 0 for none; and the last one.
    pub states: [u32; 2],
    /// Id of the socket's cgroup; 0 for none.
    pub cgroup_id: u64,
    /// The process that connected, or else used it last; 0 if there was none.
    pub tgid: u32,
    /// A [`Role`]
    pub role: u32,
    /// Its ends.
    pub ends: Ends,
    /// Exchanges that began after the last message that found room in the ring.
    pub untold_exchanges: u64,
}

impl<'a> Message<'a> {
    /// Splits the bytes of a record; `None` if they are not one message.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = MessageHead::ref_from_prefix(bytes).ok()?;
        let bytes = rest.get(..head.captured as usize)?;
        (head.captured <= head.length && bytes.len() <= CAPTURE_BYTES_MAX).then_some(Self { head, bytes })
    }
}

/// How many bytes of each message of a connection the daemon wants, packed for the kernel's table: whose it is, bytes sent,
/// bytes received.
pub const fn pack_decision(connection: u64, sent_bytes: u16, received_bytes: u16) -> u64 {
    (connection & 0xffff_ffff) << 32 | (sent_bytes as u64) << 16 | received_bytes as u64
}

const _: () = assert!(size_of::<MessageHead>() == 120);
const _: () = assert!(size_of::<MessageHead>().is_multiple_of(8));
