//! One connection: whose it is, which protocol it speaks, and where its bytes are.
//!
//! Refuses: to guess a protocol that the first messages do not show.

use std::net::SocketAddr;
use std::sync::Arc;

use collector_common::flow::{CloseRecord, Message, OpenRecord, Role, UnixOpenRecord, Way};

use super::ends::{End, Ends, Line};
use super::network::Account;
use super::protocol::{
    Direction, Mark, Output, Parser, Pattern, Piece, Progress, Protocol, Transport, detect,
};
use super::service_map::EdgeId;
use crate::identity::{Peer, Peers, Subject};
use crate::telemetry::{ProcessName, SpanKind};

/// Messages with captured bytes that may show no protocol before the connection is left alone.
const UNRECOGNISED_MAX: u32 = 12;

/// Bytes that a connection may begin with before the call that shows its protocol: the length of a message, read by itself.
const OPENING_BYTES_MAX: usize = 16;

/// A hole of unknown length: longer than any message.
const HOLE_BYTES: u64 = 1 << 40;

/// `IPPROTO_UDP`
const UDP: u16 = 17;

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

    /// Looks for who is at the other end. A stream keeps whom it found, whoever has the address later; a datagram socket can
    /// outlive its peer, so there the time of the exchange counts.
    pub fn find_peer(&mut self, peers: &Peers, exchange_ns: u64) {
        if self.peer.is_some() && !self.is_datagram() {
            return;
        }
        let time_ns = if self.is_datagram() { exchange_ns } else { self.began_ns };
        let found = peers.at(self.ends.peer.ip(), time_ns);
        if self.peer.as_ref() != found {
            self.peer = found.cloned();
            self.edge = None;
        }
    }

    /// Who was found at the other end.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref()
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

    /// It ended, after so many messages and turns: what waits for a response gets none, unless that one was lost.
    pub fn close(&mut self, record: &CloseRecord, output: &mut Output) {
        self.finish_after(record.messages, record.turns, record.head.time_ns, output);
    }

    /// As [`Self::close`], where the kernel's state is what tells.
    pub fn finish_after(&mut self, messages: u32, turns: u32, now_ns: u64, output: &mut Output) {
        let may_be_answered = self.catch_up(messages, turns);
        match &mut self.parser {
            Some(parser) if may_be_answered => give_up(parser, now_ns, output),
            _ => self.finish(now_ns, output),
        }
    }

    /// There were so many messages and turns until now. Counts the exchanges of which nothing came; whether the response that is
    /// waited for may be among what did not come.
    pub fn catch_up(&mut self, messages: u32, turns: u32) -> bool {
        if !self.may_speak() {
            return false;
        }
        // What it was that nobody saw, nobody knows: better a loss too many than one that is hidden.
        self.lost_exchanges += std::mem::take(&mut self.unproven_exchanges);
        if messages == self.last_number || !self.counts_from_begin() {
            return false;
        }
        let turned = turns.wrapping_sub(self.last_turns);
        // Directions alternate, and the first one in the hole is the other one than the last that was seen.
        let begins_with_request = self.last_direction != Some(Direction::Request);
        self.lost_exchanges += u64::from((turned + u32::from(begins_with_request)) / 2);
        turned > 0 || begins_with_request
    }

    /// Whether it speaks a known protocol, or nothing that was seen since its begin says that it does not.
    fn may_speak(&self) -> bool {
        let is_unheard = self.role != Role::Unknown && (self.unrecognised == 0 || self.opening.is_some());
        self.parser.is_some() || is_unheard
    }

    /// Whether it is known how many messages there were before the first one that came: other sockets are forgotten and told anew.
    fn counts_from_begin(&self) -> bool {
        self.last_number != 0 || self.tells_end()
    }

    /// Nothing more will come of it: what waits for a response gets none.
    pub fn finish(&mut self, time_ns: u64, output: &mut Output) {
        if let Some(parser) = &mut self.parser {
            parser.finish(Mark { begun_ns: time_ns, time_ns, ..Mark::default() }, output);
        }
    }

    /// The agent stops, or may have missed the rest: what waits for a response was not seen to its end.
    pub fn abandon(&mut self, output: &mut Output) {
        if let Some(mut parser) = self.parser.take() {
            give_up(&mut parser, self.last_ns, output);
        }
    }

    /// Exchanges of which nothing came, since the last call.
    pub fn take_lost_exchanges(&mut self) -> u64 {
        std::mem::take(&mut self.lost_exchanges)
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

/// What waits for a response in a parser is counted, and is no exchange: nobody knows whether one came.
fn give_up(parser: &mut Parser, time_ns: u64, output: &mut Output) {
    let before = output.exchanges.len();
    parser.finish(Mark { begun_ns: time_ns, time_ns, ..Mark::default() }, output);
    output.abandoned += (output.exchanges.len() - before) as u64;
    output.exchanges.truncate(before);
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
mod tests {
    use collector_common::event::{Head, Task};
    use collector_common::flow::{Ends as RawEnds, MessageHead};
    use zerocopy::FromZeros;

    use super::*;

    fn open(role: Role) -> Connection {
        let record = OpenRecord {
            head: Head { kind: 0, record_bytes: 0, time_ns: 1 },
            task: Task { tgid: 1, tid: 1, start_ns: 0, cgroup_id: 0, comm: [0; 16] },
            connection: 5,
            ends: RawEnds { addresses: [[127; 16]; 2], ports: [80, 5000], family: 2, protocol: 6 },
            role: role as u32,
            padding: 0,
            sequence: 0,
            key: 0,
        };
        let subject = Subject::named("shop");
        let process = ProcessName { pid: 1, executable_name: "shop".into(), executable_path: None };
        Connection::new(&record, (Arc::new(subject), Arc::new(process)), true)
    }

    /// A message by its way, bytes, number in the connection, turns and bytes before it.
    type Said = (Way, &'static [u8], u32, u32, u64);

    fn say(connection: &mut Connection, said: Said, output: &mut Output) -> Verdict {
        say_after(connection, said, false, output)
    }

    fn say_after(
        connection: &mut Connection,
        (way, bytes, number, turns, position): Said,
        is_after_skip: bool,
        output: &mut Output,
    ) -> Verdict {
        let head = MessageHead {
            head: Head { kind: 0, record_bytes: 0, time_ns: u64::from(number) },
            connection: 5,
            position,
            length: bytes.len() as u32,
            captured: bytes.len() as u32,
            tgid: 1,
            tid: 1,
            number,
            turns,
            way: way as u16,
            is_after_skip: is_after_skip.into(),
            polls: 0,
            begun_ns: 0,
            times: [0; 6],
        };
        connection.take(&Message { head: &head, bytes }, output)
    }

    /// Expects the exchanges that came out, those that were lost in the kernel, and the role at the end.
    #[track_caller]
    fn check(role: Role, said: &[Said], exchanges: usize, lost: u64, expected_role: Role) {
        let mut connection = open(role);
        let mut output = Output::default();
        for message in said {
            let _verdict = say(&mut connection, *message, &mut output);
        }
        let found = (output.exchanges.len(), connection.take_lost_exchanges(), connection.role);
        assert_eq!(found, (exchanges, lost, expected_role));
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn the_first_bytes_tell_protocol_and_role() {
        use Way::{Received, Sent};
        check(Role::Unknown, &[(Received, GET, 1, 1, 0), (Sent, OK, 2, 2, 0)], 1, 0, Role::Server);
        check(Role::Unknown, &[(Sent, GET, 1, 1, 0), (Received, OK, 2, 2, 0)], 1, 0, Role::Client);
        // A server does not send requests.
        check(Role::Server, &[(Sent, GET, 1, 1, 0)], 0, 0, Role::Server);
    }

    #[test]
    fn a_length_that_is_read_byte_by_byte_belongs_to_its_message() {
        use Way::{Received, Sent};
        let said: [Said; 5] = [
            (Received, b"*", 1, 1, 0),
            (Received, b"1", 2, 1, 1),
            (Received, b"\r\n$4\r\nP", 3, 1, 2),
            (Received, b"ING\r\n", 4, 1, 9),
            (Sent, b"+PONG\r\n", 5, 2, 0),
        ];
        check(Role::Server, &said, 1, 0, Role::Server);
        // Behind a hole nothing is joined.
        let [first, _, third, fourth, fifth] = said;
        check(Role::Server, &[first, third, fourth, fifth], 0, 0, Role::Server);
        // Nor over a turn.
        check(
            Role::Server,
            &[first, (Sent, b"+", 2, 2, 0), (Received, b"1\r\n$4\r\nPING\r\n", 3, 3, 1)],
            0,
            0,
            Role::Server,
        );
    }

    #[test]
    fn what_the_kernel_lost_is_counted_by_its_turns() {
        use Way::{Received, Sent};
        let (request, response) = (GET.len() as u64, OK.len() as u64);
        let whole = [(Received, GET, 1, 1, 0), (Sent, OK, 2, 2, 0)];
        // The second exchange is missing as a whole.
        let third = [(Received, GET, 5, 5, 2 * request), (Sent, OK, 6, 6, 2 * response)];
        check(Role::Server, &[whole, third].concat(), 2, 1, Role::Server);
        // Of the second only the response came.
        check(Role::Server, &[&whole[..], &[(Sent, OK, 4, 4, response)]].concat(), 1, 1, Role::Server);
    }

    /// Words of four bytes, as lengths that are read by themselves, until nothing more is wanted.
    #[test]
    fn what_was_left_alone_has_lost_nothing() {
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        for number in 1..=UNRECOGNISED_MAX + 1 {
            let way = if number % 2 == 1 { Way::Received } else { Way::Sent };
            let position = u64::from((number - 1) / 2) * 4;
            let _verdict =
                say(&mut connection, (way, b"\x01\x02\x03\x04", number, number, position), &mut output);
        }
        assert!(!connection.catch_up(500, 500));
        assert_eq!((output.exchanges.len(), connection.take_lost_exchanges()), (0, 0));
    }

    #[test]
    fn a_response_that_was_lost_is_not_said_to_be_missing() {
        for (messages, exchanges, abandoned) in [(1, 1, 0), (2, 0, 1)] {
            let mut connection = open(Role::Server);
            let mut output = Output::default();
            say(&mut connection, (Way::Received, GET, 1, 1, 0), &mut output);
            let head = Head { kind: 0, record_bytes: 0, time_ns: 99 };
            let record =
                CloseRecord { head, connection: 5, messages, turns: messages, ..CloseRecord::new_zeroed() };
            connection.close(&record, &mut output);
            let found = (output.exchanges.len(), output.abandoned, connection.take_lost_exchanges());
            assert_eq!(found, (exchanges, abandoned, 0), "{messages} messages");
        }
    }

    #[test]
    fn after_lost_responses_nothing_gets_that_of_another() {
        use Way::{Received, Sent};
        let (request, response) = (GET.len() as u64, OK.len() as u64);
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        let requests = [0u32, 1, 2]
            .map(|index| (Received, GET, 2 * index + 1, 2 * index + 1, u64::from(index) * request));
        for said in requests.into_iter().chain([(Sent, OK, 6, 6, 2 * response)]) {
            say(&mut connection, said, &mut output);
        }
        assert_eq!((output.exchanges.len(), output.abandoned), (1, 2));
        assert_eq!(output.exchanges[0].request.first.position, 2 * request);
    }

    /// The end of an answer was lost: the next answer does not go on with it.
    #[test]
    fn an_answer_that_was_cut_short_is_not_gone_on_with() {
        use Way::{Received, Sent};
        const QUERY: &[u8] = b"Q\0\0\0\x0dselect 1\0";
        const ANSWER: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
        let mut connection = open(Role::Client);
        let mut output = Output::default();
        let (query, answer) = (QUERY.len() as u64, ANSWER.len() as u64);
        let whole = [(Sent, QUERY, 1, 1, 0), (Received, ANSWER, 2, 2, 0)];
        let cut_short = [(Sent, QUERY, 3, 3, query), (Received, &b"T\0\0\x01\x02\0\x0c"[..], 4, 4, answer)];
        let next = [(Sent, QUERY, 6, 5, 2 * query), (Received, ANSWER, 7, 6, answer + 300)];
        for said in whole.into_iter().chain(cut_short).chain(next) {
            say(&mut connection, said, &mut output);
        }
        assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (2, 1, 0));
    }

    #[test]
    fn the_rest_of_a_response_whose_head_was_lost_is_counted_once() {
        use Way::{Received, Sent};
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        for said in [(Received, GET, 1, 1, 0), (Sent, &b"rows"[..], 3, 2, 50)] {
            say(&mut connection, said, &mut output);
        }
        assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (0, 1, 0));
    }

    #[test]
    fn the_rest_of_a_word_is_no_method() {
        use Way::{Received, Sent};
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        let (request, response) = (GET.len() as u64, OK.len() as u64);
        let rest = [(Received, &GET[1..], 4, 3, request + 1), (Sent, OK, 5, 4, response)];
        for said in [(Received, GET, 1, 1, 0), (Sent, OK, 2, 2, 0)].into_iter().chain(rest) {
            say(&mut connection, said, &mut output);
        }
        assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (1, 0, 1));
    }

    #[test]
    fn a_response_whose_rest_was_lost_does_not_end_with_the_next_one() {
        use Way::{Received, Sent};
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        let second = [(Received, GET, 4, 3, GET.len() as u64), (Sent, OK, 5, 4, head.len() as u64 + 4)];
        for said in [(Received, GET, 1, 1, 0), (Sent, head, 2, 2, 0)].into_iter().chain(second) {
            say(&mut connection, said, &mut output);
        }
        assert_eq!((output.exchanges.len(), output.abandoned), (1, 1));
        assert_eq!(output.exchanges[0].request.first.position, GET.len() as u64);
    }

    #[test]
    fn a_connection_of_which_nothing_came_may_have_spoken() {
        for (unrecognised, turns, expected) in [(0, 0, 0), (0, 1, 1), (0, 2, 1), (0, 5, 3), (1, 5, 0)] {
            let mut connection = open(Role::Server);
            let mut output = Output::default();
            for number in 1..=unrecognised {
                let said: Said = (Way::Received, b"\x01\x02garbage, longer than an opening", number, 1, 0);
                say(&mut connection, said, &mut output);
            }
            let head = Head { kind: 0, record_bytes: 0, time_ns: 99 };
            let messages = unrecognised + turns;
            let record = CloseRecord { head, connection: 5, messages, turns, ..CloseRecord::new_zeroed() };
            connection.close(&record, &mut output);
            assert_eq!(connection.take_lost_exchanges(), expected, "{unrecognised} came, {turns} turns");
        }
    }

    #[test]
    fn what_was_lost_before_a_protocol_was_known_is_counted_once_it_is() {
        use Way::{Received, Sent};
        let (request, response) = (GET.len() as u64, OK.len() as u64);
        check(Role::Server, &[(Sent, OK, 2, 2, 0)], 0, 1, Role::Server);
        let third = [(Received, GET, 5, 5, 2 * request), (Sent, OK, 6, 6, 2 * response)];
        check(Role::Server, &third, 1, 2, Role::Server);
    }

    #[test]
    fn requests_of_one_piece_have_places_of_their_own() {
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        let requests: &[u8] = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        say(&mut connection, (Way::Received, requests, 1, 1, 0), &mut output);
        say(&mut connection, (Way::Sent, OK, 2, 2, 0), &mut output);
        say(&mut connection, (Way::Sent, OK, 3, 2, OK.len() as u64), &mut output);
        let places: Vec<_> =
            output.exchanges.iter().map(|exchange| exchange.request.first.position).collect();
        assert_eq!(places, [0, requests.len() as u64 / 2]);
    }

    #[test]
    fn paths_of_unix_sockets() {
        let path = |bytes: &[u8]| path_of(bytes).to_string();
        assert_eq!(path(b"/run/redis.sock\0"), "/run/redis.sock");
        assert_eq!(path(b"/run/redis.sock"), "/run/redis.sock");
        assert_eq!(path(b"\0hidden"), "@hidden");
        assert_eq!(path(b""), "");
        assert_eq!(path(b"/run/\xff"), "/run/\u{fffd}");
    }

    #[test]
    fn a_connection_of_no_protocol_is_left_alone() {
        let mut connection = open(Role::Server);
        let mut output = Output::default();
        let mut verdicts = Vec::new();
        for number in 1..=UNRECOGNISED_MAX + 3 {
            let said: Said = (Way::Received, b"\x01\x02garbage", number, 1, u64::from(number) * 9);
            verdicts.push(say(&mut connection, said, &mut output));
        }
        let nothing = Verdict::Want { sent_bytes: 0, received_bytes: 0 };
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == nothing).count(), 1);
        assert!(output.exchanges.is_empty());
    }

    proptest::proptest! {
        /// Whatever the kernel leaves out or loses of a talk, each exchange that was not left out comes out, or is counted as
        /// lost or broken.
        #[test]
        fn nothing_is_lost_without_a_count(
            // Of each exchange: whether it is left out, and which of its messages are lost.
            fates in proptest::collection::vec(
                (proptest::bool::weighted(0.4), proptest::bool::weighted(0.3), proptest::bool::weighted(0.3)),
                1..40,
            ),
            is_server: bool,
        ) {
            let (asks, answers) = match is_server {
                true => (Way::Received, Way::Sent),
                false => (Way::Sent, Way::Received),
            };
            let mut connection = open(if is_server { Role::Server } else { Role::Client });
            let mut output = Output::default();
            let (mut lost, mut number, mut exchanges, mut has_skipped) = (0, 0, 0, false);
            let mut is_recognised = false;
            for (index, (is_left_out, is_request_lost, is_response_lost)) in fates.iter().enumerate() {
                if *is_left_out && is_recognised {
                    has_skipped = true;
                    continue;
                }
                exchanges += 1;
                for (way, bytes, is_lost) in [(asks, GET, is_request_lost), (answers, OK, is_response_lost)] {
                    number += 1;
                    let is_after_skip = std::mem::take(&mut has_skipped);
                    if !*is_lost {
                        let position = index as u64 * bytes.len() as u64;
                        let said = (way, bytes, number, number, position);
                        say_after(&mut connection, said, is_after_skip, &mut output);
                        lost += connection.take_lost_exchanges();
                        is_recognised = true;
                    }
                }
            }
            let record = CloseRecord {
                head: Head { kind: 0, record_bytes: 0, time_ns: 99 },
                connection: 5,
                messages: number,
                turns: number,
                ..CloseRecord::new_zeroed()
            };
            connection.close(&record, &mut output);
            lost += connection.take_lost_exchanges();
            // Each has its own response.
            for exchange in &output.exchanges {
                let asked = exchange.request.first.position / GET.len() as u64;
                let answered = exchange.response.map(|response| response.first.position / OK.len() as u64);
                proptest::prop_assert_eq!(Some(asked), answered);
            }
            let found = output.exchanges.len() as u64 + output.abandoned + lost;
            proptest::prop_assert_eq!(
                found, exchanges, "{} out, {} abandoned, {} lost", output.exchanges.len(), output.abandoned, lost
            );
        }
    }
}
