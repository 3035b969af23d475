//! What depends on the processor, for x86_64 and aarch64: registers, and numbers of system calls.
//!
//! One object serves both processors: the daemon says which one it is, and the verifier drops the other branch. Refuses:
//! any other module knowing the layout of `pt_regs`.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use collector_common::flow::Way;
use collector_common::limits::{OFFSET_UNKNOWN, PROCESSOR_AARCH64, PROCESSOR_X86_64, REGISTERS_MAX};

use crate::task::{self, TaskPointer};

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

/// `task_struct.stack`
#[unsafe(no_mangle)]
static TASK_STACK: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// Size of `struct pt_regs`, bytes.
#[unsafe(no_mangle)]
static PT_REGS_BYTES: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// Sizes of a kernel stack (`THREAD_SIZE`), and what may lie between its top and the registers
/// (`TOP_OF_KERNEL_STACK_PADDING`, 16 bytes with CONFIG_X86_FRED).
const KERNEL_STACKS: [(u32, u32); 5] = [(16384, 0), (16384, 16), (32768, 0), (32768, 16), (65536, 0)];

/// Positions in `pt_regs`, in words: code segment and stack pointer of x86_64, state and stack pointer of aarch64.
const X86_64_CODE_SEGMENT: usize = 17;
const X86_64_STACK_POINTER: usize = 19;
const AARCH64_STATE: usize = 33;
const AARCH64_STACK_POINTER: usize = 31;

/// Copies the user registers of the running task and returns its stack pointer; 0 if they could not be found.
///
/// They stand at the top of the kernel stack, whose size depends on the kernel's configuration: a candidate is right if
/// it says that the task came from user mode. The helper for it (`bpf_task_pt_regs`) is of 5.15.
///
/// # Safety
///
/// `registers` must be writable.
#[inline(always)]
pub unsafe fn copy_user_registers(task: TaskPointer, registers: *mut [u64; REGISTERS_MAX]) -> u64 {
    let bytes = PT_REGS_BYTES.load();
    let words = registers.cast::<u64>();
    let Some(stack) = task::read::<*const c_void>(task, TASK_STACK.load()) else { return 0 };
    for (stack_bytes, padding) in KERNEL_STACKS {
        // SAFETY: the destination has `REGISTERS_MAX` words, the copies are of 21 and 34; the helper checks the source.
        unsafe {
            let source = stack.byte_add((stack_bytes - padding) as usize).byte_sub(bytes as usize);
            match PROCESSOR.load() {
                PROCESSOR_X86_64 => {
                    bpf_probe_read_kernel(registers.cast(), 21 * 8, source);
                    let stack_pointer = words.add(X86_64_STACK_POINTER).read();
                    if words.add(X86_64_CODE_SEGMENT).read() & 3 == 3 && stack_pointer != 0 {
                        return stack_pointer;
                    }
                }
                PROCESSOR_AARCH64 => {
                    bpf_probe_read_kernel(registers.cast(), 34 * 8, source);
                    let stack_pointer = words.add(AARCH64_STACK_POINTER).read();
                    if words.add(AARCH64_STATE).read() & 0xf == 0 && stack_pointer != 0 {
                        return stack_pointer;
                    }
                }
                _ => return 0,
            }
        }
    }
    0
}

/// Which way a system call writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// `write(2)`
    Plain,
    /// `writev(2)`
    Vector,
}

/// Where a call keeps the bytes that it moves over a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Buffers {
    /// One buffer: second argument.
    One,
    /// A vector: second argument, with as many parts as the third says.
    Vector,
    /// A `struct msghdr`: second argument.
    Message,
    /// Several `struct mmsghdr`: second argument.
    Messages,
    /// Not in its arguments.
    None,
}

/// A call that may move bytes over a socket.
#[derive(Clone, Copy)]
pub struct Transfer {
    /// Where its bytes are.
    pub buffers: Buffers,
    /// Which way they go; `None` where the result is no number of bytes.
    pub way: Option<Way>,
}

/// What a system call moves; `None` if nothing (arch/x86/entry/syscalls/syscall_64.tbl, and the generic table).
#[inline(always)]
pub fn transfer_call(number: u32) -> Option<Transfer> {
    let (buffers, way) = match (PROCESSOR.load(), number) {
        (PROCESSOR_X86_64, 0) | (PROCESSOR_AARCH64, 63) => (Buffers::One, Some(Way::Received)),
        (PROCESSOR_X86_64, 1) | (PROCESSOR_AARCH64, 64) => (Buffers::One, Some(Way::Sent)),
        (PROCESSOR_X86_64, 45) | (PROCESSOR_AARCH64, 207) => (Buffers::One, Some(Way::Received)),
        (PROCESSOR_X86_64, 44) | (PROCESSOR_AARCH64, 206) => (Buffers::One, Some(Way::Sent)),
        (PROCESSOR_X86_64, 19) | (PROCESSOR_AARCH64, 65) => (Buffers::Vector, Some(Way::Received)),
        (PROCESSOR_X86_64, 20) | (PROCESSOR_AARCH64, 66) => (Buffers::Vector, Some(Way::Sent)),
        (PROCESSOR_X86_64, 47) | (PROCESSOR_AARCH64, 212) => (Buffers::Message, Some(Way::Received)),
        (PROCESSOR_X86_64, 46) | (PROCESSOR_AARCH64, 211) => (Buffers::Message, Some(Way::Sent)),
        (PROCESSOR_X86_64, 299 | 307) | (PROCESSOR_AARCH64, 243 | 269) => (Buffers::Messages, None),
        (PROCESSOR_X86_64, 40) | (PROCESSOR_AARCH64, 71) => (Buffers::None, None),
        _ => return None,
    };
    Some(Transfer { buffers, way })
}

/// Whether a system call asks an event queue (`epoll_wait`, `epoll_pwait`, `epoll_pwait2`).
#[inline(always)]
pub fn is_event_queue_call(number: u32) -> bool {
    matches!((PROCESSOR.load(), number), (PROCESSOR_X86_64, 232 | 281 | 441) | (PROCESSOR_AARCH64, 22 | 441))
}

/// Number of the system call that the running task is in, wherever that is known; for programs that are not called with
/// its registers.
#[inline(always)]
pub fn current_syscall(task: TaskPointer, is_typed: bool) -> Option<u32> {
    let bytes = PT_REGS_BYTES.load();
    if PROCESSOR.load() != PROCESSOR_X86_64 || bytes == OFFSET_UNKNOWN {
        return None;
    }
    let stack = task::field::<*const c_void>(task, TASK_STACK.load(), is_typed)?;
    // Only the sizes that x86_64 has.
    for padding in [0, 16u32] {
        let registers = stack.wrapping_byte_add((X86_64_KERNEL_STACK - padding) as usize);
        let registers = registers.wrapping_byte_sub(bytes as usize);
        if let Some(number) = syscall_number(registers, false) {
            return Some(number);
        }
    }
    None
}

/// Whether a task is in the kernel because of an exception of its own 64-bit code, such as a page fault, or an interrupt:
/// then the entry code leaves -1 where a system call's number would be (`orig_ax`, `syscallno`).
#[inline(always)]
pub fn is_in_exception(task: TaskPointer, is_typed: bool) -> bool {
    let bytes = PT_REGS_BYTES.load();
    if bytes == OFFSET_UNKNOWN {
        return false;
    }
    let Some(stack) = task::field::<*const c_void>(task, TASK_STACK.load(), is_typed) else { return false };
    for (stack_bytes, padding) in KERNEL_STACKS {
        let registers = stack.wrapping_byte_add((stack_bytes - padding) as usize);
        match syscall_number(registers.wrapping_byte_sub(bytes as usize), false) {
            Some(NO_SYSCALL) => return true,
            // The code segment says that these are the registers.
            Some(_) if PROCESSOR.load() == PROCESSOR_X86_64 => return false,
            _ => {}
        }
    }
    false
}

/// The lower half of -1.
const NO_SYSCALL: u32 = u32::MAX;

/// `THREAD_SIZE` without KASAN (arch/x86/include/asm/page_64_types.h).
const X86_64_KERNEL_STACK: u32 = 16384;

/// The code segment of 64-bit programs (`__USER_CS`, arch/x86/include/asm/segment.h).
const X86_64_USER_CODE_SEGMENT: u64 = 0x33;

/// The number of a system call from the `pt_regs` at its return (`orig_ax`, `syscallno`); `None` for a 32-bit program.
/// `is_typed` says that the registers come from a BTF tracepoint, which may load from them.
#[inline(always)]
pub fn syscall_number(registers: *const c_void, is_typed: bool) -> Option<u32> {
    match PROCESSOR.load() {
        PROCESSOR_X86_64 if is_typed => {
            let (number, code_segment): (u64, u64);
            // Loads instead of a helper's calls, because this is the path of every system call.
            // SAFETY: reads `pt_regs.orig_ax` and `.cs` (arch/x86/include/asm/ptrace.h) of a kernel pointer that the
            // verifier knows as such; a plain raw tracepoint takes the other way.
            unsafe {
                core::arch::asm!("{0} = *(u64 *)({1} + 120)", out(reg) number, in(reg) registers);
                core::arch::asm!("{0} = *(u64 *)({1} + 136)", out(reg) code_segment, in(reg) registers);
            }
            (code_segment & 0xffff == X86_64_USER_CODE_SEGMENT).then_some(number as u32)
        }
        PROCESSOR_X86_64 => {
            let code_segment = word(registers, X86_64_CODE_SEGMENT as u32)?;
            (code_segment & 0xffff == X86_64_USER_CODE_SEGMENT).then_some(word(registers, 15)? as u32)
        }
        PROCESSOR_AARCH64 => {
            let is_32_bit = word(registers, AARCH64_STATE as u32)? & 0x10 != 0;
            (!is_32_bit).then_some(word(registers, 35)? as u32)
        }
        _ => None,
    }
}

/// The first argument of a system call, likewise (`di`, `orig_x0`).
#[inline(always)]
pub fn syscall_argument(registers: *const c_void, is_typed: bool) -> Option<u64> {
    match PROCESSOR.load() {
        PROCESSOR_X86_64 if is_typed => {
            let argument: u64;
            // SAFETY: reads `pt_regs.di`, as above.
            unsafe { core::arch::asm!("{0} = *(u64 *)({1} + 112)", out(reg) argument, in(reg) registers) };
            Some(argument)
        }
        PROCESSOR_X86_64 => word(registers, 14),
        PROCESSOR_AARCH64 => word(registers, 34),
        _ => None,
    }
}

/// The first three arguments of a system call, from the `pt_regs` at its return.
#[inline(always)]
pub fn syscall_arguments(registers: *const c_void, is_typed: bool) -> Option<[u64; 3]> {
    match PROCESSOR.load() {
        PROCESSOR_X86_64 if is_typed => {
            let (first, second, third): (u64, u64, u64);
            // SAFETY: reads `pt_regs.di`, `.si` and `.dx`, as above.
            unsafe {
                core::arch::asm!("{0} = *(u64 *)({1} + 112)", out(reg) first, in(reg) registers);
                core::arch::asm!("{0} = *(u64 *)({1} + 104)", out(reg) second, in(reg) registers);
                core::arch::asm!("{0} = *(u64 *)({1} + 96)", out(reg) third, in(reg) registers);
            }
            Some([first, second, third])
        }
        PROCESSOR_X86_64 => Some([word(registers, 14)?, word(registers, 13)?, word(registers, 12)?]),
        PROCESSOR_AARCH64 => Some([word(registers, 34)?, word(registers, 1)?, word(registers, 2)?]),
        _ => None,
    }
}

/// The fifth argument of a system call, likewise (`r8`, `x4`).
#[inline(always)]
pub fn syscall_fifth_argument(registers: *const c_void, is_typed: bool) -> Option<u64> {
    match PROCESSOR.load() {
        PROCESSOR_X86_64 if is_typed => {
            let argument: u64;
            // SAFETY: reads `pt_regs.r8`, as above.
            unsafe { core::arch::asm!("{0} = *(u64 *)({1} + 72)", out(reg) argument, in(reg) registers) };
            Some(argument)
        }
        PROCESSOR_X86_64 => word(registers, 9),
        PROCESSOR_AARCH64 => word(registers, 4),
        _ => None,
    }
}

/// Which way a system call writes; `None` if it does not (arch/x86/entry/syscalls/syscall_64.tbl, and the generic table).
#[inline(always)]
pub fn write_call(number: u32) -> Option<Write> {
    match (PROCESSOR.load(), number) {
        (PROCESSOR_X86_64, 1) | (PROCESSOR_AARCH64, 64) => Some(Write::Plain),
        (PROCESSOR_X86_64, 20) | (PROCESSOR_AARCH64, 66) => Some(Write::Vector),
        _ => None,
    }
}

#[inline(always)]
fn word(registers: *const c_void, word: u32) -> Option<u64> {
    task::read(registers, word * 8)
}
