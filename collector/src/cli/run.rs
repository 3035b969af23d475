//! `kansoku run`: observe the node until stopped.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::crash_output::{CrashOutput, RecentCrashes};
use super::metric_output;
use super::stop::Stop;
use super::top::Top;
use super::{ConfigArguments, duration, ledger, output};
use crate::config::Config;
use crate::daemon::{CrashSetup, Daemon, Sink};
use crate::diagnostics::Diagnostics;
use crate::dump::service::DumpService;
use crate::export::{Backend, MetricExporter};
use crate::health::Health;
use crate::identity::{NameOptions, Names};
use crate::loss::Ledger;
use crate::pipeline::{Filter, PipelineOptions};
use crate::telemetry::Batch;

/// Distinct stacks of a window: about 20 MiB.
const STACKS_MAX: usize = 16_384;

#[derive(Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Keep the kernel's run-time statistics always on (for measurements; costs every BPF program of the node)
    #[arg(long, hide = true)]
    statistics: bool,
}

pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let config = arguments.config.load(Vec::new())?;
    let _diagnostics = Diagnostics::start(&config.log_level, config.own_telemetry_endpoint.as_deref())?;
    let stop = Stop::listen()?;
    let ledger = Arc::new(Ledger::default());
    let health = Health::default();
    let (names, mut name_thread) = Names::start(name_options(&config, &health))?;
    let options = PipelineOptions {
        window: config.window,
        filter: Filter::All,
        frequency_hz: config.kernel.frequency_hz,
        stacks_max: STACKS_MAX,
        has_sample_spans: true,
        flows: config.flows.clone(),
        statistics_always: arguments.statistics,
        names: names.clone(),
        peers: name_thread.take_peers(),
        tells_ended_names: config.kernel.io.as_ref().is_some_and(|io| io.by_process),
    };
    let recent = RecentCrashes::default();
    let output = Output::start(&config, &recent, Arc::clone(&ledger), &health)?;
    let dumps = start_dumps(&config, names.clone());
    let crash = config.kernel.watch_crashes.then(|| CrashSetup {
        sink: Box::new(CrashOutput::start(&config, &output, recent, Arc::clone(&ledger))),
        options: config.crash.clone(),
        redactor: config.redactor.clone(),
        dumps: dumps.as_ref().map(DumpService::store),
        dump_outcomes: dumps.as_ref().and_then(DumpService::outcomes),
    });
    let meter = metric_output::meter(&config, &output, &names, &health);
    drop(names);
    let daemon = Daemon::start(&config.kernel, options, config.symbols, output, crash, Some(meter), ledger)?;
    warn_of_missing(&daemon);
    stop.wait_for_end(arguments.duration, || daemon.has_failed());
    health.set_stopping();
    output::tell("stopping: what was collected still goes out\n");
    let ledger = Arc::clone(daemon.ledger());
    // First: what dies while we stop must find core_pattern as it was.
    if let Some(dumps) = dumps {
        dumps.stop();
    }
    let (output, crash_sink) = daemon.stop()?;
    name_thread.join();
    output.stop();
    if let Some(crash_sink) = crash_sink {
        crash_sink.finish();
    }
    output::tell(&format!("{}\n", ledger::text(&ledger.accounts())));
    Ok(ExitCode::SUCCESS)
}

/// Names outlive this agent; peers are for those who follow connections.
fn name_options(config: &Config, health: &Health) -> NameOptions {
    let peers = config.names.peers && config.flows.is_some();
    NameOptions { keeps_cache: true, peers, health: health.clone(), ..config.names.clone() }
}

/// Dumps are an extra: where they cannot be had the agent goes on without.
fn start_dumps(config: &Config, names: Names) -> Option<DumpService> {
    match DumpService::start(&config.dump, names) {
        Ok(service) => {
            if let Some(service) = &service {
                tracing::info!(pattern = ?service.pattern(), "dumps are taken; core_pattern comes back at the stop");
            }
            service
        }
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "no dumps are taken");
            None
        }
    }
}

fn warn_of_missing(daemon: &Daemon<Output>) {
    for hook in daemon.hooks() {
        let tried = hook.attempts.last().and_then(|attempt| attempt.error.as_deref()).unwrap_or("not tried");
        match hook.taken() {
            None => tracing::warn!(
                hook = hook.purpose,
                missing = hook.missing_without,
                error = tried,
                "cannot hook"
            ),
            Some(way) => tracing::debug!(hook = hook.purpose, way, fallback = hook.is_fallback(), "hooked"),
        }
    }
}

/// Where batches go.
pub(super) enum Output {
    Backend(Backend),
    Terminal(Box<Top>),
}

impl Output {
    fn start(config: &Config, recent: &RecentCrashes, ledger: Arc<Ledger>, health: &Health) -> Result<Self> {
        if config.endpoints.is_empty() {
            return Ok(Self::Terminal(Box::new(Top::new(config, recent.clone()))));
        }
        for (signal, endpoint) in &config.endpoints {
            tracing::info!(%signal, url = %endpoint.url, "exporting");
        }
        Ok(Self::Backend(Backend::start(config, ledger, health)?))
    }

    /// The way of metrics to the backend, if there is one that takes them.
    pub(super) fn metric_exporter(&self, config: &Config) -> Option<MetricExporter> {
        match self {
            Self::Backend(backend) => backend.metric_exporter(config.temporality),
            Self::Terminal(_) => None,
        }
    }

    fn stop(self) {
        if let Self::Backend(backend) = self {
            backend.stop();
        }
    }
}

impl Sink for Output {
    fn accept(&mut self, batch: Batch, ledger: &Ledger) {
        match self {
            Self::Backend(backend) => backend.accept(&batch),
            Self::Terminal(top) => top.accept(batch, ledger),
        }
    }
}
