//! What depends on the processor, for x86_64 and aarch64: the registers in the context of a perf event.
//!
//! One object serves both processors: the daemon says which one it is, and the verifier drops the other branch. Refuses:
//! any other module knowing the layout of `pt_regs`.

use core::ffi::c_void;

use aya_ebpf::Global;
use collector_common::limits::{PROCESSOR_AARCH64, PROCESSOR_X86_64};

/// The processor, set by the daemon; 0 where it did not say.
#[unsafe(no_mangle)]
static PROCESSOR: Global<u32> = Global::new(0);

/// Whether the CPU was certainly in user mode, by the context of a perf-event program.
#[inline(always)]
pub fn was_in_user_mode(context: *mut c_void) -> bool {
    // The loads are assembly, because the verifier takes context accesses at constant offsets only and the compiler
    // would merge the two into one at a computed offset.
    match PROCESSOR.load() {
        PROCESSOR_X86_64 => {
            let code_segment: u64;
            // SAFETY: reads `pt_regs.cs`, which the context of a perf event starts with (arch/x86/include/asm/ptrace.h).
            unsafe { core::arch::asm!("{0} = *(u64 *)({1} + 136)", out(reg) code_segment, in(reg) context) };
            code_segment & 3 == 3
        }
        PROCESSOR_AARCH64 => {
            let state: u64;
            // SAFETY: reads `user_pt_regs.pstate` (arch/arm64/include/uapi/asm/ptrace.h).
            unsafe { core::arch::asm!("{0} = *(u64 *)({1} + 264)", out(reg) state, in(reg) context) };
            state & 0xf == 0
        }
        _ => false,
    }
}
