//! What the kernel was doing when it decided to end a process: the stack of the thread that sends the signal.
//!
//! Of the OOM killer that is the thread that asked for memory, of a fault the thread that faulted. It waits in a map for the
//! end. Refuses: signals that a process handles, however many there are.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_stack;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::{EbpfContext, Global};
use collector_common::crash::{DUMPS_CORE, KernelStackRecord, is_one_of};
use collector_common::event::Kind;
use collector_common::limits::{KERNEL_STACK_FRAMES_MAX, KERNEL_STACKS_MAX, OFFSET_UNKNOWN, place_of};

use super::fault::{DEFAULT_ACTION, SIGACTION_HANDLER};
use crate::emit;
use crate::task::{self, TaskPointer};

/// `task_struct.sighand`
#[unsafe(no_mangle)]
static TASK_SIGHAND: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sighand_struct.action`
#[unsafe(no_mangle)]
static SIGHAND_ACTION: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// Bytes of `k_sigaction`.
#[unsafe(no_mangle)]
static K_SIGACTION_BYTES: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// The last stack of the kernel that ended a process.
#[map]
static KERNEL_STACKS: Array<KernelStackRecord> = Array::with_max_entries(KERNEL_STACKS_MAX, 0);

/// Whether nothing but the end can follow a signal. What the kernel forces on a process that blocks or ignores it has the
/// default action by now.
#[inline(always)]
pub fn is_fatal(signal: i32, target: TaskPointer) -> bool {
    if !is_one_of(signal, DUMPS_CORE) {
        return false;
    }
    let bytes = K_SIGACTION_BYTES.load();
    let Some(sighand) = task::read::<*const c_void>(target, TASK_SIGHAND.load()) else { return false };
    if SIGHAND_ACTION.load() == OFFSET_UNKNOWN || bytes == OFFSET_UNKNOWN {
        return false;
    }
    let place = SIGHAND_ACTION.load() + (signal as u32 - 1) * bytes + SIGACTION_HANDLER.load();
    task::read::<u64>(sighand, place) == Some(DEFAULT_ACTION)
}

/// Keeps where the running thread is in the kernel, for it ends `target_tgid`.
#[inline(always)]
pub fn keep<C: EbpfContext>(context: &C, signal: i32, target_tgid: u32, target_start_ns: u64) {
    let Some(stack) = KERNEL_STACKS.get_ptr_mut(place_of(target_tgid, KERNEL_STACKS_MAX)) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of the map. Two deaths that share a place and meet here mix their
    // plain data; nobody's while it is written, because no process has the id 0.
    unsafe {
        (&raw mut (*stack).target_tgid).write_volatile(0);
        (&raw mut (*stack).head).write(task::head(Kind::KernelStack, size_of::<KernelStackRecord>() as u32));
        (&raw mut (*stack).task).write(task::current());
        (&raw mut (*stack).target_start_ns).write(target_start_ns);
        (&raw mut (*stack).signal).write(signal as u32);
        let frames = (&raw mut (*stack).frames).cast::<c_void>();
        let bytes = bpf_get_stack(context.as_ptr(), frames, (KERNEL_STACK_FRAMES_MAX * 8) as u32, 0);
        (&raw mut (*stack).frame_count).write(if bytes > 0 { (bytes / 8) as u32 } else { 0 });
        (&raw mut (*stack).target_tgid).write_volatile(target_tgid);
    }
}

/// Sends what was kept for a process that ends now.
#[inline(always)]
pub fn send(tgid: u32, start_ns: u64) {
    let Some(stack) = KERNEL_STACKS.get_ptr(place_of(tgid, KERNEL_STACKS_MAX)) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        if (*stack).target_tgid == tgid && (*stack).target_start_ns == start_ns {
            emit::detail(stack);
        }
    }
}
