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
    if let Some(place) = STREAM_PLACES.get_ptr_mut(place_of_address(sock, STREAM_PLACES_MAX)) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            if (*place).connection.sock == sock {
                return Some(&raw mut (*place).connection);
            }
        }
    }
    CONNECTIONS.get_ptr_mut(sock)
}

/// A new connection; the one that is there if another CPU was faster, `None` if there is no room.
#[inline(always)]
pub fn insert(sock: u64, role: Role) -> Option<*mut Connection> {
    let connection = insert_with_own_stack(sock, role as u32 as u64);
    (!connection.is_null()).then_some(connection)
}

/// A call, because the value is a quarter of a program's stack, and the verifier adds up what callers have.
#[inline(never)]
fn insert_with_own_stack(sock: u64, role: u64) -> *mut Connection {
    let place = STREAM_PLACES.get_ptr_mut(place_of_address(sock, STREAM_PLACES_MAX));
    if let Some(place) = place {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            if claim(place) {
                let connection = &raw mut (*place).connection;
                // The address comes last, so that nobody finds half of it.
                connection::fresh(connection, 0, role as u16);
                (&raw mut (*connection).sock).write_volatile(sock);
                return connection;
            }
        }
    }
    let mut connection = core::mem::MaybeUninit::<Connection>::uninit();
    // SAFETY: the value is on this program's stack, and `fresh` writes every field of it.
    unsafe {
        connection::fresh(connection.as_mut_ptr(), sock, role as u16);
        let connection = connection.assume_init();
        if CONNECTIONS.insert(sock, connection, u64::from(BPF_NOEXIST)).is_err()
            && CONNECTIONS.get_ptr(sock).is_none()
        {
            emit::count(Signal::Flow, KernelCounter::Seen);
            emit::count(Signal::Flow, KernelCounter::ConnectionsFull);
        }
    }
    CONNECTIONS.get_ptr_mut(sock).unwrap_or(core::ptr::null_mut())
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

/// Forgets a connection. It may stand at both: two CPUs can have met it at once.
#[inline(always)]
pub fn remove(sock: u64) {
    if let Some(place) = STREAM_PLACES.get_ptr_mut(place_of_address(sock, STREAM_PLACES_MAX)) {
        // SAFETY: the look-up gave a valid pointer to a value of the map.
        unsafe {
            if (*place).connection.sock == sock {
                (&raw mut (*place).connection.sock).write_volatile(0);
                atomic::add(&raw mut (*place).claims, u64::MAX);
            }
        }
    }
    let _absent = CONNECTIONS.remove(sock);
}
