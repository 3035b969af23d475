//! The server over real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use super::super::requests::{ANSWER_TIMEOUT, SnapshotAnswers};
use super::*;
use crate::clock::monotonic_ns;
use crate::health::Part;
use crate::telemetry::{MetricKind, Owner, Point, Snapshot};

fn options() -> PrometheusOptions {
    PrometheusOptions {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tls: None,
        basic: None,
        bearer_token_file: None,
        vocabularies: HashSet::from([Vocabulary::OpenTelemetry]),
        created: true,
    }
}

fn snapshot(series: usize) -> Arc<Snapshot> {
    let point = |at: usize| {
        Point::number(Owner::Host, vec![("at".into(), format!("{at:0100}").into())], 0, at as f64)
    };
    let metric = Metric::new(MetricKind::Gauge, "x", "", "").with((0..series).map(point).collect());
    Arc::new(Snapshot { time_unix_ns: 1, metrics: vec![metric] })
}

fn answering(answers: SnapshotAnswers, snapshot: Arc<Snapshot>) {
    std::thread::spawn(move || {
        loop {
            if let Some(request) = answers.wait(Duration::from_secs(30)) {
                request.answer(Arc::clone(&snapshot));
            }
        }
    });
}

fn server(options: PrometheusOptions, series: usize, timeouts: Timeouts) -> Server {
    let (requests, answers) = SnapshotRequests::channel();
    answering(answers, snapshot(series));
    Server::start_with(options, Vec::new(), requests, Health::default(), timeouts).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Status line, head and body of the answer to a request with these header lines.
fn ask(stream: &mut (impl Read + Write), request_line: &str, headers: &str) -> (String, Vec<u8>) {
    let request = format!("{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase(), answer[end..].to_vec())
}

fn check(server: &Server, request_line: &str, headers: &str, expected: &[&str]) -> Vec<u8> {
    let (head, body) = ask(&mut connect(server), request_line, headers);
    for part in expected {
        assert!(head.contains(&part.to_ascii_lowercase()), "{request_line} {headers}: {part} not in {head}");
    }
    body
}

fn counted(server: &Server, name: &str) -> f64 {
    let metric = server.metrics().into_iter().find(|metric| metric.name == name).unwrap();
    match metric.points[0].value {
        crate::telemetry::Value::Number(value) => value,
        _ => panic!("no number"),
    }
}

/// Waits for a count that a connection's end makes.
fn wait_for(server: &Server, name: &str, expected: f64) {
    let start = Instant::now();
    while counted(server, name) != expected {
        assert!(start.elapsed() < Duration::from_secs(10), "{name} is {}", counted(server, name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_kubelet_hears_whether_the_agent_works() {
    let (requests, _answers) = SnapshotRequests::channel();
    let health = Health::default();
    let server = Server::start(options(), Vec::new(), requests, health.clone()).unwrap();
    check(&server, "GET /healthz", "", &["200 ok"]);
    let body = check(&server, "GET /readyz", "", &["503 "]);
    assert_eq!(body, b"nothing is hooked into the kernel yet\n");
    health.set_hooked();
    let pulse = health.start(Part::Pipeline);
    pulse.beat(monotonic_ns());
    check(&server, "GET /readyz", "", &["200 ok"]);
    check(&server, "POST /readyz", "", &["405 "]);
    pulse.beat(monotonic_ns().saturating_sub(61_000_000_000));
    let body = check(&server, "GET /healthz", "", &["503 "]);
    assert!(body.starts_with(b"the thread pipeline stands still since 61 s"), "{body:?}");
    drop(pulse);
    let body = check(&server, "HEAD /healthz", "", &["503 "]);
    assert!(body.is_empty());
}

#[test]
fn answers() {
    let server = server(options(), 3, Timeouts::default());
    let body = check(&server, "GET /metrics", "", &["200 ok", "text/plain; version=0.0.4", "vary: accept"]);
    assert!(body.starts_with(b"# TYPE x gauge\nx{at="), "{}", String::from_utf8_lossy(&body));
    let zipped = check(&server, "GET /metrics", "Accept-Encoding: gzip\r\n", &["content-encoding: gzip"]);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(zipped.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, body);
    let accept = "Accept: application/openmetrics-text;version=1.0.0\r\n";
    let body = check(&server, "GET /metrics", accept, &["application/openmetrics-text; version=1.0.0"]);
    assert!(body.ends_with(b"# EOF\n"));
    let body = check(&server, "HEAD /metrics", "", &["200 ok", "content-length: "]);
    assert!(body.is_empty());
    check(&server, "GET /metrics?x=y", "", &["200 ok"]);
    check(&server, "GET /", "", &["200 ok", "text/html"]);
    check(&server, "GET /healthz", "", &["200 ok"]);
    check(&server, "POST /metrics", "", &["405 ", "allow: get, head"]);
    check(&server, "GET /other", "", &["404 "]);
    check(&server, "GET /metrics", "Accept: */*;q=0\r\n", &["406 "]);
    check(&server, "GET /metrics", &format!("X: {}\r\n", "x".repeat(HEAD_BYTES_MAX)), &["431 "]);
    check(&server, "GET /metrics", &"X: x\r\n".repeat(HEADERS_MAX + 1), &["431 "]);
    assert_eq!(counted(&server, "kansoku.prometheus.scrapes"), 5.0);
    server.stop();
}

#[test]
fn all_addresses_are_those_of_ipv4_too() {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let server = server(PrometheusOptions { listen: vec![all], ..options() }, 1, Timeouts::default());
    let port = server.addresses()[0].port();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    let error = std::io::Error::from_raw_os_error;
    assert!(is_without_ipv6(&error(libc::EAFNOSUPPORT)) && is_without_ipv6(&error(libc::EADDRNOTAVAIL)));
    assert!(!is_without_ipv6(&error(libc::EADDRINUSE)) && !is_without_ipv6(&error(libc::EACCES)));
}

#[test]
fn credentials() {
    let basic = Some(("me".to_owned(), "secret".to_owned()));
    let server = server(PrometheusOptions { basic, ..options() }, 1, Timeouts::default());
    check(&server, "GET /metrics", "", &["401 ", "www-authenticate: basic"]);
    check(&server, "GET /metrics", "Authorization: Basic bWU6d3Jvbmc=\r\n", &["401 "]);
    check(&server, "GET /metrics", "Authorization: Basic bWU6c2VjcmV0\r\n", &["200 "]);
    check(&server, "GET /healthz", "", &["200 "]);
    check(&server, "GET /other", "", &["401 "]);
    assert_eq!(counted(&server, "kansoku.prometheus.unauthorized"), 3.0);
}

#[test]
fn slow_reader_is_cut() {
    let timeouts = Timeouts { response: Duration::from_millis(500), ..Timeouts::default() };
    let server = server(options(), 100_000, timeouts);
    let mut stream = connect(&server);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait_for(&server, "kansoku.prometheus.slow_readers", 1.0);
    let mut read = Vec::new();
    let end = stream.read_to_end(&mut read);
    assert!(end.is_err() || read.len() < 10_000_000, "all {} bytes came", read.len());
    check(&server, "GET /healthz", "", &["200 "]);
}

#[test]
fn slow_head_is_cut_and_idle_connections_stay() {
    let timeouts = Timeouts { head: Duration::from_millis(300), ..Timeouts::default() };
    let server = server(options(), 1, timeouts);
    let mut idle = connect(&server);
    let mut answer = [0; 4096];
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(idle.read(&mut answer).unwrap() > 0);
    let mut slow = connect(&server);
    slow.write_all(b"GET /met").unwrap();
    let start = Instant::now();
    assert_eq!(slow.read(&mut answer).unwrap_or(0), 0);
    assert!(start.elapsed() < Duration::from_secs(5));
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(idle.read(&mut answer).unwrap() > 0);
    idle.write_all(b"GET /hea").unwrap();
    assert_eq!(idle.read(&mut answer).unwrap_or(0), 0);
    assert_eq!(counted(&server, "kansoku.prometheus.slow_readers"), 0.0);
}

#[test]
fn connections_are_bounded() {
    let server = server(options(), 1, Timeouts::default());
    let mut held: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(&server)).collect();
    let mut answer = [0; 4096];
    for stream in &mut held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(stream.read(&mut answer).unwrap() > 0);
    }
    let mut beyond = connect(&server);
    assert_eq!(beyond.read(&mut answer).unwrap_or(0), 0);
    wait_for(&server, "kansoku.prometheus.connections.refused", 1.0);
    held[0].shutdown(Shutdown::Both).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    check(&server, "GET /healthz", "", &["200 "]);
}

#[test]
fn a_collector_that_is_gone_or_silent() {
    let (requests, answers) = SnapshotRequests::channel();
    let server = Server::start(options(), Vec::new(), requests, Health::default()).unwrap();
    let start = Instant::now();
    check(&server, "GET /metrics", "", &["503 "]);
    assert!(start.elapsed() >= ANSWER_TIMEOUT);
    drop(answers);
    check(&server, "GET /metrics", "", &["503 "]);
    assert_eq!(counted(&server, "kansoku.prometheus.unanswered"), 2.0);
}

#[test]
fn a_port_in_use() {
    let first = server(options(), 1, Timeouts::default());
    let (requests, _answers) = SnapshotRequests::channel();
    let listen = first.addresses().to_vec();
    let error =
        Server::start(PrometheusOptions { listen, ..options() }, Vec::new(), requests, Health::default());
    let error = format!("{:#}", error.err().unwrap());
    assert!(error.contains(&first.addresses()[0].to_string()) && error.contains("ss -ltnp"), "{error}");
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
}

fn authority() -> Authority {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    Authority { issuer: rcgen::Issuer::new(parameters, key), certificate }
}

impl Authority {
    fn leaf(&self) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The status line over TLS of a client that trusts this authority, if the handshake works.
    fn ask(&self, server: &Server, shown: Option<&(rcgen::Certificate, rcgen::KeyPair)>) -> Option<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            Some((certificate, key)) => {
                let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let name = "localhost".try_into().unwrap();
        let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(session, connect(server));
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[test]
fn tls_reload_and_client_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = |(certificate, key): &(rcgen::Certificate, rcgen::KeyPair)| {
        std::fs::write(path("cert"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
    };
    let (first, second, clients) = (authority(), authority(), authority());
    store(&first.leaf());
    std::fs::write(path("ca"), clients.certificate.pem()).unwrap();
    let files = TlsOptions { certificate: path("cert"), key: path("key"), client_ca: None };
    let open = server(PrometheusOptions { tls: Some(files.clone()), ..options() }, 1, Timeouts::default());
    let ok = Some("HTTP/1.1 200 OK".to_owned());
    assert_eq!(first.ask(&open, None), ok);
    assert_eq!(second.ask(&open, None), None);
    store(&second.leaf());
    assert_eq!(second.ask(&open, None), ok);
    std::fs::write(path("key"), "broken").unwrap();
    assert_eq!(second.ask(&open, None), ok);

    store(&second.leaf());
    let files = TlsOptions { client_ca: Some(path("ca")), ..files };
    let closed = server(PrometheusOptions { tls: Some(files.clone()), ..options() }, 1, Timeouts::default());
    assert_eq!(second.ask(&closed, None), None);
    assert_eq!(second.ask(&closed, Some(&second.leaf())), None);
    assert_eq!(second.ask(&closed, Some(&clients.leaf())), ok);
    assert_eq!(counted(&closed, "kansoku.prometheus.unauthorized"), 2.0);

    std::fs::write(path("cert"), "").unwrap();
    let (requests, _answers) = SnapshotRequests::channel();
    let broken = PrometheusOptions { tls: Some(files), ..options() };
    assert!(Server::start(broken, Vec::new(), requests, Health::default()).is_err());
}
