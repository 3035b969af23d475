//! A guess at the route of a path: what differs from request to request becomes `{id}`.
//!
//! The server's own template is not on the wire. A guess must have few values by itself, so it rather hides a name than
//! keeps an identifier. Refuses: to remember paths.

use crate::flow::protocol::Text;

/// Segments that are kept; the rest becomes `*`.
const SEGMENTS_MAX: usize = 5;

/// Bytes of a segment that may be a name.
const NAME_BYTES_MAX: usize = 32;

/// Words of a segment that may be a name: more are the title of something.
const WORDS_MAX: usize = 4;

/// So many hexadecimal digits are not a word.
const HEX_DIGITS_MIN: usize = 8;

/// Bytes of a word that may have a digit (`oauth2`, `s3`).
const DIGIT_WORD_BYTES_MAX: usize = 7;

/// Letters in both cases that are rather base64 than a word.
const MIXED_BYTES_MIN: usize = 24;

/// What stands for what differs.
const PLACEHOLDER: &str = "{id}";

/// Names of static files end like this.
const EXTENSIONS: [&str; 26] = [
    "js", "mjs", "css", "map", "html", "htm", "json", "xml", "txt", "ico", "png", "jpg", "jpeg", "gif",
    "svg", "webp", "avif", "woff", "woff2", "ttf", "pdf", "wasm", "php", "csv", "zip", "gz",
];

/// The route of a path that begins with `/`. The last segment of a path whose end is missing is not known.
pub fn route(path: &str, is_cut: bool) -> Text {
    let segments = || path.split('/').filter(|segment| !segment.is_empty());
    let count = segments().count();
    if count == 0 {
        return if is_cut { Text::Borrowed("/*") } else { Text::Borrowed("/") };
    }
    let known = if is_cut && !path.ends_with('/') { count - 1 } else { count };
    let mut route = String::with_capacity(path.len().min(SEGMENTS_MAX * (NAME_BYTES_MAX + 1)) + 2);
    for segment in segments().take(known.min(SEGMENTS_MAX)) {
        route.push('/');
        push_segment(&mut route, segment);
    }
    if is_cut || count > SEGMENTS_MAX {
        route.push_str("/*");
    }
    route.into()
}

fn push_segment(route: &mut String, segment: &str) {
    // Parameters of a segment are data (`;jsessionid=`).
    let segment = segment.split(';').next().unwrap_or_default();
    let file = segment.rsplit_once('.').filter(|(stem, extension)| {
        !stem.is_empty() && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
    });
    let Some((stem, extension)) = file else {
        route.push_str(if is_name(segment) { segment } else { PLACEHOLDER });
        return;
    };
    // Bundlers put a hash between the name and the extension.
    if stem.split('.').count() > WORDS_MAX {
        route.push_str(PLACEHOLDER);
    } else {
        for (index, part) in stem.split('.').enumerate() {
            if index > 0 {
                route.push('.');
            }
            route.push_str(if is_name(part) { part } else { PLACEHOLDER });
        }
    }
    route.push('.');
    route.push_str(extension);
}

/// Whether it looks like a word that a developer chose.
fn is_name(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX || !bytes.iter().all(is_plain) {
        return false;
    }
    let is_mixed = bytes.iter().any(u8::is_ascii_lowercase) && bytes.iter().any(u8::is_ascii_uppercase);
    if is_mixed && bytes.len() >= MIXED_BYTES_MIN {
        return false;
    }
    let words = || bytes.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words().count() <= WORDS_MAX && words().all(is_word)
}

fn is_word(word: &[u8]) -> bool {
    if word.len() >= HEX_DIGITS_MIN && word.iter().all(u8::is_ascii_hexdigit) {
        return false;
    }
    match word.iter().filter(|byte| byte.is_ascii_digit()).count() {
        0 => true,
        1 if (2..=DIGIT_WORD_BYTES_MAX).contains(&word.len()) => {
            word.first().is_some_and(u8::is_ascii_digit) || word.last().is_some_and(u8::is_ascii_digit)
        }
        _ => is_version(word),
    }
}

/// `v1`, `v12`, `v1beta2`.
fn is_version(word: &[u8]) -> bool {
    let Some(rest) = word.strip_prefix(b"v") else { return false };
    let (major, rest) = leading_digits(rest);
    let stage = rest.strip_prefix(b"alpha").or_else(|| rest.strip_prefix(b"beta"));
    let (minor, rest) = leading_digits(stage.unwrap_or(rest));
    (1..=2).contains(&major) && minor <= 2 && rest.is_empty() && (stage.is_some() || minor == 0)
}

fn leading_digits(bytes: &[u8]) -> (usize, &[u8]) {
    let count = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count, bytes.get(count..).unwrap_or_default())
}
