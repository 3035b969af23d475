//! Decides what goes into a minidump, from the head of the core, before its memory comes.
//!
//! The whole minidump keeps to its size: what tells most goes in first, and what does not fit is left out and said.
//! Refuses: reading anything.

use super::super::elf_core::{BUILD_ID_BYTES_MAX, ElfCore, Segment, Thread};
use super::context::context_bytes;
use super::modules::Module;
use super::output::{PADDING_BYTES, string_bytes};
use super::{BYTES_CEILING, BYTES_MIN, MinidumpExtras, MinidumpLimits};

/// Bytes below the stack pointer that a function may use on x86-64.
const RED_ZONE_BYTES: u64 = 128;
/// A stack pointer this far below a mapping has run over the end of that stack.
const STACK_OVERRUN_BYTES_MAX: u64 = 1 << 20;
/// Kept on each side of what a register points to.
const POINTER_SIDE_BYTES: u64 = 256;
/// Kept on each side of an instruction pointer.
const INSTRUCTION_SIDE_BYTES: u64 = 128;
/// The caller's streams, and then the modules, get at most this part of the space; then all threads half of the rest.
const SIDE_SHARE: u64 = 4;
const THREADS_SHARE: u64 = 2;
/// Space for the header, the directory and the streams of fixed size.
const FIXED_BYTES: u64 = 1024;
/// Space for an entry of a list, its strings not counted, with the padding.
const MODULE_BYTES: u64 = 108 + 4 + BUILD_ID_BYTES_MAX as u64 + 2 * PADDING_BYTES;
const THREAD_BYTES: u64 = 48 + PADDING_BYTES;
const THREAD_NAME_BYTES: u64 = 12 + PADDING_BYTES;
const REGION_BYTES: u64 = 16 + PADDING_BYTES;
const STREAM_BYTES: u64 = 12 + PADDING_BYTES;

/// Addresses that lie in the dumped part of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
}

impl Range {
    /// Its size.
    pub fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// What is dumped on both sides of an address; `None` if the address itself is not.
    pub fn around(core: &ElfCore, address: u64, side_bytes: u64) -> Option<Self> {
        let segment = core.segment_of(address)?;
        let start = address.saturating_sub(side_bytes).max(segment.address);
        let end = address.saturating_add(side_bytes).min(dumped_end(segment));
        (address < end).then_some(Self { start, end })
    }

    /// What is dumped of a thread's stack.
    fn stack(core: &ElfCore, thread: &Thread) -> Option<Self> {
        let pointer = thread.registers[core.machine.stack_pointer()];
        let above = core.segments.partition_point(|segment| dumped_end(segment) <= pointer);
        let segment = core.segments[above..].iter().find(|segment| segment.file_bytes > 0)?;
        let overrun_bytes = segment.address.saturating_sub(pointer);
        let start = segment.address.max(pointer.saturating_sub(RED_ZONE_BYTES) & !7);
        (overrun_bytes <= STACK_OVERRUN_BYTES_MAX).then_some(Self { start, end: dumped_end(segment) })
    }

    fn at_most(self, bytes: u64) -> Self {
        Self { start: self.start, end: self.start + self.bytes().min(bytes & !7) }
    }
}

fn dumped_end(segment: &Segment) -> u64 {
    segment.address.saturating_add(segment.file_bytes)
}

/// Joins ranges that overlap. Ranges that only touch may lie in two segments, and stay apart.
pub fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let overlap = next.start < last.end;
        if overlap {
            last.end = last.end.max(next.end);
        }
        overlap
    });
    ranges
}

/// What goes into the minidump, decided before the memory comes.
pub struct Plan {
    /// How many of the caller's streams, from the first.
    pub streams: usize,
    /// How many of the modules, from the lowest.
    pub modules: usize,
    /// How many of the threads, from the one that crashed.
    pub threads: usize,
    /// The stack of each of these threads.
    pub stacks: Vec<Option<Range>>,
    /// All memory, in order, without overlaps.
    pub memory: Vec<Range>,
    /// Something does not fit.
    pub truncated: bool,
}

impl Plan {
    /// Plans for these limits.
    pub fn new<'a>(
        core: &ElfCore,
        modules: impl ExactSizeIterator<Item = &'a Module>,
        limits: &MinidumpLimits,
        extras: &MinidumpExtras,
    ) -> Self {
        let own_bytes = FIXED_BYTES + string_bytes(&extras.kernel) + core.auxiliary_vector.len() as u64;
        let mut space = limits.bytes_max.clamp(BYTES_MIN, BYTES_CEILING).saturating_sub(own_bytes);
        let wanted = (extras.streams.len(), modules.len(), core.threads_total);

        let stream_bytes = extras.streams.iter().map(|(_, bytes)| STREAM_BYTES + bytes.len() as u64);
        let streams = fitting(&mut space, SIDE_SHARE, stream_bytes);
        let module_bytes = modules.map(|module| MODULE_BYTES + string_bytes(&module.path));
        let modules = fitting(&mut space, SIDE_SHARE, module_bytes);
        let thread_bytes = core.threads.iter().map(|thread| {
            let name = extras.thread_names.get(&thread.tid);
            let name_bytes = name.map_or(0, |name| THREAD_NAME_BYTES + string_bytes(name));
            THREAD_BYTES + context_bytes(core.machine) + name_bytes
        });
        let threads = fitting(&mut space, THREADS_SHARE, thread_bytes);
        let truncated = wanted != (streams, modules, threads as u64);
        let mut plan = Self { streams, modules, threads, stacks: Vec::new(), memory: Vec::new(), truncated };
        plan.choose_memory(core, limits, space);
        plan
    }

    /// The most telling memory first: the crashing stack, what its registers point to, other stacks, other code.
    fn choose_memory(&mut self, core: &ElfCore, limits: &MinidumpLimits, mut space: u64) {
        let threads = &core.threads[..self.threads];
        let around_code = |thread: &Thread| {
            let pointer = thread.registers[core.machine.instruction_pointer()];
            Range::around(core, pointer, INSTRUCTION_SIDE_BYTES)
        };
        let Some((crashing, others)) = threads.split_first() else { return };
        let wanted = Range::stack(core, crashing).map(|stack| stack.at_most(limits.crashing_stack_bytes_max));
        let stack = wanted.map(|stack| stack.at_most(space.saturating_sub(REGION_BYTES)));
        self.truncated |= stack != wanted;
        self.stacks.push(stack);
        space = space.saturating_sub(stack.map_or(0, |stack| stack.bytes() + REGION_BYTES));
        if !limits.redact_memory {
            let pointers =
                crashing.registers.iter().map(|&value| Range::around(core, value, POINTER_SIDE_BYTES));
            self.add(&mut space, std::iter::once(around_code(crashing)).chain(pointers).flatten());
        }
        let wanted: Vec<_> = others
            .iter()
            .map(|thread| Range::stack(core, thread).map(|stack| stack.at_most(limits.stack_bytes_max)))
            .collect();
        let wanted_bytes = wanted.iter().map(|stack| stack.map_or(0, |stack| stack.bytes() + REGION_BYTES));
        let shares = even_shares(wanted_bytes.collect(), &mut space);
        for (stack, share) in wanted.into_iter().zip(shares) {
            let kept = stack.map(|stack| stack.at_most(share.saturating_sub(REGION_BYTES)));
            self.truncated |= kept != stack;
            self.stacks.push(kept);
        }
        if !limits.redact_memory {
            self.add(&mut space, others.iter().filter_map(around_code));
        }
        let stacks = self.stacks.iter().flatten().copied().filter(|stack| stack.bytes() > 0);
        self.memory = joined(self.memory.iter().copied().chain(stacks).collect());
    }

    fn add(&mut self, space: &mut u64, ranges: impl Iterator<Item = Range>) {
        for range in ranges {
            let fits = space.checked_sub(range.bytes() + REGION_BYTES);
            self.truncated |= fits.is_none();
            if let Some(rest) = fits {
                *space = rest;
                self.memory.push(range);
            }
        }
    }
}

/// How many of the first things fit into a part of the space; takes that from it.
fn fitting(space: &mut u64, share: u64, sizes: impl Iterator<Item = u64>) -> usize {
    let mut left = *space / share;
    let mut count = 0;
    for bytes in sizes {
        let Some(rest) = left.checked_sub(bytes) else { break };
        *space -= bytes;
        left = rest;
        count += 1;
    }
    count
}

/// Shares the space among all, where those that want little leave more to the others.
fn even_shares(wanted: Vec<u64>, space: &mut u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_unstable_by_key(|&index| wanted[index]);
    let mut shares = wanted;
    for (done, &index) in order.iter().enumerate() {
        shares[index] = shares[index].min(*space / (order.len() - done) as u64);
        *space -= shares[index];
    }
    shares
}
