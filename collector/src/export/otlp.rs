//! Sends encoded OTLP requests to the user's backend, over gRPC or HTTP, on one thread of its own.
//!
//! Every record pushed is reported exactly once: exported, or dropped with its reason. A backend that is down, slow
//! or hostile costs at most `Limits::queue_bytes_max` of waiting payloads and never blocks the one who pushes.
//!
//! Refuses: encoding signals (they arrive encoded), resolving configuration (it arrives resolved), following
//! redirects, proxies, and keeping payloads on disk.
//!
//! Spec: <https://opentelemetry.io/docs/specs/otlp/>

mod answer;
mod grpc;
mod http;
mod notices;
mod queue;
mod retry;
mod tls;
mod transport;
mod worker;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use tokio::sync::watch;

use queue::Queue;
use transport::{Clients, Transport};
use worker::Worker;

use crate::health::Pulse;

/// Bytes of payloads that wait or are in flight, unless configured.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Wait before the first retry, unless configured.
pub const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// Longest wait between two attempts, unless configured.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// How long one payload is retried, unless configured.
pub const RETRY_ELAPSED_MAX: Duration = Duration::from_mins(5);

/// Threads that resolve names: the system's resolver blocks, so it can't run on the exporter's own thread.
const RESOLVE_THREADS_MAX: usize = 2;

/// What a payload carries. Each signal has its own queue and endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// `/v1development/profiles`
    Profiles,
    /// `/v1/metrics`
    Metrics,
    /// `/v1/traces`
    Traces,
    /// `/v1/logs`
    Logs,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Payload {
    /// What it carries.
    pub signal: Signal,
    /// An encoded `Export<Signal>ServiceRequest`, not compressed.
    pub body: Bytes,
    /// Records the body holds, as the loss ledger counts them.
    pub records: u64,
    /// Items the body holds, in the unit of the signal's `rejected_*` field. A partial success counts these, and its
    /// share of the records counts as rejected (rounded up: a profile holds many samples).
    pub items: u64,
    /// What the one who pushed knows the payload by; it comes back with the report. 0 where nobody asks.
    pub ticket: u64,
}

/// How requests travel, named as `OTEL_EXPORTER_OTLP_PROTOCOL` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    HttpProtobuf,
}

/// How bodies are compressed, named as `OTEL_EXPORTER_OTLP_COMPRESSION` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `none`
    None,
    /// `gzip`
    Gzip,
    /// `zstd`
    Zstd,
}

/// Where one signal goes. Environment and configuration are resolved already.
#[derive(Clone, PartialEq)]
pub struct Endpoint {
    /// For HTTP the signal's full URL, `/v1/…` path included. For gRPC `scheme://host:port`, or `host:port`.
    pub url: String,
    /// How requests travel.
    pub protocol: Protocol,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Sent with each request; values may be secrets and are never logged.
    pub headers: Vec<(String, String)>,
    /// Bounds one whole attempt: connect, send and answer.
    pub timeout: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub certificate: Option<PathBuf>,
    /// PEM file of the certificate chain to present (mTLS); needs `client_key`.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of the private key of `client_certificate`.
    pub client_key: Option<PathBuf>,
    /// Plain text for a gRPC URL without scheme; a scheme wins over it.
    pub insecure: bool,
}

/// Bounds on memory and persistence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Payload bytes that wait or are in flight, over all signals.
    pub queue_bytes_max: usize,
    /// Wait before the first retry; doubles each time, with jitter.
    pub retry_initial: Duration,
    /// Longest wait between two attempts. Bounds a backend's `Retry-After` too.
    pub retry_delay_max: Duration,
    /// From a payload's first attempt until its last retry may start.
    pub retry_elapsed_max: Duration,
}

/// Why records never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Too much waited already, or the payload alone is larger than the queue.
    QueueFull,
    /// The backend took the request but not these records (partial success).
    Rejected,
    /// The backend's answer forbids a retry, or the signal has no endpoint.
    Refused,
    /// Retryable failures, for longer than `retry_elapsed_max`.
    RetryExhausted,
    /// The exporter stopped first.
    Shutdown,
}

/// What became of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend has them.
    Exported {
        /// How many.
        records: u64,
    },
    /// They are lost.
    Dropped {
        /// How many.
        records: u64,
        /// Why.
        reason: DropReason,
    },
}

/// Hears what became of each payload, with its ticket. Called from the exporter's thread, but for what `push` itself has to drop:
/// that is reported from the thread that pushes. It should be quick and must not call the exporter.
pub type Report = Arc<dyn Fn(Signal, Outcome, u64) + Send + Sync>;

/// Handle of the exporter. When the last one goes without `stop`, what still waits is dropped as `Shutdown`.
#[derive(Clone)]
pub struct Exporter {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Arc<Queue>,
    /// Becomes the deadline when `stop` is called; the exporter's thread waits for it.
    stop: watch::Sender<Option<Duration>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Checks endpoints without starting anything: URLs, headers, certificates.
///
/// # Errors
/// As [`Exporter::start`].
pub fn check(endpoints: &[(Signal, Endpoint)]) -> anyhow::Result<()> {
    let mut clients = Clients::default();
    for (signal, endpoint) in endpoints {
        Transport::new(*signal, endpoint, &mut clients).with_context(|| format!("cannot export {signal}"))?;
    }
    Ok(())
}

impl Exporter {
    /// Checks the endpoints, reads their certificates and starts the thread. Connects to nothing yet: a backend that
    /// is down at this moment is met with retries.
    ///
    /// # Errors
    /// A malformed URL or header, a certificate that can't be read, two endpoints for one signal, or no thread to be
    /// had. The message names what to change.
    pub fn start(
        endpoints: Vec<(Signal, Endpoint)>,
        limits: Limits,
        report: Report,
        pulse: Pulse,
    ) -> anyhow::Result<Exporter> {
        let signals: Vec<Signal> = endpoints.iter().map(|(signal, _)| *signal).collect();
        let queue = Arc::new(Queue::new(limits.queue_bytes_max, &signals, report));
        let (stop, stopping) = watch::channel(None);
        let mut clients = Clients::default();
        let mut workers = Vec::with_capacity(endpoints.len());
        for (signal, endpoint) in endpoints {
            let uses = signals.iter().filter(|other| **other == signal).count();
            ensure!(uses == 1, "{signal} has {uses} endpoints; keep one");
            let transport = Transport::new(signal, &endpoint, &mut clients)
                .with_context(|| format!("cannot export {signal}"))?;
            workers.push(Worker::new(signal, Arc::clone(&queue), transport, limits, stopping.clone()));
        }
        let thread = spawn(workers, Arc::clone(&queue), stopping, pulse)?;
        Ok(Exporter { shared: Arc::new(Shared { queue, stop, thread: Mutex::new(Some(thread)) }) })
    }

    /// Takes a payload to send. Never waits for the backend: over `queue_bytes_max` the oldest payloads give way.
    pub fn push(&self, payload: Payload) {
        self.shared.queue.push(payload);
    }

    /// Sends what waits until the deadline passes, drops the rest as `Shutdown` and joins the thread. Later pushes
    /// are dropped as `Shutdown`. Only the first caller waits.
    pub fn stop(self, deadline: Duration) {
        self.shared.queue.close();
        // The thread may have ended already; then nobody listens.
        self.shared.stop.send_replace(Some(deadline));
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the export thread panicked");
        }
    }
}

/// Starts the one thread that drives all workers.
fn spawn(
    workers: Vec<Worker>,
    queue: Arc<Queue>,
    stopping: watch::Receiver<Option<Duration>>,
    pulse: Pulse,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVE_THREADS_MAX)
        .thread_name("export-resolve")
        .build()
        .context("cannot start the exporter's runtime")?;
    thread::Builder::new()
        .name("export".to_owned())
        .spawn(move || {
            runtime.block_on(worker::run(workers, queue, stopping, pulse));
            // A resolver that hangs must not hold up the exit.
            runtime.shutdown_background();
        })
        .context("cannot start the export thread")
}

impl Signal {
    /// All signals.
    pub const ALL: [Signal; 4] = [Signal::Profiles, Signal::Metrics, Signal::Traces, Signal::Logs];

    /// Path that a base URL gets for this signal over HTTP.
    #[must_use]
    pub fn http_path(self) -> &'static str {
        match self {
            Signal::Profiles => "/v1development/profiles",
            Signal::Metrics => "/v1/metrics",
            Signal::Traces => "/v1/traces",
            Signal::Logs => "/v1/logs",
        }
    }

    /// Path of the signal's gRPC method.
    #[must_use]
    pub fn grpc_path(self) -> &'static str {
        match self {
            Signal::Profiles => {
                "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
            }
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// The variable that sets `option` for this signal, such as `OTEL_EXPORTER_OTLP_LOGS_TIMEOUT`.
    fn variable(self, option: &str) -> String {
        format!("OTEL_EXPORTER_OTLP_{}_{option}", self.to_string().to_ascii_uppercase())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Signal::Profiles => "profiles",
            Signal::Metrics => "metrics",
            Signal::Traces => "traces",
            Signal::Logs => "logs",
        })
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queue_bytes_max: QUEUE_BYTES_MAX,
            retry_initial: RETRY_INITIAL,
            retry_delay_max: RETRY_DELAY_MAX,
            retry_elapsed_max: RETRY_ELAPSED_MAX,
        }
    }
}

/// Names the headers but keeps their values, which often are credentials.
impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Endpoint")
            .field("url", &self.url)
            .field("protocol", &self.protocol)
            .field("compression", &self.compression)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("certificate", &self.certificate)
            .field("client_certificate", &self.client_certificate)
            .field("client_key", &self.client_key)
            .field("insecure", &self.insecure)
            .finish()
    }
}
