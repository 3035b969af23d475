//! Every bound that both sides share, with the asserts that keep the bounds consistent.
//!
//! Refuses: bounds that only the daemon needs (they stand beside what they bound).

/// Frames of one stack, user or kernel. The kernel's own default (`kernel.perf_event_max_stack`).
pub const STACK_FRAMES_MAX: usize = 127;

/// Bytes of one stack: instruction pointers of 8 bytes.
pub const STACK_BYTES_MAX: usize = STACK_FRAMES_MAX * 8;

/// Bytes of a task's name, the terminating zero included (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;

/// Bytes of the ring for process life events: 1,700 execs with their arguments, or 16,000 forks and exits.
pub const PROCESS_RING_BYTES: u32 = 1024 * 1024;

/// Bytes of the ring for deaths and handled faults: 700 of them. Apart from [`DETAIL_RING_BYTES`], so that large
/// details never cost the count of a death.
pub const CRASH_RING_BYTES: u32 = 1024 * 1024;

/// Bytes of the ring for the details of fatal signals: 180 of them.
pub const DETAIL_RING_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of a program's arguments that are sent with its exec; the daemon reads longer ones from `/proc`.
pub const ARGUMENT_BYTES_MAX: usize = 512;

/// Registers of `pt_regs`: 21 on x86_64, 34 on aarch64.
pub const REGISTERS_MAX: usize = 34;

/// Pages of a dying thread's stack that are copied.
pub const STACK_PAGES_MAX: usize = 5;

/// Bytes of a page of the stack copy. Larger pages are copied in parts.
pub const STACK_PAGE_BYTES: usize = 4096;

/// Bytes of a dying thread's stack that are copied.
pub const STACK_MEMORY_BYTES: usize = STACK_PAGES_MAX * STACK_PAGE_BYTES;

/// Threads of a dying process whose names are read.
pub const THREAD_NAMES_MAX: usize = 64;

/// Names of a current directory's path that are read.
pub const CWD_NAMES_MAX: usize = 12;

/// Bytes of one name of that path, the terminating zero included.
pub const CWD_NAME_BYTES: usize = 80;

/// Bytes of a process's standard error that are kept in the kernel, a power of two.
pub const STDERR_BYTES: usize = 8192;

/// Bytes of one write to standard error that are kept: its end. A power of two.
pub const STDERR_WRITE_BYTES_MAX: usize = 4096;

/// Parts of one `writev` that are looked at.
pub const STDERR_PARTS_MAX: usize = 8;

/// Places for the standard error of processes, a power of two: a process has the place of its id's low bits, and takes
/// it from the one that had it. No LRU map: before 6.16 each CPU keeps 128 free entries of one to itself.
pub const STDERR_PROCESSES_MAX: u32 = 512;

/// Places for the last handled fault of processes, likewise.
pub const FAULTS_MAX: u32 = 512;

/// Places for what the kernel was doing when it ended processes, likewise.
pub const KERNEL_STACKS_MAX: u32 = 512;

/// Frames of such a stack. The way from a system call to the OOM killer takes about 25.
pub const KERNEL_STACK_FRAMES_MAX: usize = 32;

/// Places for the last sender of processes, likewise.
pub const SENDERS_MAX: u32 = 4096;

/// Processes of several threads whose end is remembered, because two of their threads may both see it.
pub const ENDS_MAX: u32 = 8192;

/// Buckets of a distribution: up to 238 ns, then doubling up to 512 s. A power of two, so that a mask bounds the index.
pub const BUCKETS: usize = 32;

/// Distributions in the object; the daemon sets the real number by CPUs at load.
pub const DISTRIBUTIONS_DEFAULT: u32 = 1024;

/// Keys whose place each CPU remembers.
pub const RECENT_KEYS_MAX: u32 = 256;

/// Numbers of system calls in the table.
pub const CALLS_MAX: u32 = 512;

/// Error numbers in the table: the kernel's own restart codes are the highest.
pub const ERRORS_MAX: u32 = 1024;

/// Places for the starts of system calls, by a hash of the thread's stack, and of waits for a CPU, by the thread id's low
/// bits.
pub const STARTS_MAX: u32 = 65_536;

/// Places for what descriptors were, by a hash of process and descriptor.
pub const DESCRIPTORS_MAX: u32 = 32_768;

/// Counters of closed descriptors, by the low bits of process ids.
pub const EPOCHS_MAX: u32 = 4096;

/// Places for the starts of block requests, io_uring operations and connections, by a hash of their address.
pub const REQUESTS_MAX: u32 = 16_384;

/// Bytes of the ring for slow operations: 350 of them.
pub const SLOW_RING_BYTES: u32 = 512 * 1024;

/// Frames of a slow operation's stack.
pub const SLOW_FRAMES_MAX: usize = 48;

/// Names of a file's path that are read.
pub const PATH_NAMES_MAX: usize = 12;

/// Bytes of one name of that path, the terminating zero included.
pub const PATH_NAME_BYTES: usize = 64;

/// Files whose I/O is counted at a time.
pub const FILES_MAX: u32 = 4096;

/// Bytes of the ring for connections and what is said over them.
pub const FLOW_RING_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of it that messages leave for the beginnings and ends of connections, which say how many messages were lost: some
/// thousand of them.
pub const FLOW_RING_RESERVE_BYTES: u32 = FLOW_RING_BYTES / 8;

/// Bytes of it from which on the daemon is woken, and how many more there may be until it is not any more: what some CPUs
/// write at once that have all seen less than the mark.
pub const FLOW_RING_WAKE_BYTES: u32 = FLOW_RING_BYTES / 16;
/// See [`FLOW_RING_WAKE_BYTES`].
pub const FLOW_RING_WAKE_WIDTH_BYTES: u32 = 8 * CAPTURE_BYTES_MAX as u32;

/// TCP connections that are followed at a time, beside those that have a place of their own.
pub const CONNECTIONS_MAX: u32 = 65_536;

/// Places for TCP connections, by a hash of their socket's address.
pub const STREAM_PLACES_MAX: u32 = 16_384;

/// Places for UDP sockets, by a hash of their address.
pub const DATAGRAM_SOCKETS_MAX: u32 = 4096;

/// Places for Unix sockets, likewise.
pub const UNIX_SOCKETS_MAX: u32 = 8192;

/// Bytes of a Unix socket's path (`UNIX_PATH_MAX`, include/uapi/linux/un.h).
pub const UNIX_PATH_BYTES: usize = 108;

/// A socket that tells no end is told anew when it is used after so much silence: the daemon forgets it later than that.
pub const SILENCE_S: u32 = 30;

/// Places for the daemon's decisions about connections, by the low bits of their numbers.
pub const DECISIONS_MAX: u32 = 65_536;

/// Places for what threads spend their time on, by the low bits of their ids.
pub const THREAD_TIMES_MAX: u32 = 65_536;

/// Bytes of a message that are captured at most.
pub const CAPTURE_BYTES_MAX: usize = 8192;

/// Room that a message's record has for captured bytes: the smallest that is enough is taken, because the kernel reserves
/// room of constant sizes only.
pub const CAPTURE_ROOMS: [usize; 4] = [128, 512, 2048, CAPTURE_BYTES_MAX];

/// Bytes of each message that are captured while nobody has recognised the connection, and messages until nothing is.
pub const CAPTURE_UNDECIDED_BYTES: u32 = 512;
/// See [`CAPTURE_UNDECIDED_BYTES`].
pub const CAPTURE_UNDECIDED_MESSAGES: u32 = 1024;

/// Parts of one vector of buffers that are captured.
pub const CAPTURE_PARTS_MAX: usize = 4;

/// The place of an id in one of the maps above.
pub const fn place_of(id: u32, places: u32) -> u32 {
    id & (places - 1)
}

/// The place of an address.
pub const fn place_of_address(address: u64, places: u32) -> u32 {
    // Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, 6.4).
    place_of((address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32, places)
}

/// Bytes of the sample ring in the object; the daemon sets the real size by CPUs and frequency at load.
pub const SAMPLE_RING_BYTES_DEFAULT: u32 = 256 * 1024;

/// The value of a struct-offset global whose field the daemon could not find.
pub const OFFSET_UNKNOWN: u32 = u32::MAX;

/// The value of the processor global on x86_64.
pub const PROCESSOR_X86_64: u32 = 1;

/// The value of the processor global on aarch64.
pub const PROCESSOR_AARCH64: u32 = 2;

const _: () = assert!(PROCESS_RING_BYTES.is_power_of_two());
const _: () = assert!(CRASH_RING_BYTES.is_power_of_two() && DETAIL_RING_BYTES.is_power_of_two());
const _: () = assert!(STDERR_BYTES.is_power_of_two() && STDERR_WRITE_BYTES_MAX.is_power_of_two());
const _: () = assert!(STDERR_WRITE_BYTES_MAX <= STDERR_BYTES);
const _: () = assert!(STDERR_PROCESSES_MAX.is_power_of_two() && FAULTS_MAX.is_power_of_two());
const _: () = assert!(SENDERS_MAX.is_power_of_two() && KERNEL_STACKS_MAX.is_power_of_two());
const _: () = assert!(BUCKETS.is_power_of_two() && RECENT_KEYS_MAX.is_power_of_two());
const _: () = assert!(DESCRIPTORS_MAX.is_power_of_two() && EPOCHS_MAX.is_power_of_two());
const _: () = assert!(STARTS_MAX.is_power_of_two() && REQUESTS_MAX.is_power_of_two());
const _: () = assert!(SLOW_RING_BYTES.is_power_of_two());
const _: () = assert!(FLOW_RING_BYTES.is_power_of_two());
const _: () = assert!(FLOW_RING_WAKE_BYTES + FLOW_RING_WAKE_WIDTH_BYTES < FLOW_RING_BYTES / 2);
const _: () = assert!(UNIX_SOCKETS_MAX.is_power_of_two() && STREAM_PLACES_MAX.is_power_of_two());
const _: () = assert!(DATAGRAM_SOCKETS_MAX.is_power_of_two() && DECISIONS_MAX.is_power_of_two());
const _: () = assert!(THREAD_TIMES_MAX.is_power_of_two());
const _: () = assert!(SAMPLE_RING_BYTES_DEFAULT.is_power_of_two());
