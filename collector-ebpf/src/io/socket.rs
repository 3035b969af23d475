//! Sockets: their protocol, their addresses, and whose they are.
//!
//! Refuses: connections. What is said over a socket belongs to the flows.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use collector_common::io::{Descriptor, SlowRecord};
use collector_common::limits::OFFSET_UNKNOWN;

use super::descriptor::FilePointer;
use crate::task;

/// `file.private_data`
#[unsafe(no_mangle)]
static FILE_PRIVATE_DATA: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `socket.sk`
#[unsafe(no_mangle)]
static SOCKET_SK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock.sk_protocol`
#[unsafe(no_mangle)]
pub static SOCK_PROTOCOL: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_family`
#[unsafe(no_mangle)]
pub static SOCK_FAMILY: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_daddr`
#[unsafe(no_mangle)]
static SOCK_DADDR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_rcv_saddr`
#[unsafe(no_mangle)]
static SOCK_RCV_SADDR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_v6_daddr`
#[unsafe(no_mangle)]
static SOCK_V6_DADDR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_v6_rcv_saddr`
#[unsafe(no_mangle)]
static SOCK_V6_RCV_SADDR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_dport`
#[unsafe(no_mangle)]
pub static SOCK_DPORT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock_common.skc_num`
#[unsafe(no_mangle)]
pub static SOCK_NUM: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock.sk_cgrp_data` and in it `sock_cgroup_data.cgroup` (`.val` before 5.14, whose low bits are flags).
#[unsafe(no_mangle)]
static SOCK_CGROUP: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `sock_common.skc_state`
#[unsafe(no_mangle)]
pub static SOCK_STATE: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// States whose sockets are smaller structs without a cgroup (include/net/tcp_states.h): TIME_WAIT, NEW_SYN_RECV.
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

/// Address families and protocols (include/linux/socket.h, include/uapi/linux/in.h).
pub const UNIX: u16 = 1;
pub const INET: u16 = 2;
pub const INET6: u16 = 10;
const TCP: u16 = 6;
const UDP: u16 = 17;

/// Which kind of socket an open file is.
#[inline(always)]
pub fn kind(file: FilePointer) -> Descriptor {
    let Some(sock) = sock(file) else { return Descriptor::Socket };
    let family = task::read::<u16>(sock, SOCK_FAMILY.load()).unwrap_or(0);
    match family {
        UNIX => Descriptor::Unix,
        INET | INET6 => match task::read::<u16>(sock, SOCK_PROTOCOL.load()).unwrap_or(0) {
            TCP => Descriptor::Tcp,
            UDP => Descriptor::Udp,
            _ => Descriptor::Socket,
        },
        _ => Descriptor::Socket,
    }
}

/// Whether a socket is one of TCP: the state of other protocols is told by the same tracepoint.
#[inline(always)]
pub fn is_tcp(sock: *const c_void) -> bool {
    task::read::<u16>(sock, SOCK_PROTOCOL.load()) == Some(TCP)
}

/// The id of a socket's cgroup; 0 where it has none.
#[inline(always)]
pub fn cgroup_id(sock: *const c_void) -> u64 {
    if matches!(task::read::<u8>(sock, SOCK_STATE.load()), None | Some(TIME_WAIT | NEW_SYN_RECV)) {
        return 0;
    }
    task::read::<u64>(sock, SOCK_CGROUP.load())
        .filter(|cgroup| cgroup & 3 == 0 && *cgroup != 0)
        .and_then(|cgroup| task::cgroup_id(cgroup as *const c_void, false))
        .unwrap_or(0)
}

/// Copies the addresses of a socket's file.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
pub unsafe fn copy_addresses(file: FilePointer, record: *mut SlowRecord) {
    let Some(sock) = sock(file) else { return };
    // SAFETY: each is a field of the caller's record.
    unsafe {
        copy_ends(sock, &raw mut (*record).family, &raw mut (*record).ports, &raw mut (*record).addresses);
    }
}

/// Copies family, local and remote port, and local and remote address of an IPv4 or IPv6 socket; writes nothing for others. Of
/// the addresses only the bytes that the family has are written.
///
/// # Safety
///
/// All three must be writable.
#[inline(always)]
pub unsafe fn copy_ends(
    sock: *const c_void,
    family_to: *mut u16,
    ports_to: *mut [u16; 2],
    addresses_to: *mut [[u8; 16]; 2],
) {
    let family = task::read::<u16>(sock, SOCK_FAMILY.load()).unwrap_or(0);
    let (local_at, remote_at, bytes) = match family {
        INET => (SOCK_RCV_SADDR.load(), SOCK_DADDR.load(), 4),
        INET6 => (SOCK_V6_RCV_SADDR.load(), SOCK_V6_DADDR.load(), 16),
        _ => return,
    };
    let local_port = task::read::<u16>(sock, SOCK_NUM.load()).unwrap_or(0);
    let remote_port = task::read::<u16>(sock, SOCK_DPORT.load()).unwrap_or(0);
    // SAFETY: given by the caller; an address has at most 16 bytes. The helper checks the source.
    unsafe {
        family_to.write(family);
        ports_to.write([local_port, u16::from_be(remote_port)]);
        let addresses = addresses_to.cast::<[u8; 16]>();
        bpf_probe_read_kernel(addresses.cast(), bytes, sock.wrapping_byte_add(local_at as usize));
        bpf_probe_read_kernel(addresses.add(1).cast(), bytes, sock.wrapping_byte_add(remote_at as usize));
    }
}

/// The socket of an open file that is one.
#[inline(always)]
pub fn sock(file: FilePointer) -> Option<*const c_void> {
    let socket = task::read::<*const c_void>(file, FILE_PRIVATE_DATA.load())?;
    task::read::<*const c_void>(socket, SOCKET_SK.load()).filter(|sock| !sock.is_null())
}
