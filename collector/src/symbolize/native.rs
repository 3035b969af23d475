//! Names of code in files: ELF symbols by default, DWARF lines and inlined functions on request.
//!
//! For a stripped file the debug file is looked for, by build id and debug link. Refuses: parsing ELF itself
//! (blazesym and object do), and keeping files mapped that recent windows did not use.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Sym, Symbolized, Symbolizer, evict};

use super::cache::{Function, FunctionCache};
use super::debug_file::{self, SegmentMap};
use super::locate::{Peers, locate};
use super::{SymbolOptions, unknown};
use crate::kernel::FileId;
use crate::process::Module;
use crate::profile::{Frame, Stack};
use crate::telemetry::Line;

/// Windows after which an unused file is unmapped, and after which a file that was not found is looked for again.
const IDLE_WINDOWS_MAX: u64 = 6;

/// Files that are kept open at once.
const FILES_MAX: usize = 64;

/// Names by file.
pub struct NativeSymbols {
    symbolizer: Symbolizer,
    functions: FunctionCache,
    files: HashMap<FileId, OpenFile>,
    window: u64,
    lines: bool,
    lines_file_bytes_max: u64,
}

/// Where a module's symbols are.
struct OpenFile {
    /// The file, and its debug file if it is stripped. Empty: it could not be found.
    sources: Vec<SymbolFile>,
    used_in_window: u64,
}

struct SymbolFile {
    path: PathBuf,
    /// Turns offsets of the module into addresses, for a debug file, whose own offsets differ.
    segments: Option<SegmentMap>,
}

impl NativeSymbols {
    /// No file is open yet.
    pub fn new(options: SymbolOptions) -> Self {
        Self {
            symbolizer: new_symbolizer(options.lines),
            functions: FunctionCache::new(options.cache_bytes_max),
            files: HashMap::new(),
            window: 0,
            lines: options.lines,
            lines_file_bytes_max: options.lines_file_bytes_max,
        }
    }

    /// Looks up what the stacks need and the cache does not hold, file by file.
    pub fn prepare(&mut self, stacks: &[Stack], peers: &Peers) {
        let mut missing: HashMap<FileId, (Arc<Module>, HashSet<u64>)> = HashMap::new();
        for frame in stacks.iter().flat_map(|stack| &stack.frames) {
            if let Frame::File { module, offset } = frame
                && self.functions.get(module.file, *offset).is_none()
            {
                let entry =
                    missing.entry(module.file).or_insert_with(|| (Arc::clone(module), HashSet::new()));
                entry.1.insert(*offset);
            }
        }
        for (module, offsets) in missing.into_values() {
            let mut offsets: Vec<u64> = offsets.into_iter().collect();
            offsets.sort_unstable();
            self.look_up(&module, &offsets, peers);
        }
    }

    /// The functions at an offset of a module, innermost first.
    pub fn lines(&mut self, module: &Module, offset: u64) -> Vec<Line> {
        match self.functions.get(module.file, offset) {
            Some(function) => {
                let line = |(name, file, line): &(Arc<str>, Option<Arc<str>>, u32)| Line {
                    function: Arc::clone(name),
                    file: file.clone(),
                    line: *line,
                };
                function.lines.iter().map(line).collect()
            }
            None => vec![Line { function: unknown(module.file_name(), offset), file: None, line: 0 }],
        }
    }

    /// Ends a window: files that were not used for a while are closed.
    pub fn end_window(&mut self) {
        self.window += 1;
        self.functions.end_window();
        let limit = if self.files.len() > FILES_MAX { 1 } else { IDLE_WINDOWS_MAX };
        let window = self.window;
        let idle: Vec<FileId> = self
            .files
            .iter()
            .filter(|(_, file)| file.used_in_window + limit < window)
            .map(|(id, _)| *id)
            .collect();
        self.close_these(idle);
    }

    /// Closes all files.
    pub fn close(&mut self) {
        let all = self.files.keys().copied().collect();
        self.close_these(all);
    }

    fn close_these(&mut self, ids: Vec<FileId>) {
        for id in ids {
            for source in self.files.remove(&id).into_iter().flat_map(|file| file.sources) {
                // Nothing cached is not an error, and there is no other.
                let _nothing_cached = self.symbolizer.evict(&evict::Evict::Elf(evict::Elf::new(source.path)));
            }
        }
    }

    fn look_up(&mut self, module: &Module, offsets: &[u64], peers: &Peers) {
        let Self { files, symbolizer, functions, window, lines, lines_file_bytes_max } = self;
        let file = files
            .entry(module.file)
            .or_insert_with(|| OpenFile { sources: open(module, peers), used_in_window: *window });
        if file.sources.is_empty() {
            return;
        }
        file.used_in_window = *window;
        let mut left = offsets.to_vec();
        for source in &file.sources {
            // A file made to crash parsers must not take the agent with it.
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
                let lines = *lines && is_at_most(&source.path, *lines_file_bytes_max);
                symbolize(symbolizer, source, lines, module.file, &left, functions)
            }));
            match result {
                Ok(Ok(unknown)) => left = unknown,
                Err(_) => {
                    tracing::warn!(path = %source.path.display(), "this file makes the symbolizer panic: left alone");
                    *symbolizer = new_symbolizer(*lines);
                    file.sources.clear();
                    return;
                }
                Ok(Err(error)) => {
                    // The file changed or went away under us, or is broken: it is looked for again later.
                    tracing::debug!(path = %source.path.display(), %error, "cannot read symbols");
                    file.sources.clear();
                    return;
                }
            }
        }
        for offset in left {
            let lines = vec![(unknown(module.file_name(), offset), None, 0)];
            functions.insert(module.file, offset, Function { end: offset + 1, lines });
        }
    }
}

fn is_at_most(path: &Path, bytes_max: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= bytes_max)
}

fn new_symbolizer(lines: bool) -> Symbolizer {
    Symbolizer::builder().enable_code_info(lines).enable_inlined_fns(lines).build()
}

fn open(module: &Module, peers: &Peers) -> Vec<SymbolFile> {
    let Some(path) = locate(module, peers) else {
        tracing::debug!(path = %module.path, "no way leads to this file any more");
        return Vec::new();
    };
    let debug = debug_file::find(&path, module.file);
    let own = SymbolFile { path, segments: None };
    let debug = debug.map(|(path, segments)| SymbolFile { path, segments: Some(segments) });
    debug.into_iter().chain([own]).filter(|file| debug_file::is_bounded(&file.path)).collect()
}

/// Remembers the functions that are found; returns the offsets that are not.
fn symbolize(
    symbolizer: &Symbolizer,
    file: &SymbolFile,
    lines: bool,
    id: FileId,
    offsets: &[u64],
    functions: &mut FunctionCache,
) -> blazesym::Result<Vec<u64>> {
    let mut elf = Elf::new(&file.path);
    elf.debug_syms = lines;
    let source = Source::Elf(elf);
    let symbolized = match &file.segments {
        Some(segments) => {
            let addresses: Vec<u64> =
                offsets.iter().map(|&offset| segments.address(offset).unwrap_or(0)).collect();
            symbolizer.symbolize(&source, Input::VirtOffset(&addresses))
        }
        None => symbolizer.symbolize(&source, Input::FileOffset(offsets)),
    };
    let mut left = Vec::new();
    for (&offset, symbolized) in offsets.iter().zip(symbolized?) {
        match symbolized {
            Symbolized::Sym(symbol) => {
                let (start, function) = function(&symbol, offset, lines);
                functions.insert(id, start, function);
            }
            Symbolized::Unknown(_) => left.push(offset),
        }
    }
    Ok(left)
}

/// The range of offsets that a symbol answers for. With lines, or without a size, that is the one offset.
fn function(symbol: &Sym<'_>, offset: u64, lines: bool) -> (u64, Function) {
    let start = offset.saturating_sub(symbol.offset as u64);
    let name: Arc<str> = symbol.name.as_ref().into();
    match symbol.size {
        Some(size) if !lines && (symbol.offset as u64) < size as u64 => {
            (start, Function { end: start + size as u64, lines: vec![(name, None, 0)] })
        }
        _ => {
            let place = |info: &blazesym::symbolize::CodeInfo<'_>| {
                (Some(info.to_path().to_string_lossy().into()), info.line.unwrap_or(0))
            };
            let mut lines: Vec<(Arc<str>, Option<Arc<str>>, u32)> = Vec::new();
            let (file, line) = symbol.code_info.as_deref().map(place).unwrap_or((None, 0));
            lines.push((name, file, line));
            for inlined in &symbol.inlined {
                let (file, line) = inlined.code_info.as_ref().map(place).unwrap_or((None, 0));
                lines.push((inlined.name.as_ref().into(), file, line));
            }
            // blazesym gives the outermost first.
            lines.reverse();
            (offset, Function { end: offset + 1, lines })
        }
    }
}
