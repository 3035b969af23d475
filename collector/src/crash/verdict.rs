//! Which deaths make a record, and of what kind.
//!
//! Refuses: guesses about intent. The rule is what can be seen: how it ended, who asked for it, and whether a runtime
//! left its last words on standard error.

use collector_common::crash::{DUMPS_CORE, is_one_of};

use super::record::{Kind, SenderKind};
use super::status;

/// Which non-zero exits make a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exits {
    /// Those of main processes of containers and services, and those with a runtime's last words.
    #[default]
    Main,
    /// All.
    All,
    /// None.
    None,
}

/// What is known of a death.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// As `wait(2)` gives it.
    pub status: u32,
    /// Whether it is the main process of a container or a service.
    pub is_main: bool,
    /// Who sent the signal that ended it, or the last one before its end.
    pub sender: Option<SenderFacts>,
    /// The last lines of standard error.
    pub last_words: &'a str,
    /// Which exits make a record.
    pub exits: Exits,
}

/// What is known of a sender.
#[derive(Clone, Copy, Debug)]
pub struct SenderFacts {
    /// What it is.
    pub kind: SenderKind,
    /// The signal it sent.
    pub signal: u32,
    /// Whether the OOM killer chose the process.
    pub is_oom: bool,
    /// Whether the sender is the first process of a PID namespace other than the initial one: when that ends, the
    /// kernel kills all others in it.
    pub is_namespace_end: bool,
}

/// How a process ended, for the counter of all ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It makes a record.
    Record(Kind),
    /// It ended as somebody meant it to.
    Stopped,
    /// It failed in a way that is every-day: a helper's exit code, a closed pipe.
    Failed,
}

const HANGUP: u32 = 1;
const INTERRUPT: u32 = 2;
/// SIGKILL
pub const KILL: u32 = 9;
const PIPE: u32 = 13;
const TERMINATE: u32 = 15;

/// Exit codes of shells and runtimes that say which signal ended them.
const SIGNAL_EXIT: u32 = 128;

/// Decides.
pub fn of(facts: &Facts<'_>) -> Verdict {
    let Some(signal) = status::signal(facts.status) else {
        return of_exit(facts, status::exit_code(facts.status));
    };
    match signal {
        KILL => match facts.sender.filter(|sender| sender.signal == KILL) {
            Some(sender) if sender.is_oom => Verdict::Record(Kind::OomKill),
            Some(sender) if sender.is_namespace_end => Verdict::Stopped,
            _ => Verdict::Record(Kind::Kill),
        },
        HANGUP | INTERRUPT => Verdict::Stopped,
        PIPE => Verdict::Failed,
        TERMINATE if is_orderly(facts) => Verdict::Stopped,
        signal if is_one_of(signal as i32, DUMPS_CORE) => Verdict::Record(Kind::Crash),
        _ => Verdict::Record(Kind::Terminate),
    }
}

fn of_exit(facts: &Facts<'_>, code: u32) -> Verdict {
    let was_asked =
        facts.sender.is_some_and(|sender| sender.signal == TERMINATE && sender.kind != SenderKind::Itself);
    // The JVM, shells and many servers end with 143 when they are asked to.
    if was_asked && (code == SIGNAL_EXIT + TERMINATE || is_orderly(facts)) {
        return Verdict::Stopped;
    }
    let makes_record = match facts.exits {
        Exits::All => true,
        Exits::None => false,
        Exits::Main => facts.is_main || has_last_words(facts.last_words),
    };
    if makes_record { Verdict::Record(Kind::Exit) } else { Verdict::Failed }
}

/// Whether the one who runs the process asked it to end.
fn is_orderly(facts: &Facts<'_>) -> bool {
    facts.sender.is_some_and(|sender| {
        let runs_it =
            matches!(sender.kind, SenderKind::Kubelet | SenderKind::ContainerRuntime | SenderKind::Systemd);
        sender.signal == TERMINATE && runs_it
    })
}

/// Whether a runtime wrote why it ends.
fn has_last_words(stderr: &str) -> bool {
    let is_node = stderr.contains("\nNode.js v") && stderr.contains("    at ");
    let is_go =
        stderr.contains("goroutine ") && (stderr.contains("panic: ") || stderr.contains("fatal error: "));
    is_node
        || is_go
        || stderr.contains("' panicked at ")
        || stderr.contains(") panicked at ")
        || stderr.contains("Traceback (most recent call last)")
        || stderr.contains("Exception in thread \"")
        || stderr.contains("terminate called after throwing")
        || stderr.contains("Unhandled exception. ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        status: u32,
        sender: Option<(SenderKind, u32)>,
        is_main: bool,
        last_words: &str,
        expected: Verdict,
    ) {
        let sender =
            sender.map(|(kind, signal)| SenderFacts { kind, signal, is_oom: false, is_namespace_end: false });
        let facts = Facts { status, is_main, sender, last_words, exits: Exits::Main };
        assert_eq!(of(&facts), expected, "{facts:?}");
    }

    #[test]
    fn signals() {
        use SenderKind::{ContainerRuntime, Itself, Kernel, Systemd, User};
        check(11 | 0x80, Some((Kernel, 11)), false, "", Verdict::Record(Kind::Crash));
        check(6, Some((Itself, 6)), false, "", Verdict::Record(Kind::Crash));
        check(9, Some((User, 9)), false, "", Verdict::Record(Kind::Kill));
        check(9, Some((ContainerRuntime, 9)), true, "", Verdict::Record(Kind::Kill));
        check(9, None, true, "", Verdict::Record(Kind::Kill));
        check(15, Some((User, 15)), false, "", Verdict::Record(Kind::Terminate));
        check(15, Some((ContainerRuntime, 15)), true, "", Verdict::Stopped);
        check(15, Some((Systemd, 15)), true, "", Verdict::Stopped);
        check(10, None, false, "", Verdict::Record(Kind::Terminate));
        check(13, None, false, "", Verdict::Failed);
        check(2, None, false, "", Verdict::Stopped);
    }

    #[test]
    fn kills_by_the_kernel() {
        let check = |is_oom, is_namespace_end, expected| {
            let sender = Some(SenderFacts { kind: SenderKind::Kernel, signal: 9, is_oom, is_namespace_end });
            let facts = Facts { status: 9, is_main: false, sender, last_words: "", exits: Exits::Main };
            assert_eq!(of(&facts), expected);
        };
        check(true, false, Verdict::Record(Kind::OomKill));
        check(true, true, Verdict::Record(Kind::OomKill));
        check(false, true, Verdict::Stopped);
        check(false, false, Verdict::Record(Kind::Kill));
    }

    #[test]
    fn exits() {
        use SenderKind::{ContainerRuntime, User};
        check(1 << 8, None, false, "", Verdict::Failed);
        check(1 << 8, None, true, "", Verdict::Record(Kind::Exit));
        check(
            101 << 8,
            None,
            false,
            "\nthread 'main' (12) panicked at src/main.rs:3:5:\nno",
            Verdict::Record(Kind::Exit),
        );
        check(
            101 << 8,
            None,
            false,
            "thread 'main' panicked at src/main.rs:3:5:\nno",
            Verdict::Record(Kind::Exit),
        );
        check(2 << 8, None, false, "panic: no\n\ngoroutine 1 [running]:", Verdict::Record(Kind::Exit));
        check(2 << 8, None, false, "grep: panic: no such file", Verdict::Failed);
        check(1 << 8, None, false, "Traceback (most recent call last):\n  File", Verdict::Record(Kind::Exit));
        check(143 << 8, Some((ContainerRuntime, 15)), true, "", Verdict::Stopped);
        check(143 << 8, Some((User, 15)), true, "", Verdict::Stopped);
        check(1 << 8, Some((ContainerRuntime, 15)), true, "", Verdict::Stopped);
        check(1 << 8, Some((User, 15)), true, "", Verdict::Record(Kind::Exit));
        check(137 << 8, None, true, "", Verdict::Record(Kind::Exit));
    }
}
