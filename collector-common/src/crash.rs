//! Records of abnormal deaths: the signal, the end, and the kernel maps that keep what is needed until then.
//!
//! Refuses: policy. The kernel side tells every fatal signal and every end that was no plain success; what becomes a
//! record is the daemon's business.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Head, Task};
use crate::limits::{
    COMM_BYTES, CWD_NAME_BYTES, CWD_NAMES_MAX, KERNEL_STACK_FRAMES_MAX, REGISTERS_MAX, STACK_FRAMES_MAX,
    STACK_MEMORY_BYTES, STDERR_BYTES, STDERR_WRITE_BYTES_MAX, THREAD_NAMES_MAX,
};

/// QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS as bits by number: `SIG_KERNEL_COREDUMP_MASK` of
/// `include/linux/signal.h` on x86_64 and aarch64.
pub const DUMPS_CORE: u64 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 24 | 1 << 25 | 1 << 31;

/// Whether a signal's bit is set.
#[inline(always)]
pub const fn is_one_of(signal: i32, set: u64) -> bool {
    signal >= 1 && signal < 64 && set >> (signal as u64 & 63) & 1 == 1
}

/// A fault or fatal signal at the moment of its delivery (`signal_deliver`): where the thread was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FaultRecord {
    /// The record's head.
    pub head: Head,
    /// The thread that took the signal.
    pub task: Task,
    /// The signal's number.
    pub signal: u32,
    /// `si_code`
    pub code: i32,
    /// `si_addr` for faults, or what stands in its place.
    pub address: u64,
    /// The processor's registers as `pt_regs` has them; zeros where they could not be found.
    pub registers: [u64; REGISTERS_MAX],
    /// `mm_struct.start_brk`, `mm_struct.brk`, `mm_struct.start_stack`; zeros where not known.
    pub heap_start: u64,
    /// End of the heap.
    pub heap_end: u64,
    /// First address of the main thread's stack, as it grows down from there.
    pub stack_start: u64,
    /// Frames of the user stack.
    pub frame_count: u32,
    /// 1 if the process has a handler for the signal, 0 if the signal ends it.
    pub is_handled: u32,
    /// Address of the handler, `sigaction.sa_handler`; 0 if there is none.
    pub handler: u64,
    /// Instruction pointers by frame pointers, leaf first.
    pub frames: [u64; STACK_FRAMES_MAX],
}

/// A fatal signal that nobody handles, with the memory and the company of the thread that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SignalRecord {
    /// Where the thread was.
    pub fault: FaultRecord,
    /// First address of `stack`, on a page.
    pub stack_address: u64,
    /// Bit N: the Nth page of `stack` could be read.
    pub stack_pages: u32,
    /// Threads of the process.
    pub thread_count: u32,
    /// Names in `thread_names`.
    pub thread_names_read: u32,
    /// Zero.
    pub padding: u32,
    /// Names of the first threads, zero-terminated.
    pub thread_names: [[u8; COMM_BYTES]; THREAD_NAMES_MAX],
    /// The stack's memory.
    pub stack: [u8; STACK_MEMORY_BYTES],
}

/// Where the kernel was when it sent a process a signal that nothing but the end can follow. A value of a kernel map, at the
/// place of the target's process id, and sent when the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct KernelStackRecord {
    /// The record's head. Its time is that of the signal.
    pub head: Head,
    /// The thread that was running: the one that asked for memory, or the one that faulted.
    pub task: Task,
    /// Start of the target since boot.
    pub target_start_ns: u64,
    /// The target's process id; 0 while the record is written.
    pub target_tgid: u32,
    /// The signal's number.
    pub signal: u32,
    /// Frames that were read.
    pub frame_count: u32,
    /// Zero.
    pub padding: u32,
    /// Addresses in the kernel, innermost first: the tracing of the signal itself comes first.
    pub frames: [u64; KERNEL_STACK_FRAMES_MAX],
}

/// Who sent a process its last signal of those that end processes (`signal_generate`). A value of a kernel map, at the
/// place of the target's process id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Sender {
    /// `CLOCK_MONOTONIC`, nanoseconds; 0: nobody sent anything.
    pub time_ns: u64,
    /// Start of the target since boot: a process id may be used again.
    pub target_start_ns: u64,
    /// The target's process id: another one may have the same place.
    pub target_tgid: u32,
    /// Zero.
    pub padding: u32,
    /// Id of the sender's cgroup.
    pub cgroup_id: u64,
    /// The signal's number.
    pub signal: u32,
    /// `si_code`; 0 without siginfo.
    pub code: i32,
    /// The sender's process id in the initial PID namespace: of the kernel's own signals the process it ran in.
    pub tgid: u32,
    /// The sender's user.
    pub uid: u32,
    /// The sender's process id in its own PID namespace; 0 where not known.
    pub namespace_pid: u32,
    /// 1 if the kernel sent it.
    pub by_kernel: u32,
    /// 1 if the OOM killer chose the target.
    pub is_oom: u32,
    /// `signal_struct.oom_score_adj` of the target, if the kernel killed it.
    pub oom_score_adj: i32,
    /// Memory of the target in pages, if the kernel killed it: files, anonymous, swapped, shared, address space.
    pub file_pages: u64,
    /// Anonymous memory.
    pub anon_pages: u64,
    /// Swapped memory.
    pub swap_pages: u64,
    /// Shared memory.
    pub shmem_pages: u64,
    /// Address space.
    pub virtual_pages: u64,
    /// Name of the sender's thread.
    pub comm: [u8; COMM_BYTES],
}

/// The last thread of a process ended, and the end was no plain success (`sched_process_exit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DeathRecord {
    /// The record's head.
    pub head: Head,
    /// The last thread.
    pub task: Task,
    /// As `wait(2)` gives it: signal in the low 7 bits, 0x80 for a core dump, exit code in the second byte.
    pub status: u32,
    /// User in the initial user namespace.
    pub uid: u32,
    /// Group in the initial user namespace.
    pub gid: u32,
    /// Process id in its own PID namespace; 0 where not known.
    pub namespace_pid: u32,
    /// Depth of its PID namespace: 0 is the initial one.
    pub namespace_level: u32,
    /// The parent in the initial PID namespace; 0 where not known.
    pub parent_tgid: u32,
    /// Who sent its last signal.
    pub sender: Sender,
    /// Names in `cwd`.
    pub cwd_names: u32,
    /// 1 if `cwd` reaches the process's root.
    pub is_cwd_whole: u32,
    /// Names of the current directory and those above it, innermost first, zero-terminated.
    pub cwd: [[u8; CWD_NAME_BYTES]; CWD_NAMES_MAX],
}

/// The last bytes that a process wrote to descriptor 2. A value of a kernel map, at the place of its process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct StderrTail {
    /// Start of the process since boot.
    pub start_ns: u64,
    /// The process.
    pub tgid: u32,
    /// Zero.
    pub padding: u32,
    /// Bytes written in all.
    pub total_bytes: u64,
    /// Bytes kept since the beginning or the last gap. The newest byte stands before `kept_bytes % STDERR_BYTES`.
    pub kept_bytes: u64,
    /// A ring of [`STDERR_BYTES`], and room for a write that passes its end, which is repeated at the start.
    pub data: [u8; STDERR_BYTES + STDERR_WRITE_BYTES_MAX],
}

impl StderrTail {
    /// The bytes in the order of writing.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let ring = &self.data[..STDERR_BYTES];
        let next = (self.kept_bytes % STDERR_BYTES as u64) as usize;
        if self.kept_bytes < STDERR_BYTES as u64 {
            (&[], &ring[..next])
        } else {
            (&ring[next..], &ring[..next])
        }
    }
}
