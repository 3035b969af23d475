//! HTTP traces end to end: what curl asked, what nginx logged and what a backend gets are the same, one by one.
//!
//! Refuses: "some spans came". Full load, time, crashes and the terminal are in `flow`, who calls whom is in `trace_chain`, other
//! protocols are in `trace_protocols`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use tests::callers::{Transfer, curl};
use tests::receiver::Protocol;
use tests::spans::Span;
use tests::tools;
use tests::traced::{Told, Traced};
use tests::web_server::{Logged, WebServer};
use tests::workload::utf8;

/// What the span and the clock of the program itself may differ by. nginx cuts both of its times to a millisecond.
const CLOCK_SECONDS: f64 = 1e-3;
const NGINX_SECONDS: f64 = CLOCK_SECONDS + 1e-3;

/// Times are of programs that share two CPUs with whoever else is there: the scenario may be run again.
const TRIES: u32 = 3;

/// What one side says of a request: method, target, status, bytes of the answer's body if known.
type Said = (String, String, u16, Option<u64>);

fn of_spans(spans: &[&Span]) -> BTreeMap<String, (Said, f64)> {
    let said = spans.iter().map(|span| {
        let status = span.attribute("http.response.status_code").parse().unwrap_or(0);
        let bytes = span.attribute("http.response.body.size").parse().ok();
        let method = span.attribute("http.request.method").to_owned();
        (span.target(), ((method, span.target(), status, bytes), span.seconds()))
    });
    said.collect()
}

/// Expects that two sides tell the same requests; returns those whose times differ by more than this.
#[track_caller]
fn check(
    told: &BTreeMap<String, (Said, f64)>,
    expected: &BTreeMap<String, (Said, f64)>,
    seconds_max: f64,
) -> Vec<String> {
    assert_eq!(told.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut late = Vec::new();
    for (target, (said, seconds)) in told {
        let (expected, expected_seconds) = &expected[target];
        // Where no head says how long a body is, no size is told.
        let bytes = said.3.and(expected.3);
        assert_eq!((said, said.3), (&(expected.0.clone(), target.clone(), expected.2, said.3), bytes));
        if (seconds - expected_seconds).abs() > seconds_max {
            late.push(format!("{target}: {seconds} s, not {expected_seconds} s"));
        }
    }
    late
}

/// All that curl is told to ask; each target once.
fn ask(server: &WebServer, file: &str) -> Vec<Transfer> {
    let url = |target: &str| server.url(target);
    let kept_alive: Vec<String> = (0..10).map(|number| url(&format!("/file?n={number}"))).collect();
    let ways = ["/empty?n=20", "/moved?n=21", "/broken?n=22", "/missing/17?n=23", "/taken?n=24"].map(url);
    let body = format!("@{file}");
    let mut transfers = curl(&[], &kept_alive);
    transfers.extend(curl(&[], &ways));
    let cases: [(&[&str], &str); 11] = [
        (&["--head"], "/file?n=30"),
        (&["--data", "a=1"], "/taken?n=31"),
        (&["--header", "Transfer-Encoding: chunked", "--data-binary", &body], "/upload?n=32"),
        (&["--header", "Expect: 100-continue", "--data-binary", &body], "/upload?n=33"),
        (&["--upload-file", file], "/taken?n=34"),
        (&[], "/copied?n=35"),
        (&[], "/sent?n=36"),
        (&["--compressed"], "/packed?n=37"),
        (&["--range", "5-9"], "/file?n=38"),
        (&["--http1.0"], "/file?n=39"),
        (&[], "/slow?n=40"),
    ];
    for (arguments, target) in cases {
        transfers.extend(curl(arguments, &[url(target)]));
    }
    transfers
}

/// One run; returns what differs in time.
fn nginx_and_curl_once(protocol: Protocol) -> Vec<String> {
    let directory = tempfile::TempDir::new().expect("a temporary directory");
    let file = directory.path().join("body");
    tools::write_file(&file, &vec![b'y'; 300_000]);
    let mut server = WebServer::start();
    let port = server.address().port();
    let traced = Traced::start(protocol, &[]);
    let transfers = ask(&server, utf8(&file));
    // What is uploaded goes through nginx twice.
    let logged = server.log(transfers.len() + 2);
    assert_eq!(logged.len(), transfers.len() + 2);
    traced.wait_at(&[port], 2 * logged.len());
    let mut told = traced.stop();
    // A receiver of HTTP is a server of this machine too.
    told.keep(&[port]);
    let servers = told.at(port, false);
    let clients: Vec<&Span> = told.at(port, true).into_iter().filter(|span| span.service == "curl").collect();
    assert_eq!((servers.len(), clients.len()), (logged.len(), transfers.len()), "each once");
    let of_log = logged.iter().map(|line: &Logged| {
        // nginx counts `100 Continue` as bytes of the body, curl does not.
        let transfer = transfers.iter().find(|transfer| transfer.target.ends_with(line.number()));
        let bytes = transfer.map(|transfer| transfer.body_bytes);
        (line.target.clone(), ((line.method.clone(), line.target.clone(), line.status, bytes), line.seconds))
    });
    let of_curl = transfers.iter().map(|transfer| {
        let said =
            (transfer.method.clone(), transfer.target.clone(), transfer.status, Some(transfer.body_bytes));
        (transfer.target.clone(), (said, transfer.seconds))
    });
    let mut late = check(&of_spans(&servers), &of_log.collect(), NGINX_SECONDS);
    // What nginx asks of itself begins, by its log, when its one worker last looked at the clock: before it read the upload.
    late.retain(|line| transfers.iter().any(|transfer| line.starts_with(&format!("{}:", transfer.target))));
    late.extend(check(&of_spans(&clients), &of_curl.collect(), CLOCK_SECONDS));
    check_errors(&told);
    late
}

/// A client's error is one to the client alone, and each server span is the child of the client's.
#[track_caller]
fn check_errors(told: &Told) {
    for span in &told.spans {
        let status: u16 = span.attribute("http.response.status_code").parse().expect("all are answered");
        let is_error = status >= 500 || span.is_client() && status >= 400;
        let error = if is_error { status.to_string() } else { String::new() };
        assert_eq!((span.is_error, span.attribute("error.type")), (is_error, &*error), "{}", span.summary());
        // A body may be answered before it is sent, and the end of a chunk is behind what is captured.
        let is_partial = span.name.starts_with('P') || span.name == "GET /packed";
        assert!(is_partial || span.attribute("kansoku.partial").is_empty(), "{}", span.summary());
        let path = span.attribute("url.path").replace("/17", "/{id}");
        assert_eq!(span.name, format!("{} {path}", span.attribute("http.request.method")));
        if !span.is_client() {
            let parent = told.spans.iter().find(|parent| parent.id == span.parent);
            let parent = parent.unwrap_or_else(|| panic!("no parent of {}", span.summary()));
            assert_eq!((parent.target(), &parent.trace_id), (span.target(), &span.trace_id));
            assert_eq!(span.attribute("kansoku.link.proof"), "connection");
        }
    }
}

#[test]
fn nginx_and_curl() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let mut late = Vec::new();
        let is_in_time = (0..TRIES).any(|_| {
            late = nginx_and_curl_once(protocol);
            println!("{protocol:?}: {} times differ: {late:#?}", late.len());
            late.is_empty()
        });
        assert!(is_in_time, "{late:#?}");
    }
}

/// Bytes without a meaning, the same in every run.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u32 ^ 0x9e37_79b9;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// What hostile peers begin with, before the noise.
const STARTS: [&[u8]; 9] = [
    b"",
    b"GET /x HTTP/1.1\r\nHost: a\r\n",
    b"POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"*1000000000\r\n$3\r\nSET\r\n$2147483647\r\n",
    b"Q\x7f\xff\xff\xff",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"\0\x1d\xab\xcd\x01\0\xff\xff\xff\xff\0\0\0\0",
];

/// Says noise to a server and hears it out, whatever it does.
fn say_noise(address: SocketAddr, index: usize) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time that is not 0");
    let bytes = [STARTS[index % STARTS.len()], &noise(index, index * 400)].concat();
    // It may hang up at the first byte, or wait for more.
    let _hung_up = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let _hung_up = stream.read_to_end(&mut Vec::new());
}

/// Answers so many connections with noise, after it has heard something.
fn answer_noise(connections: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().take(connections).enumerate() {
            let mut stream = stream.expect("a client");
            let _heard = stream.read(&mut [0; 4096]);
            let bytes = [STARTS[(index + 7) % STARTS.len()], &noise(index, index * 300)].concat();
            let _hung_up = stream.write_all(&bytes);
        }
    });
    address
}

/// Bytes of no protocol in both directions, and a peer that never answers: the agent goes on, and its books balance.
#[test]
fn bytes_of_no_protocol() {
    const CONNECTIONS: usize = 36;
    let server = WebServer::start();
    let noisy = answer_noise(CONNECTIONS);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_address = silent.local_addr().expect("a bound socket has an address");
    let traced = Traced::start(Protocol::Grpc, &[]);
    for index in 0..CONNECTIONS {
        say_noise(server.address(), index);
        let url = format!("http://{noisy}/noise/{index}");
        // It complains of what it hears.
        let _failed = Command::new("curl").args(["-s", "-m", "5", "-o", "/dev/null", &url]).status();
    }
    let mut unanswered = TcpStream::connect(silent_address).expect("it listens");
    unanswered.write_all(b"GET /never HTTP/1.1\r\nHost: silent\r\n\r\n").expect("the kernel takes it");
    drop(unanswered);
    let head = format!("X-Long: {}", "z".repeat(20_000));
    curl(&["--header", &head], &[server.url("/file?long")]);
    curl(&[], &[server.url("/file?last")]);
    let is_last = |span: &Span| span.target() == "/file?last";
    traced.wait_for("spans of the last request", 2, is_last);
    let told = traced.stop();
    let never: Vec<&Span> = told.spans.iter().filter(|span| span.target() == "/never").collect();
    assert_eq!(never.len(), 1, "who asked in vain: {never:?}");
    assert_eq!((never[0].attribute("error.type"), never[0].is_error), ("no_response", true));
    let last = told.spans.iter().filter(|span| is_last(span));
    assert!(last.clone().all(|span| span.attribute("http.response.status_code") == "200"));
    let account = told.books.of("span");
    println!("{} spans, lost {:?}", told.spans.len(), account.lost);
}
