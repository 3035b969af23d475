//! Cuts one direction of a connection into messages of version 3.
//!
//! Refuses: to keep more of a message than its reader wants, and types and lengths that no client or server sends.

use super::super::{CARRIED_BYTES_MAX, Direction, Extent, Mark};

/// Type and length.
const HEAD_BYTES: usize = 5;

/// Bytes of a message that may be of any length: servers allocate no more.
const LENGTH_MAX: u32 = 1 << 30;

/// Bytes of a message that says little.
const SHORT_LENGTH_MAX: u32 = 64 * 1024;

/// Bytes of the first message of a connection.
const STARTUP_LENGTH_MAX: u32 = 10_000;

/// Type of the messages that begin a connection and have none.
pub const STARTUP: u8 = 0;

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u8,
    /// As much of it as is wanted and was captured.
    pub body: &'a [u8],
    /// Whether the body was cut.
    pub is_cut: bool,
    /// When it came.
    pub extent: Extent,
}

/// What comes next.
#[derive(Debug)]
pub enum Step<'a> {
    /// A whole message.
    Message(Message<'a>),
    /// All bytes were read.
    More,
    /// The bytes make no sense.
    Broken,
}

/// The state of one direction.
#[derive(Debug)]
pub struct Reader {
    direction: Direction,
    /// The head of a message and what is wanted of its body, as far as it came.
    carried: Vec<u8>,
    /// Whether the carried bytes were given out.
    is_given: bool,
    extent: Extent,
    /// Bytes of the message that are still to come, once its head is known.
    left: Option<u64>,
    /// Bytes to carry, once the head is known; no more than came before a hole.
    wanted: usize,
    is_cut: bool,
    is_lost: bool,
    /// Whether a connection may begin here.
    is_start: bool,
    /// Messages since the place was last found.
    messages: u64,
}

/// A head: bytes of it, type and bytes of the body.
#[derive(Clone, Copy, Debug)]
struct Head {
    bytes: usize,
    kind: u8,
    body: u32,
}

impl Reader {
    /// At the start of a connection, or in the middle of one.
    pub fn new(direction: Direction) -> Self {
        Self {
            direction,
            carried: Vec::new(),
            is_given: false,
            extent: Extent::default(),
            left: None,
            wanted: 0,
            is_cut: false,
            is_lost: false,
            is_start: direction == Direction::Request,
            messages: 0,
        }
    }

    /// Whether it does not know where a message begins.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether a message ended with the last byte.
    pub fn is_between(&self) -> bool {
        self.left.is_none() && (self.carried.is_empty() || self.is_given)
    }

    /// What is kept of a message.
    pub fn carried_bytes(&self) -> usize {
        self.carried.capacity()
    }

    /// Loses its place.
    pub fn lose(&mut self) {
        self.is_lost = true;
        self.restart();
    }

    /// Finds its place: a message begins with the next byte.
    pub fn find(&mut self) {
        self.is_lost = false;
        self.messages = 0;
        self.restart();
    }

    /// The other direction spoke in between: a message is likely to begin here. What was never seen to be whole is doubted.
    pub fn turn(&mut self) {
        if self.is_lost || (self.messages == 0 && !self.is_between()) {
            self.find();
        }
    }

    /// Reads the next message.
    pub fn step<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8], mark: Mark) -> Step<'a> {
        if self.is_given {
            self.restart();
        }
        if bytes.is_empty() {
            return Step::More;
        }
        if self.carried.is_empty() && self.left.is_none() {
            self.extent = Extent { first: mark, ..Extent::default() };
            match self.step_whole(bytes, mark) {
                Ok(Some(message)) => return Step::Message(message),
                Ok(None) => {}
                Err(()) => return Step::Broken,
            }
        }
        self.step_carried(bytes, mark)
    }

    /// Skips bytes that were not captured; gives the message that ends there. The place is lost if they are not all of it.
    pub fn skip(&mut self, missing: u64, mark: Mark) -> Option<Message<'_>> {
        if self.is_given {
            self.restart();
        }
        let Some(left) = self.left else {
            self.lose();
            return None;
        };
        let taken = missing.min(left);
        self.extent.bytes = self.extent.bytes.saturating_add(taken);
        self.extent.last = mark;
        self.is_cut |= self.carried.len() < self.wanted;
        self.wanted = self.carried.len();
        self.left = Some(left - taken);
        self.is_lost = missing > left;
        if left > taken { None } else { Some(self.give()) }
    }

    /// A message of which all bytes are there: nothing is copied.
    fn step_whole<'a>(&mut self, bytes: &mut &'a [u8], mark: Mark) -> Result<Option<Message<'a>>, ()> {
        let Some(head) = self.head(bytes)? else { return Ok(None) };
        let length = head.bytes + head.body as usize;
        let Some((message, rest)) = bytes.split_at_checked(length) else { return Ok(None) };
        let wanted = wanted(self.direction, head.kind).min(head.body as usize);
        let body = message.get(head.bytes..head.bytes + wanted).unwrap_or_default();
        *bytes = rest;
        self.is_start &= head.kind == STARTUP;
        self.messages = self.messages.saturating_add(1);
        let extent = Extent { first: mark, last: mark, bytes: length as u64 };
        Ok(Some(Message { kind: head.kind, body, is_cut: wanted < head.body as usize, extent }))
    }

    fn step_carried<'a>(&'a mut self, bytes: &mut &[u8], mark: Mark) -> Step<'a> {
        while self.left.is_none() {
            let Some(byte) = split(bytes, 1).first() else { return Step::More };
            self.carried.push(*byte);
            self.extent.bytes += 1;
            self.extent.last = mark;
            match self.head(&self.carried) {
                Ok(Some(head)) => {
                    self.left = Some(u64::from(head.body));
                    let body = wanted(self.direction, head.kind).min(head.body as usize);
                    self.wanted = head.bytes + body;
                    self.is_cut = body < head.body as usize;
                }
                Ok(None) => {}
                Err(()) => return Step::Broken,
            }
        }
        let left = self.left.unwrap_or_default();
        let taken = left.min(bytes.len() as u64);
        let part = split(bytes, taken as usize);
        let room = self.wanted.saturating_sub(self.carried.len());
        self.carried.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        if taken > 0 {
            self.extent.bytes = self.extent.bytes.saturating_add(taken);
            self.extent.last = mark;
        }
        self.left = Some(left - taken);
        if left > taken { Step::More } else { Step::Message(self.give()) }
    }

    fn give(&mut self) -> Message<'_> {
        self.is_given = true;
        self.left = None;
        let kind = self.carried.first().copied().unwrap_or_default();
        self.is_start &= kind == STARTUP;
        self.messages = self.messages.saturating_add(1);
        let head_bytes = if kind == STARTUP { HEAD_BYTES - 1 } else { HEAD_BYTES };
        let body = self.carried.get(head_bytes..).unwrap_or_default();
        Message { kind, body, is_cut: self.is_cut, extent: self.extent }
    }

    fn restart(&mut self) {
        self.carried.clear();
        self.is_given = false;
        self.left = None;
        self.is_cut = false;
    }

    /// The head of a message, `None` if more bytes are needed.
    fn head(&self, bytes: &[u8]) -> Result<Option<Head>, ()> {
        let kind = *bytes.first().ok_or(())?;
        let is_startup = self.is_start && kind == STARTUP;
        let rest = if is_startup { bytes } else { bytes.get(1..).unwrap_or_default() };
        if !is_startup && length_max(self.direction, kind) == 0 {
            return Err(());
        }
        let Some(length) = rest.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        let is_fitting = if is_startup {
            (8..=STARTUP_LENGTH_MAX).contains(&length)
        } else {
            fits(self.direction, kind, length)
        };
        let head =
            Head { bytes: if is_startup { 4 } else { HEAD_BYTES }, kind, body: length.saturating_sub(4) };
        if is_fitting { Ok(Some(head)) } else { Err(()) }
    }
}

/// Whether a message of this type may have this length, which counts itself.
pub fn fits(direction: Direction, kind: u8, length: u32) -> bool {
    let minimum = if direction == Direction::Response && kind == b'Z' { 5 } else { 4 };
    (minimum..=length_max(direction, kind)).contains(&length)
}

/// How long a message of this type may be; 0 if there is no such type.
fn length_max(direction: Direction, kind: u8) -> u32 {
    match (direction, kind) {
        (Direction::Request, b'H' | b'S' | b'X' | b'c') => 4,
        (Direction::Request, b'C' | b'D' | b'E' | b'f' | b'p') => SHORT_LENGTH_MAX,
        (Direction::Request, b'B' | b'F' | b'P' | b'Q' | b'd') => LENGTH_MAX,
        (Direction::Response, b'1' | b'2' | b'3' | b'I' | b'c' | b'n' | b's') => 4,
        (Direction::Response, b'Z') => 5,
        (Direction::Response, b'C' | b'G' | b'H' | b'K' | b'R' | b'S' | b'W' | b'v') => SHORT_LENGTH_MAX,
        (Direction::Response, b'A' | b'D' | b'E' | b'N' | b'T' | b'V' | b'd' | b't') => LENGTH_MAX,
        _ => 0,
    }
}

/// Bytes of the body that are read.
fn wanted(direction: Direction, kind: u8) -> usize {
    match (direction, kind) {
        (Direction::Request, b'P' | b'Q') => CARRIED_BYTES_MAX - HEAD_BYTES,
        (Direction::Request, STARTUP) => 1024,
        (Direction::Request, b'B') => 512,
        (Direction::Request, b'C' | b'D' | b'E') => 256,
        (Direction::Response, b'C') => 64,
        (Direction::Response, b'E') => 128,
        _ => 0,
    }
}

/// Takes so many bytes, or all.
fn split<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at_checked(length).unwrap_or((*bytes, &[]));
    *bytes = rest;
    taken
}
