//! Secrets that are known by their own shape. What tells the kind of the token is kept.
//!
//! Refuses: guessing. A random word without a known beginning may be a hash or an id.

use std::ops::Range;

/// A word that is shorter is no secret by its shape.
const SECRET_BYTES_MIN: usize = 8;

/// A word without a digit is one only if it is so long.
const WORDY_SECRET_BYTES_MIN: usize = 24;

/// Length of a JSON web token's first part.
const HEADER_BYTES_MAX: usize = 1_024;

/// Length of the secret that belongs to an AWS access key.
const AWS_SECRET_BYTES: usize = 40;

/// Between an AWS access key and its secret.
const AWS_GAP_BYTES_MAX: usize = 8;

/// The rest of a token, after its prefix.
pub(super) fn rest(text: &str, start: usize) -> Range<usize> {
    run(text, start, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The rest of a JSON web token, of which the signature may be cut off.
pub(super) fn json_web_token(text: &str, prefix: Range<usize>) -> Option<Range<usize>> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let header =
        text.as_bytes()[prefix.end..].iter().take(HEADER_BYTES_MAX).take_while(|&&byte| is_part(byte));
    let is_token = text[prefix.end + header.count()..].starts_with(".eyJ");
    is_token.then(|| run(text, prefix.end, |byte| is_part(byte) || byte == b'.'))
}

/// The access key, and its secret if that follows.
pub(super) fn aws(text: &str, key: Range<usize>) -> [Range<usize>; 2] {
    let gap = text.as_bytes()[key.end..].iter().take(AWS_GAP_BYTES_MAX);
    let gap = gap.take_while(|byte| byte.is_ascii_whitespace() || b":,;|/=\"'".contains(byte)).count();
    let start = key.end + gap;
    let secret = run(text, start, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+'));
    let secret = if gap > 0 && secret.len() == AWS_SECRET_BYTES { secret } else { 0..0 };
    [key, secret]
}

/// The word after `Bearer`, unless it is one of prose.
pub(super) fn bearer(text: &str, start: usize) -> Option<Range<usize>> {
    let word = run(text, start, |byte| is_secret_byte(&byte));
    is_likely(&text[word.clone()]).then_some(word)
}

/// Whether a word has the shape of a secret.
pub(super) fn is_likely(word: &str) -> bool {
    let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
    word.len() >= if has_digit { SECRET_BYTES_MIN } else { WORDY_SECRET_BYTES_MIN }
        && !word.starts_with("0x")
        && word.bytes().all(|byte| is_secret_byte(&byte))
}

fn is_secret_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte)
}

fn run(text: &str, start: usize, is_part: impl Fn(u8) -> bool) -> Range<usize> {
    start..start + text.as_bytes()[start..].iter().take_while(|&&byte| is_part(byte)).count()
}
