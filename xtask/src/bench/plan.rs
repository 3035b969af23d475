//! How long everything takes, whole and quick.
//!
//! Refuses: durations anywhere else. A quick run proves that the bench works; its figures only indicate.

use std::time::Duration;

/// Lengths and repetitions of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub is_quick: bool,
    /// Each look at what else the machine does.
    pub background: Duration,
    /// Between a start and the first measurement.
    pub settle: Duration,
    /// Both programs at the same time; two of these make a round, each program starting first once.
    pub kernel_time_together: Duration,
    /// One program alone; four of these make a round, in the order A B B A.
    pub kernel_time_alone: Duration,
    pub kernel_time_rounds: usize,
    /// What the figure of the agent's processor time leaves out at the start.
    pub agent_cpu_warm_up: Duration,
    pub agent_cpu: Duration,
    pub memory: Duration,
    /// One run of the fixed work.
    pub throughput_work: Duration,
    /// Rounds in the order A B B A; each gives two pairs.
    pub throughput_rounds: usize,
    pub growth_warm_up: Duration,
    pub growth: Duration,
    /// One run of a program whose speed is compared.
    pub crash_run: Duration,
    /// Rounds in the order A B B A; each gives two pairs.
    pub crash_rounds: usize,
    /// From one death to the next, where the time to the record is measured.
    pub crash_period: Duration,
    /// Rounds of the system call's loop; each gives two runs under every observer.
    pub crash_call_rounds: usize,
    /// Batches of each system call in one turn; a batch of all takes some milliseconds.
    pub io_call_batches: usize,
    /// Rounds of turns under every observer of the calls.
    pub io_call_rounds: usize,
    /// One run of a program that does I/O.
    pub io_run: Duration,
    /// Rounds of all settings of the agent; each gives two pairs for every program and setting.
    pub io_rounds: usize,
    /// Containers of the populated node.
    pub io_containers: usize,
    /// What the figure of many containers leaves out at the start.
    pub io_containers_warm_up: Duration,
    pub io_containers_run: Duration,
    /// Pairs of scrapes of each format.
    pub io_scrapes: usize,
    /// One run of a server whose answers are timed.
    pub traces_run: Duration,
    /// Rounds in the order A B B A; each gives two pairs.
    pub traces_rounds: usize,
    /// One load of a server, whose spans' cost is measured.
    pub traces_cost_run: Duration,
    /// Replays of one protocol.
    pub parsers: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Plan {
    pub const WHOLE: Self = Self {
        is_quick: false,
        background: seconds(3),
        settle: seconds(5),
        kernel_time_together: seconds(15),
        kernel_time_alone: seconds(15),
        kernel_time_rounds: 3,
        agent_cpu_warm_up: seconds(60),
        agent_cpu: seconds(120),
        memory: seconds(600),
        throughput_work: seconds(10),
        throughput_rounds: 6,
        growth_warm_up: seconds(20),
        growth: seconds(40),
        crash_run: seconds(5),
        crash_rounds: 6,
        crash_period: Duration::from_millis(250),
        crash_call_rounds: 3,
        io_call_batches: 300,
        io_call_rounds: 8,
        io_run: seconds(3),
        io_rounds: 6,
        io_containers: super::io::CONTAINERS,
        io_containers_warm_up: seconds(30),
        io_containers_run: seconds(120),
        io_scrapes: 20,
        traces_run: seconds(5),
        traces_rounds: 6,
        traces_cost_run: seconds(30),
        parsers: seconds(5),
    };

    pub const QUICK: Self = Self {
        is_quick: true,
        background: seconds(1),
        settle: seconds(3),
        kernel_time_together: seconds(4),
        kernel_time_alone: seconds(4),
        kernel_time_rounds: 1,
        agent_cpu_warm_up: seconds(6),
        agent_cpu: seconds(20),
        memory: seconds(60),
        throughput_work: seconds(2),
        throughput_rounds: 2,
        growth_warm_up: seconds(6),
        growth: seconds(10),
        crash_run: seconds(2),
        crash_rounds: 2,
        crash_period: Duration::from_millis(100),
        crash_call_rounds: 1,
        io_call_batches: 100,
        io_call_rounds: 2,
        io_run: seconds(1),
        io_rounds: 3,
        // Fewer would be another figure.
        io_containers: super::io::CONTAINERS,
        // Two periods of scrapes, so that they are regular from the first one on, as Prometheus's are.
        io_containers_warm_up: seconds(30),
        io_containers_run: seconds(60),
        io_scrapes: 8,
        traces_run: seconds(2),
        traces_rounds: 3,
        traces_cost_run: seconds(10),
        parsers: seconds(1),
    };
}

const _: () =
    assert!(Plan::WHOLE.throughput_rounds * 2 >= 10, "the throughput figure rests on ten pairs or more");
const _: () = assert!(Plan::WHOLE.crash_rounds * 2 >= 10, "so do the ratios of the crash figure");
const _: () = assert!(Plan::WHOLE.io_rounds * 2 >= 10, "and those of the I/O figure");
