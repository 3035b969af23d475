//! The books of deaths: whatever the limits and the reporter do, each death is in one place.

use std::sync::mpsc::sync_channel;

use zerocopy::FromZeros;

use super::*;
use crate::identity::Names;

const LIVES_NS: u64 = 1_000_000_000;

/// So many kinds of death, each so often, against a reporter that takes so many and no more: a record, what it stands for, or
/// a counted loss.
fn check(kinds: u32, deaths_of_each: u32, taken_max: usize, is_refusal_expected: bool) {
    let ledger = Arc::new(Ledger::default());
    let (output, input) = sync_channel(taken_max);
    let policies = Policies::parse("record", []).expect("it is a policy");
    let options = CrashOptions { exits: Exits::Main, records_per_minute: 2, policies };
    let mut crashes = Crashes::new(options, None, output, Arc::clone(&ledger));
    let mut processes = ProcessTable::new(false, Names::default(), Arc::clone(&ledger));
    let record = DeathRecord::new_zeroed();
    let task = Task { tgid: std::process::id(), ..record.task };
    let process = processes.of_task(&task).expect("there is room");
    for number in 0..deaths_of_each {
        for kind in 0..kinds {
            let detail = Detail::default();
            let death =
                Death::new(&record, process, Kind::Crash, detail, None, None, None, &Clocks::default());
            let key = DeathKey {
                subject: process.subject.key(),
                executable: kind.to_string().into(),
                kind: Kind::Crash,
                status: 11,
                top: None,
            };
            crashes.pass(key, Box::new(death), u64::from(number) * LIVES_NS);
        }
        crashes.turn(u64::from(number) * LIVES_NS, |_, _| Serving::Nothing);
    }
    crashes.turn(u64::MAX, |_, _| Serving::Nothing);
    let records: Vec<Box<Death>> = input.try_iter().collect();
    let stood_for: u64 = records.iter().map(|death| death.suppressed).sum();
    let account = ledger.account(Signal::Crash);
    let lost = |reason: LossReason| {
        account.lost.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
    };
    let what = format!("{kinds} kinds, {deaths_of_each} each, {taken_max} taken: {account:?}");
    let unseen = lost(LossReason::CrashReporterBehind) + lost(LossReason::CrashKindsFull);
    assert_eq!(account.represented, records.len() as u64, "{what}");
    assert_eq!(lost(LossReason::CrashRateLimited), stood_for, "{what}");
    assert_eq!(records.len() as u64 + stood_for + unseen, u64::from(kinds * deaths_of_each), "{what}");
    assert_eq!(lost(LossReason::CrashKindsFull) > 0, is_refusal_expected, "{what}");
}

#[test]
fn records_what_they_stand_for_and_losses_are_all_deaths() {
    check(1, 1, 100, false);
    check(3, 40, 100, false);
    check(3, 40, 5, false);
    check(1_024, 4, 10_000, false);
    check(1_100, 5, 10_000, true);
    check(1_100, 5, 700, true);
}

/// What a process died of that the kernel says was killed: its fatal signal, the code of that, and what else is known.
fn check_cause(code: i32, pid_and_level: (u32, u32), status: u32, is_oom: u32, expected: Option<u32>) {
    let mut death = DeathRecord::new_zeroed();
    (death.namespace_pid, death.namespace_level) = pid_and_level;
    (death.status, death.sender.is_oom) = (status, is_oom);
    let mut signal = SignalRecord::new_zeroed();
    (signal.fault.signal, signal.fault.code) = (11, code);
    let detail = Detail { signal: Some(Box::new(signal)), ..Detail::default() };
    assert_eq!(died_of(&death, &detail), expected, "{code} {pid_and_level:?} {status} {is_oom}");
    assert_eq!(died_of(&death, &Detail::default()), None);
}

#[test]
fn killed_while_dying() {
    check_cause(1, (77, 0), verdict::KILL, 0, Some(11));
    check_cause(-6, (77, 0), verdict::KILL, 0, Some(11));
    check_cause(-6, (2, 1), verdict::KILL, 0, Some(11));
    check_cause(-6, (1, 1), verdict::KILL, 0, None);
    check_cause(1, (1, 1), verdict::KILL, 0, Some(11));
    check_cause(1, (77, 0), 11 | 0x80, 0, None);
    check_cause(1, (77, 0), verdict::KILL, 1, None);
}
