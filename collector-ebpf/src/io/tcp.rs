//! TCP by cgroup: how connections are opened and end, what was sent again, round trips.
//!
//! Refuses: single connections; those belong to the flows.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use collector_common::io::{ErrorClass, Key, Measure, TcpEvent};
use collector_common::limits::{OFFSET_UNKNOWN, REQUESTS_MAX, place_of_address};

use super::place::{self, Start};
use super::{distribution, socket, syscall};
use crate::task;

/// `sock.sk_err`
#[unsafe(no_mangle)]
pub static SOCK_ERR: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.srtt_us`, in eighths of a microsecond
#[unsafe(no_mangle)]
static TCP_SRTT_US: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.bytes_sent`, those that were sent again included
#[unsafe(no_mangle)]
pub static TCP_BYTES_SENT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.bytes_retrans`
#[unsafe(no_mangle)]
pub static TCP_BYTES_RETRANS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `tcp_sock.bytes_received`
#[unsafe(no_mangle)]
pub static TCP_BYTES_RECEIVED: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// States (include/net/tcp_states.h).
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;

#[map]
static CONNECTS: Array<Start> = Array::with_max_entries(REQUESTS_MAX, 0);

/// A connection goes from one state to another.
#[inline(always)]
pub fn on_state(sock: *const c_void, old: i32, new: i32) -> i32 {
    if !socket::is_tcp(sock) {
        return 0;
    }
    let place = place_of_address(sock as u64, REQUESTS_MAX);
    match (old, new) {
        (_, SYN_SENT) => place::begin(&CONNECTS, place, sock as u64),
        (SYN_SENT, ESTABLISHED) => opened(sock, place, ErrorClass::None as u8),
        (SYN_SENT, CLOSE) => {
            let error = task::read::<i32>(sock, SOCK_ERR.load()).unwrap_or(0);
            // Closed by its own program before an answer came, or it had no local port.
            let error =
                if error == 0 { ErrorClass::Other as u8 } else { syscall::error_class(-i64::from(error)) };
            opened(sock, place, error);
        }
        (SYN_RECV, ESTABLISHED) => count(sock, TcpEvent::Accepted, 0),
        (ESTABLISHED, _) => ended(sock),
        _ => {}
    }
    if new == CLOSE && old != SYN_SENT {
        let again = task::read::<u64>(sock, TCP_BYTES_RETRANS.load()).unwrap_or(0);
        let sent = task::read::<u64>(sock, TCP_BYTES_SENT.load()).unwrap_or(0).wrapping_sub(again);
        let received = task::read::<u64>(sock, TCP_BYTES_RECEIVED.load()).unwrap_or(0);
        if sent | received != 0 {
            count(sock, TcpEvent::BytesSent, sent);
            count(sock, TcpEvent::BytesReceived, received);
        }
    }
    0
}

/// Something happened to a connection; the socket is null where a reset is sent without one.
#[inline(always)]
pub fn on_event(sock: *const c_void, event: TcpEvent) -> i32 {
    count(sock, event, 0);
    0
}

#[inline(always)]
fn opened(sock: *const c_void, place: u32, error: u8) {
    let start_ns = place::end(&CONNECTS, place, sock as u64);
    let time_ns = start_ns.map(|start_ns| place::now_ns().wrapping_sub(start_ns));
    distribution::add(&Key { error, ..key(sock, Measure::TcpConnect, 0) }, time_ns, 0);
}

#[inline(always)]
fn ended(sock: *const c_void) {
    let eighths_us = task::read::<u32>(sock, TCP_SRTT_US.load()).unwrap_or(0);
    if eighths_us != 0 {
        distribution::add(&key(sock, Measure::TcpRoundTrip, 0), Some(u64::from(eighths_us) * 125), 0);
    }
}

#[inline(always)]
fn count(sock: *const c_void, event: TcpEvent, bytes: u64) {
    distribution::add(&key(sock, Measure::TcpEvent, event as u8), None, bytes);
}

#[inline(always)]
fn key(sock: *const c_void, measure: Measure, label: u8) -> Key {
    let cgroup_id = socket::cgroup_id(sock);
    Key { cgroup_id, detail: 0, measure: measure as u8, operation: 0, label, error: 0 }
}
