//! The bytes of the fuzzer become what a connection could have said.
//!
//! A piece is a control byte, a length of one or two bytes (little-endian), and that many bytes, or all that are left. The
//! bits of the control byte, the lowest first: it is a response; it is a turn; three for [`MISSING_BYTES`]; the length has two
//! bytes; much time has passed; it comes byte by byte. Refuses: nothing; any bytes are some pieces.

use crate::flow::protocol::{Direction, Mark, Piece};

/// Bytes that are missing behind a piece. The last is the daemon's own for a hole of which it knows no length.
const MISSING_BYTES: [u64; 8] = [0, 1, 7, 100, 5_000, 65_536, 1 << 31, 1 << 40];

/// Time between pieces, and much of it: a resolver has given up by then.
const STEP_NS: u64 = 1_000;
const PAUSE_NS: u64 = 16_000_000_000;

/// The pieces in the fuzzer's bytes.
pub struct Pieces<'a> {
    input: &'a [u8],
    /// What is left of a piece that comes byte by byte.
    open: Option<(Direction, Piece<'a>)>,
    time_ns: u64,
    positions: [u64; 2],
}

impl<'a> Pieces<'a> {
    /// Those in these bytes.
    pub fn new(input: &'a [u8]) -> Self {
        Self { input, open: None, time_ns: STEP_NS, positions: [0; 2] }
    }

    /// The next byte, for what only the caller understands.
    pub fn byte(&mut self) -> u8 {
        self.split(1).first().copied().unwrap_or_default()
    }

    fn split(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.input.split_at(length.min(self.input.len()));
        self.input = rest;
        taken
    }

    /// When and where a piece is whose bytes are these.
    fn mark(&mut self, direction: Direction, length: u64) -> Mark {
        self.time_ns += STEP_NS;
        let position = &mut self.positions[direction as usize];
        let mark =
            Mark { begun_ns: self.time_ns, time_ns: self.time_ns, position: *position, ..Mark::default() };
        *position += length;
        mark
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (Direction, Piece<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((direction, piece)) = self.open.take() {
            let (first, rest) = piece.bytes.split_at(1);
            if rest.is_empty() {
                let mark = self.mark(direction, 1 + piece.missing);
                return Some((direction, Piece { mark, ..piece }));
            }
            let mark = self.mark(direction, 1);
            self.open = Some((direction, Piece { bytes: rest, is_turn: false, ..piece }));
            return Some((direction, Piece { bytes: first, missing: 0, mark, ..piece }));
        }
        if self.input.is_empty() {
            return None;
        }
        let control = self.byte();
        let has_bit = |bit: u8| control >> bit & 1 == 1;
        let direction = if has_bit(0) { Direction::Response } else { Direction::Request };
        let missing = MISSING_BYTES[usize::from(control >> 2 & 7)];
        let length = usize::from(self.byte()) + if has_bit(5) { usize::from(self.byte()) << 8 } else { 0 };
        self.time_ns += if has_bit(6) { PAUSE_NS } else { 0 };
        let bytes = self.split(length);
        let piece = Piece { bytes, missing, is_turn: has_bit(1), mark: Mark::default() };
        if has_bit(7) && !bytes.is_empty() {
            self.open = Some((direction, piece));
            return self.next();
        }
        let mark = self.mark(direction, bytes.len() as u64 + missing);
        Some((direction, Piece { mark, ..piece }))
    }
}
