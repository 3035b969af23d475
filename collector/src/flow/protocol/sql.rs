//! SQL texts for telemetry: literals become `?`, and a statement gets a short name (`SELECT orders`).
//!
//! A lexer of our own, as the crates that parse SQL build trees, refuse what they do not know and allocate for each token.
//! Refuses: to understand SQL, to fail, and to show what might be a literal. Written for PostgreSQL; a database in which `"`
//! quotes strings or `#` begins comments (MySQL) needs a switch in the lexer first.

mod lexer;
mod outline;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use lexer::{Lexer, Token};
use outline::{Keyword, Outline};

/// Bytes of a normalised text.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Texts that a cache remembers. A power of two.
const CACHED_TEXTS_MAX: usize = 32;

/// What ends a text that was cut.
const ELLIPSIS: &str = "…";

/// What telemetry may say about a text of SQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// The text without literals and comments, at most [`TEXT_BYTES_MAX`] bytes; ends with `…` if some of it was left out.
    pub text: Box<str>,
    /// Its operations and their targets: few values. Empty if none was found.
    pub summary: Box<str>,
    /// The first operation.
    pub operation: Option<&'static str>,
    /// The table, if there is only one.
    pub collection: Option<Box<str>>,
}

/// Normalised texts by the hash of their source, so that the same text is not read again and again.
#[derive(Debug, Default)]
pub struct Cache {
    slots: Vec<Option<(u64, Arc<Statement>)>>,
    held_bytes: usize,
}

/// Reads a text, `is_cut` if its end is missing. Time is linear in its bytes.
pub fn normalise(source: &[u8], is_cut: bool) -> Statement {
    let mut lexer = Lexer::new(source);
    let mut outline = Outline::default();
    let mut writer =
        Writer { text: Vec::with_capacity(source.len().min(TEXT_BYTES_MAX)), ..Writer::default() };
    let mut has_space = false;
    for token in lexer.by_ref() {
        if token == Token::Space {
            has_space = true;
            continue;
        }
        let keyword = match token {
            Token::Word(word) => Keyword::of(word),
            _ => Keyword::Other,
        };
        outline.take(token, keyword);
        writer.take(token, keyword, has_space);
        has_space = false;
    }
    let (summary, operation, collection) = outline.finish();
    Statement { text: writer.finish(is_cut || lexer.is_hidden()), summary, operation, collection }
}

impl Statement {
    /// About the memory that it takes.
    pub fn held_bytes(&self) -> usize {
        let collection = self.collection.as_ref().map_or(0, |collection| collection.len());
        size_of::<Self>() + self.text.len() + self.summary.len() + collection
    }
}

impl Cache {
    /// About the memory that it takes.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes + self.slots.capacity() * size_of::<Option<(u64, Arc<Statement>)>>()
    }

    /// The normalised form of a text.
    pub fn normalise(&mut self, source: &[u8], is_cut: bool) -> Arc<Statement> {
        if self.slots.is_empty() {
            self.slots.resize(CACHED_TEXTS_MAX, None);
        }
        let hash = hash(source) ^ u64::from(is_cut);
        let slot = (hash >> 32) as usize & (CACHED_TEXTS_MAX - 1);
        let Some(slot) = self.slots.get_mut(slot) else { return Arc::new(normalise(source, is_cut)) };
        match slot {
            Some((known, statement)) if *known == hash => Arc::clone(statement),
            _ => {
                let statement = Arc::new(normalise(source, is_cut));
                let before = slot.replace((hash, Arc::clone(&statement)));
                self.held_bytes += statement.held_bytes();
                self.held_bytes -= before.map_or(0, |(_, before)| before.held_bytes());
                statement
            }
        }
    }
}

/// Eight bytes a step. Whoever makes two texts collide mislabels his own queries.
fn hash(source: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = source.as_chunks::<8>();
    let mut tail = [0; 8];
    tail.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let words = words.iter().chain([&tail]).map(|word| u64::from_le_bytes(*word));
    words.fold(source.len() as u64, |hash, word| {
        let product = u128::from(hash ^ word) * u128::from(FACTOR);
        (product as u64 ^ (product >> 64) as u64).rotate_left(23).wrapping_add(FACTOR)
    })
}

/// Writes tokens, lists of literals and rows of values as if there was one.
#[derive(Default)]
struct Writer {
    text: Vec<u8>,
    is_full: bool,
    depth: u32,
    /// The depth at which literals are elements of a list, after `IN (` and `[`.
    list: Option<u32>,
    /// A comma that is only written if what follows it is.
    held_comma: bool,
    previous: Previous,
    rows: Rows,
    /// The depth at which rows stand.
    rows_depth: u32,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Previous {
    #[default]
    Other,
    /// `IN`: a parenthesis that follows begins a list.
    In,
    /// A literal or a parameter.
    Literal,
    /// What a value may end with: a sign that follows it is an operator.
    Value,
}

/// Where the writer is in `VALUES (…), (…)`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Rows {
    #[default]
    None,
    /// After `VALUES`.
    Wanted,
    /// In the row that is written.
    First,
    /// After a row.
    Between,
    /// After the comma that follows a row.
    Comma,
    /// In a row that is left out.
    Skipped,
}

impl Writer {
    fn take(&mut self, token: Token<'_>, keyword: Keyword, has_space: bool) {
        if self.is_left_out(token, keyword) {
            return;
        }
        let in_list = self.list == Some(self.depth);
        if in_list && self.is_collapsed(token) {
            return;
        }
        if std::mem::take(&mut self.held_comma) {
            self.write(b",", false);
        }
        match token {
            Token::Word(word) | Token::Name(word) => self.write(word, has_space),
            Token::Literal => self.write(b"?", has_space),
            // Lists of parameters are as long as those of literals.
            Token::Parameter(_) if in_list => self.write(b"?", has_space),
            Token::Parameter(parameter) => self.write(parameter, has_space),
            Token::Symbol(symbol) => self.write(&[symbol], has_space),
            Token::Space => {}
        }
        self.nest(token);
        self.previous = match token {
            Token::Literal | Token::Parameter(_) => Previous::Literal,
            Token::Word(_) if keyword == Keyword::In => Previous::In,
            Token::Name(_) | Token::Symbol(b')' | b']') => Previous::Value,
            Token::Word(_) if keyword == Keyword::Other => Previous::Value,
            _ => Previous::Other,
        };
    }

    /// Whether the token is an element of a list that has one, or the comma before it.
    fn is_collapsed(&mut self, token: Token<'_>) -> bool {
        match token {
            Token::Symbol(b',') if self.previous == Previous::Literal => self.held_comma = true,
            Token::Literal | Token::Parameter(_) if self.held_comma => self.held_comma = false,
            Token::Symbol(b'-' | b'+') if self.held_comma || self.previous == Previous::Other => {}
            _ => return false,
        }
        true
    }

    fn nest(&mut self, token: Token<'_>) {
        match token {
            Token::Symbol(bracket @ (b'(' | b'[')) => {
                self.depth = self.depth.saturating_add(1);
                if bracket == b'[' || self.previous == Previous::In {
                    self.list = Some(self.depth);
                }
            }
            Token::Symbol(b')' | b']') => {
                if self.list == Some(self.depth) {
                    self.list = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// Follows `VALUES`; says whether the token belongs to a row that is left out.
    fn is_left_out(&mut self, token: Token<'_>, keyword: Keyword) -> bool {
        let is_here = self.depth == self.rows_depth;
        let (rows, is_left_out) = match (self.rows, token) {
            _ if keyword == Keyword::Values => {
                self.rows_depth = self.depth;
                (Rows::Wanted, false)
            }
            (Rows::None, _) => return false,
            (Rows::Wanted, Token::Symbol(b'(')) => (Rows::First, false),
            // The closing parenthesis is still one level deeper.
            (Rows::First, Token::Symbol(b')')) if self.depth == self.rows_depth.saturating_add(1) => {
                (Rows::Between, false)
            }
            (Rows::First, _) => (Rows::First, false),
            (Rows::Between, Token::Symbol(b',')) if is_here => {
                self.held_comma = true;
                (Rows::Comma, true)
            }
            (Rows::Comma, Token::Symbol(b'(')) => {
                self.held_comma = false;
                self.depth = self.depth.saturating_add(1);
                (Rows::Skipped, true)
            }
            (Rows::Skipped, Token::Symbol(b'(' | b'[')) => {
                self.depth = self.depth.saturating_add(1);
                (Rows::Skipped, true)
            }
            (Rows::Skipped, Token::Symbol(b')' | b']')) => {
                self.depth = self.depth.saturating_sub(1);
                (if self.depth <= self.rows_depth { Rows::Between } else { Rows::Skipped }, true)
            }
            (Rows::Skipped, _) => (Rows::Skipped, true),
            _ => (Rows::None, false),
        };
        self.rows = rows;
        is_left_out
    }

    fn write(&mut self, bytes: &[u8], has_space: bool) {
        let has_space = has_space && !self.text.is_empty();
        let space = usize::from(has_space);
        let room = (TEXT_BYTES_MAX - ELLIPSIS.len()).saturating_sub(self.text.len());
        if self.is_full || bytes.len() + space > room {
            self.is_full = true;
            return;
        }
        if has_space {
            self.text.push(b' ');
        }
        self.text.extend_from_slice(bytes);
    }

    fn finish(self, is_cut: bool) -> Box<str> {
        let mut text = match String::from_utf8(self.text) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        // Each byte that is no UTF-8 has become three.
        let end = text.floor_char_boundary(TEXT_BYTES_MAX - ELLIPSIS.len());
        let is_cut = is_cut || self.is_full || end < text.len();
        text.truncate(end);
        if is_cut {
            text.push_str(ELLIPSIS);
        }
        text.into_boxed_str()
    }
}
