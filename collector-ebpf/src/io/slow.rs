//! Slow operations: a record each, with path or peer and the stack that asked for it.
//!
//! Refuses: operations that wait for others by nature: polls, accepts, reads of pipes and sockets.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_user_str};
use aya_ebpf::{EbpfContext, Global};
use collector_common::event::Kind;
use collector_common::io::{Call, Descriptor, Operation, SlowRecord};
use collector_common::limits::{PATH_NAME_BYTES, PATH_NAMES_MAX, SLOW_FRAMES_MAX};

use super::descriptor::{self, FilePointer};
use super::socket;
use crate::{arch, emit, path, task};

/// From which time on an operation is slow, nanoseconds; 0 for never.
#[unsafe(no_mangle)]
static SLOW_NS: Global<u64> = Global::new(0);

/// A slow operation.
pub struct Slow {
    /// The packed [`Call`].
    pub call: u32,
    /// What its descriptor is.
    pub kind: Descriptor,
    /// How it failed.
    pub error: u8,
    /// How long it took.
    pub time_ns: u64,
    /// What it returned.
    pub result: i64,
    /// The open file, if it is about one.
    pub file: Option<FilePointer>,
    /// The registers at its return.
    pub registers: *const c_void,
}

/// Whether an operation is worth a record.
#[inline(always)]
pub fn is_slow(call: u32, kind: Descriptor, time_ns: u64) -> bool {
    let threshold_ns = SLOW_NS.load();
    if threshold_ns == 0 || time_ns < threshold_ns || Call::waits(call) {
        return false;
    }
    let is_connect = Call::operation_of(call) == Operation::Connect as u8;
    is_connect
        || matches!(kind, Descriptor::None | Descriptor::Regular | Descriptor::Directory | Descriptor::Block)
}

/// Sends the record.
#[inline(always)]
pub fn send(context: &impl EbpfContext, slow: &Slow) {
    emit::slow_in_place(|record: *mut SlowRecord| {
        // SAFETY: the ring gave room for one record; each write is to a field of it.
        unsafe {
            (&raw mut (*record).head).write(task::head(Kind::SlowOperation, size_of::<SlowRecord>() as u32));
            (&raw mut (*record).task).write(task::current());
            (&raw mut (*record).time_ns).write(slow.time_ns);
            (&raw mut (*record).result).write(slow.result);
            (&raw mut (*record).addresses).write([[0; 16]; 2]);
            (&raw mut (*record).ports).write([0; 2]);
            (&raw mut (*record).family).write(0);
            (&raw mut (*record).operation).write(Call::operation_of(slow.call));
            (&raw mut (*record).descriptor).write(slow.kind as u8);
            (&raw mut (*record).error).write(slow.error);
            let stack = (&raw mut (*record).stack).cast::<c_void>();
            let bytes = bpf_get_stack(
                context.as_ptr(),
                stack,
                (SLOW_FRAMES_MAX * 8) as u32,
                u64::from(BPF_F_USER_STACK),
            );
            (&raw mut (*record).frames).write(if bytes > 0 { bytes as u16 / 8 } else { 0 });
            (&raw mut (*record).path_names).write_volatile(0);
            (&raw mut (*record).path_kind).write(0);
            match slow.file {
                Some(file) if slow.kind as u8 >= Descriptor::Tcp as u8 => {
                    socket::copy_addresses(file, record);
                }
                Some(file) => copy_path(file, record),
                None => copy_argument(slow, record),
            }
        }
    });
}

/// The path of an open file.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
unsafe fn copy_path(file: FilePointer, record: *mut SlowRecord) {
    let Some(place) = path::place(file, descriptor::FILE_F_PATH.load()) else { return };
    // SAFETY: given by the caller.
    unsafe {
        let names = &raw mut (*record).path;
        let is_whole = path::copy(place, None, names, &raw mut (*record).path_names).unwrap_or(false);
        (&raw mut (*record).path_kind).write(u8::from(is_whole));
    }
}

/// The path that the program gave.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
unsafe fn copy_argument(slow: &Slow, record: *mut SlowRecord) {
    let Some(arguments) = arch::syscall_arguments(slow.registers, false) else { return };
    let address = match Call::path_argument(slow.call) {
        1 => arguments[0],
        2 => arguments[1],
        _ => return,
    };
    // SAFETY: the destination is as large as said; the helper checks the source and ends the text with a zero.
    unsafe {
        let bytes = bpf_probe_read_user_str(
            (&raw mut (*record).path).cast(),
            (PATH_NAMES_MAX * PATH_NAME_BYTES) as u32,
            address as *const c_void,
        );
        if bytes > 0 {
            (&raw mut (*record).path_names).write(1);
            (&raw mut (*record).path_kind).write(2);
        }
    }
}
