//! Operations of io_uring: counted at their completion for the task that submitted them.
//!
//! Refuses: kernels whose tracepoints do not give the request (before 5.19), and further completions of multishot requests
//! that come without one.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::{Call, Descriptor, ErrorClass, Key, Measure, Operation};
use collector_common::limits::{OFFSET_UNKNOWN, REQUESTS_MAX, place_of_address};

use super::descriptor;
use super::place::{self, Start};
use super::{distribution, known, syscall};
use crate::task::{self, TaskPointer};

/// `io_kiocb.opcode`
#[unsafe(no_mangle)]
static URING_OPCODE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `io_kiocb.cqe` and in it `io_cqe.res`
#[unsafe(no_mangle)]
static URING_RESULT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `io_kiocb.file`
#[unsafe(no_mangle)]
static URING_FILE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `io_kiocb.task` (until 6.12)
#[unsafe(no_mangle)]
static URING_TASK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `io_kiocb.tctx` (since 6.13)
#[unsafe(no_mangle)]
static URING_CONTEXT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `io_uring_task.task`
#[unsafe(no_mangle)]
static URING_CONTEXT_TASK: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `IORING_OP_CLOSE` (include/uapi/linux/io_uring.h)
const CLOSE: u8 = 19;

/// Numbers of operations in the table.
const OPCODES: u32 = 128;

/// [`Call`]s, packed, by the number of the operation.
#[map]
static URING_CALLS: Array<u32> = Array::with_max_entries(OPCODES, 0);

#[map]
static URING_REQUESTS: Array<Start> = Array::with_max_entries(REQUESTS_MAX, 0);

/// A request is submitted.
#[inline(always)]
pub fn on_submit(request: *const c_void) -> i32 {
    // It may complete without telling.
    if task::read::<u8>(request, URING_OPCODE.load()) == Some(CLOSE) {
        forget_descriptors(request);
    }
    place::begin(&URING_REQUESTS, place_of_address(request as u64, REQUESTS_MAX), request as u64);
    0
}

/// A request is completed.
#[inline(always)]
pub fn on_complete(request: *const c_void) -> i32 {
    // Where the tracepoint has no request, its place is a number that the program chose.
    if URING_RESULT.load() == OFFSET_UNKNOWN {
        return 0;
    }
    let Some(opcode) = task::read::<u8>(request, URING_OPCODE.load()) else { return 0 };
    let call = URING_CALLS.get(u32::from(opcode)).copied().unwrap_or(0);
    let operation = if call == 0 { Operation::Other as u8 } else { Call::operation_of(call) };
    let result = i64::from(task::read::<i32>(request, URING_RESULT.load()).unwrap_or(0));
    if operation == Operation::Close as u8 {
        forget_descriptors(request);
    }
    let start_ns =
        place::end(&URING_REQUESTS, place_of_address(request as u64, REQUESTS_MAX), request as u64);
    let file = match Call::has_descriptor(call) {
        true => task::read::<*const c_void>(request, URING_FILE.load()).filter(|file| !file.is_null()),
        false => None,
    };
    let key = Key {
        cgroup_id: submitter(request).and_then(|task| task::cgroup_of(task, false)).unwrap_or(0),
        detail: 0,
        measure: Measure::Uring as u8,
        operation,
        label: file.map_or(Descriptor::None, descriptor::kind) as u8,
        error: if result < 0 { syscall::error_class(result) } else { ErrorClass::None as u8 },
    };
    let bytes = if Call::returns_bytes(call) && result > 0 { result as u64 } else { 0 };
    distribution::add(&key, start_ns.map(|start_ns| place::now_ns().wrapping_sub(start_ns)), bytes);
    0
}

#[inline(always)]
fn forget_descriptors(request: *const c_void) {
    if let Some(tgid) = submitter(request).and_then(task::process_of) {
        known::forget_all(tgid);
    }
}

#[inline(always)]
fn submitter(request: *const c_void) -> Option<TaskPointer> {
    if URING_TASK.load() != OFFSET_UNKNOWN {
        return task::read(request, URING_TASK.load());
    }
    let context = task::read::<*const c_void>(request, URING_CONTEXT.load())?;
    task::read(context, URING_CONTEXT_TASK.load())
}
