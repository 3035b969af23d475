//! Wires the threads: pipeline -> symbolizer -> sink, and stops them in that order.
//!
//! Refuses: knowing what the sink does. A command line picks one: the backend, the terminal, or a list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};

use crate::kernel::{Hook, Kernel, KernelOptions, SampleSource};
use crate::loss::Ledger;
use crate::pipeline::{Flush, Pipeline, PipelineOptions};
use crate::symbolize::{SymbolOptions, Symbolizer};
use crate::telemetry::Batch;

/// Windows that may wait for the symbolizer.
const WINDOWS_WAITING_MAX: usize = 2;

/// Takes symbolized batches.
pub trait Sink: Send + 'static {
    /// Takes one batch. Runs on the symbolizer's thread: being slow here delays only names.
    fn accept(&mut self, batch: Batch, ledger: &Ledger);
}

/// A running agent.
pub struct Daemon<S> {
    stop: Arc<AtomicBool>,
    pipeline: JoinHandle<()>,
    symbolizer: JoinHandle<S>,
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
        ledger: Arc<Ledger>,
    ) -> Result<Self> {
        let kernel = Kernel::start(kernel, Arc::clone(&ledger))?;
        let (hooks, sample_source) = (kernel.hooks().to_vec(), kernel.sample_source());
        let stop = Arc::new(AtomicBool::new(false));
        let (output, input) = sync_channel(WINDOWS_WAITING_MAX);
        let symbolizer_ledger = Arc::clone(&ledger);
        let symbolizer = Builder::new()
            .name("symbolize".to_owned())
            .spawn(move || symbolize(&input, symbols, sink, &symbolizer_ledger))
            .context("cannot start the symbolizer's thread")?;
        let pipeline_stop = Arc::clone(&stop);
        let pipeline_ledger = Arc::clone(&ledger);
        let pipeline = Builder::new()
            .name("pipeline".to_owned())
            .spawn(move || Pipeline::new(kernel, pipeline, output, pipeline_ledger).run(&pipeline_stop))
            .context("cannot start the pipeline's thread")?;
        Ok(Self { stop, pipeline, symbolizer, ledger, hooks, sample_source })
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
        self.pipeline.is_finished() || self.symbolizer.is_finished()
    }

    /// The books.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Detaches from the kernel, lets everything that was seen go through, and gives the sink back.
    ///
    /// # Errors
    ///
    /// If a thread panicked: its name is in the error.
    pub fn stop(self) -> Result<S> {
        self.stop.store(true, Ordering::Relaxed);
        self.pipeline.thread().unpark();
        let pipeline = self.pipeline.join();
        let sink = self.symbolizer.join();
        pipeline.map_err(|_| anyhow::anyhow!("the pipeline's thread panicked: please report this"))?;
        sink.map_err(|_| anyhow::anyhow!("the symbolizer's thread panicked: please report this"))
    }
}

fn symbolize<S: Sink>(input: &Receiver<Flush>, options: SymbolOptions, mut sink: S, ledger: &Ledger) -> S {
    let mut symbolizer = Symbolizer::new(options);
    for flush in input {
        let profiles = symbolizer.profiles(flush.window);
        sink.accept(Batch { profiles, metrics: flush.metrics }, ledger);
    }
    sink
}
