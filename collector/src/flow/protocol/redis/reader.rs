//! Cuts one direction of a connection into values of RESP2 and RESP3.
//!
//! A value is followed with a stack of counts instead of recursion, and strings are skipped by their length. Refuses: to keep
//! more of a value than its first words, streamed strings and aggregates (no server sends them), and values nested deeper
//! than [`DEPTH_MAX`].

use super::super::{Extent, Mark};
use super::commands;

/// Aggregates within each other.
pub const DEPTH_MAX: usize = 32;

/// Words of a value that are kept: `CLIENT REPLY OFF`.
const WORDS_MAX: usize = 3;

/// Bytes of a word that are kept.
const WORD_BYTES_MAX: usize = 32;

/// Bytes of a line that are kept.
const LINE_KEPT_BYTES_MAX: usize = 64;

/// Bytes of a line; servers allow no longer inline command.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a line that holds a length or a count, with its type and end.
const COUNT_LINE_BYTES_MAX: u64 = 32;

/// Bytes of a string: as many as a server can be configured to take.
const STRING_BYTES_MAX: u64 = 1 << 40;

/// Elements of an aggregate.
const ELEMENTS_MAX: u64 = 1 << 32;

/// The first bytes of something.
#[derive(Clone, Copy, Debug)]
struct Kept<const N: usize> {
    bytes: [u8; N],
    /// All of its bytes, also those that were not kept.
    length: u64,
}

/// A value, or what is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Value {
    /// The first byte of its first line; for an inline command `*`.
    pub kind: u8,
    /// Its elements.
    pub count: u64,
    /// When it came.
    pub extent: Extent,
    /// Whether some of it was not captured that a whole one would show.
    pub is_partial: bool,
    words: [Kept<WORD_BYTES_MAX>; WORDS_MAX],
    words_count: usize,
}

/// What comes next.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once: a box would be an allocation per command"
)]
pub enum Step {
    /// A whole value.
    Value(Value),
    /// All bytes were read.
    More,
    /// The bytes make no sense.
    Broken,
}

/// An aggregate that was begun.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    left: u64,
    /// Attributes stand before a value and are none.
    is_attribute: bool,
}

/// The state of one direction.
#[derive(Debug, Default)]
pub struct Reader {
    line: Kept<LINE_KEPT_BYTES_MAX>,
    /// Bytes of a string, with its end, that are still to come.
    string_left: u64,
    is_word_closed: bool,
    open: [Open; DEPTH_MAX],
    depth: usize,
    attributes: u32,
    value: Value,
    is_begun: bool,
    is_lost: bool,
    /// Values since the place was last found.
    values: u64,
}

impl Value {
    /// The first bytes of its first elements that are not aggregates, or of itself; empty if it has no such one.
    pub fn word(&self, index: usize) -> &[u8] {
        self.words.get(index).map(Kept::kept).unwrap_or_default()
    }

    fn add_word(&mut self, bytes: &[u8]) {
        if let Some(word) = self.words.get_mut(self.words_count) {
            *word = Kept::default();
            word.push(bytes);
        }
        self.words_count = self.words_count.saturating_add(1);
    }

    fn extend(&mut self, bytes: u64, mark: Mark) {
        self.extent.bytes = self.extent.bytes.saturating_add(bytes);
        self.extent.last = mark;
    }
}

impl Reader {
    /// Whether it does not know where a value begins.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The other direction spoke in between: a value is likely to begin here. What was never seen to be whole is doubted.
    pub fn turn(&mut self) {
        if self.is_lost || (self.is_begun && self.values == 0) {
            *self = Self::default();
        }
    }

    /// Loses its place; gives what it knows of the value it was in.
    pub fn lose(&mut self, missing: u64, mark: Mark) -> Option<Value> {
        self.is_lost = true;
        let is_begun = std::mem::take(&mut self.is_begun);
        self.value.extend(missing, mark);
        self.value.is_partial = true;
        (is_begun && self.value.kind != 0).then_some(self.value)
    }

    /// Reads the next value. Commands are arrays of strings; `with_inline` also lines.
    pub fn step(&mut self, bytes: &mut &[u8], mark: Mark, is_command: bool, with_inline: bool) -> Step {
        while !bytes.is_empty() {
            if !self.is_begun {
                self.begin(mark);
            }
            let is_whole = if self.string_left > 0 {
                let taken = (bytes.len() as u64).min(self.string_left);
                let (string, rest) = bytes.split_at_checked(taken as usize).unwrap_or((bytes, &[]));
                *bytes = rest;
                self.take_string(string, mark)
            } else {
                let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
                let (part, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
                *bytes = rest;
                match self.take_line(part, mark, is_command, with_inline) {
                    Some(is_whole) => is_whole,
                    None => return Step::Broken,
                }
            };
            if is_whole {
                return Step::Value(self.end());
            }
        }
        Step::More
    }

    /// Skips bytes that were not captured. If they end more than the string they are in, the place is lost; what was begun is
    /// given either way.
    pub fn skip(&mut self, missing: u64, mark: Mark) -> Option<Value> {
        if self.string_left == 0 {
            return self.lose(missing, mark);
        }
        let taken = missing.min(self.string_left);
        self.value.extend(taken, mark);
        let is_short = self.word_being_read().is_some_and(|word| word.length < WORD_BYTES_MAX as u64);
        // Only the first word says what it is.
        let is_name = self.value.words_count == 1 && (self.depth == 1 || self.value.kind == b'!');
        self.value.is_partial |= is_short && is_name && self.string_left > END.len() as u64;
        self.string_left -= taken;
        // What comes after the hole is not put where the hole is.
        self.is_word_closed = true;
        if self.string_left > 0 {
            return None;
        }
        let rest = missing - taken;
        if self.end_element() {
            let value = self.end();
            self.is_lost = rest > 0;
            return Some(value);
        }
        if rest > 0 { self.lose(rest, mark) } else { None }
    }

    fn begin(&mut self, mark: Mark) {
        self.is_begun = true;
        self.value = Value { extent: Extent { first: mark, last: mark, bytes: 0 }, ..Value::default() };
    }

    fn end(&mut self) -> Value {
        self.is_begun = false;
        self.values = self.values.saturating_add(1);
        self.value
    }

    fn word_being_read(&mut self) -> Option<&mut Kept<WORD_BYTES_MAX>> {
        let is_word = self.depth <= 1 && self.attributes == 0 && !self.is_word_closed;
        let index = self.value.words_count.checked_sub(1)?;
        self.value.words.get_mut(index).filter(|_| is_word)
    }

    fn take_string(&mut self, string: &[u8], mark: Mark) -> bool {
        let length = string.len() as u64;
        let content = self.string_left.saturating_sub(END.len() as u64).min(length);
        if let Some(word) = self.word_being_read() {
            word.push(string.get(..content as usize).unwrap_or_default());
        }
        self.value.extend(length, mark);
        self.string_left -= length;
        self.string_left == 0 && self.end_element()
    }

    /// Takes a line or a part of one; says whether the value is whole, `None` if the line makes no sense.
    fn take_line(&mut self, part: &[u8], mark: Mark, is_command: bool, with_inline: bool) -> Option<bool> {
        self.line.push(part);
        self.value.extend(part.len() as u64, mark);
        let first = *self.line.kept().first()?;
        let is_inline = is_command && self.depth == 0 && with_inline && first != b'*';
        let bytes_max = match first {
            _ if is_inline => LINE_BYTES_MAX,
            b'$' if is_command && self.depth == 1 => COUNT_LINE_BYTES_MAX,
            b'*' if is_command && self.depth == 0 => COUNT_LINE_BYTES_MAX,
            _ if is_command => return None,
            b'+' | b'-' | b'(' | b',' => LINE_BYTES_MAX,
            b'*' | b'$' | b':' | b'_' | b'#' | b'!' | b'=' | b'%' | b'~' | b'>' | b'|' => {
                COUNT_LINE_BYTES_MAX
            }
            _ => return None,
        };
        if self.line.length > bytes_max {
            return None;
        }
        if !part.ends_with(b"\n") {
            return Some(false);
        }
        let line = std::mem::take(&mut self.line);
        if is_inline {
            return self.take_inline(line.kept()).then_some(true);
        }
        let is_cut = line.length > line.kept().len() as u64;
        let content = if is_cut { line.kept().get(1..) } else { line.kept().strip_suffix(END)?.get(1..) };
        self.take_type(first, content?)
    }

    /// Anything may look like a line: only known commands are taken from one.
    fn take_inline(&mut self, line: &[u8]) -> bool {
        self.value.kind = b'*';
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            self.value.count += 1;
            self.value.add_word(word);
        }
        self.value.count == 0 || commands::name(self.value.word(0), b"").is_some()
    }

    fn take_type(&mut self, kind: u8, content: &[u8]) -> Option<bool> {
        let is_top = self.depth == 0;
        if is_top && kind != b'|' {
            self.value.kind = kind;
        }
        let is_word = self.depth <= 1 && self.attributes == 0;
        match kind {
            b'$' | b'!' | b'=' => {
                if is_word {
                    self.value.add_word(&[]);
                }
                let Some(length) = count(content, STRING_BYTES_MAX)? else { return Some(self.end_element()) };
                self.string_left = length + END.len() as u64;
                self.is_word_closed = false;
                Some(false)
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                if is_word && !is_top && kind != b'|' {
                    self.value.add_word(&[]);
                }
                let elements = count(content, ELEMENTS_MAX)?.unwrap_or(0);
                let left = if matches!(kind, b'%' | b'|') { elements * 2 } else { elements };
                if is_top && kind != b'|' {
                    self.value.count = left;
                }
                self.open(left, kind == b'|')
            }
            _ => {
                if is_word {
                    self.value.add_word(content);
                }
                Some(self.end_element())
            }
        }
    }

    fn open(&mut self, left: u64, is_attribute: bool) -> Option<bool> {
        if left == 0 {
            return Some(!is_attribute && self.end_element());
        }
        *self.open.get_mut(self.depth)? = Open { left, is_attribute };
        self.depth += 1;
        self.attributes += u32::from(is_attribute);
        Some(false)
    }

    /// An element ended, and with it perhaps those around it. Whether the whole value did.
    fn end_element(&mut self) -> bool {
        while let Some(above) = self.depth.checked_sub(1) {
            let Some(open) = self.open.get_mut(above) else { return true };
            open.left = open.left.saturating_sub(1);
            if open.left > 0 {
                return false;
            }
            self.depth = above;
            if open.is_attribute {
                self.attributes = self.attributes.saturating_sub(1);
                return false;
            }
        }
        true
    }
}

/// What a line and a string end with.
const END: &[u8] = b"\r\n";

/// A count; `Some(None)` for the null of RESP2.
fn count(digits: &[u8], max: u64) -> Option<Option<u64>> {
    if digits == b"-1" {
        return Some(None);
    }
    let is_number = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    let number = digits
        .iter()
        .fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit & 0x0f)));
    (is_number && number <= max).then_some(Some(number))
}

impl<const N: usize> Kept<N> {
    fn push(&mut self, bytes: &[u8]) {
        let start = usize::try_from(self.length).unwrap_or(usize::MAX);
        let free = self.bytes.get_mut(start..).unwrap_or_default();
        free.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    fn kept(&self) -> &[u8] {
        let length = usize::try_from(self.length).map_or(N, |length| length.min(N));
        self.bytes.get(..length).unwrap_or_default()
    }
}

impl<const N: usize> Default for Kept<N> {
    fn default() -> Self {
        Self { bytes: [0; N], length: 0 }
    }
}
