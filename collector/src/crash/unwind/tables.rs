//! The unwind tables of one file: `.eh_frame`, found by `.eh_frame_hdr` or, without that, by its section.
//!
//! Reads only those parts of the file, each with a bound of its own. Refuses: `.debug_frame`, files that are not 64-bit
//! little-endian ELF, and tables larger than any honest program's.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, EhFrame, EhFrameHdr, EhFrameOffset, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Section, UnwindContext, UnwindSection,
};
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, FileHeader64, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64, SectionHeader64,
};
use object::pod::{Pod, bytes_of_slice, bytes_of_slice_mut, slice_from_bytes};

use super::processor::{CALL_BYTES_MAX, Processor};
use super::rules::Rules;

/// Tables of one file: the largest browser has 20 MiB.
const TABLE_BYTES_OF_FILE_MAX: u64 = 64 << 20;

/// Headers of one file: program headers are some 15, sections some 50, thousands in a few test programs.
const HEADERS_MAX: u16 = 4_096;

/// Names of a file's sections.
const SECTION_NAME_BYTES_MAX: u64 = 1 << 20;

/// Entries of a table that has no sorted index of its own. The C library has 10 000.
const ENTRIES_INDEXED_MAX: usize = 1 << 20;

/// One entry: a program of which each byte may be an instruction. A function of 100 KiB code has some KiB.
const ENTRY_BYTES_MAX: usize = 64 << 10;

/// What entries have in common, some 30 bytes. It is parsed again for each entry of a table.
const COMMON_BYTES_MAX: u32 = 1 << 10;

const ADDRESS_BYTES: u8 = 8;

/// A file with code, open.
pub struct CodeFile {
    file: File,
    processor: &'static Processor,
    segments: Vec<Segment>,
    tables: Option<Tables>,
}

/// A part of a file that is loaded.
#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    bytes: u64,
    address: u64,
}

struct Tables {
    entries: Part,
    lookup: Lookup,
}

/// Bytes of the file and the address that the file gives them.
struct Part {
    address: u64,
    bytes: Vec<u8>,
}

/// How the entry of an address is found.
enum Lookup {
    /// The linker's sorted index.
    Header(Part),
    /// First address and offset of each entry, sorted: made here.
    Own(Vec<(u64, usize)>),
}

impl CodeFile {
    /// Opens a file and reads its tables, which count against `bytes_left`; `None` if it is no such file.
    pub fn open(path: &Path, processor: &'static Processor, bytes_left: &mut u64) -> Option<Self> {
        // Opening a pipe that a container put in the file's place would wait for ever, opening a device may do anything.
        // Without a root a name is no file's: `[vdso]`, anonymous code.
        let metadata = path.is_absolute().then(|| std::fs::metadata(path).ok()).flatten()?;
        if !metadata.is_file() {
            return None;
        }
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).ok()?;
        file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let header: FileHeader64<object::LittleEndian> = read_one(&file, 0)?;
        let ident = header.e_ident;
        if ident.magic != ELFMAG || ident.class != ELFCLASS64 || ident.data != ELFDATA2LSB {
            return None;
        }
        let little = object::LittleEndian;
        let programs: Vec<ProgramHeader64<object::LittleEndian>> =
            read_all(&file, header.e_phoff.get(little), header.e_phnum.get(little))?;
        let segment = |program: &ProgramHeader64<object::LittleEndian>| Segment {
            offset: program.p_offset.get(little),
            bytes: program.p_filesz.get(little),
            address: program.p_vaddr.get(little),
        };
        let of_type = |wanted| programs.iter().filter(move |program| program.p_type.get(little) == wanted);
        let segments: Vec<Segment> = of_type(PT_LOAD).map(segment).collect();
        let mut code_file = Self { file, processor, segments, tables: None };
        let index = of_type(PT_GNU_EH_FRAME).map(segment).next();
        code_file.tables = index
            .and_then(|index| code_file.tables_by_header(index, bytes_left))
            .or_else(|| code_file.tables_by_section(&header, bytes_left));
        Some(code_file)
    }

    /// The rules for the code at an offset of the file; `None` if no table has it.
    pub fn rules<'b>(&'b self, context: &'b mut UnwindContext<usize>, offset: u64) -> Option<Rules<'b>> {
        let tables = self.tables.as_ref()?;
        let address = self.address(offset)?;
        let bases = tables.bases();
        let section = tables.entries.section(self.processor);
        let entry = tables.entry(&section, &bases, address)?;
        let row = entry.unwind_info_for_address(&section, &bases, context, address).ok()?;
        let (encoding, is_signal_frame) = (entry.cie().encoding(), entry.is_signal_trampoline());
        Some(Rules { row, section, encoding, is_signal_frame, processor: self.processor })
    }

    /// The code that ends with the byte at an offset.
    pub fn code_until(&self, offset: u64) -> Option<[u8; CALL_BYTES_MAX]> {
        let mut code = [0; CALL_BYTES_MAX];
        let start = offset.checked_sub(CALL_BYTES_MAX as u64 - 1)?;
        self.file.read_exact_at(&mut code, start).ok()?;
        Some(code)
    }

    /// The address that the file gives to an offset.
    fn address(&self, offset: u64) -> Option<u64> {
        let within =
            |segment: &&Segment| offset.checked_sub(segment.offset).is_some_and(|from| from < segment.bytes);
        let segment = self.segments.iter().find(within)?;
        segment.address.checked_add(offset - segment.offset)
    }

    fn tables_by_header(&self, index: Segment, bytes_left: &mut u64) -> Option<Tables> {
        let index = self.read(index, bytes_left)?;
        let bases = BaseAddresses::default().set_eh_frame_hdr(index.address);
        let parsed = index.header().parse(&bases, ADDRESS_BYTES).ok()?;
        let start = parsed.eh_frame_ptr().direct().ok().filter(|_| parsed.table().is_some())?;
        // The header does not say where the entries end. They are the last in their segment, or nearly.
        let within =
            |segment: &&Segment| start.checked_sub(segment.address).is_some_and(|from| from < segment.bytes);
        let segment = self.segments.iter().find(within)?;
        let from = start - segment.address;
        let rest = Segment {
            offset: segment.offset.checked_add(from)?,
            bytes: (segment.bytes - from).min(TABLE_BYTES_OF_FILE_MAX),
            address: start,
        };
        let entries = self.read(rest, bytes_left)?;
        Some(Tables { entries, lookup: Lookup::Header(index) })
    }

    /// For static programs whose linker made no sorted index.
    fn tables_by_section(
        &self,
        header: &FileHeader64<object::LittleEndian>,
        bytes_left: &mut u64,
    ) -> Option<Tables> {
        let little = object::LittleEndian;
        let sections: Vec<SectionHeader64<object::LittleEndian>> =
            read_all(&self.file, header.e_shoff.get(little), header.e_shnum.get(little))?;
        let names = sections.get(usize::from(header.e_shstrndx.get(little).0))?;
        let names = self
            .read_bytes(names.sh_offset.get(little), names.sh_size.get(little).min(SECTION_NAME_BYTES_MAX))?;
        let is_wanted = |section: &&SectionHeader64<object::LittleEndian>| {
            let name = names.get(section.sh_name.get(little) as usize..);
            name.is_some_and(|name| name.starts_with(b".eh_frame\0"))
        };
        let section = sections.iter().find(is_wanted)?;
        let section = Segment {
            offset: section.sh_offset.get(little),
            bytes: section.sh_size.get(little),
            address: section.sh_addr.get(little),
        };
        let entries = self.read(section, bytes_left)?;
        let index = own_index(&entries, self.processor);
        Some(Tables { entries, lookup: Lookup::Own(index) })
    }

    fn read(&self, part: Segment, bytes_left: &mut u64) -> Option<Part> {
        let left = bytes_left.checked_sub(part.bytes).filter(|_| part.bytes <= TABLE_BYTES_OF_FILE_MAX)?;
        let bytes = self.read_bytes(part.offset, part.bytes)?;
        *bytes_left = left;
        Some(Part { address: part.address, bytes })
    }

    fn read_bytes(&self, offset: u64, bytes: u64) -> Option<Vec<u8>> {
        let mut buffer = vec![0; usize::try_from(bytes).ok()?];
        self.file.read_exact_at(&mut buffer, offset).ok()?;
        Some(buffer)
    }
}

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

impl Part {
    fn section(&self, processor: &Processor) -> EhFrame<Bytes<'_>> {
        let mut section = EhFrame::new(&self.bytes, LittleEndian);
        section.set_address_size(ADDRESS_BYTES);
        section.set_vendor(processor.vendor);
        section
    }

    fn header(&self) -> EhFrameHdr<Bytes<'_>> {
        EhFrameHdr::new(&self.bytes, LittleEndian)
    }
}

impl Tables {
    fn bases(&self) -> BaseAddresses {
        let bases = BaseAddresses::default().set_eh_frame(self.entries.address);
        match &self.lookup {
            Lookup::Header(index) => bases.set_eh_frame_hdr(index.address),
            Lookup::Own(_) => bases,
        }
    }

    /// The entry of an address. The index only proposes one: whether it covers the address is asked of itself.
    fn entry<'a>(
        &'a self,
        section: &EhFrame<Bytes<'a>>,
        bases: &BaseAddresses,
        address: u64,
    ) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
        let offset = match &self.lookup {
            Lookup::Header(index) => {
                let parsed = index.header().parse(bases, ADDRESS_BYTES).ok()?;
                let pointer = parsed.table()?.lookup(address, bases).ok()?.direct().ok()?;
                usize::try_from(pointer.checked_sub(self.entries.address)?).ok()?
            }
            Lookup::Own(index) => {
                let behind = index.partition_point(|(start, _)| *start <= address);
                index[..behind].last()?.1
            }
        };
        let entry = section.fde_from_offset(bases, EhFrameOffset(offset), common).ok()?;
        (entry.entry_len() <= ENTRY_BYTES_MAX && entry.contains(address)).then_some(entry)
    }
}

/// What an entry has in common with others, if it is no larger than honest ones: its parser reads all of it.
fn common<'a>(
    section: &EhFrame<Bytes<'a>>,
    bases: &BaseAddresses,
    offset: EhFrameOffset,
) -> gimli::Result<CommonInformationEntry<Bytes<'a>>> {
    let bytes: Option<[u8; 4]> =
        section.reader().slice().get(offset.0..).and_then(|rest| rest.first_chunk()).copied();
    if bytes.is_none_or(|bytes| u32::from_le_bytes(bytes) > COMMON_BYTES_MAX) {
        return Err(gimli::Error::NoUnwindInfoForAddress);
    }
    section.cie_from_offset(bases, offset)
}

/// Up to the first entry that is broken.
fn own_index(entries: &Part, processor: &Processor) -> Vec<(u64, usize)> {
    let section = entries.section(processor);
    let bases = BaseAddresses::default().set_eh_frame(entries.address);
    let mut index = Vec::new();
    let mut iterator = section.entries(&bases);
    while let Ok(Some(entry)) = iterator.next() {
        let CieOrFde::Fde(entry) = entry else { continue };
        let Ok(entry) = entry.parse(common) else { break };
        if index.len() == ENTRIES_INDEXED_MAX {
            break;
        }
        index.push((entry.initial_address(), entry.offset()));
    }
    index.sort_unstable();
    index
}

fn read_one<T: Pod>(file: &File, offset: u64) -> Option<T> {
    read_all(file, offset, 1)?.into_iter().next()
}

fn read_all<T: Pod>(file: &File, offset: u64, count: u16) -> Option<Vec<T>> {
    let count = usize::from(Some(count).filter(|count| *count <= HEADERS_MAX)?);
    // Words, because the records must be aligned to them.
    let mut words = vec![0u64; (size_of::<T>() * count).div_ceil(size_of::<u64>())];
    file.read_exact_at(bytes_of_slice_mut(&mut words), offset).ok()?;
    let (records, _) = slice_from_bytes::<T>(bytes_of_slice(&words), count).ok()?;
    Some(records.to_vec())
}
