//! One line that says what happened.
//!
//! Refuses: redaction; the caller does it.

use super::fingerprint::own_frame;
use super::record::{CrashRecord, Kind, OomScope, SignalInfo};

/// Characters of a last word that are shown.
const WORDS_MAX: usize = 160;

/// Lines that say what a runtime died of begin with, or hold, one of these.
const LAST_WORDS: [&str; 11] = [
    "panicked at ",
    "panic: ",
    "fatal error: ",
    "Exception in thread \"",
    "terminate called after throwing",
    "Unhandled exception. ",
    "Assertion `",
    "double free",
    "free(): invalid",
    "malloc(): ",
    "stack smashing detected",
];

/// The summary of a record whose other fields are filled.
pub fn of(record: &CrashRecord) -> String {
    match record.kind {
        Kind::Crash => of_crash(record),
        Kind::OomKill => of_oom_kill(record),
        Kind::Kill | Kind::Terminate => of_kill(record),
        Kind::Exit => of_exit(record),
        Kind::Agent => "the agent ended without a stop".to_owned(),
    }
}

fn of_crash(record: &CrashRecord) -> String {
    let signal = record.signal.as_ref().map_or_else(String::new, of_signal);
    let words = record.stderr.as_ref().and_then(|stderr| telling_words(&stderr.text));
    match (function(record), words) {
        (Some(function), Some(words)) => format!("{signal} in {function}: {words}"),
        (Some(function), None) => format!("{signal} in {function}"),
        (None, Some(words)) => format!("{signal}: {words}"),
        (None, None) => signal,
    }
}

fn of_signal(signal: &SignalInfo) -> String {
    match (&signal.fault_address, &signal.fault_place) {
        (Some(address), Some(place)) => {
            format!("{} ({}) at {address}, {place},", signal.name, signal.code_name)
        }
        _ => format!("{} ({})", signal.name, signal.code_name),
    }
}

fn of_oom_kill(record: &CrashRecord) -> String {
    let oom = record.oom.clone().unwrap_or_default();
    let limit = record.cgroup_memory.as_ref().and_then(|memory| memory.limit_bytes);
    let scope = match (oom.scope, limit) {
        (OomScope::Cgroup, Some(limit)) => format!("at the cgroup's limit of {}", mebibytes(limit)),
        (OomScope::Cgroup, None) => "at the cgroup's limit".to_owned(),
        (OomScope::Node, _) => "because the node was out of memory".to_owned(),
        (OomScope::Unknown, _) => "at an unknown limit".to_owned(),
    };
    let held = oom.anon_bytes.map_or_else(String::new, |bytes| format!(", {} anonymous", mebibytes(bytes)));
    format!("killed by the OOM killer {scope}{held}")
}

fn of_kill(record: &CrashRecord) -> String {
    let signal = record.exit.signal.as_deref().unwrap_or("a signal");
    match &record.sender {
        Some(sender) => {
            format!("{signal} from {} (pid {}, user {})", sender.executable_name, sender.pid, sender.user_id)
        }
        None => format!("{signal} from an unknown sender"),
    }
}

fn of_exit(record: &CrashRecord) -> String {
    let mut text = format!("exit code {}", record.exit.code.unwrap_or(0));
    if let Some(signal) = &record.signal {
        let function = function(record).map_or_else(String::new, |function| format!(" in {function}"));
        text += &format!(" after {}{function}", of_signal(signal).trim_end_matches(','));
    }
    if let Some(words) = record.stderr.as_ref().and_then(|stderr| last_words(&stderr.text)) {
        text += &format!(": {words}");
    }
    text
}

fn function(record: &CrashRecord) -> Option<String> {
    let frame = own_frame(&record.stack)?;
    frame.function.clone().or_else(|| {
        let module = frame.module.as_deref()?.rsplit('/').next()?;
        Some(format!("{module}+{:#x}", frame.offset?))
    })
}

/// The line that says why, else the last one.
fn last_words(stderr: &str) -> Option<String> {
    telling_words(stderr).or_else(|| lines(stderr).last().map(cut))
}

/// The line that says why, if a runtime or a library wrote one.
fn telling_words(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = lines(stderr).collect();
    let is_telling = |line: &&str| LAST_WORDS.iter().any(|words| line.contains(words));
    let is_error = |line: &&&str| line.contains("Error: ") && !line.starts_with("at ");
    match lines.iter().position(is_telling) {
        // Rust says where on one line and what on the next.
        Some(at) if lines[at].contains("panicked at ") && lines[at].ends_with(':') => {
            Some(cut(&format!("{} {}", lines[at], lines.get(at + 1).unwrap_or(&""))))
        }
        Some(at) => Some(cut(lines[at])),
        None => lines.iter().rev().find(is_error).map(|line| cut(line)),
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn cut(line: &str) -> String {
    line.chars().take(WORDS_MAX).collect()
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stderr: &str, expected: Option<&str>) {
        assert_eq!(last_words(stderr).as_deref(), expected, "{stderr:?}");
    }

    #[test]
    fn last_words_of_runtimes() {
        check("", None);
        check("one\ntwo\n\n", Some("two"));
        check(
            "noise\nthread 'main' panicked at src/main.rs:3:5:\nindex out of bounds\nnote: run with",
            Some("thread 'main' panicked at src/main.rs:3:5: index out of bounds"),
        );
        check(
            "panic: runtime error: x\n[signal SIGSEGV]\n\ngoroutine 1 [running]:\n",
            Some("panic: runtime error: x"),
        );
        check("Traceback (most recent call last):\n  File\nValueError: no\n", Some("ValueError: no"));
        check(
            "/a.js:1\nthrow\n^\n\nTypeError: x\n    at f (/a.js:1)\n\nNode.js v20.20.2\n",
            Some("TypeError: x"),
        );
    }
}
