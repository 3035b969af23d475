//! Who sent a process its last deadly signal, and whom the OOM killer chose.
//!
//! Refuses: signals that end nobody by themselves. Go's preemption and child signals come by the ten thousand.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_uid_gid, bpf_ktime_get_ns,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::{EbpfContext, Global};
use collector_common::crash::{DUMPS_CORE, Sender, is_one_of};
use collector_common::limits::{COMM_BYTES, OFFSET_UNKNOWN, SENDERS_MAX, place_of};

use super::kernel_stack;
use crate::task::{self, TaskPointer};

/// `mm_struct.rss_stat`
#[unsafe(no_mangle)]
static MM_RSS_STAT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// Distance between two counters in `rss_stat`: 8 before 6.2, then the size of `percpu_counter`.
#[unsafe(no_mangle)]
static RSS_STAT_STRIDE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// Place of the count in one counter of `rss_stat`.
#[unsafe(no_mangle)]
static RSS_STAT_COUNT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mm_struct.total_vm`
#[unsafe(no_mangle)]
static MM_TOTAL_VM: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `signal_struct.oom_score_adj`
#[unsafe(no_mangle)]
static SIGNAL_OOM_SCORE_ADJ: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// Signals that are watched: the ones that dump core, KILL and TERM, by their numbers on x86_64 and aarch64.
const WATCHED: u64 = DUMPS_CORE | 1 << 9 | 1 << 15;

/// `SEND_SIG_PRIV` of `include/linux/sched/signal.h`: the kernel sends, and there is no siginfo. 0 is a user's
/// signal without siginfo. Neither may be dereferenced.
const SEND_SIG_PRIV: u64 = 1;

/// `TRACE_SIGNAL_DELIVERED` and `TRACE_SIGNAL_LOSE_INFO` of `include/trace/events/signal.h`: the signal is on its way. It
/// is not where it was ignored or is pending already.
const DELIVERED: i32 = 0;
const LOSE_INFO: i32 = 4;

/// SIGKILL
const KILL: u32 = 9;

/// `kernel_siginfo.si_code`: the layout is that of `siginfo`, which is ABI.
const SI_CODE: u32 = 8;

#[map]
static SENDERS: Array<Sender> = Array::with_max_entries(SENDERS_MAX, 0);

/// A signal is sent to a task.
#[inline(always)]
pub fn on_generate<C: EbpfContext>(
    context: &C,
    signal: i32,
    information: u64,
    target: TaskPointer,
    result: i32,
) -> i32 {
    if !is_one_of(signal, WATCHED) || (result != DELIVERED && result != LOSE_INFO) {
        return 0;
    }
    let Some(target_tgid) = task::process_of(target) else { return 0 };
    let Some(place) = SENDERS.get_ptr_mut(place_of(target_tgid, SENDERS_MAX)) else { return 0 };
    let mut sender = current_sender(signal as u32, target, target_tgid);
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    let known = unsafe { *place };
    // What follows a SIGKILL did not kill: an OOM group is killed twice, and a runtime makes sure.
    if known.signal == KILL
        && known.target_tgid == target_tgid
        && known.target_start_ns == sender.target_start_ns
    {
        return 0;
    }
    if information == SEND_SIG_PRIV {
        sender.by_kernel = 1;
        add_memory(target, &mut sender);
    } else if information > SEND_SIG_PRIV {
        sender.code = task::read::<i32>(information as *const c_void, SI_CODE).unwrap_or(0);
        // Codes above zero are the kernel's own: a fault, a timer, a limit.
        sender.by_kernel = u32::from(sender.code > 0);
    }
    // SAFETY: as above.
    unsafe { place.write(sender) };
    if sender.by_kernel == 1 && (signal == KILL as i32 || kernel_stack::is_fatal(signal, target)) {
        kernel_stack::keep(context, signal, target_tgid, sender.target_start_ns);
    }
    0
}

/// The OOM killer chose a victim, after it sent the signal. The argument is the task since 6.9, the process id before.
#[inline(always)]
pub fn on_victim(argument: u64) -> i32 {
    let tgid = match u32::try_from(argument) {
        Ok(pid) => Some(pid),
        Err(_) => task::process_of(argument as TaskPointer),
    };
    let Some(tgid) = tgid else { return 0 };
    if let Some(sender) = SENDERS.get_ptr_mut(place_of(tgid, SENDERS_MAX)) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            if (*sender).target_tgid == tgid && (*sender).signal == KILL {
                (&raw mut (*sender).is_oom).write(1);
            }
        }
    }
    0
}

/// Copies the sender of a process's last signal; zeros if there is none.
///
/// # Safety
///
/// `destination` must be writable.
#[inline(always)]
pub unsafe fn copy(tgid: u32, start_ns: u64, destination: *mut Sender) {
    // SAFETY: given by the caller; the look-up gives a valid pointer or none.
    unsafe {
        match SENDERS.get_ptr(place_of(tgid, SENDERS_MAX)) {
            Some(sender) if (*sender).target_tgid == tgid && (*sender).target_start_ns == start_ns => {
                destination.write(*sender);
            }
            _ => destination.write(NOBODY),
        }
    }
}

const NOBODY: Sender = Sender {
    time_ns: 0,
    target_start_ns: 0,
    target_tgid: 0,
    padding: 0,
    cgroup_id: 0,
    signal: 0,
    code: 0,
    tgid: 0,
    uid: 0,
    namespace_pid: 0,
    by_kernel: 0,
    is_oom: 0,
    oom_score_adj: 0,
    file_pages: 0,
    anon_pages: 0,
    swap_pages: 0,
    shmem_pages: 0,
    virtual_pages: 0,
    comm: [0; COMM_BYTES],
};

#[inline(always)]
fn current_sender(signal: u32, target: TaskPointer, target_tgid: u32) -> Sender {
    let (tgid, _) = task::current_ids();
    let mut comm = [0u8; COMM_BYTES];
    // SAFETY: the helpers have no preconditions; `comm` is a writable buffer of the given size.
    let (time_ns, cgroup_id, ids) = unsafe {
        bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_BYTES as u32);
        (bpf_ktime_get_ns(), bpf_get_current_cgroup_id(), bpf_get_current_uid_gid())
    };
    let namespace_pid = task::namespace_pid(task::current_pointer()).map_or(0, |(pid, _)| pid);
    let target_start_ns = task::process_start_ns(target);
    Sender {
        time_ns,
        target_start_ns,
        target_tgid,
        cgroup_id,
        signal,
        tgid,
        uid: ids as u32,
        namespace_pid,
        comm,
        ..NOBODY
    }
}

/// `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SWAPENTS`, `MM_SHMEMPAGES` of `include/linux/mm_types_task.h`, in this order.
#[inline(always)]
fn add_memory(target: TaskPointer, sender: &mut Sender) {
    let Some(mm) = task::mm_struct(target) else { return };
    let stride = RSS_STAT_STRIDE.load();
    let pages = |kind: u32| {
        let offset = MM_RSS_STAT.load();
        if offset == OFFSET_UNKNOWN || stride == OFFSET_UNKNOWN {
            return 0;
        }
        task::read::<u64>(mm, offset.wrapping_add(kind * stride).wrapping_add(RSS_STAT_COUNT.load()))
            .unwrap_or(0)
    };
    sender.file_pages = pages(0);
    sender.anon_pages = pages(1);
    sender.swap_pages = pages(2);
    sender.shmem_pages = pages(3);
    sender.virtual_pages = task::read::<u64>(mm, MM_TOTAL_VM.load()).unwrap_or(0);
    let score =
        task::signal_struct(target).and_then(|signal| task::read::<i16>(signal, SIGNAL_OOM_SCORE_ADJ.load()));
    sender.oom_score_adj = i32::from(score.unwrap_or(0));
}
