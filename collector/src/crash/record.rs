//! The record of one death: what an engineer needs, as plain data that is kept as JSON and exported as a log record.
//!
//! Refuses: OTLP, and values without a meaning: what is not known is absent and named in `incomplete`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the layout. A reader refuses a larger one.
pub const SCHEMA: u32 = 1;

/// One abnormal death.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Unique and in the order of time: `20261122T180102.123456Z-4242`. File name in the spool, `log.record.uid`.
    pub id: String,
    /// The end, nanoseconds since the epoch.
    pub time_unix_ns: u64,
    /// The start, nanoseconds since the epoch; absent where the kernel's layout is not known.
    pub start_unix_ns: Option<u64>,
    /// What kind of death.
    pub kind: Kind,
    /// One line: `SIGSEGV (SEGV_MAPERR) at 0x0 in main`.
    pub summary: String,
    /// Stable across builds and addresses: 16 hexadecimal digits over kind, executable and the normalised top frames.
    pub fingerprint: String,
    /// Deaths with this fingerprint since the last one that got a record.
    pub suppressed: u64,
    /// Whose it was: the same resource attributes as on every signal.
    pub resource: BTreeMap<String, String>,
    /// How often its container was started anew before, where Kubernetes tells.
    #[serde(default)]
    pub restart_count: Option<u32>,
    /// Who died.
    pub process: ProcessInfo,
    /// How it ended.
    pub exit: Exit,
    /// The signal that killed it, or the fault that its runtime handled last before it gave up.
    pub signal: Option<SignalInfo>,
    /// The fault that the process handled before the signal that killed it: the JVM handles SIGSEGV, and aborts.
    #[serde(default)]
    pub handled_fault: Option<SignalInfo>,
    /// Who sent the signal.
    pub sender: Option<Sender>,
    /// The OOM killer's victim.
    pub oom: Option<OomInfo>,
    /// Memory of the cgroup, read just after the end.
    pub cgroup_memory: Option<CgroupMemory>,
    /// Registers of the thread that died, `0x…` by name.
    pub registers: BTreeMap<String, String>,
    /// The user stack, innermost first.
    pub stack: Vec<StackFrame>,
    /// What the kernel was doing when it decided to end the process, innermost first, `function+0x…`: of the thread that
    /// [`sender`](Self::sender) names. Of an OOM kill that is the one that asked for memory.
    #[serde(default)]
    pub kernel_stack: Vec<String>,
    /// The threads at the moment of the signal.
    pub threads: Option<Threads>,
    /// Code that was mapped.
    pub mappings: Vec<CodeMapping>,
    /// The last bytes that were written to descriptor 2, redacted.
    pub stderr: Option<Stderr>,
    /// A minidump or core that was written while the kernel held the process.
    pub dump: Option<DumpFile>,
    /// What is missing, and why.
    pub incomplete: Vec<String>,
    /// The request that the thread served when it died.
    #[serde(default)]
    pub span: Option<SpanInfo>,
}

/// A span, lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanInfo {
    /// The trace, 32 digits.
    pub trace_id: String,
    /// The span, 16 digits.
    pub span_id: String,
}

/// What kind of death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A signal that the process brought on itself: SIGSEGV, SIGABRT and the like.
    #[default]
    Crash,
    /// The kernel's OOM killer.
    OomKill,
    /// SIGKILL by anybody else.
    Kill,
    /// SIGTERM or another signal that asks to end.
    Terminate,
    /// A non-zero exit code.
    Exit,
    /// The agent itself ended without a stop.
    Agent,
}

impl Kind {
    /// The name in metrics, tables and files. Part of fingerprints: never to be changed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::OomKill => "oom_kill",
            Self::Kill => "kill",
            Self::Terminate => "terminate",
            Self::Exit => "exit",
            Self::Agent => "agent",
        }
    }
}

/// Who died.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Process id in its own PID namespace.
    pub namespace_pid: Option<u32>,
    /// Its parent in the initial PID namespace.
    pub parent_pid: Option<u32>,
    /// Thread that took the signal, or the last one to end.
    pub thread_id: u32,
    /// Name of that thread.
    pub thread_name: String,
    /// File name of the executable.
    pub executable_name: String,
    /// Path of the executable as the process saw it.
    pub executable_path: Option<String>,
    /// Build id of the executable.
    pub executable_build_id: Option<String>,
    /// Arguments, redacted.
    pub command_args: Vec<String>,
    /// Current directory, as the process saw it.
    pub working_directory: Option<String>,
    /// User id in the initial user namespace.
    pub user_id: u32,
    /// Group id in the initial user namespace.
    pub group_id: u32,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<String>,
    /// The kernel's flag: a core was written.
    pub core_dumped: bool,
}

/// A signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalInfo {
    /// `SIGSEGV`
    pub name: String,
    /// Its number.
    pub number: u32,
    /// `si_code`
    pub code: i32,
    /// `SEGV_MAPERR`
    pub code_name: String,
    /// Address of the fault, `0x…`, for faults.
    pub fault_address: Option<String>,
    /// What is at that address: `null page`, `stack guard`, `[heap]`, `libc.so.6+0x1234`, `not mapped`.
    pub fault_place: Option<String>,
    /// The process had a handler for it and ended in another way.
    pub handled: bool,
    /// Time of the signal, nanoseconds since the epoch.
    pub time_unix_ns: u64,
}

/// Who sent a signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sender {
    /// What it is.
    pub kind: SenderKind,
    /// The signal it sent.
    pub signal: String,
    /// Its process id in the initial PID namespace.
    pub pid: u32,
    /// Its user.
    pub user_id: u32,
    /// File name of its executable, or its thread name.
    pub executable_name: String,
    /// Its container, if it is in one.
    pub container_id: Option<String>,
}

/// What a sender is. By name and user: root may take any name, others may not pose as these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SenderKind {
    /// The kernel itself.
    #[default]
    Kernel,
    /// The process itself, as in `abort()`.
    Itself,
    /// The kubelet.
    Kubelet,
    /// containerd, runc, crun, conmon, dockerd and their shims.
    ContainerRuntime,
    /// systemd.
    Systemd,
    /// Any other process.
    User,
}

impl SenderKind {
    /// The name in attributes and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Itself => "itself",
            Self::Kubelet => "kubelet",
            Self::ContainerRuntime => "container_runtime",
            Self::Systemd => "systemd",
            Self::User => "user",
        }
    }
}

/// A victim of the OOM killer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OomInfo {
    /// Whose limit was reached.
    pub scope: OomScope,
    /// Whether the victim was another process than the container's main process.
    pub is_child: bool,
    /// Anonymous memory of the victim, bytes.
    pub anon_bytes: Option<u64>,
    /// Memory of the victim that files back, bytes.
    pub file_bytes: Option<u64>,
    /// Shared memory of the victim, bytes.
    pub shmem_bytes: Option<u64>,
    /// Swapped memory of the victim, bytes.
    pub swap_bytes: Option<u64>,
    /// Address space of the victim, bytes.
    pub virtual_bytes: Option<u64>,
    /// Its `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// The process whose allocation started the OOM killer.
    pub invoked_by: String,
}

/// Whose limit was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OomScope {
    /// A limit of the cgroup or of one above it.
    Cgroup,
    /// The memory of the node.
    Node,
    /// The cgroup was gone before it could be read.
    #[default]
    Unknown,
}

impl OomScope {
    /// The name in attributes and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Node => "node",
            Self::Unknown => "unknown",
        }
    }
}

/// Memory of a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupMemory {
    /// Usage just after the end, bytes.
    pub usage_bytes: Option<u64>,
    /// The most it ever was, bytes.
    pub peak_bytes: Option<u64>,
    /// The limit; absent where there is none.
    pub limit_bytes: Option<u64>,
    /// Events by their kernel names: `oom`, `oom_kill`, `max`, `failcnt`.
    pub events: BTreeMap<String, u64>,
}

/// A frame of the user stack. Inlined functions are frames of their own, before the function that holds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StackFrame {
    /// The address, `0x…`.
    pub address: String,
    /// The function; absent where it is not known.
    pub function: Option<String>,
    /// The file that holds the code.
    pub module: Option<String>,
    /// Its build id.
    pub build_id: Option<String>,
    /// Offset in the file, bytes.
    pub offset: Option<u64>,
    /// The source file.
    pub file: Option<String>,
    /// The line.
    pub line: Option<u32>,
    /// It was inlined into the frame that follows.
    #[serde(default)]
    pub inlined: bool,
}

/// The threads of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// How many there were.
    pub total: u32,
    /// How many by name. Fewer than `total` if there were more than the kernel side reads.
    pub by_name: BTreeMap<String, u32>,
}

/// Code that was mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeMapping {
    /// First address, `0x…`.
    pub start: String,
    /// End, `0x…`.
    pub end: String,
    /// Offset of the first address in the file, bytes.
    pub offset: u64,
    /// The file, as the process saw it.
    pub path: String,
    /// Its build id.
    pub build_id: Option<String>,
}

/// What was written to descriptor 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stderr {
    /// The text, redacted; what is not UTF-8 is replaced.
    pub text: String,
    /// Bytes that the process wrote in all.
    pub written_bytes: u64,
    /// Whether the beginning is missing.
    pub is_truncated: bool,
}

/// A dump beside the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpFile {
    /// `minidump` or `core+zstd`
    pub format: String,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Whether memory was left out to stay under the size cap.
    pub is_truncated: bool,
}
