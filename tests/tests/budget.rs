//! Loads beyond what the agent may cost a CPU: the work goes on, and counts are estimates that say so.
//!
//! Refuses: to judge the speed of the work; `cargo xtask bench` does.

use std::process::Command;

use tests::agent::STOP_MAX;
use tests::cgroup::ContainerCgroup;
use tests::endpoint::{self, Page};

/// The share of the calls by which an estimate over some seconds may be wrong.
const ERROR_MAX: f64 = 0.35;

/// Far more than the budget allows to watch: it takes some 20 s.
const COPIED: u32 = 50_000_000;

const OPERATIONS: &str = "syscall_io_operations_total";
const WATCHED: &str = "kansoku_syscalls_time_seconds_total";

fn watched_s(page: &Page, what: &str) -> f64 {
    page.value(WATCHED, &[("watched", what)])
}

/// Copies so many single bytes, each with a read and a write.
fn copy_bytes(container: &ContainerCgroup, count: u32) {
    let count = format!("count={count}");
    let mut copy = Command::new("dd");
    copy.args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none", &count]);
    container.run(copy);
}

#[test]
fn calls_beyond_the_budget_are_estimated() {
    let (agent, endpoint) = endpoint::start(&["budget.syscalls_percent=10"]);
    let container = ContainerCgroup::make("b001");
    copy_bytes(&container, COPIED);
    let copied = f64::from(COPIED);
    let page = endpoint.scrape_of(&container);
    println!("a call costs {:?}", page.series("kansoku_syscalls_cost_seconds", &[]));
    for operation in ["read", "write"] {
        let of =
            [container.label(), ("syscall_operation", operation), ("syscall_descriptor", "character_device")];
        for name in [OPERATIONS, "syscall_io_bytes_total", "syscall_io_duration_seconds_count"] {
            let ratio = page.sum(name, &of) / copied;
            println!("{operation} {name}: {ratio:.3} of {copied}");
            assert!((ratio - 1.0).abs() < ERROR_MAX, "{operation}: {name} is {ratio:.3} of {copied}");
        }
    }
    let [nothing, everything] = ["nothing", "everything"].map(|what| watched_s(&page, what));
    println!("nothing watched for {nothing:.1} s, everything for {everything:.1} s");
    assert!(nothing > 10.0, "calls were watched for most of the time: {everything} s");
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

#[test]
fn calls_within_the_budget_are_all_counted() {
    let (agent, endpoint) = endpoint::start(&["budget.syscalls_percent=50"]);
    let container = ContainerCgroup::make("b002");
    copy_bytes(&container, 10_000);
    let page = endpoint.scrape_until("the agent's own metrics", |page| {
        !page.series(WATCHED, &[]).is_empty() && !page.series(OPERATIONS, &[container.label()]).is_empty()
    });
    let of = [container.label(), ("syscall_operation", "write"), ("syscall_descriptor", "character_device")];
    assert_eq!(page.sum(OPERATIONS, &of), 10_000.0);
    assert_eq!((watched_s(&page, "nothing"), watched_s(&page, "returns")), (0.0, 0.0));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}
