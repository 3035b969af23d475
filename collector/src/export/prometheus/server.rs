//! The HTTP server: one thread, bounded connections, deadlines for each.
//!
//! Refuses: HTTP/2 (Prometheus needs none for one request at a time), more than [`CONNECTIONS_MAX`] connections, and
//! clients that take longer than [`Timeouts`] allows.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use super::answer::Answerer;
use super::authorization::Authorization;
use super::bodies::Bodies;
use super::counters::Counters;
use super::deadline::{Clock, ClockedStream, Phase, Timeouts};
use super::encode::Encoder;
use super::requests::SnapshotRequests;
use super::tls::{Tls, TlsOptions};
use crate::health::Health;
use crate::telemetry::{Metric, Text, Vocabulary};

/// Connections at a time; those beyond are closed at once and counted.
pub const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's head; a larger one is answered with 431.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request; more are answered with 431.
pub const HEADERS_MAX: usize = 64;

/// What the endpoint is to do. It has no `Debug`, because it has secrets.
#[derive(Clone)]
pub struct PrometheusOptions {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// TLS; without it all is in the clear.
    pub tls: Option<TlsOptions>,
    /// User and password of HTTP basic authentication.
    pub basic: Option<(String, String)>,
    /// A file with a token that is good as well; read again when it changes.
    pub bearer_token_file: Option<PathBuf>,
    /// The vocabularies to expose.
    pub vocabularies: HashSet<Vocabulary>,
    /// Whether OpenMetrics has `_created` series. A Prometheus that does not read them as start times keeps them as
    /// series of their own, which doubles the series of counters.
    pub created: bool,
}

/// A running endpoint. It stops when dropped.
pub struct Server {
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    start_unix_ns: u64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread `prometheus`. `target` are the node's resource attributes, for `target_info`.
    ///
    /// # Errors
    /// An address in use or not of this host, TLS or token files that cannot be read, options that do not fit.
    pub fn start(
        options: PrometheusOptions,
        target: Vec<(Text, Text)>,
        requests: SnapshotRequests,
        health: Health,
    ) -> Result<Self> {
        Self::start_with(options, target, requests, health, Timeouts::default())
    }

    fn start_with(
        options: PrometheusOptions,
        target: Vec<(Text, Text)>,
        requests: SnapshotRequests,
        health: Health,
        timeouts: Timeouts,
    ) -> Result<Self> {
        ensure!(!options.listen.is_empty(), "the Prometheus endpoint has no address to listen on");
        let listeners = options.listen.iter().map(bind).collect::<Result<Vec<_>>>()?;
        let addresses =
            listeners.iter().map(StdTcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
        let authorization = Authorization::new(options.basic, options.bearer_token_file)?;
        let tls = options.tls.map(Tls::new).transpose()?;
        let encoder = Encoder::new(options.vocabularies, target, options.created);
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread_counters = Arc::clone(&counters);
        let run = move || {
            let answerer = Answerer {
                authorization: RefCell::new(authorization),
                bodies: RefCell::new(Bodies::new(encoder)),
                requests,
                health,
                counters: thread_counters,
            };
            let endpoint = Rc::new(Endpoint {
                answerer,
                tls: tls.map(RefCell::new),
                timeouts,
                connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            });
            LocalSet::new().block_on(&runtime, endpoint.run(listeners, stopped));
        };
        let thread = std::thread::Builder::new().name("prometheus".to_owned()).spawn(run)?;
        let start_unix_ns = unix_ns();
        Ok(Self { addresses, counters, start_unix_ns, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, in the order of the options; a port 0 became a real one.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it counts about itself.
    pub fn metrics(&self) -> Vec<Metric> {
        self.counters.metrics(self.start_unix_ns)
    }

    /// Cuts all connections and waits for the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread of the Prometheus endpoint had panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A wait after an accept that failed, such as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Endpoint {
    answerer: Answerer,
    tls: Option<RefCell<Tls>>,
    timeouts: Timeouts,
    connections: Arc<Semaphore>,
}

impl Endpoint {
    /// Runs until `stopped`; connections end with the runtime.
    async fn run(self: Rc<Self>, listeners: Vec<StdTcpListener>, stopped: oneshot::Receiver<()>) {
        for listener in listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => drop(tokio::task::spawn_local(Rc::clone(&self).accept(listener))),
                Err(error) => tracing::error!(%error, "an address of the Prometheus endpoint does not work"),
            }
        }
        stopped.await.unwrap_or_default();
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                self.answerer.counters.connections_refused.add(1);
                continue;
            };
            let endpoint = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                endpoint.connection(stream).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: TcpStream) {
        // Without it the last part of an answer waits for an acknowledgement; a failure costs only that.
        stream.set_nodelay(true).unwrap_or_default();
        let Some(tls) = &self.tls else { return self.serve(stream).await };
        let acceptor = tls.borrow_mut().acceptor();
        match tokio::time::timeout(self.timeouts.head, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => {
                self.answerer.counters.unauthorized.add(1);
                tracing::debug!(%error, "a TLS handshake of a scrape failed");
            }
            Err(_) => tracing::debug!("a TLS handshake of a scrape took too long"),
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let clock = Rc::new(Clock::new(self.timeouts));
        let service = service_fn(|request| {
            clock.enter(Phase::Answering);
            let clock = Rc::clone(&clock);
            async move {
                let answer = self.answerer.answer(request).await;
                clock.enter(Phase::Sending);
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let io = TokioIo::new(ClockedStream::new(stream, Rc::clone(&clock)));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service);
        tokio::select! {
            result = connection => if let Err(error) = result {
                tracing::debug!(%error, "a connection of a scrape ended");
            },
            phase = clock.expired() => if matches!(phase, Phase::Answering | Phase::Sending) {
                self.answerer.counters.slow_readers.add(1);
            },
        }
    }
}

fn bind(address: &SocketAddr) -> Result<StdTcpListener> {
    let port = address.port();
    let bound = StdTcpListener::bind(address);
    let bound = match &bound {
        // All addresses of a node without IPv6 are those of IPv4: `:9464` must do in every cluster.
        Err(error) if is_without_ipv6(error) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            StdTcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        }
        _ => bound,
    };
    let listener = bound.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "{address} of the Prometheus endpoint is in use: end the program that has it \
             (`ss -ltnp 'sport = :{port}'` names it) or listen on another port"
        ),
        ErrorKind::AddrNotAvailable => anyhow!(
            "{address} of the Prometheus endpoint is no address of this host: `ip address` lists those there are"
        ),
        ErrorKind::PermissionDenied => anyhow!(
            "{address} of the Prometheus endpoint is not allowed: ports below 1024 need CAP_NET_BIND_SERVICE"
        ),
        _ => anyhow!(error).context(format!("cannot listen on {address} for Prometheus")),
    })?;
    listener.set_nonblocking(true).with_context(|| format!("cannot listen on {address}"))?;
    Ok(listener)
}

/// Booted with `ipv6.disable=1`, or with `disable_ipv6` set on all interfaces.
fn is_without_ipv6(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == ErrorKind::AddrNotAvailable
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
