//! How the system's clock is held to the true time, by adjtimex(2), which needs no privilege to read.
//!
//! Refuses: to set anything.

use std::io;
use std::mem::MaybeUninit;

/// The clock's state (`TIME_OK` and so on, `include/uapi/linux/timex.h`) and its numbers. Fails where a filter of system calls
/// forbids the question.
pub fn clock_discipline() -> io::Result<(i32, libc::timex)> {
    let mut numbers = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the call gets a whole structure; zeroes are valid for it, and its mode 0 sets nothing.
    let state = unsafe { libc::adjtimex(numbers.as_mut_ptr()) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of it was zeroed, and each field is an integer.
    Ok((state, unsafe { numbers.assume_init() }))
}
