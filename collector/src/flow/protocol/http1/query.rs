//! The query of a target without the values that look like secrets.
//!
//! Refuses: to keep a value whose key can't be read.

/// What the semantic conventions put in place of a value.
const REDACTED: &str = "REDACTED";

/// A key with one of these in it has a value that nobody else shall see.
const SECRET_KEYS: [&str; 12] = [
    "token",
    "key",
    "secret",
    "pass",
    "pwd",
    "auth",
    "sig",
    "session",
    "credential",
    "code",
    "jwt",
    "x-amz-",
];

/// Bytes of a key that are looked at.
const KEY_BYTES_MAX: usize = 64;

/// A value of so many letters and digits is rather a secret than a word.
const SECRET_BYTES_MIN: usize = 32;

/// The query with secret values replaced.
pub fn redact(query: &str) -> String {
    let mut redacted = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            redacted.push('&');
        }
        match pair.split_once('=') {
            Some((key, value)) if is_secret_key(key) || is_secret_value(value) => {
                redacted.push_str(key);
                redacted.push('=');
                redacted.push_str(REDACTED);
            }
            None if is_secret_value(pair) => redacted.push_str(REDACTED),
            _ => redacted.push_str(pair),
        }
    }
    redacted
}

fn is_secret_key(key: &str) -> bool {
    let mut plain = [0; KEY_BYTES_MAX];
    let mut rest = key.as_bytes();
    let mut length = 0;
    while let Some((byte, after)) = rest.split_first() {
        let (byte, after) = unescape(*byte, after);
        rest = after;
        // A key that does not fit is not read, so its value is not shown.
        let Some(place) = plain.get_mut(length) else { return true };
        *place = byte.to_ascii_lowercase();
        length += 1;
    }
    let plain = plain.get(..length).unwrap_or_default();
    SECRET_KEYS.iter().any(|known| plain.windows(known.len()).any(|window| window == known.as_bytes()))
}

/// `%74` is `t`.
fn unescape(byte: u8, after: &[u8]) -> (u8, &[u8]) {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    match after {
        [high, low, rest @ ..] if byte == b'%' => match (digit(high), digit(low)) {
            (Some(high), Some(low)) => ((high << 4 | low) as u8, rest),
            _ => (byte, after),
        },
        _ => (byte, after),
    }
}

/// A JSON web token, or long and of letters and digits. UUIDs name things.
fn is_secret_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let is_uuid = bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let is_random = bytes.len() >= SECRET_BYTES_MIN
        && bytes.iter().any(u8::is_ascii_digit)
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=%".contains(byte));
    value.starts_with("eyJ") || is_random && !is_uuid
}
