//! Records of the life of processes.
//!
//! Refuses: what can be looked up later (environment, long arguments); only what may be gone soon is carried.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Head, Task};
use crate::limits::ARGUMENT_BYTES_MAX;

/// A process replaced its image: sent at `sched_process_exec`, when the new name is set and the old maps are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExecRecord {
    /// The record's head.
    pub head: Head,
    /// The process.
    pub task: Task,
    /// Bytes of all arguments with their terminating zeros; 0 where they could not be read.
    pub argument_bytes: u32,
    /// Process id in its own PID namespace; 0 where not known.
    pub namespace_pid: u32,
    /// Depth of its PID namespace: 0 is the initial one.
    pub namespace_level: u32,
    /// Zero.
    pub padding: u32,
    /// The arguments, as many as fit.
    pub arguments: [u8; ARGUMENT_BYTES_MAX],
}

/// A process made a child process (new threads are not sent).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ForkRecord {
    /// The record's head.
    pub head: Head,
    /// The parent.
    pub task: Task,
    /// The child's process id in the initial PID namespace.
    pub child_tgid: u32,
    /// Zero.
    pub padding: u32,
    /// The child's start since boot, nanoseconds; 0 where not known.
    pub child_start_ns: u64,
}

/// The last thread of a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExitRecord {
    /// The record's head.
    pub head: Head,
    /// The process.
    pub task: Task,
}

/// The main thread of a process got a new name, which `task.comm` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CommRecord {
    /// The record's head.
    pub head: Head,
    /// The process, with its new name.
    pub task: Task,
}
