//! The debug file of a stripped binary, by build id and by `.gnu_debuglink`.
//!
//! GDB manual, "Separate Debug Files". Refuses: a debug file of another build, and binaries that have their symbols.

use std::fs::File;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, ProgramHeader, SectionHeader};
use object::{Endianness, Object, ReadCache};

use crate::kernel::FileId;

const DEBUG_DIRECTORIES: [&str; 2] = ["/usr/lib/debug", "/lib/debug"];

/// Symbols of a file. A Rust compiler has 1.2 million, a browser with debug information 2.
const SYMBOLS_MAX: u64 = 4_000_000;

/// `sizeof(Elf64_Sym)`
const SYMBOL_BYTES: u64 = 24;

/// The loaded segments of a file: file offset, size, address.
pub struct SegmentMap(Vec<(u64, u64, u64)>);

impl SegmentMap {
    /// The address, as the file's own symbols count, of an offset.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let segment = self.0.iter().find(|(start, size, _)| offset >= *start && offset - start < *size);
        segment.map(|(start, _, address)| offset - start + address)
    }
}

/// Whether a file has no more symbols than an honest one: its section table may claim anything, and each symbol that it
/// claims costs memory.
pub fn is_bounded(path: &Path) -> bool {
    let symbols = File::open(path).ok().and_then(|file| {
        let file = ReadCache::new(file);
        let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&file).ok()?;
        let endian = elf.endian();
        let tables = elf.elf_section_table().iter().filter(|section| {
            matches!(section.sh_type(endian), object::elf::SHT_SYMTAB | object::elf::SHT_DYNSYM)
        });
        Some(tables.map(|section| section.sh_size(endian) / SYMBOL_BYTES).fold(0u64, u64::saturating_add))
    });
    symbols.is_none_or(|symbols| symbols <= SYMBOLS_MAX)
}

/// The debug file of a binary and the binary's segments; `None` if the binary has symbols or has no debug file.
pub fn find(path: &Path, id: FileId) -> Option<(PathBuf, SegmentMap)> {
    let file = ReadCache::new(File::open(path).ok()?);
    let elf: ElfFile64<'_, Endianness, _> = ElfFile64::parse(&file).ok()?;
    if elf.symbol_table().is_some() {
        return None;
    }
    let link = elf.gnu_debuglink().ok().flatten().map(|(name, _)| String::from_utf8_lossy(name).into_owned());
    let found = candidates(path, id, link.as_deref()).into_iter().find(|candidate| matches(candidate, id))?;
    let segments = elf
        .elf_program_headers()
        .iter()
        .filter(|segment| segment.p_type(elf.endian()) == object::elf::PT_LOAD);
    let segments = segments.map(|segment| {
        let endian = elf.endian();
        (segment.p_offset(endian), segment.p_filesz(endian), segment.p_vaddr(endian))
    });
    Some((found, SegmentMap(segments.collect())))
}

/// Where a debug file may be: in the binary's own root directory first, then on the host.
fn candidates(path: &Path, id: FileId, link: Option<&str>) -> Vec<PathBuf> {
    let (root, inner) = split_root(path);
    let mut candidates = Vec::new();
    for root in [root.as_str(), ""] {
        for directory in DEBUG_DIRECTORIES {
            if let FileId::BuildId(build_id) = id {
                let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
                candidates
                    .push(format!("{root}{directory}/.build-id/{}/{}.debug", &hex[..2], &hex[2..]).into());
            }
            if let (Some(link), Some(parent)) = (link, inner.parent()) {
                candidates.push(PathBuf::from(format!("{root}{directory}{}/{link}", parent.display())));
            }
        }
    }
    if let (Some(link), Some(parent)) = (link, path.parent()) {
        candidates.push(parent.join(link));
        candidates.push(parent.join(".debug").join(link));
    }
    candidates
}

/// Splits `/proc/PID/root/usr/bin/x` into the root and the path below it.
fn split_root(path: &Path) -> (String, PathBuf) {
    let text = path.to_string_lossy();
    match text.strip_prefix("/proc/").and_then(|rest| rest.split_once("/root/")) {
        Some((pid, inner)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => {
            (format!("/proc/{pid}/root"), PathBuf::from(format!("/{inner}")))
        }
        _ => (String::new(), path.to_path_buf()),
    }
}

/// A debug file carries the build id of its binary. A binary without one cannot prove its debug file: none is taken.
fn matches(candidate: &Path, id: FileId) -> bool {
    let FileId::BuildId(expected) = id else { return false };
    if !candidate.is_file() {
        return false;
    }
    let found = blazesym::helper::read_elf_build_id(candidate);
    found.ok().flatten().is_some_and(|found| expected.starts_with(&found) && !found.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected_root: &str, expected_inner: &str) {
        let (root, inner) = split_root(Path::new(path));
        assert_eq!((root.as_str(), inner.as_path()), (expected_root, Path::new(expected_inner)), "{path}");
    }

    #[test]
    fn roots() {
        check("/proc/12/root/usr/bin/x", "/proc/12/root", "/usr/bin/x");
        check("/usr/bin/x", "", "/usr/bin/x");
        check("/proc/12/map_files/1-2", "", "/proc/12/map_files/1-2");
    }

    #[test]
    fn segments() {
        let map = SegmentMap(vec![(0, 100, 0), (0x1000, 0x500, 0x40_1000)]);
        assert_eq!(map.address(5), Some(5));
        assert_eq!(map.address(0x1010), Some(0x40_1010));
        assert_eq!(map.address(0x1500), None);
    }
}
