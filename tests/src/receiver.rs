//! An OTLP receiver in this process: gRPC by tonic's generated services, HTTP by hyper, on a real socket.
//!
//! Keeps every request it accepts. Can be told to misbehave. Refuses: leniency: a wrong path, content type or body
//! is counted in [`Receiver::complaints`] and answered with an error.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::profiles::v1development as profiles;
use opentelemetry_proto::tonic::collector::trace::v1 as traces;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use logs::logs_service_server::{LogsService, LogsServiceServer};
use metrics::metrics_service_server::{MetricsService, MetricsServiceServer};
use profiles::profiles_service_server::{ProfilesService, ProfilesServiceServer};
use traces::trace_service_server::{TraceService, TraceServiceServer};

use crate::spans::{self, Span};

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    Http,
}

impl Protocol {
    /// As `OTEL_EXPORTER_OTLP_PROTOCOL` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// What the receiver does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes them.
    Accept,
    /// Never answers.
    Hang,
    /// Answers bytes that are no answer: no HTTP, or HTTP with a body that is no protobuf.
    Garbage,
    /// Asks for patience, for ever: 429, or `UNAVAILABLE`.
    TooMany,
    /// Says never to try again: 400, or `INVALID_ARGUMENT`.
    Refuse,
}

/// What arrived.
#[derive(Debug, Default)]
struct Received {
    profiles: Vec<profiles::ExportProfilesServiceRequest>,
    metrics: Vec<metrics::ExportMetricsServiceRequest>,
    logs: Vec<logs::ExportLogsServiceRequest>,
    traces: Vec<traces::ExportTraceServiceRequest>,
    attempts: u64,
    complaints: Vec<String>,
}

/// A listening receiver. Closes its socket when it goes.
pub struct Receiver {
    protocol: Protocol,
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on a port of the kernel's choice.
    pub fn start(protocol: Protocol, behaviour: Behaviour) -> Self {
        Self::start_at(free_address(), protocol, behaviour)
    }

    /// Listens on an address.
    pub fn start_at(address: SocketAddr, protocol: Protocol, behaviour: Behaviour) -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let handler = Handler { received: Arc::clone(&received), behaviour };
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.expect("the port is free");
                ready.send(()).expect("the starter waits");
                tokio::select! {
                    () = serve(listener, protocol, handler) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("the receiver listens");
        Self { protocol, address, received, stop: Some(stop), thread: Some(thread) }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment that sends the agent here.
    pub fn variables(&self) -> [(String, String); 2] {
        variables(self.address, self.protocol)
    }

    /// The profiles that arrived.
    pub fn profiles(&self) -> Vec<profiles::ExportProfilesServiceRequest> {
        self.received().profiles.clone()
    }

    /// The metrics that arrived.
    pub fn metrics(&self) -> Vec<metrics::ExportMetricsServiceRequest> {
        self.received().metrics.clone()
    }

    /// The logs that arrived.
    pub fn logs(&self) -> Vec<logs::ExportLogsServiceRequest> {
        self.received().logs.clone()
    }

    /// The spans that arrived.
    pub fn traces(&self) -> Vec<traces::ExportTraceServiceRequest> {
        self.received().traces.clone()
    }

    /// The spans that arrived, one by one.
    pub fn spans(&self) -> Vec<Span> {
        spans::of_requests(&self.received().traces)
    }

    /// All that arrived, as it is encoded.
    pub fn bytes(&self) -> Vec<u8> {
        let received = self.received();
        let mut bytes = Vec::new();
        received.profiles.iter().for_each(|request| bytes.extend(request.encode_to_vec()));
        received.metrics.iter().for_each(|request| bytes.extend(request.encode_to_vec()));
        received.logs.iter().for_each(|request| bytes.extend(request.encode_to_vec()));
        received.traces.iter().for_each(|request| bytes.extend(request.encode_to_vec()));
        bytes
    }

    /// Requests that were tried, of whatever end.
    pub fn attempts(&self) -> u64 {
        self.received().attempts
    }

    /// What was wrong with requests. Empty for a good client.
    pub fn complaints(&self) -> Vec<String> {
        self.received().complaints.clone()
    }

    /// Waits until something was tried.
    pub fn wait_for_attempt(&self, time_max: Duration) {
        let deadline = Instant::now() + time_max;
        while self.attempts() == 0 {
            assert!(Instant::now() < deadline, "nobody sent anything in {time_max:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A receiver that ended by itself has nothing to be stopped.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The environment that sends the agent to an address, whether anyone listens there or not.
pub fn variables(address: SocketAddr, protocol: Protocol) -> [(String, String); 2] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("http://{address}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), protocol.name().to_owned()),
    ]
}

/// A port of this machine where nobody listens.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

async fn serve(listener: TcpListener, protocol: Protocol, handler: Handler) {
    match (handler.behaviour, protocol) {
        (Behaviour::Garbage, Protocol::Grpc) => serve_noise(listener, handler).await,
        (_, Protocol::Grpc) => serve_grpc(listener, handler).await,
        (_, Protocol::Http) => serve_http(listener, handler).await,
    }
}

#[derive(Clone)]
struct Handler {
    received: Arc<Mutex<Received>>,
    behaviour: Behaviour,
}

impl Handler {
    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a gRPC service answers before it looks at the request.
    async fn grpc_status(&self) -> Result<(), Status> {
        self.received().attempts += 1;
        match self.behaviour {
            Behaviour::Accept | Behaviour::Garbage => Ok(()),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::TooMany => Err(Status::new(Code::Unavailable, "later")),
            Behaviour::Refuse => Err(Status::new(Code::InvalidArgument, "never")),
        }
    }
}

async fn serve_grpc(listener: TcpListener, handler: Handler) {
    let profiles = ProfilesServiceServer::new(handler.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let metrics = MetricsServiceServer::new(handler.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let logs = LogsServiceServer::new(handler.clone())
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let traces = TraceServiceServer::new(handler)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder()
        .add_service(profiles)
        .add_service(metrics)
        .add_service(logs)
        .add_service(traces);
    server.serve_with_incoming(incoming).await.expect("the server runs until it is dropped");
}

#[tonic::async_trait]
impl ProfilesService for Handler {
    async fn export(
        &self,
        request: tonic::Request<profiles::ExportProfilesServiceRequest>,
    ) -> Result<tonic::Response<profiles::ExportProfilesServiceResponse>, Status> {
        self.grpc_status().await?;
        self.received().profiles.push(request.into_inner());
        Ok(tonic::Response::new(profiles::ExportProfilesServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Handler {
    async fn export(
        &self,
        request: tonic::Request<metrics::ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<metrics::ExportMetricsServiceResponse>, Status> {
        self.grpc_status().await?;
        self.received().metrics.push(request.into_inner());
        Ok(tonic::Response::new(metrics::ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Handler {
    async fn export(
        &self,
        request: tonic::Request<logs::ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<logs::ExportLogsServiceResponse>, Status> {
        self.grpc_status().await?;
        self.received().logs.push(request.into_inner());
        Ok(tonic::Response::new(logs::ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Handler {
    async fn export(
        &self,
        request: tonic::Request<traces::ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<traces::ExportTraceServiceResponse>, Status> {
        self.grpc_status().await?;
        self.received().traces.push(request.into_inner());
        Ok(tonic::Response::new(traces::ExportTraceServiceResponse::default()))
    }
}

/// Answers whatever comes with bytes of no protocol.
async fn serve_noise(listener: TcpListener, handler: Handler) {
    use tokio::io::AsyncWriteExt;
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        handler.received().attempts += 1;
        let noise: Vec<u8> =
            (0..4096u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // The client may hang up at the first byte.
        let _closed = stream.write_all(&noise).await;
    }
}

async fn serve_http(listener: TcpListener, handler: Handler) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, handler.clone()));
            // A client that hangs up in the middle is its own affair.
            let _closed = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, handler: Handler) -> Result<Response<Full<Bytes>>, Infallible> {
    handler.received().attempts += 1;
    let plain = |status: StatusCode, body: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        *response.status_mut() = status;
        response
    };
    match handler.behaviour {
        Behaviour::Accept => {}
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Garbage => return Ok(plain(StatusCode::OK, "\u{1}\u{2}<html>not protobuf</html>")),
        Behaviour::Refuse => return Ok(plain(StatusCode::BAD_REQUEST, "never")),
        Behaviour::TooMany => {
            let mut response = plain(StatusCode::TOO_MANY_REQUESTS, "later");
            response.headers_mut().insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("1"));
            return Ok(response);
        }
    }
    match take(request, &handler).await {
        Ok(body) => {
            let mut response = Response::new(Full::new(body));
            let protobuf = hyper::header::HeaderValue::from_static("application/x-protobuf");
            response.headers_mut().insert(CONTENT_TYPE, protobuf);
            Ok(response)
        }
        Err(complaint) => {
            handler.received().complaints.push(complaint);
            Ok(plain(StatusCode::BAD_REQUEST, "bad request"))
        }
    }
}

/// Stores a request; returns the body of the answer.
async fn take(request: Request<Incoming>, handler: &Handler) -> Result<Bytes, String> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header(CONTENT_TYPE) != "application/x-protobuf" {
        return Err(format!("content type {:?}", header(CONTENT_TYPE)));
    }
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let body = match header(CONTENT_ENCODING) {
        "" | "identity" => body,
        "gzip" => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*body)
                .read_to_end(&mut plain)
                .map_err(|error| error.to_string())?;
            plain.into()
        }
        other => return Err(format!("content encoding {other:?}")),
    };
    match parts.uri.path() {
        "/v1development/profiles" => {
            let request =
                profiles::ExportProfilesServiceRequest::decode(body).map_err(|error| error.to_string())?;
            handler.received().profiles.push(request);
            Ok(profiles::ExportProfilesServiceResponse::default().encode_to_vec().into())
        }
        "/v1/metrics" => {
            let request =
                metrics::ExportMetricsServiceRequest::decode(body).map_err(|error| error.to_string())?;
            handler.received().metrics.push(request);
            Ok(metrics::ExportMetricsServiceResponse::default().encode_to_vec().into())
        }
        "/v1/logs" => {
            let request = logs::ExportLogsServiceRequest::decode(body).map_err(|error| error.to_string())?;
            handler.received().logs.push(request);
            Ok(logs::ExportLogsServiceResponse::default().encode_to_vec().into())
        }
        "/v1/traces" => {
            let request =
                traces::ExportTraceServiceRequest::decode(body).map_err(|error| error.to_string())?;
            handler.received().traces.push(request);
            Ok(traces::ExportTraceServiceResponse::default().encode_to_vec().into())
        }
        other => Err(format!("path {other:?}")),
    }
}
