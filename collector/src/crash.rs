//! The dumps signal: deaths with what was known at their moment, judged, limited, and handed to the reporter.
//!
//! Runs in the pipeline, where the process table still is as it was at the death. Symbols, files and export come later,
//! on the reporter's thread (`report`). Refuses: clocks; time is an argument.

mod cgroup_memory;
mod death;
mod fingerprint;
mod kernel_stack;
mod limiter;
mod metrics;
mod own;
mod place;
pub mod record;
mod redact;
mod report;
mod signals;
pub mod spool;
mod status;
mod summary;
mod unwind;
pub mod verdict;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use collector_common::crash::{
    DeathRecord, FaultRecord, KernelStackRecord, Sender as SenderRecord, SignalRecord,
};
use collector_common::event::Task;

pub use death::{Clocks, Death, Detail};
pub use own::{Before, OwnLife, running};
pub use redact::Redactor;
pub use report::Reporter;

use crate::dump::socket::Outcomes;
use crate::dump::{DumpKind, Policies, service};
use crate::flow::Serving;
use crate::identity::Key;
use crate::kernel::{CgroupMount, StderrTails, Tail};
use crate::loss::{Ledger, LossReason, Signal};
use crate::process::{Place, Process, ProcessTable, TICK_NS};
use crate::telemetry::Metric;
use cgroup_memory::CgroupMemoryFiles;
use limiter::{Limiter, Passage};
use metrics::CrashMetrics;
use record::{Kind, OomInfo, Sender, SenderKind};
use verdict::{Exits, Facts, SenderFacts, Verdict};

/// Details that may wait for the end of their process: about 6 MiB.
const DETAILS_MAX: usize = 256;

/// How long a detail waits. Writing a large core takes minutes.
const DETAIL_WAIT_NS: u64 = 600_000_000_000;

/// How the signal works.
#[derive(Clone, Debug)]
pub struct CrashOptions {
    /// Which non-zero exits make a record.
    pub exits: Exits,
    /// Records of one kind of death in a minute.
    pub records_per_minute: u32,
    /// Whose deaths make no record at all.
    pub policies: Policies,
}

/// How long a death waits for the end of the request that its thread served: its sockets close with it, and the other end of
/// the connection notices.
const SPAN_WAIT_NS: u64 = 400_000_000;

/// How long it waits for its pod: records are to be there within a second.
const NAME_WAIT_NS: u64 = 900_000_000;

/// Deaths that wait so.
const UNSENT_MAX: usize = 64;

/// The signal's state in the pipeline.
pub struct Crashes {
    options: CrashOptions,
    details: HashMap<u32, Waiting>,
    limiter: Limiter<DeathKey, Box<Death>>,
    metrics: CrashMetrics,
    cgroup_mount: Option<CgroupMount>,
    cgroup_memory: CgroupMemoryFiles,
    output: SyncSender<Box<Death>>,
    /// Deaths that wait for the request that was served, since when.
    unsent: VecDeque<(u64, Box<Death>)>,
    page_bytes: u64,
    hasher: RandomState,
    ledger: Arc<Ledger>,
}

struct Waiting {
    detail: Detail,
    start_ns: u64,
    since_ns: u64,
}

/// What makes deaths so alike that a few records a minute are enough.
#[derive(Clone, PartialEq, Eq, Hash)]
struct DeathKey {
    subject: Key,
    executable: Arc<str>,
    kind: Kind,
    status: u32,
    top: Option<(u64, u64)>,
}

impl Crashes {
    /// No death yet. Deaths go to `output`.
    pub fn new(
        options: CrashOptions,
        dump_outcomes: Option<Arc<Outcomes>>,
        output: SyncSender<Box<Death>>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            limiter: Limiter::new(options.records_per_minute),
            options,
            details: HashMap::new(),
            metrics: CrashMetrics::new(dump_outcomes, crate::clock::unix_ns()),
            cgroup_mount: CgroupMount::find(),
            cgroup_memory: CgroupMemoryFiles::find(),
            output,
            unsent: VecDeque::new(),
            page_bytes: procfs::page_size(),
            hasher: RandomState::new(),
            ledger,
        }
    }

    /// A thread took a fatal signal. It waits for the end of its process.
    pub fn on_signal(&mut self, record: &SignalRecord) {
        let task = &record.fault.task;
        let waiting = self.waiting(task.tgid, task.start_ns, record.fault.head.time_ns);
        if waiting.detail.signal.replace(Box::new(*record)).is_some() {
            self.ledger.lost(Signal::CrashDetail, LossReason::DetailOrphaned, 1);
        }
    }

    /// A process that ends badly had handled a fault before.
    pub fn on_fault(&mut self, record: &FaultRecord) {
        let waiting = self.waiting(record.task.tgid, record.task.start_ns, record.head.time_ns);
        if waiting.detail.handled.replace(Box::new(*record)).is_some() {
            self.ledger.lost(Signal::CrashDetail, LossReason::DetailOrphaned, 1);
        }
    }

    /// The kernel itself had decided about the end of a process.
    pub fn on_kernel_stack(&mut self, record: &KernelStackRecord) {
        let waiting = self.waiting(record.target_tgid, record.target_start_ns, record.head.time_ns);
        if waiting.detail.kernel.replace(Box::new(*record)).is_some() {
            self.ledger.lost(Signal::CrashDetail, LossReason::DetailOrphaned, 1);
        }
    }

    /// The last thread of a process ended, and not by a plain success.
    pub fn on_death(
        &mut self,
        record: &DeathRecord,
        processes: &mut ProcessTable,
        tails: &StderrTails,
        clocks: &Clocks,
    ) {
        let tail = tails.of(record.task.tgid, record.task.start_ns);
        let detail = self.take_detail(&record.task);
        let sender = self.sender(record, processes, clocks);
        let has_parent_inside = has_parent_inside(record, processes);
        let Some(process) = processes.of_task(&record.task) else {
            return self.ledger.lost(Signal::Crash, LossReason::ProcessTableFull, 1);
        };
        let status = died_of(record, &detail).unwrap_or(record.status);
        let kind = match self.judge(record, status, process, sender.as_ref(), tail.as_ref()) {
            Verdict::Record(kind) => kind,
            other => {
                self.metrics.count_end(other);
                return self.ledger.lost(Signal::Crash, LossReason::HealthyExit, 1);
            }
        };
        self.metrics.count_death(&process.subject, kind, status);
        let key = DeathKey {
            subject: process.subject.key(),
            executable: Arc::clone(&process.name.executable_name),
            kind,
            status,
            top: top(&detail, process),
        };
        let oom = (kind == Kind::OomKill).then(|| self.oom(&record.sender, has_parent_inside));
        let mut death = Box::new(Death::new(record, process, kind, detail, sender, oom, tail, clocks));
        death.misses_stderr = tails.may_have_missed(record.head.time_ns);
        death.likeness = self.hasher.hash_one(&key);
        self.pass(key, death, record.head.time_ns);
    }

    /// Lets out what the limits held back and forgets what waited too long; at the stop (`u64::MAX`) all of it. `serving` tells
    /// what a thread served at a moment.
    pub fn turn(&mut self, now_ns: u64, serving: impl Fn(u32, u64) -> Serving) {
        self.metrics.name(now_ns);
        for (mut death, suppressed) in self.limiter.take_due(now_ns) {
            death.suppressed = suppressed;
            self.unsent.push_back((now_ns, death));
        }
        for (since_ns, mut death) in std::mem::take(&mut self.unsent) {
            let (thread, time_ns) = death.thread_at();
            let waited_ns = now_ns.saturating_sub(since_ns);
            let serving = serving(thread, time_ns);
            let waits_for_span = matches!(serving, Serving::Later) && waited_ns < SPAN_WAIT_NS;
            if waits_for_span || death.subject.pod.is_awaited(now_ns) && waited_ns < NAME_WAIT_NS {
                self.unsent.push_back((since_ns, death));
                continue;
            }
            if let Serving::Known(span) = serving {
                death.span = Some(span);
            }
            self.send(death);
        }
        let ledger = &self.ledger;
        self.details.retain(|_, waiting| {
            let is_waiting = now_ns.saturating_sub(waiting.since_ns) < DETAIL_WAIT_NS;
            if !is_waiting {
                ledger.lost(Signal::CrashDetail, LossReason::DetailOrphaned, waiting.detail.records());
            }
            is_waiting
        });
    }

    /// Counters of all deaths since the start, records or not. `ends` is the number of all ends of processes.
    pub fn metrics(&self, ends: u64) -> Vec<Metric> {
        self.metrics.read(ends)
    }

    /// The details of a process, new ones if those that wait are of an older process with its id.
    fn waiting(&mut self, tgid: u32, start_ns: u64, time_ns: u64) -> &mut Waiting {
        let is_other = self.details.get(&tgid).is_some_and(|waiting| waiting.start_ns != start_ns);
        if is_other {
            self.forget_detail(tgid);
        } else if self.details.len() >= DETAILS_MAX && !self.details.contains_key(&tgid) {
            let oldest =
                self.details.iter().min_by_key(|(_, waiting)| waiting.since_ns).map(|(tgid, _)| *tgid);
            oldest.into_iter().for_each(|oldest| self.forget_detail(oldest));
        }
        let new = Waiting { detail: Detail::default(), start_ns, since_ns: time_ns };
        self.details.entry(tgid).or_insert(new)
    }

    fn forget_detail(&mut self, tgid: u32) {
        if let Some(waiting) = self.details.remove(&tgid) {
            self.ledger.lost(Signal::CrashDetail, LossReason::DetailOrphaned, waiting.detail.records());
        }
    }

    fn take_detail(&mut self, task: &Task) -> Detail {
        match self.details.remove(&task.tgid) {
            Some(waiting) if waiting.start_ns == task.start_ns => {
                self.ledger.represented(Signal::CrashDetail, waiting.detail.records());
                waiting.detail
            }
            Some(older) => {
                self.ledger.lost(Signal::CrashDetail, LossReason::DetailOrphaned, older.detail.records());
                Detail::default()
            }
            None => Detail::default(),
        }
    }

    fn judge(
        &self,
        record: &DeathRecord,
        status: u32,
        process: &Process,
        sender: Option<&Sender>,
        tail: Option<&Tail>,
    ) -> Verdict {
        let is_main_of_container = record.namespace_pid == 1 && record.namespace_level > 0;
        let is_main_of_service = record.parent_tgid == 1 && process.subject.unit.is_some();
        let last_words = tail.map(|tail| String::from_utf8_lossy(&tail.bytes)).unwrap_or_default();
        let by_namespace = record.sender.by_kernel == 1 && record.sender.namespace_pid == 1;
        verdict::of(&Facts {
            status,
            is_main: is_main_of_container || is_main_of_service,
            sender: sender.map(|sender| SenderFacts {
                kind: sender.kind,
                signal: record.sender.signal,
                is_oom: record.sender.is_oom == 1,
                is_namespace_end: by_namespace && record.namespace_level > 0,
            }),
            last_words: &last_words,
            exits: self.options.exits,
        })
    }

    /// Who sent the last deadly signal. The process table names it better than its thread does.
    fn sender(&self, record: &DeathRecord, processes: &ProcessTable, clocks: &Clocks) -> Option<Sender> {
        let sender = &record.sender;
        let deadly = status::signal(record.status);
        // An older signal, which the process handled, is not what killed it.
        if sender.time_ns == 0 || deadly.is_some_and(|deadly| sender.signal != deadly) {
            return None;
        }
        // The sender may be gone, and its id another's.
        let sent_since_boot_ns =
            (sender.time_ns + clocks.monotonic_to_unix_ns).saturating_sub(clocks.boottime_to_unix_ns);
        let known =
            processes.get(sender.tgid).filter(|known| known.start_ticks <= sent_since_boot_ns / TICK_NS);
        let name = known.map_or_else(|| text(&sender.comm), |known| known.name.executable_name.to_string());
        let container = known.and_then(|known| known.subject.container.as_ref());
        Some(Sender {
            kind: sender_kind(sender, record.task.tgid, &name),
            signal: signals::name(sender.signal),
            pid: sender.tgid,
            user_id: sender.uid,
            executable_name: name,
            container_id: container.map(|container| container.id.clone()),
        })
    }

    fn oom(&self, sender: &SenderRecord, is_child: bool) -> OomInfo {
        let bytes = |pages: u64| Some(pages.saturating_mul(self.page_bytes));
        OomInfo {
            scope: record::OomScope::Unknown,
            is_child,
            anon_bytes: bytes(sender.anon_pages),
            file_bytes: bytes(sender.file_pages),
            shmem_bytes: bytes(sender.shmem_pages),
            swap_bytes: bytes(sender.swap_pages),
            virtual_bytes: bytes(sender.virtual_pages),
            oom_score_adj: Some(sender.oom_score_adj),
            invoked_by: text(&sender.comm),
        }
    }

    fn pass(&mut self, key: DeathKey, mut death: Box<Death>, now_ns: u64) {
        if !self.limiter.has_room(&key) {
            death.reduce();
        }
        match self.limiter.admit(key, death, now_ns) {
            Passage::Passes(mut death) => {
                let path = self.cgroup_mount.as_ref().and_then(|mount| mount.path_of(death.task.cgroup_id));
                death.set_cgroup_memory(path.and_then(|path| self.cgroup_memory.read(&path)));
                // A storm of deaths waits for nothing.
                if self.unsent.len() < UNSENT_MAX {
                    self.unsent.push_back((now_ns, death))
                } else {
                    self.send(death)
                }
            }
            Passage::Held => {}
            Passage::Refused => self.ledger.lost(Signal::Crash, LossReason::CrashKindsFull, 1),
        }
    }

    /// What a death stands for has the fate of its record.
    fn send(&self, death: Box<Death>) {
        let suppressed = death.suppressed;
        if service::decide(&self.options.policies, &death.subject) == DumpKind::None {
            return self.ledger.lost(Signal::Crash, LossReason::Filtered, 1 + suppressed);
        }
        match self.output.try_send(death) {
            Ok(()) => {
                self.ledger.represented(Signal::Crash, 1);
                self.ledger.lost(Signal::Crash, LossReason::CrashRateLimited, suppressed);
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.ledger.lost(Signal::Crash, LossReason::CrashReporterBehind, 1 + suppressed);
            }
        }
    }
}

/// The signal of which a process was dying when somebody killed it for good: its core was being written, and the kernel then
/// tells of SIGKILL only.
fn died_of(record: &DeathRecord, detail: &Detail) -> Option<u32> {
    let fatal = &detail.signal.as_ref()?.fault;
    // The first process of a namespace gets signals without effect, unless the kernel forces them.
    let is_certain = record.namespace_level == 0 || record.namespace_pid != 1 || fatal.code > 0;
    let was_killed = status::signal(record.status) == Some(verdict::KILL) && record.sender.is_oom == 0;
    (was_killed && is_certain).then_some(fatal.signal)
}

/// Whether a process is not the first one of its container: by its PID namespace, else by its parent's cgroup.
fn has_parent_inside(record: &DeathRecord, processes: &ProcessTable) -> bool {
    if record.namespace_level > 0 {
        return record.namespace_pid != 1;
    }
    let parent = processes.get(record.parent_tgid);
    parent.is_some_and(|parent| parent.cgroup_id() == record.task.cgroup_id)
}

/// The place of the innermost frame, if it is in a file.
fn top(detail: &Detail, process: &Process) -> Option<(u64, u64)> {
    match process.maps.place(detail.instruction_pointer()?) {
        Some(Place::File { module, offset }) => Some((module.id, offset)),
        _ => None,
    }
}

fn sender_kind(sender: &SenderRecord, victim: u32, name: &str) -> SenderKind {
    if sender.by_kernel == 1 {
        return SenderKind::Kernel;
    }
    if sender.tgid == victim {
        return SenderKind::Itself;
    }
    if sender.uid != 0 {
        return SenderKind::User;
    }
    match name {
        "kubelet" => SenderKind::Kubelet,
        "systemd" => SenderKind::Systemd,
        "runc" | "crun" | "youki" | "runsc" | "conmon" | "containerd" | "crio" | "dockerd" | "podman" => {
            SenderKind::ContainerRuntime
        }
        name if name.starts_with("runc:") || name.starts_with("containerd-shim") => {
            SenderKind::ContainerRuntime
        }
        _ => SenderKind::User,
    }
}

/// A zero-terminated text of the kernel.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
