//! What depends on the processor, for x86_64 and aarch64.
//!
//! Refuses: everything else; other modules have no `cfg(target_arch)`.

/// What the eBPF side calls this processor.
#[cfg(target_arch = "x86_64")]
pub const PROCESSOR: u32 = collector_common::limits::PROCESSOR_X86_64;

/// What the eBPF side calls this processor.
#[cfg(target_arch = "aarch64")]
pub const PROCESSOR: u32 = collector_common::limits::PROCESSOR_AARCH64;

/// Whether this is aarch64.
pub const IS_AARCH64: bool = PROCESSOR == collector_common::limits::PROCESSOR_AARCH64;

/// First address that no user program can have code at: five-level paging on x86_64 leaves 56 bits, aarch64 52.
#[cfg(target_arch = "x86_64")]
const USER_ADDRESS_END: u64 = 1 << 56;

/// See above.
#[cfg(target_arch = "aarch64")]
const USER_ADDRESS_END: u64 = 1 << 52;

/// Nothing is mapped in the first pages: `vm.mmap_min_addr`.
const USER_ADDRESS_START: u64 = 4_096;

/// Whether a user address can be code at all. A walk by frame pointers runs into data where a function has no frame.
pub fn is_user_code_address(address: u64) -> bool {
    (USER_ADDRESS_START..USER_ADDRESS_END).contains(&address)
}

/// Names of the words of `pt_regs`, in order (arch/x86/include/asm/ptrace.h).
#[cfg(target_arch = "x86_64")]
const REGISTERS: &[&str] = &[
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss",
];

/// Names of the words of `user_pt_regs`, in order (arch/arm64/include/uapi/asm/ptrace.h).
#[cfg(target_arch = "aarch64")]
const REGISTERS: &[&str] = &[
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
    "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
    "sp", "pc", "pstate",
];

/// Places of the instruction pointer, the stack pointer, the frame pointer and the link register in [`REGISTERS`].
#[cfg(target_arch = "x86_64")]
const POINTERS: (usize, usize, usize, Option<usize>) = (16, 19, 4, None);

/// See above.
#[cfg(target_arch = "aarch64")]
const POINTERS: (usize, usize, usize, Option<usize>) = (32, 31, 29, Some(30));

/// The registers by name.
pub fn named_registers(words: &[u64]) -> impl Iterator<Item = (&'static str, u64)> {
    REGISTERS.iter().copied().zip(words.iter().copied())
}

/// The instruction pointer; 0 where the registers are not known.
pub fn instruction_pointer(words: &[u64]) -> u64 {
    words.get(POINTERS.0).copied().unwrap_or(0)
}

/// The stack pointer; 0 where the registers are not known.
pub fn stack_pointer(words: &[u64]) -> u64 {
    words.get(POINTERS.1).copied().unwrap_or(0)
}

/// The frame pointer; 0 where the registers are not known.
pub fn frame_pointer(words: &[u64]) -> u64 {
    words.get(POINTERS.2).copied().unwrap_or(0)
}

/// The link register; 0 where the processor has none.
pub fn link_register(words: &[u64]) -> u64 {
    POINTERS.3.and_then(|place| words.get(place)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |address, expected| assert_eq!(is_user_code_address(address), expected, "{address:#x}");
        check(0, false);
        check(4_095, false);
        check(0x40_1000, true);
        check(0x7f12_3456_7000, true);
        check(0xbe55_2274_c085_47ff, false);
        check(u64::MAX, false);
    }
}
