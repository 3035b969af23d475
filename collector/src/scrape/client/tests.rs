//! Real servers on the loopback: good ones, and those that want to hurt.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::target::TargetSpec;
use super::*;
use crate::telemetry::Owner;

const MEBIBYTE: usize = 1 << 20;

/// A body that gives a piece at each step, with a pause before, and ends after some.
struct Steps {
    piece: Bytes,
    pause: Duration,
    left: usize,
    sleep: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Steps {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return std::task::Poll::Ready(None);
        }
        let pause = self.pause;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        std::task::ready!(sleep.as_mut().poll(context));
        self.sleep = None;
        self.left -= 1;
        std::task::Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn steps(piece: impl Into<Bytes>, pause_ms: u64, count: usize) -> Answer {
    let pause = Duration::from_millis(pause_ms);
    Response::new(Steps { piece: piece.into(), pause, left: count, sleep: None }.boxed_unsync())
}

fn page(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(body: Vec<u8>) -> Answer {
    let mut answer = page("text/plain", body);
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

fn target(port: u16, timeout_ms: u64) -> Target {
    let spec = TargetSpec::of_url(&format!("http://127.0.0.1:{port}/m?a=b")).unwrap();
    Target { timeout: Duration::from_millis(timeout_ms), ..Target::new(Owner::Host, spec) }
}

fn client(limits: Limits) -> Client {
    let none = RootCertStore::empty();
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions().unwrap().with_root_certificates(none);
    Client::new(tls.with_no_client_auth(), limits)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Scrapes a server that answers so; returns also how often it was asked.
fn scrape(timeout_ms: u64, answer: fn(&Request<Incoming>) -> Answer) -> (Result<Page, Failure>, usize) {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = count.clone();
                let service = service_fn(move |request| {
                    count.fetch_add(1, SeqCst);
                    std::future::ready(Ok::<_, Infallible>(answer(&request)))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        let result = client(Limits::default()).scrape(&target(port, timeout_ms)).await;
        (result, asked.load(SeqCst))
    })
}

#[test]
fn good_pages() {
    #[track_caller]
    fn check(answer: fn(&Request<Incoming>) -> Answer, families: &[&str]) {
        let page = scrape(5_000, answer).0.unwrap();
        let names: Vec<&str> = page.families.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names, families);
    }
    check(|_| page("text/plain; version=0.0.4; charset=utf-8", "# TYPE a counter\na 1\nb 2\n"), &["a", "b"]);
    check(|_| Response::new(Full::new(Bytes::from("a 1\n")).boxed_unsync()), &["a"]);
    check(
        |_| page("application/openmetrics-text; version=1.0.0", "# TYPE a counter\na_total 1\n# EOF\n"),
        &["a"],
    );
    check(|_| gzipped(gzip(b"a 1\n")), &["a"]);
    check(|_| gzipped([gzip(b"a 1\n"), gzip(b"b 1\n")].concat()), &["a", "b"]);
    check(|_| steps("b{c=\"1\"} 1\n", 5, 3), &["b"]);
    check(|_| page("text/plain", ""), &[]);
}

#[test]
fn the_request_says_what_prometheus_says() {
    let (result, _) = scrape(2_500, |request| {
        let of = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(request.uri().to_string(), "/m?a=b");
        assert_eq!(of(TIMEOUT_HEADER), "2.5");
        assert!(of("accept").contains("openmetrics") && of("user-agent").starts_with("kansoku/"));
        assert!(of("host").starts_with("127.0.0.1:") && of("accept-encoding") == "gzip");
        page("text/plain", "a 1\n")
    });
    assert_eq!(result.unwrap().samples, 1);
}

#[test]
fn bad_pages_cost_their_bounds() {
    #[track_caller]
    fn check(timeout_ms: u64, answer: fn(&Request<Incoming>) -> Answer, expected: &str) {
        let started = Instant::now();
        let (result, asked) = scrape(timeout_ms, answer);
        assert_eq!(result.unwrap_err().name(), expected);
        assert_eq!(asked, 1);
        // The bound of a fast failure is loose: the machine may be busy.
        let bound = if expected == "timeout" { timeout_ms + 1_500 } else { timeout_ms };
        assert!(started.elapsed() < Duration::from_millis(bound), "{:?}", started.elapsed());
    }
    // Slow drip: a line each 50 ms, for ever.
    check(400, |_| steps("a 1\n", 50, usize::MAX), "timeout");
    // Endless and fast.
    check(20_000, |_| steps(vec![b'a'; 1 << 16], 0, usize::MAX), "body_size");
    check(20_000, |_| page("text/plain", vec![b'\n'; 100 * MEBIBYTE]), "body_size");
    // 64 MiB of zeros in 64 KiB.
    check(20_000, |_| gzipped(gzip(&vec![0; 64 * MEBIBYTE])), "body_size");
    check(5_000, |_| gzipped(b"not gzip at all, at all".to_vec()), "encoding");
    check(5_000, |_| gzipped(gzip(b"a 1\n")[..20].to_vec()), "encoding");
    check(5_000, |_| page("text/html", "<html>"), "content_type");
    check(5_000, |_| page("application/openmetrics-text", "a 1\n"), "incomplete");
    check(
        5_000,
        |_| {
            let mut answer = page("text/plain", "x");
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
            answer
        },
        "encoding",
    );
    check(
        5_000,
        |_| {
            let mut answer = page("text/plain", "x");
            for _ in 0..100 {
                answer.headers_mut().append("x-a", HeaderValue::from_static("b"));
            }
            answer
        },
        "connection",
    );
}

#[test]
fn other_statuses_are_failures_and_redirects_are_not_followed() {
    fn with_status(status: u16) -> Answer {
        let mut answer = page("text/plain", "a 1\n");
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/elsewhere"));
        answer
    }
    #[track_caller]
    fn check(answer: fn(&Request<Incoming>) -> Answer, expected: Failure) {
        let (result, asked) = scrape(5_000, answer);
        assert_eq!((result.unwrap_err(), asked), (expected, 1));
    }
    check(|_| with_status(500), Failure::Status(500));
    check(|_| with_status(404), Failure::Status(404));
    check(|_| with_status(204), Failure::Status(204));
    check(|_| with_status(302), Failure::Redirect(302));
    check(|_| with_status(308), Failure::Redirect(308));
}

#[test]
fn invalid_text_costs_its_lines() {
    let (result, _) = scrape(5_000, |_| page("text/plain", b"a 1\n\xff\xfe\n<oops>\nb 2\n".to_vec()));
    let page = result.unwrap();
    assert_eq!((page.samples, page.flaws.len(), page.flaws[0].line), (2, 2, 2));
}

/// What a server does that speaks no HTTP; the connection has to be closed by us at the end.
fn raw(timeout_ms: u64, says: &'static [u8], hangs_up: bool) -> Result<Page, Failure> {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async move {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            stream.write_all(says).await.unwrap();
            if hangs_up {
                return;
            }
            // Ends when the client closes, by an end or a reset.
            while !matches!(stream.read(&mut request).await, Ok(0) | Err(_)) {}
        };
        let server = tokio::spawn(server);
        let client = client(Limits::default());
        let result = client.scrape(&target(port, timeout_ms)).await;
        tokio::time::timeout(Duration::from_secs(5), server).await.expect("connection left open").unwrap();
        drop(client);
        result
    })
}

#[test]
fn no_connection_outlives_its_scrape() {
    #[track_caller]
    fn check(timeout_ms: u64, says: &'static [u8], hangs_up: bool, expected: &str) {
        let result = raw(timeout_ms, says, hangs_up);
        assert_eq!(result.as_ref().map_or_else(Failure::name, |_| "page"), expected, "{result:?}");
    }
    check(5_000, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\na 1\n", false, "page");
    check(300, b"", false, "timeout");
    check(300, b"HTTP/1.1 200 OK\r\nx: ", false, "timeout");
    check(300, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na 1\n", false, "timeout");
    check(5_000, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\na 1\n", true, "incomplete");
    check(5_000, b"SSH-2.0-x\r\n", false, "connection");
    check(5_000, b"", true, "connection");
}

/// A server over TLS with a certificate of its own; it lets in who has this token, and everybody if that is empty.
async fn tls_server(token: &'static str) -> (Target, rcgen::Certificate) {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(pair.signing_key.serialize_der().into());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let tls = tls.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let tls = Arc::new(tls.with_single_cert(vec![pair.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(move |request: Request<Incoming>| {
                let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
                let mut answer = page("text/plain", "a 1\n");
                if !token.is_empty() && shown != Some(format!("Bearer {token}").as_bytes()) {
                    *answer.status_mut() = StatusCode::UNAUTHORIZED;
                }
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        }
    });
    let spec = TargetSpec::of_url(&format!("https://127.0.0.1:{port}/")).unwrap();
    (Target::new(Owner::Host, spec), pair.cert)
}

#[test]
fn certificates_are_verified() {
    let file = tempfile::NamedTempFile::new().unwrap();
    block_on(async {
        let (target, certificate) = tls_server("").await;
        std::fs::write(file.path(), certificate.pem()).unwrap();
        let failure = client(Limits::default()).scrape(&target).await.unwrap_err();
        assert!(matches!(&failure, Failure::Connection(why) if why.contains("certificate")), "{failure}");
        let trusting = Client::new(trust(Some(file.path())).unwrap(), Limits::default());
        assert_eq!(trusting.scrape(&target).await.unwrap().samples, 1);
    });
}

#[test]
fn pages_of_the_cluster_are_asked_with_its_token() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    block_on(async {
        let (open, certificate) = tls_server("second").await;
        let target = Target { access: Access::Cluster, ..open.clone() };
        let with = |root_cert: Option<Vec<Vec<u8>>>, verifies: bool| {
            let mut config = kube::Config::new("https://127.0.0.1".parse().unwrap());
            config.root_cert = root_cert;
            config.auth_info.token_file = Some(file.path().to_str().unwrap().to_owned());
            client(Limits::default()).with_cluster(ClusterAccess::new(&config, verifies).unwrap())
        };
        let trusting = with(Some(vec![certificate.der().to_vec()]), true);
        assert_eq!(trusting.scrape(&target).await.unwrap_err(), Failure::Status(401));
        // Tokens are replaced while the agent runs.
        std::fs::write(file.path(), "second\n").unwrap();
        assert_eq!(trusting.scrape(&target).await.unwrap().samples, 1);
        let stranger = with(Some(vec![]), true).scrape(&target).await.unwrap_err();
        assert!(matches!(&stranger, Failure::Connection(why) if why.contains("certificate")), "{stranger}");
        let careless = with(None, false);
        assert_eq!(careless.scrape(&target).await.unwrap().samples, 1);
        // What is not the cluster's gets neither the token nor the leniency.
        let failure = careless.scrape(&open).await.unwrap_err();
        assert!(matches!(&failure, Failure::Connection(why) if why.contains("certificate")), "{failure}");
        let nowhere = client(Limits::default()).scrape(&target).await.unwrap_err();
        assert!(matches!(&nowhere, Failure::Connection(why) if why.contains("no access")), "{nowhere}");
    });
}

#[test]
fn nobody_listens() {
    let failure = block_on(client(Limits::default()).scrape(&target(1, 5_000))).unwrap_err();
    assert!(matches!(&failure, Failure::Connection(why) if why.contains("refused")), "{failure}");
}

#[test]
fn trust_needs_certificates() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(trust(Some(file.path())).unwrap_err().to_string().contains("no PEM certificate"));
    assert!(trust(Some(Path::new("/nowhere"))).is_err());
    assert!(trust(None).is_ok());
}
