//! Whether bytes begin a message of PostgreSQL.
//!
//! Refuses: messages that could be those of another protocol, and ones that are often cut (rows).

use super::super::Direction;
use super::reader::fits;

/// Codes in the place of a version (src/include/libpq/pqcomm.h).
pub const CANCEL: u32 = 80_877_102;
/// Encryption by TLS is asked for.
pub const TLS: u32 = 80_877_103;
/// Encryption by GSSAPI is asked for.
pub const GSSAPI: u32 = 80_877_104;

/// Messages that are looked at.
const MESSAGES_MAX: usize = 8;

/// Whether bytes begin a message, and which way they go.
pub fn detect(bytes: &[u8]) -> Option<Direction> {
    match bytes.first()? {
        0 => is_startup(bytes).then_some(Direction::Request),
        b'Q' | b'P' | b'B' => is_chain(bytes, Direction::Request).then_some(Direction::Request),
        b'1' | b'2' | b'C' | b'E' | b'R' | b'T' | b'Z' => {
            is_chain(bytes, Direction::Response).then_some(Direction::Response)
        }
        _ => None,
    }
}

fn is_startup(bytes: &[u8]) -> bool {
    let Some((length, rest)) = number(bytes) else { return false };
    let Some((code, rest)) = number(rest) else { return false };
    match (code, length) {
        (TLS | GSSAPI, 8) => true,
        // The key of a process; later versions have longer ones.
        (CANCEL, 16..=268) => true,
        // Names of parameters: what else begins with such a length and version has no letter here.
        _ if code >> 16 == 3 && (10..=10_000).contains(&length) => {
            rest.first().is_some_and(u8::is_ascii_lowercase)
        }
        _ => false,
    }
}

/// Whether messages follow each other by their lengths, and the first of them has the form of its type.
fn is_chain(bytes: &[u8], direction: Direction) -> bool {
    let mut rest = bytes;
    for index in 0..MESSAGES_MAX {
        let Some((kind, after)) = rest.split_first() else { return index > 0 };
        let Some((length, after)) = number(after) else { return index > 0 };
        if !fits(direction, *kind, length) {
            return false;
        }
        let body_length = (length as usize).saturating_sub(4);
        let body = after.get(..body_length.min(after.len())).unwrap_or_default();
        if index == 0 && !has_form(direction, *kind, body, body.len() == body_length) {
            return false;
        }
        rest = after.get(body_length..).unwrap_or_default();
    }
    true
}

fn has_form(direction: Direction, kind: u8, body: &[u8], is_whole: bool) -> bool {
    let is_text = |text: &[u8]| text.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace());
    match (direction, kind) {
        (Direction::Request, b'Q') => {
            let text = body.strip_suffix(b"\0").unwrap_or(body);
            !text.is_empty() && is_text(text) && (!is_whole || text.len() < body.len())
        }
        (Direction::Request, b'P') => {
            let mut parts = body.splitn(3, |byte| *byte == 0);
            let mut next = || parts.next().is_some_and(is_text);
            next() && next()
        }
        (Direction::Request, _) => is_whole && body.iter().take(128).filter(|byte| **byte == 0).count() >= 2,
        (_, b'1' | b'2' | b'Z') => is_whole,
        (_, b'C') => is_whole && body.ends_with(b"\0") && body.first().is_some_and(u8::is_ascii_uppercase),
        (_, b'E') => body.starts_with(b"S") && body.get(1).is_some_and(u8::is_ascii_uppercase),
        (_, b'R') => matches!(body, [0, 0, 0, 0..=12, ..]),
        // Few columns, and the name of the first.
        _ => matches!(body, [0..=6, _, first, ..] if *first >= b' '),
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}
