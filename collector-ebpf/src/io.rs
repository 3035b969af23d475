//! I/O, scheduling, memory and TCP by cgroup: counts and distributions in one per-CPU map, which the daemon reads.
//!
//! The busy hooks exist as a BTF tracepoint, which loads fields of kernel structs directly, and as a plain raw tracepoint,
//! which reads them by a helper. The others exist as the second only: there pointers are numbers, which can be hashed.
//! Refuses: records of single operations, but for slow ones.

mod block;
mod descriptor;
mod distribution;
mod fault;
mod file;
mod known;
mod memory;
pub mod place;
pub mod scheduler;
mod slow;
pub mod socket;
mod syscall;
pub mod tcp;
mod uring;

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use collector_common::io::{Descriptor, Reclaim, TcpEvent};
pub use syscall::{
    call, is_watched, on_enter as on_syscall_enter, on_exit as on_syscall_exit, start_of_call,
};

use crate::task::Thread;

/// The socket that a descriptor of the running thread is.
#[inline(always)]
pub fn sock_of(thread: &Thread, number: u32) -> Option<*const c_void> {
    let file = descriptor::file(thread, number)?;
    match descriptor::kind(file) {
        Descriptor::Tcp | Descriptor::Udp => socket::sock(file),
        _ => None,
    }
}

/// Both forms of a hook with the same body: the first with pointers that the verifier knows the type of.
macro_rules! hook {
    ($tracepoint:literal, $typed:ident, $raw:ident, |$context:ident, $is_typed:ident| $body:expr) => {
        #[btf_tracepoint(function = $tracepoint)]
        pub fn $typed($context: BtfTracePointContext) -> i32 {
            let $is_typed = true;
            $body
        }

        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $raw($context: RawTracePointContext) -> i32 {
            let $is_typed = false;
            $body
        }
    };
}

hook!("sched_wakeup", io_wakeup, io_wakeup_raw, |context, is_typed| {
    scheduler::on_wakeup(context.arg(0), is_typed)
});
hook!("sched_wakeup_new", io_wakeup_new, io_wakeup_new_raw, |context, is_typed| {
    scheduler::on_wakeup(context.arg(0), is_typed)
});
hook!("sched_switch", io_switch, io_switch_raw, |context, is_typed| {
    scheduler::on_switch(context.arg::<u64>(0) & 1 != 0, context.arg(1), context.arg(2), is_typed)
});
hook!("mm_vmscan_direct_reclaim_begin", io_reclaim, io_reclaim_raw, |_context, _is_typed| {
    memory::on_begin()
});
hook!("mm_vmscan_direct_reclaim_end", io_reclaim_end, io_reclaim_end_raw, |_context, _is_typed| {
    memory::on_end(Reclaim::Node)
});
hook!("mm_vmscan_memcg_reclaim_begin", io_reclaim_cgroup, io_reclaim_cgroup_raw, |_context, _is_typed| {
    memory::on_begin()
});
hook!("mm_vmscan_memcg_reclaim_end", io_reclaim_cgroup_end, io_reclaim_cgroup_end_raw, |_context, _typed| {
    memory::on_end(Reclaim::Cgroup)
});
#[raw_tracepoint(tracepoint = "block_rq_issue")]
pub fn io_block_issue_raw(context: RawTracePointContext) -> i32 {
    block::on_issue(if block::request_is_second() { context.arg(1) } else { context.arg(0) })
}

#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn io_block_complete_raw(context: RawTracePointContext) -> i32 {
    block::on_complete(context.arg(0), context.arg(1), context.arg(2))
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn io_tcp_state_raw(context: RawTracePointContext) -> i32 {
    tcp::on_state(context.arg(0), context.arg(1), context.arg(2))
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn io_tcp_retransmit_raw(context: RawTracePointContext) -> i32 {
    tcp::on_event(context.arg(0), TcpEvent::Retransmit)
}

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn io_tcp_reset_received_raw(context: RawTracePointContext) -> i32 {
    tcp::on_event(context.arg(0), TcpEvent::ResetReceived)
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn io_tcp_reset_sent_raw(context: RawTracePointContext) -> i32 {
    tcp::on_event(context.arg(0), TcpEvent::ResetSent)
}

#[raw_tracepoint(tracepoint = "io_uring_submit_req")]
pub fn io_uring_submit_raw(context: RawTracePointContext) -> i32 {
    uring::on_submit(context.arg(0))
}

#[raw_tracepoint(tracepoint = "io_uring_submit_sqe")]
pub fn io_uring_submit_sqe_raw(context: RawTracePointContext) -> i32 {
    uring::on_submit(context.arg(0))
}

#[raw_tracepoint(tracepoint = "io_uring_complete")]
pub fn io_uring_complete_raw(context: RawTracePointContext) -> i32 {
    uring::on_complete(context.arg(1))
}
