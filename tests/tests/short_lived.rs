//! Programs that live for 50 ms: gone before any window ends, and still named in full.
//!
//! Refuses: a single lucky run. Two hundred processes, two at a time, are one measurement.

use std::time::Duration;

use tests::agent::{Agent, STOP_MAX};
use tests::profile;
use tests::workload::{FRAME_POINTERS, Program, Running};

const RUNS: usize = 200;
const AT_ONCE: usize = 2;

/// 50 ms at 97 Hz are 4.85 samples.
const SAMPLES_EXPECTED: u64 = RUNS as u64 * 485 / 100;

fn check(flags: &[&str], frames_named_percent_min: u64, is_outer_expected: bool) {
    let program = Program::c("brief.c", flags);
    let agent = Agent::profile(&["--duration", "60s", "-o", "-"]);
    for _ in 0..RUNS / AT_ONCE {
        let running: Vec<Running> = (0..AT_ONCE).map(|_| program.start(&[])).collect();
        for process in running {
            process.expect_success(Duration::from_secs(10));
        }
    }
    agent.interrupt();
    let finished = agent.finish(STOP_MAX).expect_code(0);
    let stacks = profile::of_folded(&finished.stdout_text());
    let own = profile::of_process(&stacks, "brief");
    let total = profile::total(&own);
    println!("{flags:?}: {total} samples of {SAMPLES_EXPECTED} expected");
    assert!(
        total * 100 >= SAMPLES_EXPECTED * 85 && total * 100 <= SAMPLES_EXPECTED * 130,
        "{flags:?}: {total} samples of processes named brief, expected about {SAMPLES_EXPECTED}"
    );
    let user = |is_named: bool| {
        let of_stack = |stack: &profile::Stack| {
            let frames = stack.frames.iter().filter(|frame| !frame.is_kernel);
            frames.filter(|frame| frame.name.contains("+0x") != is_named).count() as u64 * stack.count
        };
        own.iter().map(of_stack).sum::<u64>()
    };
    let (named, unnamed) = (user(true), user(false));
    println!("{flags:?}: {named} user frames named, {unnamed} not");
    assert!(
        named * 100 >= (named + unnamed) * frames_named_percent_min,
        "{flags:?}: {unnamed} of {} user frames have no name: {:?}",
        named + unnamed,
        profile::leaves(&own)
    );
    let inner = profile::count_in(&own, "brief_inner");
    assert!(
        inner * 100 >= total * 80,
        "{flags:?}: {inner} of {total} in brief_inner: {:?}",
        profile::leaves(&own)
    );
    if is_outer_expected {
        let outer = profile::total(own.iter().filter(|stack| stack.has("brief_outer") && stack.has("main")));
        assert!(outer * 100 >= total * 80, "{flags:?}: {outer} of {total} stacks reach brief_outer and main");
    }
}

#[test]
fn two_hundred_processes() {
    check(FRAME_POINTERS, 95, true);
}

/// A static binary has no loader and no libc of its own file; without a build id only its inode identifies it.
#[test]
fn two_hundred_static_processes_without_build_id() {
    let flags = [FRAME_POINTERS, &["-static", "-Wl,--build-id=none"]].concat();
    check(&flags, 95, true);
}
