//! Unix sockets of streams: found by their address and inode, named by the path where the server listens.
//!
//! They tell no end, so their places are taken over. Both ends have the inode of the client's socket, through which the kernel
//! joins them. Refuses: pairs of sockets (nobody listens), clients with a path of their own, and other types.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::event::Kind;
use collector_common::flow::{ConnectionState as Connection, Role, Transport, UnixOpenRecord};
use collector_common::limits::{OFFSET_UNKNOWN, UNIX_PATH_BYTES, UNIX_SOCKETS_MAX, place_of_address};

use super::connection;
use crate::{emit, task};

/// `sock.sk_type`
#[unsafe(no_mangle)]
static SOCK_TYPE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `sock.sk_socket`
#[unsafe(no_mangle)]
static SOCK_SOCKET: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// From a `socket` to `i_ino` of the inode that is allocated with it (`socket_alloc`, include/net/sock.h).
#[unsafe(no_mangle)]
static SOCKET_INODE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `unix_sock.peer`
#[unsafe(no_mangle)]
static UNIX_PEER: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `unix_sock.addr`
#[unsafe(no_mangle)]
static UNIX_ADDR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `unix_address.len`
#[unsafe(no_mangle)]
static UNIX_ADDRESS_LEN: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `unix_address.name`
#[unsafe(no_mangle)]
static UNIX_ADDRESS_NAME: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// `SOCK_STREAM` (include/linux/net.h)
const STREAM: u16 = 1;

/// Bytes of the family, which the path comes behind (`struct sockaddr_un`).
const FAMILY_BYTES: u32 = 2;

/// A number that no inode has, for an end whose other end cannot be told.
const ALONE: u64 = 1 << 63;

#[map]
static UNIX_SOCKETS: Array<Connection> = Array::with_max_entries(UNIX_SOCKETS_MAX, 0);

/// The connection of a Unix socket; `None` for those that are not followed.
#[inline(always)]
pub fn of(sock: *const c_void) -> Option<*mut Connection> {
    let key = sock as u64;
    let inode = inode(sock)?;
    let connection = UNIX_SOCKETS.get_ptr_mut(place_of_address(key, UNIX_SOCKETS_MAX))?;
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe {
        if (*connection).sock != key || (*connection).port != inode {
            begin(connection, sock, inode);
        }
        if (*connection).role == Role::Unknown as u8 {
            return None;
        }
        connection::use_again(connection);
    }
    Some(connection)
}

/// # Safety
///
/// `connection` must be a valid pointer to a value of a map.
#[inline(always)]
unsafe fn begin(connection: *mut Connection, sock: *const c_void, inode: u32) {
    let role = role(sock);
    // SAFETY: given by the caller.
    unsafe {
        connection::fresh(connection, sock as u64, role as u8);
        (&raw mut (*connection).transport).write(Transport::Unix as u8);
        (&raw mut (*connection).port).write(inode);
        let of_client = if role as u32 == Role::Client as u32 {
            inode
        } else {
            // It may have closed its end already.
            peer(sock).and_then(self::inode).unwrap_or(0)
        };
        let number = if of_client == 0 { ALONE | (*connection).number } else { of_client.into() };
        (&raw mut (*connection).sequence).write(number);
    }
}

/// Tells of a connection, and who uses it; whether there was room.
///
/// # Safety
///
/// `connection` must be a valid pointer to a value of a map.
#[inline(always)]
pub unsafe fn tell(connection: *mut Connection, sock: *const c_void) -> bool {
    emit::flow_in_place(|record: *mut UnixOpenRecord| {
        // SAFETY: given by the caller; the record's room is that of one record.
        unsafe {
            let open = (&raw mut (*record).open).cast();
            connection::fill_open(open, connection, sock);
            (&raw mut (*open).head).write(task::head(Kind::UnixOpen, size_of::<UnixOpenRecord>() as u32));
            (&raw mut (*open).task).write(task::current());
            let is_client = (*connection).role == Role::Client as u8;
            let listener = if is_client { peer(sock) } else { Some(sock) };
            let address = listener.and_then(address);
            let path = (&raw mut (*record).path).cast::<u8>();
            let bytes = address.map_or(0, |address| copy_path(address, path));
            (&raw mut (*record).path_bytes).write(bytes);
        }
    })
}

/// Whose end it is: the one that was accepted has the listener's address, the other one has none.
#[inline(always)]
fn role(sock: *const c_void) -> Role {
    if task::read::<u16>(sock, SOCK_TYPE.load()) != Some(STREAM) {
        return Role::Unknown;
    }
    let own = address(sock).is_some();
    let others = peer(sock).and_then(address).is_some();
    match (own, others) {
        (true, false) => Role::Server,
        (false, true) => Role::Client,
        _ => Role::Unknown,
    }
}

#[inline(always)]
fn peer(sock: *const c_void) -> Option<*const c_void> {
    task::read::<*const c_void>(sock, UNIX_PEER.load()).filter(|peer| !peer.is_null())
}

#[inline(always)]
fn address(sock: *const c_void) -> Option<*const c_void> {
    task::read::<*const c_void>(sock, UNIX_ADDR.load()).filter(|address| !address.is_null())
}

/// The number of a socket's inode; `None` for one that is not accepted yet, or closed.
#[inline(always)]
fn inode(sock: *const c_void) -> Option<u32> {
    let socket = task::read::<*const c_void>(sock, SOCK_SOCKET.load()).filter(|socket| !socket.is_null())?;
    task::read::<u64>(socket, SOCKET_INODE.load()).map(|inode| inode as u32).filter(|inode| *inode != 0)
}

/// Copies a path and returns its bytes.
///
/// # Safety
///
/// `path` must be writable for `UNIX_PATH_BYTES`.
#[inline(always)]
unsafe fn copy_path(address: *const c_void, path: *mut u8) -> u32 {
    let length = task::read::<u32>(address, UNIX_ADDRESS_LEN.load()).unwrap_or(0);
    let name = UNIX_ADDRESS_NAME.load();
    if length <= FAMILY_BYTES || name == OFFSET_UNKNOWN {
        return 0;
    }
    let mut bytes = u64::from(length - FAMILY_BYTES);
    // SAFETY: a comment as assembly: the verifier must see the bound on this very register. The destination is given by the
    // caller; the helper checks the source.
    unsafe {
        core::arch::asm!("/* {0} */", inout(reg) bytes);
        if bytes > UNIX_PATH_BYTES as u64 {
            bytes = UNIX_PATH_BYTES as u64;
        }
        let source = address.wrapping_byte_add((name + FAMILY_BYTES) as usize);
        if bpf_probe_read_kernel(path.cast(), bytes as u32, source) == 0 { bytes as u32 } else { 0 }
    }
}
