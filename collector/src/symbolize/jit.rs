//! Names of code without a file: perf-map files of runtimes, and the kernel's shared object (vDSO).
//!
//! Refuses: processes that are gone. Their perf map may belong to a new process with the same id.

use std::collections::HashMap;
use std::sync::Arc;

use blazesym::Pid;
use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{Input, Symbolizer};

use super::unknown;

/// Processes whose perf map is kept.
const PROCESSES_MAX: usize = 64;

/// A perf map is read into memory; a larger one is left alone.
const PERF_MAP_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Windows after which the unused perf maps are dropped.
const IDLE_WINDOWS_MAX: u32 = 6;

/// Names in anonymous code.
#[derive(Default)]
pub struct JitSymbols {
    symbolizer: Option<Symbolizer>,
    has_perf_map: HashMap<u32, bool>,
    vdso_start: Option<u64>,
    vdso_names: HashMap<u64, Arc<str>>,
    idle_windows: u32,
}

impl JitSymbols {
    /// The function at an address of a process.
    pub fn name(&mut self, pid: u32, address: u64) -> Arc<str> {
        let has_perf_map = *self.has_perf_map.entry(pid).or_insert_with(|| has_perf_map(pid));
        let name = has_perf_map.then(|| self.look_up(Pid::from(pid), address, true)).flatten();
        name.unwrap_or_else(|| unknown("[anon]", address))
    }

    /// The function at an offset of the vDSO, which is the same in every process: our own is asked.
    pub fn vdso_name(&mut self, offset: u64) -> Arc<str> {
        if let Some(name) = self.vdso_names.get(&offset) {
            return Arc::clone(name);
        }
        let start = *self.vdso_start.get_or_insert_with(own_vdso_start);
        let name = (start != 0).then(|| self.look_up(Pid::Slf, start + offset, false)).flatten();
        let name = name.unwrap_or_else(|| unknown("[vdso]", offset));
        // Bounded by the size of the vDSO: some pages.
        self.vdso_names.insert(offset, Arc::clone(&name));
        name
    }

    /// Ends a window: whether a process has a perf map is asked anew in each.
    pub fn end_window(&mut self) {
        let uses = self.has_perf_map.values().filter(|&&has| has).count();
        self.idle_windows = if uses > 0 { 0 } else { self.idle_windows + 1 };
        if self.idle_windows > IDLE_WINDOWS_MAX || uses > PROCESSES_MAX {
            self.symbolizer = None;
        }
        self.has_perf_map.clear();
    }

    fn look_up(&mut self, pid: Pid, address: u64, perf_map: bool) -> Option<Arc<str>> {
        let symbolizer =
            self.symbolizer.get_or_insert_with(|| Symbolizer::builder().enable_code_info(false).build());
        let mut process = Process::new(pid);
        process.perf_map = perf_map;
        process.debug_syms = false;
        process.vdso = true;
        let symbolized =
            symbolizer.symbolize_single(&Source::Process(process), Input::AbsAddr(address)).ok()?;
        symbolized.into_sym().map(|symbol| symbol.name.into())
    }
}

/// Whether a process wrote `/tmp/perf-PID.map`, with its id in its own PID namespace, in its own mount namespace.
fn has_perf_map(pid: u32) -> bool {
    let status =
        i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok()?.status().ok());
    let own_pid = status.and_then(|status| status.nspid?.last().copied()).unwrap_or(pid as i32);
    // Not followed if it is a link, not opened if it is a pipe: the file belongs to the container.
    let metadata = std::fs::symlink_metadata(format!("/proc/{pid}/root/tmp/perf-{own_pid}.map"));
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() <= PERF_MAP_BYTES_MAX)
}

fn own_vdso_start() -> u64 {
    let maps = procfs::process::Process::myself().and_then(|own| own.maps());
    let vdso = maps.ok().and_then(|maps| {
        maps.into_iter()
            .find(|region| region.pathname == procfs::process::MMapPath::Vdso)
            .map(|region| region.address.0)
    });
    vdso.unwrap_or(0)
}
