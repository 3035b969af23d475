//! The map of distributions: adds one operation to the one of its key.
//!
//! Refuses: losing a count. What finds no room is counted under one key that the daemon put there before.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuHashMap};
use collector_common::io::{Distribution, Key, OVERFLOW_CGROUP, bucket_of};
use collector_common::limits::{BUCKETS, DISTRIBUTIONS_DEFAULT};

use crate::atomic;

#[map]
static DISTRIBUTIONS: PerCpuHashMap<Key, Distribution> =
    PerCpuHashMap::with_max_entries(DISTRIBUTIONS_DEFAULT, 0);

/// An empty distribution: too large for this side's stack beside everything else.
#[map]
static EMPTY: Array<Distribution> = Array::with_max_entries(1, 0);

const OVERFLOW: Key =
    Key { cgroup_id: OVERFLOW_CGROUP, detail: 0, measure: 0, operation: 0, label: 0, error: 0 };

/// Adds an operation. Its time is `None` where its beginning was not seen. Atomic: an interrupt may count under the same
/// key on this CPU.
#[inline(always)]
pub fn add(key: &Key, time_ns: Option<u64>, bytes: u64) {
    add_by(key, time_ns, bytes, |slot, value| {
        // SAFETY: the slot is in a value of the map.
        unsafe { atomic::add(slot, value) };
    });
}

/// Adds an operation under a key that no interrupt uses, from a program that is not preempted: the tracepoints of system
/// calls switch preemption off (include/trace/bpf_probe.h).
#[inline(always)]
pub fn add_undisturbed(key: &Key, time_ns: Option<u64>, bytes: u64) {
    // SAFETY: the slot is in a value of the map.
    add_by(key, time_ns, bytes, |slot, value| unsafe { slot.write((*slot).wrapping_add(value)) });
}

#[inline(always)]
fn add_by(key: &Key, time_ns: Option<u64>, bytes: u64, add: impl Fn(*mut u64, u64)) {
    let Some(distribution) = of(key) else { return };
    // SAFETY: the look-up gave a valid pointer to this CPU's value; the bucket is below the number of buckets.
    unsafe {
        match time_ns {
            Some(mut time_ns) => {
                // A comment as assembly: what follows must not be computed before it is known that there is a time,
                // for then the register may hold a pointer.
                core::arch::asm!("/* {0} */", inout(reg) time_ns);
                let bucket = bucket_of(time_ns, |mut number| {
                    core::arch::asm!("/* {0} */", inout(reg) number);
                    number
                }) as usize;
                let buckets = (&raw mut (*distribution).buckets).cast::<u64>();
                let slot: *mut u64;
                // Mask and addition as one: the verifiers before 6.2 forget the bound of a number that was on the stack.
                core::arch::asm!(
                    "{0} &= {mask}",
                    "{0} <<= 3",
                    "{0} += {1}",
                    inout(reg) bucket => slot, in(reg) buckets, mask = const BUCKETS - 1
                );
                add(slot, 1);
                add(&raw mut (*distribution).time_ns, time_ns);
            }
            None => add(&raw mut (*distribution).untimed, 1),
        }
        if bytes != 0 {
            add(&raw mut (*distribution).bytes, bytes);
        }
    }
}

#[inline(always)]
fn of(key: &Key) -> Option<*mut Distribution> {
    if let Some(distribution) = DISTRIBUTIONS.get_ptr_mut(key) {
        return Some(distribution);
    }
    let empty = EMPTY.get_ptr(0)?;
    // Somebody else may have been faster, or there is no room: the look-up tells.
    // SAFETY: the look-up gave a valid pointer to a value of the map, which nobody writes.
    let _race = DISTRIBUTIONS.insert(key, unsafe { &*empty }, u64::from(BPF_NOEXIST));
    DISTRIBUTIONS.get_ptr_mut(key).or_else(|| DISTRIBUTIONS.get_ptr_mut(&OVERFLOW))
}
