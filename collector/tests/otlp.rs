//! The exporter against real servers, in this process, over real sockets.
//!
//! Each server lives on a thread of its own until the test process ends.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{
    convert::Infallible,
    fmt::{Display, Write},
    io::Read,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::profiles::v1development::{
        ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
        profiles_service_server::{ProfilesService, ProfilesServiceServer},
    },
    profiles::v1development::ProfilesDictionary,
};
use prost::Message;
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status, body::Body, codec::CompressionEncoding};

use collector::export::otlp::{
    Compression, DropReason, Endpoint, Exporter, Limits, Outcome, Payload, Protocol, Report, Signal,
};
use collector::health::{Health, Part};

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::HttpProtobuf];

#[test]
fn bodies_arrive_in_each_protocol_and_compression() {
    for protocol in PROTOCOLS {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let backend = Backend::answering(protocol, |_| Reply::Accept);
            let export = Export::to(Endpoint { compression, ..backend.endpoint() });
            export.push(7);
            export.expect(7, &[Outcome::Exported { records: 7 }]);
            let seen = backend.seen();
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].request, request());
            let (name, at) = match protocol {
                Protocol::Grpc => ("grpc-encoding", Signal::Profiles.grpc_path()),
                Protocol::HttpProtobuf => ("content-encoding", Signal::Profiles.http_path()),
            };
            let encoding = seen[0].headers.get(name).map(|value| value.to_str().unwrap());
            let expected = match compression {
                Compression::None => None,
                Compression::Gzip => Some("gzip"),
                Compression::Zstd => Some("zstd"),
            };
            assert_eq!(encoding, expected);
            if protocol == Protocol::HttpProtobuf {
                assert_eq!(seen[0].path, at);
                assert_eq!(seen[0].headers["content-type"], "application/x-protobuf");
            }
        }
    }
}

#[test]
fn headers_arrive() {
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, |_| Reply::Accept);
        let headers =
            vec![("Authorization".to_owned(), "Bearer t".to_owned()), ("x-tenant".into(), "a b".into())];
        let export = Export::to(Endpoint { headers, ..backend.endpoint() });
        export.push(1);
        export.expect(1, &[Outcome::Exported { records: 1 }]);
        let seen = &backend.seen()[0].headers;
        assert_eq!(seen["authorization"], "Bearer t");
        assert_eq!(seen["x-tenant"], "a b");
        assert!(seen["user-agent"].to_str().unwrap().starts_with("kansoku/"));
        assert_eq!(seen.contains_key("grpc-timeout"), protocol == Protocol::Grpc);
    }
}

#[test]
fn each_signal_has_its_grpc_path_and_http_body() {
    for protocol in PROTOCOLS {
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&paths);
        let address = serve_raw(move |head| {
            seen.lock().unwrap().push(head.uri.path().to_owned());
            grpc_message(Bytes::new(), Some("12"))
        });
        let endpoints = Signal::ALL.map(|signal| (signal, endpoint(address, protocol, signal)));
        let export = Export::new(endpoints.to_vec(), limits());
        for signal in Signal::ALL {
            export.push_to(signal, 1);
        }
        export.wait(4);
        let mut paths = paths.lock().unwrap();
        paths.sort();
        let mut expected = Signal::ALL.map(|signal| match protocol {
            Protocol::Grpc => signal.grpc_path(),
            Protocol::HttpProtobuf => signal.http_path(),
        });
        expected.sort_unstable();
        assert_eq!(*paths, expected);
    }
}

#[test]
fn tls_trusts_the_given_authority_only() {
    let files = Certificates::new();
    for protocol in PROTOCOLS {
        let backend = Backend::new(protocol, Some(files.server(false)), |_| Reply::Accept);
        let trusting = Endpoint { certificate: Some(files.path("ca.pem")), ..backend.endpoint() };
        let export = Export::to(trusting.clone());
        export.push(1);
        export.expect(1, &[Outcome::Exported { records: 1 }]);

        let other = Certificates::new();
        let mistaken = Endpoint { certificate: Some(other.path("ca.pem")), ..trusting };
        let export = Export::new(vec![(Signal::Profiles, mistaken)], impatient());
        export.push(1);
        export.expect(1, &[dropped(1, DropReason::RetryExhausted)]);
        assert_eq!(backend.seen().len(), 1);
    }
}

#[test]
fn mtls_presents_the_client_certificate() {
    let files = Certificates::new();
    for protocol in PROTOCOLS {
        let backend = Backend::new(protocol, Some(files.server(true)), |_| Reply::Accept);
        let nameless = Endpoint { certificate: Some(files.path("ca.pem")), ..backend.endpoint() };
        let named = Endpoint {
            client_certificate: Some(files.path("client.pem")),
            client_key: Some(files.path("client.key")),
            ..nameless.clone()
        };
        let export = Export::to(named);
        export.push(1);
        export.expect(1, &[Outcome::Exported { records: 1 }]);

        let export = Export::new(vec![(Signal::Profiles, nameless)], impatient());
        export.push(1);
        export.expect(1, &[dropped(1, DropReason::RetryExhausted)]);
        assert_eq!(backend.seen().len(), 1);
    }
}

#[test]
fn http_over_tls_works_without_http2() {
    let files = Certificates::new();
    let mut server = files.server(false);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let backend = Backend::new(Protocol::HttpProtobuf, Some(server), |_| Reply::Accept);
    let export = Export::to(Endpoint { certificate: Some(files.path("ca.pem")), ..backend.endpoint() });
    export.push(1);
    export.expect(1, &[Outcome::Exported { records: 1 }]);
}

#[test]
fn retry_after_is_honoured() {
    let backend = Backend::answering(Protocol::HttpProtobuf, |attempt| match attempt {
        1 => Reply::Http(429, vec![("retry-after", "1")], b""),
        _ => Reply::Accept,
    });
    let export = Export::to(backend.endpoint());
    let started = Instant::now();
    export.push(3);
    export.expect(3, &[Outcome::Exported { records: 3 }]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn retry_after_is_bounded() {
    let backend = Backend::answering(Protocol::HttpProtobuf, |attempt| match attempt {
        1 => Reply::Http(503, vec![("retry-after", "86400")], b""),
        _ => Reply::Accept,
    });
    let export = Export::to(backend.endpoint());
    export.push(3);
    export.expect(3, &[Outcome::Exported { records: 3 }]);
}

#[test]
fn retries_end() {
    for (protocol, reply) in [
        (Protocol::HttpProtobuf, Reply::Http(503, vec![], b"down")),
        (Protocol::HttpProtobuf, Reply::Http(502, vec![], b"")),
        (Protocol::HttpProtobuf, Reply::Http(504, vec![], b"")),
        (Protocol::HttpProtobuf, Reply::Http(429, vec![("retry-after", "0")], b"")),
        (Protocol::Grpc, Reply::Grpc(Code::Unavailable, None)),
        (Protocol::Grpc, Reply::Grpc(Code::DeadlineExceeded, None)),
    ] {
        let backend = Backend::answering(protocol, move |_| reply.clone());
        let export = Export::new(vec![(Signal::Profiles, backend.endpoint())], impatient());
        export.push(3);
        export.expect(3, &[dropped(3, DropReason::RetryExhausted)]);
        let attempts = backend.seen().len();
        assert!((3..40).contains(&attempts), "{attempts} attempts");
    }
}

#[test]
fn other_failures_are_final() {
    for (protocol, reply) in [
        (Protocol::HttpProtobuf, Reply::Http(400, vec![], b"\x12\x03bad")),
        (Protocol::HttpProtobuf, Reply::Http(404, vec![], b"<html>")),
        (Protocol::HttpProtobuf, Reply::Http(500, vec![("retry-after", "1")], b"")),
        (Protocol::HttpProtobuf, Reply::Http(307, vec![("location", "http://127.0.0.1:1/")], b"")),
        (Protocol::Grpc, Reply::Grpc(Code::InvalidArgument, None)),
        (Protocol::Grpc, Reply::Grpc(Code::Unimplemented, None)),
        (Protocol::Grpc, Reply::Grpc(Code::ResourceExhausted, None)),
    ] {
        let backend = Backend::answering(protocol, move |_| reply.clone());
        let export = Export::to(backend.endpoint());
        export.push(3);
        export.expect(3, &[dropped(3, DropReason::Refused)]);
        assert_eq!(backend.seen().len(), 1);
    }
}

#[test]
fn an_exhausted_resource_with_retry_info_is_retried() {
    let backend = Backend::answering(Protocol::Grpc, |attempt| match attempt {
        1 => Reply::Grpc(Code::ResourceExhausted, Some(1)),
        _ => Reply::Accept,
    });
    let export = Export::to(backend.endpoint());
    let started = Instant::now();
    export.push(3);
    export.expect(3, &[Outcome::Exported { records: 3 }]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn a_partial_success_splits_the_account() {
    for protocol in PROTOCOLS {
        for (claimed, rejected) in [(4, 4), (10, 10), (99, 10), (0, 0), (-1, 0)] {
            let backend = Backend::answering(protocol, move |_| Reply::Partial(claimed));
            let export = Export::to(backend.endpoint());
            export.push(10);
            let mut expected = Vec::new();
            if rejected > 0 {
                expected.push(dropped(rejected, DropReason::Rejected));
            }
            if rejected < 10 {
                expected.push(Outcome::Exported { records: 10 - rejected });
            }
            export.expect(10, &expected);
        }
    }
}

#[test]
fn an_unreadable_success_is_exported() {
    for body in [b"<html>not protobuf".as_slice(), vec![b'x'; 100_000].leak()] {
        let backend = Backend::answering(Protocol::HttpProtobuf, move |_| Reply::Http(200, vec![], body));
        let export = Export::to(backend.endpoint());
        export.push(2);
        export.expect(2, &[Outcome::Exported { records: 2 }]);
        assert_eq!(backend.seen().len(), 1);
    }
    let message = Bytes::from_static(b"\0\0\0\0\x04\x0a\xff\xff\xff");
    let address = serve_raw(move |_| grpc_message(message.clone(), Some("0")));
    let export = Export::to(endpoint(address, Protocol::Grpc, Signal::Profiles));
    export.push(2);
    export.expect(2, &[Outcome::Exported { records: 2 }]);
}

#[test]
fn grpc_without_status_is_refused() {
    // Nothing says whether the request was taken; the code is UNKNOWN then, which is final.
    let address = serve_raw(|_| grpc_message(Bytes::from_static(&[0; 5]), None));
    let export = Export::to(endpoint(address, Protocol::Grpc, Signal::Profiles));
    export.push(2);
    export.expect(2, &[dropped(2, DropReason::Refused)]);
}

#[test]
fn a_giant_grpc_answer_is_not_held() {
    // tonic calls it OUT_OF_RANGE, as a backend may too: it is retried, though the request may have been taken.
    let mut message = vec![0, 0, 1, 0, 1];
    message.resize(5 + 0x1_0001, 0);
    let message = Bytes::from(message);
    let address = serve_raw(move |_| grpc_message(message.clone(), Some("0")));
    let endpoint = endpoint(address, Protocol::Grpc, Signal::Profiles);
    let export = Export::new(vec![(Signal::Profiles, endpoint)], impatient());
    export.push(2);
    export.expect(2, &[dropped(2, DropReason::RetryExhausted)]);
}

#[test]
fn a_web_page_in_place_of_grpc_is_refused() {
    let page = || Body::new(Full::new(Bytes::from_static(b"<html>welcome</html>")));
    let address = serve_raw(move |_| Response::new(page()));
    let export = Export::to(endpoint(address, Protocol::Grpc, Signal::Profiles));
    export.push(2);
    export.expect(2, &[dropped(2, DropReason::Refused)]);
}

#[test]
fn noise_in_place_of_http_is_retried() {
    for protocol in PROTOCOLS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                std::io::Write::write_all(&mut stream.unwrap(), b"220 smtp ready\r\n").ok();
            }
        });
        let export =
            Export::new(vec![(Signal::Profiles, endpoint(address, protocol, Signal::Profiles))], impatient());
        export.push(2);
        export.expect(2, &[dropped(2, DropReason::RetryExhausted)]);
    }
}

#[test]
fn a_backend_that_hangs_times_out() {
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, |attempt| match attempt {
            1 => Reply::Hang,
            _ => Reply::Accept,
        });
        let export = Export::to(Endpoint { timeout: Duration::from_millis(200), ..backend.endpoint() });
        export.push(2);
        export.expect(2, &[Outcome::Exported { records: 2 }]);
    }
}

#[test]
fn stop_keeps_its_deadline_while_the_backend_hangs() {
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, |_| Reply::Hang);
        let export = Export::to(Endpoint { timeout: Duration::MAX, ..backend.endpoint() });
        (0..5).for_each(|_| export.push(2));
        let started = Instant::now();
        let outcomes = export.stop(Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_millis(1300), "{:?}", started.elapsed());
        assert_eq!(outcomes, [dropped(2, DropReason::Shutdown); 5]);
    }
}

#[test]
fn stop_keeps_its_deadline_while_connections_hang() {
    // A listener that never accepts, with its backlog left to fill: the handshake of TLS never gets an answer.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoint = endpoint(listener.local_addr().unwrap(), Protocol::Grpc, Signal::Profiles);
    let files = Certificates::new();
    endpoint.url = endpoint.url.replace("http://", "https://");
    endpoint.certificate = Some(files.path("ca.pem"));
    let export = Export::to(endpoint);
    export.push(2);
    let started = Instant::now();
    let outcomes = export.stop(Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_millis(1300), "{:?}", started.elapsed());
    assert_eq!(outcomes, [dropped(2, DropReason::Shutdown)]);
}

#[test]
fn stop_sends_what_waits() {
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, |_| Reply::Accept);
        let export = Export::to(backend.endpoint());
        (0..20).for_each(|_| export.push(2));
        let outcomes = export.stop(PATIENCE);
        assert_eq!(outcomes, [Outcome::Exported { records: 2 }; 20]);
        assert_eq!(backend.seen().len(), 20);
    }
}

#[test]
fn stop_tries_once_more_instead_of_waiting() {
    let backend = Backend::answering(Protocol::HttpProtobuf, |attempt| match attempt {
        1 => Reply::Http(503, vec![], b""),
        _ => Reply::Accept,
    });
    let slow = Limits {
        retry_initial: Duration::from_mins(10),
        retry_delay_max: Duration::from_mins(100),
        ..limits()
    };
    let slow = Limits { retry_elapsed_max: Duration::from_mins(100), ..slow };
    let export = Export::new(vec![(Signal::Profiles, backend.endpoint())], slow);
    export.push(2);
    await_that(|| backend.seen().len() == 1);
    // The wait begins when the answer is read, a moment after it was given.
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    assert_eq!(export.stop(PATIENCE), [Outcome::Exported { records: 2 }]);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn pushes_after_stop_are_accounted() {
    let backend = Backend::answering(Protocol::HttpProtobuf, |_| Reply::Accept);
    let export = Export::to(backend.endpoint());
    export.exporter.clone().stop(Duration::ZERO);
    export.push(2);
    export.expect(2, &[dropped(2, DropReason::Shutdown)]);
}

#[test]
fn dropped_handles_end_the_exporter() {
    let backend = Backend::answering(Protocol::Grpc, |_| Reply::Hang);
    let Export { exporter, ledger } = Export::to(backend.endpoint());
    exporter.push(payload(Signal::Profiles, 2));
    await_that(|| backend.seen().len() == 1);
    drop(exporter);
    await_that(|| *ledger.lock().unwrap() == [(Signal::Profiles, dropped(2, DropReason::Shutdown))]);
}

#[test]
fn a_backend_that_is_down_at_start_is_found_later() {
    for protocol in PROTOCOLS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let export = Export::to(endpoint(address, protocol, Signal::Profiles));
        export.push(2);
        thread::sleep(Duration::from_millis(300));
        assert!(export.outcomes().is_empty());
        let backend = Backend::on(address, protocol, None, |_| Reply::Accept);
        export.expect(2, &[Outcome::Exported { records: 2 }]);
        assert_eq!(backend.seen().len(), 1);
    }
}

#[test]
fn a_lost_connection_is_replaced() {
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, |attempt| match attempt {
            2 => Reply::Abort,
            _ => Reply::Accept,
        });
        let export = Export::to(backend.endpoint());
        (0..3).for_each(|_| export.push(2));
        export.expect(6, &[Outcome::Exported { records: 2 }; 3]);
    }
}

#[test]
fn a_full_queue_loses_the_oldest_and_accounts_for_all() {
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, |attempt| match attempt {
            1 => Reply::Hang,
            _ => Reply::Accept,
        });
        let size = payload(Signal::Profiles, 0).body.len();
        let narrow = Limits { queue_bytes_max: 4 * (size + 512), ..limits() };
        let timeout = Duration::from_millis(500);
        let export =
            Export::new(vec![(Signal::Profiles, Endpoint { timeout, ..backend.endpoint() })], narrow);
        export.push(1);
        await_that(|| backend.seen().len() == 1);
        (2..=100).for_each(|records| export.push(records));
        let total = (1..=100).sum();
        export.wait(total);
        let outcomes = export.stop(PATIENCE);
        let lost: Vec<Outcome> = (2..=97).map(|records| dropped(records, DropReason::QueueFull)).collect();
        let sent = [1, 98, 99, 100].map(|records| Outcome::Exported { records });
        assert_eq!(outcomes, [lost, sent.to_vec()].concat());
        assert_eq!(outcomes.iter().map(records).sum::<u64>(), total);
    }
}

#[test]
fn one_signal_does_not_hold_up_another() {
    let hanging = Backend::answering(Protocol::HttpProtobuf, |_| Reply::Hang);
    let backend = Backend::answering(Protocol::Grpc, |_| Reply::Accept);
    let endpoints = vec![(Signal::Logs, hanging.endpoint()), (Signal::Profiles, backend.endpoint())];
    let export = Export::new(endpoints, limits());
    export.push_to(Signal::Logs, 1);
    export.push(2);
    export.expect(2, &[Outcome::Exported { records: 2 }]);
}

#[test]
fn names_are_resolved() {
    let backend = Backend::answering(Protocol::HttpProtobuf, |_| Reply::Accept);
    let mut endpoint = backend.endpoint();
    endpoint.url = endpoint.url.replace("127.0.0.1", "localhost");
    let export = Export::to(endpoint);
    export.push(1);
    export.expect(1, &[Outcome::Exported { records: 1 }]);
}

#[test]
fn an_outage_is_told_once() {
    let logs = Logs::capture();
    for protocol in PROTOCOLS {
        let backend = Backend::answering(protocol, move |attempt| match (attempt, protocol) {
            (6.., _) => Reply::Accept,
            (_, Protocol::Grpc) => Reply::Grpc(Code::Unavailable, None),
            (_, Protocol::HttpProtobuf) => Reply::Http(503, vec![], b"overloaded"),
        });
        let export = Export::to(backend.endpoint());
        (0..3).for_each(|_| export.push(1));
        export.wait(3);
        export.stop(PATIENCE);
        let lines = logs.about(backend.address);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let why = match protocol {
            Protocol::Grpc => "gRPC Unavailable: no",
            Protocol::HttpProtobuf => "HTTP 503 Service Unavailable: overloaded",
        };
        assert!(lines[0].starts_with("WARN") && lines[0].contains(why), "{lines:?}");
        assert!(lines[1].starts_with("INFO") && lines[1].contains("takes data again"), "{lines:?}");
    }
}

#[test]
fn failed_connections_are_explained() {
    let logs = Logs::capture();
    let files = Certificates::new();
    for protocol in PROTOCOLS {
        let plain = Backend::answering(protocol, |_| Reply::Accept);
        let check = |endpoint: Endpoint, address: SocketAddr, expected: &str| {
            let export = Export::new(vec![(Signal::Profiles, endpoint)], impatient());
            export.push(1);
            export.wait(1);
            let lines = logs.about(address);
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].contains(expected), "{lines:?}");
        };
        let ca = |name: &Certificates| Some(name.path("ca.pem"));
        let other = Certificates::new();
        let encrypted = Backend::new(protocol, Some(files.server(false)), |_| Reply::Accept);
        let mistaken = Endpoint { certificate: ca(&other), ..encrypted.endpoint() };
        check(mistaken, encrypted.address, "set OTEL_EXPORTER_OTLP_CERTIFICATE");
        let url = plain.endpoint().url.replace("http://", "https://");
        let mistaken = Endpoint { certificate: ca(&files), url, ..plain.endpoint() };
        check(mistaken, plain.address, "use an http:// endpoint");
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let nobody = endpoint(nobody, protocol, Signal::Profiles);
        let export = Export::new(vec![(Signal::Profiles, nobody)], impatient());
        export.push(1);
        export.wait(1);
        let lines = logs.about("127.0.0.1:1\"");
        assert!(lines.last().is_some_and(|line| line.contains("Connection refused")), "{lines:?}");
    }
}

#[test]
fn mistakes_show_at_start() {
    #[track_caller]
    fn check(change: impl Fn(&mut Vec<(Signal, Endpoint)>), parts: &[&str]) {
        let address = "127.0.0.1:4318".parse().unwrap();
        let mut endpoints = vec![(Signal::Logs, endpoint(address, Protocol::HttpProtobuf, Signal::Logs))];
        change(&mut endpoints);
        let pulse = Health::default().start(Part::Export);
        let started = Exporter::start(endpoints, limits(), Arc::new(|_, _, _| {}), pulse);
        let error = started.err().expect("an error");
        let message = format!("{error:#}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
    check(
        |all| all[0].1.url = "localhost".into(),
        &["cannot export logs", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"],
    );
    check(|all| all[0].1.headers = vec![("a b".into(), "c".into())], &["OTEL_EXPORTER_OTLP_LOGS_HEADERS"]);
    check(
        |all| all[0].1.certificate = Some("/nowhere".into()),
        &["/nowhere", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
    );
    check(|all| all[0].1.timeout = Duration::ZERO, &["OTEL_EXPORTER_OTLP_LOGS_TIMEOUT"]);
    check(|all| all.push(all[0].clone()), &["logs has 2 endpoints"]);
}

/// What a backend does with one request.
#[derive(Clone)]
enum Reply {
    Accept,
    /// Rejects as many records.
    Partial(i64),
    /// Status, headers and body.
    Http(u16, Vec<(&'static str, &'static str)>, &'static [u8]),
    /// Code, and the seconds of a `RetryInfo`.
    Grpc(Code, Option<i64>),
    Hang,
    /// Closes the connection.
    Abort,
}

struct Seen {
    path: String,
    headers: HeaderMap,
    request: ExportProfilesServiceRequest,
}

/// A server that notes each request, and answers by the number of the attempt, from 1.
struct Backend {
    address: SocketAddr,
    protocol: Protocol,
    encrypted: bool,
    book: Book,
}

#[derive(Clone)]
struct Book {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<dyn Fn(usize) -> Reply + Send + Sync>,
}

impl Backend {
    fn answering(protocol: Protocol, answer: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Backend {
        Backend::new(protocol, None, answer)
    }

    fn new(
        protocol: Protocol,
        tls: Option<ServerConfig>,
        answer: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Backend {
        Backend::on("127.0.0.1:0".parse().unwrap(), protocol, tls, answer)
    }

    fn on(
        address: SocketAddr,
        protocol: Protocol,
        tls: Option<ServerConfig>,
        answer: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Backend {
        let book = Book { seen: Arc::default(), answer: Arc::new(answer) };
        let encrypted = tls.is_some();
        let address = match protocol {
            Protocol::Grpc => {
                let service = ProfilesServiceServer::new(book.clone())
                    .accept_compressed(CompressionEncoding::Gzip)
                    .accept_compressed(CompressionEncoding::Zstd);
                serve(address, tls, TowerToHyperService::new(service))
            }
            Protocol::HttpProtobuf => {
                let book = book.clone();
                serve(address, tls, service_fn(move |request| book.clone().http(request)))
            }
        };
        Backend { address, protocol, encrypted, book }
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = endpoint(self.address, self.protocol, Signal::Profiles);
        if self.encrypted {
            endpoint.url = endpoint.url.replace("http://", "https://");
        }
        endpoint
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.book.seen.lock().unwrap()
    }
}

impl Book {
    fn note(&self, seen: Seen) -> Reply {
        let mut all = self.seen.lock().unwrap();
        all.push(seen);
        (self.answer)(all.len())
    }

    async fn http(self, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = match head.headers.get("content-encoding").map(|value| value.to_str().unwrap()) {
            None => body.to_vec(),
            Some("gzip") => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
                plain
            }
            Some("zstd") => zstd::decode_all(&body[..]).unwrap(),
            Some(other) => panic!("content-encoding {other}"),
        };
        let request = ExportProfilesServiceRequest::decode(&body[..]).unwrap();
        let reply = self.note(Seen { path: head.uri.path().to_owned(), headers: head.headers, request });
        let (status, headers, body) = match reply {
            Reply::Accept => (200, vec![], Bytes::new()),
            Reply::Partial(rejected) => (200, vec![], partial(rejected).encode_to_vec().into()),
            Reply::Http(status, headers, body) => (status, headers, Bytes::from_static(body)),
            Reply::Hang => std::future::pending().await,
            Reply::Abort => return Err(std::io::Error::other("abort")),
            Reply::Grpc(..) => unreachable!("a gRPC reply over HTTP"),
        };
        let mut response = Response::new(Body::new(Full::new(body)));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let (name, value) = header((name, value));
            response.headers_mut().insert(name, value);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl ProfilesService for Book {
    async fn export(
        &self,
        request: tonic::Request<ExportProfilesServiceRequest>,
    ) -> Result<tonic::Response<ExportProfilesServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let seen = Seen { path: String::new(), headers: metadata.into_headers(), request };
        match self.note(seen) {
            Reply::Accept => Ok(tonic::Response::new(ExportProfilesServiceResponse::default())),
            Reply::Partial(rejected) => Ok(tonic::Response::new(partial(rejected))),
            Reply::Grpc(code, delay_s) => {
                Err(Status::with_details(code, "no", delay_s.map(retry_info).unwrap_or_default()))
            }
            Reply::Hang => std::future::pending().await,
            // The server resets the stream.
            Reply::Abort => panic!("abort"),
            Reply::Http(..) => unreachable!("an HTTP reply over gRPC"),
        }
    }
}

fn partial(rejected: i64) -> ExportProfilesServiceResponse {
    let partial =
        ExportProfilesPartialSuccess { rejected_profiles: rejected, error_message: "too old".into() };
    ExportProfilesServiceResponse { partial_success: Some(partial) }
}

/// An encoded `google.rpc.Status` with a `RetryInfo` of as many seconds, fewer than 128.
fn retry_info(delay_s: i64) -> Bytes {
    let field = |tag: u8, content: &[u8]| [&[tag, content.len().try_into().unwrap()], content].concat();
    let info = field(0x0a, &[0x08, delay_s.try_into().unwrap()]);
    let any = [field(0x0a, b"type.googleapis.com/google.rpc.RetryInfo"), field(0x12, &info)].concat();
    Bytes::from(field(0x1a, &any))
}

/// A gRPC answer from raw bytes, with `grpc-status` in the trailers if given.
fn grpc_message(message: Bytes, status: Option<&'static str>) -> Response<Body> {
    let trailers = status.map(|status| Ok([("grpc-status", status)].into_iter().map(header).collect()));
    let body = Full::new(message).with_trailers(std::future::ready(trailers));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).unwrap()
}

fn header((name, value): (&'static str, &'static str)) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// Answers every request with what `answer` makes of its head.
fn serve_raw<F>(answer: F) -> SocketAddr
where
    F: Fn(http::request::Parts) -> Response<Body> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            body.collect().await.unwrap();
            Ok::<_, Infallible>(answer(head))
        }
    });
    serve("127.0.0.1:0".parse().unwrap(), None, service)
}

/// Serves HTTP/1 and HTTP/2 on a thread of its own.
fn serve<S>(address: SocketAddr, tls: Option<ServerConfig>, service: S) -> SocketAddr
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::error::Error + Send + Sync,
{
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let accept = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (service, acceptor) = (service.clone(), acceptor.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // Failed connections are part of the tests.
                if let Some(acceptor) = acceptor {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                } else {
                    server.serve_connection(TokioIo::new(stream), service).await.ok();
                }
            });
        }
    };
    thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(accept)
    });
    address
}

/// An exporter and what it reported.
struct Export {
    exporter: Exporter,
    ledger: Arc<Mutex<Vec<(Signal, Outcome)>>>,
}

impl Export {
    fn to(endpoint: Endpoint) -> Export {
        Export::new(vec![(Signal::Profiles, endpoint)], limits())
    }

    fn new(endpoints: Vec<(Signal, Endpoint)>, limits: Limits) -> Export {
        let ledger: Arc<Mutex<Vec<_>>> = Arc::default();
        let report: Report = {
            let ledger = Arc::clone(&ledger);
            Arc::new(move |signal, outcome, _| ledger.lock().unwrap().push((signal, outcome)))
        };
        let exporter =
            Exporter::start(endpoints, limits, report, Health::default().start(Part::Export)).unwrap();
        Export { exporter, ledger }
    }

    fn push(&self, records: u64) {
        self.push_to(Signal::Profiles, records);
    }

    fn push_to(&self, signal: Signal, records: u64) {
        self.exporter.push(payload(signal, records));
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.ledger.lock().unwrap().iter().map(|(_, outcome)| *outcome).collect()
    }

    fn wait(&self, total: u64) {
        await_that(|| self.outcomes().iter().map(records).sum::<u64>() >= total);
    }

    #[track_caller]
    fn expect(&self, total: u64, expected: &[Outcome]) {
        self.wait(total);
        assert_eq!(self.outcomes(), expected);
    }

    fn stop(self, deadline: Duration) -> Vec<Outcome> {
        self.exporter.clone().stop(deadline);
        self.outcomes()
    }
}

/// Log lines of the whole process; tests tell theirs by the backend's address.
struct Logs {
    lines: Arc<Mutex<Vec<String>>>,
}

struct Capture(Arc<Mutex<Vec<String>>>);

impl Logs {
    fn capture() -> Logs {
        static LINES: LazyLock<Arc<Mutex<Vec<String>>>> = LazyLock::new(|| {
            let lines = Arc::default();
            tracing::subscriber::set_global_default(Capture(Arc::clone(&lines))).unwrap();
            lines
        });
        Logs { lines: Arc::clone(&LINES) }
    }

    fn about(&self, backend: impl Display) -> Vec<String> {
        let backend = format!("{backend}");
        self.lines.lock().unwrap().iter().filter(|line| line.contains(&backend)).cloned().collect()
    }
}

impl tracing::Subscriber for Capture {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            write!(line, " {field}={value:?}").unwrap();
        });
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A certificate authority with a server and a client, as files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: String| std::fs::write(folder.path().join(name), pem).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
        write("ca.pem", ca.pem());
        for name in ["server", "client"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let parameters =
                rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
            write(&format!("{name}.pem"), parameters.signed_by(&key, &ca).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Certificates { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, mutual: bool) -> ServerConfig {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let read = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(read(&self.path("ca.pem"))).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = if mutual {
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let mut config = builder.with_single_cert(vec![read(&self.path("server.pem"))], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

fn endpoint(address: SocketAddr, protocol: Protocol, signal: Signal) -> Endpoint {
    let path = match protocol {
        Protocol::Grpc => "",
        Protocol::HttpProtobuf => signal.http_path(),
    };
    Endpoint {
        url: format!("http://{address}{path}"),
        protocol,
        compression: Compression::None,
        headers: vec![],
        timeout: Duration::from_secs(10),
        certificate: None,
        client_certificate: None,
        client_key: None,
        insecure: false,
    }
}

fn limits() -> Limits {
    Limits {
        retry_initial: Duration::from_millis(20),
        retry_delay_max: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Gives up soon.
fn impatient() -> Limits {
    Limits {
        retry_delay_max: Duration::from_millis(100),
        retry_elapsed_max: Duration::from_millis(500),
        ..limits()
    }
}

fn request() -> ExportProfilesServiceRequest {
    let string_table = (0..2000).map(|number| format!("function_{number}")).collect();
    let dictionary = ProfilesDictionary { string_table, ..ProfilesDictionary::default() };
    ExportProfilesServiceRequest { resource_profiles: vec![], dictionary: Some(dictionary) }
}

fn payload(signal: Signal, records: u64) -> Payload {
    Payload { items: records, signal, body: request().encode_to_vec().into(), records, ticket: 0 }
}

fn dropped(records: u64, reason: DropReason) -> Outcome {
    Outcome::Dropped { records, reason }
}

fn records(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Exported { records } | Outcome::Dropped { records, .. } => *records,
    }
}

#[track_caller]
fn await_that(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "it never came true");
        thread::sleep(Duration::from_millis(5));
    }
}
