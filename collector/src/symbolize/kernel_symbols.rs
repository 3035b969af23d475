//! Names of kernel addresses, modules included, from `/proc/kallsyms`.
//!
//! Refuses: vmlinux files and their DWARF (hundreds of megabytes), and addresses the kernel hides: they stay numbers.

use std::collections::HashMap;
use std::sync::Arc;

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolizer};

use super::unknown;

/// Names that are remembered. A kernel has some hundred hot call sites.
const NAMES_MAX: usize = 16_384;

/// Windows after which the unused symbol table is dropped.
const IDLE_WINDOWS_MAX: u32 = 2;

/// Kernel names by address.
#[derive(Default)]
pub struct KernelSymbols {
    symbolizer: Option<Symbolizer>,
    names: HashMap<u64, Arc<str>>,
    idle_windows: u32,
}

impl KernelSymbols {
    /// The function at a kernel address.
    pub fn name(&mut self, address: u64) -> Arc<str> {
        if let Some(name) = self.names.get(&address) {
            return Arc::clone(name);
        }
        let name = self.look_up(address).unwrap_or_else(|| unknown("[kernel]", address));
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        self.names.insert(address, Arc::clone(&name));
        name
    }

    /// Ends a window.
    pub fn end_window(&mut self) {
        self.idle_windows += 1;
        if self.idle_windows > IDLE_WINDOWS_MAX {
            self.symbolizer = None;
        }
    }

    fn look_up(&mut self, address: u64) -> Option<Arc<str>> {
        self.idle_windows = 0;
        let symbolizer =
            self.symbolizer.get_or_insert_with(|| Symbolizer::builder().enable_code_info(false).build());
        let source =
            Source::Kernel(Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() });
        let symbolized = symbolizer.symbolize_single(&source, Input::AbsAddr(address)).ok()?;
        symbolized.into_sym().map(|symbol| symbol.name.into())
    }
}
