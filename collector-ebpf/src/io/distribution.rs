//! The distributions: adds one operation to the one of its key.
//!
//! Each key has a place in a per-CPU array. The daemon hands out free places and takes them back; which place a key has, a
//! hash map knows, and for the busiest keys of each CPU a small table before it, because the map's look-up costs more than
//! all the counting. Refuses: losing a count. What finds no place is counted in the first one.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, Queue};
use collector_common::io::{Distribution, Key, OVERFLOW_PLACE, bucket_of};
use collector_common::limits::{BUCKETS, DISTRIBUTIONS_DEFAULT, RECENT_KEYS_MAX, place_of_address};

use crate::atomic;

#[map]
static DISTRIBUTIONS: PerCpuArray<Distribution> = PerCpuArray::with_max_entries(DISTRIBUTIONS_DEFAULT, 0);

/// Where each key's distribution is.
#[map]
static PLACES: HashMap<Key, u32> = HashMap::with_max_entries(DISTRIBUTIONS_DEFAULT, 0);

/// Places that nobody has.
#[map]
static FREE_PLACES: Queue<u32> = Queue::with_max_entries(DISTRIBUTIONS_DEFAULT, 0);

/// Grows when places were taken back: what was remembered before may be another's now.
#[map]
static PLACES_GENERATION: Array<u32> = Array::with_max_entries(1, 0);

/// A key that was counted under a moment ago.
#[repr(C)]
struct Recent {
    key: Key,
    place: u32,
    generation: u32,
}

#[map]
static RECENT: PerCpuArray<Recent> = PerCpuArray::with_max_entries(RECENT_KEYS_MAX, 0);

/// Adds an operation. Its time is `None` where its beginning was not seen. Atomic: an interrupt may count under the same
/// key on this CPU.
#[inline(always)]
pub fn add(key: &Key, time_ns: Option<u64>, bytes: u64) {
    add_by(place_of(key), 1, time_ns, bytes, |slot, value| {
        // SAFETY: the slot is in a value of the map.
        unsafe { atomic::add(slot, value) };
    });
}

/// Adds an operation that stands for `weight` like it, under a key that no interrupt uses, from a program that is not
/// preempted: the tracepoints of system calls switch preemption off (include/trace/bpf_probe.h), and the scheduler switches
/// with interrupts off.
#[inline(always)]
pub fn add_undisturbed(key: &Key, weight: u64, time_ns: Option<u64>, bytes: u64) {
    // SAFETY: the slot is in a value of the map.
    add_by(recent_place_of(key), weight, time_ns, bytes, |slot: *mut u64, value| unsafe {
        slot.write((*slot).wrapping_add(value))
    });
}

#[inline(always)]
fn add_by(place: u32, weight: u64, time_ns: Option<u64>, bytes: u64, add: impl Fn(*mut u64, u64)) {
    let Some(distribution) = DISTRIBUTIONS.get_ptr_mut(place) else { return };
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
                add(slot, weight);
                add(&raw mut (*distribution).time_ns, time_ns.wrapping_mul(weight));
            }
            None => add(&raw mut (*distribution).untimed, weight),
        }
        if bytes != 0 {
            add(&raw mut (*distribution).bytes, bytes.wrapping_mul(weight));
        }
    }
}

/// As [`place_of`], for programs that no other one that calls this interrupts.
#[inline(always)]
fn recent_place_of(key: &Key) -> u32 {
    let words = key.words();
    let slot = place_of_address(words[0] ^ words[1].rotate_left(32), RECENT_KEYS_MAX);
    let (Some(recent), Some(&generation)) = (RECENT.get_ptr_mut(slot), PLACES_GENERATION.get(0)) else {
        return OVERFLOW_PLACE;
    };
    // SAFETY: the look-up gave a valid pointer to this CPU's value, which only programs that do not interrupt each other use.
    unsafe {
        if (*recent).key.words() == words && (*recent).generation == generation {
            return (*recent).place;
        }
        let place = place_of(key);
        // What found no place may find one the next time.
        if place != OVERFLOW_PLACE {
            recent.write(Recent { key: *key, place, generation });
        }
        place
    }
}

#[inline(always)]
fn place_of(key: &Key) -> u32 {
    if let Some(place) = known_place_of(key) {
        return place;
    }
    let Ok(Some(free)) = FREE_PLACES.pop() else { return OVERFLOW_PLACE };
    if PLACES.insert(key, free, u64::from(BPF_NOEXIST)).is_ok() {
        return free;
    }
    // Somebody else was faster, or there is no room: the look-up tells. There is room for what was taken out.
    let _pushed = FREE_PLACES.push(free, 0);
    known_place_of(key).unwrap_or(OVERFLOW_PLACE)
}

#[inline(always)]
fn known_place_of(key: &Key) -> Option<u32> {
    // SAFETY: the daemon may remove the key meanwhile: then the place read is its former one, or that of another key.
    unsafe { PLACES.get(key).copied() }
}
