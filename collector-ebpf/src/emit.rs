//! Sends a record to a ring or counts its loss: the only user of the rings and of the counters.
//!
//! Refuses: a record that is neither sent nor counted. Wake-ups too, but of a ring of connections that fills: the daemon drains
//! on its own tick.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use collector_common::limits::{
    CRASH_RING_BYTES, DETAIL_RING_BYTES, FLOW_RING_BYTES, FLOW_RING_RESERVE_BYTES, FLOW_RING_WAKE_BYTES,
    FLOW_RING_WAKE_WIDTH_BYTES, PROCESS_RING_BYTES, SAMPLE_RING_BYTES_DEFAULT, SLOW_RING_BYTES,
};
use collector_common::loss::{KERNEL_COUNTERS, KernelCounter, Signal, kernel_counter};

use crate::atomic;

#[map]
static PROCESS_RING: RingBuf = RingBuf::with_byte_size(PROCESS_RING_BYTES, 0);

#[map]
static SAMPLE_RING: RingBuf = RingBuf::with_byte_size(SAMPLE_RING_BYTES_DEFAULT, 0);

#[map]
static CRASH_RING: RingBuf = RingBuf::with_byte_size(CRASH_RING_BYTES, 0);

#[map]
static DETAIL_RING: RingBuf = RingBuf::with_byte_size(DETAIL_RING_BYTES, 0);

#[map]
static SLOW_RING: RingBuf = RingBuf::with_byte_size(SLOW_RING_BYTES, 0);

#[map]
static FLOW_RING: RingBuf = RingBuf::with_byte_size(FLOW_RING_BYTES, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(KERNEL_COUNTERS, 0);

/// Counts one event of a signal.
#[inline(always)]
pub fn count(signal: Signal, counter: KernelCounter) {
    count_several(signal, counter, 1);
}

/// Counts events of a signal. Atomic: a program may be preempted by another one on its CPU.
#[inline(always)]
pub fn count_several(signal: Signal, counter: KernelCounter, events: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(kernel_counter(signal, counter)) {
        // SAFETY: the map look-up gave a valid, aligned pointer to this CPU's u64, which lives as long as the program.
        unsafe { atomic::add(slot, events) };
    }
}

/// Counts one event under a counter that only one program uses, and so nobody while that runs on its CPU: the kernel never runs a
/// program on top of itself (`bpf_prog.active`, 6.2), and before that tracepoints are not preempted. An atomic addition
/// waits for all stores before it, which costs more than the rest of a message that is left out.
#[inline(always)]
pub fn count_alone(signal: Signal, counter: KernelCounter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(kernel_counter(signal, counter)) {
        // SAFETY: as in `count_several`.
        unsafe { slot.write((*slot).wrapping_add(1)) };
    }
}

/// Sends a fixed-size record of a process's life.
#[inline(always)]
pub fn process_record<T>(record: &T) {
    count(Signal::Process, KernelCounter::Seen);
    let record = core::ptr::from_ref(record).cast_mut().cast::<c_void>();
    // SAFETY: `record` points to `size_of::<T>()` initialised bytes on this program's stack.
    let result = unsafe {
        bpf_ringbuf_output(
            core::ptr::addr_of!(PROCESS_RING).cast_mut().cast(),
            record,
            size_of::<T>() as u64,
            u64::from(BPF_RB_NO_WAKEUP),
        )
    };
    if result < 0 {
        count(Signal::Process, KernelCounter::RingFull);
    }
}

/// Sends a record of a process's life that is too large for this program's stack: `fill` writes it in place.
///
/// `fill` must write the head and every field whose bytes mean something; the rest is what an older record left.
#[inline(always)]
pub fn process_record_in_place<T: 'static>(fill: impl FnOnce(*mut T)) {
    let _counted = in_place(&PROCESS_RING, Signal::Process, no_wakeup, fill);
}

/// Sends a death, as [`process_record_in_place`] does.
#[inline(always)]
pub fn death_in_place<T: 'static>(fill: impl FnOnce(*mut T)) {
    let _counted = in_place(&CRASH_RING, Signal::Crash, no_wakeup, fill);
}

/// Sends the details of a fatal signal, as [`process_record_in_place`] does.
#[inline(always)]
pub fn detail_in_place<T: 'static>(fill: impl FnOnce(*mut T)) {
    let _counted = in_place(&DETAIL_RING, Signal::CrashDetail, no_wakeup, fill);
}

/// Sends a slow operation, as [`process_record_in_place`] does.
#[inline(always)]
pub fn slow_in_place<T: 'static>(fill: impl FnOnce(*mut T)) {
    let _counted = in_place(&SLOW_RING, Signal::SlowOperation, no_wakeup, fill);
}

/// Whether there is room for more than messages: they leave a part of the ring to the beginnings and ends of connections.
#[inline(always)]
pub fn has_room_for_messages() -> bool {
    flow_ring_used_bytes() <= u64::from(FLOW_RING_BYTES - FLOW_RING_RESERVE_BYTES)
}

/// Sends a message of a connection, as [`process_record_in_place`] does. That part is left when there was room a moment ago.
#[inline(always)]
pub fn message_in_place<T: 'static>(fill: impl FnOnce(*mut T)) {
    let _counted = flow_in_place(fill);
}

/// Counts a message of a connection that is not sent.
#[inline(always)]
pub fn message_lost() {
    count(Signal::Flow, KernelCounter::Seen);
    count(Signal::Flow, KernelCounter::RingFull);
}

/// Sends the beginning or the end of a connection, as [`process_record_in_place`] does; whether there was room.
#[inline(always)]
pub fn flow_in_place<T: 'static>(fill: impl FnOnce(*mut T)) -> bool {
    in_place(&FLOW_RING, Signal::Flow, flow_wakeup, fill)
}

#[inline(always)]
fn flow_ring_used_bytes() -> u64 {
    // SAFETY: the map is a ring.
    unsafe {
        bpf_ringbuf_query(core::ptr::addr_of!(FLOW_RING).cast_mut().cast(), u64::from(BPF_RB_AVAIL_DATA))
    }
}

/// The daemon is woken when the ring gets past a mark, not with each record behind it, for then it drains already.
#[inline(always)]
fn flow_wakeup() -> u32 {
    let past = flow_ring_used_bytes().wrapping_sub(u64::from(FLOW_RING_WAKE_BYTES));
    if past < u64::from(FLOW_RING_WAKE_WIDTH_BYTES) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}

/// The daemon comes by itself.
#[inline(always)]
fn no_wakeup() -> u32 {
    BPF_RB_NO_WAKEUP
}

/// Sends a detail that stands in a map.
///
/// # Safety
///
/// `record` must point to an initialised value of a map.
#[inline(always)]
pub unsafe fn detail<T>(record: *const T) {
    count(Signal::CrashDetail, KernelCounter::Seen);
    // SAFETY: given by the caller.
    let result = unsafe {
        bpf_ringbuf_output(
            core::ptr::addr_of!(DETAIL_RING).cast_mut().cast(),
            record.cast_mut().cast(),
            size_of::<T>() as u64,
            u64::from(BPF_RB_NO_WAKEUP),
        )
    };
    if result < 0 {
        count(Signal::CrashDetail, KernelCounter::RingFull);
    }
}

#[inline(always)]
fn in_place<T: 'static>(
    ring: &'static RingBuf,
    signal: Signal,
    wakeup: impl FnOnce() -> u32,
    fill: impl FnOnce(*mut T),
) -> bool {
    count(signal, KernelCounter::Seen);
    match ring.reserve::<T>(0) {
        Some(mut entry) => {
            fill(entry.as_mut_ptr());
            // Asked last: an answer that is carried over the filling has the verifier walk through it once for each.
            entry.submit(u64::from(wakeup()));
            true
        }
        None => {
            count(signal, KernelCounter::RingFull);
            false
        }
    }
}

/// Sends a sample that the caller has counted as seen and laid out in its scratch buffer.
///
/// # Safety
///
/// `sample` must point to `bytes` initialised bytes of a map value.
#[inline(always)]
pub unsafe fn sample(sample: *mut c_void, bytes: u64) -> bool {
    // SAFETY: given by the caller.
    let result = unsafe {
        bpf_ringbuf_output(
            core::ptr::addr_of!(SAMPLE_RING).cast_mut().cast(),
            sample,
            bytes,
            u64::from(BPF_RB_NO_WAKEUP),
        )
    };
    if result < 0 {
        count(Signal::Profile, KernelCounter::RingFull);
    }
    result >= 0
}
