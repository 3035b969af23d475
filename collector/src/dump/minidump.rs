//! Turns the core of a dying process into a minidump of bounded size, in one pass.
//!
//! What to keep is decided from the head of the core before its memory comes: stacks, and what the registers of the
//! crashing thread point to. So no more memory is held than the head and one piece that is kept. Thread names, build
//! ids and the texts of `/proc` are the caller's: this file opens nothing. Refuses: full-memory dumps, and guessing
//! what the core does not say. Layout: `minidumpapiset.h`, with Breakpad's extensions for Linux.

mod context;
mod modules;
mod output;
mod plan;
mod redaction;

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, Write};

use anyhow::{Context as _, Result, ensure};
use minidump_common::format::{self as layout, MINIDUMP_STREAM_TYPE as StreamType};

use self::context::write_context;
use self::modules::{MODULE_HEADER_BYTES, Module, modules, write_modules};
use self::output::Output;
use self::plan::{Plan, Range, joined};
use self::redaction::redact_words;
use super::elf_core::{self, CoreStream, ElfCore, Machine, Process, Signal};

/// The smallest size a minidump can be asked to keep to.
pub const BYTES_MIN: u64 = 64 << 10;
/// The largest size a minidump can be asked to keep to: places in it have 32 bits.
pub const BYTES_CEILING: u64 = 1 << 30;

/// The streams that each minidump has.
const OWN_STREAMS: [StreamType; 8] = [
    StreamType::SystemInfoStream,
    StreamType::MiscInfoStream,
    StreamType::ThreadListStream,
    StreamType::ThreadNamesStream,
    StreamType::ExceptionStream,
    StreamType::ModuleListStream,
    StreamType::MemoryListStream,
    StreamType::LinuxAuxv,
];

/// How large a minidump may get, and what may be in it.
#[derive(Debug, Clone)]
pub struct MinidumpLimits {
    /// Size of the whole file; taken into [`BYTES_MIN`] to [`BYTES_CEILING`].
    pub bytes_max: u64,
    /// Stack of each thread.
    pub stack_bytes_max: u64,
    /// Stack of the thread that crashed.
    pub crashing_stack_bytes_max: u64,
    /// Threads.
    pub threads_max: usize,
    /// Replaces all that is no address, in stacks and registers, and leaves out memory that is no stack.
    pub redact_memory: bool,
}

impl Default for MinidumpLimits {
    fn default() -> Self {
        Self {
            bytes_max: 8 << 20,
            stack_bytes_max: 64 << 10,
            crashing_stack_bytes_max: 512 << 10,
            threads_max: 10_000,
            redact_memory: false,
        }
    }
}

/// What the core does not say, and the caller may know.
#[derive(Debug, Clone, Default)]
pub struct MinidumpExtras {
    /// Names of threads, by their id within the PID namespace of the process.
    pub thread_names: HashMap<u32, String>,
    /// Build ids of files whose first page is not in the core, by their path as the process saw it.
    pub build_ids: HashMap<String, Vec<u8>>,
    /// Streams to put in as they are, such as `LinuxMaps`: type and bytes.
    pub streams: Vec<(u32, Vec<u8>)>,
    /// The kernel's release and version.
    pub kernel: String,
    /// When the process died, in seconds since 1970.
    pub time_s: u32,
}

/// What was written, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinidumpSummary {
    /// The process.
    pub process: Option<Process>,
    /// The signal.
    pub signal: Option<Signal>,
    /// The thread that crashed.
    pub crashing_tid: Option<u32>,
    /// Threads in the minidump.
    pub threads_written: usize,
    /// Threads in the core.
    pub threads_total: u64,
    /// Modules in the minidump.
    pub modules_written: usize,
    /// Memory in the minidump.
    pub memory_bytes: u64,
    /// Size of the minidump.
    pub bytes: u64,
    /// Something was left out to keep to [`MinidumpLimits::bytes_max`] or [`MinidumpLimits::threads_max`].
    pub truncated: bool,
    /// The core ended before all that was to be kept had come.
    pub core_ended_early: bool,
}

/// Writes the minidump of a core. The output must be empty; the core is read no further than needed, so its writer may
/// find the stream closed.
pub fn write(
    core: impl Read,
    output: impl Write + Seek,
    limits: &MinidumpLimits,
    extras: &MinidumpExtras,
) -> Result<MinidumpSummary> {
    let own = |kind: u32| OWN_STREAMS.iter().any(|&own| own as u32 == kind);
    ensure!(!extras.streams.iter().any(|(kind, _)| own(*kind)), "a stream that the minidump has itself");
    let mut stream = CoreStream::new(core);
    let mut core = ElfCore::read(&mut stream, limits.threads_max)?;
    let mut modules = modules(&core);
    let plan = Plan::new(&core, modules.values(), limits, extras);
    core.threads.truncate(plan.threads);
    let mut output = Output::new(output, OWN_STREAMS.len() + plan.streams)?;
    let regions = copy_memory(&mut stream, &core, &plan, &mut modules, limits.redact_memory, &mut output)?;

    write_system(&mut output, &core, extras)?;
    write_threads(&mut output, &core, &plan, &regions, limits.redact_memory, extras)?;
    let modules_written = write_modules(&mut output, &core, modules, plan.modules, extras)?;
    let memory_bytes = regions.iter().map(|region| region.memory.data_size as u64).sum();
    output.list(StreamType::MemoryListStream, regions)?;
    for (kind, bytes) in &extras.streams[..plan.streams] {
        let location = output.bytes(bytes)?;
        output.stream(*kind, location);
    }
    Ok(MinidumpSummary {
        crashing_tid: core.threads.first().map(|thread| thread.tid),
        threads_written: core.threads.len(),
        threads_total: core.threads_total,
        process: core.process,
        signal: core.signal,
        modules_written,
        memory_bytes,
        bytes: output.finish(extras.time_s)?,
        truncated: plan.truncated,
        core_ended_early: stream.ended_early(),
    })
}

/// Walks the memory of the core once: copies the planned ranges, and reads the starts of the modules.
fn copy_memory<R: Read, W: Write + Seek>(
    stream: &mut CoreStream<R>,
    core: &ElfCore,
    plan: &Plan,
    modules: &mut BTreeMap<u64, Module>,
    redact: bool,
    output: &mut Output<W>,
) -> Result<Vec<layout::MINIDUMP_MEMORY_DESCRIPTOR>> {
    let headers = modules
        .iter()
        .filter(|(_, module)| module.last_offset.is_some())
        .filter_map(|(&base, _)| Range::around(core, base, MODULE_HEADER_BYTES));
    let mut regions = Vec::new();
    let mut memory = plan.memory.iter().peekable();
    for piece in joined(headers.chain(plan.memory.iter().copied()).collect()) {
        let segment = core.segment_of(piece.start).context("a planned range outside of all segments")?;
        let mut bytes = stream.read_at(segment.offset + (piece.start - segment.address), piece.bytes())?;
        for (base, module) in modules.range_mut(piece.start..piece.end) {
            let header = bytes.get((base - piece.start) as usize..).unwrap_or_default();
            module.executable |= header.starts_with(b"\x7fELF");
            module.build_id = elf_core::build_id(header).unwrap_or_default().to_vec();
        }
        while let Some(range) = memory.next_if(|range| range.start < piece.end) {
            let start = bytes.len().min((range.start - piece.start) as usize);
            let end = bytes.len().min((range.end - piece.start) as usize);
            if redact {
                redact_words(core, &mut bytes[start..end]);
            }
            if start < end {
                let memory = output.bytes(&bytes[start..end])?;
                let start_of_memory_range = range.start;
                regions.push(layout::MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range, memory });
            }
        }
    }
    Ok(regions)
}

fn write_system<W: Write + Seek>(
    output: &mut Output<W>,
    core: &ElfCore,
    extras: &MinidumpExtras,
) -> Result<()> {
    let architecture = match core.machine {
        Machine::X86_64 => layout::ProcessorArchitecture::PROCESSOR_ARCHITECTURE_AMD64,
        Machine::Aarch64 => layout::ProcessorArchitecture::PROCESSOR_ARCHITECTURE_ARM64_OLD,
    };
    let kernel = output.string(&extras.kernel)?;
    let location = output.put(layout::MINIDUMP_SYSTEM_INFO {
        processor_architecture: architecture as u16,
        processor_level: 0,
        processor_revision: 0,
        number_of_processors: 0,
        product_type: 0,
        major_version: 0,
        minor_version: 0,
        build_number: 0,
        platform_id: layout::PlatformId::Linux as u32,
        csd_version_rva: kernel,
        suite_mask: 0,
        reserved2: 0,
        cpu: layout::CPU_INFORMATION { data: [0; 24] },
    })?;
    output.stream(StreamType::SystemInfoStream.into(), location);
    let location = output.put(layout::MINIDUMP_MISC_INFO {
        size_of_info: 24,
        flags1: if core.process.is_some() {
            layout::MiscInfoFlags::MINIDUMP_MISC1_PROCESS_ID.bits()
        } else {
            0
        },
        process_id: core.process.as_ref().map_or(0, |process| process.pid),
        process_create_time: 0,
        process_user_time: 0,
        process_kernel_time: 0,
    })?;
    output.stream(StreamType::MiscInfoStream.into(), location);
    let location = output.bytes(&core.auxiliary_vector)?;
    output.stream(StreamType::LinuxAuxv.into(), location);
    Ok(())
}

/// Writes the threads with their registers and names, and what the first of them died of.
fn write_threads<W: Write + Seek>(
    output: &mut Output<W>,
    core: &ElfCore,
    plan: &Plan,
    regions: &[layout::MINIDUMP_MEMORY_DESCRIPTOR],
    redact: bool,
    extras: &MinidumpExtras,
) -> Result<()> {
    let (mut threads, mut names) = (Vec::new(), Vec::new());
    for (thread, stack) in core.threads.iter().zip(&plan.stacks) {
        let thread_context = write_context(output, core, thread, redact)?;
        if let Some(name) = extras.thread_names.get(&thread.tid) {
            let thread_name_rva = output.string(name)?.into();
            names.push(layout::MINIDUMP_THREAD_NAME { thread_id: thread.tid, thread_name_rva });
        }
        threads.push(layout::MINIDUMP_THREAD {
            thread_id: thread.tid,
            suspend_count: 0,
            priority_class: 0,
            priority: 0,
            teb: 0,
            stack: stack
                .filter(|stack| stack.bytes() > 0)
                .and_then(|stack| written(regions, stack))
                .unwrap_or_default(),
            thread_context,
        });
    }
    if let (Some(first), Some(thread)) = (core.threads.first(), threads.first()) {
        let signal =
            core.signal.unwrap_or(Signal { number: first.signal.into(), code: 0, fault_address: None });
        let location = output.put(layout::MINIDUMP_EXCEPTION_STREAM {
            thread_id: first.tid,
            __align: 0,
            exception_record: layout::MINIDUMP_EXCEPTION {
                exception_code: signal.number.cast_unsigned(),
                exception_flags: signal.code.cast_unsigned(),
                exception_address: signal.fault_address.unwrap_or(0),
                ..Default::default()
            },
            thread_context: thread.thread_context,
        })?;
        output.stream(StreamType::ExceptionStream.into(), location);
    }
    output.list(StreamType::ThreadListStream, threads)?;
    output.list(StreamType::ThreadNamesStream, names)
}

/// Where the part of a range that arrived stands in the minidump.
fn written(
    regions: &[layout::MINIDUMP_MEMORY_DESCRIPTOR],
    range: Range,
) -> Option<layout::MINIDUMP_MEMORY_DESCRIPTOR> {
    let behind = regions.partition_point(|region| region.start_of_memory_range <= range.start);
    let region = regions.get(behind.checked_sub(1)?)?;
    let skipped = u32::try_from(range.start - region.start_of_memory_range).ok()?;
    let left = region.memory.data_size.checked_sub(skipped).filter(|&left| left > 0)?;
    let data_size = u32::try_from(range.bytes()).map_or(left, |wanted| wanted.min(left));
    let memory = layout::MINIDUMP_LOCATION_DESCRIPTOR { data_size, rva: region.memory.rva + skipped };
    Some(layout::MINIDUMP_MEMORY_DESCRIPTOR { start_of_memory_range: range.start, memory })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use minidump::{
        Minidump, MinidumpException, MinidumpMemoryList, MinidumpModuleList, MinidumpThreadList,
        MinidumpThreadNames, Module as _,
    };

    use super::super::elf_core::sample::{BUILD_ID, MODULE, STACK, Sample};
    use super::redaction::REDACTED;
    use super::*;

    type Written = (MinidumpSummary, Minidump<'static, Vec<u8>>);

    fn convert(core: &[u8], limits: &MinidumpLimits, extras: &MinidumpExtras) -> Result<Written> {
        let mut output = Cursor::new(Vec::new());
        let summary = write(core, &mut output, limits, extras)?;
        assert_eq!(summary.bytes, output.get_ref().len() as u64);
        assert!(summary.bytes <= limits.bytes_max.max(BYTES_MIN), "{} bytes", summary.bytes);
        Ok((summary, Minidump::read(output.into_inner()).expect("a minidump")))
    }

    /// Converts, and checks what holds of every minidump.
    fn check(core: &Sample, limits: &MinidumpLimits, extras: &MinidumpExtras) -> Written {
        let (summary, dump) = convert(&core.bytes(), limits, extras).expect("a core");
        let threads = dump.get_stream::<MinidumpThreadList>().expect("threads");
        assert_eq!(threads.threads.len(), summary.threads_written);
        assert_eq!(summary.threads_total, core.threads.len() as u64);
        let memory = dump.get_stream::<MinidumpMemoryList>().expect("memory");
        let regions: Vec<_> = memory.iter().map(|region| (region.base_address, region.size)).collect();
        assert!(regions.is_sorted_by(|before, after| before.0 + before.1 <= after.0), "{regions:x?}");
        assert_eq!(regions.iter().map(|region| region.1).sum::<u64>(), summary.memory_bytes);
        for (thread, &(tid, stack, instruction)) in threads.threads.iter().zip(&core.threads) {
            assert_eq!(thread.raw.thread_id, tid);
            let system = dump.get_stream::<minidump::MinidumpSystemInfo>().expect("system");
            let context = thread.context(&system, None).expect("registers");
            assert_eq!(context.get_stack_pointer(), stack);
            assert_eq!(context.get_instruction_pointer(), instruction);
        }
        let exception = dump.get_stream::<MinidumpException>().expect("exception");
        assert_eq!(exception.thread_id, core.threads[0].0);
        let record = &exception.raw.exception_record;
        let seen = (record.exception_code, record.exception_flags, record.exception_address);
        assert_eq!(seen, (11, 1, 0x10));
        (summary, dump)
    }

    /// The stack of a thread, where its list entry says it is.
    fn stack(dump: &Minidump<'static, Vec<u8>>, index: usize) -> Option<(u64, Vec<u8>)> {
        let threads = dump.get_stream::<MinidumpThreadList>().expect("threads");
        let stack = threads.threads[index].raw.stack;
        let memory = dump.get_stream::<MinidumpMemoryList>().expect("memory");
        let place = |region: &minidump::MinidumpMemory| {
            let skipped = (stack.memory.rva as usize).checked_sub(region.desc.memory.rva as usize)?;
            region.bytes.get(skipped..skipped + stack.memory.data_size as usize).map(<[u8]>::to_vec)
        };
        let bytes = || memory.iter().find_map(place).expect("a stack within the memory");
        (stack.memory.data_size > 0).then(|| (stack.start_of_memory_range, bytes()))
    }

    #[test]
    fn a_small_process() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let core = Sample { machine, ..Default::default() };
            let extras = MinidumpExtras {
                thread_names: HashMap::from([(42, "wörker".into())]),
                streams: vec![(StreamType::LinuxMaps as u32, b"maps".to_vec())],
                kernel: "Linux 6.1".into(),
                time_s: 5,
                ..Default::default()
            };
            let (summary, dump) = check(&core, &MinidumpLimits::default(), &extras);
            assert!(!summary.truncated && !summary.core_ended_early);
            assert_eq!((summary.crashing_tid, summary.modules_written), (Some(42), 1));
            assert_eq!(dump.header.time_date_stamp, 5);
            assert_eq!(dump.get_raw_stream(StreamType::LinuxMaps as u32).expect("maps"), b"maps");
            assert_eq!(dump.get_raw_stream(StreamType::LinuxAuxv as u32).expect("auxv").len(), 32);
            let names = dump.get_stream::<MinidumpThreadNames>().expect("names");
            assert_eq!(names.get_name(42).as_deref(), Some("wörker"));
            let modules = dump.get_stream::<MinidumpModuleList>().expect("modules");
            let module = modules.main_module().expect("a module");
            assert_eq!((module.base_address(), module.size()), (MODULE, 0x2000));
            assert_eq!(module.code_file(), "/bin/program");
            let id = module.code_identifier().expect("a build id").to_string();
            assert_eq!(id, BUILD_ID.map(|byte| format!("{byte:02x}")).concat());

            let (start, bytes) = stack(&dump, 0).expect("a stack");
            assert_eq!(start, STACK + 0x1000 - 128);
            assert_eq!(bytes, core.segments[2].1[0x1000 - 128..]);
        }
    }

    #[test]
    fn build_ids_of_the_caller_fill_in() {
        let mut core = Sample::default();
        core.segments[0].1.clear();
        let build_ids = HashMap::from([("/bin/program".into(), vec![1; 16])]);
        let extras = MinidumpExtras { build_ids, ..Default::default() };
        let (_, dump) = check(&core, &MinidumpLimits::default(), &extras);
        let modules = dump.get_stream::<MinidumpModuleList>().expect("modules");
        let id = modules.main_module().expect("a module").code_identifier().expect("a build id");
        assert_eq!(id.to_string(), "01".repeat(16));
    }

    #[test]
    fn files_without_code_are_no_modules() {
        let mut core = Sample::default();
        let address = MODULE + 0x10_0000;
        core.segments.insert(2, (address, Vec::new(), 0x1000, false));
        core.files.push((address, address + 0x1000, 0, "/usr/lib/locale/locale-archive"));
        let (summary, _) = check(&core, &MinidumpLimits::default(), &MinidumpExtras::default());
        assert_eq!(summary.modules_written, 1);
    }

    #[test]
    fn a_second_copy_of_a_file_is_a_module_of_its_own() {
        let mut core = Sample::default();
        let content = core.segments[0].1.clone();
        core.segments.insert(2, (MODULE + 0x2000, content, 0x1000, false));
        core.files.push((MODULE + 0x2000, MODULE + 0x3000, 0, "/bin/program"));
        let (summary, _) = check(&core, &MinidumpLimits::default(), &MinidumpExtras::default());
        assert_eq!(summary.modules_written, 2);
    }

    #[test]
    fn a_stack_that_ran_over_its_end() {
        let threads = vec![(1, STACK - 0x800, 0), (2, STACK + 0x2000, 0), (3, STACK - (2 << 20), 0)];
        let core = Sample { threads, ..Default::default() };
        let (_, dump) = check(&core, &MinidumpLimits::default(), &MinidumpExtras::default());
        assert_eq!(stack(&dump, 0).map(|(start, bytes)| (start, bytes.len())), Some((STACK, 0x2000)));
        assert_eq!(stack(&dump, 1), None);
        assert_eq!(stack(&dump, 2), None);
    }

    #[test]
    fn redacted_memory_keeps_addresses_only() {
        let mut core = Sample::default();
        core.threads[0].1 = STACK + 0x1000;
        let limits = MinidumpLimits { redact_memory: true, ..Default::default() };
        let (summary, dump) = check(&core, &limits, &MinidumpExtras::default());
        let (_, bytes) = stack(&dump, 0).expect("a stack");
        assert_eq!(summary.memory_bytes, bytes.len() as u64, "stacks only");
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let expected: Vec<u64> = (0..16u64)
            .map(|_| 0)
            .chain((0..512).map(|index| if index == 256 { REDACTED } else { MODULE + 0x1000 + index }))
            .collect();
        assert_eq!(words, expected);
    }

    /// A process of many threads, each with a stack of 64 KiB.
    fn crowd(threads: u64) -> Sample {
        let address = |index: u64| STACK + 0x10_0000 + index * 0x20_000;
        let mut core = Sample::default();
        core.threads.extend((1..threads).map(|index| (1000 + index as u32, address(index) + 0x100, 0)));
        core.segments.extend((1..threads).map(|index| (address(index), vec![7; 0x1_0000], 0x1_0000, false)));
        core
    }

    #[test]
    fn ten_thousand_threads() {
        let core = Sample { segments: Sample::default().segments, ..crowd(10_001) };
        let roomy = MinidumpLimits { bytes_max: 64 << 20, ..Default::default() };
        let (summary, _) = check(&core, &roomy, &MinidumpExtras::default());
        assert_eq!((summary.threads_written, summary.threads_total), (10_000, 10_001));
        assert!(summary.truncated, "one more than threads_max");
        let (summary, dump) = check(&core, &MinidumpLimits::default(), &MinidumpExtras::default());
        assert!(summary.truncated && summary.threads_written > 3000, "{summary:?}");
        assert!(stack(&dump, 0).is_some());
    }

    #[test]
    fn stacks_share_what_space_there_is() {
        let limits = MinidumpLimits { bytes_max: 2 << 20, ..Default::default() };
        let (summary, dump) = check(&crowd(100), &limits, &MinidumpExtras::default());
        assert!(summary.truncated);
        assert_eq!((summary.threads_written, summary.threads_total), (100, 100));
        let bytes: Vec<usize> =
            (1..100).filter_map(|index| stack(&dump, index)).map(|stack| stack.1.len()).collect();
        assert_eq!(bytes.len(), 99);
        assert!(bytes.iter().all(|bytes| (18_000..22_000).contains(bytes)), "{bytes:?}");
        assert!(summary.bytes > limits.bytes_max * 9 / 10, "{summary:?}");
    }

    #[test]
    fn streams_that_do_not_fit_are_left_out() {
        let extras = MinidumpExtras { streams: vec![(0x4767_0009, vec![0; 1 << 20])], ..Default::default() };
        let limits = MinidumpLimits { bytes_max: 1 << 20, ..Default::default() };
        assert!(check(&Sample::default(), &limits, &extras).0.truncated);
        let limits = MinidumpLimits { bytes_max: 0, ..Default::default() };
        assert!(check(&Sample::default(), &limits, &extras).0.truncated);
        let extras =
            MinidumpExtras { streams: vec![(StreamType::ThreadListStream as u32, vec![])], ..extras };
        assert!(convert(&Sample::default().bytes(), &limits, &extras).is_err());
    }

    #[test]
    fn a_core_that_ends_early_is_a_smaller_minidump() {
        let whole = crowd(3).bytes();
        let mut memory_bytes = 0;
        for length in (64..whole.len()).step_by(509) {
            let limits = MinidumpLimits { redact_memory: length % 2 == 0, ..Default::default() };
            let (summary, _) =
                convert(&whole[..length], &limits, &MinidumpExtras::default()).expect("a core");
            assert!(summary.core_ended_early);
            if !limits.redact_memory {
                assert!(summary.memory_bytes >= memory_bytes);
                memory_bytes = summary.memory_bytes;
            }
        }
        assert!(memory_bytes > 0x1_0000);
        assert!(convert(&whole[..63], &MinidumpLimits::default(), &MinidumpExtras::default()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn changed_cores_never_panic(changes: Vec<(u16, [u8; 8])>) {
            let mut bytes = crowd(3).bytes();
            for (at, value) in changes.into_iter().take(4) {
                let at = usize::from(at) % 4096;
                bytes[at..at + 8].copy_from_slice(&value);
            }
            let _ = convert(&bytes, &MinidumpLimits::default(), &MinidumpExtras::default());
        }

        #[test]
        fn addresses_of_any_kind_never_panic(stack: u64, instruction: u64, base: u64, bytes in 0u64..9000) {
            let mut core = Sample::default();
            core.threads.push((43, stack, instruction));
            core.threads[0].1 = base.wrapping_add(bytes);
            core.segments = vec![(base, vec![1; bytes as usize], bytes, true)];
            core.files = vec![(base, base.saturating_add(bytes.max(1)), 0, "f")];
            let _ = convert(&core.bytes(), &MinidumpLimits::default(), &MinidumpExtras::default());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = convert(&bytes, &MinidumpLimits::default(), &MinidumpExtras::default());
        }
    }
}
