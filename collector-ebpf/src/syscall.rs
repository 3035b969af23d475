//! The two hooks on every system call of the node, for all signals that need them.
//!
//! A call that nobody wants leaves after one look-up. Refuses: calls of 32-bit programs, whose numbers mean other things.

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};

use crate::{arch, crash, flow, io};

#[btf_tracepoint(function = "sys_enter")]
pub fn syscall_enter(context: BtfTracePointContext) -> i32 {
    io::on_syscall_enter(context.arg::<i64>(1) as u32, context.arg(0), true)
}

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn syscall_enter_raw(context: RawTracePointContext) -> i32 {
    io::on_syscall_enter(context.arg::<i64>(1) as u32, context.arg(0), false)
}

#[btf_tracepoint(function = "sys_exit")]
pub fn syscall_exit(context: BtfTracePointContext) -> i32 {
    on_exit(&context, context.arg(0), context.arg(1), true)
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn syscall_exit_raw(context: RawTracePointContext) -> i32 {
    on_exit(&context, context.arg(0), context.arg(1), false)
}

/// `is_typed` says that the registers come from a BTF tracepoint, which may load from them.
#[inline(always)]
fn on_exit(
    context: &impl aya_ebpf::EbpfContext,
    registers: *const c_void,
    result: i64,
    is_typed: bool,
) -> i32 {
    let Some(number) = arch::syscall_number(registers, is_typed) else { return 0 };
    crash::on_syscall_exit(number, registers, result, is_typed);
    flow::on_syscall_exit(number);
    io::on_syscall_exit(context, number, registers, result, is_typed);
    0
}
