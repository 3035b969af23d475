//! Copies the first bytes of a message from the caller's buffers into its record.
//!
//! The bytes were moved a moment ago, so their pages are there. A buffer that cannot be read gives a message without bytes:
//! the daemon learns of the gap. Refuses: calls whose buffers are not in its arguments (sendfile, io_uring).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use collector_common::event::Kind;
use collector_common::flow::{MessageHead, Way};
use collector_common::limits::{CAPTURE_PARTS_MAX, CAPTURE_ROOMS};

use super::connection::Message;
use super::time;
use crate::arch::{self, Buffers};
use crate::vector::{Part, part};
use crate::{emit, task};

/// `struct user_msghdr`: where its vector and the number of parts stand; and the size of `struct mmsghdr` (include/linux/socket.h).
const MESSAGE_VECTOR: u64 = 16;
const MULTIPLE_BYTES: u64 = 64;

/// Messages of one call of `sendmmsg` that are told apart.
const MULTIPLE_MAX: u32 = 15;

/// Where the bytes of a call are: parts of a vector, or one buffer.
pub struct Source {
    /// Address of the buffer, or of the vector.
    address: u64,
    /// Parts of the vector; 0 for one buffer.
    parts: u64,
    /// Whether there is anything to read.
    is_known: bool,
}

/// Who moved the bytes.
pub struct Caller {
    /// Its process.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// When its call began; 0 if that is not known.
    pub begun_ns: u64,
}

/// A record with room for so many bytes.
#[repr(C)]
struct Record<const ROOM: usize> {
    head: MessageHead,
    bytes: [u8; ROOM],
}

impl Source {
    /// Where the running call keeps its bytes.
    #[inline(always)]
    pub fn of(registers: *const c_void, is_typed: bool, number_in_call: u32) -> Self {
        let unknown = Self { address: 0, parts: 0, is_known: false };
        let Some(number) = arch::syscall_number(registers, is_typed) else { return unknown };
        let Some(transfer) = arch::transfer_call(number) else { return unknown };
        let Some([_, second, third]) = arch::syscall_arguments(registers, is_typed) else { return unknown };
        match transfer.buffers {
            Buffers::One => Self { address: second, parts: 0, is_known: true },
            Buffers::Vector => Self { address: second, parts: third, is_known: true },
            Buffers::Message => Self::of_message(second),
            Buffers::Messages => Self::of_message(message_in_call(second, number_in_call)),
            Buffers::None => unknown,
        }
    }

    #[inline(always)]
    fn of_message(message: u64) -> Self {
        match part(message.wrapping_add(MESSAGE_VECTOR)) {
            Some(Part { base, bytes }) => Self { address: base, parts: bytes, is_known: true },
            None => Self { address: 0, parts: 0, is_known: false },
        }
    }
}

/// The `msghdr` of one of the messages of a call.
#[inline(always)]
pub fn message_in_call(messages: u64, number_in_call: u32) -> u64 {
    messages.wrapping_add(u64::from(number_in_call & MULTIPLE_MAX) * MULTIPLE_BYTES)
}

/// Sends the message's record, with as many bytes as are wanted.
#[inline(always)]
pub fn send(message: &Message, way: Way, source: &Source, caller: &Caller) {
    let room = if source.parts == 0 { message.wanted_bytes } else { message.wanted_bytes.wrapping_mul(2) };
    let room = room as usize;
    if room <= CAPTURE_ROOMS[0] {
        send_in::<{ CAPTURE_ROOMS[0] }>(message, way, source, caller);
    } else if room <= CAPTURE_ROOMS[1] {
        send_in::<{ CAPTURE_ROOMS[1] }>(message, way, source, caller);
    } else if room <= CAPTURE_ROOMS[2] {
        send_in::<{ CAPTURE_ROOMS[2] }>(message, way, source, caller);
    } else {
        send_in::<{ CAPTURE_ROOMS[3] }>(message, way, source, caller);
    }
}

#[inline(always)]
fn send_in<const ROOM: usize>(message: &Message, way: Way, source: &Source, caller: &Caller) {
    emit::message_in_place(|record: *mut Record<ROOM>| {
        let head = task::head(Kind::Message, size_of::<Record<ROOM>>() as u32);
        let (times, polls) = time::of_current(caller.tid, head.time_ns);
        // SAFETY: the ring gave room for one record.
        unsafe {
            let bytes = (&raw mut (*record).bytes).cast::<u8>();
            let captured = copy::<ROOM>(bytes, message.wanted_bytes, source);
            (&raw mut (*record).head).write(MessageHead {
                head,
                connection: message.connection,
                position: message.position,
                length: message.length,
                captured,
                tgid: caller.tgid,
                tid: caller.tid,
                number: message.number,
                turns: message.turns,
                way: way as u16,
                is_after_skip: message.is_after_skip as u16,
                polls,
                begun_ns: caller.begun_ns,
                times,
            });
        }
    });
}

/// Copies what is wanted and returns how much that was. Of a vector at most half of the room, see [`copy_part`].
///
/// # Safety
///
/// `bytes` must be writable for `ROOM` bytes.
#[inline(always)]
unsafe fn copy<const ROOM: usize>(bytes: *mut u8, wanted: u32, source: &Source) -> u32 {
    if !source.is_known {
        return 0;
    }
    if source.parts == 0 {
        // SAFETY: given by the caller.
        return unsafe { copy_part::<ROOM>(bytes, 0, source.address, u64::from(wanted)) };
    }
    let mut captured = 0u32;
    for index in 0..CAPTURE_PARTS_MAX as u64 {
        let left = wanted.wrapping_sub(captured);
        if index >= source.parts || left == 0 || left > wanted || captured > ROOM as u32 / 2 {
            break;
        }
        let Some(part) = part(source.address.wrapping_add(index * size_of::<Part>() as u64)) else { break };
        let length = if part.bytes < u64::from(left) { part.bytes } else { u64::from(left) };
        // SAFETY: given by the caller.
        let copied = unsafe { copy_part::<ROOM>(bytes, captured, part.base, length) };
        captured = captured.wrapping_add(copied);
        if u64::from(copied) != length {
            break;
        }
    }
    captured
}

/// Copies one part behind what is there already.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
unsafe fn copy_part<const ROOM: usize>(bytes: *mut u8, at: u32, source: u64, length: u64) -> u32 {
    let mut at = u64::from(at);
    let mut length = length;
    if length == 0 {
        return 0;
    }
    // SAFETY: comments as assembly: the verifier must see the bounds, which are constants, on these very registers, and the
    // compiler must not make one comparison of two. It adds the largest offset to the largest length, so that behind the
    // first part each has half of the room, which is twice what is wanted of a vector. What begins at `at` ends within the
    // room given by the caller; the helper checks the source.
    unsafe {
        core::arch::asm!("/* {0} {1} */", inout(reg) at, inout(reg) length);
        if at == 0 {
            return if length > ROOM as u64 { 0 } else { read(bytes, length, source) };
        }
        if length > ROOM as u64 / 2 {
            return 0;
        }
        core::arch::asm!("/* {0} {1} */", inout(reg) at, inout(reg) length);
        if at > ROOM as u64 / 2 { 0 } else { read(bytes.add(at as usize), length, source) }
    }
}

/// # Safety
///
/// `target` must be writable for `length` bytes.
#[inline(always)]
unsafe fn read(target: *mut u8, mut length: u64, source: u64) -> u32 {
    // SAFETY: a comment as assembly: the number of bytes is cut out of the register that was compared, not out of a copy that
    // the compiler made before. The target is given by the caller; the helper checks the source.
    let result = unsafe {
        core::arch::asm!("/* {0} */", inout(reg) length);
        bpf_probe_read_user(target.cast(), length as u32, source as *const c_void)
    };
    if result == 0 { length as u32 } else { 0 }
}
