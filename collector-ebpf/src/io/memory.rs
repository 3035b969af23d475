//! Time that tasks spend reclaiming memory for themselves, instead of running.
//!
//! Refuses: the kernel's own reclaim (kswapd), which nobody waits for directly.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::{Key, Measure, Reclaim};
use collector_common::limits::{REQUESTS_MAX, place_of};

use super::distribution;
use super::place::{self, Start};
use crate::task;

#[map]
static RECLAIMS: Array<Start> = Array::with_max_entries(REQUESTS_MAX, 0);

/// The running task begins.
#[inline(always)]
pub fn on_begin() -> i32 {
    let (_, tid) = task::current_ids();
    place::begin(&RECLAIMS, place_of(tid, REQUESTS_MAX), u64::from(tid));
    0
}

/// The running task has done.
#[inline(always)]
pub fn on_end(whose: Reclaim) -> i32 {
    let (_, tid) = task::current_ids();
    let start_ns = place::end(&RECLAIMS, place_of(tid, REQUESTS_MAX), u64::from(tid));
    let key = Key {
        // SAFETY: the helper has no preconditions.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        detail: 0,
        measure: Measure::Reclaim as u8,
        operation: 0,
        label: whose as u8,
        error: 0,
    };
    distribution::add(&key, start_ns.map(|start_ns| place::now_ns().wrapping_sub(start_ns)), 0);
    0
}
