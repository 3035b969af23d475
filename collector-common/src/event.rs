//! The head of every ring record, and `decode()`: the only place where bytes become types.
//!
//! Refuses: trust in the bytes. Anything that is not exactly a known record is `None`, never a panic.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::crash::{DeathRecord, FaultRecord, KernelStackRecord, SignalRecord};
use crate::flow::{AddresseeRecord, CloseRecord, Message, OpenRecord, UnixOpenRecord};
use crate::io::SlowRecord;
use crate::limits::COMM_BYTES;
use crate::process::{CommRecord, ExecRecord, ExitRecord, ForkRecord};
use crate::profile::{Sample, SampleHead};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// [`ExecRecord`]
    Exec = 1,
    /// [`ForkRecord`]
    Fork = 2,
    /// [`ExitRecord`]
    Exit = 3,
    /// [`CommRecord`]
    Comm = 4,
    /// [`SampleHead`] and its frames
    Sample = 5,
    /// [`FaultRecord`], of a fault that the process handled before it ended badly
    Fault = 6,
    /// [`SignalRecord`]
    Signal = 7,
    /// [`DeathRecord`]
    Death = 8,
    /// [`SlowRecord`]
    SlowOperation = 9,
    /// [`OpenRecord`]
    Open = 10,
    /// [`MessageHead`](crate::flow::MessageHead) and the captured bytes
    Message = 11,
    /// [`CloseRecord`]
    Close = 12,
    /// [`KernelStackRecord`]
    KernelStack = 13,
    /// [`UnixOpenRecord`]
    UnixOpen = 14,
    /// [`AddresseeRecord`]
    Addressee = 15,
}

/// The first bytes of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Head {
    /// A [`Kind`].
    pub kind: u32,
    /// Bytes of the whole record, this head included.
    pub record_bytes: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
}

/// The task that a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Task {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// Start of the process since boot, nanoseconds; 0 where the kernel's layout is not known (no BTF).
    pub start_ns: u64,
    /// Id of the cgroup in the unified hierarchy (its inode number).
    pub cgroup_id: u64,
    /// Name of the thread, zero-terminated.
    pub comm: [u8; COMM_BYTES],
}

/// A decoded record that borrows the ring's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A process replaced its image.
    Exec(&'a ExecRecord),
    /// A process made a child.
    Fork(&'a ForkRecord),
    /// The last thread of a process ended.
    Exit(&'a ExitRecord),
    /// The main thread of a process was renamed.
    Comm(&'a CommRecord),
    /// A stack that was on a CPU.
    Sample(Sample<'a>),
    /// A fault that a process had handled, sent when it ended badly after all.
    Fault(&'a FaultRecord),
    /// A fatal signal.
    Signal(&'a SignalRecord),
    /// What the kernel did when it decided to end a process, sent at the end.
    KernelStack(&'a KernelStackRecord),
    /// The last thread of a process ended, and not by a plain success.
    Death(&'a DeathRecord),
    /// An operation took long.
    SlowOperation(&'a SlowRecord),
    /// A process uses a connection.
    Open(&'a OpenRecord),
    /// Something was said over a connection.
    Message(Message<'a>),
    /// A connection ended.
    Close(&'a CloseRecord),
    /// A process uses a Unix connection.
    UnixOpen(&'a UnixOpenRecord),
    /// Whom the next message of a connection goes to.
    Addressee(&'a AddresseeRecord),
}

impl Event<'_> {
    /// `CLOCK_MONOTONIC` of the event, nanoseconds.
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Exec(record) => record.head.time_ns,
            Self::Fork(record) => record.head.time_ns,
            Self::Exit(record) => record.head.time_ns,
            Self::Comm(record) => record.head.time_ns,
            Self::Sample(sample) => sample.head.head.time_ns,
            Self::Fault(record) => record.head.time_ns,
            Self::Signal(record) => record.fault.head.time_ns,
            Self::KernelStack(record) => record.head.time_ns,
            Self::Death(record) => record.head.time_ns,
            Self::SlowOperation(record) => record.head.time_ns,
            Self::Open(record) => record.head.time_ns,
            Self::Message(message) => message.head.head.time_ns,
            Self::Close(record) => record.head.time_ns,
            Self::UnixOpen(record) => record.open.head.time_ns,
            Self::Addressee(record) => record.head.time_ns,
        }
    }
}

/// Turns the bytes of one ring record into a typed event.
///
/// `None` for anything else than exactly one record of a known kind: the caller counts it as malformed. The bytes
/// must be aligned to 8, as ring records are.
pub fn decode(bytes: &[u8]) -> Option<Event<'_>> {
    let (head, _) = Head::ref_from_prefix(bytes).ok()?;
    if head.record_bytes as usize != bytes.len() {
        return None;
    }
    match head.kind {
        kind if kind == Kind::Exec as u32 => ExecRecord::ref_from_bytes(bytes).ok().map(Event::Exec),
        kind if kind == Kind::Fork as u32 => ForkRecord::ref_from_bytes(bytes).ok().map(Event::Fork),
        kind if kind == Kind::Exit as u32 => ExitRecord::ref_from_bytes(bytes).ok().map(Event::Exit),
        kind if kind == Kind::Comm as u32 => CommRecord::ref_from_bytes(bytes).ok().map(Event::Comm),
        kind if kind == Kind::Sample as u32 => Sample::decode(bytes).map(Event::Sample),
        kind if kind == Kind::Fault as u32 => FaultRecord::ref_from_bytes(bytes).ok().map(Event::Fault),
        kind if kind == Kind::Signal as u32 => SignalRecord::ref_from_bytes(bytes).ok().map(Event::Signal),
        kind if kind == Kind::KernelStack as u32 => {
            KernelStackRecord::ref_from_bytes(bytes).ok().map(Event::KernelStack)
        }
        kind if kind == Kind::Death as u32 => DeathRecord::ref_from_bytes(bytes).ok().map(Event::Death),
        kind if kind == Kind::SlowOperation as u32 => {
            SlowRecord::ref_from_bytes(bytes).ok().map(Event::SlowOperation)
        }
        kind if kind == Kind::Open as u32 => OpenRecord::ref_from_bytes(bytes).ok().map(Event::Open),
        kind if kind == Kind::Message as u32 => Message::decode(bytes).map(Event::Message),
        kind if kind == Kind::Close as u32 => CloseRecord::ref_from_bytes(bytes).ok().map(Event::Close),
        kind if kind == Kind::UnixOpen as u32 => {
            UnixOpenRecord::ref_from_bytes(bytes).ok().map(Event::UnixOpen)
        }
        kind if kind == Kind::Addressee as u32 => {
            AddresseeRecord::ref_from_bytes(bytes).ok().map(Event::Addressee)
        }
        _ => None,
    }
}

const _: () = assert!(size_of::<Head>() == 16);
const _: () = assert!(size_of::<Task>() == 40);
const _: () = assert!(size_of::<SampleHead>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::flow::MessageHead;

    /// Bytes of a record at an address that is aligned to 8, as in the ring.
    fn aligned(bytes: &[u8]) -> Vec<u64> {
        let mut words = std::vec![0u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        words
    }

    fn check(bytes: &[u8], expected_kind: Option<Kind>) {
        let words = aligned(bytes);
        let event = decode(&words.as_bytes()[..bytes.len()]);
        let kind = event.map(|event| match event {
            Event::Exec(_) => Kind::Exec,
            Event::Fork(_) => Kind::Fork,
            Event::Exit(_) => Kind::Exit,
            Event::Comm(_) => Kind::Comm,
            Event::Sample(_) => Kind::Sample,
            Event::Fault(_) => Kind::Fault,
            Event::Signal(_) => Kind::Signal,
            Event::KernelStack(_) => Kind::KernelStack,
            Event::Death(_) => Kind::Death,
            Event::SlowOperation(_) => Kind::SlowOperation,
            Event::Open(_) => Kind::Open,
            Event::Message(_) => Kind::Message,
            Event::Close(_) => Kind::Close,
            Event::UnixOpen(_) => Kind::UnixOpen,
            Event::Addressee(_) => Kind::Addressee,
        });
        assert_eq!(kind, expected_kind, "{bytes:?}");
    }

    fn head(kind: u32, record_bytes: usize) -> Head {
        Head { kind, record_bytes: record_bytes as u32, time_ns: 7 }
    }

    fn task() -> Task {
        Task { tgid: 1, tid: 2, start_ns: 3, cgroup_id: 4, comm: *b"worker\0\0\0\0\0\0\0\0\0\0" }
    }

    fn sample(user_frames: u16, kernel_frames: u16, frames: &[u64]) -> Vec<u8> {
        let bytes = size_of::<SampleHead>() + frames.len() * 8;
        let head = SampleHead {
            head: head(Kind::Sample as u32, bytes),
            task: task(),
            cpu: 0,
            user_frames,
            kernel_frames,
        };
        [head.as_bytes(), frames.as_bytes()].concat()
    }

    fn message(captured: u32, length: u32, room: usize) -> Vec<u8> {
        let bytes = size_of::<MessageHead>() + room;
        let head = MessageHead {
            head: head(Kind::Message as u32, bytes),
            connection: 1,
            position: 0,
            length,
            captured,
            tgid: 1,
            tid: 2,
            number: 1,
            turns: 1,
            way: 0,
            is_after_skip: 0,
            polls: 0,
            begun_ns: 0,
            times: [0; 6],
        };
        [head.as_bytes(), &std::vec![7; room]].concat()
    }

    #[test]
    fn records_of_every_kind() {
        let exit = ExitRecord { head: head(Kind::Exit as u32, size_of::<ExitRecord>()), task: task() };
        check(exit.as_bytes(), Some(Kind::Exit));
        let fixed = |kind: Kind, bytes: usize| {
            [head(kind as u32, bytes).as_bytes(), &std::vec![7; bytes - size_of::<Head>()]].concat()
        };
        check(&fixed(Kind::Exec, size_of::<ExecRecord>()), Some(Kind::Exec));
        check(&fixed(Kind::Fault, size_of::<FaultRecord>()), Some(Kind::Fault));
        check(&fixed(Kind::Signal, size_of::<SignalRecord>()), Some(Kind::Signal));
        check(&fixed(Kind::KernelStack, size_of::<KernelStackRecord>()), Some(Kind::KernelStack));
        check(&fixed(Kind::Death, size_of::<DeathRecord>()), Some(Kind::Death));
        check(&fixed(Kind::SlowOperation, size_of::<SlowRecord>()), Some(Kind::SlowOperation));
        check(&fixed(Kind::Open, size_of::<OpenRecord>()), Some(Kind::Open));
        check(&fixed(Kind::Close, size_of::<CloseRecord>()), Some(Kind::Close));
        check(&fixed(Kind::UnixOpen, size_of::<UnixOpenRecord>()), Some(Kind::UnixOpen));
        check(&fixed(Kind::Addressee, size_of::<AddresseeRecord>()), Some(Kind::Addressee));
        check(&message(3, 3, 3), Some(Kind::Message));
        check(&message(3, 900, 64), Some(Kind::Message));
        check(&message(0, 900, 0), Some(Kind::Message));
        check(&sample(2, 1, &[1, 2, 3]), Some(Kind::Sample));
        check(&sample(0, 0, &[]), Some(Kind::Sample));
    }

    proptest::proptest! {
        /// Any bytes decode or do not, without a panic, and what decodes has the length that it announces.
        #[test]
        fn any_bytes(kind in 0u32..16, bytes in proptest::collection::vec(0u8.., 0..400), fits: bool) {
            let mut bytes = bytes;
            if bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&kind.to_le_bytes());
                if fits {
                    let length = bytes.len() as u32;
                    bytes[4..8].copy_from_slice(&length.to_le_bytes());
                }
            }
            let words = aligned(&bytes);
            if let Some(Event::Sample(sample)) = decode(&words.as_bytes()[..bytes.len()]) {
                let frames = sample.user_stack.len() + sample.kernel_stack.len();
                assert_eq!(size_of::<SampleHead>() + frames * 8, bytes.len());
            }
        }
    }

    #[test]
    fn bytes_that_are_no_record() {
        check(&[], None);
        check(&[0; 15], None);
        check(head(0, 16).as_bytes(), None);
        check(head(99, 16).as_bytes(), None);
        check(head(Kind::Exec as u32, 16).as_bytes(), None);
        // More captured than there is, or than was moved.
        check(&message(65, 900, 64), None);
        check(&message(5, 4, 64), None);
        // Counts that do not fit the length, both ways.
        check(&sample(3, 1, &[1, 2, 3]), None);
        check(&sample(1, 1, &[1, 2, 3]), None);
        check(&sample(u16::MAX, u16::MAX, &[1, 2, 3]), None);
        // Truncated at every length.
        let whole = sample(2, 1, &[1, 2, 3]);
        for length in 0..whole.len() {
            check(&whole[..length], None);
        }
    }
}
