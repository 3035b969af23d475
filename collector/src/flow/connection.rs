//! One connection: whose it is, which protocol it speaks, and where its bytes are.
//!
//! Refuses: to guess a protocol that the first messages do not show.

mod ending;
mod peer;

use std::net::SocketAddr;
use std::sync::Arc;

use collector_common::flow::{Message, OpenRecord, Role, UnixOpenRecord, Way};

use super::ends::{End, Ends, Line};
use super::network::Account;
use super::protocol::{
    Direction, Mark, Output, Parser, Pattern, Piece, Progress, Protocol, Transport, detect,
};
use super::service_map::EdgeId;
use crate::identity::{Peer, Subject};
use crate::telemetry::{ProcessName, SpanKind};
use ending::give_up;

/// Messages with captured bytes that may show no protocol before the connection is left alone.
const UNRECOGNISED_MAX: u32 = 12;

/// Bytes that a connection may begin with before the call that shows its protocol: the length of a message, read by itself.
const OPENING_BYTES_MAX: usize = 16;

/// A hole of unknown length: longer than any message.
const HOLE_BYTES: u64 = 1 << 40;

/// `IPPROTO_UDP`
pub const UDP: u16 = 17;

/// Bytes of each message that a protocol is given: of requests, and of responses. Responses of HTTP are read for their head
/// alone, rows of a database by their lengths.
const fn wanted_bytes(protocol: Protocol) -> (u16, u16) {
    match protocol {
        Protocol::Http1 => (2048, 512),
        Protocol::Postgres => (8192, 8192),
        Protocol::Redis => (4096, 4096),
        Protocol::Dns => (2048, 2048),
    }
}

/// What the kernel side shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As before.
    Wait,
    /// Capture so many bytes of each message.
    Want {
        /// Of those sent.
        sent_bytes: u16,
        /// Of those received.
        received_bytes: u16,
    },
}

/// What lies between a message and the one before.
struct Advance {
    /// Bytes that went the same way and are missing.
    gap: u64,
    /// Whether the direction turned.
    is_turn: bool,
    /// Whether messages of the other direction may be missing: it turned more often than that, or a response may be cut short.
    has_lost_others: bool,
    /// Whether what waits for a response may have got it, or a part of it, among what is missing.
    may_be_answered: bool,
}

/// What one direction began with, too short to show a protocol.
struct Opening {
    way: Way,
    bytes: Vec<u8>,
    mark: Mark,
}

/// A connection.
pub struct Connection {
    /// Its number.
    pub number: u64,
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// The process that uses it.
    pub process: Arc<ProcessName>,
    /// Whether the two are known: nobody accepted it before something is said over it.
    pub is_owned: bool,
    /// Its ends; without addresses for Unix sockets.
    pub ends: Ends,
    /// Where the server of a Unix connection listens.
    pub path: Option<Arc<str>>,
    /// Whom the message with this number goes to.
    pub addressee: Option<(u32, SocketAddr)>,
    /// Where the kernel keeps its state.
    pub key: u64,
    /// Where it is counted, once that was decided.
    pub account: Option<Account>,
    /// Who began it, as far as it is known.
    pub role: Role,
    /// When it was last seen to be used.
    pub last_ns: u64,
    /// When something was last said.
    pub heard_ns: u64,
    /// Whether the kernel side was found without it.
    pub is_gone: bool,
    /// Who calls whom over it, once that was asked.
    pub edge: Option<EdgeId>,
    /// Who is at the other end, once that is known.
    peer: Option<Arc<Peer>>,
    /// Where it goes instead of the IP of a Service; the outer `None` until that was asked.
    translation: Option<Option<SocketAddr>>,
    /// Which pod is there.
    backend: Option<Arc<Peer>>,
    began_ns: u64,
    /// A number that both ends have; 0 if there is none.
    sequence: u64,
    transport: Transport,
    parser: Option<Parser>,
    opening: Option<Box<Opening>>,
    /// Messages that showed no protocol; above the maximum none is looked for.
    unrecognised: u32,
    /// The next byte of each way; `None` after exchanges that were left out.
    positions: [Option<u64>; 2],
    last_number: u32,
    last_turns: u32,
    last_direction: Option<Direction>,
    lost_exchanges: u64,
    /// Exchanges of which nothing came while no protocol was known.
    unproven_exchanges: u64,
}

impl Connection {
    /// A connection that is established, or used for the first time.
    pub fn new(record: &OpenRecord, owner: (Arc<Subject>, Arc<ProcessName>), is_owned: bool) -> Self {
        Self {
            number: record.connection,
            subject: owner.0,
            process: owner.1,
            is_owned,
            ends: Ends::of(&record.ends),
            path: None,
            addressee: None,
            key: record.key,
            account: None,
            role: role_of(record.role),
            last_ns: record.head.time_ns,
            heard_ns: record.head.time_ns,
            is_gone: false,
            edge: None,
            peer: None,
            translation: None,
            backend: None,
            began_ns: record.head.time_ns,
            sequence: record.sequence,
            transport: if record.ends.protocol == UDP { Transport::Udp } else { Transport::Tcp },
            parser: None,
            opening: None,
            unrecognised: 0,
            // Those of a stream are known from its begin on.
            positions: [(record.ends.protocol != UDP).then_some(0); 2],
            last_number: 0,
            last_turns: 0,
            last_direction: None,
            lost_exchanges: 0,
            unproven_exchanges: 0,
        }
    }

    /// Likewise, of Unix sockets.
    pub fn of_unix(record: &UnixOpenRecord, owner: (Arc<Subject>, Arc<ProcessName>)) -> Self {
        let path = record.path.get(..record.path_bytes as usize).unwrap_or_default();
        let path = Some(path_of(path));
        Self { path, positions: [None; 2], ..Self::new(&record.open, owner, true) }
    }

    /// A process takes it up, or goes on with it.
    pub fn set_owner(&mut self, owner: (Arc<Subject>, Arc<ProcessName>)) {
        (self.subject, self.process) = owner;
        self.is_owned = true;
        self.edge = None;
    }

    /// This end of it, as the other end can name it.
    pub fn end(&self) -> End {
        let number = self.sequence;
        match (number, self.role) {
            (0, _) | (_, Role::Unknown) => End::Addresses(self.ends),
            (_, role) => End::Numbered { number, is_client: role == Role::Client },
        }
    }

    /// The connection, as both of its ends name it. `other` is the connection as its other end sees it, if that is known.
    pub fn line_of(&self, is_client: bool, other: Option<Ends>) -> Line {
        let asker = if is_client { Some(self.ends.local) } else { other.map(|other| other.local) };
        match asker.filter(|asker| self.is_datagram() && !asker.ip().is_unspecified()) {
            Some(asker) => Line::Asker(asker),
            None if self.sequence == 0 => Line::Addresses(self.client_first()),
            None => Line::Number(self.sequence),
        }
    }

    /// Its ends, the client's first.
    pub fn client_first(&self) -> Ends {
        match self.direction(Way::Sent) {
            Direction::Request => self.ends,
            Direction::Response => self.ends.reversed(),
        }
    }

    /// Where the server is: its path, or its address and port.
    pub fn server_name(&self) -> String {
        match &self.path {
            Some(path) => path.to_string(),
            None => self.client_first().peer.to_string(),
        }
    }

    /// Whether it tells when it ends.
    pub fn tells_end(&self) -> bool {
        !self.is_datagram() && self.path.is_none()
    }

    /// Whether nothing waits for its response.
    pub fn is_idle(&self) -> bool {
        self.parser.as_ref().is_none_or(Parser::is_idle)
    }

    /// Whether its begin was seen.
    pub fn was_seen_opening(&self) -> bool {
        self.sequence != 0 || self.is_datagram()
    }

    /// Whether it is a datagram socket, which never says that it ends.
    pub fn is_datagram(&self) -> bool {
        self.transport == Transport::Udp
    }

    /// The protocol, once it is known.
    pub fn protocol(&self) -> Option<Protocol> {
        self.parser.as_ref().map(Parser::protocol)
    }

    /// Takes a message; exchanges that it ends go to `output`.
    pub fn take(&mut self, message: &Message<'_>, output: &mut Output) -> Verdict {
        let head = message.head;
        self.last_ns = head.head.time_ns;
        self.heard_ns = head.head.time_ns;
        let way = if head.way == Way::Sent as u16 { Way::Sent } else { Way::Received };
        if head.is_after_skip != 0 {
            self.resume(output);
        }
        let Advance { gap, is_turn, has_lost_others, may_be_answered } = self.advance(message, way);
        if self.parser.is_none() {
            let goes_on = gap == 0 && !is_turn;
            return self.recognise(message, way, goes_on, output);
        }
        let mark = mark(message, way);
        let direction = self.direction(way);
        let Some(parser) = &mut self.parser else { return Verdict::Wait };
        let hole = |missing| Piece { bytes: &[], missing, is_turn: false, mark };
        if may_be_answered {
            // What comes now may answer something else.
            give_up(parser, head.head.time_ns, output);
            self.positions[1 - way as usize] = None;
        }
        if has_lost_others {
            // It lies before this message, and how long it is only the next one of its direction could tell.
            parser.take(direction.opposite(), hole(HOLE_BYTES), output);
        }
        if gap > 0 {
            parser.take(direction, hole(gap), output);
        }
        let piece = piece(message, is_turn, mark);
        match parser.take(direction, piece, output) {
            Progress::Leave => self.leave(),
            Progress::More => Verdict::Wait,
        }
    }

    /// Which side of an exchange this end of the connection is.
    pub fn side(&self, pattern: Pattern) -> SpanKind {
        match (pattern, self.role) {
            (Pattern::Call, Role::Server) => SpanKind::Server,
            (Pattern::Call, _) => SpanKind::Client,
            (Pattern::Publish, Role::Server) | (Pattern::Deliver, Role::Client | Role::Unknown) => {
                SpanKind::Consumer
            }
            (Pattern::Publish, _) | (Pattern::Deliver, Role::Server) => SpanKind::Producer,
        }
    }

    /// How bytes are carried.
    pub fn transport_name(&self) -> &'static str {
        match self.transport {
            _ if self.path.is_some() => "unix",
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
    }

    /// Which way bytes go when this side sends or receives them.
    pub fn direction(&self, way: Way) -> Direction {
        match (self.role, way) {
            (Role::Server, Way::Received) | (Role::Client | Role::Unknown, Way::Sent) => Direction::Request,
            (Role::Server, Way::Sent) | (Role::Client | Role::Unknown, Way::Received) => Direction::Response,
        }
    }

    /// About the memory that the state of its protocol takes.
    pub fn held_bytes(&self) -> usize {
        self.parser.as_ref().map_or(0, Parser::held_bytes)
    }

    /// Forgets what its protocol keeps: it begins anew in the middle of the connection.
    pub fn forget_state(&mut self, output: &mut Output) {
        if let Some(mut parser) = self.parser.take() {
            give_up(&mut parser, self.last_ns, output);
            self.parser = Some(parser.protocol().parser(self.transport));
            self.positions = [None; 2];
        }
    }

    /// Exchanges were left out: what comes next is a request. A parser that was in the middle of something begins anew.
    fn resume(&mut self, output: &mut Output) {
        self.positions = [None; 2];
        self.opening = None;
        let unfinished = self.parser.take_if(|parser| !parser.is_idle());
        if let Some(mut parser) = unfinished {
            give_up(&mut parser, self.last_ns, output);
            self.parser = Some(parser.protocol().parser(self.transport));
        }
    }

    /// Follows the positions and turns.
    fn advance(&mut self, message: &Message<'_>, way: Way) -> Advance {
        let head = message.head;
        let expected = self.positions[way as usize];
        self.positions[way as usize] = Some(head.position + u64::from(head.length));
        let turned = head.turns.wrapping_sub(self.last_turns);
        let has_lost = head.number.wrapping_sub(self.last_number) > 1 && self.counts_from_begin();
        let is_request = self.direction(way) == Direction::Request;
        let gap = match expected {
            Some(expected) => head.position.saturating_sub(expected),
            // The begin of a response is among what is missing, as far as can be told.
            None if has_lost && turned == 1 && !is_request => HOLE_BYTES,
            None => 0,
        };
        if has_lost {
            // Directions alternate: every second turn in the hole began a request that nobody saw.
            let turns = if is_request { turned.saturating_sub(1) } else { turned };
            let lost =
                if self.parser.is_some() { &mut self.lost_exchanges } else { &mut self.unproven_exchanges };
            *lost += u64::from(turns / 2);
        }
        let has_lost_others = has_lost && (turned > 1 || (turned == 1 && is_request));
        self.last_turns = head.turns;
        self.last_number = head.number;
        self.last_direction = Some(self.direction(way));
        Advance {
            gap,
            is_turn: turned != 0,
            has_lost_others,
            may_be_answered: has_lost_others || (has_lost && turned == 1 && gap > 0),
        }
    }

    /// Looks for a protocol. `goes_on` says that the message follows the one before without a gap or a turn.
    fn recognise(&mut self, message: &Message<'_>, way: Way, goes_on: bool, output: &mut Output) -> Verdict {
        if self.unrecognised > UNRECOGNISED_MAX || message.bytes.is_empty() {
            return Verdict::Wait;
        }
        let ports = [self.ends.local.port(), self.ends.peer.port()];
        let opening = self.opening.take().filter(|opening| goes_on && opening.way == way);
        let joined = opening.as_ref().map(|opening| [&opening.bytes, message.bytes].concat());
        let bytes = joined.as_deref().unwrap_or(message.bytes);
        let found = detect(bytes, self.transport, ports);
        let found = found.filter(|(_, direction)| self.fits(*direction, way));
        let Some((protocol, direction)) = found else {
            self.unrecognised += 1;
            let is_whole = message.bytes.len() as u64 == u64::from(message.head.length);
            if is_whole && bytes.len() <= OPENING_BYTES_MAX && self.transport == Transport::Tcp {
                let mark = opening.map_or_else(|| mark(message, way), |opening| opening.mark);
                self.opening = Some(Box::new(Opening { way, bytes: bytes.to_vec(), mark }));
            }
            return if self.unrecognised > UNRECOGNISED_MAX { self.leave() } else { Verdict::Wait };
        };
        if self.role == Role::Unknown {
            let is_client = (direction == Direction::Request) == (way == Way::Sent);
            self.role = if is_client { Role::Client } else { Role::Server };
        }
        let mut parser = protocol.parser(self.transport);
        // A piece that was cut for want of a decision is a hole in the middle of a message.
        if let Some(opening) = &opening {
            let first = Piece { bytes: &opening.bytes, missing: 0, is_turn: true, mark: opening.mark };
            parser.take(direction, first, output);
        }
        let piece = piece(message, opening.is_none(), mark(message, way));
        let progress = parser.take(direction, piece, output);
        if progress == Progress::Leave {
            return self.leave();
        }
        self.parser = Some(parser);
        self.lost_exchanges += std::mem::take(&mut self.unproven_exchanges);
        let (requests, responses) = wanted_bytes(protocol);
        let (sent_bytes, received_bytes) =
            if self.role == Role::Server { (responses, requests) } else { (requests, responses) };
        Verdict::Want { sent_bytes, received_bytes }
    }

    /// Nothing more is wanted of it, and no protocol is looked for any more.
    fn leave(&mut self) -> Verdict {
        self.parser = None;
        self.opening = None;
        self.unproven_exchanges = 0;
        self.unrecognised = UNRECOGNISED_MAX + 1;
        Verdict::Want { sent_bytes: 0, received_bytes: 0 }
    }

    /// Whether bytes of this direction may go this way.
    fn fits(&self, direction: Direction, way: Way) -> bool {
        self.role == Role::Unknown || self.direction(way) == direction
    }
}

/// A path as it is shown: names of no file begin with a zero, which is shown as `@` (unix(7), ss(8)).
fn path_of(bytes: &[u8]) -> Arc<str> {
    let text = match bytes {
        [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
        _ => String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned(),
    };
    text.into()
}

/// The role of a record.
pub fn role_of(number: u32) -> Role {
    match number {
        role if role == Role::Client as u32 => Role::Client,
        role if role == Role::Server as u32 => Role::Server,
        _ => Role::Unknown,
    }
}

fn mark(message: &Message<'_>, way: Way) -> Mark {
    let head = message.head;
    let time_ns = head.head.time_ns;
    let has_begin = way == Way::Sent && head.begun_ns != 0 && head.begun_ns < time_ns;
    Mark {
        begun_ns: if has_begin { head.begun_ns } else { time_ns },
        time_ns,
        thread: head.tid,
        polls: head.polls,
        position: head.position,
        times: head.times,
    }
}

fn piece<'a>(message: &Message<'a>, is_turn: bool, mark: Mark) -> Piece<'a> {
    let missing = u64::from(message.head.length).saturating_sub(message.bytes.len() as u64);
    Piece { bytes: message.bytes, missing, is_turn, mark }
}

#[cfg(test)]
mod tests;
