//! What TCP itself counts of a connection, read at its end.
//!
//! Refuses: connections that go on.

use core::ffi::c_void;

use aya_ebpf::Global;
use collector_common::flow::CloseRecord;
use collector_common::limits::OFFSET_UNKNOWN;

use crate::io::tcp::{SOCK_ERR, TCP_BYTES_RECEIVED, TCP_BYTES_RETRANS, TCP_BYTES_SENT};
use crate::task;

/// `tcp_sock.segs_out`
#[unsafe(no_mangle)]
static TCP_SEGS_OUT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.segs_in`
#[unsafe(no_mangle)]
static TCP_SEGS_IN: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.total_retrans`
#[unsafe(no_mangle)]
static TCP_TOTAL_RETRANS: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// Copies bytes, segments and the error of a socket.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
pub unsafe fn copy_counts(sock: *const c_void, record: *mut CloseRecord) {
    let long = |offset: u32| task::read::<u64>(sock, offset).unwrap_or(0);
    let short = |offset: u32| task::read::<u32>(sock, offset).unwrap_or(0);
    // SAFETY: each is a field of the caller's record.
    unsafe {
        let sent = long(TCP_BYTES_SENT.load()).wrapping_sub(long(TCP_BYTES_RETRANS.load()));
        (&raw mut (*record).bytes).write([sent, long(TCP_BYTES_RECEIVED.load())]);
        (&raw mut (*record).segments).write([short(TCP_SEGS_OUT.load()), short(TCP_SEGS_IN.load())]);
        (&raw mut (*record).retransmits).write(short(TCP_TOTAL_RETRANS.load()));
        (&raw mut (*record).error).write(short(SOCK_ERR.load()));
    }
}
