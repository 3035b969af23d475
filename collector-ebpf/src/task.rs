//! Who is running: process and thread id, start time, cgroup, name.
//!
//! Refuses: fixed struct offsets. The daemon reads them from the kernel's BTF; without BTF the start time stays 0.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_probe_read_user,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use collector_common::event::{Head, Kind, Task};
use collector_common::limits::{ARGUMENT_BYTES_MAX, COMM_BYTES, ENDS_MAX, OFFSET_UNKNOWN};

/// `task_struct.group_leader`
#[unsafe(no_mangle)]
static TASK_GROUP_LEADER: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.start_boottime`
#[unsafe(no_mangle)]
static TASK_START_BOOTTIME: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.pid`
#[unsafe(no_mangle)]
static TASK_PID: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.tgid`
#[unsafe(no_mangle)]
static TASK_TGID: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.signal`
#[unsafe(no_mangle)]
static TASK_SIGNAL: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `signal_struct.nr_threads`
#[unsafe(no_mangle)]
pub static SIGNAL_NR_THREADS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `signal_struct.live`
#[unsafe(no_mangle)]
static SIGNAL_LIVE: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `task_struct.cgroups`
#[unsafe(no_mangle)]
static TASK_CGROUPS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `css_set.dfl_cgrp`
#[unsafe(no_mangle)]
static CSS_SET_DFL_CGRP: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `cgroup.kn`
#[unsafe(no_mangle)]
static CGROUP_KN: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `kernfs_node.id`
#[unsafe(no_mangle)]
static KERNFS_NODE_ID: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.mm`
#[unsafe(no_mangle)]
static TASK_MM: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.thread_pid`
#[unsafe(no_mangle)]
static TASK_THREAD_PID: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `task_struct.real_parent`
#[unsafe(no_mangle)]
static TASK_REAL_PARENT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `pid.level`
#[unsafe(no_mangle)]
static PID_LEVEL: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `pid.numbers`
#[unsafe(no_mangle)]
static PID_NUMBERS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// Size of `struct upid`, bytes.
#[unsafe(no_mangle)]
static UPID_BYTES: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mm_struct.arg_start`
#[unsafe(no_mangle)]
static MM_ARG_START: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mm_struct.arg_end`
#[unsafe(no_mangle)]
static MM_ARG_END: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `-EEXIST`
const ALREADY_THERE: i32 = -17;

/// PID namespaces nest at most this deep (`MAX_PID_NS_LEVEL`).
const PID_LEVEL_MAX: u32 = 32;

/// A kernel pointer to a `task_struct`.
pub type TaskPointer = *const c_void;

/// The head of a record that starts now.
#[inline(always)]
pub fn head(kind: Kind, record_bytes: u32) -> Head {
    // SAFETY: the helper takes no arguments and has no preconditions.
    Head { kind: kind as u32, record_bytes, time_ns: unsafe { bpf_ktime_get_ns() } }
}

/// Thread id (low half) and process id (high half) of the running task.
#[inline(always)]
pub fn current_ids() -> (u32, u32) {
    // SAFETY: as above.
    let ids = unsafe { bpf_get_current_pid_tgid() };
    ((ids >> 32) as u32, ids as u32)
}

/// The running task.
#[inline(always)]
pub fn current() -> Task {
    let (tgid, tid) = current_ids();
    let mut comm = [0u8; COMM_BYTES];
    // SAFETY: the helpers have no preconditions; `comm` is a writable buffer of the given size.
    let (task, cgroup_id) = unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_BYTES as u32);
        (bpf_get_current_task() as TaskPointer, bpf_get_current_cgroup_id())
    };
    Task { tgid, tid, start_ns: process_start_ns(task), cgroup_id, comm }
}

/// Start of a task's process since boot, nanoseconds; 0 where unknown.
#[inline(always)]
pub fn process_start_ns(task: TaskPointer) -> u64 {
    let Some(leader) = read::<TaskPointer>(task, TASK_GROUP_LEADER.load()) else { return 0 };
    read::<u64>(leader, TASK_START_BOOTTIME.load()).unwrap_or(0)
}

/// The process id of a task that is the main thread of its process; `None` for other threads.
#[inline(always)]
pub fn process_of_main_thread(task: TaskPointer) -> Option<u32> {
    let pid = read::<u32>(task, TASK_PID.load())?;
    let tgid = read::<u32>(task, TASK_TGID.load())?;
    (pid == tgid).then_some(tgid)
}

/// The thread id of a task.
#[inline(always)]
pub fn thread_of(task: TaskPointer, is_typed: bool) -> Option<u32> {
    field(task, TASK_PID.load(), is_typed)
}

/// The id of a task's cgroup in the unified hierarchy.
#[inline(always)]
pub fn cgroup_of(task: TaskPointer, is_typed: bool) -> Option<u64> {
    let set = field::<*const c_void>(task, TASK_CGROUPS.load(), is_typed)?;
    let cgroup = field::<*const c_void>(set, CSS_SET_DFL_CGRP.load(), is_typed)?;
    cgroup_id(cgroup, is_typed)
}

/// The id of a cgroup.
#[inline(always)]
pub fn cgroup_id(cgroup: *const c_void, is_typed: bool) -> Option<u64> {
    let node = field::<*const c_void>(cgroup, CGROUP_KN.load(), is_typed)?;
    field(node, KERNFS_NODE_ID.load(), is_typed)
}

/// The running task's `task_struct`.
#[inline(always)]
pub fn current_pointer() -> TaskPointer {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() as TaskPointer }
}

/// The process id of a task.
#[inline(always)]
pub fn process_of(task: TaskPointer) -> Option<u32> {
    read(task, TASK_TGID.load())
}

/// The process id of a task's parent.
#[inline(always)]
pub fn parent_of(task: TaskPointer) -> Option<u32> {
    process_of(read(task, TASK_REAL_PARENT.load())?)
}

/// A task's `signal_struct`.
#[inline(always)]
pub fn signal_struct(task: TaskPointer) -> Option<*const c_void> {
    read(task, TASK_SIGNAL.load())
}

/// A task's `mm_struct`; `None` for kernel threads and tasks that gave it up already.
#[inline(always)]
pub fn mm_struct(task: TaskPointer) -> Option<*const c_void> {
    read::<*const c_void>(task, TASK_MM.load()).filter(|mm| !mm.is_null())
}

/// The id of a task's process in its own PID namespace, and how deep that is nested.
#[inline(always)]
pub fn namespace_pid(task: TaskPointer) -> Option<(u32, u32)> {
    let leader = read::<TaskPointer>(task, TASK_GROUP_LEADER.load())?;
    let pid = read::<*const c_void>(leader, TASK_THREAD_PID.load())?;
    let level = read::<u32>(pid, PID_LEVEL.load())?;
    if level > PID_LEVEL_MAX {
        return None;
    }
    let offset = PID_NUMBERS.load().wrapping_add(level.wrapping_mul(UPID_BYTES.load()));
    Some((read::<u32>(pid, offset)?, level))
}

/// Copies the arguments of the running program and returns how many bytes they have in all; 0 if they are unreadable.
///
/// # Safety
///
/// `arguments` must be writable.
#[inline(always)]
pub unsafe fn copy_arguments(arguments: *mut [u8; ARGUMENT_BYTES_MAX]) -> u32 {
    let Some(mm) = mm_struct(current_pointer()) else { return 0 };
    let (Some(start), Some(end)) = (read::<u64>(mm, MM_ARG_START.load()), read::<u64>(mm, MM_ARG_END.load()))
    else {
        return 0;
    };
    let bytes = end.wrapping_sub(start);
    let mut copied = bytes;
    // SAFETY: a comment as assembly: the verifier must see the bound below on this very register.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) copied) };
    if copied > ARGUMENT_BYTES_MAX as u64 {
        copied = ARGUMENT_BYTES_MAX as u64;
    }
    // SAFETY: `copied` is at most the size of the destination; the helper checks the source.
    let result = unsafe { bpf_probe_read_user(arguments.cast(), copied as u32, start as *const c_void) };
    if result == 0 { bytes as u32 } else { 0 }
}

/// The main thread of a task's process; the task itself where that is not known.
#[inline(always)]
pub fn leader(task: TaskPointer) -> TaskPointer {
    read(task, TASK_GROUP_LEADER.load()).unwrap_or(task)
}

/// Processes of several threads that are over: those threads count themselves out long before they get here, so that two
/// of them may find nobody left.
#[map]
static ENDS: LruHashMap<[u64; 2], u8> = LruHashMap::with_max_entries(ENDS_MAX, 0);

/// Whether no thread of the task's process lives any more; true once per process. Without BTF: whether its main thread
/// is ending.
#[inline(always)]
pub fn process_is_over(task: TaskPointer) -> bool {
    let signal = signal_struct(task);
    let field = |offset: u32| signal.and_then(|signal| read::<u32>(signal, offset));
    match field(SIGNAL_LIVE.load()) {
        Some(0) if field(SIGNAL_NR_THREADS.load()) == Some(1) => true,
        Some(0) => {
            let (tgid, _) = current_ids();
            let key = [u64::from(tgid), process_start_ns(task)];
            !matches!(ENDS.insert(key, 1, u64::from(BPF_NOEXIST)), Err(ALREADY_THERE))
        }
        Some(_) => false,
        None => {
            let (tgid, tid) = current_ids();
            tgid == tid
        }
    }
}

/// A task name in kernel memory; empty if it cannot be read.
#[inline(always)]
pub fn name(source: *const u8) -> [u8; COMM_BYTES] {
    read(source.cast(), 0).unwrap_or([0; COMM_BYTES])
}

/// The running thread, as busy programs need it: one helper's call for all, where loads from typed pointers are allowed.
pub struct Thread {
    /// Its `task_struct`.
    pub task: TaskPointer,
    /// Whether the verifier knows the type of `task`.
    pub is_typed: bool,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Start of the process since boot, nanoseconds; 0 where pointers have no type.
    pub start_ns: u64,
}

impl Thread {
    /// The running thread.
    #[inline(always)]
    pub fn current(is_typed: bool) -> Self {
        if !is_typed {
            let (tgid, _) = current_ids();
            return Self { task: current_pointer(), is_typed, tgid, start_ns: 0 };
        }
        // SAFETY: the helper has no preconditions.
        let task = unsafe { bpf_get_current_task_btf() as TaskPointer };
        let tgid = field::<u32>(task, TASK_TGID.load(), true).unwrap_or(0);
        let leader = field::<TaskPointer>(task, TASK_GROUP_LEADER.load(), true);
        let start_ns = leader.and_then(|leader| field::<u64>(leader, TASK_START_BOOTTIME.load(), true));
        Self { task, is_typed, tgid, start_ns: start_ns.unwrap_or(0) }
    }

    /// The id of its cgroup in the unified hierarchy.
    #[inline(always)]
    pub fn cgroup_id(&self) -> u64 {
        if self.is_typed
            && let Some(cgroup_id) = cgroup_of(self.task, true)
        {
            return cgroup_id;
        }
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_current_cgroup_id() }
    }
}

/// Reads a field as [`read`] does; a plain load if the verifier knows the type of `base`, which costs nearly nothing.
#[inline(always)]
pub fn field<T: Copy>(base: *const c_void, offset: u32, is_typed: bool) -> Option<T> {
    if !is_typed {
        return read(base, offset);
    }
    if offset == OFFSET_UNKNOWN || base.is_null() {
        return None;
    }
    // SAFETY: the verifier refuses the program unless `base` points to a kernel struct; a load from one that is gone
    // gives zero.
    Some(unsafe { base.byte_add(offset as usize).cast::<T>().read_volatile() })
}

/// Reads a field of a kernel struct; `None` if the field's place is unknown or the read faults.
#[inline(always)]
pub fn read<T: Copy>(base: *const c_void, offset: u32) -> Option<T> {
    if offset == OFFSET_UNKNOWN {
        return None;
    }
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the destination is writable for `size_of::<T>()`; the helper checks the source and fails on a bad one.
    let result = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.byte_add(offset as usize),
        )
    };
    // SAFETY: zeroed above, then written by the helper; every `T` used here is valid for any bits.
    (result == 0).then(|| unsafe { value.assume_init() })
}
