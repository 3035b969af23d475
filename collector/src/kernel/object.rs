//! Loads the eBPF object, attaches its programs, and drains its rings.
//!
//! Refuses: to fail for one hook. Only an object that cannot be loaded at all is an error.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, PerfEvent, Program, ProgramError, RawTracePoint};
use aya::sys::{Stats, enable_stats};
use aya::{BtfError, Ebpf, EbpfLoader};
use collector_common::event::{self, Event};
use collector_common::flow::{ConnectionState, pack_decision};
use collector_common::limits::{DECISIONS_MAX, PROCESS_RING_BYTES, place_of};
use collector_common::loss::{KernelCounter, kernel_counter};

use super::alarm::Alarm;
use super::btf::Btf;
use super::flow_maps::FlowMaps;
use super::hook::Hook;
use super::hooks::{self, Tracepoint};
use super::inbox::Inbox;
use super::io_maps::{self, IoMaps};
use super::layout;
use super::map::take_map;
use super::online::online_cpus;
use super::sampler::{CpuSampler, SampleSource, sample_ring_bytes};
use super::sideband::Sideband;
use super::stderr_tails::StderrTails;
use super::syscalls::{SystemCallHooks, SystemCalls, Tap};
use crate::clock::monotonic_ns;
use crate::flow::{Decision, FlowLosses};
use crate::io::calls;
use crate::loss::{Ledger, LossReason, Signal};

/// The committed object, built by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../collector-ebpf/object/kansoku.bpf.o");

/// Records taken from one ring in one turn; the rest waits in the ring.
const RECORDS_PER_TURN_MAX: usize = 16_384;

/// Bytes of the ring of connections where nobody follows them: the smallest ring.
const FLOW_RING_BYTES_UNUSED: u32 = 4096;

/// Records of connections, likewise: those of a full ring.
const FLOW_RECORDS_PER_TURN_MAX: usize = 65_536;

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
    /// Which I/O is counted; `None` for none.
    pub io: Option<IoOptions>,
    /// Whether connections are followed.
    pub watch_flows: bool,
    /// Share of a CPU's time that watching system calls may cost it; 0 for no limit.
    pub syscalls_share_max: f64,
}

/// Which I/O is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoOptions {
    /// Whether processes are told apart within a container.
    pub by_process: bool,
    /// From which time on an operation has a record of its own, nanoseconds; 0 for never.
    pub slow_ns: u64,
    /// Whether files are told apart.
    pub files: bool,
    /// Whether waits for a CPU are measured.
    pub scheduler: bool,
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
    slow_ring: RingBuf<MapData>,
    flow_ring: RingBuf<MapData>,
    flows: FlowMaps,
    decisions: Array<MapData, u64>,
    skip_share: Array<MapData, u32>,
    stderr: StderrTails,
    io: Option<IoMaps>,
    system_calls: SystemCallHooks,
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
        fill_tables(&mut ebpf)?;
        let process_ring = RingBuf::try_from(take_map(&mut ebpf, "PROCESS_RING")?)?;
        let sample_ring = RingBuf::try_from(take_map(&mut ebpf, "SAMPLE_RING")?)?;
        let crash_ring = RingBuf::try_from(take_map(&mut ebpf, "CRASH_RING")?)?;
        let detail_ring = RingBuf::try_from(take_map(&mut ebpf, "DETAIL_RING")?)?;
        let slow_ring = RingBuf::try_from(take_map(&mut ebpf, "SLOW_RING")?)?;
        let flow_ring = RingBuf::try_from(take_map(&mut ebpf, "FLOW_RING")?)?;
        let flows = FlowMaps::take(&mut ebpf)?;
        let decisions = Array::try_from(take_map(&mut ebpf, "DECISIONS")?)?;
        let skip_share = Array::try_from(take_map(&mut ebpf, "SKIP_SHARE")?)?;
        let io = IoMaps::take(&mut ebpf)?;
        let system_calls = SystemCallHooks::take(&mut ebpf)?;
        let stderr = StderrTails::take(&mut ebpf, options.keep_stderr)?;
        let counters = PerCpuArray::try_from(take_map(&mut ebpf, "COUNTERS")?)?;
        let logger = (options.log_level > 0).then(|| aya_log::EbpfLogger::init(&mut ebpf).ok()).flatten();
        let mut kernel = Self {
            ebpf,
            process_ring,
            sample_ring,
            crash_ring,
            detail_ring,
            slow_ring,
            flow_ring,
            flows,
            decisions,
            skip_share,
            stderr,
            io: Some(io),
            system_calls,
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

    /// Watches system calls as much as the node can afford.
    pub fn watch_system_calls(&mut self, now_ns: u64) {
        if !self.system_calls.turn(&mut self.ebpf, now_ns) {
            self.stderr.missed_until(now_ns);
        }
    }

    /// How system calls are watched; `None` if they are not at all.
    pub fn system_calls(&self) -> Option<SystemCalls> {
        self.system_calls.report()
    }

    /// The counts of I/O, for the one who reads them. `None` from the second time on.
    pub fn take_io(&mut self) -> Option<IoMaps> {
        self.io.take()
    }

    /// Moves what arrived to the inbox. Samples and deaths come first: so every process event and every detail that is
    /// older than one that was taken is in the inbox too.
    /// Returns whether something may be left, because a turn takes a limited number.
    pub fn drain(&mut self, inbox: &mut Inbox) -> bool {
        let samples_left = drain_ring(&mut self.sample_ring, Signal::Profile, inbox, &self.ledger);
        let deaths_left = drain_ring(&mut self.crash_ring, Signal::Crash, inbox, &self.ledger);
        let slow_left = drain_ring(&mut self.slow_ring, Signal::SlowOperation, inbox, &self.ledger);
        let details_left = drain_ring(&mut self.detail_ring, Signal::CrashDetail, inbox, &self.ledger);
        let events_left = drain_ring(&mut self.process_ring, Signal::Process, inbox, &self.ledger);
        if let Some(sideband) = &mut self.sideband {
            sideband.drain(inbox, &self.ledger);
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        samples_left || deaths_left || slow_left || details_left || events_left
    }

    /// Hands what was said over connections to `apply`, in the order in which the kernel wrote it. Up to a bounded number
    /// of records; returns how many bytes they had, and whether more may be left.
    pub fn drain_flows(&mut self, mut apply: impl FnMut(Event<'_>)) -> (u64, bool) {
        let mut bytes = 0;
        for _ in 0..FLOW_RECORDS_PER_TURN_MAX {
            let Some(item) = self.flow_ring.next() else { return (bytes, false) };
            bytes += item.len() as u64;
            match event::decode(&item) {
                Some(event) => {
                    self.ledger.decoded(Signal::Flow, 1);
                    apply(event);
                }
                None => self.ledger.lost(Signal::Flow, LossReason::Malformed, 1),
            }
        }
        (bytes, true)
    }

    /// What the kernel side knows of a connection now, by the key and number that it was told with; `None` if it is gone.
    pub fn connection(&self, key: u64, number: u64, is_datagram: bool) -> Option<ConnectionState> {
        self.flows.state(key, number, is_datagram)
    }

    /// What of connections found no room in their ring since the start.
    pub fn flow_losses(&self) -> FlowLosses {
        FlowLosses {
            records: self.counter(Signal::Flow, KernelCounter::RingFull),
            exchanges: self.counter(Signal::Span, KernelCounter::RingFull),
        }
    }

    /// Wakes whoever waits there when the ring of connections fills.
    ///
    /// # Errors
    ///
    /// If the kernel does not let it be watched.
    pub fn wake(&self, alarm: &Alarm) -> Result<()> {
        alarm.watch(&self.flow_ring)
    }

    /// Tells the kernel side which share of exchanges, of 2^32, to leave out.
    pub fn set_skip_share(&mut self, share: u32) {
        if let Err(error) = self.skip_share.set(0, share, 0) {
            tracing::warn!(%error, "cannot tell the kernel how much to leave out");
        }
    }

    /// Exchanges that the kernel side left out since the start.
    pub fn skipped_exchanges(&self) -> u64 {
        [KernelCounter::OverBudgetReceived, KernelCounter::OverBudgetSent]
            .into_iter()
            .map(|counter| self.counter(Signal::Span, counter))
            .sum()
    }

    /// Tells the kernel side how much of a connection's messages is wanted.
    pub fn decide(&mut self, decision: Decision) {
        let Decision { connection, sent_bytes, received_bytes } = decision;
        let packed = pack_decision(connection, sent_bytes, received_bytes);
        if let Err(error) = self.decisions.set(place_of(connection as u32, DECISIONS_MAX), packed, 0) {
            tracing::warn!(%error, "cannot tell the kernel what to capture");
        }
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
        let every =
            [hooks::PROCESS, hooks::CRASH, hooks::IO, hooks::SCHEDULER, hooks::FLOW].into_iter().flatten();
        let every = every.chain([&hooks::SYSCALL_EXIT, &hooks::SYSCALL_ENTER, &hooks::FLOW_RECEIVED]);
        for (name, _) in every.flat_map(|tracepoint| tracepoint.ways) {
            for name in [(*name).to_owned(), format!("{name}_raw")] {
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
        for signal in [
            Signal::Process,
            Signal::Profile,
            Signal::Crash,
            Signal::CrashDetail,
            Signal::SlowOperation,
            Signal::Flow,
        ] {
            let seen = self.counter(signal, KernelCounter::Seen);
            let losses = [
                (LossReason::RingFull, self.counter(signal, KernelCounter::RingFull)),
                (LossReason::ScratchMissing, self.counter(signal, KernelCounter::ScratchMissing)),
                (LossReason::ConnectionsFull, self.counter(signal, KernelCounter::ConnectionsFull)),
            ];
            self.ledger.set_kernel(signal, seen, &losses);
        }
        self.ledger.set_left_out(Signal::Span, LossReason::OverBudget, self.skipped_exchanges());
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
        for tracepoint in wanted(options) {
            self.attach_tracepoint(tracepoint, types.as_ref());
        }
        self.begin_system_calls(options, types.as_ref());
        let is_told_by_sockets = |hook: &Hook| hook.taken() == Some(hooks::TOLD_BY_SOCKETS);
        if self.hooks.iter().any(is_told_by_sockets) {
            self.attach_tracepoint(&hooks::FLOW_RECEIVED, types.as_ref());
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

    /// The hooks on all system calls, for those who need them.
    fn begin_system_calls(&mut self, options: &KernelOptions, types: Result<&aya::Btf, &BtfError>) {
        let counts_io = options.io.is_some();
        let exit = (counts_io || options.keep_stderr)
            .then(|| self.attach_tracepoint(&hooks::SYSCALL_EXIT, types))
            .flatten();
        let enter = counts_io.then(|| self.attach_tracepoint(&hooks::SYSCALL_ENTER, types)).flatten();
        let wants_returns = options.keep_stderr || options.watch_flows;
        let share = options.syscalls_share_max;
        let budget_ns = (share > 0.0).then_some(share * 1e9);
        let now_ns = monotonic_ns();
        self.system_calls.begin(&mut self.ebpf, [enter, exit], counts_io, wants_returns, budget_ns, now_ns);
    }

    /// Tries the ways of a tracepoint; returns what was attached.
    fn attach_tracepoint(
        &mut self,
        tracepoint: &Tracepoint,
        types: Result<&aya::Btf, &BtfError>,
    ) -> Option<Tap> {
        let mut hook = Hook::new(tracepoint.purpose, tracepoint.missing);
        let mut attached = None;
        for &(program, name) in tracepoint.ways {
            if self.ebpf.program(program).is_some() {
                let tap = hook.attempt(format!("tp_btf/{name}"), || {
                    let types = types.map_err(|error| anyhow::anyhow!("no kernel types: {error}"))?;
                    load_btf(&mut self.ebpf, program, name, types)?;
                    Tap::attach(&mut self.ebpf, program, name)
                });
                attached = attached.or(tap);
            }
            let tap = hook.attempt(format!("raw_tp/{name}"), || {
                let program = format!("{program}_raw");
                load_raw(&mut self.ebpf, &program)?;
                Tap::attach(&mut self.ebpf, &program, name)
            });
            attached = attached.or(tap);
        }
        self.hooks.push(hook);
        attached
    }

    fn counter(&self, signal: Signal, counter: KernelCounter) -> u64 {
        let values = self.counters.get(&kernel_counter(signal, counter), 0);
        values.map(|values| values.iter().sum()).unwrap_or(0)
    }
}

/// The tracepoints that these options need, without those of system calls.
fn wanted(options: &KernelOptions) -> impl Iterator<Item = &'static Tracepoint> {
    let crash: &[Tracepoint] = if options.watch_crashes { hooks::CRASH } else { &[] };
    let io: &[Tracepoint] = if options.io.is_some() { hooks::IO } else { &[] };
    let measures_waits = options.io.as_ref().is_some_and(|io| io.scheduler);
    let scheduler: &[Tracepoint] = if measures_waits || options.watch_flows { hooks::SCHEDULER } else { &[] };
    let flow: &[Tracepoint] = if options.watch_flows { hooks::FLOW } else { &[] };
    hooks::PROCESS.iter().chain(crash).chain(io).chain(scheduler).chain(flow)
}

/// What numbers mean stands in the daemon: the programs look it up.
fn fill_tables(ebpf: &mut Ebpf) -> Result<()> {
    io_maps::fill_table(ebpf, "CALLS", calls::syscalls())?;
    io_maps::fill_table(ebpf, "URING_CALLS", calls::uring())?;
    io_maps::fill_table(ebpf, "ERRORS", calls::errors())
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
    loader.override_global("AYA_LOG_LEVEL", &options.log_level, true);
    let watch_crashes = u32::from(options.watch_crashes);
    loader.override_global("WATCH_CRASHES", &watch_crashes, true);
    let keep_stderr = u32::from(options.keep_stderr);
    loader.override_global("KEEP_STDERR", &keep_stderr, true);
    let io = options.io.as_ref();
    let watch_io = u32::from(io.is_some());
    let by_process = u32::from(io.is_some_and(|io| io.by_process));
    let watch_files = u32::from(io.is_some_and(|io| io.files));
    let slow_ns = io.map_or(0, |io| io.slow_ns);
    loader.override_global("WATCH_IO", &watch_io, true);
    loader.override_global("IO_BY_PROCESS", &by_process, true);
    loader.override_global("WATCH_FILES", &watch_files, true);
    loader.override_global("SLOW_NS", &slow_ns, true);
    let watch_flows = u32::from(options.watch_flows);
    loader.override_global("WATCH_FLOWS", &watch_flows, true);
    let possible_cpus = aya::util::nr_cpus().map_or(1, |cpus| cpus as u32);
    loader.override_global("CPUS", &possible_cpus, true);
    let own_tgid = std::process::id();
    loader.override_global("OWN_TGID", &own_tgid, true);
    let scheduler = u32::from(io.is_some_and(|io| io.scheduler));
    loader.override_global("IO_SCHEDULER", &scheduler, true);
    shrink_unused(&mut loader, options, cpus);
    loader.override_global("PROCESSOR", &crate::arch::PROCESSOR, true);
    for (global, offset) in offsets {
        loader.override_global(global, offset, true);
    }
    loader.load(OBJECT).context(
        "the kernel refused the eBPF maps. Kansoku needs root, or CAP_BPF and CAP_PERFMON, and kernel 5.10 or newer; \
         `kansoku doctor` says what is missing",
    )
}

/// Maps that these options do not use take no memory.
fn shrink_unused(loader: &mut EbpfLoader<'_>, options: &KernelOptions, cpus: usize) {
    if !options.keep_stderr {
        loader.map_max_entries("STDERR", 1);
    }
    let io = options.io.as_ref();
    if io.is_none() {
        for map in
            ["STARTS", "DESCRIPTORS", "EPOCHS", "BLOCK_REQUESTS", "CONNECTS", "RECLAIMS", "URING_REQUESTS"]
        {
            loader.map_max_entries(map, 1);
        }
    }
    if !io.is_some_and(|io| io.scheduler) && !options.watch_flows {
        loader.map_max_entries("READY", 1);
    }
    if !options.watch_flows {
        for map in
            ["STREAM_PLACES", "CONNECTIONS", "DATAGRAM_SOCKETS", "UNIX_SOCKETS", "DECISIONS", "THREAD_TIMES"]
        {
            loader.map_max_entries(map, 1);
        }
        loader.map_max_entries("FLOW_RING", FLOW_RING_BYTES_UNUSED);
    }
    if !io.is_some_and(|io| io.files) {
        loader.map_max_entries("FILES", 1);
    }
    let distributions = if io.is_some() { io_maps::distributions_max(cpus) } else { 1 };
    for map in ["DISTRIBUTIONS", "PLACES", "FREE_PLACES"] {
        loader.map_max_entries(map, distributions);
    }
}

fn load_btf(ebpf: &mut Ebpf, program: &str, tracepoint: &str, types: &aya::Btf) -> Result<()> {
    let Some(program) = ebpf.program_mut(program) else { bail!("the object has no program {program}") };
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load(tracepoint, types).map_err(explain)
}

fn load_raw(ebpf: &mut Ebpf, program: &str) -> Result<()> {
    let Some(program) = ebpf.program_mut(program) else { bail!("the object has no program {program}") };
    let program: &mut RawTracePoint = program.try_into()?;
    program.load().map_err(explain)
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
