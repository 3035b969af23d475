//! What unwinding needs to know of a processor.
//!
//! Refuses: everything that the unwind tables say themselves.

use gimli::{AArch64, Register, Vendor, X86_64};

/// Bytes before a return address that tell whether a call is there: the longest call of x86_64.
pub const CALL_BYTES_MAX: usize = 7;

/// One kind of processor.
pub struct Processor {
    /// Numbers of the registers in unwind tables.
    pub stack_pointer: Register,
    /// See above.
    pub frame_pointer: Register,
    /// See above: on x86_64 a number without a register.
    pub return_address: Register,
    /// Calls put the return address on the stack, not into a register.
    pub calls_push: bool,
    /// Whose additions unwind tables may have.
    pub vendor: Vendor,
    /// Whether the last bytes of some code are a call.
    pub ends_with_call: fn(&[u8; CALL_BYTES_MAX]) -> bool,
}

impl Processor {
    /// The one that this program runs on.
    pub const NATIVE: &'static Self = if crate::arch::IS_AARCH64 { &Self::AARCH64 } else { &Self::X86_64 };

    /// System V ABI, AMD64 Architecture Processor Supplement, figure 3.36.
    pub const X86_64: Self = Self {
        stack_pointer: X86_64::RSP,
        frame_pointer: X86_64::RBP,
        return_address: X86_64::RA,
        calls_push: true,
        vendor: Vendor::Default,
        ends_with_call: ends_with_call_x86_64,
    };

    /// DWARF for the Arm 64-bit Architecture, section 4.1.
    pub const AARCH64: Self = Self {
        stack_pointer: AArch64::SP,
        frame_pointer: AArch64::X29,
        return_address: AArch64::X30,
        calls_push: false,
        vendor: Vendor::AArch64,
        ends_with_call: ends_with_call_aarch64,
    };

    /// A return address without the signature that aarch64 puts above the bits that addresses have.
    pub fn strip(&self, address: u64, highest: u64) -> u64 {
        if self.calls_push {
            address
        } else {
            address & u64::MAX.checked_shr(highest.leading_zeros()).unwrap_or(0)
        }
    }
}

/// `call rel32`, or `call r/m64` in any length.
fn ends_with_call_x86_64(code: &[u8; CALL_BYTES_MAX]) -> bool {
    code[2] == 0xe8
        || (2..=CALL_BYTES_MAX).any(|length| {
            let call = &code[CALL_BYTES_MAX - length..];
            call[0] == 0xff && call[1] >> 3 & 7 == 2 && operand_end(call[1], call.get(2)) == length
        })
}

/// Length of an instruction of one opcode byte and an operand.
fn operand_end(operand: u8, scale: Option<&u8>) -> usize {
    let (mode, base) = (operand >> 6, operand & 7);
    let has_scale = mode != 3 && base == 4;
    let displacement = match mode {
        0 if base == 5 || has_scale && scale.is_some_and(|scale| scale & 7 == 5) => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    2 + usize::from(has_scale) + displacement
}

/// `bl`, `blr`, and `blr` of a signed address.
fn ends_with_call_aarch64(code: &[u8; CALL_BYTES_MAX]) -> bool {
    let instruction = u32::from_le_bytes([code[3], code[4], code[5], code[6]]);
    instruction >> 26 == 0b10_0101
        || instruction & 0xffff_fc1f == 0xd63f_0000
        || instruction & 0xfeff_f800 == 0xd63f_0800
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let check = |processor: &Processor, code: [u8; CALL_BYTES_MAX], expected: bool| {
            assert_eq!((processor.ends_with_call)(&code), expected, "{code:x?}");
        };
        let x86_64 = &Processor::X86_64;
        check(x86_64, [0, 0, 0xe8, 1, 2, 3, 4], true);
        check(x86_64, [0, 0, 0, 0, 0, 0xff, 0xd0], true);
        check(x86_64, [0, 0, 0, 0, 0x41, 0xff, 0xd4], true);
        check(x86_64, [0, 0xff, 0x15, 1, 2, 3, 4], true);
        check(x86_64, [0, 0, 0, 0, 0xff, 0x50, 0x18], true);
        check(x86_64, [0, 0, 0, 0, 0xff, 0x14, 0xc8], true);
        check(x86_64, [0, 0, 0, 0xff, 0x54, 0x24, 8], true);
        check(x86_64, [0xff, 0x14, 0x25, 1, 2, 3, 4], true);
        check(x86_64, [0xff, 0x94, 0x24, 1, 2, 3, 4], true);
        check(x86_64, [0x90; 7], false);
        check(x86_64, [0, 0, 0, 0, 0, 0xff, 0xe0], false);
        check(x86_64, [0, 0, 0, 0, 0xff, 0xd0, 0x90], false);
        let aarch64 = &Processor::AARCH64;
        check(aarch64, [0, 0, 0, 0x00, 0x00, 0x00, 0x94], true);
        check(aarch64, [0, 0, 0, 0x20, 0x00, 0x3f, 0xd6], true);
        check(aarch64, [0, 0, 0, 0x11, 0x09, 0x3f, 0xd7], true);
        check(aarch64, [0, 0, 0, 0xc0, 0x03, 0x5f, 0xd6], false);
    }

    #[test]
    fn signatures() {
        let check = |processor: &Processor, address, expected| {
            assert_eq!(processor.strip(address, 0xffff_a320_6000), expected, "{address:#x}");
        };
        check(&Processor::AARCH64, 0x12_ffff_a320_5000, 0xffff_a320_5000);
        check(&Processor::X86_64, 0x12_ffff_a320_5000, 0x12_ffff_a320_5000);
        assert_eq!(Processor::AARCH64.strip(5, 0), 0);
    }
}
