//! The record of an on-CPU sample: a fixed head and a variable number of frames.
//!
//! Refuses: fixed-size stacks (most are short) and symbol work.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{Head, Task};
use crate::limits::STACK_FRAMES_MAX;

/// What precedes the frames of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SampleHead {
    /// The record's head.
    pub head: Head,
    /// The task that was on the CPU.
    pub task: Task,
    /// The CPU.
    pub cpu: u32,
    /// Frames of the user stack: they come first, leaf first.
    pub user_frames: u16,
    /// Frames of the kernel stack: they follow, leaf first.
    pub kernel_frames: u16,
}

/// A decoded sample that borrows the ring's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The fixed part.
    pub head: &'a SampleHead,
    /// Instruction pointers of the user stack, leaf first.
    pub user_stack: &'a [u64],
    /// Instruction pointers of the kernel stack, leaf first.
    pub kernel_stack: &'a [u64],
}

impl<'a> Sample<'a> {
    /// Decodes a whole sample record; `None` where the counts do not fit the length.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = SampleHead::ref_from_prefix(bytes).ok()?;
        let frames = <[u64]>::ref_from_bytes(rest).ok()?;
        let (user, kernel) = (usize::from(head.user_frames), usize::from(head.kernel_frames));
        if user > STACK_FRAMES_MAX || kernel > STACK_FRAMES_MAX || frames.len() != user + kernel {
            return None;
        }
        let (user_stack, kernel_stack) = frames.split_at(user);
        Some(Self { head, user_stack, kernel_stack })
    }
}
