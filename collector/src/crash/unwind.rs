//! The call chain of a thread that a fatal signal stopped: from its registers, a copy of the top of its stack, the unwind
//! tables of its files, and the kernel's walk by frame pointers.
//!
//! Every frame is one that a rule led to: a table's, or a frame pointer's where there is no table. Refuses: scanning the
//! stack for what may be return addresses, names, and going on behind an address that is no known code.

mod processor;
mod rules;
mod tables;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use gimli::UnwindContext;

use processor::Processor;
use rules::{Caller, Memory, Registers};
use tables::CodeFile;

/// Frames of one stack: what the kernel walks by frame pointers (`kernel.perf_event_max_stack`).
pub const FRAMES_MAX: usize = 127;

/// Bytes of unwind tables that are read for one stack. The programs with the largest tables are browsers, 20 MiB each.
const TABLE_BYTES_OF_STACK_MAX: u64 = 256 << 20;

/// What the kernel side kept of a thread.
#[derive(Clone, Copy, Debug)]
pub struct StackSnapshot<'a> {
    /// Instruction that the signal stopped.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer: rbp, x29.
    pub fp: u64,
    /// Link register of aarch64; nothing on x86_64.
    pub link: u64,
    /// Pieces of the stack: address and bytes. Pages that could not be read are missing.
    pub memory: &'a [(u64, &'a [u8])],
    /// The kernel's walk by frame pointers: `ip`, then return addresses, innermost first.
    pub walked: &'a [u64],
}

/// A mapping of executable memory. Anonymous code (of a JIT compiler) belongs into the list, with an empty path: an
/// address in no region ends a walk.
#[derive(Clone, Debug)]
pub struct CodeRegion {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset in the file of the first address, bytes.
    pub file_offset: u64,
    /// Where the file can be opened now. The caller has proved that it is the file that was mapped.
    pub path: PathBuf,
}

/// A call chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwound {
    /// Innermost first. The first is `ip` itself; each other is one byte or more behind an instruction of its frame: the
    /// return address, or what another signal interrupted, plus one. So `address - 1` belongs to the frame.
    pub addresses: Vec<u64>,
    /// What found the frames behind the first.
    pub by: Method,
    /// Why there are no more.
    pub end: End,
}

/// What found the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Unwind tables, and frame pointers in code without tables and behind the copied memory.
    UnwindTables,
    /// Frame pointers alone: frames of functions that keep none are missing.
    FramePointers,
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The outermost frame was reached.
    Root,
    /// The next frame is in memory that was not copied.
    NoMemory,
    /// The frame's code has no unwind table and keeps no frame pointer.
    NoUnwindInfo,
    /// There may be more than [`FRAMES_MAX`].
    Bounded,
    /// What must be a return address is none.
    Corrupt,
}

/// The best call chain that the snapshot gives.
///
/// The unwinder's chain is taken, with two exceptions, both of which only add frames:
/// - It ran out of copied memory in a function that keeps a frame pointer. The kernel followed the same list of frame
///   pointers in the whole memory, so the chain continues with the kernel's addresses from exactly that link on.
/// - The kernel's walk is longer and has every frame of the unwinder's, in their order: then the kernel's is taken.
///
/// A longer walk by frame pointers alone is no reason: it lacks the function that called into code without them.
pub fn unwind(snapshot: &StackSnapshot<'_>, regions: &[CodeRegion]) -> Unwound {
    unwind_on(Processor::NATIVE, snapshot, regions)
}

fn unwind_on(processor: &'static Processor, snapshot: &StackSnapshot<'_>, regions: &[CodeRegion]) -> Unwound {
    let mut code = Code::new(processor, regions);
    let mut walk = Walk::new(processor, snapshot);
    let mut end = walk.run(&mut code);
    if matches!(end, End::NoMemory | End::NoUnwindInfo) && walk.by_kernel(&mut code) {
        end = code.end_at(&walk.addresses, end);
    }
    let walked = code.known_part(snapshot);
    if walked.len() > walk.addresses.len() && contains_in_order(&walked, &walk.addresses) {
        let end = code.end_at(&walked, end);
        return Unwound { addresses: walked, by: Method::FramePointers, end };
    }
    let by = if walk.used_tables { Method::UnwindTables } else { Method::FramePointers };
    Unwound { addresses: walk.addresses, by, end }
}

/// Whether all of `part` occurs in `whole`, in the same order.
fn contains_in_order(whole: &[u64], part: &[u64]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|address| whole.any(|candidate| candidate == address))
}

/// One walk.
struct Walk<'a> {
    snapshot: &'a StackSnapshot<'a>,
    processor: &'static Processor,
    memory: Memory<'a>,
    registers: Registers,
    addresses: Vec<u64>,
    used_tables: bool,
    /// The current frame was interrupted, not left by a call: its return address may still be in a register.
    interrupted: bool,
    /// The stack pointer of the current frame is no lower.
    stack_floor: u64,
    /// The current frame's table finds the caller by the frame pointer, so the frame keeps one.
    keeps_frame_pointer: bool,
}

impl<'a> Walk<'a> {
    fn new(processor: &'static Processor, snapshot: &'a StackSnapshot<'a>) -> Self {
        Self {
            snapshot,
            processor,
            memory: Memory(snapshot.memory),
            registers: Registers::new(processor, snapshot),
            addresses: vec![snapshot.ip],
            used_tables: false,
            interrupted: true,
            stack_floor: snapshot.sp,
            keeps_frame_pointer: false,
        }
    }

    fn run(&mut self, code: &mut Code<'_>) -> End {
        loop {
            if self.addresses.len() >= FRAMES_MAX {
                return End::Bounded;
            }
            if let Err(end) = self.step(code) {
                return end;
            }
        }
    }

    /// One frame outwards, or why there is none.
    fn step(&mut self, code: &mut Code<'_>) -> Result<(), End> {
        let Some(&address) = self.addresses.last() else { return Err(End::Corrupt) };
        let is_first = self.addresses.len() == 1;
        let lookup = if is_first { address } else { address.wrapping_sub(1) };
        if is_first && !code.is_known(lookup) && self.step_out_of_nowhere(code) {
            return Ok(());
        }
        self.keeps_frame_pointer = false;
        match code.caller(lookup, &self.registers, self.memory) {
            Caller::Root => Err(End::Root),
            Caller::NoMemory { keeps_frame_pointer } => {
                self.keeps_frame_pointer = keeps_frame_pointer;
                Err(End::NoMemory)
            }
            Caller::Found { address, registers, is_signal_frame } => {
                let stack_pointer = registers.stack_pointer().unwrap_or(0);
                // A signal handler has a stack of its own, at any place. A leaf of aarch64 may have no frame.
                let is_leaf_without_frame = self.interrupted
                    && !self.processor.calls_push
                    && self.registers.stack_pointer() == Some(stack_pointer);
                let goes_on = stack_pointer > self.stack_floor || is_signal_frame || is_leaf_without_frame;
                if address == 0 && registers.frame_pointer() == Some(0) {
                    return Err(End::Root);
                }
                let target = if is_signal_frame { address } else { address.wrapping_sub(1) };
                if !goes_on || !code.is_known(target) {
                    return Err(End::Corrupt);
                }
                self.used_tables = true;
                self.stack_floor = stack_pointer;
                self.registers = *registers;
                self.interrupted = is_signal_frame;
                self.addresses.push(if is_signal_frame { address.saturating_add(1) } else { address });
                Ok(())
            }
            Caller::Unknown => self.step_by_frame_pointer(code),
        }
    }

    /// A call of a null or wild pointer: nothing ran there, so the return address is where the call left it.
    fn step_out_of_nowhere(&mut self, code: &mut Code<'_>) -> bool {
        let processor = self.processor;
        let sp = self.snapshot.sp;
        let (address, stack_pointer) = if processor.calls_push {
            (self.memory.word(sp), sp.saturating_add(8))
        } else {
            (Some(processor.strip(self.snapshot.link, code.highest)), sp)
        };
        let Some(address) = address.filter(|address| code.follows_call(*address)) else { return false };
        self.registers.return_to(stack_pointer);
        self.stack_floor = sp;
        self.interrupted = false;
        self.addresses.push(address);
        true
    }

    fn step_by_frame_pointer(&mut self, code: &mut Code<'_>) -> Result<(), End> {
        let is_first = self.addresses.len() == 1;
        let link = match self.registers.frame_pointer() {
            Some(0) if !is_first => return Err(End::Root),
            Some(link) if link.is_multiple_of(8) && link < u64::MAX - 16 => link,
            _ => return Err(End::NoUnwindInfo),
        };
        let is_above = link >= self.stack_floor;
        let (Some(next), Some(address)) = (self.memory.word(link), self.memory.word(link + 8)) else {
            // A runtime that switches stacks goes on at any place: the kernel may have followed it there.
            self.keeps_frame_pointer = true;
            return Err(if is_above { End::NoMemory } else { End::NoUnwindInfo });
        };
        if !is_above {
            return Err(End::NoUnwindInfo);
        }
        let address = self.processor.strip(address, code.highest);
        if address == 0 && !is_first {
            return Err(End::Root);
        }
        if !code.follows_call(address) {
            return Err(if code.is_known(address.wrapping_sub(1)) {
                End::NoUnwindInfo
            } else {
                End::Corrupt
            });
        }
        self.registers = Registers::after_frame_pointer(self.processor, link, next);
        self.stack_floor = link + 16;
        self.interrupted = false;
        self.addresses.push(address);
        Ok(())
    }

    /// Continues with the kernel's addresses behind the frame pointer of the current frame, whose link was not copied;
    /// false if nothing was added.
    fn by_kernel(&mut self, code: &mut Code<'_>) -> bool {
        let Some(frame_pointer) = self.registers.frame_pointer().filter(|_| self.keeps_frame_pointer) else {
            return false;
        };
        let mut link = self.snapshot.fp;
        let mut walked = return_addresses(self.snapshot).iter();
        for _ in 0..FRAMES_MAX {
            if link == frame_pointer {
                break;
            }
            // The kernel took the same links, else its addresses are not those behind ours.
            let same = self.memory.word(link.saturating_add(8)).as_ref() == walked.next();
            match self.memory.word(link).filter(|_| same) {
                Some(next) => link = next,
                None => return false,
            }
        }
        if link != frame_pointer {
            return false;
        }
        let room = FRAMES_MAX.saturating_sub(self.addresses.len());
        let before = self.addresses.len();
        let known = walked.copied().take(room).take_while(|address| code.follows_call(*address));
        self.addresses.extend(known);
        self.addresses.len() > before
    }
}

/// The kernel's walk without the instruction pointer.
fn return_addresses<'a>(snapshot: &StackSnapshot<'a>) -> &'a [u64] {
    match snapshot.walked.split_first() {
        Some((first, rest)) if *first == snapshot.ip => rest,
        _ => snapshot.walked,
    }
}

/// The executable memory of the process.
struct Code<'a> {
    processor: &'static Processor,
    /// Sorted by start.
    regions: Vec<&'a CodeRegion>,
    highest: u64,
    files: HashMap<&'a Path, Option<CodeFile>>,
    table_bytes_left: u64,
    context: UnwindContext<usize>,
}

impl<'a> Code<'a> {
    fn new(processor: &'static Processor, regions: &'a [CodeRegion]) -> Self {
        let mut regions: Vec<&CodeRegion> = regions.iter().collect();
        regions.sort_by_key(|region| region.start);
        Self {
            processor,
            highest: regions.iter().map(|region| region.end).max().unwrap_or(0),
            regions,
            files: HashMap::new(),
            table_bytes_left: TABLE_BYTES_OF_STACK_MAX,
            context: UnwindContext::new(),
        }
    }

    fn region(&self, address: u64) -> Option<&'a CodeRegion> {
        let behind = self.regions.partition_point(|region| region.start <= address);
        let region = self.regions[..behind].last()?;
        (address < region.end).then_some(*region)
    }

    fn is_known(&self, address: u64) -> bool {
        self.region(address).is_some()
    }

    /// The file of an address, and its offset there.
    fn file(&mut self, address: u64) -> Option<(&'a Path, u64)> {
        let region = self.region(address)?;
        let offset = (address - region.start).checked_add(region.file_offset)?;
        let (processor, left) = (self.processor, &mut self.table_bytes_left);
        self.files.entry(&region.path).or_insert_with(|| {
            guarded(&region.path, || CodeFile::open(&region.path, processor, left)).flatten()
        });
        Some((&region.path, offset))
    }

    /// The caller's frame, by the unwind table of the address.
    fn caller(&mut self, address: u64, registers: &Registers, memory: Memory<'_>) -> Caller {
        let Some((path, offset)) = self.file(address) else { return Caller::Unknown };
        let Self { files, context, highest, .. } = self;
        let Some(Some(file)) = files.get(path) else { return Caller::Unknown };
        let caller = guarded(path, || {
            file.rules(context, offset).map(|rules| rules.caller(registers, memory, *highest))
        });
        if caller.is_none() {
            self.context = UnwindContext::new();
            self.files.insert(path, None);
        }
        caller.flatten().unwrap_or(Caller::Unknown)
    }

    /// Whether an address is in known code, behind a call or in a signal's return code. Code whose file cannot be read
    /// is believed.
    fn follows_call(&mut self, address: u64) -> bool {
        let Some((path, offset)) = self.file(address.wrapping_sub(1)) else { return false };
        let Self { files, context, processor, .. } = self;
        let Some(Some(file)) = files.get(path) else { return true };
        let Some(code) = file.code_until(offset) else { return true };
        (processor.ends_with_call)(&code)
            || guarded(path, || file.rules(context, offset).is_some_and(|rules| rules.is_signal_frame))
                .unwrap_or(false)
    }

    /// The kernel's walk up to the first address that is no known return address.
    fn known_part(&mut self, snapshot: &StackSnapshot<'_>) -> Vec<u64> {
        let mut addresses = vec![snapshot.ip];
        let walked = return_addresses(snapshot).iter().copied().take(FRAMES_MAX - 1);
        addresses.extend(walked.take_while(|address| self.follows_call(*address)));
        addresses
    }

    /// Why a walk that the kernel made ended, if its last function tells.
    fn end_at(&mut self, addresses: &[u64], otherwise: End) -> End {
        if addresses.len() >= FRAMES_MAX {
            return End::Bounded;
        }
        let last = addresses.last().map_or(0, |address| address.wrapping_sub(1));
        let registers = Registers::after_frame_pointer(self.processor, 0, 0);
        match self.caller(last, &registers, Memory(&[])) {
            Caller::Root => End::Root,
            _ => otherwise,
        }
    }
}

/// Calls a parser; `None` if it panics. A file made to crash parsers must not take the agent with it.
fn guarded<T>(path: &Path, parse: impl FnOnce() -> T) -> Option<T> {
    let result = std::panic::catch_unwind(AssertUnwindSafe(parse));
    if result.is_err() {
        tracing::warn!(path = %path.display(), "this file makes the unwinder panic: its tables are left alone");
    }
    result.ok()
}

#[cfg(test)]
mod tests;
