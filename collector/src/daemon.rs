//! Wires the threads: pipeline -> symbolizer -> sink, pipeline -> crash reporter -> crash sink, and pipeline -> meter ->
//! metric sink. Stops them in that order.
//!
//! Refuses: knowing what the sink does. A command line picks one: the backend, the terminal, or a list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::clock::{monotonic_ns, unix_ns};
use crate::crash::record::CrashRecord;
use crate::crash::{CrashOptions, Crashes, Death, Redactor, Reporter};
use crate::dump::Store;
use crate::dump::socket::Outcomes;
use crate::health::{Part, Pulse};
use crate::io::Io;
use crate::kernel::{Alarm, Hook, Kernel, KernelOptions, SampleSource};
use crate::loss::Ledger;
use crate::meter::{Meter, News};
use crate::pipeline::{Flush, Pipeline, PipelineOptions};
use crate::symbolize::{SymbolOptions, Symbolizer};
use crate::telemetry::Batch;

/// Windows that may wait for the symbolizer.
const WINDOWS_WAITING_MAX: usize = 2;

/// Deaths that may wait for the reporter: about 6 MiB with their details.
const DEATHS_WAITING_MAX: usize = 256;

/// News that may wait for the thread of metrics.
const NEWS_WAITING_MAX: usize = 64;

/// How long the reporter goes on naming what is queued when the agent stops.
const CRASH_STOP_MAX: Duration = Duration::from_secs(3);

/// How often the crash sink gets a turn when nobody dies.
const CRASH_TURN: Duration = Duration::from_secs(1);

/// Takes records of deaths.
pub trait CrashSink: Send {
    /// Takes one record. Runs on the reporter's thread.
    fn accept(&mut self, record: CrashRecord);

    /// Does what is due by time.
    fn turn(&mut self);

    /// Ends it, once the exporter has ended.
    fn finish(self: Box<Self>);
}

/// What the crash signal needs.
pub struct CrashSetup {
    /// How it works.
    pub options: CrashOptions,
    /// What must not leave.
    pub redactor: Redactor,
    /// Dumps that may belong to deaths.
    pub dumps: Option<Store>,
    /// What became of dumps.
    pub dump_outcomes: Option<Arc<Outcomes>>,
    /// Where records go.
    pub sink: Box<dyn CrashSink>,
}

/// Takes symbolized batches.
pub trait Sink: Send + 'static {
    /// Takes one batch. Runs on the symbolizer's thread: being slow here delays only names.
    fn accept(&mut self, batch: Batch, ledger: &Ledger);
}

/// A running agent.
pub struct Daemon<S> {
    stop: Arc<AtomicBool>,
    /// Ends the pipeline's pause.
    alarm: Arc<Alarm>,
    pipeline: JoinHandle<()>,
    symbolizer: JoinHandle<S>,
    meter: Option<JoinHandle<()>>,
    reporter: Option<JoinHandle<Box<dyn CrashSink>>>,
    ledger: Arc<Ledger>,
    hooks: Vec<Hook>,
    sample_source: Option<SampleSource>,
}

impl<S: Sink> Daemon<S> {
    /// Hooks into the kernel and starts the threads.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the eBPF object as a whole, or a thread.
    pub fn start(
        kernel: &KernelOptions,
        pipeline: PipelineOptions,
        symbols: SymbolOptions,
        sink: S,
        crash: Option<CrashSetup>,
        meter: Option<Meter>,
        ledger: Arc<Ledger>,
    ) -> Result<Self> {
        let health = meter.as_ref().map(|meter| meter.health.clone()).unwrap_or_default();
        let io_options = kernel.io.clone();
        let mut kernel = Kernel::start(kernel, Arc::clone(&ledger))?;
        let io = io_options.zip(kernel.take_io()).map(|(options, maps)| Io::new(maps, &options, unix_ns()));
        let (hooks, sample_source) = (kernel.hooks().to_vec(), kernel.sample_source());
        if hooks.iter().any(|hook| hook.taken().is_some()) {
            health.set_hooked();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (output, input) = sync_channel(WINDOWS_WAITING_MAX);
        let symbolizer_ledger = Arc::clone(&ledger);
        let symbolizer_pulse = health.start(Part::Symbolizer);
        let symbolizer = Builder::new()
            .name("symbolize".to_owned())
            .spawn(move || symbolize(&input, symbols, sink, &symbolizer_ledger, &symbolizer_pulse))
            .context("cannot start the symbolizer's thread")?;
        let (crashes, reporter) = match crash {
            Some(setup) => {
                let pulse = health.start(Part::Crash);
                let (crashes, reporter) = start_reporter(setup, Arc::clone(&stop), &ledger, pulse)?;
                (Some(crashes), Some(reporter))
            }
            None => (None, None),
        };
        let (news, meter) = match meter {
            Some(meter) => {
                let (news, thread) = start_meter(meter, io)?;
                (Some(news), Some(thread))
            }
            None => (None, None),
        };
        let alarm = Arc::new(Alarm::new()?);
        let (pipeline_stop, pipeline_alarm) = (Arc::clone(&stop), Arc::clone(&alarm));
        let pipeline_ledger = Arc::clone(&ledger);
        let pulse = health.start(Part::Pipeline);
        let pipeline = Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || {
                Pipeline::new(kernel, pipeline, crashes, output, news, pipeline_ledger).run(
                    &pipeline_stop,
                    &pipeline_alarm,
                    &pulse,
                )
            })
            .context("cannot start the pipeline's thread")?;
        Ok(Self { stop, alarm, pipeline, symbolizer, meter, reporter, ledger, hooks, sample_source })
    }

    /// What was tried and taken to hook into the kernel.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// What drives the samples; `None` if no sampler could be attached.
    pub fn sample_source(&self) -> Option<SampleSource> {
        self.sample_source
    }

    /// Whether a thread ended by itself, which only a bug makes it do.
    pub fn has_failed(&self) -> bool {
        let has_reporter_failed = self.reporter.as_ref().is_some_and(JoinHandle::is_finished);
        let has_meter_failed = self.meter.as_ref().is_some_and(JoinHandle::is_finished);
        self.pipeline.is_finished()
            || self.symbolizer.is_finished()
            || has_reporter_failed
            || has_meter_failed
    }

    /// The books.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Detaches from the kernel, lets everything that was seen go through, and gives the sinks back.
    ///
    /// # Errors
    ///
    /// If a thread panicked: its name is in the error.
    pub fn stop(self) -> Result<(S, Option<Box<dyn CrashSink>>)> {
        self.stop.store(true, Ordering::Relaxed);
        self.alarm.ring();
        let pipeline = self.pipeline.join();
        let sink = self.symbolizer.join();
        let crash_sink = self.reporter.map(JoinHandle::join).transpose();
        // It may sleep until its next turn.
        self.meter.iter().for_each(|meter| meter.thread().unpark());
        let meter = self.meter.map(JoinHandle::join).transpose();
        pipeline.map_err(|_| anyhow::anyhow!("the pipeline's thread panicked: please report this"))?;
        meter.map_err(|_| anyhow::anyhow!("the metrics' thread panicked: please report this"))?;
        let sink =
            sink.map_err(|_| anyhow::anyhow!("the symbolizer's thread panicked: please report this"))?;
        let crash_sink = crash_sink
            .map_err(|_| anyhow::anyhow!("the crash reporter's thread panicked: please report this"))?;
        Ok((sink, crash_sink))
    }
}

/// Starts the thread that turns deaths into records. It ends when the pipeline lets go of its end.
fn start_reporter(
    setup: CrashSetup,
    stop: Arc<AtomicBool>,
    ledger: &Arc<Ledger>,
    pulse: Pulse,
) -> Result<(Crashes, JoinHandle<Box<dyn CrashSink>>)> {
    let (output, input) = sync_channel(DEATHS_WAITING_MAX);
    let CrashSetup { options, redactor, dumps, dump_outcomes, sink } = setup;
    let dumps = dumps.map(|store| (store, options.policies.clone()));
    let crashes = Crashes::new(options, dump_outcomes, output, Arc::clone(ledger));
    let reporter = Builder::new()
        .name("crash".to_owned())
        .spawn(move || report(&input, Reporter::new(redactor, dumps), sink, &stop, &pulse))
        .context("cannot start the crash reporter's thread")?;
    Ok((crashes, reporter))
}

/// Starts the thread that collects metrics. It ends when the pipeline lets go of its end.
fn start_meter(meter: Meter, io: Option<Io>) -> Result<(std::sync::mpsc::SyncSender<News>, JoinHandle<()>)> {
    let (output, input) = sync_channel(NEWS_WAITING_MAX);
    let thread = Builder::new()
        .name("metrics".to_owned())
        .spawn(move || meter.run(&input, io))
        .context("cannot start the metrics' thread")?;
    Ok((output, thread))
}

fn report(
    input: &Receiver<Box<Death>>,
    mut reporter: Reporter,
    mut sink: Box<dyn CrashSink>,
    stop: &AtomicBool,
    pulse: &Pulse,
) -> Box<dyn CrashSink> {
    let mut stopped: Option<Instant> = None;
    loop {
        pulse.beat(monotonic_ns());
        if stop.load(Ordering::Relaxed) && stopped.get_or_insert_with(Instant::now).elapsed() > CRASH_STOP_MAX
        {
            reporter.hurry();
        }
        match input.recv_timeout(CRASH_TURN) {
            Ok(death) => sink.accept(reporter.record(&death)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return sink,
        }
        sink.turn();
    }
}

fn symbolize<S: Sink>(
    input: &Receiver<Flush>,
    options: SymbolOptions,
    mut sink: S,
    ledger: &Ledger,
    pulse: &Pulse,
) -> S {
    let mut symbolizer = Symbolizer::new(options);
    for flush in input {
        pulse.beat(monotonic_ns());
        let profiles = symbolizer.profiles(flush.window);
        let slow_operations =
            flush.slow_operations.into_iter().map(|pending| symbolizer.slow_operation(pending));
        let slow_operations = slow_operations.collect();
        sink.accept(Batch { profiles, slow_operations, spans: flush.spans }, ledger);
        pulse.rest();
    }
    sink
}
