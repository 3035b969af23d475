//! What descriptors were when they were last looked at, so that most calls need no look at the kernel's tables.
//!
//! An entry is of one number in one table of one program run: a process by its start, between two execs, and the table
//! itself, for threads may have their own. It is dropped before and after every call that closes that number; what may
//! close many drops all of its process. Refuses: processes that share one table without being threads of each other: a
//! call there may be named by what the number was before.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::Descriptor;
use collector_common::limits::{DESCRIPTORS_MAX, EPOCHS_MAX, OFFSET_UNKNOWN, place_of};

use super::{descriptor, place};
use crate::atomic;
use crate::task::{self, Thread};

/// `task_struct.self_exec_id` (64 bits since 5.7)
#[unsafe(no_mangle)]
static TASK_SELF_EXEC_ID: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// The low bits of an entry hold the kind.
const KIND_BITS: u32 = 4;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
const _: () = assert!((Descriptor::Anonymous as u64) <= KIND_MASK);

/// Hashes of descriptors, with their kinds in the low bits: one word, so that no entry is of two.
#[map]
static DESCRIPTORS: Array<u64> = Array::with_max_entries(DESCRIPTORS_MAX, 0);

/// Grows when all descriptors of a process must be forgotten, by the low bits of its id.
#[map]
static EPOCHS: Array<u32> = Array::with_max_entries(EPOCHS_MAX, 0);

/// What a descriptor of the running thread is.
#[inline(always)]
pub fn kind(thread: &Thread, number: u32) -> Descriptor {
    let (Some(entry), Some(hash)) = (entry(thread, number), hash(thread, number)) else {
        return look(thread, number);
    };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    let known = unsafe { *entry };
    if known & !KIND_MASK == hash {
        return descriptor::from_number((known & KIND_MASK) as u32);
    }
    let kind = look(thread, number);
    // A number that is not open may be opened at any time, and no call tells.
    if kind as u8 != Descriptor::None as u8 {
        // SAFETY: as above.
        unsafe { entry.write(hash | kind as u64) };
    }
    kind
}

/// A descriptor is being closed, or was.
#[inline(always)]
pub fn forget(thread: &Thread, number: u32) {
    if let Some(entry) = entry(thread, number) {
        // SAFETY: as above.
        unsafe { entry.write(0) };
    }
}

/// Some descriptors of a process were closed, nobody knows which.
#[inline(always)]
pub fn forget_all(tgid: u32) {
    if let Some(epoch) = EPOCHS.get_ptr_mut(place_of(tgid, EPOCHS_MAX)) {
        // SAFETY: as above.
        unsafe { atomic::increment_32(epoch) };
    }
}

#[inline(always)]
fn look(thread: &Thread, number: u32) -> Descriptor {
    let kind = descriptor::file(thread, number).map_or(Descriptor::None, descriptor::kind);
    descriptor::from_number(place::forgotten(kind as u64) as u32)
}

/// What makes an entry one; `None` where loads are not cheap, so that remembering would not pay.
#[inline(always)]
fn hash(thread: &Thread, number: u32) -> Option<u64> {
    if !thread.is_typed {
        return None;
    }
    let exec_id = task::field::<u64>(thread.task, TASK_SELF_EXEC_ID.load(), true)?;
    let table = task::field::<*const c_void>(thread.task, descriptor::TASK_FILES.load(), true)?;
    let epoch = EPOCHS.get(place_of(thread.tgid, EPOCHS_MAX)).copied().unwrap_or(0);
    // Multiplication and a shift between the parts (Steele et al., "Fast splittable pseudorandom number generators").
    let mix = |hash: u64, part: u64| {
        let mixed = (hash ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 31
    };
    let hash = mix(thread.start_ns, place::number_of(table));
    let hash = mix(hash, exec_id << 32 | u64::from(epoch));
    let hash = mix(hash, u64::from(thread.tgid) << 32 | u64::from(number));
    Some(hash & !KIND_MASK)
}

#[inline(always)]
fn entry(thread: &Thread, number: u32) -> Option<*mut u64> {
    let mixed = thread.tgid.wrapping_mul(0x9e37_79b1).wrapping_add(number);
    DESCRIPTORS.get_ptr_mut(place_of(mixed ^ mixed >> 16, DESCRIPTORS_MAX))
}
