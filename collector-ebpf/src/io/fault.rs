//! How long tasks sleep in page faults of their own code: for a page from a disk or from swap, for memory, for a lock.
//!
//! Taken where the scheduler switches, so that a fault that does not sleep, which is most of them, costs nothing. A task sleeps
//! in a fault if it waits uninterruptibly and came into the kernel by no system call. Refuses: faults of the kernel
//! itself, in buffers of system calls (their time is the call's), and the time until a woken task gets a CPU.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::{Key, Measure};
use collector_common::limits::{REQUESTS_MAX, place_of};

use super::distribution;
use super::place::{self, Start};
use crate::arch;
use crate::task::{self, TaskPointer};

/// `TASK_UNINTERRUPTIBLE`, which `TASK_KILLABLE` has too (include/linux/sched.h).
const UNINTERRUPTIBLE: u32 = 2;

#[map]
static PAGE_FAULTS: Array<Start> = Array::with_max_entries(REQUESTS_MAX, 0);

/// A task goes to sleep in this state.
#[inline(always)]
pub fn on_sleep(sleeper: TaskPointer, tid: u32, state: u32, now_ns: u64, is_typed: bool) {
    if state & UNINTERRUPTIBLE != 0 && arch::is_in_exception(sleeper, is_typed) {
        place::begin_at(&PAGE_FAULTS, place_of(tid, REQUESTS_MAX), u64::from(tid), now_ns);
    }
}

/// A task runs again from now on, and was woken then, if that is known.
#[inline(always)]
pub fn on_run(task: TaskPointer, tid: u32, woken_ns: Option<u64>, now_ns: u64, is_typed: bool) {
    let start_ns = place::end(&PAGE_FAULTS, place_of(tid, REQUESTS_MAX), u64::from(tid));
    let Some(start_ns) = start_ns else { return };
    let end_ns = woken_ns.filter(|&woken_ns| woken_ns >= start_ns).unwrap_or(now_ns);
    let key = Key {
        cgroup_id: task::cgroup_of(task, is_typed).unwrap_or(0),
        detail: 0,
        measure: Measure::PageFault as u8,
        operation: 0,
        label: 0,
        error: 0,
    };
    distribution::add(&key, Some(end_ns.wrapping_sub(start_ns)), 0);
}
