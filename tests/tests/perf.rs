//! The same totals as `perf record`, on the same run, for the functions in which most time goes.
//!
//! Refuses: a quiet machine. Two programs with five hot functions, one of them in the kernel, keep both CPUs busy.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use tests::agent::{Agent, STOP_MAX};
use tests::profile;
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, utf8};

/// Percentage points by which the two may differ.
const TOLERANCE: f64 = 5.0;

const FUNCTIONS: usize = 5;

/// A process and its innermost function.
type Counts = BTreeMap<(String, String), u64>;

#[test]
fn top_five_functions() {
    tools::require("perf", "linux-perf");
    let spin = Program::c("spin.c", FRAME_POINTERS);
    let mixed = Program::c("mixed.c", FRAME_POINTERS);
    let _load = [spin.start(&["60"]), mixed.start(&["60"])];
    let data = spin.directory().join("perf.data");
    let agent = Agent::profile(&["--duration", "12s", "-o", "-"]);
    let mut perf = Command::new("perf");
    // perf 6.1 aborts at its end on build ids of BPF programs that are gone by then: it is asked for neither.
    perf.args(["record", "--no-buildid", "--no-bpf-event", "-F", "97", "-a", "-g", "-e", "cpu-clock"]);
    perf.args(["-o", utf8(&data), "--", "sleep", "12"]);
    tools::succeed(perf.stderr(Stdio::null()));
    let finished = agent.finish(STOP_MAX).expect_code(0);

    let stacks = profile::of_folded(&finished.stdout_text());
    let mut own = Counts::new();
    for stack in &stacks {
        *own.entry((stack.process.clone(), stack.leaf().to_owned())).or_default() += stack.count;
    }
    let perf = of_perf(&tools::output_of("perf", &["script", "-i", utf8(&data), "-F", "comm,ip,sym"]));
    let (own_total, perf_total) = (own.values().sum::<u64>(), perf.values().sum::<u64>());
    assert!(perf_total > 1_500, "perf saw {perf_total} samples on busy CPUs");
    let difference = own_total.abs_diff(perf_total) as f64 * 100.0 / perf_total as f64;
    assert!(difference <= TOLERANCE, "{own_total} samples, perf has {perf_total}");

    let mut top: Vec<_> = perf.iter().collect();
    top.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (function, &count) in top.into_iter().take(FUNCTIONS) {
        let expected = count as f64 * 100.0 / perf_total as f64;
        let found = own.get(function).copied().unwrap_or(0) as f64 * 100.0 / own_total as f64;
        println!("{function:?}: perf {expected:.1} %, kansoku {found:.1} %");
        assert!(
            (found - expected).abs() <= TOLERANCE,
            "{function:?}: perf {expected:.1} %, here {found:.1} %"
        );
    }
}

/// Samples of `perf script -F comm,ip,sym`: a line with the name, then the frames from the leaf, then an empty line.
/// The idle task is not a program.
fn of_perf(script: &str) -> Counts {
    let mut counts = Counts::new();
    for block in script.split("\n\n") {
        let mut lines = block.lines().filter(|line| !line.is_empty());
        let Some(name) = lines.next().map(str::trim) else { continue };
        let leaf = lines.next().and_then(|line| line.trim().split_once(' ')).map_or("", |(_, symbol)| symbol);
        if name != "swapper" {
            *counts.entry((name.to_owned(), leaf.to_owned())).or_default() += 1;
        }
    }
    counts
}

#[test]
fn reads_perf_script() {
    let counts =
        of_perf("spin \n\t 55d spin_ten\n\t 55e main\n\nswapper \n\t ff idle\n\nspin \n\t 55d spin_ten\n\n");
    assert_eq!(counts, BTreeMap::from([(("spin".to_owned(), "spin_ten".to_owned()), 2)]));
}
