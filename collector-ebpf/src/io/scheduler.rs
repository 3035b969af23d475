//! How long tasks wait for a CPU once they could run, and whether they had given it up by themselves.
//!
//! Refuses: tasks of the kernel without a cgroup of their own (they count for the root), and idle time.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::{Key, Measure, Wait};
use collector_common::limits::{OFFSET_UNKNOWN, STARTS_MAX, place_of};

use super::place::{self, Start};
use super::{distribution, fault};
use crate::flow::{self, time};
use crate::task::{self, TaskPointer};

/// `task_struct.__state` (`.state` before 5.14)
#[unsafe(no_mangle)]
pub static TASK_STATE: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// 1 if waits are counted by cgroup.
#[unsafe(no_mangle)]
static IO_SCHEDULER: Global<u32> = Global::new(0);

/// A task becomes ready: the low bit of the owner says why.
#[map]
static READY: Array<Start> = Array::with_max_entries(STARTS_MAX, 0);

/// A task is woken.
#[inline(always)]
pub fn on_wakeup(woken: TaskPointer, is_typed: bool) -> i32 {
    if let Some(tid) = task::thread_of(woken, is_typed) {
        place::begin(&READY, place_of(tid, STARTS_MAX), owner(tid, Wait::Woken));
    }
    0
}

/// A CPU goes from one task to another. The clock is read once: that is a good part of what all this costs.
#[inline(always)]
pub fn on_switch(is_preempted: bool, previous: TaskPointer, next: TaskPointer, is_typed: bool) -> i32 {
    let now_ns = place::now_ns();
    match task::thread_of(previous, is_typed) {
        Some(tid) if tid != 0 => on_leave(previous, tid, is_preempted, now_ns, is_typed),
        _ => {}
    }
    match task::thread_of(next, is_typed) {
        Some(tid) if tid != 0 => on_run(next, tid, now_ns, is_typed),
        _ => 0,
    }
}

#[inline(always)]
fn on_leave(previous: TaskPointer, tid: u32, is_preempted: bool, now_ns: u64, is_typed: bool) {
    // A task that could go on is in state 0 (`TASK_RUNNING`), or was taken off while it changed its state.
    let state = task::field::<u32>(previous, TASK_STATE.load(), is_typed);
    let could_go_on = is_preempted || state == Some(0);
    if flow::is_watched() {
        time::on_leave(previous, tid, could_go_on, now_ns, is_typed);
    }
    if could_go_on {
        place::begin_at(&READY, place_of(tid, STARTS_MAX), owner(tid, Wait::Preempted), now_ns);
    } else if IO_SCHEDULER.load() == 1 {
        fault::on_sleep(previous, tid, state.unwrap_or(0), now_ns, is_typed);
    }
}

#[inline(always)]
fn on_run(next: TaskPointer, tid: u32, now_ns: u64, is_typed: bool) -> i32 {
    let Some(start) = READY.get_ptr_mut(place_of(tid, STARTS_MAX)) else { return 0 };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    let (owner, start_ns) = unsafe { ((*start).owner, (*start).time_ns) };
    let is_own = owner >> 1 == u64::from(tid);
    let mut time_ns = if is_own { now_ns.wrapping_sub(start_ns) } else { 0 };
    // SAFETY: a comment as assembly: the register must hold a number for the verifier in both cases.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) time_ns) };
    if is_own {
        // SAFETY: as above.
        unsafe { (&raw mut (*start).owner).write(0) };
    }
    if flow::is_watched() {
        time::on_run(tid, time_ns, now_ns);
    }
    if IO_SCHEDULER.load() != 1 {
        return 0;
    }
    fault::on_run(next, tid, is_own.then_some(start_ns), now_ns, is_typed);
    let key = Key {
        cgroup_id: task::cgroup_of(next, is_typed).unwrap_or(0),
        detail: 0,
        measure: Measure::RunQueue as u8,
        operation: 0,
        label: if is_own { (owner & 1) as u8 } else { Wait::Woken as u8 },
        error: 0,
    };
    distribution::add_undisturbed(&key, 1, is_own.then_some(time_ns), 0);
    0
}

#[inline(always)]
fn owner(tid: u32, wait: Wait) -> u64 {
    u64::from(tid) << 1 | wait as u64
}
