//! Bodies of HTTP messages: only where they end, so that bytes which were not captured may be skipped.
//!
//! Refuses: contents, and transfer codings but `chunked`.

use crate::flow::protocol::Mark;

/// Hexadecimal digits of a chunk's size; more would not fit.
const SIZE_DIGITS_MAX: u8 = 15;

/// What is left of a piece.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Captured bytes.
    pub bytes: &'a [u8],
    /// Bytes after them that were not captured.
    pub missing: u64,
    /// When they were moved.
    pub mark: Mark,
}

/// A body that is not over.
#[derive(Debug)]
pub struct Body {
    place: Place,
    /// Bytes of content so far.
    size: u64,
}

#[derive(Debug)]
enum Place {
    /// So many bytes are left.
    Counted(u64),
    /// In chunks.
    Chunked(Step),
    /// It lasts until the connection ends.
    Endless,
    /// Its end can't be told: it lasts until the other side speaks.
    Lost,
}

/// Where in a body of chunks.
#[derive(Debug)]
enum Step {
    /// In the size of a chunk.
    Size { value: u64, digits: u8 },
    /// Behind the size, until the line ends.
    Extension { value: u64 },
    /// In a chunk: bytes left, with the end of line that follows them.
    Data { left: u64 },
    /// In the lines behind the last chunk.
    Trailer { is_line_empty: bool },
}

/// What a body says after some input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    More,
    /// It is over; what is left of the input follows it.
    Over,
    /// From here on its end can't be told, because bytes are missing.
    Lost,
    /// From here on its end can't be told, because bytes make no sense.
    Broken,
}

impl Input<'_> {
    /// Bytes that are left, captured or not.
    pub fn len(&self) -> u64 {
        self.missing.saturating_add(self.bytes.len() as u64)
    }

    /// Leaves captured bytes behind.
    pub fn advance(&mut self, bytes: usize) {
        self.bytes = self.bytes.get(bytes..).unwrap_or_default();
        self.mark.position = self.mark.position.saturating_add(bytes as u64);
    }

    /// Leaves up to so many bytes behind, captured or not; says how many.
    fn skip(&mut self, wanted: u64) -> u64 {
        let captured = wanted.min(self.bytes.len() as u64);
        self.advance(captured as usize);
        let missing = if self.bytes.is_empty() { self.missing.min(wanted - captured) } else { 0 };
        self.missing -= missing;
        captured + missing
    }
}

impl Body {
    /// A body of so many bytes.
    pub fn counted(bytes: u64) -> Self {
        Self { place: Place::Counted(bytes), size: 0 }
    }

    /// A body in chunks.
    pub fn chunked() -> Self {
        Self { place: Place::Chunked(Step::Size { value: 0, digits: 0 }), size: 0 }
    }

    /// A body that lasts until the connection ends.
    pub fn endless() -> Self {
        Self { place: Place::Endless, size: 0 }
    }

    /// A body whose end can't be told.
    pub fn lost() -> Self {
        Self { place: Place::Lost, size: 0 }
    }

    /// Whether its end can't be told.
    pub fn is_lost(&self) -> bool {
        matches!(self.place, Place::Lost)
    }

    /// Whether the end of the connection is its end.
    pub fn is_endless(&self) -> bool {
        matches!(self.place, Place::Endless)
    }

    /// Bytes of content so far, if they could be counted.
    pub fn size(&self) -> Option<u64> {
        (!self.is_lost()).then_some(self.size)
    }

    /// Takes what is its own.
    pub fn take(&mut self, input: &mut Input<'_>) -> Verdict {
        match &mut self.place {
            Place::Counted(left) => {
                let taken = input.skip(*left);
                *left -= taken;
                self.size += taken;
                if *left == 0 { Verdict::Over } else { Verdict::More }
            }
            Place::Chunked(step) => {
                let verdict = step.take(input, &mut self.size);
                if matches!(verdict, Verdict::Lost | Verdict::Broken) {
                    self.place = Place::Lost;
                }
                verdict
            }
            Place::Endless => {
                self.size = self.size.saturating_add(input.skip(u64::MAX));
                Verdict::More
            }
            Place::Lost => {
                input.skip(u64::MAX);
                Verdict::More
            }
        }
    }
}

impl Step {
    fn take(&mut self, input: &mut Input<'_>, size: &mut u64) -> Verdict {
        loop {
            if let Self::Data { left } = self {
                *left -= input.skip(*left);
                if *left > 0 {
                    return Verdict::More;
                }
                *self = Self::Size { value: 0, digits: 0 };
            }
            let Some((byte, rest)) = input.bytes.split_first() else {
                return if input.missing > 0 { Verdict::Lost } else { Verdict::More };
            };
            input.bytes = rest;
            match self.advance(*byte, size) {
                Some(Verdict::More) => {}
                Some(verdict) => return verdict,
                None => return Verdict::Broken,
            }
        }
    }

    /// Goes on by a byte of a line.
    fn advance(&mut self, byte: u8, size: &mut u64) -> Option<Verdict> {
        *self = match *self {
            Self::Size { digits: 0, .. } if !byte.is_ascii_hexdigit() => return None,
            Self::Size { value, digits } => match char::from(byte).to_digit(16) {
                Some(_) if digits == SIZE_DIGITS_MAX => return None,
                Some(digit) => Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 },
                None if byte == b'\n' => Self::after_size(value, size),
                None if matches!(byte, b'\r' | b';' | b' ' | b'\t') => Self::Extension { value },
                None => return None,
            },
            Self::Extension { value } if byte == b'\n' => Self::after_size(value, size),
            Self::Trailer { is_line_empty: true } if byte == b'\n' => return Some(Verdict::Over),
            Self::Trailer { .. } if byte == b'\n' => Self::Trailer { is_line_empty: true },
            Self::Trailer { .. } if byte != b'\r' => Self::Trailer { is_line_empty: false },
            Self::Extension { .. } | Self::Trailer { .. } | Self::Data { .. } => return Some(Verdict::More),
        };
        Some(Verdict::More)
    }

    fn after_size(value: u64, size: &mut u64) -> Self {
        *size = size.saturating_add(value);
        if value == 0 { Self::Trailer { is_line_empty: true } } else { Self::Data { left: value + 2 } }
    }
}
