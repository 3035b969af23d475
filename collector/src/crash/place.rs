//! What stands at the address of a fault, as far as it can be told after the death.
//!
//! Refuses: reading the dead process. What the kernel side brought is enough for the common causes.

use crate::process::{CodeMap, Place};

/// A null pointer with a field's or an element's offset.
const NULL_PAGE_END: u64 = 64 * 1024;

/// Below the stack pointer a frame that did not fit may have been touched; compilers probe page by page.
const STACK_REACH_BYTES: u64 = 1024 * 1024;

/// `BUS_ADRERR` and `SEGV_ACCERR` are both 2.
const ACCESS_ERROR: i32 = 2;
const BUS: u32 = 7;

/// What is known about a fault.
pub struct Fault<'a> {
    /// The signal's number.
    pub signal: u32,
    /// `si_code`
    pub code: i32,
    /// The address.
    pub address: u64,
    /// The stack pointer; 0 where not known.
    pub stack_pointer: u64,
    /// Whether the memory at the stack pointer could be read.
    pub has_stack: bool,
    /// The heap: first address and end.
    pub heap: (u64, u64),
    /// Where the main thread's stack starts; it grows down from here.
    pub stack_start: u64,
    /// The code.
    pub maps: &'a CodeMap,
}

/// Words for the place.
pub fn describe(fault: &Fault<'_>) -> String {
    let Fault { address, stack_pointer, .. } = *fault;
    if address < NULL_PAGE_END {
        return "null page".to_owned();
    }
    match fault.maps.place(address) {
        Some(Place::File { module, offset }) => return format!("{}+{offset:#x}", module.file_name()),
        Some(Place::Vdso { offset }) => return format!("[vdso]+{offset:#x}"),
        Some(Place::Anonymous) | None => {}
    }
    let near_stack = stack_pointer != 0
        && address >= stack_pointer.saturating_sub(STACK_REACH_BYTES)
        && address < stack_pointer.saturating_add(4_096);
    match () {
        () if fault.signal == BUS && fault.code == ACCESS_ERROR => {
            "beyond the end of a mapped file".to_owned()
        }
        () if near_stack && !fault.has_stack => "stack guard".to_owned(),
        () if (fault.heap.0..fault.heap.1).contains(&address) => "[heap]".to_owned(),
        () if (stack_pointer..fault.stack_start).contains(&address) && stack_pointer != 0 => {
            "[stack]".to_owned()
        }
        () if fault.code == ACCESS_ERROR => "mapped without this permission".to_owned(),
        () => "not mapped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(signal: u32, code: i32, address: u64, has_stack: bool, expected: &str) {
        let mut maps = CodeMap::default();
        maps.insert(0x50_0000, 0x51_0000, Place::Vdso { offset: 0 });
        let fault = Fault {
            signal,
            code,
            address,
            stack_pointer: 0x7ffd_0000_1000,
            has_stack,
            heap: (0x60_0000, 0x61_0000),
            stack_start: 0x7ffd_0000_9000,
            maps: &maps,
        };
        assert_eq!(describe(&fault), expected, "{address:#x}");
    }

    #[test]
    fn places() {
        check(11, 1, 0, true, "null page");
        check(11, 1, 0x18, true, "null page");
        check(11, 2, 0x50_0010, true, "[vdso]+0x10");
        check(11, 2, 0x60_0010, true, "[heap]");
        check(11, 1, 0x7ffd_0000_0ff8, false, "stack guard");
        check(11, 2, 0x7ffd_0000_2000, true, "[stack]");
        check(7, 2, 0x7f00_0000_0000, true, "beyond the end of a mapped file");
        check(11, 2, 0x7f00_0000_0000, true, "mapped without this permission");
        check(11, 1, 0x7f00_0000_0000, true, "not mapped");
    }
}
