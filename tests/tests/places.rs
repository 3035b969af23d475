//! Places of counts in the kernel, which are given to others when their owners are gone: nothing of one is counted for another.
//!
//! Refuses: fewer keys than there are places; each must have had an owner before.

use std::process::Command;
use std::time::Duration;

use tests::agent::STOP_MAX;
use tests::cgroup::ContainerCgroup;
use tests::endpoint;

/// Processes that come and go in a round. Each takes about six places, and there are 16,384 at most: six rounds are enough to
/// fill them, and four leave room for what else runs on the machine until the agent looks for who is gone.
const PROCESSES: usize = 500;
const ROUNDS_BEFORE: usize = 4;
const ROUNDS_AFTER: usize = 4;

/// How often the agent looks for who is gone, and a bit.
const SWEEP: Duration = Duration::from_secs(62);

/// What a process writes at the end, in a place that had owners before.
const WRITES: f64 = 1000.0;

#[test]
fn places_are_given_to_others() {
    let (agent, endpoint) = endpoint::start(&["io.by_process=true"]);
    let many = ContainerCgroup::make("91ace5");
    let script = format!("for i in $(seq {PROCESSES}); do /usr/bin/true; done");
    let run = |rounds: usize| {
        for _ in 0..rounds {
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]);
            many.run(shell);
        }
        endpoint.scrape_of(&many).value("kansoku_io_overflow_total", &[])
    };
    assert_eq!(run(ROUNDS_BEFORE), 0.0);
    std::thread::sleep(SWEEP);
    // One reading finds out who is gone, the next one gives the places out again.
    endpoint.scrape();
    endpoint.scrape();
    assert_eq!(run(ROUNDS_AFTER), 0.0, "operations without a place");

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
