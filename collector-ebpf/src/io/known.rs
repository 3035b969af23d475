//! What descriptors were when they were last looked at, so that most calls need no look at the kernel's tables.
//!
//! An entry is of one descriptor of one program run: of a process, by its start, between two execs. It is dropped before and
//! after every call that closes that descriptor; what may close many, or closes without a call, drops all. Refuses:
//! processes that share descriptors with others that are not their threads: a few calls there may be called by what the
//! descriptor was before.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::Descriptor;
use collector_common::limits::{DESCRIPTORS_MAX, OFFSET_UNKNOWN, place_of};

use super::{descriptor, place};
use crate::task::{self, Thread};

/// `task_struct.self_exec_id` (64 bits since 5.7)
#[unsafe(no_mangle)]
static TASK_SELF_EXEC_ID: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// What a descriptor was.
#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    start_ns: u64,
    exec_id: u64,
    tgid: u32,
    descriptor: u32,
    epoch: u32,
    kind: u32,
}

#[map]
static DESCRIPTORS: Array<Known> = Array::with_max_entries(DESCRIPTORS_MAX, 0);

/// Grows when all that is known must be forgotten.
#[map]
static EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// What a descriptor of the running thread is.
#[inline(always)]
pub fn kind(thread: &Thread, number: u32) -> Descriptor {
    if !thread.is_typed {
        return look(thread, number);
    }
    let (Some(known), Some(exec_id)) =
        (entry(thread, number), task::field::<u64>(thread.task, TASK_SELF_EXEC_ID.load(), true))
    else {
        return look(thread, number);
    };
    let epoch = EPOCH.get(0).copied().unwrap_or(0);
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        let is_same = (*known).start_ns == thread.start_ns
            && (*known).exec_id == exec_id
            && (*known).tgid == thread.tgid
            && (*known).descriptor == number
            && (*known).epoch == epoch;
        if is_same {
            return descriptor::from_number((*known).kind);
        }
        let kind = look(thread, number);
        known.write(Known {
            start_ns: thread.start_ns,
            exec_id,
            tgid: thread.tgid,
            descriptor: number,
            epoch,
            kind: kind as u32,
        });
        kind
    }
}

/// A descriptor is being closed, or was.
#[inline(always)]
pub fn forget(thread: &Thread, number: u32) {
    if let Some(known) = entry(thread, number) {
        // SAFETY: as above.
        unsafe { (&raw mut (*known).start_ns).write(0) };
    }
}

/// Some descriptors were closed, nobody knows which.
#[inline(always)]
pub fn forget_all() {
    if let Some(epoch) = EPOCH.get_ptr_mut(0) {
        // SAFETY: as above. Assembly, because this target has no atomic types in `core`.
        unsafe { core::arch::asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) epoch, in(reg) 1u64) };
    }
}

#[inline(always)]
fn look(thread: &Thread, number: u32) -> Descriptor {
    let kind = descriptor::file(thread, number).map_or(Descriptor::None, descriptor::kind);
    descriptor::from_number(place::forgotten(kind as u64).unwrap_or(0) as u32)
}

#[inline(always)]
fn entry(thread: &Thread, number: u32) -> Option<*mut Known> {
    let mixed = thread.tgid.wrapping_mul(0x9e37_79b1).wrapping_add(number);
    DESCRIPTORS.get_ptr_mut(place_of(mixed ^ mixed >> 16, DESCRIPTORS_MAX))
}
