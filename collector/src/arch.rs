//! What depends on the processor, for x86_64 and aarch64.
//!
//! Refuses: everything else; other modules have no `cfg(target_arch)`.

/// What the eBPF side calls this processor.
#[cfg(target_arch = "x86_64")]
pub const PROCESSOR: u32 = collector_common::limits::PROCESSOR_X86_64;

/// What the eBPF side calls this processor.
#[cfg(target_arch = "aarch64")]
pub const PROCESSOR: u32 = collector_common::limits::PROCESSOR_AARCH64;

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
