//! Requests to block devices: from issue to completion, for the cgroup that the I/O is charged to.
//!
//! Writeback is charged to the cgroup that dirtied the pages, by the kernel's block controller; the ids are those of its
//! hierarchy. Refuses: time in the queue before the issue.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::{ErrorClass, Key, Measure, Operation};
use collector_common::limits::{OFFSET_UNKNOWN, REQUESTS_MAX, place_of_address};

use super::distribution;
use super::place;
use crate::task;

/// 1 where the tracepoint has the queue before the request (until 5.10).
#[unsafe(no_mangle)]
static BLOCK_REQUEST_IS_SECOND: Global<u32> = Global::new(0);
/// `request.cmd_flags`
#[unsafe(no_mangle)]
static REQUEST_CMD_FLAGS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `request.__data_len`
#[unsafe(no_mangle)]
static REQUEST_DATA_LEN: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `request.bio`
#[unsafe(no_mangle)]
static REQUEST_BIO: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `request.part` (a `block_device` since 5.12)
#[unsafe(no_mangle)]
static REQUEST_PART: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `request.rq_disk` (until 5.16)
#[unsafe(no_mangle)]
static REQUEST_DISK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `gendisk.major`
#[unsafe(no_mangle)]
static DISK_MAJOR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `gendisk.first_minor`
#[unsafe(no_mangle)]
static DISK_FIRST_MINOR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `block_device.bd_dev`
#[unsafe(no_mangle)]
static BLOCK_DEVICE_DEV: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `bio.bi_blkg`
#[unsafe(no_mangle)]
static BIO_BLKG: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `blkcg_gq.blkcg`
#[unsafe(no_mangle)]
static BLKG_BLKCG: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `blkcg.css.cgroup`
#[unsafe(no_mangle)]
static BLKCG_CGROUP: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `REQ_OP_MASK` and operations (include/linux/blk_types.h).
const OPERATION_MASK: u32 = 0xff;

/// A request on its way.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    address: u64,
    time_ns: u64,
    key: Key,
    bytes: u64,
}

#[map]
static BLOCK_REQUESTS: Array<Request> = Array::with_max_entries(REQUESTS_MAX, 0);

/// Whether the request is the second argument of the tracepoint of its issue.
#[inline(always)]
pub fn request_is_second() -> bool {
    BLOCK_REQUEST_IS_SECOND.load() == 1
}

/// A request goes to its device.
#[inline(always)]
pub fn on_issue(request: *const c_void) -> i32 {
    let key = key(request).unwrap_or_else(unknown);
    let bytes = task::read::<u32>(request, REQUEST_DATA_LEN.load()).unwrap_or(0);
    let place = place_of_address(request as u64, REQUESTS_MAX);
    if let Some(slot) = BLOCK_REQUESTS.get_ptr_mut(place) {
        let started =
            Request { address: request as u64, time_ns: place::now_ns(), key, bytes: u64::from(bytes) };
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe { slot.write(started) };
    }
    0
}

/// A device has done a request, or a part of it: the last part ends it.
#[inline(always)]
pub fn on_complete(request: *const c_void, error: u32, bytes: u32) -> i32 {
    // The kernel tells of a part before it takes it off what is left.
    if task::read::<u32>(request, REQUEST_DATA_LEN.load()).is_some_and(|left| left > bytes) {
        return 0;
    }
    let Some(slot) = BLOCK_REQUESTS.get_ptr_mut(place_of_address(request as u64, REQUESTS_MAX)) else {
        return 0;
    };
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    let started = unsafe { *slot };
    let error = if error == 0 { ErrorClass::None } else { ErrorClass::Device } as u8;
    if started.address == request as u64 {
        // SAFETY: as above.
        unsafe { (&raw mut (*slot).address).write(0) };
        let time_ns = place::now_ns().wrapping_sub(started.time_ns);
        distribution::add(&Key { error, ..started.key }, Some(time_ns), started.bytes);
    } else {
        // Its issue was not seen.
        let key = key(request).unwrap_or_else(unknown);
        distribution::add(&Key { error, ..key }, None, u64::from(bytes));
    }
    0
}

#[inline(always)]
fn key(request: *const c_void) -> Option<Key> {
    let flags = task::read::<u32>(request, REQUEST_CMD_FLAGS.load())?;
    let operation = match flags & OPERATION_MASK {
        0 => Operation::Read,
        1 => Operation::Write,
        2 => Operation::Flush,
        3 | 5 => Operation::Discard,
        _ => Operation::Other,
    } as u8;
    let cgroup_id = cgroup_id(request).unwrap_or(0);
    let detail = device(request).unwrap_or(0);
    Some(Key { cgroup_id, detail, measure: Measure::Block as u8, operation, label: 0, error: 0 })
}

#[inline(always)]
fn unknown() -> Key {
    let operation = Operation::Other as u8;
    Key { cgroup_id: 0, detail: 0, measure: Measure::Block as u8, operation, label: 0, error: 0 }
}

#[inline(always)]
fn cgroup_id(request: *const c_void) -> Option<u64> {
    let bio = task::read::<*const c_void>(request, REQUEST_BIO.load())?;
    // A flush has no bio: what follows faults on null and gives nothing.
    let group = task::read::<*const c_void>(bio, BIO_BLKG.load())?;
    let controller = task::read::<*const c_void>(group, BLKG_BLKCG.load())?;
    let cgroup = task::read::<*const c_void>(controller, BLKCG_CGROUP.load())?;
    task::cgroup_id(cgroup, false)
}

/// The device's number in the kernel's form: 12 bits of major, 20 bits of minor.
#[inline(always)]
fn device(request: *const c_void) -> Option<u32> {
    if REQUEST_DISK.load() != OFFSET_UNKNOWN {
        let disk = task::read::<*const c_void>(request, REQUEST_DISK.load())?;
        let major = task::read::<u32>(disk, DISK_MAJOR.load())?;
        return Some(major << 20 | task::read::<u32>(disk, DISK_FIRST_MINOR.load())?);
    }
    let part = task::read::<*const c_void>(request, REQUEST_PART.load())?;
    task::read::<u32>(part, BLOCK_DEVICE_DEV.load())
}
