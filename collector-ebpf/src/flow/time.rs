//! What threads that use connections spend their time on.
//!
//! A thread is met at its first message; from then on each switch to and from it adds to one of its times. Messages carry
//! the sums, so that the difference of two is what happened between them. Refuses: threads without connections.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::flow::{SPENT_KINDS, Spent, Times};
use collector_common::io::{Call, Operation};
use collector_common::limits::{THREAD_TIMES_MAX, place_of};

use crate::io;
use crate::io::scheduler::TASK_STATE;
use crate::task::{self, TaskPointer};
use crate::{arch, syscall};

/// `task_struct.in_iowait` is a bit without an offset of its own: this is the kernel's state for uninterruptible sleep, which
/// disks cause (`TASK_UNINTERRUPTIBLE`, include/linux/sched.h).
const UNINTERRUPTIBLE: u32 = 2;

/// `futex` and `futex_waitv` on x86_64, the only processor whose calls are found here.
const FUTEX: u32 = 202;
const FUTEX_WAITV: u32 = 449;

#[repr(C)]
struct Thread {
    /// The thread; 0 for none.
    tid: u32,
    /// The [`Spent`] that goes on since.
    going_on: u32,
    since_ns: u64,
    times: Times,
    /// How often it asked an event queue.
    polls: u32,
    padding: u32,
}

#[map]
static THREAD_TIMES: Array<Thread> = Array::with_max_entries(THREAD_TIMES_MAX, 0);

/// The running thread asks an event queue what is next.
#[inline(always)]
pub fn on_poll() {
    let (_, tid) = task::current_ids();
    if let Some(thread) = THREAD_TIMES.get_ptr_mut(place_of(tid, THREAD_TIMES_MAX)) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe { (&raw mut (*thread).polls).write((*thread).polls.wrapping_add(1)) };
    }
}

/// The sums of the running thread, and a number that is another one if it asked an event queue meanwhile, or might have.
/// Begins to keep them if it is not known.
#[inline(always)]
pub fn of_current(tid: u32, now_ns: u64) -> (Times, u32) {
    let Some(thread) = THREAD_TIMES.get_ptr_mut(place_of(tid, THREAD_TIMES_MAX)) else {
        return ([0; SPENT_KINDS], 0);
    };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        if (*thread).tid != tid {
            thread.write(Thread {
                tid,
                going_on: Spent::OnCpu as u32,
                since_ns: now_ns,
                times: [0; SPENT_KINDS],
                polls: 0,
                padding: 0,
            });
            return ([0; SPENT_KINDS], polls(0, now_ns));
        }
        let mut times = (*thread).times;
        times[Spent::OnCpu as usize] =
            times[Spent::OnCpu as usize].wrapping_add(now_ns.wrapping_sub((*thread).since_ns));
        (times, polls((*thread).polls, now_ns))
    }
}

/// While nobody watches system calls, no two moments have the same number. Nor have two with such a time in between.
#[inline(always)]
fn polls(counted: u32, now_ns: u64) -> u32 {
    let blindness = syscall::watch().blindness;
    if blindness & 1 == 1 { now_ns as u32 | 1 } else { counted.wrapping_add(blindness) }
}

/// A thread leaves its CPU now.
#[inline(always)]
pub fn on_leave(task: TaskPointer, tid: u32, could_go_on: bool, now_ns: u64, is_typed: bool) {
    let Some(thread) = THREAD_TIMES.get_ptr_mut(place_of(tid, THREAD_TIMES_MAX)) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        if (*thread).tid != tid {
            return;
        }
        let ran_ns = now_ns.wrapping_sub((*thread).since_ns);
        let on_cpu = (&raw mut (*thread).times).cast::<u64>();
        on_cpu.write((*on_cpu).wrapping_add(ran_ns));
        (&raw mut (*thread).since_ns).write(now_ns);
        let reason = if could_go_on { Spent::RunQueue } else { reason(task, is_typed) };
        (&raw mut (*thread).going_on).write(reason as u32);
    }
}

/// A thread gets a CPU now, for which it waited so long.
#[inline(always)]
pub fn on_run(tid: u32, waited_ns: u64, now_ns: u64) {
    let Some(thread) = THREAD_TIMES.get_ptr_mut(place_of(tid, THREAD_TIMES_MAX)) else { return };
    // SAFETY: as above; the index is compared with the number of kinds.
    unsafe {
        if (*thread).tid != tid {
            return;
        }
        let away_ns = now_ns.wrapping_sub((*thread).since_ns);
        let waited_ns = if waited_ns < away_ns { waited_ns } else { away_ns };
        let times = (&raw mut (*thread).times).cast::<u64>();
        let waited = times.add(Spent::RunQueue as usize);
        waited.write((*waited).wrapping_add(waited_ns));
        let mut slept = (*thread).going_on;
        core::arch::asm!("/* {0} */", inout(reg) slept);
        if slept < SPENT_KINDS as u32 {
            let slot = times.add(slept as usize);
            slot.write((*slot).wrapping_add(away_ns.wrapping_sub(waited_ns)));
        }
        (&raw mut (*thread).since_ns).write(now_ns);
    }
}

/// Why a thread sleeps: by the system call that it is in.
#[inline(always)]
fn reason(task: TaskPointer, is_typed: bool) -> Spent {
    let Some(number) = arch::current_syscall(task, is_typed) else { return Spent::Other };
    if number == FUTEX || number == FUTEX_WAITV {
        return Spent::Lock;
    }
    let operation = Call::operation_of(io::call(number));
    let waits_for_others = operation == Operation::Poll as u8
        || operation == Operation::Send as u8
        || operation == Operation::Receive as u8
        || operation == Operation::Accept as u8
        || operation == Operation::Connect as u8;
    if waits_for_others {
        return Spent::Network;
    }
    let is_file = operation == Operation::Read as u8 || operation == Operation::Write as u8;
    let state = task::field::<u32>(task, TASK_STATE.load(), is_typed).unwrap_or(0);
    if state & UNINTERRUPTIBLE != 0 {
        Spent::Disk
    } else if is_file {
        // A read or write that sleeps where a signal may wake it is on a socket or a pipe.
        Spent::Network
    } else {
        Spent::Other
    }
}
