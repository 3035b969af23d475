//! One connection: gives a parser pieces, and asserts what the interface of the parsers promises.
//!
//! Refuses: to know what the exchanges of a protocol look like.

use crate::flow::protocol::{
    Direction, Exchange, Mark, Output, PENDING_MAX, Parser, Piece, Progress, Protocol, Transport, detect,
};
use crate::memory::held_bytes;
use crate::pieces::Pieces;

/// Bytes that a parser may hold between two pieces.
const PARSER_BYTES_MAX: usize = 2 << 20;

/// Bytes of the shortest message of Redis that is an exchange without an answer.
const UNANSWERED_BYTES_MIN: usize = 8;

/// Ports of both ends: those that say something to `detect`, and some that do not.
const PORTS: [[u16; 2]; 4] = [[40_000, 53], [5353, 5353], [80, 40_000], [40_000, 5432]];

/// A parser, and what is known of its connection.
struct Connection {
    parser: Parser,
    /// What was in use before it was there.
    held_before_bytes: usize,
    last: Mark,
}

/// All pieces for one parser.
pub fn run(protocol: Protocol, transport: Transport, pieces: Pieces<'_>) {
    let mut connection = Connection::new(protocol, transport);
    for (direction, piece) in pieces {
        if connection.take(direction, piece) == Progress::Leave {
            break;
        }
    }
    connection.finish();
}

/// The first piece that looks like a protocol and all after it, for that one's parser, as the daemon does it.
pub fn run_detected(mut pieces: Pieces<'_>) {
    let header = pieces.byte();
    let transport = if header & 1 == 1 { Transport::Udp } else { Transport::Tcp };
    let ports = PORTS[usize::from(header >> 1 & 3)];
    let found = pieces.find_map(|(direction, piece)| {
        let (protocol, detected) = detect(piece.bytes, transport, ports)?;
        Some((protocol, detected, direction, piece))
    });
    let Some((protocol, detected, direction, piece)) = found else { return };
    assert!(transport == Transport::Tcp || protocol == Protocol::Dns, "{protocol:?} in datagrams");
    let mut connection = Connection::new(protocol, transport);
    let first = (detected, Piece { is_turn: true, ..piece });
    // Which side is the client was not known before.
    let is_swapped = detected != direction;
    let others =
        pieces.map(|(direction, piece)| (if is_swapped { direction.opposite() } else { direction }, piece));
    for (direction, piece) in std::iter::once(first).chain(others) {
        if connection.take(direction, piece) == Progress::Leave {
            break;
        }
    }
    connection.finish();
}

impl Connection {
    fn new(protocol: Protocol, transport: Transport) -> Self {
        let held_before_bytes = held_bytes();
        let parser = protocol.parser(transport);
        assert_eq!(parser.protocol(), protocol);
        assert!(parser.is_idle(), "something waits before anything was said");
        Self { parser, held_before_bytes, last: Mark::default() }
    }

    fn take(&mut self, direction: Direction, piece: Piece<'_>) -> Progress {
        let mut output = Output::default();
        let progress = self.parser.take(direction, piece, &mut output);
        self.last = piece.mark;
        // Others give out what waited and was answered, and at most one that is never answered.
        let is_redis = self.parser.protocol() == Protocol::Redis;
        let unanswered = if is_redis { piece.bytes.len() / UNANSWERED_BYTES_MIN + 1 } else { 1 };
        self.check(output, PENDING_MAX + unanswered);
        progress
    }

    fn finish(&mut self) {
        let mut output = Output::default();
        self.parser.finish(self.last, &mut output);
        self.check(output, PENDING_MAX);
        assert!(self.parser.is_idle(), "something still waits on a connection that ended");
    }

    fn check(&self, output: Output, exchanges_max: usize) {
        let exchanges = output.exchanges.len();
        assert!(exchanges <= exchanges_max, "{exchanges} exchanges of one piece");
        for exchange in &output.exchanges {
            self.check_exchange(exchange);
        }
        drop(output);
        let held = held_bytes().saturating_sub(self.held_before_bytes);
        assert!(held <= PARSER_BYTES_MAX, "the parser holds {held} bytes");
    }

    fn check_exchange(&self, exchange: &Exchange) {
        assert_eq!(exchange.protocol, self.parser.protocol());
        assert!(!exchange.name.is_empty(), "an exchange without a name: {exchange:?}");
        for extent in [Some(&exchange.request), exchange.response.as_ref()].into_iter().flatten() {
            let (first, last) = (extent.first, extent.last);
            assert!(first.time_ns > 0, "a message without a time: {exchange:?}");
            // The position of a message's end is that of the piece which ended it, and that may have begun before the message.
            assert!(first.time_ns <= last.time_ns, "a message that ended before it began: {exchange:?}");
            assert!(last.time_ns <= self.last.time_ns, "a message that ended later than now: {exchange:?}");
        }
        if let Some(response) = &exchange.response {
            let is_ordered = exchange.request.first.time_ns <= response.last.time_ns;
            assert!(is_ordered, "answered before it was asked: {exchange:?}");
        }
    }
}
