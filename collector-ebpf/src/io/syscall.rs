//! System calls that do I/O: what, on what kind of descriptor, how long, how many bytes, how it failed.
//!
//! Counted at the return, so that every call counts even if its beginning was not seen. Refuses: the meaning of numbers;
//! the daemon fills the tables.

use core::ffi::c_void;

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::{EbpfContext, Global};
use collector_common::io::{Call, Descriptor, ErrorClass, Key, Measure, Operation};
use collector_common::limits::{CALLS_MAX, ERRORS_MAX, OFFSET_UNKNOWN, STARTS_MAX, place_of_address};

use super::place::{self, Start};
use super::{descriptor, distribution, file, known, slow};
use crate::task::{self, Thread};
use crate::{arch, syscall};

/// 1 if I/O is counted.
#[unsafe(no_mangle)]
static WATCH_IO: Global<u32> = Global::new(0);
/// 1 if processes are told apart.
#[unsafe(no_mangle)]
static IO_BY_PROCESS: Global<u32> = Global::new(0);

/// `thread_info.status`, with which every `task_struct` begins
#[unsafe(no_mangle)]
static THREAD_STATUS: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `TS_COMPAT`: the thread is in a 32-bit call, though its program may be a 64-bit one (arch/x86/include/asm/thread_info.h).
const THREAD_IN_32_BIT_CALL: u32 = 2;

/// `CLOSE_RANGE_CLOEXEC` (include/uapi/linux/close_range.h)
const CLOSE_RANGE_CLOEXEC: u64 = 4;

/// [`Call`]s, packed, by number.
#[map]
static CALLS: Array<u32> = Array::with_max_entries(CALLS_MAX, 0);

/// [`ErrorClass`]es by error number.
#[map]
static ERRORS: Array<u32> = Array::with_max_entries(ERRORS_MAX, 0);

#[map]
static STARTS: Array<Start> = Array::with_max_entries(STARTS_MAX, 0);

/// Whether I/O is counted.
#[inline(always)]
pub fn is_watched() -> bool {
    WATCH_IO.load() == 1
}

/// A system call begins.
#[inline(always)]
pub fn on_enter(number: u32, registers: *const c_void, is_typed: bool) -> i32 {
    let call = call(number);
    if call == 0 {
        return 0;
    }
    if is_typed && Call::operation_of(call) == Operation::Close as u8 {
        let first = arch::syscall_argument(registers, is_typed).unwrap_or(u64::MAX);
        known::forget(&Thread::current(is_typed), first as u32);
    }
    let thread = stack_of(registers, is_typed);
    place::begin(&STARTS, place_of_address(thread, STARTS_MAX), thread ^ u64::from(number));
    0
}

/// A system call returns.
#[inline(always)]
pub fn on_exit(
    context: &impl EbpfContext,
    number: u32,
    registers: *const c_void,
    result: i64,
    is_typed: bool,
) {
    let weight = u64::from(syscall::watch().weight);
    if !is_watched() || weight == 0 {
        return;
    }
    let call = call(number);
    if call == 0 {
        return;
    }
    let stack = stack_of(registers, is_typed);
    let start_ns = place::end(&STARTS, place_of_address(stack, STARTS_MAX), stack ^ u64::from(number));
    let time_ns = start_ns.map(|start_ns| place::now_ns().wrapping_sub(start_ns));
    let thread = Thread::current(is_typed);
    let status = task::field::<u32>(thread.task, THREAD_STATUS.load(), is_typed).unwrap_or(0);
    if status & THREAD_IN_32_BIT_CALL != 0 {
        return;
    }
    let operation = Call::operation_of(call);
    let first = arch::syscall_argument(registers, is_typed).unwrap_or(u64::MAX) as u32;
    if Call::closes(call) {
        close(&thread, operation, first, registers);
        if operation == Operation::None as u8 {
            return;
        }
    }
    let kind = if Call::has_descriptor(call) { known::kind(&thread, first) } else { Descriptor::None };
    let error = if result < 0 { error_class(result) } else { ErrorClass::None as u8 };
    let bytes = if Call::returns_bytes(call) && result > 0 { result as u64 } else { 0 };
    let key = Key {
        cgroup_id: thread.cgroup_id(),
        detail: if IO_BY_PROCESS.load() == 1 { thread.tgid } else { 0 },
        measure: Measure::Syscall as u8,
        operation,
        label: kind as u8,
        error,
    };
    distribution::add_undisturbed(&key, weight, time_ns, bytes);
    if file::is_wanted(operation, kind) {
        let grown = file::Grown { operations: weight, bytes, time_ns: time_ns.unwrap_or(0) };
        file::count(&thread, key.cgroup_id, first, operation, &grown);
    }
    if let Some(time_ns) = time_ns
        && slow::is_slow(call, kind, time_ns)
    {
        let file = match Call::has_descriptor(call) {
            true => descriptor::file(&thread, first),
            false => None,
        };
        slow::send(context, &slow::Slow { call, kind, error, time_ns, result, file, registers });
    }
}

/// A descriptor was closed: by `close`, or because another one took its number (`dup2`, `dup3`), or many were.
#[inline(always)]
fn close(thread: &Thread, operation: u8, first: u32, registers: *const c_void) {
    if operation == Operation::Close as u8 {
        known::forget(thread, first);
    } else {
        match arch::syscall_arguments(registers, thread.is_typed) {
            Some([_, second, _]) if operation == Operation::None as u8 => {
                known::forget(thread, second as u32);
            }
            // These stay open until the next exec.
            Some([_, _, flags]) if flags & CLOSE_RANGE_CLOEXEC != 0 => {}
            _ => known::forget_all(thread.tgid),
        }
    }
}

/// When a call that goes on began, by the registers that it entered with.
#[inline(always)]
pub fn start_of_call(registers: *const c_void, number: u32, is_typed: bool) -> Option<u64> {
    let thread = stack_of(registers, is_typed);
    place::peek(&STARTS, place_of_address(thread, STARTS_MAX), thread ^ u64::from(number))
}

/// The class of a failed call's or operation's result.
#[inline(always)]
pub fn error_class(result: i64) -> u8 {
    ERRORS.get(result.wrapping_neg() as u32).map_or(ErrorClass::Other as u8, |&class| class as u8)
}

/// What a number means, packed; 0 for calls that do no I/O.
#[inline(always)]
pub fn call(number: u32) -> u32 {
    CALLS.get(number).copied().unwrap_or(0)
}

/// A thread in a system call: the registers stand at one place of its kernel stack, which nobody else has. Cheaper than to
/// ask who runs. Another number in the same place means that the start is that of another call.
#[inline(always)]
fn stack_of(registers: *const c_void, is_typed: bool) -> u64 {
    if is_typed { place::number_of(registers) } else { registers as u64 }
}
