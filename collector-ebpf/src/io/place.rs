//! Where the beginning of something is remembered until its end: an array whose places are taken by a hash.
//!
//! No hash map: look-ups here are on the path of every system call, and nobody removes what has no end. Refuses:
//! certainty. Who finds another's beginning goes without.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::maps::Array;

/// A beginning.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Start {
    /// Whose it is: a thread with a number, or an address.
    pub owner: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Remembers at a place what begins now.
#[inline(always)]
pub fn begin(starts: &'static Array<Start>, place: u32, owner: u64) {
    begin_at(starts, place, owner, now_ns());
}

/// Remembers a beginning at a place.
#[inline(always)]
pub fn begin_at(starts: &'static Array<Start>, place: u32, owner: u64, time_ns: u64) {
    if let Some(start) = starts.get_ptr_mut(place) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe { start.write(Start { owner, time_ns }) };
    }
}

/// Takes a beginning from its place: its time, if it is the owner's.
#[inline(always)]
pub fn end(starts: &'static Array<Start>, place: u32, owner: u64) -> Option<u64> {
    let start = starts.get_ptr_mut(place)?;
    // SAFETY: as above.
    unsafe {
        if (*start).owner != owner {
            return None;
        }
        (&raw mut (*start).owner).write(0);
        Some((*start).time_ns)
    }
}

/// A beginning that stays in its place: its time, if it is the owner's.
#[inline(always)]
pub fn peek(starts: &'static Array<Start>, place: u32, owner: u64) -> Option<u64> {
    let start = starts.get_ptr(place)?;
    // SAFETY: as above.
    unsafe { ((*start).owner == owner).then(|| (*start).time_ns) }
}

/// What the numbers of pointers are counted from: anything of this object that stays where it is.
#[unsafe(no_mangle)]
static ORIGIN: Global<u32> = Global::new(0);

/// The same number, which the verifier knows nothing of any more: so it does not follow each value on its own.
#[inline(always)]
pub fn forgotten(number: u64) -> u64 {
    number.wrapping_add(number_of((&raw const ORIGIN).cast()))
}

/// The number of a pointer that the verifier knows the type of. It forbids to calculate with such a pointer, but for the
/// distance of two, which is a number that it knows nothing about.
#[inline(always)]
pub fn number_of(pointer: *const c_void) -> u64 {
    let number: u64;
    // SAFETY: subtracts, as assembly, because the compiler would know the result.
    unsafe {
        core::arch::asm!("{0} -= {1}", inout(reg) pointer => number, in(reg) &raw const ORIGIN);
    }
    number
}
