//! Loads the eBPF object, attaches its programs, and drains its rings.
//!
//! Refuses: to fail for one hook. Only an object that cannot be loaded at all is an error.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, PerfEvent, Program, ProgramError, RawTracePoint};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use collector_common::limits::PROCESS_RING_BYTES;
use collector_common::loss::{KernelCounter, kernel_counter};

use super::btf::Btf;
use super::hook::Hook;
use super::inbox::Inbox;
use super::layout;
use super::online::online_cpus;
use super::sampler::{CpuSampler, SampleSource, sample_ring_bytes};
use super::sideband::Sideband;
use super::stderr_tails::StderrTails;
use crate::loss::{Ledger, LossReason, Signal};

/// The committed object, built by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../collector-ebpf/object/kansoku.bpf.o");

/// Records taken from one ring in one turn; the rest waits in the ring.
const RECORDS_PER_TURN_MAX: usize = 16_384;

/// Tracepoints that every agent hooks: program, tracepoint, what for, what is missing without.
const PROCESS_HOOKS: [(&str, &str, &str, &str); 4] = [
    ("process_exec", "sched_process_exec", "process exec", "a new program is noticed only by its mappings"),
    (
        "process_fork",
        "sched_process_fork",
        "process fork",
        "children are read from /proc at their first sample",
    ),
    (
        "process_exit",
        "sched_process_exit",
        "process exit",
        "no crash records; ended processes are noticed only when their id is reused",
    ),
    ("process_comm", "task_rename", "process rename", "names of processes are those of their exec"),
];

/// Tracepoints of crashes, likewise.
const CRASH_HOOKS: [(&str, &str, &str, &str); 3] = [
    ("crash_sender", "signal_generate", "signal senders", "crash records do not say who sent the signal"),
    ("crash_signal", "signal_deliver", "fatal signals", "crash records have no registers, stack and threads"),
    ("crash_oom", "mark_victim", "OOM killer", "an OOM kill looks like any kill by the kernel"),
];

/// The tracepoint of all system calls, for the last lines of standard error.
const STDERR_HOOK: (&str, &str, &str, &str) =
    ("crash_stderr", "sys_exit", "standard error", "crash records have no last lines of standard error");

/// How to hook into the kernel.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Samples per second and CPU.
    pub frequency_hz: u32,
    /// Bytes of the sample ring; `None` for [`sample_ring_bytes`].
    pub sample_ring_bytes: Option<u32>,
    /// The kernel's type information.
    pub btf: PathBuf,
    /// Level of the diagnostics of the eBPF side, as `aya_log` numbers them; 0 for none.
    pub log_level: u8,
    /// Whether signals and the OOM killer are watched.
    pub watch_crashes: bool,
    /// Whether the last bytes of standard error are kept, which costs a little on every system call of the node.
    pub keep_stderr: bool,
}

/// Kernel time of one program, from the kernel's BPF run-time statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramTime {
    /// The program.
    pub name: String,
    /// Nanoseconds while statistics were on.
    pub run_time_ns: u64,
    /// Runs while statistics were on.
    pub runs: u64,
}

/// What is loaded and attached. Dropping it detaches everything.
pub struct Kernel {
    ebpf: Ebpf,
    process_ring: RingBuf<MapData>,
    sample_ring: RingBuf<MapData>,
    crash_ring: RingBuf<MapData>,
    detail_ring: RingBuf<MapData>,
    stderr: StderrTails,
    counters: PerCpuArray<MapData, u64>,
    sampler: Option<CpuSampler>,
    sideband: Option<Sideband>,
    hooks: Vec<Hook>,
    cpus: Vec<u32>,
    statistics: Option<OwnedFd>,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    ledger: Arc<Ledger>,
}

impl Kernel {
    /// Loads the object and tries every hook.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the object's maps: no privilege, no BPF, no memory. The error says what to do.
    pub fn start(options: &KernelOptions, ledger: Arc<Ledger>) -> Result<Self> {
        let cpus = online_cpus()?;
        let mut hooks = Vec::new();
        let offsets = field_offsets(options, &mut hooks);
        let mut ebpf = load(options, cpus.len(), &offsets)?;
        let process_ring = RingBuf::try_from(take_map(&mut ebpf, "PROCESS_RING")?)?;
        let sample_ring = RingBuf::try_from(take_map(&mut ebpf, "SAMPLE_RING")?)?;
        let crash_ring = RingBuf::try_from(take_map(&mut ebpf, "CRASH_RING")?)?;
        let detail_ring = RingBuf::try_from(take_map(&mut ebpf, "DETAIL_RING")?)?;
        let stderr = StderrTails::new(take_map(&mut ebpf, "STDERR")?)?;
        let counters = PerCpuArray::try_from(take_map(&mut ebpf, "COUNTERS")?)?;
        let logger = (options.log_level > 0).then(|| aya_log::EbpfLogger::init(&mut ebpf).ok()).flatten();
        let mut kernel = Self {
            ebpf,
            process_ring,
            sample_ring,
            crash_ring,
            detail_ring,
            stderr,
            counters,
            sampler: None,
            sideband: None,
            hooks,
            cpus,
            statistics: None,
            logger,
            ledger,
        };
        kernel.attach(options);
        Ok(kernel)
    }

    /// What was tried and taken.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Whether mappings are told as they are made.
    pub fn has_sideband(&self) -> bool {
        self.sideband.is_some()
    }

    /// What drives the samples; `None` if no sampler could be attached.
    pub fn sample_source(&self) -> Option<SampleSource> {
        self.sampler.as_ref().map(CpuSampler::source)
    }

    /// The last bytes that processes wrote to standard error.
    pub fn stderr_tails(&self) -> &StderrTails {
        &self.stderr
    }

    /// Moves what arrived to the inbox. Samples and deaths come first: so every process event and every detail that is
    /// older than one that was taken is in the inbox too.
    /// Returns whether something may be left, because a turn takes a limited number.
    pub fn drain(&mut self, inbox: &mut Inbox) -> bool {
        let samples_left = drain_ring(&mut self.sample_ring, Signal::Profile, inbox, &self.ledger);
        let deaths_left = drain_ring(&mut self.crash_ring, Signal::Crash, inbox, &self.ledger);
        let details_left = drain_ring(&mut self.detail_ring, Signal::CrashDetail, inbox, &self.ledger);
        let events_left = drain_ring(&mut self.process_ring, Signal::Process, inbox, &self.ledger);
        if let Some(sideband) = &mut self.sideband {
            sideband.drain(inbox, &self.ledger);
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        samples_left || deaths_left || details_left || events_left
    }

    /// Follows CPUs that came or went.
    pub fn follow_cpus(&mut self) {
        let Ok(cpus) = online_cpus() else { return };
        if cpus != self.cpus {
            tracing::info!(before = ?self.cpus, now = ?cpus, "the online CPUs changed");
        }
        if let Some(sampler) = &mut self.sampler {
            for (cpu, error) in sampler.set_cpus(&cpus) {
                tracing::warn!(cpu, %error, "cannot sample this CPU");
            }
        }
        if let Some(sideband) = &mut self.sideband {
            sideband.set_cpus(&cpus);
        }
        self.cpus = cpus;
    }

    /// Detaches everything that produces records; what is in the rings can still be drained.
    pub fn detach(&mut self) {
        self.sampler = None;
        for (name, ..) in PROCESS_HOOKS.into_iter().chain(CRASH_HOOKS).chain([STDERR_HOOK]) {
            for name in [name.to_owned(), format!("{name}_raw")] {
                // Not loaded is fine: the aim is reached.
                let _not_loaded = match self.ebpf.program_mut(&name) {
                    Some(Program::BtfTracePoint(program)) => program.unload(),
                    Some(Program::RawTracePoint(program)) => program.unload(),
                    _ => Ok(()),
                };
            }
        }
    }

    /// Brings the kernel's own counts into the ledger.
    pub fn update_ledger(&self) {
        for signal in [Signal::Process, Signal::Profile, Signal::Crash, Signal::CrashDetail] {
            let seen = self.counter(signal, KernelCounter::Seen);
            let losses = [
                (LossReason::RingFull, self.counter(signal, KernelCounter::RingFull)),
                (LossReason::ScratchMissing, self.counter(signal, KernelCounter::ScratchMissing)),
            ];
            self.ledger.set_kernel(signal, seen, &losses);
        }
    }

    /// Switches the kernel's run-time statistics on or off. They cost every BPF program on the node two clock
    /// readings per run, so they are on for short times only.
    pub fn set_statistics(&mut self, on: bool) {
        if !on {
            self.statistics = None;
        } else if self.statistics.is_none() {
            self.statistics = enable_stats(Stats::RunTime).ok();
        }
    }

    /// Kernel time of each loaded program.
    pub fn program_times(&self) -> Vec<ProgramTime> {
        let time = |(name, program): (&str, &Program)| {
            let info = program.info().ok()?;
            let (run_time, runs) = (info.run_time(), info.run_count());
            Some(ProgramTime { name: name.to_owned(), run_time_ns: run_time.as_nanos() as u64, runs })
        };
        self.ebpf.programs().filter_map(time).collect()
    }

    fn attach(&mut self, options: &KernelOptions) {
        let types = aya::Btf::parse_file(&options.btf, aya::Endianness::default());
        let crash_hooks = CRASH_HOOKS.into_iter().filter(|_| options.watch_crashes);
        let stderr_hook = options.keep_stderr.then_some(STDERR_HOOK);
        for (program, tracepoint, purpose, missing) in
            PROCESS_HOOKS.into_iter().chain(crash_hooks).chain(stderr_hook)
        {
            let mut hook = Hook::new(purpose, missing);
            if self.ebpf.program(program).is_some() {
                hook.attempt(format!("tp_btf/{tracepoint}"), || {
                    let types =
                        types.as_ref().map_err(|error| anyhow::anyhow!("no kernel types: {error}"))?;
                    attach_btf(&mut self.ebpf, program, tracepoint, types)
                });
            }
            hook.attempt(format!("raw_tp/{tracepoint}"), || {
                attach_raw(&mut self.ebpf, &format!("{program}_raw"), tracepoint)
            });
            self.hooks.push(hook);
        }
        drop(types);
        let mut hook = Hook::new("mappings", "mappings come from /proc: short-lived processes stay unnamed");
        self.sideband = Sideband::open(&self.cpus, &mut hook);
        self.hooks.push(hook);

        let mut hook = Hook::new("on-CPU sampler", "no CPU profiles");
        match load_sampler(&mut self.ebpf) {
            Ok(program) => {
                self.sampler = CpuSampler::attach(program, &self.cpus, options.frequency_hz, &mut hook);
            }
            Err(error) => {
                hook.attempt("perf_event program", || Err::<(), _>(error));
            }
        }
        self.hooks.push(hook);
    }

    fn counter(&self, signal: Signal, counter: KernelCounter) -> u64 {
        let values = self.counters.get(&kernel_counter(signal, counter), 0);
        values.map(|values| values.iter().sum()).unwrap_or(0)
    }
}

/// Finds the places of struct fields; without BTF all stay unknown and the hook says what is missing.
fn field_offsets(options: &KernelOptions, hooks: &mut Vec<Hook>) -> Vec<(&'static str, u32)> {
    let mut hook = Hook::new(
        "kernel types (BTF)",
        "no start times: a reused process id is told apart by exit events only; no forks, no crash records",
    );
    let btf = hook.attempt(options.btf.display().to_string(), || {
        let bytes = std::fs::read(&options.btf).context("cannot read it: is CONFIG_DEBUG_INFO_BTF set?")?;
        Btf::parse(bytes).context("it is not BTF")
    });
    hooks.push(hook);
    btf.map(|btf| layout::of(&btf)).unwrap_or_default()
}

fn load(options: &KernelOptions, cpus: usize, offsets: &[(&'static str, u32)]) -> Result<Ebpf> {
    let ring_bytes =
        options.sample_ring_bytes.unwrap_or_else(|| sample_ring_bytes(cpus, options.frequency_hz));
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("SAMPLE_RING", ring_bytes).map_max_entries("PROCESS_RING", PROCESS_RING_BYTES);
    if !options.keep_stderr {
        loader.map_max_entries("STDERR", 1);
    }
    loader.override_global("AYA_LOG_LEVEL", &options.log_level, true);
    let watch_crashes = u32::from(options.watch_crashes);
    loader.override_global("WATCH_CRASHES", &watch_crashes, true);
    loader.override_global("PROCESSOR", &crate::arch::PROCESSOR, true);
    for (global, offset) in offsets {
        loader.override_global(global, offset, true);
    }
    loader.load(OBJECT).context(
        "the kernel refused the eBPF maps. Kansoku needs root, or CAP_BPF and CAP_PERFMON, and kernel 5.10 or newer; \
         `kansoku doctor` says what is missing",
    )
}

fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the eBPF object has no map {name}: rebuild it (cargo xtask ebpf)"))
}

fn attach_btf(ebpf: &mut Ebpf, program: &str, tracepoint: &str, types: &aya::Btf) -> Result<()> {
    let Some(program) = ebpf.program_mut(program) else { bail!("the object has no program {program}") };
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, types).map_err(explain)?;
    program.attach()?;
    Ok(())
}

fn attach_raw(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<()> {
    let Some(program) = ebpf.program_mut(program) else { bail!("the object has no program {program}") };
    let program: &mut RawTracePoint = program.try_into()?;
    program.load().map_err(explain)?;
    program.attach(tracepoint)?;
    Ok(())
}

fn load_sampler(ebpf: &mut Ebpf) -> Result<i32> {
    let Some(program) = ebpf.program_mut("profile_cpu") else {
        bail!("the object has no program profile_cpu")
    };
    let program: &mut PerfEvent = program.try_into()?;
    program.load().map_err(explain)?;
    Ok(program.fd()?.as_fd().as_raw_fd())
}

/// A verifier log can have a million lines: the last ones tell why.
fn explain(error: ProgramError) -> anyhow::Error {
    const LINES: usize = 6;
    if let ProgramError::LoadError { io_error, verifier_log } = &error {
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().rev().take(LINES).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        return anyhow::anyhow!("the kernel refused the program: {io_error}; {}", tail.join(" | "));
    }
    error.into()
}

fn drain_ring(ring: &mut RingBuf<MapData>, signal: Signal, inbox: &mut Inbox, ledger: &Ledger) -> bool {
    for _ in 0..RECORDS_PER_TURN_MAX {
        let Some(item) = ring.next() else { return false };
        inbox.push_ring(&item, signal, ledger);
    }
    true
}
