//! Reads a guest's serial output and decides whether the kernel passed. Pure: no files, no processes.
//!
//! It refuses to pass a guest that did not report every required check, whatever its last line says.

use super::guest::{CHECK_SECONDS_MAX, Check, MARK, Need};
use super::qemu::{Ending, KERNEL_SECONDS_MAX};

/// As much of a guest's output as a reader of the table wants to see.
const EVIDENCE_LINES_MAX: usize = 60;

/// The exit code of a check that was killed at its limit (128 + SIGKILL).
const KILLED: i32 = 137;

/// What the guest said about itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript<'log> {
    /// As `uname -r` printed it.
    pub release: Option<&'log str>,
    /// The exit code of each check, in the order they ran.
    pub checks: Vec<(&'log str, i32)>,
    /// The last word of a guest that reached its end.
    pub exit: Option<i32>,
    panic: Option<&'log str>,
}

impl<'log> Transcript<'log> {
    /// Looks for marked lines anywhere: the kernel may print to the same serial line at any time.
    pub fn read(serial: &'log str) -> Self {
        let mut transcript = Transcript::default();
        for line in serial.lines() {
            if transcript.panic.is_none() && line.contains("Kernel panic") {
                transcript.panic = Some(line.trim());
            }
            if let Some((_, message)) = line.split_once(MARK) {
                transcript.note(message);
            }
        }
        transcript
    }

    pub fn exit_of(&self, check: &str) -> Option<i32> {
        self.checks.iter().find(|(name, _)| *name == check).map(|(_, exit)| *exit)
    }

    fn note(&mut self, message: &'log str) {
        let mut check = None;
        for word in message.split_whitespace() {
            match word.split_once('=') {
                Some(("release", release)) => self.release = Some(release),
                Some(("check", name)) => check = Some(name),
                Some(("exit", code)) => match (check, code.parse()) {
                    (Some(name), Ok(code)) => self.checks.push((name, code)),
                    (None, Ok(code)) => self.exit = Some(code),
                    (_, Err(_)) => {}
                },
                _ => {}
            }
        }
    }
}

/// Passes, or says in a few words why not. The first cause is named, not its consequences.
pub fn judge(
    release_prefix: &str,
    checks: &[Check],
    said: &Transcript,
    ending: &Ending,
) -> Result<(), String> {
    if let Some(panic) = said.panic {
        return Err(panic.to_owned());
    }
    let Some(release) = said.release else {
        return Err(format!("the guest never started its tests: {}", describe(ending)));
    };
    if !release.starts_with(release_prefix) {
        return Err(format!(
            "booted {release}, not {release_prefix}*: delete its directory in target/vm/kernels"
        ));
    }
    for check in checks.iter().filter(|check| check.need == Need::Required) {
        match said.exit_of(check.name) {
            Some(0) => {}
            Some(KILLED) => {
                return Err(format!("{} was killed, maybe at its {CHECK_SECONDS_MAX} s limit", check.name));
            }
            Some(code) => return Err(format!("{} exited {code}", check.name)),
            None => return Err(format!("{} has no result: {}", check.name, describe(ending))),
        }
    }
    match (said.exit, ending) {
        (Some(0), Ending::Left) => Ok(()),
        (Some(0), _) => Err(format!("all checks passed, but {}", describe(ending))),
        (Some(code), _) => Err(format!("the guest exited {code}")),
        (None, _) => Err(format!("the guest has no last line: {}", describe(ending))),
    }
}

/// Whether it was the emulator that stood still: again and again the kernel found a processor on a five-byte NOP, which none can
/// stand on. qemu's threads may go on with a translation of code that the kernel has changed since (seen with 7.2, at the
/// tracepoint of system calls; with other translations, by `singlestep on` in its monitor, the guest went on).
pub fn stood_on_nop(serial: &str) -> bool {
    const NOPS: [&str; 2] = ["<66> 66 66 66 90", "<0f> 1f 44 00 00"];
    const FOUND_MIN: usize = 2;
    let lockups = serial.lines().skip_while(|line| !line.contains("soft lockup"));
    let on_nop = |line: &&str| line.contains("Code: ") && NOPS.iter().any(|nop| line.contains(nop));
    lockups.filter(on_nop).count() >= FOUND_MIN
}

/// What the guest printed in the first check that it did not pass, or at its end: where the log is out of reach, in CI,
/// there is no other trace of the cause.
pub fn evidence(serial: &str, checks: &[Check], said: &Transcript) -> String {
    let has_failed = |check: &&Check| said.exit_of(check.name).is_some_and(|exit| exit != 0);
    let failed = checks.iter().filter(|check| check.need == Need::Required).find(has_failed);
    let mark = failed.map(|check| format!("{MARK} check={} ", check.name));
    let mut lines = Vec::new();
    for line in serial.lines() {
        if mark.as_ref().is_some_and(|mark| line.contains(mark)) {
            break;
        }
        // What an earlier check printed is no evidence.
        if line.contains(MARK) {
            lines.clear();
        }
        lines.push(line);
    }
    lines[lines.len().saturating_sub(EVIDENCE_LINES_MAX)..].join("\n")
}

fn describe(ending: &Ending) -> String {
    match ending {
        Ending::Left => "it powered off".to_owned(),
        Ending::Refused(status) => format!("qemu ended with {status}"),
        Ending::TimedOut => format!("it was stopped after {KERNEL_SECONDS_MAX} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKS: &[Check] = &[
        Check { name: "doctor", command: "", need: Need::Required },
        Check { name: "kernel-frames", command: "", need: Need::Reported },
    ];
    const GOOD: &str = "KANSOKU-VM release=6.1.0-1\r\n{}\r\nKANSOKU-VM check=doctor exit=0\r\n\
                        KANSOKU-VM check=kernel-frames exit=1\r\nKANSOKU-VM exit=0\r\n";

    fn judged(serial: &str, ending: Ending) -> Result<(), String> {
        judge("6.1.", CHECKS, &Transcript::read(serial), &ending)
    }

    #[test]
    fn a_whole_transcript_passes_and_reported_checks_may_fail() {
        assert_eq!(judged(GOOD, Ending::Left), Ok(()));
        assert_eq!(Transcript::read(GOOD).exit_of("kernel-frames"), Some(1));
    }

    #[test]
    fn kernel_messages_before_a_mark_do_not_hide_it() {
        let serial = GOOD.replace("KANSOKU-VM check=doctor", "[ 2.1] noise KANSOKU-VM check=doctor");
        assert_eq!(judged(&serial, Ending::Left), Ok(()));
    }

    #[test]
    fn each_way_to_fail_names_its_cause() {
        let cases = [
            (GOOD.replace("doctor exit=0", "doctor exit=3"), "doctor exited 3"),
            (GOOD.replace("doctor exit=0", "doctor exit=137"), "doctor was killed"),
            (GOOD.replace("KANSOKU-VM check=doctor exit=0", ""), "doctor has no result: it powered off"),
            (GOOD.replace("KANSOKU-VM exit=0", ""), "no last line"),
            (GOOD.replace("KANSOKU-VM exit=0", "KANSOKU-VM exit=1"), "the guest exited 1"),
            (GOOD.replace("release=6.1.0-1", "release=6.12.9"), "booted 6.12.9"),
            (format!("{GOOD}[ 9.0] Kernel panic - not syncing: test\r\n"), "Kernel panic"),
            (String::new(), "never started"),
        ];
        for (serial, expected) in cases {
            let reason = judged(&serial, Ending::Left).expect_err(expected);
            assert!(reason.contains(expected), "`{reason}` should contain `{expected}`");
        }
    }

    #[test]
    fn an_emulator_that_stands_still_is_told_from_a_kernel() {
        let lockup = "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [pipeline:614]\n";
        let on =
            |bytes: &str| format!("{lockup}[ 9.1] Code: 64 ff ff ff {bytes} e9 3c\nCode: 0f 05 <48> 3d\n");
        let cases = [
            (on("<66> 66 66 66 90").repeat(2), true),
            (on("<0f> 1f 44 00 00").repeat(3), true),
            // Once is a moment, a loop is no NOP, and without a lockup nothing stands.
            (on("<66> 66 66 66 90"), false),
            (on("<f3> 90 eb fc").repeat(4), false),
            (on("<66> 66 66 66 90").replace(lockup, "").repeat(3), false),
        ];
        for (serial, expected) in cases {
            assert_eq!(stood_on_nop(&serial), expected, "{serial}");
        }
    }

    #[test]
    fn evidence_is_what_the_failed_check_printed() {
        let check = |serial: &str, expected: &str| {
            assert_eq!(evidence(serial, CHECKS, &Transcript::read(serial)), expected, "{serial}");
        };
        let failed = "KANSOKU-VM release=6.1\nfound 1, not 2\nKANSOKU-VM check=doctor exit=8\nlater\n";
        check(failed, "KANSOKU-VM release=6.1\nfound 1, not 2");
        // Absent where it may be is no failure, and a guest that stood still says it last.
        let stood = "KANSOKU-VM check=kernel-frames exit=1\nBUG: soft lockup\nCall Trace:";
        check(stood, stood);
        check("", "");
        let long: String = (0..100).map(|number| format!("{number}\n")).collect();
        let shown = evidence(&long, CHECKS, &Transcript::read(&long));
        assert!(shown.starts_with("40\n") && shown.ends_with("\n99"), "{shown}");
    }

    #[test]
    fn a_guest_that_was_stopped_fails_even_when_its_checks_passed() {
        assert!(judged(GOOD, Ending::TimedOut).is_err_and(|reason| reason.contains("was stopped after")));
    }
}
