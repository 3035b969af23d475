//! Who is running: process and thread id, start time, cgroup, name.
//!
//! Refuses: fixed struct offsets. The daemon reads them from the kernel's BTF; without BTF the start time stays 0.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_ktime_get_ns, bpf_probe_read_kernel,
};
use collector_common::event::{Head, Kind, Task};
use collector_common::limits::{COMM_BYTES, OFFSET_UNKNOWN};

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
/// `signal_struct.live`
#[unsafe(no_mangle)]
static SIGNAL_LIVE: Global<u32> = Global::new(OFFSET_UNKNOWN);

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

/// Whether no thread of the task's process lives any more. Without BTF: whether its main thread is ending.
#[inline(always)]
pub fn process_is_over(task: TaskPointer) -> bool {
    let live = read::<*const c_void>(task, TASK_SIGNAL.load())
        .and_then(|signal| read::<u32>(signal, SIGNAL_LIVE.load()));
    match live {
        Some(live) => live == 0,
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

/// Reads a field of a kernel struct; `None` if the field's place is unknown or the read faults.
#[inline(always)]
fn read<T: Copy>(base: *const c_void, offset: u32) -> Option<T> {
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
