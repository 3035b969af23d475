//! Private keys in PEM: all between the first and the last line, also where one of these is cut off.
//!
//! Refuses: certificates and public keys, which are no secrets.

use std::ops::Range;

const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Between the dashes and `PRIVATE KEY` stands at most `ENCRYPTED` or the name of an algorithm.
const KIND_BYTES_MAX: usize = 40;

/// A shorter word is no line of a key, but for the last one.
const LINE_BYTES_MIN: usize = 24;

/// Headers of keys that are encrypted in the old way.
const HEADERS: [&str; 2] = ["Proc-Type:", "DEK-Info:"];

/// The body of the key, by the `PRIVATE KEY-----` of its first or last line.
pub(super) fn body(text: &str, done: usize, header: Range<usize>) -> Option<Range<usize>> {
    let start = text.floor_char_boundary(header.start.saturating_sub(KIND_BYTES_MAX).max(done));
    let before = &text[start..header.start];
    // Without either, the beginning of the text was cut off within this line.
    let dashes = before.rfind(DASHES).map(|at| start + at);
    let body = match dashes {
        Some(at) if text[at..].starts_with(END) => start_before(text, done, at)..at,
        _ => header.end..end_after(text, header.end),
    };
    (!text[body.clone()].trim_matches(is_space).is_empty()).then_some(body)
}

/// Where the key ends whose first line ends here: at its last line, or where the text no longer looks like a key.
fn end_after(text: &str, start: usize) -> usize {
    if let Some(length) = text[start..].find(DASHES)
        && text[start + length..].starts_with(END)
    {
        return start + length;
    }
    let mut end = start;
    loop {
        let rest = text[end..].trim_start_matches(is_space);
        let word = &rest[..rest.find(is_space).unwrap_or(rest.len())];
        let is_last = word.len() == rest.len();
        let is_body = is_base64(word) && (word.len() >= LINE_BYTES_MIN || is_last);
        if word.is_empty() {
            return end;
        } else if HEADERS.contains(&word) {
            end = text.len() - rest.len() + rest.find('\n').unwrap_or(rest.len());
        } else if is_body || (is_last && END.starts_with(word)) {
            end = text.len() - rest.len() + word.len();
        } else {
            return end;
        }
    }
}

/// Where the key begins whose last line begins here and whose first line was cut off.
fn start_before(text: &str, done: usize, end: usize) -> usize {
    let mut start = end;
    loop {
        let rest = text[done..start].trim_end_matches(is_space);
        let word = &rest[rest.rfind(is_space).map_or(0, |at| at + 1)..];
        // The last line and the one that was cut may be short.
        let is_body = word.len() >= LINE_BYTES_MIN || start == end || word.len() == rest.len();
        if word.is_empty() || !is_base64(word) || !is_body {
            return start;
        }
        start = done + rest.len() - word.len();
    }
}

/// White space, and the backslash of an escaped line break; its letter passes as base64.
fn is_space(letter: char) -> bool {
    letter.is_ascii_whitespace() || letter == '\\'
}

fn is_base64(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}
