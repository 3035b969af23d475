//! The last bytes that each process wrote to descriptor 2, in a ring per process.
//!
//! It looks at the return of every system call of the node: all but `write` and `writev` leave after one comparison,
//! all other descriptors after two. At the return, because by then the kernel has read the bytes: a text that nobody has
//! touched yet has no page when the call begins. The bytes stay in the kernel; the daemon fetches them for a process that
//! died. Refuses: descriptors that were duplicated from 2, and `sendmsg`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::crash::StderrTail;
use collector_common::limits::{
    STDERR_BYTES, STDERR_PARTS_MAX, STDERR_PROCESSES_MAX, STDERR_WRITE_BYTES_MAX, place_of,
};

use crate::arch::{self, Write};
use crate::task;
use crate::vector::{self, Part};

/// Standard error.
const DESCRIPTOR: u64 = 2;

#[map]
static STDERR: Array<StderrTail> = Array::with_max_entries(STDERR_PROCESSES_MAX, 0);

/// The running thread returns from a system call.
#[inline(always)]
pub fn on_return(number: u32, registers: *const c_void, result: i64, is_typed: bool) {
    if result <= 0 {
        return;
    }
    let Some(write) = arch::write_call(number) else { return };
    // The rest of the arguments costs more to read.
    if arch::syscall_argument(registers, is_typed) != Some(DESCRIPTOR) {
        return;
    }
    if let Some([_, buffer, length]) = arch::syscall_arguments(registers, is_typed) {
        keep(write, buffer, length, result as u64);
    }
}

/// Forgets what the running process wrote.
#[inline(always)]
pub fn forget() {
    let (tgid, _) = task::current_ids();
    if let Some(tail) = STDERR.get_ptr_mut(place_of(tgid, STDERR_PROCESSES_MAX)) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            if (*tail).tgid == tgid {
                (&raw mut (*tail).kept_bytes).write(0);
                (&raw mut (*tail).total_bytes).write(0);
            }
        }
    }
}

/// Keeps what was written: of a vector the parts up to what the call returned.
#[inline(always)]
fn keep(write: Write, buffer: u64, length: u64, written: u64) {
    let Some((tail, owner)) = tail_of_current() else { return };
    match write {
        Write::Plain => append(tail, Part { base: buffer, bytes: length.min(written) }),
        Write::Vector => {
            let mut left = written;
            for index in 0..STDERR_PARTS_MAX as u64 {
                if index >= length || left == 0 {
                    break;
                }
                let Some(part) = vector::part(buffer.wrapping_add(index * size_of::<Part>() as u64)) else {
                    break;
                };
                let bytes = part.bytes.min(left);
                left -= bytes;
                append(tail, Part { base: part.base, bytes });
            }
            if left > 0 {
                gap(tail, left);
            }
        }
    }
    // SAFETY: the pointer is to a value of the map. Who took the place meanwhile must not find our bytes in it.
    unsafe {
        if (*tail).start_ns != owner {
            (&raw mut (*tail).kept_bytes).write(0);
        }
    }
}

/// The place of the running process, taken over from another one if need be, and the start that owns it.
#[inline(always)]
fn tail_of_current() -> Option<(*mut StderrTail, u64)> {
    let (tgid, _) = task::current_ids();
    let start_ns = task::process_start_ns(task::current_pointer());
    let tail = STDERR.get_ptr_mut(place_of(tgid, STDERR_PROCESSES_MAX))?;
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        if (*tail).start_ns != start_ns || (*tail).tgid != tgid {
            (&raw mut (*tail).start_ns).write(start_ns);
            (&raw mut (*tail).tgid).write(tgid);
            (&raw mut (*tail).kept_bytes).write(0);
            (&raw mut (*tail).total_bytes).write(0);
        }
    }
    Some((tail, start_ns))
}

/// Counts bytes that are not kept. What was kept before them does not join what comes after.
#[inline(always)]
fn gap(tail: *mut StderrTail, bytes: u64) {
    // SAFETY: the pointer is to a value of the map.
    unsafe {
        let total = (*tail).total_bytes;
        (&raw mut (*tail).total_bytes).write(total.wrapping_add(bytes));
        (&raw mut (*tail).kept_bytes).write(0);
    }
}

/// Appends a write, of a long one its end. Two threads that write at once may mix their bytes, as they may on a terminal.
#[inline(always)]
fn append(tail: *mut StderrTail, part: Part) {
    let skipped = part.bytes.saturating_sub(STDERR_WRITE_BYTES_MAX as u64);
    if skipped > 0 {
        gap(tail, skipped);
    }
    let source = part.base.wrapping_add(skipped);
    let mut bytes = part.bytes - skipped;
    // SAFETY: a comment as assembly: the verifier must see the bound below on this very register.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) bytes) };
    if bytes == 0 || bytes > STDERR_WRITE_BYTES_MAX as u64 {
        return;
    }
    // SAFETY: `at` is below `STDERR_BYTES`, and the buffer has room for a whole write behind that. What passes the
    // ring's end is at most a whole write, and is read again to the start. The helper checks the source.
    unsafe {
        let kept = (*tail).kept_bytes;
        let at = (kept as usize) & (STDERR_BYTES - 1);
        let data = (&raw mut (*tail).data).cast::<u8>();
        if bpf_probe_read_user(data.add(at).cast(), bytes as u32, source as *const c_void) != 0 {
            return gap(tail, bytes);
        }
        let room = (STDERR_BYTES - at) as u64;
        if bytes > room {
            let mut rest = bytes - room;
            core::arch::asm!("/* {0} */", inout(reg) rest);
            if rest <= STDERR_WRITE_BYTES_MAX as u64 {
                bpf_probe_read_user(data.cast(), rest as u32, source.wrapping_add(room) as *const c_void);
            }
        }
        let total = (*tail).total_bytes;
        (&raw mut (*tail).total_bytes).write(total.wrapping_add(bytes));
        (&raw mut (*tail).kept_bytes).write(kept.wrapping_add(bytes));
    }
}
