//! Deaths -> records: unwinds, names, redacts and sums up, on the reporter's thread.
//!
//! Refuses: waiting for anybody, and a record that hides what it does not know: that is in `incomplete`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_common::crash::{FaultRecord, SignalRecord};
use collector_common::limits::{STACK_PAGE_BYTES, STACK_PAGES_MAX};

use super::death::Death;
use super::fingerprint::fingerprint;
use super::kernel_stack;
use super::place;
use super::record::{
    CodeMapping, CrashRecord, DumpFile, Exit, Kind, ProcessInfo, SCHEMA, SenderKind, SignalInfo, SpanInfo,
    StackFrame, Stderr, Threads,
};
use super::redact::Redactor;
use super::summary;
use super::unwind::{CodeRegion, End, StackSnapshot, unwind};
use super::{signals, spool, status, text};
use crate::arch;
use crate::dump::service::{self, RENAME_MAX};
use crate::dump::{Policies, Store};
use crate::process::{Place, TICK_NS, comm};
use crate::profile::{Frame, called_from};
use crate::symbolize::kallsyms::Kallsyms;
use crate::symbolize::{SymbolOptions, Symbolizer};
use crate::telemetry::{FrameKind, Location, hexadecimal};

/// Mappings in a record.
const MAPPINGS_MAX: usize = 256;

/// Fingerprints that are remembered for deaths that lost their stack to the limits.
const FINGERPRINTS_MAX: usize = 4_096;

/// Larger files are named without lines: reading their debug information takes several times this in memory.
const LINES_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes of function names that the reporter remembers.
const SYMBOL_CACHE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How often a dump is looked for.
const RENAME_POLL: Duration = Duration::from_millis(10);

/// Makes records.
pub struct Reporter {
    symbolizer: Symbolizer,
    kallsyms: Kallsyms,
    redactor: Redactor,
    dumps: Option<(Store, Policies)>,
    is_hurried: bool,
    fingerprints: HashMap<u64, String>,
}

impl Reporter {
    /// A reporter with rules for what must not leave, and the dumps that may belong to deaths.
    pub fn new(redactor: Redactor, dumps: Option<(Store, Policies)>) -> Self {
        let options = SymbolOptions {
            lines: true,
            lines_file_bytes_max: LINES_FILE_BYTES_MAX,
            cache_bytes_max: SYMBOL_CACHE_BYTES_MAX,
        };
        Self {
            symbolizer: Symbolizer::new(options),
            kallsyms: Kallsyms::default(),
            redactor,
            dumps,
            is_hurried: false,
            fingerprints: HashMap::new(),
        }
    }

    /// From now on records are made without what takes time: the agent stops and has had its time for more.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// The record of a death.
    pub fn record(&mut self, death: &Death) -> CrashRecord {
        let mut record = CrashRecord {
            schema: SCHEMA,
            id: spool::id(death.time_unix_ns, death.name.pid),
            time_unix_ns: death.time_unix_ns,
            start_unix_ns: death.start_unix_ns,
            kind: death.kind,
            suppressed: death.suppressed,
            resource: death
                .subject
                .attributes()
                .into_iter()
                .map(|(key, value)| (key.into_owned(), value))
                .collect(),
            restart_count: death.subject.pod().and_then(|pod| pod.restart_count),
            process: self.process(death),
            exit: exit(death.status),
            sender: death.sender.clone(),
            oom: death.oom.clone(),
            cgroup_memory: death.cgroup_memory.clone(),
            mappings: mappings(death),
            stderr: self.stderr(death),
            dump: self.dump(death),
            span: death.span.map(|span| SpanInfo {
                trace_id: hexadecimal(&span.trace_id),
                span_id: hexadecimal(&span.span_id),
            }),
            ..CrashRecord::default()
        };
        self.add_signal(death, &mut record);
        self.add_stack(death, &mut record);
        self.add_kernel_stack(death, &mut record);
        note_gaps(death, &mut record);
        record.fingerprint = self.fingerprint(death, &record);
        record.summary = self.redactor.text(&summary::of(&record));
        record
    }

    fn process(&self, death: &Death) -> ProcessInfo {
        let arguments: Vec<String> = death
            .arguments
            .split(|&byte| byte == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
        // The last zero ends the last argument and starts none.
        let arguments = arguments.strip_suffix(&[String::new()]).unwrap_or(&arguments);
        let task = death.detail.fault().map_or(&death.task, |fault| &fault.task);
        let build_id = death.maps.regions().find_map(|(_, _, place)| match place {
            Place::File { module, .. } if Some(&module.path) == death.name.executable_path.as_ref() => {
                module.build_id()
            }
            _ => None,
        });
        ProcessInfo {
            pid: death.name.pid,
            namespace_pid: death.namespace_pid,
            parent_pid: death.parent_pid,
            thread_id: task.tid,
            thread_name: comm(task).to_owned(),
            executable_name: death.name.executable_name.to_string(),
            executable_path: death.name.executable_path.as_deref().map(str::to_owned),
            executable_build_id: build_id,
            command_args: self.redactor.args(arguments),
            working_directory: death.working_directory.as_ref().map(|(path, _)| path.clone()),
            user_id: death.ids.0,
            group_id: death.ids.1,
        }
    }

    fn stderr(&self, death: &Death) -> Option<Stderr> {
        let tail = death.tail.as_ref()?;
        let is_truncated = tail.written_bytes > tail.bytes.len() as u64;
        let text = String::from_utf8_lossy(&tail.bytes);
        // Of a line without its beginning nobody can tell whether it is a secret.
        let text = match is_truncated {
            true => text.split_once('\n').map_or("", |(_, whole_lines)| whole_lines),
            false => &text,
        };
        Some(Stderr { text: self.redactor.text(text), written_bytes: tail.written_bytes, is_truncated })
    }

    /// The dump of a process that dumped. Its file gets its name just after the process was let go.
    fn dump(&self, death: &Death) -> Option<DumpFile> {
        let (store, policies) = self.dumps.as_ref().filter(|_| status::is_core_dumped(death.status))?;
        if !service::decide(policies, &death.subject).needs_core() {
            return None;
        }
        let wait = if self.is_hurried { Duration::ZERO } else { RENAME_MAX };
        let deadline = Instant::now() + wait;
        loop {
            match store.find(death.name.pid, death.task.start_ns / TICK_NS) {
                None if Instant::now() < deadline => std::thread::sleep(RENAME_POLL),
                found => return found,
            }
        }
    }

    fn add_signal(&self, death: &Death, record: &mut CrashRecord) {
        let of = |fault: &FaultRecord, has_stack: bool| signal_info(death, fault, has_stack);
        let fatal = death.detail.signal.as_ref();
        let handled = death.detail.handled.as_ref().map(|fault| of(fault, true));
        match (fatal, status::signal(death.status)) {
            (Some(signal), _) => {
                record.signal = Some(of(&signal.fault, signal.stack_pages & 1 == 1));
                record.handled_fault = handled;
                record.threads = Some(threads(signal));
            }
            (None, None) => record.signal = handled,
            (None, Some(number)) => {
                let code = death.sender.as_ref().map_or(0, |_| death.sender_code);
                record.signal = Some(SignalInfo {
                    name: signals::name(number),
                    number,
                    code,
                    code_name: signals::code_name(number, code),
                    time_unix_ns: death.time_unix_ns,
                    ..SignalInfo::default()
                });
                record.handled_fault = handled;
            }
        }
        if let Some(fault) = death.detail.fault().filter(|fault| arch::stack_pointer(&fault.registers) != 0) {
            let registers = arch::named_registers(&fault.registers);
            record.registers = registers.map(|(name, value)| (name.to_owned(), hex(value))).collect();
        }
    }

    fn add_stack(&mut self, death: &Death, record: &mut CrashRecord) {
        let Some(fault) = death.detail.fault() else { return };
        if self.is_hurried {
            return record.incomplete.push("stack: the agent was stopping".to_owned());
        }
        let memory = death.detail.signal.as_deref().map(stack_memory).unwrap_or_default();
        let walked = fault.frames.get(..fault.frame_count as usize).unwrap_or_default();
        let registers = &fault.registers;
        let snapshot = StackSnapshot {
            ip: death.detail.instruction_pointer().unwrap_or(0),
            sp: arch::stack_pointer(registers),
            fp: arch::frame_pointer(registers),
            link: arch::link_register(registers),
            memory: &memory,
            walked,
        };
        let unwound = unwind(&snapshot, &self.regions(death));
        if let Some(reason) = why_short(&unwound.end) {
            record.incomplete.push(format!("stack: {reason}"));
        }
        let addresses = unwound.addresses.iter().enumerate();
        let places =
            addresses.map(|(index, &address)| Frame::of_user(called_from(index, address), &death.maps));
        let locations = self.symbolizer.locations_of(
            &death.name,
            &death.subject,
            comm(&fault.task),
            &death.root,
            places.collect(),
        );
        let frames = unwound.addresses.iter().zip(&locations);
        record.stack = frames.flat_map(|(&address, location)| stack_frames(address, location)).collect();
    }

    /// Of a death that somebody else is behind there is none, and nothing is missing.
    fn add_kernel_stack(&mut self, death: &Death, record: &mut CrashRecord) {
        let note = match &death.detail.kernel {
            Some(_) if self.is_hurried => "the agent was stopping",
            Some(stack) => match kernel_stack::functions(stack, &mut self.kallsyms) {
                Ok(functions) => {
                    record.kernel_stack = functions;
                    return;
                }
                Err(reason) => reason,
            },
            None if is_by_kernel(death) && !death.is_reduced => "the kernel side's record was lost",
            None => return,
        };
        record.incomplete.push(format!("kernel stack: {note}"));
    }

    /// Where the code's files can be opened now.
    fn regions(&self, death: &Death) -> Vec<CodeRegion> {
        let region = |(start, end, place): (u64, u64, &Place)| match place {
            Place::File { module, offset } => Some(CodeRegion {
                start,
                end,
                file_offset: *offset,
                path: self.symbolizer.path_of(module, &death.root)?,
            }),
            _ => None,
        };
        death.maps.regions().filter_map(region).collect()
    }

    /// A death that lost its stack to the limits has the fingerprint of those it is like.
    fn fingerprint(&mut self, death: &Death, record: &CrashRecord) -> String {
        if death.is_reduced
            && let Some(known) = self.fingerprints.get(&death.likeness)
        {
            return known.clone();
        }
        let reason = match (&record.exit.signal, record.exit.code) {
            (Some(signal), _) => signal.clone(),
            (None, code) => code.unwrap_or(0).to_string(),
        };
        let last_words = record.stderr.as_ref().map(|stderr| stderr.text.as_str());
        let executable = &record.process.executable_name;
        let fingerprint = fingerprint(record.kind, executable, &reason, &record.stack, last_words);
        if self.fingerprints.len() >= FINGERPRINTS_MAX {
            self.fingerprints.clear();
        }
        self.fingerprints.insert(death.likeness, fingerprint.clone());
        fingerprint
    }
}

fn exit(status: u32) -> Exit {
    match status::signal(status) {
        None => Exit { code: Some(status::exit_code(status) as i32), ..Exit::default() },
        Some(signal) => Exit {
            code: None,
            signal: Some(signals::name(signal)),
            core_dumped: status::is_core_dumped(status),
        },
    }
}

fn signal_info(death: &Death, fault: &FaultRecord, has_stack: bool) -> SignalInfo {
    let has_address = signals::has_address(fault.signal, fault.code);
    let place = place::Fault {
        signal: fault.signal,
        code: fault.code,
        address: fault.address,
        stack_pointer: arch::stack_pointer(&fault.registers),
        has_stack,
        heap: (fault.heap_start, fault.heap_end),
        stack_start: fault.stack_start,
        maps: &death.maps,
    };
    SignalInfo {
        name: signals::name(fault.signal),
        number: fault.signal,
        code: fault.code,
        code_name: signals::code_name(fault.signal, fault.code),
        fault_address: has_address.then(|| hex(fault.address)),
        fault_place: has_address.then(|| place::describe(&place)),
        handled: fault.is_handled == 1,
        time_unix_ns: fault.head.time_ns.saturating_add(death.clocks.monotonic_to_unix_ns),
    }
}

fn threads(signal: &SignalRecord) -> Threads {
    let mut by_name = BTreeMap::new();
    for name in signal.thread_names.iter().take(signal.thread_names_read as usize) {
        *by_name.entry(text(name)).or_default() += 1;
    }
    Threads { total: signal.thread_count, by_name }
}

/// Whether the kernel side keeps the kernel's stack of such a death.
fn is_by_kernel(death: &Death) -> bool {
    matches!(death.kind, Kind::Crash | Kind::OomKill | Kind::Kill)
        && death.sender.as_ref().is_some_and(|sender| sender.kind == SenderKind::Kernel)
}

/// The pages of the stack that could be read.
fn stack_memory(signal: &SignalRecord) -> Vec<(u64, &[u8])> {
    let pages = (0..STACK_PAGES_MAX).filter(|page| signal.stack_pages >> page & 1 == 1);
    pages
        .map(|page| {
            let at = page * STACK_PAGE_BYTES;
            (signal.stack_address.wrapping_add(at as u64), &signal.stack[at..at + STACK_PAGE_BYTES])
        })
        .collect()
}

fn mappings(death: &Death) -> Vec<CodeMapping> {
    let mapping = |(start, end, place): (u64, u64, &Place)| match place {
        Place::File { module, offset } => Some(CodeMapping {
            start: hex(start),
            end: hex(end),
            offset: *offset,
            path: module.path.to_string(),
            build_id: module.build_id(),
        }),
        _ => None,
    };
    death.maps.regions().filter_map(mapping).take(MAPPINGS_MAX).collect()
}

/// The functions at an address as frames, inlined ones first.
fn stack_frames(address: u64, location: &Arc<Location>) -> Vec<StackFrame> {
    let module = location.mapping.as_ref();
    let is_native = location.kind == FrameKind::Native;
    let last = location.lines.len().saturating_sub(1);
    let frame = |(index, line): (usize, &crate::telemetry::Line)| StackFrame {
        address: hex(address),
        function: known_function(&line.function),
        module: module.map(|mapping| mapping.path.to_string()),
        build_id: module.and_then(|mapping| mapping.build_id.as_deref().map(str::to_owned)),
        offset: is_native.then_some(location.address),
        file: line.file.as_deref().map(str::to_owned),
        line: Some(line.line).filter(|&line| line != 0),
        inlined: index != last,
    };
    location.lines.iter().enumerate().map(frame).collect()
}

/// The symbolizer writes `module+0x…` where it knows no function.
fn known_function(function: &str) -> Option<String> {
    let offset = function.rsplit_once("+0x").map(|(_, digits)| digits);
    let is_unknown = offset.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (!is_unknown).then(|| function.to_owned())
}

fn why_short(end: &End) -> Option<&'static str> {
    match end {
        End::Root => None,
        End::NoMemory => Some("the next frame lies above the part of the stack that was copied"),
        End::NoUnwindInfo => Some("the last function has no unwind table and keeps no frame pointer"),
        End::Bounded => Some("only the innermost frames were read"),
        End::Corrupt => {
            Some("what should be a return address is none: the stack is damaged, or the code is unknown")
        }
    }
}

/// Says what is missing beyond the stack.
fn note_gaps(death: &Death, record: &mut CrashRecord) {
    let mut note = |text: String| record.incomplete.push(text);
    let by_signal = death.kind == Kind::Crash;
    match (&death.detail.signal, death.is_reduced) {
        (_, true) => {
            note("registers, stack, threads, mappings: over the limit of records per minute".to_owned())
        }
        (None, false) if by_signal => {
            note("registers, stack, threads: the kernel side's record was lost".to_owned())
        }
        (Some(signal), false) if signal.thread_count > signal.thread_names_read => {
            note(format!("threads: names of {} of {}", signal.thread_names_read, signal.thread_count));
        }
        _ => {}
    }
    match &death.working_directory {
        None => note("working directory: unknown".to_owned()),
        Some((_, false)) => note("working directory: only its innermost names".to_owned()),
        Some((_, true)) => {}
    }
    if death.arguments.is_empty() {
        note("command line: unknown, the process started and ended unseen".to_owned());
    }
    if death.oom.is_some() && death.cgroup_memory.is_none() {
        note("cgroup memory: the cgroup was gone, or is the root".to_owned());
    }
    if death.misses_stderr {
        note(
            "stderr: lines may be missing, system calls were watched a part of the time (budget.syscalls_percent)"
                .to_owned(),
        );
    }
    let mut unnamed: Vec<&str> = Vec::new();
    for frame in record.stack.iter().filter(|frame| frame.function.is_none()) {
        let module = frame.module.as_deref().unwrap_or("[anonymous code]");
        if !unnamed.contains(&module) {
            unnamed.push(module);
        }
    }
    if !unnamed.is_empty() {
        let text = format!("functions: no names for code in {}", unnamed.join(", "));
        record.incomplete.push(text);
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}
