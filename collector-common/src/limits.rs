//! Every bound that both sides share, with the asserts that keep the bounds consistent.
//!
//! Refuses: bounds that only the daemon needs (they stand beside what they bound).

/// Frames of one stack, user or kernel. The kernel's own default (`kernel.perf_event_max_stack`).
pub const STACK_FRAMES_MAX: usize = 127;

/// Bytes of one stack: instruction pointers of 8 bytes.
pub const STACK_BYTES_MAX: usize = STACK_FRAMES_MAX * 8;

/// Bytes of a task's name, the terminating zero included (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;

/// Bytes of the ring for process life events (exec, fork, exit, comm): 4,096 records of at most 64 bytes.
pub const PROCESS_RING_BYTES: u32 = 256 * 1024;

/// Bytes of the sample ring in the object; the daemon sets the real size by CPUs and frequency at load.
pub const SAMPLE_RING_BYTES_DEFAULT: u32 = 256 * 1024;

/// The value of a struct-offset global whose field the daemon could not find.
pub const OFFSET_UNKNOWN: u32 = u32::MAX;

/// The value of the processor global on x86_64.
pub const PROCESSOR_X86_64: u32 = 1;

/// The value of the processor global on aarch64.
pub const PROCESSOR_AARCH64: u32 = 2;

const _: () = assert!(PROCESS_RING_BYTES.is_power_of_two());
const _: () = assert!(SAMPLE_RING_BYTES_DEFAULT.is_power_of_two());
