//! The loop: drain -> apply in the order of time -> flush each window. Owns all live state.
//!
//! Each turn does bounded work and nothing here waits: a symbolizer that is behind costs a counted window, never a
//! turn. Refuses: file formats, symbols, exporters.

mod held;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SendError, SyncSender, TrySendError};
use std::time::Duration;

use collector_common::event::Event;
use collector_common::limits::FLOW_RING_WAKE_BYTES;
use collector_common::profile::Sample;

use crate::agent::{AgentMetrics, Counts};
use crate::clock::{boottime_ns, monotonic_ns, unix_ns};
use crate::crash::{Clocks, Crashes};
use crate::flow::{FlowOptions, Flows, Serving};
use crate::health::Pulse;
use crate::identity::{Names, PeerFeed, Subject};
use crate::io::{PendingOperation, SlowOperations};
use crate::kernel::{Alarm, Arrival, Conntrack, Inbox, Kernel};
use crate::loss::{Ledger, LossReason, Signal};
use crate::meter::News;
use crate::process::ProcessTable;
use crate::profile::{Moment, Profile, Window};
use crate::telemetry::Span;
use held::Held;

/// How often the rings are drained. They hold half a second; that of connections wakes the loop when it fills sooner.
const TURN: Duration = Duration::from_millis(100);

/// The same while as much is said over connections in one turn as sets off a wake-up.
const BUSY_TURN: Duration = Duration::from_millis(10);
const BUSY_BYTES: u64 = FLOW_RING_WAKE_BYTES as u64;

/// How often CPUs that came or went are looked for.
const CPU_CHECK_NS: u64 = 1_000_000_000;

/// How often processes are looked for whose exit was not seen.
const REAP_NS: u64 = 60_000_000_000;

/// The kernel's run-time statistics are on for one second of each minute.
const STATISTICS_PERIOD_NS: u64 = 60_000_000_000;
const STATISTICS_ON_NS: u64 = 1_000_000_000;

/// Changes of the cluster's addresses that one turn takes.
const PEER_EVENTS_MAX: usize = 1_024;

/// Programs that ended in the last moment before the stop still write their records.
const SETTLE: Duration = Duration::from_millis(50);

/// What the pipeline hands to the symbolizer.
pub struct Flush {
    /// Samples by stack.
    pub window: Window,
    /// Operations that took long.
    pub slow_operations: Vec<PendingOperation>,
    /// What was said over connections.
    pub spans: Vec<Span>,
}

/// Which samples are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// Those of one process, by its id in the initial PID namespace.
    Process(u32),
    /// Those of one container, by the start of its id.
    Container(String),
    /// Those of one pod, by its namespace and name.
    Pod(String, String),
    /// Those of one cgroup, by its id.
    Cgroup(u64),
}

/// How the loop runs.
#[derive(Debug)]
pub struct PipelineOptions {
    /// Length of a window.
    pub window: Duration,
    /// Which samples are wanted.
    pub filter: Filter,
    /// Samples per second and CPU.
    pub frequency_hz: u32,
    /// Distinct stacks of a window; more are lost as `window_full`.
    pub stacks_max: usize,
    /// Whether samples carry the requests that were served, as far as connections are followed.
    pub has_sample_spans: bool,
    /// How connections are followed; `None` for not at all.
    pub flows: Option<FlowOptions>,
    /// Whether the kernel's run-time statistics are always on, for measurements.
    pub statistics_always: bool,
    /// Finds the pods of containers.
    pub names: Names,
    /// Tells whose the cluster's addresses are; `None` where nobody wants to know.
    pub peers: Option<PeerFeed>,
    /// Whether the metrics need the names of processes that ended.
    pub tells_ended_names: bool,
}

impl Filter {
    /// Whether records of a subject may be wanted, whatever the process.
    pub fn has(&self, subject: &Subject) -> bool {
        match self {
            Self::All | Self::Process(_) | Self::Cgroup(_) => true,
            Self::Container(id) => {
                subject.container.as_ref().is_some_and(|container| container.id.starts_with(id.as_str()))
            }
            Self::Pod(namespace, name) => {
                subject.pod().is_some_and(|pod| pod.namespace == *namespace && pod.name == *name)
            }
        }
    }
}

/// The pipeline's state.
pub struct Pipeline {
    kernel: Kernel,
    inbox: Inbox,
    processes: ProcessTable,
    profile: Profile,
    crashes: Option<Crashes>,
    slow_operations: SlowOperations,
    flows: Option<Flows>,
    held: Held,
    metrics: AgentMetrics,
    options: PipelineOptions,
    output: SyncSender<Flush>,
    news: Option<SyncSender<News>>,
    ledger: Arc<Ledger>,
    window_start_ns: u64,
    cpu_check_ns: u64,
    reap_ns: u64,
    started_ns: u64,
    ends: u64,
}

impl Pipeline {
    /// A pipeline over what is attached already. Flushed windows go to `output`, what the metrics need to `news`; deaths
    /// are counted as unwanted where there is nobody for them.
    pub fn new(
        kernel: Kernel,
        options: PipelineOptions,
        crashes: Option<Crashes>,
        output: SyncSender<Flush>,
        news: Option<SyncSender<News>>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let now_ns = monotonic_ns();
        let mut processes =
            ProcessTable::new(kernel.has_sideband(), options.names.clone(), Arc::clone(&ledger));
        processes.backfill();
        if options.tells_ended_names {
            processes.keep_ended_names();
        }
        let offset_ns = clocks().monotonic_to_unix_ns;
        let flows = options.flows.as_ref();
        let flows = flows.map(|flows| follow(flows, offset_ns, &ledger));
        Self {
            inbox: Inbox::default(),
            processes,
            profile: Profile::new(
                options.frequency_hz,
                options.stacks_max,
                options.has_sample_spans && flows.is_some(),
                Arc::clone(&ledger),
            ),
            crashes,
            slow_operations: SlowOperations::new(Arc::clone(&ledger)),
            flows,
            held: Held::default(),
            metrics: AgentMetrics::default(),
            kernel,
            options,
            output,
            news,
            ledger,
            window_start_ns: now_ns,
            cpu_check_ns: now_ns,
            reap_ns: now_ns,
            started_ns: now_ns,
            ends: 0,
        }
    }

    /// Runs until `stop` is set, which `alarm` tells, then detaches, drains what is left, and flushes the last window.
    pub fn run(mut self, stop: &AtomicBool, alarm: &Alarm, pulse: &Pulse) {
        if let Err(error) = self.kernel.wake(alarm) {
            tracing::warn!(%error, "bursts of what is said over connections are seen late");
        }
        let mut pause = TURN;
        while !stop.load(Ordering::Relaxed) {
            alarm.pause(pause);
            pause = self.turn();
            pulse.beat(monotonic_ns());
        }
        self.kernel.detach();
        std::thread::sleep(SETTLE);
        while self.drain(u64::MAX) {}
        while self.drain_flows().1 {}
        self.count_flow_losses(monotonic_ns());
        self.tell_deaths(u64::MAX);
        self.tell_placements();
        self.flush(monotonic_ns(), true);
        self.send(u64::MAX);
    }

    /// Takes what is there and does what is due; returns when the next turn shall be.
    fn turn(&mut self) -> Duration {
        let now_ns = monotonic_ns();
        self.kernel.watch_system_calls(now_ns);
        self.processes.start_turn(now_ns);
        self.drain(now_ns);
        self.hear_peers(now_ns);
        let (flow_bytes, _) = self.drain_flows();
        self.count_flow_losses(now_ns);
        if let Some(flows) = &mut self.flows {
            flows.turn(now_ns, |key, number, is_datagram| self.kernel.connection(key, number, is_datagram));
            if let Some(share) = flows.new_skip_share(now_ns, self.kernel.skipped_exchanges()) {
                self.kernel.set_skip_share(share);
            }
        }
        if now_ns.saturating_sub(self.cpu_check_ns) >= CPU_CHECK_NS {
            self.cpu_check_ns = now_ns;
            self.kernel.follow_cpus();
            let phase_ns = (now_ns - self.started_ns) % STATISTICS_PERIOD_NS;
            self.kernel.set_statistics(self.options.statistics_always || phase_ns <= STATISTICS_ON_NS);
            let Self { profile, flows, .. } = self;
            profile.join(|Moment { thread, time_ns }| served(flows.as_ref(), thread, time_ns, time_ns));
        }
        self.tell_deaths(now_ns);
        if now_ns.saturating_sub(self.reap_ns) >= REAP_NS {
            self.reap_ns = now_ns;
            self.processes.reap(now_ns);
        }
        self.tell_placements();
        if now_ns.saturating_sub(self.window_start_ns) >= self.options.window.as_nanos() as u64 {
            self.flush(now_ns, false);
        }
        self.send(now_ns);
        if flow_bytes >= BUSY_BYTES { BUSY_TURN } else { TURN }
    }

    /// Sends deaths on, with the request that was served where it is known.
    fn tell_deaths(&mut self, now_ns: u64) {
        let Self { crashes, flows, .. } = self;
        if let Some(crashes) = crashes {
            let flows = flows.as_ref();
            crashes.turn(now_ns, |thread, time_ns| served(flows, thread, time_ns, time_ns));
        }
    }

    /// Takes whose the cluster's addresses are now.
    fn hear_peers(&mut self, now_ns: u64) {
        let (Some(feed), Some(flows)) = (&mut self.options.peers, &mut self.flows) else { return };
        for event in std::iter::from_fn(|| feed.try_next()).take(PEER_EVENTS_MAX) {
            flows.on_peer(event, now_ns);
        }
    }

    /// Takes what was said over connections, once the processes are known that said it.
    fn drain_flows(&mut self) -> (u64, bool) {
        let Self { kernel, flows, processes, ledger, .. } = self;
        let Some(flows) = flows else { return (0, false) };
        let drained = kernel.drain_flows(|event| match event {
            Event::Open(record) => flows.on_open(record, processes),
            Event::UnixOpen(record) => flows.on_unix_open(record, processes),
            Event::Addressee(record) => flows.on_addressee(record),
            Event::Message(message) => flows.on_message(&message),
            Event::Close(record) => flows.on_close(record, processes),
            // Nothing else is written to that ring.
            _ => ledger.lost(Signal::Flow, LossReason::Filtered, 1),
        });
        for decision in flows.take_decisions() {
            kernel.decide(decision);
        }
        drained
    }

    /// What the kernel side could not tell of connections is known by its number.
    fn count_flow_losses(&mut self, now_ns: u64) {
        if let Some(flows) = &mut self.flows {
            flows.on_losses(self.kernel.flow_losses(), now_ns);
        }
    }

    /// Takes what arrived and applies what is due; returns whether more may be left in the rings.
    fn drain(&mut self, until_ns: u64) -> bool {
        let is_more = self.kernel.drain(&mut self.inbox);
        let Self {
            kernel, inbox, processes, profile, crashes, slow_operations, options, ledger, ends, ..
        } = self;
        let clocks = clocks();
        inbox.apply_until(until_ns, |arrival| match arrival {
            Arrival::Sideband(event) => processes.on_sideband(event),
            Arrival::Ring(Event::Exec(record)) => processes.on_exec(record),
            Arrival::Ring(Event::Fork(record)) => {
                processes.on_fork(&record.task, record.child_tgid, record.child_start_ns);
            }
            Arrival::Ring(Event::Exit(record)) => {
                *ends += 1;
                processes.on_exit(&record.task, record.head.time_ns);
            }
            Arrival::Ring(Event::Comm(record)) => processes.on_comm(&record.task),
            Arrival::Ring(Event::Fault(record)) => match crashes {
                Some(crashes) => crashes.on_fault(record),
                None => ledger.lost(Signal::CrashDetail, LossReason::Filtered, 1),
            },
            Arrival::Ring(Event::Signal(record)) => match crashes {
                Some(crashes) => crashes.on_signal(record),
                None => ledger.lost(Signal::CrashDetail, LossReason::Filtered, 1),
            },
            Arrival::Ring(Event::KernelStack(record)) => match crashes {
                Some(crashes) => crashes.on_kernel_stack(record),
                None => ledger.lost(Signal::CrashDetail, LossReason::Filtered, 1),
            },
            Arrival::Ring(Event::Death(record)) => match crashes {
                Some(crashes) => crashes.on_death(record, processes, kernel.stderr_tails(), &clocks),
                None => ledger.lost(Signal::Crash, LossReason::Filtered, 1),
            },
            Arrival::Ring(Event::SlowOperation(record)) => match processes.of_task(&record.task) {
                Some(process) => slow_operations.observe(record, process, clocks.monotonic_to_unix_ns),
                None => ledger.lost(Signal::SlowOperation, LossReason::ProcessTableFull, 1),
            },
            // They come by a ring of their own, see `drain_flows`.
            Arrival::Ring(
                Event::Open(_)
                | Event::UnixOpen(_)
                | Event::Addressee(_)
                | Event::Message(_)
                | Event::Close(_),
            ) => {
                ledger.lost(Signal::Flow, LossReason::Filtered, 1);
            }
            Arrival::Ring(Event::Sample(sample)) => {
                observe(&sample, processes, profile, &options.filter, ledger);
            }
        });
        is_more
    }

    /// Ends the window.
    fn flush(&mut self, now_ns: u64, is_last: bool) {
        let duration_ns = now_ns.saturating_sub(self.window_start_ns);
        let window = self.profile.flush(unix_ns().saturating_sub(duration_ns), duration_ns);
        self.window_start_ns = now_ns;
        self.kernel.update_ledger();
        if let Some(flows) = &mut self.flows {
            let state = |key, number, is_datagram| self.kernel.connection(key, number, is_datagram);
            flows.count_moved(now_ns, state);
            if is_last {
                flows.catch_up(state);
            }
        }
        self.tell_metrics(is_last);
        let offset_ns = clocks().monotonic_to_unix_ns;
        let spans = match &mut self.flows {
            Some(flows) => flows.flush(offset_ns, is_last),
            None => Vec::new(),
        };
        let flows = self.flows.as_ref();
        let slow_operations = self.slow_operations.flush(is_last, |operation| {
            let end_ns = operation.time_unix_ns.saturating_sub(offset_ns);
            let start_ns = end_ns.saturating_sub(operation.duration_ns);
            served(flows, operation.thread_id, start_ns, end_ns)
        });
        self.held.push(now_ns, Flush { window, slow_operations, spans });
    }

    /// Sends on what has its names and requests. A symbolizer that is behind costs the window, counted; at the stop
    /// (`u64::MAX`) it is waited for.
    fn send(&mut self, now_ns: u64) {
        let Self { held, flows, options, output, ledger, .. } = self;
        let serving = |Moment { thread, time_ns }| served(flows.as_ref(), thread, time_ns, time_ns);
        while let Some(flush) = held.next(now_ns, serving) {
            let (named, unnamed) = held::by_name(&flush);
            let sent = match now_ns {
                u64::MAX => output.send(flush).map_err(|SendError(flush)| TrySendError::Disconnected(flush)),
                _ => output.try_send(flush),
            };
            let unsent = match sent {
                Ok(()) => None,
                Err(TrySendError::Disconnected(flush)) => Some(flush),
                Err(TrySendError::Full(flush)) => match held.give_back(flush) {
                    Ok(()) => return,
                    Err(flush) => Some(flush),
                },
            };
            options.names.stats().count_records(named, unnamed);
            let Some(flush) = unsent else { continue };
            ledger.lost(Signal::Profile, LossReason::SymbolizerBehind, flush.window.sample_count());
            let slow = flush.slow_operations.len() as u64;
            ledger.lost(Signal::SlowOperation, LossReason::SymbolizerBehind, slow);
            ledger.lost(Signal::Span, LossReason::SymbolizerBehind, flush.spans.len() as u64);
        }
    }

    /// Who reads numbers by cgroup hears whose the cgroups are, and by process what those were that ended.
    fn tell_placements(&mut self) {
        let Some(news) = &self.news else { return };
        let names = self.processes.take_ended_names();
        if !names.is_empty() {
            // A receiver that is behind goes without.
            let _behind_or_gone = news.try_send(News::EndedNames(names));
        }
        let placements = self.processes.take_placements();
        if placements.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(News::Placements(placements))) =
            news.try_send(News::Placements(placements))
        {
            self.processes.give_back_placements(placements);
        }
    }

    /// The agent's own metrics. A receiver that is behind gets the next ones; the last ones wait for it.
    fn tell_metrics(&mut self, is_last: bool) {
        let Some(news) = &self.news else { return };
        let (programs, calls) = (self.kernel.program_times(), self.kernel.system_calls());
        let counts = Counts {
            processes: self.processes.len(),
            samples_of_unknown_requests: self.profile.samples_of_unknown_requests(),
        };
        let mut metrics = self.metrics.read(&self.ledger, &programs, calls, counts);
        let offset_ns = clocks().monotonic_to_unix_ns;
        metrics.extend(self.flows.iter_mut().flat_map(|flows| flows.metrics(monotonic_ns(), offset_ns)));
        metrics.extend(self.options.names.metrics());
        metrics.extend(self.crashes.iter().flat_map(|crashes| crashes.metrics(self.ends)));
        let _behind_or_gone = match is_last {
            true => news.send(News::Agent(metrics)).is_ok(),
            false => news.try_send(News::Agent(metrics)).is_ok(),
        };
    }
}

fn observe(
    sample: &Sample<'_>,
    processes: &mut ProcessTable,
    profile: &mut Profile,
    filter: &Filter,
    ledger: &Ledger,
) {
    let head = sample.head;
    let Some(process) = processes.of_task(&head.task) else {
        return ledger.lost(Signal::Profile, LossReason::ProcessTableFull, 1);
    };
    let is_wanted = match filter {
        Filter::Process(tgid) => process.tgid == *tgid,
        Filter::Cgroup(cgroup_id) => head.task.cgroup_id == *cgroup_id,
        Filter::All | Filter::Container(_) | Filter::Pod(..) => filter.has(&process.subject),
    };
    if !is_wanted {
        return ledger.lost(Signal::Profile, LossReason::Filtered, 1);
    }
    let is_mapped = sample.user_stack.first().is_none_or(|&address| process.maps.place(address).is_some());
    if !is_mapped {
        processes.refresh(head.task.tgid, head.head.time_ns);
    }
    if let Some(process) = processes.of_task(&head.task) {
        profile.observe(sample, process);
    }
}

/// Follows connections, to the pods behind IPs of Services as far as the node's connection tracking can be asked.
fn follow(options: &FlowOptions, offset_ns: u64, ledger: &Arc<Ledger>) -> Flows {
    let mut flows = Flows::new(options, unix_ns(), offset_ns, Arc::clone(ledger));
    match options.node_network.as_deref().map(Conntrack::open) {
        None => {}
        Some(Ok(mut conntrack)) => flows.set_translate(Box::new(move |route| {
            let destination = conntrack.destination(route);
            destination.inspect_err(|error| tracing::debug!(%error, ?route, "no translation"))
        })),
        Some(Err(error)) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "pods behind IPs of Services on other nodes have no names"
            );
        }
    }
    flows
}

/// What a thread served from one moment to another: nothing that is known where connections are not followed.
fn served(flows: Option<&Flows>, thread: u32, start_ns: u64, end_ns: u64) -> Serving {
    flows.map_or(Serving::Nothing, |flows| flows.serving(thread, start_ns, end_ns))
}

/// How far the kernel's clocks are from the epoch now.
fn clocks() -> Clocks {
    let unix_ns = unix_ns();
    Clocks {
        monotonic_to_unix_ns: unix_ns.saturating_sub(monotonic_ns()),
        boottime_to_unix_ns: unix_ns.saturating_sub(boottime_ns()),
    }
}
