//! Connections: who uses them, the first bytes of what is said, how they end, and what threads spend their time on.
//!
//! Hooked where the socket layer says how much a call moved (`sock_send_length`, `sock_recv_length`, kernel 6.3): calls on
//! anything else cost nothing. On older kernels at the return of every system call. Refuses: parsing, and payload of
//! connections that the daemon does not know the protocol of.

mod addressee;
mod capture;
mod connection;
mod ends;
mod streams;
mod tcp;
pub mod time;
mod unix;

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use collector_common::flow::Way;

use crate::arch;
use crate::task::{self, Thread};
use crate::{emit, io};

/// 1 if connections are followed.
#[unsafe(no_mangle)]
static WATCH_FLOWS: Global<u32> = Global::new(0);
/// The agent's own process, whose exports would be told by the next exports for ever.
#[unsafe(no_mangle)]
static OWN_TGID: Global<u32> = Global::new(0);

/// `MSG_PEEK` (include/linux/socket.h): what is read stays there.
const PEEK: i32 = 2;

#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn flow_sent_raw(context: RawTracePointContext) -> i32 {
    at_socket(context.arg(0), context.arg::<i64>(1) as i32, 0, Way::Sent)
}

#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn flow_received_raw(context: RawTracePointContext) -> i32 {
    at_socket(context.arg(0), context.arg::<i64>(1) as i32, context.arg::<i64>(2) as i32, Way::Received)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn flow_state_raw(context: RawTracePointContext) -> i32 {
    connection::on_state(context.arg(0), context.arg::<i64>(1) as i32, context.arg::<i64>(2) as i32)
}

/// Whether threads that serve connections have their times kept.
#[inline(always)]
pub fn is_watched() -> bool {
    WATCH_FLOWS.load() == 1
}

/// On kernels whose socket layer does not tell. A program of its own: what such a kernel's verifier may refuse here must not cost
/// the metrics of I/O.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn flow_syscall_raw(context: RawTracePointContext) -> i32 {
    at_syscall(context.arg(0), context.arg(1));
    0
}

/// A system call returns: an event queue may have been asked.
#[inline(always)]
pub fn on_syscall_exit(number: u32) {
    if is_watched() && arch::is_event_queue_call(number) {
        time::on_poll();
    }
}

#[inline(always)]
fn at_syscall(registers: *const c_void, result: i64) {
    if !is_watched() || result <= 0 {
        return;
    }
    let Some(number) = arch::syscall_number(registers, false) else { return };
    let Some(transfer) = arch::transfer_call(number) else { return };
    let Some(way) = transfer.way else { return };
    let Some([descriptor, ..]) = arch::syscall_arguments(registers, false) else { return };
    let thread = Thread::current(false);
    let Some(sock) = io::sock_of(&thread, descriptor as u32) else { return };
    on_transfer(sock, result as u32, way, false, || registers);
}

#[inline(always)]
fn at_socket(sock: *const c_void, result: i32, flags: i32, way: Way) -> i32 {
    if result <= 0 || flags & PEEK != 0 || !is_watched() {
        return 0;
    }
    // SAFETY: the helpers have no preconditions but a task with the type of one.
    let registers = || unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as *const c_void };
    on_transfer(sock, result as u32, way, true, registers);
    0
}

/// A call moved bytes over a socket of any kind. Its registers are looked for only if its bytes are wanted. Where returns of
/// system calls tell, Unix sockets and addressees of datagrams are left out: all ways together are too many for the verifiers of
/// such kernels.
#[inline(always)]
fn on_transfer(
    sock: *const c_void,
    length: u32,
    way: Way,
    is_typed: bool,
    registers: impl FnOnce() -> *const c_void,
) {
    let (tgid, tid) = task::current_ids();
    if tgid == OWN_TGID.load() {
        return;
    }
    let Some(connection) = connection::of(sock, is_typed) else { return };
    // SAFETY: the look-up gave a valid pointer to a value of a map.
    let (message, is_owned) = unsafe {
        connection::keep_owner(connection, sock, tgid, is_typed);
        // Read again, for a verifier that carries an answer along walks through all of what is between twice.
        (connection::count(connection, length, way), (*connection).tgid == tgid)
    };
    if message.wanted_bytes == 0 {
        return;
    }
    if !is_owned || !emit::has_room_for_messages() {
        // It finds no room, or nobody would know whose it is.
        return emit::message_lost();
    }
    // SAFETY: as above. Before the copying: what is carried over that has the verifier walk through it once for each of its values.
    unsafe { connection::has_told(connection) };
    let registers = registers();
    if is_typed && way as u32 == Way::Sent as u32 && message.is_datagram && !ends::is_connected(sock) {
        addressee::tell(&message, registers, is_typed);
    }
    let source = capture::Source::of(registers, is_typed, message.number_in_call);
    let caller = capture::Caller { tgid, tid, begun_ns: begun_ns(registers, is_typed) };
    capture::send(&message, way, &source, &caller);
}

/// When the running call began: known where begins of system calls are watched for the metrics of I/O.
#[inline(always)]
fn begun_ns(registers: *const c_void, is_typed: bool) -> u64 {
    if !io::is_watched() {
        return 0;
    }
    arch::syscall_number(registers, is_typed)
        .and_then(|number| io::start_of_call(registers, number, is_typed))
        .unwrap_or(0)
}
