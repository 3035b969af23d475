//! Places of counts in the kernel, which are given to others when their owners are gone: nothing of one is counted for another.
//!
//! Refuses: fewer keys than there are places; each must have had an owner before.

use std::process::Command;

use tests::agent::STOP_MAX;
use tests::cgroup::ContainerCgroup;
use tests::endpoint;

/// Rounds of processes that come and go. Each process takes about five places, and there are 16,384 at most.
const ROUNDS: usize = 10;
const PROCESSES: usize = 500;

/// What a process writes at the end, in a place that had owners before.
const WRITES: f64 = 1000.0;

#[test]
fn places_are_given_to_others() {
    let (agent, endpoint) = endpoint::start(&["io.by_process=true"]);
    let many = ContainerCgroup::make("91ace5");
    let script = format!("for i in $(seq {PROCESSES}); do /usr/bin/true; done");
    let (mut overflow, mut opened) = (0.0, 0.0);
    for round in 0..ROUNDS {
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]);
        many.run(shell);
        // One reading finds out who is gone, the next one gives the places out again.
        let page = (0..2).map(|_| endpoint.scrape_of(&many)).next_back().expect("two pages");
        overflow = page.value("kansoku_io_overflow_total", &[]);
        opened = page.sum("syscall_io_operations_total", &[many.label(), ("syscall_operation", "open")]);
        println!("round {round}: {opened} opens told, {overflow} operations without a place");
    }
    assert_eq!(overflow, 0.0);
    assert!(opened > 0.0);

    let last = ContainerCgroup::make("1a57");
    let mut copy = Command::new("dd");
    copy.args(["if=/dev/zero", "of=/dev/null", "bs=1", "status=none", "count=1000"]);
    last.run(copy);
    let page = endpoint.scrape_of(&last);
    let of = |operation| {
        [last.label(), ("syscall_operation", operation), ("syscall_descriptor", "character_device")]
    };
    for operation in ["read", "write"] {
        assert_eq!(page.sum("syscall_io_operations_total", &of(operation)), WRITES, "{operation}");
        assert_eq!(page.sum("syscall_io_duration_seconds_count", &of(operation)), WRITES, "{operation}");
        assert_eq!(page.sum("syscall_io_bytes_total", &of(operation)), WRITES, "{operation}");
    }
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}
