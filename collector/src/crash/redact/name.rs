//! Whether a name is one of a secret.
//!
//! Refuses: what the name stands for, where it is, and its value.

use std::ops::Range;

/// A longer name is cut on either side.
const NAME_BYTES_MAX: usize = 128;

/// Ends of last words that are names of secrets wherever they stand.
const CLEAR: [&str; 8] =
    ["password", "passwd", "passphrase", "apikey", "accesskey", "secretkey", "privatekey", "accountkey"];

/// Ends of last words that prose uses too.
const DOUBTFUL: [&str; 4] = ["token", "secret", "credential", "credentials"];

/// Words before `key` that make it a secret.
const KEYS: [&str; 9] =
    ["api", "access", "private", "secret", "account", "encryption", "signing", "shared", "auth"];

/// A name with `secret` in it and one of these at its end is about a secret, and holds none.
const ABOUT: [&str; 30] = [
    "file",
    "files",
    "path",
    "dir",
    "directory",
    "name",
    "names",
    "namespace",
    "type",
    "kind",
    "count",
    "length",
    "len",
    "size",
    "max",
    "min",
    "ttl",
    "expiry",
    "expires",
    "timeout",
    "version",
    "arn",
    "url",
    "uri",
    "ref",
    "mount",
    "volume",
    "provider",
    "store",
    "id",
];

/// How surely a name is one of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// Any value is a secret.
    Clear,
    /// Only where the place or the shape of the value says so.
    Doubtful,
    /// `Authorization`, whose value may begin with the name of a scheme.
    Header,
}

/// The name that holds this word, without leading dashes, and whether it had them as an option has.
pub(super) fn around(text: &str, word: Range<usize>, done: usize) -> (Range<usize>, bool) {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let bytes = text.as_bytes();
    let before = bytes[done.min(word.start)..word.start].iter().rev().take(NAME_BYTES_MAX);
    let start = word.start - before.take_while(is_part).count();
    let end = word.end + bytes[word.end..].iter().take(NAME_BYTES_MAX).take_while(is_part).count();
    let dashes = bytes[start..word.start].iter().take_while(|&&byte| byte == b'-').count();
    (start + dashes..end, (1..=2).contains(&dashes))
}

/// `None` for a name of anything else.
pub(super) fn certainty(name: &str) -> Option<Certainty> {
    let words = words(name);
    let (last, before) = words.split_last()?;
    let previous = before.last().map(String::as_str).unwrap_or_default();
    let ends_with = |ends: &[&str]| ends.iter().any(|end| last.ends_with(end));
    let is_environment = !name.contains(|letter: char| letter.is_ascii_lowercase());
    match last.as_str() {
        "pwd" if !matches!(previous, "" | "old") => return Some(Certainty::Clear),
        "pass" if !previous.is_empty() && is_environment => return Some(Certainty::Clear),
        "key" if KEYS.contains(&previous) => return Some(Certainty::Clear),
        "signature" if previous == "access" => return Some(Certainty::Clear),
        "authorization" => return Some(Certainty::Header),
        "auth" => return Some(Certainty::Doubtful),
        _ => {}
    }
    if ends_with(&CLEAR) || last == "sharedaccesssignature" {
        return Some(Certainty::Clear);
    }
    let has_secret = before.iter().any(|word| word.ends_with("secret")) && !ABOUT.contains(&last.as_str());
    (ends_with(&DOUBTFUL) || has_secret).then_some(Certainty::Doubtful)
}

/// Whether prose uses the name so often that even `name=value` is doubtful.
pub(super) fn is_vague(name: &str) -> bool {
    words(name).last().is_some_and(|last| last == "auth")
}

/// `dbPassword2`, `DB_PASSWORD` and `db.password` as `db` and `password`.
fn words(name: &str) -> Vec<String> {
    let name =
        name.trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '_' | '-' | '.'));
    let mut words = vec![String::new()];
    let bytes = name.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let is_after_lower = at > 0 && !bytes[at - 1].is_ascii_uppercase();
        let is_before_lower = bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
        if matches!(byte, b'_' | b'-' | b'.')
            || (byte.is_ascii_uppercase() && (is_after_lower || is_before_lower))
        {
            words.push(String::new());
        }
        if byte.is_ascii_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &str, expected: Option<Certainty>) {
        for name in names.split(' ') {
            assert_eq!(certainty(name), expected, "{name}");
        }
    }

    #[test]
    fn names() {
        use Certainty::{Clear, Doubtful, Header};
        check("password passwd passphrase PGPASSWORD DB_PASSWORD_2 spring.datasource.password", Some(Clear));
        check(
            "keyStorePassword api-key apikey X-Api-Key apiKey API_KEY APIKey aws_secret_access_key",
            Some(Clear),
        );
        check("private-key AccountKey SharedAccessKey SharedAccessSignature MYSQL_PWD DB_PASS", Some(Clear));
        check("token secret credential credentials auth CSRF_TOKEN authToken client_secret", Some(Doubtful));
        check("SECRET_KEY_BASE SECRET_VALUE", Some(Doubtful));
        check("Authorization Proxy-Authorization", Some(Header));
        check("password-file tokenize token-count tokens author authority key monkey pass PWD OLDPWD", None);
        check(
            "OLD_PWD secretName secret_file private_key_id passwordless passed tests_pass token.rs sig",
            None,
        );
        check("- _ . 1", None);
    }
}
