//! Reads the ELF core that the kernel streams of a dying process, front to back, once.
//!
//! The head (threads, signal, mapped files, list of segments) is read first and is small; the memory after it is read
//! only where the caller asks, forward, and is discarded elsewhere. Refuses: 32-bit and big-endian cores, processors
//! other than x86-64 and AArch64, seeking, and cores laid out as no kernel writes them (notes behind the memory,
//! segments out of order). A stream that ends early is not an error: what came before its end is given. Layout: `elf(5)`
//! and `fs/binfmt_elf.c` of the kernel.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};

/// Most program headers read; a process has one for each mapping, and Linux allows 65,530 mappings by default.
pub const PROGRAM_HEADERS_MAX: u64 = 65_536;
/// Most bytes of notes passed over. They are never held whole: each is read, used and dropped.
pub const NOTES_BYTES_MAX: u64 = 1 << 30;
/// Largest note of mapped files, the ceiling of the kernel's `core_file_note_size_limit`.
pub const FILES_NOTE_BYTES_MAX: u64 = 16 << 20;
/// Largest note of the other kinds that are read.
pub const NOTE_BYTES_MAX: u64 = 4096;
/// Bytes read at once: a pipe's default capacity.
const READ_BYTES: usize = 64 << 10;
/// Longest build id taken; linkers write 8 to 20 bytes.
pub const BUILD_ID_BYTES_MAX: usize = 64;

const ELF_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const NOTE_HEADER_BYTES: u64 = 12;
const FILE_ENTRY_BYTES: usize = 24;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const PN_XNUM: u64 = 0xffff;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_GNU_BUILD_ID: u32 = 3;
const NT_FILE: u32 = 0x4649_4c45;
const NT_SIGINFO: u32 = 0x5349_4749;
/// Where the general registers stand in `struct elf_prstatus`.
const PRSTATUS_REGISTERS_AT: usize = 112;
/// The signals of which `si_addr` is set: SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV.
const FAULT_SIGNALS: [i32; 5] = [4, 5, 7, 8, 11];

/// The processor a core was written on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86-64: registers in the order of `struct user_regs_struct`.
    X86_64,
    /// AArch64: `x0` to `x30`, `sp`, `pc`, `pstate`.
    Aarch64,
}

impl Machine {
    /// How many general registers a thread has in a core.
    pub fn registers(self) -> usize {
        match self {
            Self::X86_64 => 27,
            Self::Aarch64 => 34,
        }
    }

    /// The place of the stack pointer in [`Thread::registers`].
    pub fn stack_pointer(self) -> usize {
        match self {
            Self::X86_64 => 19,
            Self::Aarch64 => 31,
        }
    }

    /// The place of the instruction pointer in [`Thread::registers`].
    pub fn instruction_pointer(self) -> usize {
        match self {
            Self::X86_64 => 16,
            Self::Aarch64 => 32,
        }
    }
}

/// One thread of the dying process.
#[derive(Debug, Clone)]
pub struct Thread {
    /// Its id, as the process itself sees it: in the PID namespace of the process.
    pub tid: u32,
    /// The signal it was taking.
    pub signal: u16,
    /// General registers, [`Machine::registers`] of them.
    pub registers: Vec<u64>,
    /// The `NT_FPREGSET` note as it is: `FXSAVE` on x86-64, `user_fpsimd_state` on AArch64; may be empty.
    pub float_registers: Vec<u8>,
}

/// The signal that kills the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Its number, `SIGSEGV` and the like.
    pub number: i32,
    /// Its `si_code`.
    pub code: i32,
    /// The address that was touched, if the processor raised the signal.
    pub fault_address: Option<u64>,
}

/// What the kernel says of the process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id, in its own PID namespace.
    pub pid: u32,
    /// The first 15 bytes of its name.
    pub name: String,
    /// The first 79 bytes of its command line.
    pub arguments: String,
}

/// A piece of a file in the memory of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedFile {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Where in the file the piece begins, in bytes.
    pub offset: u64,
    /// The file, as the process saw it.
    pub path: Arc<str>,
}

/// A mapping of the process, and where its bytes stand in the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub address: u64,
    /// Bytes of it in the core; the kernel leaves out what `coredump_filter` does not ask for.
    pub file_bytes: u64,
    /// Bytes of it in the process.
    pub memory_bytes: u64,
    /// Where its bytes begin in the core.
    pub offset: u64,
    /// Whether the process may run it.
    pub executable: bool,
}

/// The head of a core: all but the memory.
#[derive(Debug, Clone)]
pub struct ElfCore {
    /// The processor.
    pub machine: Machine,
    /// The threads, the one that died first, at most as many as were asked for.
    pub threads: Vec<Thread>,
    /// How many threads the core has, as far as it was read.
    pub threads_total: u64,
    /// The signal; `None` if the stream ended before it.
    pub signal: Option<Signal>,
    /// The process; `None` if the stream ended before it.
    pub process: Option<Process>,
    /// The auxiliary vector, as the kernel gave it to the process.
    pub auxiliary_vector: Vec<u8>,
    /// The mapped files, in order of address.
    pub files: Vec<MappedFile>,
    /// The mappings, in order of address and of place in the core.
    pub segments: Vec<Segment>,
}

impl ElfCore {
    /// Reads the head, keeping at most `threads_max` threads. The stream then stands before the memory.
    pub fn read<R: Read>(stream: &mut CoreStream<R>, threads_max: usize) -> Result<Self> {
        let header =
            stream.exact_at(0, ELF_HEADER_BYTES)?.context("the core ends within its first header")?;
        ensure!(header.starts_with(b"\x7fELF\x02\x01"), "not a little-endian 64-bit ELF file");
        ensure!(half(&header, 16)? == ET_CORE, "an ELF file, but not a core");
        ensure!(half(&header, 54)? as u64 == PROGRAM_HEADER_BYTES, "program headers of an unknown size");
        let machine = match half(&header, 18)? {
            EM_X86_64 => Machine::X86_64,
            EM_AARCH64 => Machine::Aarch64,
            other => bail!("a core of ELF machine {other}: neither x86-64 nor AArch64"),
        };
        let mut core = Self {
            machine,
            threads: Vec::new(),
            threads_total: 0,
            signal: None,
            process: None,
            auxiliary_vector: Vec::new(),
            files: Vec::new(),
            segments: Vec::new(),
        };
        let notes = core.read_program_headers(stream, long(&header, 32)?, half(&header, 56)? as u64)?;
        if let Some((offset, bytes)) = notes {
            ensure!(bytes <= NOTES_BYTES_MAX, "{bytes} bytes of notes: more than {NOTES_BYTES_MAX}");
            core.read_notes(stream, offset, bytes, threads_max)?;
        }
        let memory_start = core.segments.iter().find(|segment| segment.file_bytes > 0);
        ensure!(
            memory_start.is_none_or(|segment| segment.offset >= stream.position),
            "the memory begins before the end of the notes"
        );
        Ok(core)
    }

    /// The mapping an address lies in.
    pub fn segment_of(&self, address: u64) -> Option<&Segment> {
        let behind = self.segments.partition_point(|segment| segment.address <= address);
        let segment = self.segments.get(behind.checked_sub(1)?)?;
        (address - segment.address < segment.memory_bytes).then_some(segment)
    }

    /// A value of the auxiliary vector, by its `AT_` number.
    pub fn auxiliary(&self, kind: u64) -> Option<u64> {
        let (entries, _) = self.auxiliary_vector.as_chunks::<16>();
        let entry = entries.iter().find(|entry| long(*entry, 0).is_ok_and(|found| found == kind))?;
        long(entry, 8).ok()
    }

    /// Reads the program headers; gives the offset and the size of the notes.
    fn read_program_headers<R: Read>(
        &mut self,
        stream: &mut CoreStream<R>,
        start: u64,
        count: u64,
    ) -> Result<Option<(u64, u64)>> {
        ensure!(start >= ELF_HEADER_BYTES, "the program headers lie within the first header");
        let (mut notes, mut count, mut index) = (None, count, 0);
        while index < count {
            ensure!(count <= PROGRAM_HEADERS_MAX, "{count} program headers: more than {PROGRAM_HEADERS_MAX}");
            let at =
                start.checked_add(index * PROGRAM_HEADER_BYTES).context("program headers past the end")?;
            let Some(header) = stream.exact_at(at, PROGRAM_HEADER_BYTES)? else { break };
            let (kind, flags) = (word(&header, 0)?, word(&header, 4)?);
            let (offset, bytes) = (long(&header, 8)?, long(&header, 32)?);
            if kind == PT_NOTE && notes.is_none() {
                notes = Some((offset, bytes));
            }
            if index == 0 && count == PN_XNUM {
                // The true count stands in a section header at the far end of the stream. But the kernel writes the
                // notes' header first and the notes themselves right behind the last header.
                ensure!(kind == PT_NOTE && offset > start, "too many mappings to count: no notes first");
                count = (offset - start) / PROGRAM_HEADER_BYTES;
            }
            if kind == PT_LOAD {
                let segment = Segment {
                    address: long(&header, 16)?,
                    file_bytes: bytes,
                    memory_bytes: long(&header, 40)?.max(bytes),
                    offset,
                    executable: flags & PF_X != 0,
                };
                self.push_segment(segment)?;
            }
            index += 1;
        }
        Ok(notes)
    }

    fn push_segment(&mut self, segment: Segment) -> Result<()> {
        let fits = |start: u64, bytes: u64| bytes == 0 || start.checked_add(bytes - 1).is_some();
        ensure!(
            fits(segment.address, segment.memory_bytes) && fits(segment.offset, segment.file_bytes),
            "a segment reaches past the end of the address space"
        );
        if let Some(last) = self.segments.last() {
            let ordered =
                segment.address.checked_sub(last.address).is_some_and(|gap| gap >= last.memory_bytes)
                    && segment.offset.checked_sub(last.offset).is_some_and(|gap| gap >= last.file_bytes);
            ensure!(ordered, "the segments overlap or are out of order");
        }
        self.segments.push(segment);
        Ok(())
    }

    fn read_notes<R: Read>(
        &mut self,
        stream: &mut CoreStream<R>,
        start: u64,
        bytes: u64,
        threads_max: usize,
    ) -> Result<()> {
        let end = start.checked_add(bytes).context("the notes reach past the end")?;
        let mut at = start;
        while end - at >= NOTE_HEADER_BYTES {
            let Some(header) = stream.exact_at(at, NOTE_HEADER_BYTES)? else { break };
            let name_bytes = u64::from(word(&header, 0)?).next_multiple_of(4);
            let content_bytes = u64::from(word(&header, 4)?);
            let content_at = at + NOTE_HEADER_BYTES + name_bytes;
            at = content_at + content_bytes.next_multiple_of(4);
            ensure!(at <= end, "a note reaches past the notes");
            let kind = word(&header, 8)?;
            let limit = match kind {
                NT_FILE => FILES_NOTE_BYTES_MAX,
                NT_PRSTATUS | NT_FPREGSET | NT_PRPSINFO | NT_AUXV | NT_SIGINFO => NOTE_BYTES_MAX,
                _ => continue,
            };
            ensure!(content_bytes <= limit, "a note of kind {kind:#x} with {content_bytes} bytes");
            let Some(content) = stream.exact_at(content_at, content_bytes)? else { break };
            self.take_note(kind, content, threads_max)
                .with_context(|| format!("a note of kind {kind:#x}"))?;
        }
        Ok(())
    }

    fn take_note(&mut self, kind: u32, content: Vec<u8>, threads_max: usize) -> Result<()> {
        match kind {
            NT_PRSTATUS => {
                self.threads_total += 1;
                if self.threads.len() < threads_max {
                    self.threads.push(thread(self.machine, &content)?);
                }
            }
            NT_FPREGSET if self.threads_total == self.threads.len() as u64 => {
                if let Some(thread) = self.threads.last_mut() {
                    thread.float_registers = content;
                }
            }
            NT_SIGINFO if self.signal.is_none() => self.signal = Some(signal(&content)?),
            NT_PRPSINFO if self.process.is_none() => {
                let field = |at: usize, bytes: usize| {
                    let field = content.get(at..at + bytes).context("cut short")?;
                    let field = field.split(|&byte| byte == 0).next().unwrap_or_default();
                    anyhow::Ok(text(field.trim_ascii_end()).into_owned())
                };
                let (name, arguments) = (field(40, 16)?, field(56, 80)?);
                self.process = Some(Process { pid: word(&content, 24)?, name, arguments });
            }
            NT_AUXV => self.auxiliary_vector = content,
            NT_FILE if self.files.is_empty() => self.files = mapped_files(&content)?,
            _ => {}
        }
        Ok(())
    }
}

/// The bytes of a core, read forward only.
pub struct CoreStream<R> {
    inner: BufReader<R>,
    position: u64,
    ended_early: bool,
}

impl<R: Read> CoreStream<R> {
    /// Wraps the stream before its first byte.
    pub fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(READ_BYTES, inner), position: 0, ended_early: false }
    }

    /// Whether the stream ended, or broke, before something that was asked for.
    pub fn ended_early(&self) -> bool {
        self.ended_early
    }

    /// Discards what lies before `offset`, then reads as many of `bytes` as come. Memory grows only as bytes arrive.
    pub fn read_at(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        let gap = offset.checked_sub(self.position).context("the core is not laid out in reading order")?;
        let mut read = Vec::new();
        if self.skip(gap) {
            // A read error ends the stream like its end does: the bytes before it are in place.
            let _ = (&mut self.inner).take(bytes).read_to_end(&mut read);
            self.position += read.len() as u64;
        }
        self.ended_early |= (read.len() as u64) < bytes;
        Ok(read)
    }

    /// Like [`Self::read_at`], but `None` if not all bytes come.
    fn exact_at(&mut self, offset: u64, bytes: u64) -> Result<Option<Vec<u8>>> {
        let read = self.read_at(offset, bytes)?;
        Ok((read.len() as u64 == bytes).then_some(read))
    }

    fn skip(&mut self, mut bytes: u64) -> bool {
        while bytes > 0 && !self.ended_early {
            match self.inner.fill_buf().map(|buffer| buffer.len()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => self.ended_early = true,
                Ok(read) => {
                    let skipped = bytes.min(read as u64);
                    self.inner.consume(skipped as usize);
                    self.position += skipped;
                    bytes -= skipped;
                }
            }
        }
        !self.ended_early
    }
}

/// The build id of the object file that begins with these bytes, if they hold it; `None` too if they are none.
pub fn build_id(start_of_file: &[u8]) -> Option<&[u8]> {
    if !start_of_file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = start_of_file.get(usize::try_from(long(start_of_file, 32).ok()?).ok()?..)?;
    let count = half(start_of_file, 56).ok()? as usize;
    headers.chunks_exact(PROGRAM_HEADER_BYTES as usize).take(count).find_map(|header| {
        let start = usize::try_from(long(header, 8).ok()?).ok()?;
        let bytes = usize::try_from(long(header, 32).ok()?).ok()?;
        let alignment = if long(header, 48).ok()? == 8 { 8 } else { 4 };
        let is_notes = word(header, 0).ok()? == PT_NOTE;
        let notes = start_of_file.get(start..start.checked_add(bytes)?)?;
        is_notes.then(|| build_id_note(notes, alignment)).flatten()
    })
}

fn build_id_note(mut notes: &[u8], alignment: usize) -> Option<&[u8]> {
    loop {
        let name_bytes = word(notes, 0).ok()? as usize;
        let content_bytes = word(notes, 4).ok()? as usize;
        let content_at = (NOTE_HEADER_BYTES as usize + name_bytes).next_multiple_of(alignment);
        let is_build_id = word(notes, 8).ok()? == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0";
        if is_build_id && name_bytes == 4 && (1..=BUILD_ID_BYTES_MAX).contains(&content_bytes) {
            return notes.get(content_at..content_at + content_bytes);
        }
        notes = notes.get((content_at + content_bytes).next_multiple_of(alignment)..)?;
    }
}

/// Parses `struct elf_prstatus`.
fn thread(machine: Machine, content: &[u8]) -> Result<Thread> {
    let registers = (0..machine.registers())
        .map(|index| long(content, PRSTATUS_REGISTERS_AT + index * 8))
        .collect::<Result<_>>()?;
    let (tid, signal) = (word(content, 32)?, half(content, 12)?);
    Ok(Thread { tid, signal, registers, float_registers: Vec::new() })
}

/// Parses `siginfo_t`.
fn signal(content: &[u8]) -> Result<Signal> {
    let (number, code) = (word(content, 0)?.cast_signed(), word(content, 8)?.cast_signed());
    // A code of zero or less: sent by a process, so the place of the address holds who sent it.
    let raised = FAULT_SIGNALS.contains(&number) && code > 0;
    let fault_address = if raised { Some(long(content, 16)?) } else { None };
    Ok(Signal { number, code, fault_address })
}

/// Parses `NT_FILE`: count, page size, ranges, then the paths.
fn mapped_files(content: &[u8]) -> Result<Vec<MappedFile>> {
    let (count, page_bytes) = (long(content, 0)?, long(content, 8)?);
    let paths_at = usize::try_from(count).ok().and_then(|count| count.checked_mul(FILE_ENTRY_BYTES));
    let paths_at = paths_at.and_then(|bytes| bytes.checked_add(16)).context("too many mapped files")?;
    let ranges = content.get(16..paths_at).context("more mapped files than bytes")?;
    let paths = content.get(paths_at..).unwrap_or_default();
    let mut files: Vec<MappedFile> = Vec::new();
    for (range, path) in ranges.chunks_exact(FILE_ENTRY_BYTES).zip(paths.split(|&byte| byte == 0)) {
        let path = text(path);
        // A file is mapped in several pieces, one behind the other: they share the path.
        let shared = files.last().filter(|last| *last.path == *path).map(|last| last.path.clone());
        let (start, end) = (long(range, 0)?, long(range, 8)?);
        ensure!(start < end, "a mapped file without bytes");
        files.push(MappedFile {
            start,
            end,
            offset: long(range, 16)?.checked_mul(page_bytes).context("a mapped file past the end")?,
            path: shared.unwrap_or_else(|| path.into()),
        });
    }
    ensure!(files.is_sorted_by(|before, after| before.end <= after.start), "mapped files out of order");
    Ok(files)
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The bytes at a place, as an array; an error if there are fewer.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let rest = bytes.get(at..).unwrap_or_default();
    Ok(*rest.first_chunk().context("cut short")?)
}

fn half(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array(bytes, at)?))
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array(bytes, at)?))
}

fn long(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array(bytes, at)?))
}

/// Cores as the kernel writes them, for tests.
#[cfg(test)]
pub(super) mod sample {
    use super::*;

    pub struct Sample {
        pub machine: Machine,
        /// Id, stack pointer and instruction pointer.
        pub threads: Vec<(u32, u64, u64)>,
        /// Address, bytes in the core, bytes in the process, executable.
        pub segments: Vec<(u64, Vec<u8>, u64, bool)>,
        /// First address, address behind the last, offset in pages, path.
        pub files: Vec<(u64, u64, u64, &'static str)>,
        /// `e_phnum`, if not the true one.
        pub program_headers: Option<u16>,
    }

    /// The build id of the file in [`Sample::default`].
    pub const BUILD_ID: [u8; 20] = *b"a build id, 20 bytes";
    pub const MODULE: u64 = 0x40_0000;
    pub const STACK: u64 = 0x7f00_0000_0000;

    impl Default for Sample {
        /// A program of two pages, with a stack of 8 KiB that its only thread uses half of.
        fn default() -> Self {
            let mut stack = vec![0; 0x1000];
            stack.extend((0..512u64).flat_map(|index| (MODULE + 0x1000 + index).to_le_bytes()));
            stack[0x1800..0x1808].copy_from_slice(b"password");
            Self {
                machine: Machine::X86_64,
                threads: vec![(42, STACK + 0x1000, MODULE + 0x1234)],
                segments: vec![
                    (MODULE, object_file(), 0x1000, false),
                    (MODULE + 0x1000, Vec::new(), 0x1000, true),
                    (STACK, stack, 0x2000, false),
                ],
                files: vec![
                    (MODULE, MODULE + 0x1000, 0, "/bin/program"),
                    (MODULE + 0x1000, MODULE + 0x2000, 1, "/bin/program"),
                ],
                program_headers: None,
            }
        }
    }

    impl Sample {
        pub fn bytes(&self) -> Vec<u8> {
            let notes = self.notes();
            let notes_at = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES * (self.segments.len() as u64 + 1);
            let count = self.program_headers.unwrap_or_else(|| self.segments.len() as u16 + 1);
            let mut bytes = file_header(4, self.machine, count);
            bytes.extend(program_header(PT_NOTE, 0, notes_at, 0, notes.len() as u64, 0));
            let mut offset = (notes_at + notes.len() as u64).next_multiple_of(4096);
            for (address, content, memory_bytes, executable) in &self.segments {
                let (flags, length) = (u32::from(*executable), content.len() as u64);
                bytes.extend(program_header(PT_LOAD, flags, offset, *address, length, *memory_bytes));
                offset += length;
            }
            bytes.extend(notes);
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
            bytes.extend(self.segments.iter().flat_map(|(_, content, ..)| content));
            bytes
        }

        fn notes(&self) -> Vec<u8> {
            let mut notes = Vec::new();
            for (index, &(tid, stack, instruction)) in self.threads.iter().enumerate() {
                let mut status = vec![0; PRSTATUS_REGISTERS_AT + self.machine.registers() * 8 + 8];
                status[12] = 11;
                status[32..36].copy_from_slice(&tid.to_le_bytes());
                for (place, value) in
                    [(self.machine.stack_pointer(), stack), (self.machine.instruction_pointer(), instruction)]
                {
                    let at = PRSTATUS_REGISTERS_AT + place * 8;
                    status[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                notes.extend(note(NT_PRSTATUS, b"CORE\0", &status));
                if index == 0 {
                    notes.extend(self.process_notes());
                }
                let float = if self.machine == Machine::X86_64 { 512 } else { 528 };
                notes.extend(note(NT_FPREGSET, b"CORE\0", &vec![index as u8; float]));
                notes.extend(note(0x202, b"LINUX\0", &[7; 13]));
            }
            notes
        }

        fn process_notes(&self) -> Vec<u8> {
            let mut info = [0; 136];
            info[24..28].copy_from_slice(&41u32.to_le_bytes());
            info[40..47].copy_from_slice(b"program");
            info[56..71].copy_from_slice(b"program --fast ");
            let mut signal = [0; 128];
            (signal[0], signal[8], signal[16]) = (11, 1, 0x10);
            let auxiliary = [9, MODULE + 0x1000, 0, 0].map(u64::to_le_bytes).concat();
            let mut files = [self.files.len() as u64, 4096].map(u64::to_le_bytes).concat();
            files.extend(
                self.files.iter().flat_map(|file| [file.0, file.1, file.2].map(u64::to_le_bytes).concat()),
            );
            files.extend(self.files.iter().flat_map(|file| [file.3.as_bytes(), b"\0"].concat()));
            [
                note(NT_PRPSINFO, b"CORE\0", &info),
                note(NT_SIGINFO, b"CORE\0", &signal),
                note(NT_AUXV, b"CORE\0", &auxiliary),
                note(NT_FILE, b"CORE\0", &files),
            ]
            .concat()
        }
    }

    fn object_file() -> Vec<u8> {
        let notes = [note(5, b"GNU\0", b"property"), note(NT_GNU_BUILD_ID, b"GNU\0", &BUILD_ID)].concat();
        let mut bytes = file_header(2, Machine::X86_64, 1);
        bytes.extend(program_header(PT_NOTE, 0, 0x200, MODULE, notes.len() as u64, 0));
        bytes.resize(0x200, 0);
        bytes.extend(notes);
        bytes.resize(0x1000, 0);
        bytes
    }

    fn file_header(kind: u16, machine: Machine, program_headers: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(ELF_HEADER_BYTES as usize, 0);
        let machine = if machine == Machine::X86_64 { EM_X86_64 } else { EM_AARCH64 };
        header[16..18].copy_from_slice(&kind.to_le_bytes());
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header[32..40].copy_from_slice(&ELF_HEADER_BYTES.to_le_bytes());
        header[54] = PROGRAM_HEADER_BYTES as u8;
        header[56..58].copy_from_slice(&program_headers.to_le_bytes());
        header
    }

    fn program_header(kind: u32, flags: u32, offset: u64, address: u64, file: u64, memory: u64) -> Vec<u8> {
        let words = [kind, flags].map(u32::to_le_bytes).concat();
        [words, [offset, address, 0, file, memory, 4].map(u64::to_le_bytes).concat()].concat()
    }

    pub fn note(kind: u32, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut note = [name.len() as u32, content.len() as u32, kind].map(u32::to_le_bytes).concat();
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{MODULE, STACK, Sample};
    use super::*;

    /// Hands out few bytes at once, as a socket may.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let bytes = into.len().min(7);
            self.0.read(&mut into[..bytes])
        }
    }

    fn read(bytes: &[u8]) -> Result<(ElfCore, bool)> {
        let mut stream = CoreStream::new(Dribble(bytes));
        let core = ElfCore::read(&mut stream, 2)?;
        Ok((core, stream.ended_early()))
    }

    fn check(sample: &Sample, expected: Result<(), &str>) {
        match (read(&sample.bytes()), expected) {
            (Ok((core, ended_early)), Ok(())) => {
                assert!(!ended_early);
                assert_eq!(core.machine, sample.machine);
                assert_eq!(core.threads_total, sample.threads.len() as u64);
                for (index, (thread, &(tid, stack, instruction))) in
                    core.threads.iter().zip(&sample.threads).enumerate()
                {
                    assert_eq!((thread.tid, thread.signal), (tid, 11));
                    assert_eq!(thread.registers[core.machine.stack_pointer()], stack);
                    assert_eq!(thread.registers[core.machine.instruction_pointer()], instruction);
                    assert!(thread.float_registers.len() >= 512);
                    assert_eq!(thread.float_registers[0], index as u8);
                }
                assert_eq!(core.signal, Some(Signal { number: 11, code: 1, fault_address: Some(0x10) }));
                let (name, arguments) = ("program".into(), "program --fast".into());
                assert_eq!(core.process, Some(Process { pid: 41, name, arguments }));
                assert_eq!(core.auxiliary(9), Some(MODULE + 0x1000));
                assert_eq!(core.auxiliary(33), None);
                assert_eq!(core.files.len(), sample.files.len());
                assert_eq!(core.segments.len(), sample.segments.len());
            }
            (Err(error), Err(expected)) => assert!(format!("{error:#}").contains(expected), "{error:#}"),
            (read, expected) => panic!("{read:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn cores_of_both_machines() {
        check(&Sample::default(), Ok(()));
        check(&Sample { machine: Machine::Aarch64, ..Default::default() }, Ok(()));
        let threads = vec![(1, STACK, 0), (2, STACK, 0), (3, STACK, 0)];
        check(&Sample { threads, ..Default::default() }, Ok(()));
    }

    #[test]
    fn more_mappings_than_the_header_can_count() {
        check(&Sample { program_headers: Some(0xffff), ..Default::default() }, Ok(()));
        let segments = |count| (1..=count).map(|index| (index << 12, Vec::new(), 4096, false)).collect();
        let sample =
            |count| Sample { segments: segments(count), program_headers: Some(0xffff), ..Default::default() };
        check(&sample(PROGRAM_HEADERS_MAX - 1), Ok(()));
        check(&sample(PROGRAM_HEADERS_MAX), Err("65537 program headers"));
    }

    #[test]
    fn no_core_of_any_kernel() {
        let segments = vec![(0x1000, vec![1; 16], 4096, false), (0x1fff, vec![1; 16], 4096, false)];
        check(&Sample { segments, ..Default::default() }, Err("overlap"));
        let segments = vec![(u64::MAX, vec![1; 2], 2, false)];
        check(&Sample { segments, ..Default::default() }, Err("end of the address space"));
        let files = vec![(0x2000, 0x3000, 0, "b"), (0x1000, 0x2000, 0, "a")];
        check(&Sample { files, ..Default::default() }, Err("out of order"));
        let files = vec![(0x2000, 0x3000, u64::MAX, "a")];
        check(&Sample { files, ..Default::default() }, Err("past the end"));
        for (at, value, expected) in [
            (0, vec![0], "not a little-endian"),
            (16, vec![2], "not a core"),
            (18, vec![3], "machine 3"),
            (54, vec![32], "unknown size"),
            (32, vec![0; 8], "within the first header"),
            (64 + 32, vec![0xff; 8], "bytes of notes"),
            (64 + 56 + 8, vec![0x10, 0], "before the end of the notes"),
            (64 + 8, vec![0; 8], "reading order"),
            (64 + 4 * 56 + 4, vec![0xff; 4], "past the notes"),
            (64 + 4 * 56 + 4, vec![4, 0, 0, 0], "cut short"),
        ] {
            let mut bytes = Sample::default().bytes();
            bytes[at..at + value.len()].copy_from_slice(&value);
            let error = read(&bytes).map(|_| ()).expect_err(expected);
            assert!(format!("{error:#}").contains(expected), "{error:#} instead of {expected}");
        }
    }

    #[test]
    fn a_stream_that_ends_early_gives_what_came() {
        let whole = Sample { threads: vec![(1, STACK, 0), (2, STACK, 0)], ..Default::default() }.bytes();
        let mut threads = 0;
        for length in ELF_HEADER_BYTES as usize..4096 {
            let (core, ended_early) = read(&whole[..length]).expect("a core");
            assert!(core.threads.len() >= threads && core.segments.len() <= 3);
            assert!(ended_early || core.threads.len() == 2);
            threads = core.threads.len();
        }
        assert_eq!(threads, 2);
        assert!(read(&whole[..63]).is_err());
    }

    #[test]
    fn only_the_processor_sets_a_fault_address() {
        let address = |number: u32, code: i32| {
            let mut content = [number, 0, code.cast_unsigned(), 0, 5, 0].map(u32::to_le_bytes).concat();
            content.resize(128, 0);
            signal(&content).expect("a signal").fault_address
        };
        assert_eq!(address(11, 1), Some(5));
        assert_eq!(address(11, 0), None, "sent by kill");
        assert_eq!(address(6, -6), None, "sent by abort");
    }

    #[test]
    fn the_build_id_of_this_test() {
        let program = std::fs::read("/proc/self/exe").expect("this program");
        let page = &program[..4096];
        if let Some(id) = build_id(page) {
            assert!(program.windows(id.len()).any(|window| window == id));
        }
        for length in 0..page.len() {
            build_id(&page[..length]);
        }
        assert_eq!(build_id(b"#!/bin/sh"), None);
    }

    proptest::proptest! {
        #[test]
        fn changed_cores_never_panic(at in 0usize..4096, value: [u8; 4]) {
            let mut bytes = Sample::default().bytes();
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&value);
            let _ = read(&bytes);
        }

        #[test]
        fn build_ids_of_anything_never_panic(bytes: Vec<u8>) {
            build_id(&[b"\x7fELF\x02\x01".as_slice(), &bytes].concat());
            build_id_note(&bytes, 4);
            build_id_note(&bytes, 8);
        }
    }
}
