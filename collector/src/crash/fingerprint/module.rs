//! The name of a file of code without what an update changes.
//!
//! Refuses: directories, which differ between hosts and images.

use std::borrow::Cow;

/// Code that no file holds.
const ANONYMOUS: &str = "[anon]";

/// A run of so many digits in a name is a time or a random number.
const NUMBER_DIGITS_MIN: usize = 5;

/// `/usr/lib/libfoo.so.1.2.3` as `libfoo.so`, code that a runtime made as `[anon]`.
pub(super) fn normalised(path: &str) -> Cow<'_, str> {
    let path = path.trim().trim_end_matches(" (deleted)");
    if is_anonymous(path) {
        return Cow::Borrowed(ANONYMOUS);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let shared = name.find(".so.").map(|at| at + ".so".len()).or(name.ends_with(".so").then_some(name.len()));
    match shared {
        Some(end) => {
            let stem =
                name[..end - ".so".len()].trim_end_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
            // `libc-2.31` has a version, `libx264` has a name.
            let stem = stem.strip_suffix('-').unwrap_or(&name[..end - ".so".len()]);
            Cow::Owned(format!("{}.so", without_long_numbers(stem)))
        }
        None => without_long_numbers(without_version(name)),
    }
}

fn is_anonymous(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.is_empty()
        || ["[anon", "//anon", "anon_inode:", "memfd:", "/memfd:", "/dev/zero", "/SYSV"]
            .iter()
            .any(|prefix| path.starts_with(prefix))
        || name.starts_with("jitted-")
        || (name.starts_with("perf-") && name.ends_with(".map"))
}

/// `python3.11` as `python`; a number without a dot belongs to the name.
fn without_version(name: &str) -> &str {
    let stem = name.trim_end_matches(|byte: char| byte.is_ascii_digit() || byte == '.');
    let has_dot = name[stem.len()..].trim_start_matches('.').contains('.');
    let stem = if has_dot { stem.trim_end_matches('-') } else { name };
    if stem.is_empty() { name } else { stem }
}

/// Names of files that were unpacked for one run.
fn without_long_numbers(name: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut rest = name;
    while let Some(start) = rest.find(|byte: char| byte.is_ascii_digit()) {
        let digits = rest[start..].find(|byte: char| !byte.is_ascii_digit()).unwrap_or(rest.len() - start);
        kept.push_str(&rest[..start]);
        kept.push_str(if digits >= NUMBER_DIGITS_MIN { "#" } else { &rest[start..start + digits] });
        rest = &rest[start + digits..];
    }
    if kept.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(kept + rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &str) {
        assert_eq!(normalised(path), expected, "{path}");
    }

    #[test]
    fn names() {
        check("/usr/lib/libfoo.so.1.2.3", "libfoo.so");
        check("/lib/libc-2.31.so", "libc.so");
        check("/lib/libc.so.6", "libc.so");
        check("/lib/libx264.so.164", "libx264.so");
        check("/lib/libpython3.11.so.1.0", "libpython3.11.so");
        check("/usr/bin/python3.11", "python");
        check("/usr/bin/node-18.1.0", "node");
        check("/app/h2", "h2");
        check("/app/checkout (deleted)", "checkout");
        check("/tmp/libnetty_x86_6412345678901234.so", "libnetty_x86_#.so");
        check("app", "app");
        check("1.2.3", "1.2.3");
        check("[vdso]", "[vdso]");
        check(".so", ".so");
    }

    #[test]
    fn anonymous() {
        for path in [
            "",
            " ",
            "/",
            "[anon]",
            "[anon:v8]",
            "//anon",
            "/memfd:doublemapper (deleted)",
            "/dev/zero",
            "/tmp/jitted-1-2.so",
            "/tmp/perf-12.map",
        ] {
            check(path, ANONYMOUS);
        }
    }
}
