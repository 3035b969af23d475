//! Vectors of buffers in a program's memory (`struct iovec`).
//!
//! Refuses: to wait for a page that is not there.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// `struct iovec`
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Part {
    /// Address of the buffer.
    pub base: u64,
    /// Its size.
    pub bytes: u64,
}

/// Reads a part; `None` if it cannot be read.
#[inline(always)]
pub fn part(address: u64) -> Option<Part> {
    let mut part = Part { base: 0, bytes: 0 };
    // SAFETY: `part` is writable for its size; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_user((&raw mut part).cast(), size_of::<Part>() as u32, address as *const c_void)
    };
    (result == 0).then_some(part)
}
