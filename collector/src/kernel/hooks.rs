//! The table of tracepoints: which programs serve which purpose, and what is missing without them.
//!
//! Refuses: attaching.

/// A purpose with the ways to serve it, in the order in which they are tried.
pub struct Tracepoint {
    /// Program and tracepoint; each program may exist as a BTF tracepoint under this name, and as a plain raw one with
    /// `_raw` behind it.
    pub ways: &'static [(&'static str, &'static str)],
    /// What it is for.
    pub purpose: &'static str,
    /// What is missing without.
    pub missing: &'static str,
}

const fn tracepoint(
    ways: &'static [(&'static str, &'static str)],
    purpose: &'static str,
    missing: &'static str,
) -> Tracepoint {
    Tracepoint { ways, purpose, missing }
}

/// Those that every agent hooks.
pub const PROCESS: &[Tracepoint] = &[
    tracepoint(
        &[("process_exec", "sched_process_exec")],
        "process exec",
        "a new program is noticed only by its mappings",
    ),
    tracepoint(
        &[("process_fork", "sched_process_fork")],
        "process fork",
        "children are read from /proc at their first sample",
    ),
    tracepoint(
        &[("process_exit", "sched_process_exit")],
        "process exit",
        "no crash records; ended processes are noticed only when their id is reused",
    ),
    tracepoint(
        &[("process_comm", "task_rename")],
        "process rename",
        "names of processes are those of their exec",
    ),
];

/// Those of crashes.
pub const CRASH: &[Tracepoint] = &[
    tracepoint(
        &[("crash_sender", "signal_generate")],
        "signal senders",
        "crash records do not say who sent the signal",
    ),
    tracepoint(
        &[("crash_signal", "signal_deliver")],
        "fatal signals",
        "crash records have no registers, stack and threads",
    ),
    tracepoint(
        &[("crash_oom", "mark_victim")],
        "OOM killer",
        "an OOM kill looks like any kill by the kernel",
    ),
];

/// The return of all system calls: for I/O, and for the last lines of standard error.
pub const SYSCALL_EXIT: Tracepoint = tracepoint(
    &[("syscall_exit", "sys_exit")],
    "returns of system calls",
    "no I/O metrics; crash records have no last lines of standard error; no thread proves the parent of a span",
);

/// The begin of all system calls.
pub const SYSCALL_ENTER: Tracepoint =
    tracepoint(&[("syscall_enter", "sys_enter")], "begins of system calls", "I/O metrics have no times");

/// Those of block devices, memory, TCP and io_uring.
pub const IO: &[Tracepoint] = &[
    tracepoint(&[("io_block_issue", "block_rq_issue")], "block requests", "no times of block devices"),
    tracepoint(
        &[("io_block_complete", "block_rq_complete")],
        "block completions",
        "no metrics of block devices by container",
    ),
    tracepoint(
        &[("io_reclaim", "mm_vmscan_direct_reclaim_begin")],
        "reclaim begins",
        "no times of direct reclaim",
    ),
    tracepoint(
        &[("io_reclaim_end", "mm_vmscan_direct_reclaim_end")],
        "reclaim ends",
        "no metrics of direct reclaim",
    ),
    tracepoint(
        &[("io_reclaim_cgroup", "mm_vmscan_memcg_reclaim_begin")],
        "cgroup reclaim begins",
        "no times of reclaim at a container's limit",
    ),
    tracepoint(
        &[("io_reclaim_cgroup_end", "mm_vmscan_memcg_reclaim_end")],
        "cgroup reclaim ends",
        "no metrics of reclaim at a container's limit",
    ),
    tracepoint(
        &[("io_tcp_state", "inet_sock_set_state")],
        "TCP states",
        "no connect times, failures and round trips by container",
    ),
    tracepoint(
        &[("io_tcp_retransmit", "tcp_retransmit_skb")],
        "TCP retransmits",
        "no retransmits by container",
    ),
    tracepoint(
        &[("io_tcp_reset_received", "tcp_receive_reset")],
        "TCP resets received",
        "no received resets by container",
    ),
    tracepoint(&[("io_tcp_reset_sent", "tcp_send_reset")], "TCP resets sent", "no sent resets by container"),
    tracepoint(
        &[("io_uring_submit", "io_uring_submit_req"), ("io_uring_submit_sqe", "io_uring_submit_sqe")],
        "io_uring submissions",
        "no times of io_uring operations",
    ),
    tracepoint(
        &[("io_uring_complete", "io_uring_complete")],
        "io_uring completions",
        "io_uring operations are not counted",
    ),
];

/// Those of the scheduler.
pub const SCHEDULER: &[Tracepoint] = &[
    tracepoint(&[("io_wakeup", "sched_wakeup")], "wake-ups", "run-queue times miss tasks that were woken"),
    tracepoint(
        &[("io_wakeup_new", "sched_wakeup_new")],
        "first wake-ups",
        "run-queue times miss the start of tasks",
    ),
    tracepoint(&[("io_switch", "sched_switch")], "context switches", "no run-queue times by container"),
];

/// Those of connections.
pub const FLOW: &[Tracepoint] = &[
    tracepoint(
        &[("flow_state", "inet_sock_set_state")],
        "connections",
        "who began a connection is guessed from its first bytes; ends of connections are not seen",
    ),
    tracepoint(
        &[("flow_sent", "sock_send_length"), ("flow_syscall", "sys_exit")],
        "bytes sent over sockets",
        "no spans: what is sent is not seen",
    ),
];

/// The way that needs [`FLOW_RECEIVED`] beside it.
pub const TOLD_BY_SOCKETS: &str = "raw_tp/sock_send_length";

/// What goes with `sock_send_length`; where returns of system calls tell of sent bytes, they tell of these too.
pub const FLOW_RECEIVED: Tracepoint = tracepoint(
    &[("flow_received", "sock_recv_length")],
    "bytes received over sockets",
    "no spans: what is received is not seen",
);
