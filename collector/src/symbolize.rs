//! Frames -> functions, on a thread of its own: the blazesym symbolizer is not `Send`, and files are slow.
//!
//! Works on the unique frames of a window. A frame whose function is unknown stays as `module+0x…`; nothing is
//! dropped. Refuses: what is not about names (attribution is done, export comes next).

mod cache;
mod debug_file;
mod jit;
pub mod kallsyms;
mod kernel_symbols;
mod locate;
mod native;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::identity::{Key, Subject};
use crate::io::PendingOperation;
use crate::kernel::MappedFiles;
use crate::process::Module;
use crate::profile::{Frame, Stack, Window};
use crate::telemetry::{FrameKind, Line, Location, Mapping, ProcessName, Profile, Sample, SlowOperation};

use jit::JitSymbols;
use kernel_symbols::KernelSymbols;
use locate::{Peers, locate};
use native::NativeSymbols;

/// What names are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolOptions {
    /// Source lines and inlined functions, from DWARF. Costs memory and time by the size of the debug information.
    pub lines: bool,
    /// Files larger than this are named without lines.
    pub lines_file_bytes_max: u64,
    /// Bytes of function names that are remembered.
    pub cache_bytes_max: usize,
}

/// Names the frames of windows.
pub struct Symbolizer {
    kernel: KernelSymbols,
    native: NativeSymbols,
    jit: JitSymbols,
    mapped_files: MappedFiles,
    mappings: HashMap<u64, Arc<Mapping>>,
    kernel_mapping: Arc<Mapping>,
    vdso_mapping: Arc<Mapping>,
}

/// Mappings that are remembered by module number.
const MAPPINGS_MAX: usize = 16_384;

impl Symbolizer {
    /// A symbolizer without any file open.
    pub fn new(options: SymbolOptions) -> Self {
        let mapping = |path: &str| Arc::new(Mapping { path: path.into(), build_id: None });
        Self {
            kernel: KernelSymbols::default(),
            native: NativeSymbols::new(options),
            jit: JitSymbols::default(),
            mapped_files: MappedFiles::default(),
            mappings: HashMap::new(),
            kernel_mapping: mapping("[kernel]"),
            vdso_mapping: mapping("[vdso]"),
        }
    }

    /// Names all frames of a window and groups its stacks by subject.
    #[tracing::instrument(name = "symbolize window", skip_all, fields(stacks = window.stacks.len()))]
    pub fn profiles(&mut self, window: Window) -> Vec<Profile> {
        let peers = Peers::of(&window.stacks);
        self.native.prepare(&window.stacks, &peers);
        let mut locations = HashMap::new();
        let mut profiles: Vec<Profile> = Vec::new();
        let mut by_subject: HashMap<Key, usize> = HashMap::new();
        for mut stack in window.stacks {
            let locations = self.locations(&stack, &mut locations);
            let index = *by_subject.entry(stack.subject.key()).or_insert_with(|| {
                profiles.push(Profile {
                    subject: Arc::clone(&stack.subject),
                    start_unix_ns: window.start_unix_ns,
                    duration_ns: window.duration_ns,
                    period_ns: window.period_ns,
                    samples: Vec::new(),
                });
                profiles.len() - 1
            });
            let profile = &mut profiles[index];
            let by_span = stack.by_span();
            // The last one takes the locations; nearly all stacks are in no request, and have no other.
            let locations = std::iter::repeat_n(locations, by_span.len());
            for ((span, count), stack_locations) in by_span.into_iter().zip(locations) {
                profile.samples.push(Sample {
                    process: Arc::clone(&stack.process),
                    thread_name: Arc::clone(&stack.thread_name),
                    stack: stack_locations,
                    count,
                    span,
                });
            }
            if stack.subject.revision > profile.subject.revision {
                profile.subject = stack.subject;
            }
        }
        self.end_window();
        profiles
    }

    /// Names the frames of a slow operation.
    pub fn slow_operation(&mut self, pending: PendingOperation) -> SlowOperation {
        let PendingOperation { mut operation, frames, root, .. } = pending;
        let thread_name = Arc::clone(&operation.thread_name);
        operation.stack =
            self.locations_of(&operation.process, &operation.subject, &thread_name, &root, frames);
        operation
    }

    /// Names the frames of one stack, innermost first; a window of its own. `root` is where the files of the process's
    /// container lie on the host.
    pub fn locations_of(
        &mut self,
        process: &Arc<ProcessName>,
        subject: &Arc<Subject>,
        thread_name: &str,
        root: &Arc<[PathBuf]>,
        frames: Vec<Frame>,
    ) -> Vec<Arc<Location>> {
        let stack = Stack {
            process: Arc::clone(process),
            subject: Arc::clone(subject),
            thread_name: thread_name.into(),
            frames,
            count: 1,
            spans: Vec::new(),
            moments: Vec::new(),
        };
        let stacks = [stack];
        self.native.prepare(&stacks, &Peers::of(&stacks).with_root(root));
        let locations = self.locations(&stacks[0], &mut HashMap::new());
        self.end_window();
        // The next stack may be hours away: what was read of debug information must not stay until then.
        self.native.close();
        locations
    }

    /// Where the file of a module can be opened now; `None` if no way leads there any more.
    pub fn path_of(&self, module: &Module, root: &Arc<[PathBuf]>) -> Option<PathBuf> {
        locate(module, &Peers::default().with_root(root))
    }

    /// Drops what recent windows did not use.
    fn end_window(&mut self) {
        self.kernel.end_window();
        self.native.end_window();
        self.jit.end_window();
        self.mapped_files.release();
        if self.mappings.len() > MAPPINGS_MAX {
            self.mappings.clear();
        }
    }

    /// The locations of a stack. Anonymous addresses mean something in their process only.
    fn locations(
        &mut self,
        stack: &Stack,
        known: &mut HashMap<(u32, Frame), Arc<Location>>,
    ) -> Vec<Arc<Location>> {
        let mut locations = Vec::with_capacity(stack.frames.len());
        for frame in &stack.frames {
            let scope = if matches!(frame, Frame::Anonymous(_)) { stack.process.pid } else { 0 };
            let location = known
                .entry((scope, frame.clone()))
                .or_insert_with(|| Arc::new(self.location(stack.process.pid, frame)));
            locations.push(Arc::clone(location));
        }
        locations
    }

    fn location(&mut self, pid: u32, frame: &Frame) -> Location {
        match frame {
            Frame::Kernel(address) => {
                let function = self.kernel.name(*address);
                let mapping = Some(Arc::clone(&self.kernel_mapping));
                Location {
                    address: *address,
                    kind: FrameKind::Kernel,
                    mapping,
                    lines: vec![plain_line(function)],
                }
            }
            Frame::File { module, offset } => {
                let mapping = Some(self.mapping(module));
                let lines = self.native.lines(module, *offset);
                Location { address: *offset, kind: FrameKind::Native, mapping, lines }
            }
            Frame::Vdso(offset) => {
                let function = self.jit.vdso_name(*offset);
                let mapping = Some(Arc::clone(&self.vdso_mapping));
                Location {
                    address: *offset,
                    kind: FrameKind::Native,
                    mapping,
                    lines: vec![plain_line(function)],
                }
            }
            Frame::Anonymous(address) => {
                let function = self.jit.name(pid, *address);
                Location {
                    address: *address,
                    kind: FrameKind::Jit,
                    mapping: None,
                    lines: vec![plain_line(function)],
                }
            }
        }
    }

    fn mapping(&mut self, module: &Module) -> Arc<Mapping> {
        let mapping = self.mappings.entry(module.id).or_insert_with(|| {
            Arc::new(Mapping { path: Arc::clone(&module.path), build_id: module.build_id().map(Into::into) })
        });
        Arc::clone(mapping)
    }
}

fn plain_line(function: Arc<str>) -> Line {
    Line { function, file: None, line: 0 }
}

/// The name of a frame whose function is not known.
fn unknown(module: &str, offset: u64) -> Arc<str> {
    format!("{module}+{offset:#x}").into()
}
