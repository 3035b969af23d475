//! Where TCP connections stand until they close: at a place that the hash of their socket's address says, or in a hash map, if
//! another one has that place.
//!
//! A message finds its connection at a place without a call, and in one line of the processor's cache. Refuses: more
//! connections than there is room for (counted).

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use collector_common::flow::{ConnectionState as Connection, Role, StreamPlace};
use collector_common::limits::{CONNECTIONS_MAX, STREAM_PLACES_MAX, place_of_address};
use collector_common::loss::{KernelCounter, Signal};

use super::connection;
use crate::{atomic, emit};

#[map]
static STREAM_PLACES: Array<StreamPlace> = Array::with_max_entries(STREAM_PLACES_MAX, BPF_F_MMAPABLE);

#[map]
static CONNECTIONS: HashMap<u64, Connection> = HashMap::with_max_entries(CONNECTIONS_MAX, 0);

/// The connection of a socket's address.
#[inline(always)]
pub fn get(sock: u64) -> Option<*mut Connection> {
    at_place(sock).or_else(|| CONNECTIONS.get_ptr_mut(sock))
}

/// A new connection; the one that is there if another CPU was faster, `None` if there is no room.
#[inline(always)]
pub fn insert(sock: u64, role: Role) -> Option<*mut Connection> {
    let connection = insert_with_own_stack(sock, role as u32 as u64);
    (!connection.is_null()).then_some(connection)
}

/// A call, because the value is a fifth of a program's stack, and the verifier adds up what callers have.
#[inline(never)]
fn insert_with_own_stack(sock: u64, role: u64) -> *mut Connection {
    if let Some(place) = place(sock) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            if claim(place) {
                let connection = &raw mut (*place).connection;
                // The address comes last, so that nobody finds half of it (other processors than x86 may show it earlier).
                connection::fresh(connection, 0, role as u8);
                (&raw mut (*connection).sock).write_volatile(sock);
                return connection;
            }
        }
    }
    let mut connection = core::mem::MaybeUninit::<Connection>::uninit();
    // SAFETY: the value is on this program's stack, and `fresh` writes every field of it.
    unsafe {
        connection::fresh(connection.as_mut_ptr(), sock, role as u8);
        let connection = connection.assume_init();
        if CONNECTIONS.insert(sock, connection, u64::from(BPF_NOEXIST)).is_err()
            && CONNECTIONS.get_ptr(sock).is_none()
        {
            emit::count(Signal::Flow, KernelCounter::Seen);
            emit::count(Signal::Flow, KernelCounter::ConnectionsFull);
        }
    }
    // Who was faster may have the place.
    if let Some(connection) = at_place(sock) {
        let _absent = CONNECTIONS.remove(sock);
        return connection;
    }
    CONNECTIONS.get_ptr_mut(sock).unwrap_or(core::ptr::null_mut())
}

#[inline(always)]
fn place(sock: u64) -> Option<*mut StreamPlace> {
    STREAM_PLACES.get_ptr_mut(place_of_address(sock, STREAM_PLACES_MAX))
}

#[inline(always)]
fn at_place(sock: u64) -> Option<*mut Connection> {
    let place = place(sock)?;
    // SAFETY: the look-up gave a valid pointer to a value of the map.
    unsafe { ((*place).connection.sock == sock).then(|| &raw mut (*place).connection) }
}

/// Takes a free place. Who counts itself as the only one has it: two that try at once may both go without, as kernels before
/// 5.12 do not tell what was there before an addition.
///
/// # Safety
///
/// `place` must be a valid pointer to a value of the map.
#[inline(always)]
unsafe fn claim(place: *mut StreamPlace) -> bool {
    // SAFETY: given by the caller.
    unsafe {
        let claims = &raw mut (*place).claims;
        if claims.read_volatile() != 0 {
            return false;
        }
        atomic::add(claims, 1);
        if claims.read_volatile() == 1 {
            return true;
        }
        atomic::add(claims, u64::MAX);
        false
    }
}

/// Forgets a connection, wherever it stands.
#[inline(always)]
pub fn remove(sock: u64) {
    let connection = at_place(sock);
    if let Some(connection) = connection {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe { (&raw mut (*connection).sock).write_volatile(0) };
    }
    // Between the two, because the map's lock keeps their order, on which the next one at the place relies.
    let _absent = CONNECTIONS.remove(sock);
    if connection.is_some()
        && let Some(place) = place(sock)
    {
        // SAFETY: as above.
        unsafe { atomic::add(&raw mut (*place).claims, u64::MAX) };
    }
}
