//! The ends of a socket.
//!
//! Refuses: other families than IPv4 and IPv6.

use core::ffi::c_void;

use aya_ebpf::Global;
use collector_common::flow::Ends;
use collector_common::limits::OFFSET_UNKNOWN;

use crate::io::socket;
use crate::task;

/// `tcp_sock.snd_una`
#[unsafe(no_mangle)]
static TCP_SND_UNA: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.rcv_nxt`
#[unsafe(no_mangle)]
static TCP_RCV_NXT: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// The address family of a socket; 0 if it cannot be read.
#[inline(always)]
pub fn family(sock: *const c_void) -> u16 {
    task::read::<u16>(sock, socket::SOCK_FAMILY.load()).unwrap_or(0)
}

/// Protocol and local port of a socket: enough to see that it is another one than before; `None` for other families.
#[inline(always)]
pub fn identity(sock: *const c_void, family: u16) -> Option<(u16, u16)> {
    if family != socket::INET && family != socket::INET6 {
        return None;
    }
    let protocol = task::read::<u16>(sock, socket::SOCK_PROTOCOL.load())?;
    Some((protocol, task::read::<u16>(sock, socket::SOCK_NUM.load())?))
}

/// Whether a socket has a fixed peer.
#[inline(always)]
pub fn is_connected(sock: *const c_void) -> bool {
    task::read::<u16>(sock, socket::SOCK_DPORT.load()) != Some(0)
}

/// A number that both ends of a connection have: their ports, whichever is the local one.
#[inline(always)]
pub fn wire(sock: *const c_void) -> u32 {
    let local = u32::from(task::read::<u16>(sock, socket::SOCK_NUM.load()).unwrap_or(0));
    let remote = u32::from(u16::from_be(task::read::<u16>(sock, socket::SOCK_DPORT.load()).unwrap_or(0)));
    if local < remote { local << 16 | remote } else { remote << 16 | local }
}

/// The first sequence numbers of a TCP connection that is just established, of the client's direction in the upper half; 0 if
/// they are not known. Neither side has sent or received anything but its SYN yet.
#[inline(always)]
pub fn sequence(sock: *const c_void, is_client: bool) -> u64 {
    let sent = u64::from(task::read::<u32>(sock, TCP_SND_UNA.load()).unwrap_or(0));
    let received = u64::from(task::read::<u32>(sock, TCP_RCV_NXT.load()).unwrap_or(0));
    if is_client { sent << 32 | received } else { received << 32 | sent }
}

/// Copies them.
///
/// # Safety
///
/// `ends` must be writable.
#[inline(always)]
pub unsafe fn copy(sock: *const c_void, ends: *mut Ends) {
    // SAFETY: each is a field of the caller's value.
    unsafe {
        (&raw mut (*ends).family).write(0);
        (&raw mut (*ends).protocol).write(task::read::<u16>(sock, socket::SOCK_PROTOCOL.load()).unwrap_or(0));
        (&raw mut (*ends).ports).write([0; 2]);
        let addresses = (&raw mut (*ends).addresses).cast::<[u64; 2]>();
        addresses.write([0; 2]);
        addresses.add(1).write([0; 2]);
        socket::copy_ends(sock, &raw mut (*ends).family, &raw mut (*ends).ports, &raw mut (*ends).addresses);
    }
}
