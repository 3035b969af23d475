//! What a program said last, without what differs between two runs.
//!
//! Refuses: more than one line.

/// So much of the line counts.
const LINE_CHARS_MAX: usize = 256;

/// Lengths of the parts of a UUID.
const UUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];

/// Names of exceptions that tell nothing without their message.
const GENERIC: [&str; 5] = ["Error", "Exception", "Fatal", "Panic", "Warning"];

/// The type of the exception that the last line names, or the line with `#` for every number.
pub(super) fn normalised(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    exception(line).map_or_else(|| without_numbers(line), str::to_owned)
}

/// `botocore.errorfactory.NoSuchKey` of `botocore.errorfactory.NoSuchKey: An error …`.
fn exception(line: &str) -> Option<&str> {
    let name = line.split(": ").next()?.trim_end_matches(':');
    let is_name =
        name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '$'));
    let simple = name.rsplit(['.', '$']).next()?;
    // A type begins with a capital and goes on without: `INFO: …` is none.
    let is_type = simple.starts_with(|letter: char| letter.is_ascii_uppercase())
        && simple.contains(|letter: char| letter.is_ascii_lowercase());
    (is_name && is_type && name.len() < line.len() && !GENERIC.contains(&name)).then_some(name)
}

/// With `#` for numbers, decimal and hexadecimal, and for UUIDs.
fn without_numbers(line: &str) -> String {
    let line: String = line.chars().take(LINE_CHARS_MAX).collect();
    let mut kept = String::new();
    let mut rest = line.as_str();
    while let Some(letter) = rest.chars().next() {
        let word = &rest[..rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        let hex = word.strip_prefix("0x").unwrap_or(word);
        let has_digit = hex.contains(|letter: char| letter.is_ascii_digit());
        let length = if let Some(length) = uuid(rest) {
            kept.push('#');
            length
        } else if word.is_empty() {
            kept.push(letter);
            letter.len_utf8()
        } else if has_digit && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            kept.push('#');
            word.len()
        } else {
            push_without_digits(word, &mut kept);
            word.len()
        };
        rest = &rest[length..];
    }
    kept
}

/// The length of the UUID that the text begins with.
fn uuid(text: &str) -> Option<usize> {
    let mut end = 0;
    for (number, digits) in UUID_PARTS.into_iter().enumerate() {
        let part = text.get(end..)?;
        let part = if number == 0 { part } else { part.strip_prefix('-')? };
        let is_hex = part.get(..digits)?.bytes().all(|byte| byte.is_ascii_hexdigit());
        end += is_hex.then_some(digits + usize::from(number > 0))?;
    }
    Some(end)
}

fn push_without_digits(word: &str, kept: &mut String) {
    for part in word.split_inclusive(|letter: char| letter.is_ascii_digit()) {
        let letters = part.trim_end_matches(|letter: char| letter.is_ascii_digit());
        kept.push_str(letters);
        if letters.len() < part.len() && !(letters.is_empty() && kept.ends_with('#')) {
            kept.push('#');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(normalised(text), expected, "{text}");
    }

    #[test]
    fn exceptions() {
        check("Traceback\n  File \"x\", line 3\nKeyError: 'user 12'\n\n", "KeyError");
        check("subprocess.CalledProcessError: Command '['x']' returned 1", "subprocess.CalledProcessError");
        check("java.lang.IllegalStateException: bad", "java.lang.IllegalStateException");
        check("a.Outer$Inner: bad", "a.Outer$Inner");
        check("StopIteration:", "StopIteration");
        check("Error: Cannot find module 'x2'", "Error: Cannot find module 'x#'");
        check("INFO: started", "INFO: started");
        check("error: no such file", "error: no such file");
        check("Could not bind: port 80", "Could not bind: port #");
    }

    #[test]
    fn numbers() {
        check("", "");
        check("\n \n", "");
        check("at 0x7ffe1234 in 12 ms", "at # in # ms");
        check("key 550e8400-e29b-41d4-a716-446655440000", "key #");
        check("key abcdabcd-abcd-abcd-abcd-abcdabcdabcd.", "key #.");
        check("abcdabcd-abcd-abcd", "abcdabcd-abcd-abcd");
        check("x12y345z", "x#y#z");
        check("commit 1a2b3c4d5e6f gone", "commit # gone");
        check("facade decade worker12", "facade decade worker#");
        check("2026-11-22T18:01:02Z disk full", "#-#-#T#:#:#Z disk full");
        check("schöne Grüße 3", "schöne Grüße #");
        check(&"x".repeat(1_000), &"x".repeat(LINE_CHARS_MAX));
    }
}
