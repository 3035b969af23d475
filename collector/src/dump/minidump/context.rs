//! Writes the registers of a thread as the CPU context of a minidump.
//!
//! AArch64 gets Breakpad's layout, not Microsoft's: LLDB knows only that one. Refuses: vector registers beyond SSE and
//! NEON, for which the format has no place that readers agree on.

use std::io::{Seek, Write};

use anyhow::Result;
use minidump_common::format as layout;
use scroll::Endian;
use scroll::ctx::SizeWith;

use super::super::elf_core::{ElfCore, Machine, Thread};
use super::output::{Output, PADDING_BYTES};
use super::redaction::{REDACTED, is_address};

/// Space for the registers of a thread.
pub fn context_bytes(machine: Machine) -> u64 {
    let bytes = match machine {
        Machine::X86_64 => layout::CONTEXT_AMD64::size_with(&Endian::Little),
        Machine::Aarch64 => layout::CONTEXT_ARM64_OLD::size_with(&Endian::Little),
    };
    bytes as u64 + PADDING_BYTES
}

/// Writes the registers of a thread; if redacted, only those that hold addresses.
pub fn write_context<W: Write + Seek>(
    output: &mut Output<W>,
    core: &ElfCore,
    thread: &Thread,
    redact: bool,
) -> Result<layout::MINIDUMP_LOCATION_DESCRIPTOR> {
    let float: &[u8] = if redact { &[] } else { &thread.float_registers };
    let general = |index: usize| {
        let value = thread.registers[index];
        if redact && !is_address(core, value) { REDACTED } else { value }
    };
    let exact = |index: usize| thread.registers[index];
    match core.machine {
        Machine::X86_64 => {
            let mut flags = layout::ContextFlagsAmd64::CONTEXT_AMD64_CONTROL
                | layout::ContextFlagsAmd64::CONTEXT_AMD64_INTEGER
                | layout::ContextFlagsAmd64::CONTEXT_AMD64_SEGMENTS;
            let mut context = layout::CONTEXT_AMD64 {
                r15: general(0),
                r14: general(1),
                r13: general(2),
                r12: general(3),
                rbp: general(4),
                rbx: general(5),
                r11: general(6),
                r10: general(7),
                r9: general(8),
                r8: general(9),
                rax: general(10),
                rcx: general(11),
                rdx: general(12),
                rsi: general(13),
                rdi: general(14),
                rip: exact(16),
                cs: exact(17) as u16,
                eflags: exact(18) as u32,
                rsp: exact(19),
                ss: exact(20) as u16,
                ds: exact(23) as u16,
                es: exact(24) as u16,
                fs: exact(25) as u16,
                gs: exact(26) as u16,
                ..Default::default()
            };
            if let Some(float) = float.first_chunk() {
                flags |= layout::ContextFlagsAmd64::CONTEXT_AMD64_FLOATING_POINT;
                context.float_save = *float;
                context.mx_csr = u32::from_le_bytes([float[24], float[25], float[26], float[27]]);
            }
            context.context_flags = flags.bits();
            output.put(context)
        }
        Machine::Aarch64 => {
            let mut flags = layout::ContextFlagsArm64Old::CONTEXT_ARM64_OLD_INTEGER;
            let mut context = layout::CONTEXT_ARM64_OLD {
                iregs: std::array::from_fn(general),
                sp: exact(31),
                pc: exact(32),
                cpsr: exact(33) as u32,
                ..Default::default()
            };
            let (vectors, control) = float.split_at(float.len().min(512));
            if let (Some(vectors), Some(&control)) =
                (vectors.as_chunks().0.first_chunk(), control.first_chunk())
            {
                flags |= layout::ContextFlagsArm64Old::CONTEXT_ARM64_OLD_FLOATING_POINT;
                context.float_regs = vectors.map(u128::from_le_bytes);
                [context.fpsr, context.fpcr] = halves(u64::from_le_bytes(control));
            }
            context.context_flags = flags.bits().into();
            output.put(context)
        }
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}
