//! What the kernel side counts of I/O, scheduling, memory and TCP: keys and values of one map, and the table of calls.
//!
//! Refuses: records. Counts stay in the map until the daemon reads them; only slow operations have a record each
//! ([`SlowRecord`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Head, Task};
use crate::limits::{BUCKETS, PATH_NAME_BYTES, PATH_NAMES_MAX, SLOW_FRAMES_MAX};

/// What a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Measure {
    /// System calls. `label` is a [`Descriptor`], `operation` an [`Operation`].
    Syscall = 1,
    /// Operations of io_uring, likewise.
    Uring = 2,
    /// Requests to block devices. `detail` is the device (`dev_t`), `operation` a [`Operation`] of those.
    Block = 3,
    /// Times that a task waited for a CPU. `label` is a [`Wait`].
    RunQueue = 4,
    /// Direct reclaim of memory by the container's own tasks. `label` is a [`Reclaim`].
    Reclaim = 5,
    /// TCP connections being opened, from SYN to established or failed.
    TcpConnect = 6,
    /// Round-trip times of TCP connections, smoothed, at their end.
    TcpRoundTrip = 7,
    /// Events of TCP connections. `label` is a [`TcpEvent`].
    TcpEvent = 8,
    /// Sleep in page faults of user code.
    PageFault = 9,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// Nothing that is counted.
    None = 0,
    /// read, readv, pread64, preadv, preadv2
    Read = 1,
    /// write, writev, pwrite64, pwritev, pwritev2
    Write = 2,
    /// open, openat, openat2, creat
    Open = 3,
    /// close
    Close = 4,
    /// stat, fstat, lstat, newfstatat, statx, access, faccessat, statfs
    Stat = 5,
    /// fsync, fdatasync, sync_file_range, syncfs, sync, msync
    Sync = 6,
    /// getdents, getdents64
    List = 7,
    /// rename, unlink, mkdir, rmdir, link, symlink, chmod, chown, truncate, fallocate and their relatives
    Change = 8,
    /// sendto, sendmsg, sendmmsg
    Send = 9,
    /// recvfrom, recvmsg, recvmmsg
    Receive = 10,
    /// accept, accept4
    Accept = 11,
    /// connect
    Connect = 12,
    /// poll, ppoll, select, pselect6, epoll_wait, epoll_pwait, epoll_pwait2
    Poll = 13,
    /// sendfile, splice, tee, vmsplice, copy_file_range
    Transfer = 14,
    /// Discard of a block device's range.
    Discard = 15,
    /// Flush of a block device's cache.
    Flush = 16,
    /// Anything else that io_uring does.
    Other = 17,
    /// close_range
    CloseMany = 18,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Descriptor {
    /// The call has no descriptor, or it was not valid.
    None = 0,
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A character device that is no terminal.
    Character = 3,
    /// A terminal.
    Terminal = 4,
    /// A block device.
    Block = 5,
    /// A pipe or FIFO.
    Pipe = 6,
    /// A TCP socket.
    Tcp = 7,
    /// A UDP socket.
    Udp = 8,
    /// A Unix socket.
    Unix = 9,
    /// Another socket.
    Socket = 10,
    /// An eventfd.
    Event = 11,
    /// A timerfd.
    Timer = 12,
    /// An epoll instance.
    Epoll = 13,
    /// Another anonymous inode: signalfd, inotify, io_uring, perf event.
    Anonymous = 14,
}

/// Why a task waited for a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Wait {
    /// It had been asleep: it gave the CPU up by itself before.
    Woken = 0,
    /// It was taken off the CPU while it could have gone on.
    Preempted = 1,
}

/// Whose limit made a task reclaim memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reclaim {
    /// The node's.
    Node = 0,
    /// The cgroup's.
    Cgroup = 1,
}

/// An event of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpEvent {
    /// A segment was sent again.
    Retransmit = 0,
    /// A reset was received.
    ResetReceived = 1,
    /// A reset was sent.
    ResetSent = 2,
    /// A connection was accepted.
    Accepted = 3,
    /// Bytes sent, each once, at the connection's end.
    BytesSent = 4,
    /// Bytes received, at the connection's end; the kernel counts the peer's closing as one.
    BytesReceived = 5,
}

/// Why an operation failed, in classes. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ErrorClass {
    /// It did not fail.
    None = 0,
    /// EAGAIN, EINPROGRESS, EALREADY: nothing was there yet.
    WouldBlock = 1,
    /// EINTR and the kernel's restart codes.
    Interrupted = 2,
    /// ENOENT, ENOTDIR, ENXIO, ENODEV
    NotFound = 3,
    /// EACCES, EPERM, EROFS
    Permission = 4,
    /// ECONNRESET, EPIPE, ECONNREFUSED, ENOTCONN, EHOSTUNREACH, ENETUNREACH and their relatives
    Connection = 5,
    /// ETIMEDOUT, ETIME
    Timeout = 6,
    /// ENOSPC, EDQUOT, EFBIG
    NoSpace = 7,
    /// EMFILE, ENFILE, ENOMEM, ENOBUFS
    Exhausted = 8,
    /// EINVAL, EBADF, EFAULT and others that only a mistake of the program makes
    Invalid = 9,
    /// EIO, EUCLEAN, ENODATA, EREMOTEIO
    Device = 10,
    /// EEXIST, ENOTEMPTY, EBUSY
    Conflict = 11,
    /// All others.
    Other = 12,
}

/// What a distribution is of. Compared bytewise in the kernel.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Key {
    /// Id of the cgroup: in the unified hierarchy, for [`Measure::Block`] in that of the block controller.
    /// [`OVERFLOW_CGROUP`] for what found no room.
    pub cgroup_id: u64,
    /// Process id where processes are told apart; the device of [`Measure::Block`].
    pub detail: u32,
    /// A [`Measure`]
    pub measure: u8,
    /// An [`Operation`]
    pub operation: u8,
    /// By the measure.
    pub label: u8,
    /// An [`ErrorClass`]
    pub error: u8,
}

impl Key {
    /// The key as two words, which are compared and hashed faster than its fields.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        let rest = u32::from_ne_bytes([self.measure, self.operation, self.label, self.error]);
        [self.cgroup_id, (self.detail as u64) << 32 | rest as u64]
    }
}

/// How system calls are watched at the moment: see `collector::kernel::syscalls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Watch {
    /// How many calls one that is seen stands for; 0 while I/O is not counted.
    pub weight: u32,
    /// Grows whenever the watching of returns begins or ends: it is odd while nobody watches them.
    pub blindness: u32,
}

/// The place of what found none.
pub const OVERFLOW_PLACE: u32 = 0;

/// The cgroup under which the daemon reads that place. No cgroup has this id.
pub const OVERFLOW_CGROUP: u64 = u64::MAX;

/// Counts of one CPU for one key, since the key was put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Distribution {
    /// Bytes moved, or what else the measure sums up.
    pub bytes: u64,
    /// Sum of the measured times, nanoseconds.
    pub time_ns: u64,
    /// Operations whose time is not known: they began before the agent, or their place was taken.
    pub untimed: u64,
    /// Operations by time: see [`bucket_of`].
    pub buckets: [u64; BUCKETS],
}

impl Distribution {
    /// A distribution of nothing.
    pub const EMPTY: Self = Self { bytes: 0, time_ns: 0, untimed: 0, buckets: [0; BUCKETS] };
}

/// Index of the first bucket in OpenTelemetry's numbering at scale 0, in seconds: it holds times up to 2^-22 s (238 ns).
pub const BUCKET_OFFSET: i32 = -23;

/// The bucket of a time: at scale 0, bucket `i` holds times in `(2^(i+OFFSET), 2^(i+OFFSET+1)]` seconds; the first one
/// also shorter and the last one also longer times. OpenTelemetry metrics data model, "ExponentialHistogram".
///
/// `opaque` gives its argument back in a way that the compiler does not see through, or it would make branches of the
/// arithmetic and the kernel's verifier would follow every way through them.
#[inline(always)]
pub fn bucket_of(time_ns: u64, opaque: impl Fn(u64) -> u64) -> u32 {
    // 2^60 / 10^9, rounded down, so that a time that is a power of two lies just below its bound.
    const FACTOR: u64 = 1_152_921_504;
    let above_first = if time_ns < 1 << 33 {
        (time_ns * FACTOR) >> (60 + BUCKET_OFFSET + 1)
    } else if time_ns < 1 << 43 {
        ((time_ns >> 10) * FACTOR) >> (50 + BUCKET_OFFSET + 1)
    } else {
        return BUCKETS as u32 - 1;
    };
    // The bit length by halving: the kernel's target has no instruction for it.
    let mut rest = opaque(above_first);
    // Above 32 bits it is the last bucket anyway.
    if rest > u64::from(u32::MAX) {
        return BUCKETS as u32 - 1;
    }
    let mut bits = 0;
    let mut half = 16;
    while half > 0 {
        // The sign of the difference: 1 if something stands above the lower half.
        let step = (((1u64 << half) - 1).wrapping_sub(opaque(rest)) >> 63) * half;
        rest >>= step;
        bits += step;
        half /= 2;
    }
    let bucket = (bits + rest) as u32;
    if bucket < BUCKETS as u32 { bucket } else { BUCKETS as u32 - 1 }
}

/// What a system call's number means, packed into one word so that the programs look it up once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// An [`Operation`]
    pub operation: Operation,
    /// Whether the first argument is a descriptor.
    pub has_descriptor: bool,
    /// Whether the result is a number of bytes.
    pub returns_bytes: bool,
    /// Which argument is a path; none at 0, else its position plus one.
    pub path_argument: u8,
    /// Whether it waits for others by nature, so that a long time is no sign of trouble.
    pub waits: bool,
    /// Whether it closes descriptors: the first argument as [`Operation::Close`], the second one without an operation,
    /// unknown ones with another.
    pub closes: bool,
}

impl Call {
    /// Packs it for the table.
    pub const fn pack(self) -> u32 {
        self.operation as u32
            | (self.has_descriptor as u32) << 8
            | (self.returns_bytes as u32) << 9
            | (self.waits as u32) << 10
            | (self.closes as u32) << 11
            | (self.path_argument as u32) << 16
    }

    /// The operation of a packed call.
    #[inline(always)]
    pub const fn operation_of(packed: u32) -> u8 {
        packed as u8
    }

    /// [`Call::has_descriptor`] of a packed call.
    #[inline(always)]
    pub const fn has_descriptor(packed: u32) -> bool {
        packed & 1 << 8 != 0
    }

    /// [`Call::returns_bytes`] of a packed call.
    #[inline(always)]
    pub const fn returns_bytes(packed: u32) -> bool {
        packed & 1 << 9 != 0
    }

    /// [`Call::waits`] of a packed call.
    #[inline(always)]
    pub const fn waits(packed: u32) -> bool {
        packed & 1 << 10 != 0
    }

    /// [`Call::closes`] of a packed call.
    #[inline(always)]
    pub const fn closes(packed: u32) -> bool {
        packed & 1 << 11 != 0
    }

    /// [`Call::path_argument`] of a packed call.
    #[inline(always)]
    pub const fn path_argument(packed: u32) -> u8 {
        (packed >> 16) as u8
    }
}

/// An operation that took longer than the threshold.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SlowRecord {
    /// The head; its time is that of the operation's end.
    pub head: Head,
    /// Who did it.
    pub task: Task,
    /// How long it took, nanoseconds.
    pub time_ns: u64,
    /// What the call returned.
    pub result: i64,
    /// Local and remote address of a socket, IPv4 ones in the first four bytes.
    pub addresses: [[u8; 16]; 2],
    /// Local and remote port.
    pub ports: [u16; 2],
    /// Address family of the socket; 0 for none.
    pub family: u16,
    /// Frames in `stack`.
    pub frames: u16,
    /// Names in `path`.
    pub path_names: u32,
    /// An [`Operation`]
    pub operation: u8,
    /// A [`Descriptor`]
    pub descriptor: u8,
    /// An [`ErrorClass`]
    pub error: u8,
    /// 1 if `path` goes up to the root of its mount; 2 if it is the text that the program gave.
    pub path_kind: u8,
    /// The user stack at the return of the call, leaf first.
    pub stack: [u64; SLOW_FRAMES_MAX],
    /// Names of the file's path, the innermost first, zero-terminated; or one text over all of it.
    pub path: [[u8; PATH_NAME_BYTES]; PATH_NAMES_MAX],
}

/// A file whose I/O is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FileKey {
    /// Id of the cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Inode number.
    pub inode: u64,
    /// The file system's device (`dev_t`).
    pub device: u64,
}

/// I/O of one file by one cgroup since it was first seen, with its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FileCounts {
    /// Bytes read and written.
    pub bytes: [u64; 2],
    /// Reads and writes.
    pub operations: [u64; 2],
    /// Time in reads and writes, nanoseconds.
    pub time_ns: [u64; 2],
    /// Names in `path`.
    pub path_names: u32,
    /// 1 if `path` goes up to the root of its mount.
    pub is_path_whole: u32,
    /// Names of the file's path, the innermost first, zero-terminated.
    pub path: [[u8; PATH_NAME_BYTES]; PATH_NAMES_MAX],
}

const _: () = assert!(size_of::<Key>() == 16);
const _: () = assert!(size_of::<Distribution>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    /// Upper bound of a bucket, seconds.
    fn upper(bucket: u32) -> f64 {
        let exponent = bucket as i32 + BUCKET_OFFSET + 1;
        if exponent >= 0 { (1u64 << exponent) as f64 } else { 1.0 / (1u64 << -exponent) as f64 }
    }

    fn check(time_ns: u64, expected: u32) {
        assert_eq!(bucket_of(time_ns, |number| number), expected, "{time_ns} ns");
    }

    #[test]
    fn buckets_have_upper_bounds_that_are_powers_of_two() {
        check(0, 0);
        check(1, 0);
        check(238, 0);
        check(239, 1);
        check(476, 1);
        check(477, 2);
        check(1_000_000_000, 22);
        check(1_000_000_001, 23);
        check(2_000_000_000, 23);
        check(2_000_000_002, 24);
        check(16_000_000_000, 26);
        check(u64::MAX, BUCKETS as u32 - 1);
    }

    proptest::proptest! {
        /// But for the two nanoseconds of rounding around a bound, and for the last bucket.
        #[test]
        fn the_time_lies_within_its_bucket(time_ns in 0u64..200_000_000_000) {
            let seconds = time_ns as f64 / 1e9;
            let bucket = bucket_of(time_ns, |number| number);
            let slack = seconds * 1e-6 + 2e-9;
            if bucket < BUCKETS as u32 - 1 {
                assert!(seconds <= upper(bucket) + slack, "{time_ns} ns in {bucket}");
            }
            if bucket > 0 {
                assert!(seconds >= upper(bucket - 1) - slack, "{time_ns} ns in {bucket}");
            }
        }

        #[test]
        fn any_time_has_a_bucket(time_ns: u64) {
            assert!(bucket_of(time_ns, |number| number) < BUCKETS as u32);
        }
    }
}
