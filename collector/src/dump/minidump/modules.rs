//! Finds the object files of a process among its mapped files, and writes them as the modules of a minidump.
//!
//! Refuses: opening files. A build id comes from the memory of the process, or from the caller.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::sync::Arc;

use anyhow::Result;
use minidump_common::format::{self as layout, MINIDUMP_STREAM_TYPE as StreamType};

use super::super::elf_core::{self, ElfCore};
use super::MinidumpExtras;
use super::output::Output;

/// Read from the start of each module to find its build id.
pub const MODULE_HEADER_BYTES: u64 = 4096;

const AT_ENTRY: u64 = 9;
const AT_SYSINFO_EHDR: u64 = 33;
/// Breakpad's name for the code that the kernel maps into each process.
const VDSO_NAME: &str = "linux-gate.so";

/// A file, or the kernel's own code, in the memory of the process.
pub struct Module {
    /// Address behind its last.
    pub end: u64,
    /// The file, as the process saw it.
    pub path: Arc<str>,
    /// Where in the file its last piece begins; `None` if its first piece is not the start of the file.
    pub last_offset: Option<u64>,
    /// It has code, or proved to be an object file.
    pub executable: bool,
    /// Empty if not known.
    pub build_id: Vec<u8>,
}

/// Files with code, and files mapped from their start, which may turn out to be object files; by first address.
pub fn modules(core: &ElfCore) -> BTreeMap<u64, Module> {
    let mut modules: Vec<(u64, Module)> = Vec::new();
    for file in &core.files {
        let executable = core.segment_of(file.start).is_some_and(|segment| segment.executable);
        match modules.last_mut() {
            // The start of the same file again, behind its other pieces, is a second copy of it.
            Some((_, last)) if last.path == file.path && (file.offset > 0 || last.last_offset == Some(0)) => {
                last.end = file.end;
                last.executable |= executable;
                last.last_offset = last.last_offset.map(|_| file.offset);
            }
            _ => {
                let last_offset = (file.offset == 0).then_some(0);
                let path = file.path.clone();
                let module = Module { end: file.end, path, last_offset, executable, build_id: Vec::new() };
                modules.push((file.start, module));
            }
        }
    }
    modules.retain(|(_, module)| module.executable || module.last_offset.is_some());
    if let Some(vdso) = core.auxiliary(AT_SYSINFO_EHDR).and_then(|address| core.segment_of(address)) {
        let end = vdso.address.saturating_add(vdso.memory_bytes);
        let (path, build_id) = (VDSO_NAME.into(), Vec::new());
        let module = Module { end, path, last_offset: Some(0), executable: true, build_id };
        modules.push((vdso.address, module));
    }
    modules.into_iter().collect()
}

/// Writes the modules that have code or proved to be object files, the program itself first; gives their number.
pub fn write_modules<W: Write + Seek>(
    output: &mut Output<W>,
    core: &ElfCore,
    modules: BTreeMap<u64, Module>,
    modules_max: usize,
    extras: &MinidumpExtras,
) -> Result<usize> {
    let entry = core.auxiliary(AT_ENTRY).unwrap_or(0);
    let mut modules: Vec<_> = modules.into_iter().filter(|(_, module)| module.executable).collect();
    modules.truncate(modules_max);
    modules.sort_by_key(|(base, module)| !(*base..module.end).contains(&entry));
    let mut entries = Vec::new();
    for (base, module) in modules {
        let given = extras.build_ids.get(&*module.path).filter(|_| module.build_id.is_empty());
        let build_id = given.unwrap_or(&module.build_id);
        let mut cv_record = layout::MINIDUMP_LOCATION_DESCRIPTOR::default();
        if (1..=elf_core::BUILD_ID_BYTES_MAX).contains(&build_id.len()) {
            let signature = (layout::CvSignature::Elf as u32).to_le_bytes();
            cv_record = output.bytes(&[&signature, build_id.as_slice()].concat())?;
        }
        entries.push(layout::MINIDUMP_MODULE {
            base_of_image: base,
            size_of_image: u32::try_from(module.end - base).unwrap_or(u32::MAX),
            module_name_rva: output.string(&module.path)?,
            cv_record,
            ..Default::default()
        });
    }
    let count = entries.len();
    output.list(StreamType::ModuleListStream, entries)?;
    Ok(count)
}
