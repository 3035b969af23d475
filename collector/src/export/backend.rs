//! Batches -> the OTLP backend: encodes each signal, cuts what is too large for one request, counts what became of it.
//!
//! Refuses: waiting for the backend; that is the exporter's own queue.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Result;
use prost::Message;

use super::otlp::{self, DropReason, Exporter, Outcome, Payload};
use super::slow_logs::slow_operations_request;
use super::{
    Deltas, First, HostResource, Outbox, Receipts, TemporalityPreference, metrics_requests, profiles_request,
    traces_requests,
};
use crate::clock::unix_ns;
use crate::config::Config;
use crate::crash::spool::Spool;
use crate::health::{Health, Part};
use crate::loss::{Ledger, LossReason, Signal};
use crate::meter::MetricSink;
use crate::telemetry::{Batch, Profile, SlowOperation, Snapshot, Span};

/// Receivers in Go refuse gRPC messages over 4 MiB by default.
const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What waits at the stop is sent for at most this long.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The backend, with what it needs to know about the host.
pub struct Backend {
    exporter: Exporter,
    host: HostResource,
    takes: Vec<otlp::Signal>,
    receipts: Receipts,
    ledger: Arc<Ledger>,
}

/// The way of metrics to the backend.
pub struct MetricExporter {
    exporter: Exporter,
    host: HostResource,
    deltas: Deltas,
    temporality: TemporalityPreference,
    ledger: Arc<Ledger>,
}

/// The ticket of what needs no receipt.
const NO_TICKET: u64 = 0;

impl Backend {
    /// Starts the exporter for the configured endpoints.
    ///
    /// # Errors
    ///
    /// For endpoints that can never work: bad URLs, unreadable certificates.
    pub fn start(config: &Config, ledger: Arc<Ledger>, health: &Health) -> Result<Self> {
        let report_to = Arc::clone(&ledger);
        let receipts = Receipts::default();
        let hand_in = Arc::clone(&receipts);
        let report =
            Arc::new(move |signal, outcome, ticket| report(&report_to, &hand_in, signal, outcome, ticket));
        Ok(Self {
            exporter: Exporter::start(
                config.endpoints.clone(),
                config.limits,
                report,
                health.start(Part::Export),
            )?,
            host: HostResource::read(&config.resource_attributes),
            takes: config.endpoints.iter().map(|(signal, _)| *signal).collect(),
            receipts,
            ledger,
        })
    }

    /// Queues a batch. A signal without an endpoint ends here, as switched off by the user.
    #[tracing::instrument(name = "export batch", skip_all, fields(profiles = batch.profiles.len()))]
    pub fn accept(&self, batch: &Batch) {
        if self.takes.contains(&otlp::Signal::Profiles) {
            self.push_profiles(&batch.profiles);
        } else {
            let samples = batch.profiles.iter().map(Profile::sample_count).sum();
            self.ledger.lost(Signal::Profile, LossReason::ExportSwitchedOff, samples);
        }
        if self.takes.contains(&otlp::Signal::Logs) {
            self.push_slow_operations(&batch.slow_operations);
        } else {
            let count = batch.slow_operations.len() as u64;
            self.ledger.lost(Signal::SlowOperation, LossReason::ExportSwitchedOff, count);
        }
        if self.takes.contains(&otlp::Signal::Traces) {
            self.push_spans(&batch.spans);
        } else {
            self.ledger.lost(Signal::Span, LossReason::ExportSwitchedOff, batch.spans.len() as u64);
        }
    }

    /// Where metrics go; `None` if the backend takes none.
    pub fn metric_exporter(&self, temporality: TemporalityPreference) -> Option<MetricExporter> {
        self.takes.contains(&otlp::Signal::Metrics).then(|| MetricExporter {
            exporter: self.exporter.clone(),
            host: self.host.clone(),
            deltas: Deltas::new(temporality, First::SinceAgentStart(unix_ns())),
            temporality,
            ledger: Arc::clone(&self.ledger),
        })
    }

    /// Where crash records go: to the backend if it takes logs, else to the spool alone.
    pub fn outbox(&self, spool: Option<Spool>) -> Outbox {
        let ledger = Arc::clone(&self.ledger);
        if !self.takes.contains(&otlp::Signal::Logs) {
            return Outbox::local(spool, ledger);
        }
        let receipts = Arc::clone(&self.receipts);
        Outbox::to_backend(spool, self.exporter.clone(), self.host.clone(), receipts, ledger)
    }

    /// Sends what waits, for some seconds at most, and ends the exporter.
    pub fn stop(self) {
        self.exporter.stop(STOP_DEADLINE);
    }

    fn push_profiles(&self, profiles: &[Profile]) {
        let samples = |profiles: &[Profile]| profiles.iter().map(Profile::sample_count).sum();
        self.push_halved(otlp::Signal::Profiles, profiles, &profiles_request, &samples);
    }

    fn push_slow_operations(&self, operations: &[SlowOperation]) {
        let count = |operations: &[SlowOperation]| operations.len() as u64;
        self.push_halved(otlp::Signal::Logs, operations, &slow_operations_request, &count);
    }

    fn push_spans(&self, spans: &[Span]) {
        push_all(&self.exporter, otlp::Signal::Traces, traces_requests(spans, &self.host, REQUEST_BYTES_MAX));
    }

    /// Queues a request of these items; halves what is too large, down to a single item. `records` is how many of the ledger's
    /// records some items are.
    fn push_halved<T, R: Message>(
        &self,
        signal: otlp::Signal,
        items: &[T],
        request: &impl Fn(&[T], &HostResource) -> R,
        records: &impl Fn(&[T]) -> u64,
    ) {
        if items.is_empty() {
            return;
        }
        let body = request(items, &self.host);
        if body.encoded_len() > REQUEST_BYTES_MAX && items.len() > 1 {
            let (first, second) = items.split_at(items.len() / 2);
            self.push_halved(signal, first, request, records);
            return self.push_halved(signal, second, request, records);
        }
        self.exporter.push(Payload {
            signal,
            body: body.encode_to_vec().into(),
            records: records(items),
            items: items.len() as u64,
            ticket: NO_TICKET,
        });
    }
}

impl MetricSink for MetricExporter {
    fn accept(&mut self, snapshot: &Snapshot) {
        let mut invalid = 0;
        let requests = if self.temporality == TemporalityPreference::Cumulative {
            metrics_requests(snapshot, &self.host, self.temporality, REQUEST_BYTES_MAX)
        } else {
            let pushed = snapshot.metrics.iter().filter(|metric| metric.vocabulary.is_pushed());
            let mut deltas =
                Snapshot { time_unix_ns: snapshot.time_unix_ns, metrics: pushed.cloned().collect() };
            invalid = self.deltas.apply(&mut deltas).invalid;
            metrics_requests(&deltas, &self.host, self.temporality, REQUEST_BYTES_MAX)
        };
        let points: u64 = requests.requests.iter().map(|(_, points)| points).sum();
        let refused = requests.refused + invalid;
        let all = points + refused;
        self.ledger.seen(Signal::Metric, all);
        self.ledger.decoded(Signal::Metric, all);
        self.ledger.represented(Signal::Metric, all);
        self.ledger.lost(Signal::Metric, LossReason::ExportRefused, refused);
        push_all(&self.exporter, otlp::Signal::Metrics, requests.requests);
    }
}

/// Queues encoded requests, each with the number of its items, which are the ledger's records.
fn push_all(exporter: &Exporter, signal: otlp::Signal, requests: Vec<(Vec<u8>, u64)>) {
    for (request, items) in requests {
        let body = request.into();
        exporter.push(Payload { signal, body, records: items, items, ticket: NO_TICKET });
    }
}

fn report(ledger: &Ledger, receipts: &Receipts, signal: otlp::Signal, outcome: Outcome, ticket: u64) {
    let signal = match signal {
        otlp::Signal::Profiles => Signal::Profile,
        otlp::Signal::Metrics => Signal::Metric,
        otlp::Signal::Logs if ticket == NO_TICKET => Signal::SlowOperation,
        // The outbox keeps these until it knows.
        otlp::Signal::Logs => {
            return receipts.lock().unwrap_or_else(PoisonError::into_inner).push((ticket, outcome));
        }
        otlp::Signal::Traces => Signal::Span,
    };
    match outcome {
        Outcome::Exported { records } => ledger.exported(signal, records),
        Outcome::Dropped { records, reason } => ledger.lost(signal, loss_reason(reason), records),
    }
}

/// The ledger's word for a reason of the exporter.
pub(super) fn loss_reason(reason: DropReason) -> LossReason {
    match reason {
        DropReason::QueueFull => LossReason::ExportQueueFull,
        DropReason::Rejected => LossReason::ExportRejected,
        DropReason::Refused => LossReason::ExportRefused,
        DropReason::RetryExhausted => LossReason::ExportRetryExhausted,
        DropReason::Shutdown => LossReason::ExportShutdown,
    }
}
