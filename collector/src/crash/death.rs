//! One death on its way from the pipeline to the reporter: everything that is gone a moment later.
//!
//! Refuses: names of functions and files of any kind; those take time, and the pipeline has none.

use std::path::PathBuf;
use std::sync::Arc;

use collector_common::crash::{DeathRecord, FaultRecord, KernelStackRecord, SignalRecord};
use collector_common::event::Task;

use super::cgroup_memory::oom_scope;
use super::record::{CgroupMemory, Kind, OomInfo, Sender};
use super::{status, text};
use crate::arch;
use crate::identity::Subject;
use crate::kernel::Tail;
use crate::process::{CodeMap, Process};
use crate::telemetry::{ProcessName, SpanContext};

/// A fault that was handled longer ago than this before the end is not its cause. A JVM writes its report in between.
const HANDLED_FAULT_AGE_NS_MAX: u64 = 30_000_000_000;

/// What the kernel side told of signals.
#[derive(Default)]
pub struct Detail {
    /// The fatal one, with memory and company.
    pub signal: Option<Box<SignalRecord>>,
    /// The last one that the process handled.
    pub handled: Option<Box<FaultRecord>>,
    /// Where the kernel was when it decided about the end.
    pub kernel: Option<Box<KernelStackRecord>>,
}

/// Distances of the kernel's clocks from the epoch at this moment, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// What `CLOCK_MONOTONIC` lacks.
    pub monotonic_to_unix_ns: u64,
    /// What `CLOCK_BOOTTIME` lacks.
    pub boottime_to_unix_ns: u64,
}

/// A death.
pub struct Death {
    /// Its kind.
    pub kind: Kind,
    /// As `wait(2)` gives it.
    pub status: u32,
    /// The last thread.
    pub task: Task,
    /// The end, nanoseconds since the epoch.
    pub time_unix_ns: u64,
    /// The start, nanoseconds since the epoch.
    pub start_unix_ns: Option<u64>,
    /// What to add to times of the kernel side.
    pub clocks: Clocks,
    /// The process's names.
    pub name: Arc<ProcessName>,
    /// Whose it was.
    pub subject: Arc<Subject>,
    /// Its arguments, each ended by a zero.
    pub arguments: Arc<[u8]>,
    /// Where the files of its container lie on the host.
    pub root: Arc<[PathBuf]>,
    /// Its code.
    pub maps: CodeMap,
    /// User and group in the initial user namespace.
    pub ids: (u32, u32),
    /// Its id in its own PID namespace.
    pub namespace_pid: Option<u32>,
    /// Its parent.
    pub parent_pid: Option<u32>,
    /// Its current directory, and whether the path is whole.
    pub working_directory: Option<(String, bool)>,
    /// The signal.
    pub detail: Detail,
    /// Who sent it.
    pub sender: Option<Sender>,
    /// `si_code` of what was sent.
    pub sender_code: i32,
    /// Equal for deaths that the limits take as one.
    pub likeness: u64,
    /// The OOM killer's view.
    pub oom: Option<OomInfo>,
    /// Memory of its cgroup.
    pub cgroup_memory: Option<CgroupMemory>,
    /// The end of its standard error.
    pub tail: Option<Tail>,
    /// Whether some of it may have been missed.
    pub misses_stderr: bool,
    /// Deaths of this kind that it stands for, itself not counted.
    pub suppressed: u64,
    /// Whether the limits cost it its details.
    pub is_reduced: bool,
    /// The request that its thread served, if that is proven.
    pub span: Option<SpanContext>,
}

impl Detail {
    /// Where the thread was: at the fatal signal, else at the fault that it handled.
    pub fn fault(&self) -> Option<&FaultRecord> {
        self.signal.as_ref().map(|record| &record.fault).or(self.handled.as_deref())
    }

    /// Where it ran.
    pub fn instruction_pointer(&self) -> Option<u64> {
        let fault = self.fault()?;
        match arch::instruction_pointer(&fault.registers) {
            0 => fault.frames.first().copied().filter(|_| fault.frame_count > 0),
            address => Some(address),
        }
    }

    /// How many records of the kernel side it holds.
    pub fn records(&self) -> u64 {
        let count = |is_there: bool| u64::from(is_there);
        count(self.signal.is_some()) + count(self.handled.is_some()) + count(self.kernel.is_some())
    }
}

impl Death {
    /// The thread that took the signal, or the last one to end, and when that was: `CLOCK_MONOTONIC`.
    pub fn thread_at(&self) -> (u32, u64) {
        match self.detail.fault() {
            Some(fault) => (fault.task.tid, fault.head.time_ns),
            None => (self.task.tid, self.time_unix_ns.saturating_sub(self.clocks.monotonic_to_unix_ns)),
        }
    }

    /// Puts together what is known in the pipeline.
    #[expect(clippy::too_many_arguments, reason = "each is another source, and this is where they meet")]
    pub fn new(
        record: &DeathRecord,
        process: &Process,
        kind: Kind,
        detail: Detail,
        sender: Option<Sender>,
        oom: Option<OomInfo>,
        tail: Option<Tail>,
        clocks: &Clocks,
    ) -> Self {
        let mut detail = detail;
        let is_recent = |fault: &FaultRecord| {
            record.head.time_ns.saturating_sub(fault.head.time_ns) <= HANDLED_FAULT_AGE_NS_MAX
        };
        detail.handled = detail.handled.filter(|fault| is_recent(fault));
        // A signal that something else came before did not end it.
        let deadly =
            [status::signal(record.status), detail.signal.as_ref().map(|record| record.fault.signal)];
        detail.kernel = detail.kernel.filter(|stack| deadly.contains(&Some(stack.signal)));
        let has_start = record.task.start_ns != 0;
        Self {
            kind,
            status: record.status,
            task: record.task,
            time_unix_ns: record.head.time_ns.saturating_add(clocks.monotonic_to_unix_ns),
            start_unix_ns: has_start.then(|| record.task.start_ns.saturating_add(clocks.boottime_to_unix_ns)),
            clocks: *clocks,
            name: Arc::clone(&process.name),
            subject: Arc::clone(&process.subject),
            arguments: Arc::clone(&process.arguments),
            root: Arc::clone(&process.root),
            maps: process.maps.clone(),
            ids: (record.uid, record.gid),
            namespace_pid: Some(record.namespace_pid).filter(|&pid| pid != 0),
            parent_pid: Some(record.parent_tgid).filter(|&pid| pid != 0),
            working_directory: working_directory(record),
            detail,
            sender,
            sender_code: record.sender.code,
            likeness: 0,
            oom,
            cgroup_memory: None,
            tail,
            misses_stderr: false,
            suppressed: 0,
            span: None,
            is_reduced: false,
        }
    }

    /// Adds the memory of its cgroup, which says whose limit the OOM killer was about.
    pub fn set_cgroup_memory(&mut self, memory: Option<CgroupMemory>) {
        if let Some(oom) = &mut self.oom {
            oom.scope = oom_scope(memory.as_ref());
        }
        self.cgroup_memory = memory;
    }

    /// Drops what takes memory, for a death that only waits to stand for others.
    pub fn reduce(&mut self) {
        self.detail = Detail::default();
        self.maps = CodeMap::default();
        self.is_reduced = true;
    }
}

/// The path from the names that the kernel side found, innermost first.
fn working_directory(record: &DeathRecord) -> Option<(String, bool)> {
    let names = record.cwd.get(..record.cwd_names as usize)?;
    let is_whole = record.is_cwd_whole == 1;
    let path: String = names.iter().rev().map(|name| format!("/{}", text(name))).collect();
    match (is_whole, path.is_empty()) {
        (true, true) => Some(("/".to_owned(), true)),
        (true, false) => Some((path, true)),
        (false, true) => None,
        (false, false) => Some((format!("…{path}"), false)),
    }
}
