//! Atomic addition, for counters that another program on the CPU or another CPU may change.
//!
//! Assembly, because this target has no atomic types in `core`; the instructions exist on every kernel. Refuses: reading what
//! was there before, which kernels before 5.12 cannot.

/// Adds to a counter.
///
/// # Safety
///
/// `slot` must be a valid pointer into a value of a map.
#[inline(always)]
pub unsafe fn add(slot: *mut u64, value: u64) {
    // SAFETY: given by the caller.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) slot, in(reg) value) };
}

/// Adds one to a counter of 32 bits, which wraps.
///
/// # Safety
///
/// As [`add`].
#[inline(always)]
pub unsafe fn increment_32(slot: *mut u32) {
    // SAFETY: given by the caller.
    unsafe { core::arch::asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) slot, in(reg) 1u64) };
}
