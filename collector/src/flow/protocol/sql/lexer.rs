//! Cuts a text of SQL into tokens.
//!
//! Refuses: to show a literal. Where quoting is in doubt the rest of the text is one literal.

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// White space and comments.
    Space,
    /// A keyword or a name without quotes.
    Word(&'a [u8]),
    /// A name with its quotes.
    Name(&'a [u8]),
    /// A string or a number.
    Literal,
    /// `$1` or `?`.
    Parameter(&'a [u8]),
    /// Any other byte.
    Symbol(u8),
}

/// Tokens of a text.
pub struct Lexer<'a> {
    rest: &'a [u8],
    is_hidden: bool,
}

impl<'a> Lexer<'a> {
    /// Of a text.
    pub fn new(source: &'a [u8]) -> Self {
        Self { rest: source, is_hidden: false }
    }

    /// Whether the rest of the text was taken for a literal.
    pub fn is_hidden(&self) -> bool {
        self.is_hidden
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, belongs: fn(u8) -> bool) -> &'a [u8] {
        self.take(self.rest.iter().position(|byte| !belongs(*byte)).unwrap_or(self.rest.len()))
    }

    /// A literal of so many bytes, or of all that is left if its end was not found.
    fn literal(&mut self, length: Option<usize>) -> Token<'a> {
        self.is_hidden |= length.is_none();
        self.take(length.unwrap_or(self.rest.len()));
        Token::Literal
    }

    fn name(&mut self, quote: u8) -> Token<'a> {
        // A doubled quote ends one name and begins the next: for what is shown that is the same.
        match self.rest.iter().skip(1).position(|byte| *byte == quote) {
            Some(position) => Token::Name(self.take(position + 2)),
            None => self.literal(None),
        }
    }

    fn word(&mut self) -> Token<'a> {
        let word = self.take_while(is_in_word);
        match (word, self.rest) {
            (b"E" | b"e", [b'\'', ..]) => self.literal(escaped_string(self.rest)),
            (b"B" | b"b" | b"X" | b"x" | b"N" | b"n", [b'\'', ..]) => self.literal(string(self.rest)),
            (b"U" | b"u", [b'&', b'\'', ..]) => {
                self.take(1);
                self.literal(string(self.rest))
            }
            _ => Token::Word(word),
        }
    }

    fn dollar(&mut self) -> Token<'a> {
        let digits = self.rest.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            return Token::Parameter(self.take(digits + 1));
        }
        let is_in_tag = |byte: &&u8| is_in_word(**byte) && **byte != b'$';
        let tag = self.rest.iter().skip(1).take_while(is_in_tag).count() + 2;
        match self.rest.split_at_checked(tag) {
            Some((opening, body)) if opening.ends_with(b"$") => {
                let length = dollar_string(opening, body);
                self.literal(length.map(|length| tag + length))
            }
            _ => {
                self.take(1);
                Token::Symbol(b'$')
            }
        }
    }

    fn number(&mut self) -> Token<'a> {
        let mut length = 0;
        let mut previous = 0;
        // What is glued to a number is hidden with it: `0x1f`, `1_000`, `1e-5`, `12abc`.
        for byte in self.rest {
            let is_sign = matches!(byte, b'+' | b'-') && matches!(previous, b'e' | b'E');
            if !(is_in_word(*byte) || *byte == b'.' || is_sign) {
                break;
            }
            previous = *byte;
            length += 1;
        }
        self.literal(Some(length))
    }

    fn next_token(&mut self, first: u8) -> Token<'a> {
        match (first, self.rest.get(1)) {
            (b'-', Some(b'-')) => {
                self.take_while(|byte| byte != b'\n');
                Token::Space
            }
            (b'/', Some(b'*')) => {
                self.take(comment(self.rest));
                Token::Space
            }
            (b'\'', _) => self.literal(string(self.rest)),
            (b'"' | b'`', _) => self.name(first),
            (b'$', _) => self.dollar(),
            (b'?', _) => Token::Parameter(self.take(1)),
            (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => self.number(),
            _ if is_space(first) => {
                self.take_while(is_space);
                Token::Space
            }
            _ if is_in_word(first) => self.word(),
            _ => {
                self.take(1);
                Token::Symbol(first)
            }
        }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let first = *self.rest.first()?;
        Some(self.next_token(first))
    }
}

fn is_space(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

/// The length of a string without escapes. Where a backslash stands before a quote some servers go on and some do not: there
/// the end is not known.
fn string(bytes: &[u8]) -> Option<usize> {
    end_of_string(bytes, |_| None)
}

/// The length of a string in which a backslash escapes.
fn escaped_string(bytes: &[u8]) -> Option<usize> {
    end_of_string(bytes, Some)
}

/// `past_escaped` says where to go on after an escaped quote.
fn end_of_string(bytes: &[u8], past_escaped: fn(usize) -> Option<usize>) -> Option<usize> {
    let mut position = 1;
    loop {
        let rest = bytes.get(position..)?;
        position += rest.iter().position(|byte| matches!(byte, b'\'' | b'\\'))?;
        position = match bytes.get(position..)? {
            [b'\\', b'\'', ..] => past_escaped(position + 2)?,
            [b'\\', ..] | [b'\'', b'\'', ..] => position + 2,
            _ => return Some(position + 1),
        };
    }
}

/// The length of what follows the opening tag, with the closing one.
fn dollar_string(tag: &[u8], body: &[u8]) -> Option<usize> {
    let mut rest = body;
    loop {
        let position = rest.iter().position(|byte| *byte == b'$')?;
        rest = rest.get(position..)?;
        // A tag has a dollar only at its ends, so that no byte is compared more than twice.
        if rest.starts_with(tag) {
            return Some(body.len() - rest.len() + tag.len());
        }
        rest = rest.get(1..)?;
    }
}

/// The length of a comment; comments nest.
fn comment(bytes: &[u8]) -> usize {
    let mut depth = 0_u32;
    let mut position = 0;
    while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
        position += match rest {
            [b'/', b'*', ..] => {
                depth = depth.saturating_add(1);
                2
            }
            [b'*', b'/', ..] => {
                depth = depth.saturating_sub(1);
                2
            }
            _ => 1,
        };
        if depth == 0 {
            break;
        }
    }
    position
}
