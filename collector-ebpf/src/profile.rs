//! The on-CPU sampler: one record per perf event, with the user and the kernel stack.
//!
//! Stacks are walked by frame pointers, by the kernel. The seam for another unwinder is [`user_stack`]: it fills a
//! buffer with instruction pointers and says how many bytes. Refuses: the idle task, symbol work, aggregation.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_get_stack};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::PerfEventContext;
use aya_log_ebpf::debug;
use collector_common::event::Kind;
use collector_common::limits::{STACK_BYTES_MAX, STACK_FRAMES_MAX};
use collector_common::loss::{KernelCounter, Signal};
use collector_common::profile::SampleHead;

use crate::{arch, emit, task};

/// Where a sample is laid out: too large for the stack of an eBPF program.
#[repr(C)]
struct Scratch {
    head: SampleHead,
    frames: [u64; 2 * STACK_FRAMES_MAX],
}

/// Only the perf-event program uses it, and the kernel never nests that one on a CPU (`bpf_prog_active`).
#[map]
static SAMPLE_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

#[perf_event]
pub fn profile_cpu(context: PerfEventContext) -> u32 {
    let (_, tid) = task::current_ids();
    if tid == 0 {
        return 0;
    }
    emit::count(Signal::Profile, KernelCounter::Seen);
    let Some(scratch) = SAMPLE_SCRATCH.get_ptr_mut(0) else {
        emit::count(Signal::Profile, KernelCounter::ScratchMissing);
        return 0;
    };
    // SAFETY: the look-up gave a valid pointer to this CPU's scratch, which no other program run uses meanwhile.
    let sent = unsafe { send(&context, scratch) };
    if !sent {
        debug!(&context, "sample of thread {} lost: ring full", tid);
    }
    0
}

/// Lays out the sample and sends it.
///
/// # Safety
///
/// `scratch` must be valid, and used by this run alone.
#[inline(always)]
unsafe fn send(context: &PerfEventContext, scratch: *mut Scratch) -> bool {
    // SAFETY: all accesses are inside the scratch buffer: the user stack has at most `STACK_BYTES_MAX` bytes, and the
    // kernel stack starts after them with room for as many.
    unsafe {
        let frames = (&raw mut (*scratch).frames).cast::<u8>();
        let user_bytes = user_stack(context, frames);
        // In user mode there is no kernel stack: asking for it would cost a fifth of the sample.
        let kernel_bytes = match arch::was_in_user_mode(context.as_ptr()) {
            true => 0,
            false => kernel_stack(context, frames.add(user_bytes)),
        };
        let bytes = size_of::<SampleHead>() + user_bytes + kernel_bytes;
        (&raw mut (*scratch).head).write(SampleHead {
            head: task::head(Kind::Sample, bytes as u32),
            task: task::current(),
            cpu: bpf_get_smp_processor_id(),
            user_frames: (user_bytes / 8) as u16,
            kernel_frames: (kernel_bytes / 8) as u16,
        });
        emit::sample(scratch.cast(), bytes as u64)
    }
}

/// Writes the user stack to `frames` and returns its bytes.
///
/// # Safety
///
/// `frames` must be writable for `STACK_BYTES_MAX` bytes.
#[inline(always)]
unsafe fn user_stack(context: &PerfEventContext, frames: *mut u8) -> usize {
    // SAFETY: given by the caller.
    unsafe { stack(context, frames, u64::from(BPF_F_USER_STACK)) }
}

/// Writes the kernel stack to `frames` and returns its bytes; 0 if the CPU was in user mode.
///
/// # Safety
///
/// `frames` must be writable for `STACK_BYTES_MAX` bytes.
#[inline(always)]
unsafe fn kernel_stack(context: &PerfEventContext, frames: *mut u8) -> usize {
    // SAFETY: given by the caller.
    unsafe { stack(context, frames, 0) }
}

#[inline(always)]
unsafe fn stack(context: &PerfEventContext, frames: *mut u8, flags: u64) -> usize {
    // SAFETY: given by the callers.
    let result =
        unsafe { bpf_get_stack(context.as_ptr(), frames.cast::<c_void>(), STACK_BYTES_MAX as u32, flags) };
    let mut bytes = result as u64;
    // SAFETY: a comment as assembly. It keeps the compiler from comparing a copy of the register: the verifier must
    // see the bound on the very value that is added to the pointer below.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) bytes) };
    if bytes > STACK_BYTES_MAX as u64 { 0 } else { bytes as usize }
}
