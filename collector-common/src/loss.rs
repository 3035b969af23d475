//! Why something that was seen did not come out: one enum for the kernel and the daemon, and the kernel's counters.
//!
//! Refuses: free-text reasons. A new bound anywhere needs a reason here, so that the books can balance.

/// A stream of records with books of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Signal {
    /// Exec, fork, exit and rename of processes.
    Process = 0,
    /// Executable mappings, from the perf side-band (counted in the daemon only).
    Mapping = 1,
    /// On-CPU samples.
    Profile = 2,
    /// Points of metrics that go to the backend (made in the daemon only).
    Metric = 3,
    /// Deaths that were no plain success.
    Crash = 4,
    /// Registers, stacks and threads at fatal signals and handled faults: they end in the record of a death.
    CrashDetail = 5,
    /// Single operations over the threshold.
    SlowOperation = 6,
    /// Connections used, messages and ends of connections: they end in exchanges.
    Flow = 7,
    /// Requests with their responses: they end in spans.
    Span = 8,
}

impl Signal {
    /// All signals, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Mapping,
        Self::Profile,
        Self::Metric,
        Self::Crash,
        Self::CrashDetail,
        Self::SlowOperation,
        Self::Flow,
        Self::Span,
    ];

    /// The name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Mapping => "mapping",
            Self::Profile => "profile",
            Self::Metric => "metric",
            Self::Crash => "crash",
            Self::CrashDetail => "crash_detail",
            Self::SlowOperation => "slow_operation",
            Self::Flow => "flow",
            Self::Span => "span",
        }
    }
}

/// Why a record, or a part of one, did not come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum LossReason {
    /// Kernel: the ring was full, or its lock was held while an NMI wanted it.
    RingFull = 0,
    /// Kernel: the per-CPU scratch buffer was missing (cannot happen on a healthy kernel).
    ScratchMissing = 1,
    /// Kernel: the perf side-band said `PERF_RECORD_LOST`.
    SidebandLost = 2,
    /// Daemon: the bytes are not a record this version knows.
    Malformed = 3,
    /// Daemon: too many records waited for their turn.
    Backlog = 4,
    /// Daemon: a window held its maximum of distinct stacks.
    WindowFull = 5,
    /// Daemon: the symbolizer was behind by its maximum of windows.
    SymbolizerBehind = 6,
    /// Daemon: the export queue was at its byte limit, the oldest batch went.
    ExportQueueFull = 7,
    /// Backend: the answer was a partial success without these records.
    ExportRejected = 8,
    /// Backend: the answer said not to try again.
    ExportRefused = 9,
    /// Backend: no success within the time that a batch may be retried.
    ExportRetryExhausted = 10,
    /// The agent stopped before the batch was delivered.
    ExportShutdown = 11,
    /// Daemon: the process table was full; the record's process is not tracked.
    ProcessTableFull = 12,
    /// Daemon: the user asked for other processes only.
    Filtered = 13,
    /// Daemon: the user gave this signal no endpoint.
    ExportSwitchedOff = 14,
    /// Daemon: an end that makes no record by rule, such as a plain non-zero exit of a helper. Only counted.
    HealthyExit = 15,
    /// Daemon: too many deaths of one kind in a minute. A record of the kind stands for them and says how many they are; they
    /// are counted here when it goes out.
    CrashRateLimited = 16,
    /// Daemon: the crash reporter was behind by its maximum of deaths.
    CrashReporterBehind = 17,
    /// Daemon: the details of a signal whose process did not die.
    DetailOrphaned = 18,
    /// Daemon: the record could not be written to the spool, and could not be exported either.
    SpoolFailed = 19,
    /// Daemon: the spool was full, the oldest record that still waited for its export went.
    SpoolEvicted = 20,
    /// Daemon: the record waits in the spool for the next start.
    ExportSpooled = 21,
    /// Kernel: no room for one more connection.
    ConnectionsFull = 22,
    /// Daemon: an exchange of which too much was lost, or that had too many others waiting before it.
    ExchangeBroken = 23,
    /// Daemon: the user's sampling left this span out. It is in the metrics.
    SampledOut = 24,
    /// Daemon: too many spans of one window.
    SpansFull = 25,
    /// Daemon: the connection's first record was lost, or there was no room for it.
    ConnectionUnknown = 26,
    /// Kernel: more exchanges on the node than the user's budget, or on a connection before it was recognised; this one
    /// was not captured.
    OverBudget = 27,
    /// Daemon: too many kinds of deaths in a minute. No record stands for this one; it is in the metrics.
    CrashKindsFull = 28,
}

impl LossReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 29] = [
        Self::RingFull,
        Self::ScratchMissing,
        Self::SidebandLost,
        Self::Malformed,
        Self::Backlog,
        Self::WindowFull,
        Self::SymbolizerBehind,
        Self::ExportQueueFull,
        Self::ExportRejected,
        Self::ExportRefused,
        Self::ExportRetryExhausted,
        Self::ExportShutdown,
        Self::ProcessTableFull,
        Self::Filtered,
        Self::ExportSwitchedOff,
        Self::HealthyExit,
        Self::CrashRateLimited,
        Self::CrashReporterBehind,
        Self::DetailOrphaned,
        Self::SpoolFailed,
        Self::SpoolEvicted,
        Self::ExportSpooled,
        Self::ConnectionsFull,
        Self::ExchangeBroken,
        Self::SampledOut,
        Self::SpansFull,
        Self::ConnectionUnknown,
        Self::OverBudget,
        Self::CrashKindsFull,
    ];

    /// The name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::ScratchMissing => "scratch_missing",
            Self::SidebandLost => "sideband_lost",
            Self::Malformed => "malformed",
            Self::Backlog => "backlog",
            Self::WindowFull => "window_full",
            Self::SymbolizerBehind => "symbolizer_behind",
            Self::ExportQueueFull => "export_queue_full",
            Self::ExportRejected => "export_rejected",
            Self::ExportRefused => "export_refused",
            Self::ExportRetryExhausted => "export_retry_exhausted",
            Self::ExportShutdown => "export_shutdown",
            Self::ProcessTableFull => "process_table_full",
            Self::Filtered => "filtered",
            Self::ExportSwitchedOff => "export_switched_off",
            Self::HealthyExit => "healthy_exit",
            Self::CrashRateLimited => "crash_rate_limited",
            Self::CrashReporterBehind => "crash_reporter_behind",
            Self::DetailOrphaned => "crash_detail_orphan",
            Self::SpoolFailed => "spool_failed",
            Self::SpoolEvicted => "spool_evicted",
            Self::ExportSpooled => "export_spooled",
            Self::ConnectionsFull => "connections_full",
            Self::ExchangeBroken => "exchange_broken",
            Self::SampledOut => "sampled_out",
            Self::SpansFull => "spans_full",
            Self::ConnectionUnknown => "connection_unknown",
            Self::OverBudget => "over_budget",
            Self::CrashKindsFull => "crash_kinds_full",
        }
    }
}

/// Where in the pipeline a reason applies: each equation of the books has one stage of losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Between the hook and the daemon: `seen = lost + rejected + decoded`.
    Kernel,
    /// Between the ring and a typed record: `seen = lost + rejected + decoded`.
    Decode,
    /// Between a typed record and a flushed window: `decoded = represented + dropped`.
    Represent,
    /// Between a flushed window and its receiver: `represented = exported + dropped`.
    Export,
}

impl LossReason {
    /// The stage at which the reason applies.
    pub const fn stage(self) -> Stage {
        match self {
            Self::RingFull
            | Self::ScratchMissing
            | Self::SidebandLost
            | Self::ConnectionsFull
            | Self::OverBudget => Stage::Kernel,
            Self::Malformed => Stage::Decode,
            Self::Backlog
            | Self::WindowFull
            | Self::ProcessTableFull
            | Self::Filtered
            | Self::HealthyExit
            | Self::CrashRateLimited
            | Self::CrashKindsFull
            | Self::CrashReporterBehind
            | Self::DetailOrphaned
            | Self::ExchangeBroken
            | Self::SampledOut
            | Self::SpansFull
            | Self::ConnectionUnknown => Stage::Represent,
            Self::SymbolizerBehind
            | Self::ExportQueueFull
            | Self::ExportRejected
            | Self::ExportRefused
            | Self::ExportRetryExhausted
            | Self::ExportShutdown
            | Self::ExportSwitchedOff
            | Self::SpoolFailed
            | Self::SpoolEvicted
            | Self::ExportSpooled => Stage::Export,
        }
    }
}

/// Counters that the eBPF side keeps per CPU for each signal, at index [`kernel_counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum KernelCounter {
    /// Records the programs wanted to send.
    Seen = 0,
    /// Records lost as [`LossReason::RingFull`]. Of exchanges those whose connection's end, which tells of them, was lost too.
    RingFull = 1,
    /// Records lost as [`LossReason::ScratchMissing`].
    ScratchMissing = 2,
    /// Records lost as [`LossReason::ConnectionsFull`].
    ConnectionsFull = 3,
    /// Exchanges lost as [`LossReason::OverBudget`] that begin with a message received.
    OverBudgetReceived = 4,
    /// Likewise, with one sent.
    OverBudgetSent = 5,
}

/// Kernel counters of one signal.
pub const KERNEL_COUNTERS_PER_SIGNAL: u32 = 6;

/// Entries of the kernel's counter map.
pub const KERNEL_COUNTERS: u32 = KERNEL_COUNTERS_PER_SIGNAL * Signal::ALL.len() as u32;

/// The index of a signal's counter in the kernel's counter map.
pub const fn kernel_counter(signal: Signal, counter: KernelCounter) -> u32 {
    signal as u32 * KERNEL_COUNTERS_PER_SIGNAL + counter as u32
}

const _: () = {
    let mut index = 0;
    while index < LossReason::ALL.len() {
        assert!(LossReason::ALL[index] as usize == index);
        index += 1;
    }
    index = 0;
    while index < Signal::ALL.len() {
        assert!(Signal::ALL[index] as usize == index);
        index += 1;
    }
    assert!((KernelCounter::OverBudgetSent as u32) < KERNEL_COUNTERS_PER_SIGNAL);
};
