//! Whom datagrams go to that are sent over a socket without a fixed peer: what a UDP server answers to.
//!
//! Where it came from, the kernel tells the program only after it has told us of what was received. Refuses: other families than
//! IPv4 and IPv6.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use collector_common::event::Kind;
use collector_common::flow::AddresseeRecord;

use super::capture;
use super::connection::Message;
use crate::arch::{self, Buffers};
use crate::io::socket;
use crate::{emit, task};

/// `struct sockaddr_in` and `sockaddr_in6` up to the address (include/uapi/linux/in.h, in6.h).
#[derive(Clone, Copy)]
#[repr(C)]
struct SocketAddress {
    family: u16,
    port: u16,
    /// The IPv4 address; of IPv6 the flow, which the address comes behind.
    first: [u8; 4],
    rest: [u8; 16],
}

/// Bytes of the smaller of the two.
const INET_BYTES: u32 = 16;

/// Tells of the message that comes next.
#[inline(always)]
pub fn tell(message: &Message, registers: *const c_void, is_typed: bool) {
    let Some(address) = address(message, registers, is_typed) else { return };
    let _counted = emit::flow_in_place(|record: *mut AddresseeRecord| {
        let is_inet = address.family == socket::INET;
        let mut bytes = address.rest;
        if is_inet {
            let [a, b, c, d] = address.first;
            bytes = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        }
        // SAFETY: the ring gave room for one record.
        unsafe {
            record.write(AddresseeRecord {
                head: task::head(Kind::Addressee, size_of::<AddresseeRecord>() as u32),
                connection: message.connection,
                address: bytes,
                number: message.number,
                port: u16::from_be(address.port),
                family: address.family,
            });
        }
    });
}

#[inline(always)]
fn address(message: &Message, registers: *const c_void, is_typed: bool) -> Option<SocketAddress> {
    let number = arch::syscall_number(registers, is_typed)?;
    let [_, second, _] = arch::syscall_arguments(registers, is_typed)?;
    let at = match arch::transfer_call(number)?.buffers {
        Buffers::One => arch::syscall_fifth_argument(registers, is_typed)?,
        Buffers::Message => user::<u64>(second)?,
        Buffers::Messages => user::<u64>(capture::message_in_call(second, message.number_in_call))?,
        Buffers::Vector | Buffers::None => return None,
    };
    if at == 0 {
        return None;
    }
    let mut address = SocketAddress { family: 0, port: 0, first: [0; 4], rest: [0; 16] };
    // SAFETY: the destination has room for both; the helper checks the source. The smaller one is read where the larger one
    // goes beyond what the program has.
    unsafe {
        let target = (&raw mut address).cast::<c_void>();
        let source = at as *const c_void;
        if bpf_probe_read_user(target, size_of::<SocketAddress>() as u32, source) != 0 {
            bpf_probe_read_user(target, INET_BYTES, source);
        }
    }
    (address.family == socket::INET || address.family == socket::INET6).then_some(address)
}

/// Reads from the program's memory.
#[inline(always)]
fn user<T: Copy + Default>(source: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the destination is writable for its size; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, source as *const c_void)
    };
    (result == 0).then_some(value)
}
