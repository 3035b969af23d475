//! What a cgroup uses, as plain numbers. A number that could not be read is absent, never zero.
//!
//! Refuses: names of metrics and of devices.

/// A limit that may be "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max`, `-1`, or v1's `PAGE_COUNTER_MAX`.
    Unlimited,
    /// The limit, in the unit of its field.
    At(u64),
}

impl Limit {
    /// The limit, if there is one.
    pub fn at(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::At(limit) => Some(limit),
        }
    }
}

/// All that one cgroup uses, its children included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupUsage {
    /// Processor time and its limits.
    pub cpu: CpuUsage,
    /// Memory and its limits.
    pub memory: MemoryUsage,
    /// Processes and threads.
    pub tasks: TaskUsage,
    /// Block I/O, ordered by device; `None` where nothing accounts it.
    pub io: Option<Vec<DeviceIo>>,
    /// Time lost to waiting.
    pub pressure: PressureUsage,
}

/// Processor time: `cpuacct.usage`, `cpuacct.stat`, `cpu.stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuUsage {
    /// All time.
    pub total_ns: Option<u64>,
    /// Time in user mode.
    pub user_ns: Option<u64>,
    /// Time in the kernel.
    pub system_ns: Option<u64>,
    /// Enforcement periods that passed; absent without a quota's controller.
    pub periods: Option<u64>,
    /// Periods in which the quota ran out.
    pub throttled_periods: Option<u64>,
    /// How long it was stopped for that.
    pub throttled_ns: Option<u64>,
    /// Time it may use in each period.
    pub quota_us: Option<Limit>,
    /// The period.
    pub period_us: Option<u64>,
    /// v1 `cpu.shares`, or v2 `cpu.weight` translated as cAdvisor does.
    pub shares: Option<u64>,
}

impl CpuUsage {
    /// The limit in cores, if there is one.
    pub fn limit_cores(&self) -> Option<f64> {
        let (quota_us, period_us) = (self.quota_us?.at()?, self.period_us.filter(|&period| period > 0)?);
        Some(quota_us as f64 / period_us as f64)
    }
}

/// Memory: `memory.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MemoryUsage {
    /// All memory that is charged.
    pub usage_bytes: Option<u64>,
    /// The largest usage so far; v2 since 5.19.
    pub peak_bytes: Option<u64>,
    /// Anonymous memory.
    pub rss_bytes: Option<u64>,
    /// Page cache.
    pub cache_bytes: Option<u64>,
    /// Page cache that was not touched lately.
    pub inactive_file_bytes: Option<u64>,
    /// Page cache that is mapped.
    pub mapped_bytes: Option<u64>,
    /// Memory in swap.
    pub swap_bytes: Option<u64>,
    /// Memory of the kernel; v2 since 5.18.
    pub kernel_bytes: Option<u64>,
    /// Buffers of sockets.
    pub sock_bytes: Option<u64>,
    /// The limit that the OOM killer holds.
    pub limit_bytes: Option<Limit>,
    /// Best-effort protection: v1's soft limit, v2's `memory.low`.
    pub reservation_bytes: Option<u64>,
    /// v2's `memory.high`: above it allocations are slowed.
    pub high_bytes: Option<Limit>,
    /// How often the limit was hit: v1's `failcnt`, v2's event `max`.
    pub limit_hits: Option<u64>,
    /// How often the OOM killer was called; v2.
    pub oom_events: Option<u64>,
    /// Processes that it killed.
    pub oom_kills: Option<u64>,
    /// Page faults, with children.
    pub faults: Option<u64>,
    /// Page faults that read from a disk, with children.
    pub major_faults: Option<u64>,
    /// Page faults without children; v1.
    pub own_faults: Option<u64>,
    /// Major page faults without children; v1.
    pub own_major_faults: Option<u64>,
}

impl MemoryUsage {
    /// Usage without the page cache that could go at once, as cAdvisor and the kubelet have it.
    pub fn working_set_bytes(&self) -> Option<u64> {
        Some(self.usage_bytes?.saturating_sub(self.inactive_file_bytes?))
    }

    /// What is left below the limit, as the kubelet has it: limit less working set.
    pub fn available_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes?.at()?.saturating_sub(self.working_set_bytes()?))
    }
}

/// Processes and threads: `pids.*`, `cgroup.procs`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TaskUsage {
    /// Threads.
    pub threads: Option<u64>,
    /// How many there may be.
    pub threads_limit: Option<Limit>,
    /// Processes.
    pub processes: Option<u64>,
}

/// A block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

/// I/O of one device: `io.stat`, `blkio.throttle.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceIo {
    /// The device.
    pub device: DeviceNumber,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub written_bytes: Option<u64>,
    /// Reads.
    pub reads: Option<u64>,
    /// Writes.
    pub writes: Option<u64>,
}

/// Pressure stall information: `*.pressure`, since 4.20 and `CONFIG_PSI`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureUsage {
    /// Waiting for a processor.
    pub cpu: Pressure,
    /// Waiting for memory.
    pub memory: Pressure,
    /// Waiting for I/O.
    pub io: Pressure,
}

/// Totals of one kind of waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// While at least one thread waited.
    pub some_us: Option<u64>,
    /// While all threads waited.
    pub full_us: Option<u64>,
}

/// Traffic of one interface of a network namespace: `/proc/PID/net/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name.
    pub name: String,
    /// What came in.
    pub received: Traffic,
    /// What went out.
    pub sent: Traffic,
}

/// Traffic of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets that were broken.
    pub errors: u64,
    /// Packets that were thrown away.
    pub dropped: u64,
}

/// The file system that holds a container's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// Where it is mounted from: `/dev/vda1`, `overlay`.
    pub source: String,
    /// Its size.
    pub capacity_bytes: u64,
    /// What an unprivileged user could still write.
    pub available_bytes: u64,
    /// What the container itself wrote: its overlay's upper layer. Absent until that was measured.
    pub layer_bytes: Option<u64>,
}
