//! The two hooks on every system call of the node, for all signals that need them.
//!
//! A call that nobody wants leaves after one look-up. Where calls are so many that watching them all costs the node too much,
//! the daemon takes the hooks away for a while and says what the calls of the other while stand for. Refuses: calls of
//! 32-bit programs, whose numbers mean other things.

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, map, raw_tracepoint};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use collector_common::io::Watch;

use crate::{arch, crash, flow, io};

#[map]
static WATCH: PerCpuArray<Watch> = PerCpuArray::with_max_entries(1, 0);

/// Returns that this CPU has seen.
#[map]
static RETURNS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// How calls of this CPU are watched at the moment.
#[inline(always)]
pub fn watch() -> Watch {
    WATCH.get(0).copied().unwrap_or(Watch { weight: 0, blindness: 0 })
}

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
    if let Some(returns) = RETURNS.get_ptr_mut(0) {
        // SAFETY: the look-up gave a valid pointer to this CPU's value; nothing that counts here interrupts this program.
        unsafe { returns.write((*returns).wrapping_add(1)) };
    }
    let Some(number) = arch::syscall_number(registers, is_typed) else { return 0 };
    crash::on_syscall_exit(number, registers, result, is_typed);
    flow::on_syscall_exit(number);
    io::on_syscall_exit(context, number, registers, result, is_typed);
    0
}
