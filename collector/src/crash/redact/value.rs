//! How far the value of a secret's name reaches: in options, environments, headers, JSON, YAML, URLs.
//!
//! Refuses: parsing any of these. It reads on until what ends a value in most of them.

use std::ops::Range;

use super::REDACTED;
use super::name::{self, Certainty};
use super::token;

/// Blanks on each side of a separator.
const BLANKS_MAX: usize = 8;

/// A longer value is no doubtful one. It also bounds what is read again after a value that is none.
const DOUBTFUL_BYTES_MAX: usize = 512;

/// Values that hide nothing, and often explain a crash.
const HARMLESS: [&str; 19] = [
    "true",
    "false",
    "null",
    "none",
    "nil",
    "undefined",
    "yes",
    "no",
    "on",
    "off",
    "str",
    "string",
    "bytes",
    "required",
    "missing",
    "invalid",
    "incorrect",
    "empty",
    "unset",
];

/// Schemes of an `Authorization` header that one word follows.
const SCHEMES: [&str; 6] = ["bearer", "basic", "token", "negotiate", "ntlm", "apikey"];

/// Schemes that more than one word follows.
const LONG_SCHEMES: [&str; 5] = ["digest", "aws4-hmac-sha256", "hawk", "sharedkey", "sharedaccesssignature"];

/// What one command argument is by itself.
pub(super) enum Arg<'arg> {
    /// A name of a secret with its value.
    Pair { name: &'arg str },
    /// An option whose value, a secret, is the next argument.
    Option,
    /// Anything else.
    Other,
}

/// What stands between a name and its value.
#[derive(Clone, Copy, PartialEq)]
enum Separator {
    /// `=`, `=>` or `:=`
    Equals {
        is_tight: bool,
    },
    Colon,
    /// After an option.
    Blank,
}

/// A quotation mark with the backslashes before it.
#[derive(Clone, Copy, PartialEq)]
struct Quote {
    backslashes: usize,
    mark: u8,
}

/// Looks at an argument as a whole.
pub(super) fn of_arg(arg: &str) -> Arg<'_> {
    let (name, value) = match arg.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (arg, None),
    };
    let bare = name.trim_start_matches('-');
    let is_option = bare.len() < name.len();
    let is_name = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    let Some(certainty) = name::certainty(bare).filter(|_| is_name) else { return Arg::Other };
    let is_secret = is_option || certainty == Certainty::Clear || !name::is_vague(bare);
    match value {
        Some(value) if is_secret && !is_harmless(value) => Arg::Pair { name },
        None if is_option => Arg::Option,
        _ => Arg::Other,
    }
}

/// The secret whose name is here.
pub(super) fn of_name(text: &str, name: Range<usize>, is_option: bool) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let before = text[..name.start].trim_end_matches([' ', '\t']);
    let certainty = match &text[name.clone()] {
        // A signed URL, a connection string: elsewhere these are other things.
        "sig" if before.ends_with(['?', '&']) => Certainty::Clear,
        word if word.eq_ignore_ascii_case("pwd") && before.ends_with(';') => Certainty::Clear,
        word => name::certainty(word)?,
    };
    let quote_of_name = quote(bytes, name.end);
    let after_name = name.end + quote_of_name.map_or(0, |quote| quote.backslashes + 1);
    let (separator, start) = separator(bytes, after_name, is_option)?;
    if text[start..].starts_with(REDACTED) {
        return Some(start..start + REDACTED.len());
    }
    let (content, quote_of_value) = match quote(bytes, start) {
        Some(quote) => (quoted(text, start, quote), Some(quote)),
        None if opens_structure(bytes, start, separator, certainty) => return None,
        None => (unquoted(text, start, before.ends_with(['?', '&'])), None),
    };
    if certainty == Certainty::Header
        && let Some(credentials) = after_scheme(text, content.clone(), quote_of_value)
    {
        return Some(credentials);
    }
    let value = &text[content.clone()];
    if value.len() > DOUBTFUL_BYTES_MAX {
        return Some(content);
    }
    if value.is_empty() || is_harmless(value) || (quote_of_value.is_none() && is_call(value)) {
        return None;
    }
    let is_sure = match (certainty, separator) {
        (Certainty::Clear, _) | (_, Separator::Blank) => true,
        _ if is_option || (quote_of_name.is_some() && quote_of_value.is_some()) => true,
        (Certainty::Doubtful, Separator::Equals { is_tight: true }) => !name::is_vague(&text[name.clone()]),
        _ => is_key(text, before, &content, quote_of_value),
    };
    (is_sure || token::is_likely(value)).then_some(content)
}

/// The password in a URL whose `://` ends here.
pub(super) fn of_url(text: &str, start: usize) -> Option<Range<usize>> {
    let is_end = |letter: char| letter.is_whitespace() || "/?#\"'<>`\\".contains(letter);
    let authority = &text[start..start + text[start..].find(is_end).unwrap_or(text.len() - start)];
    let user_info = &authority[..authority.rfind('@')?];
    let password = start + user_info.find(':')? + 1..start + user_info.len();
    (!password.is_empty()).then_some(password)
}

/// The separator after a name, and where the value begins.
fn separator(bytes: &[u8], name_end: usize, is_option: bool) -> Option<(Separator, usize)> {
    let at = name_end + blanks(bytes, name_end);
    let rest = &bytes[at..];
    let (separator, length) = match rest {
        // A comparison and a path are no pairs.
        [b'=', b'=' | b'~', ..] | [b':', b':', ..] => return None,
        [b'=', b'>', ..] | [b':', b'=', ..] => (Separator::Equals { is_tight: false }, 2),
        [b'=', ..] => (Separator::Equals { is_tight: at == name_end }, 1),
        [b':', ..] => (Separator::Colon, 1),
        [b'-', ..] => return None,
        _ if is_option && at > name_end => (Separator::Blank, 0),
        _ => return None,
    };
    let start = at + length;
    Some((separator, start + blanks(bytes, start)))
}

fn blanks(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().take(BLANKS_MAX).take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

fn quote(bytes: &[u8], at: usize) -> Option<Quote> {
    let backslashes = bytes[at..].iter().take(BLANKS_MAX).take_while(|&&byte| byte == b'\\').count();
    let mark = *bytes.get(at + backslashes)?;
    matches!(mark, b'"' | b'\'' | b'`').then_some(Quote { backslashes, mark })
}

/// A list, a table or a block in YAML: what is inside has names of its own.
fn opens_structure(bytes: &[u8], at: usize, separator: Separator, certainty: Certainty) -> bool {
    match bytes.get(at) {
        Some(b'{' | b'[') => separator == Separator::Colon || certainty != Certainty::Clear,
        Some(b'&' | b'*' | b'|' | b'>') => separator == Separator::Colon,
        _ => false,
    }
}

/// The content of the quotation that begins here. Without an end, the rest of the line.
fn quoted(text: &str, at: usize, quote: Quote) -> Range<usize> {
    let start = at + quote.backslashes + 1;
    let mut backslashes = 0;
    for (number, byte) in text.as_bytes()[start..].iter().enumerate() {
        match byte {
            b'\n' => return start..start + number,
            b'\\' => backslashes += 1,
            byte if *byte == quote.mark => {
                // As many backslashes as before the first mark; more belong to a mark inside.
                let is_end = if quote.backslashes == 0 {
                    backslashes % 2 == 0
                } else {
                    backslashes <= quote.backslashes
                };
                if is_end {
                    return start..start + number - if quote.backslashes == 0 { 0 } else { backslashes };
                }
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
    }
    start..text.len()
}

/// The word that begins here, without what closes a sentence or a structure around it.
fn unquoted(text: &str, start: usize, is_in_query: bool) -> Range<usize> {
    let rest = &text[start..];
    let bytes = rest.as_bytes();
    let is_end = |(at, letter): (usize, char)| match letter {
        ';' => true,
        '&' => is_in_query,
        // A quotation that began before the name ends here; one in the middle of a word is part of it.
        '"' | '\'' | '`' => {
            bytes.get(at + 1).is_none_or(|next| next.is_ascii_whitespace() || b",;:)}]\\".contains(next))
        }
        '\\' => matches!(bytes.get(at + 1), Some(b'"' | b'\'')),
        letter => letter.is_whitespace(),
    };
    let end = rest.char_indices().find(|&place| is_end(place)).map_or(rest.len(), |(at, _)| at);
    start..start + rest[..end].trim_end_matches([',', ')', ']', '}']).len()
}

/// The credentials of an `Authorization` header, after the name of the scheme.
fn after_scheme(text: &str, content: Range<usize>, quote: Option<Quote>) -> Option<Range<usize>> {
    let scheme = text[content.clone()].split([' ', '\t']).next()?;
    let is_one_of = |schemes: &[&str]| schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let start = content.start + scheme.len();
    let start = start + blanks(text.as_bytes(), start);
    let credentials = if !is_one_of(&SCHEMES) && !is_one_of(&LONG_SCHEMES) {
        return None;
    } else if quote.is_some() {
        start..content.end.max(start)
    } else if text[start..].starts_with(REDACTED) {
        start..start + REDACTED.len()
    } else if is_one_of(&SCHEMES) {
        unquoted(text, start, false)
    } else {
        start..start + text[start..].find('\n').unwrap_or(text.len() - start)
    };
    (!credentials.is_empty()).then_some(credentials)
}

/// Whether the name stands where YAML, a configuration file or a printed structure has its keys.
fn is_key(text: &str, before: &str, content: &Range<usize>, quote_of_value: Option<Quote>) -> bool {
    let starts_line = before.is_empty() || before.ends_with('\n') || before.ends_with("\n-") || before == "-";
    match quote_of_value {
        Some(_) => starts_line || before.ends_with(['{', ',', '(']),
        // More words make it a sentence.
        None => {
            starts_line
                && text[content.end..]
                    .trim_start_matches([' ', '\t', '\r'])
                    .chars()
                    .next()
                    .is_none_or(|next| next == '\n')
        }
    }
}

fn is_harmless(value: &str) -> bool {
    let value = value.trim_end_matches('.');
    HARMLESS.iter().any(|harmless| value.eq_ignore_ascii_case(harmless))
        || value.chars().all(|letter| letter == '*')
}

/// `get_password()` in a line of source that a traceback shows.
fn is_call(value: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let name = value.bytes().take_while(|&byte| is_name(byte)).count();
    name > 0 && value[name..].starts_with('(')
}
