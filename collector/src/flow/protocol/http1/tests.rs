//! Streams as data, each also cut everywhere; an oracle that knows what it said; any bytes.

use proptest::prelude::*;

use super::context::Carriers;
use super::query::redact;
use super::route::route;
use super::*;
use crate::flow::protocol::{Attribute, Exchange, Extent, Failure, Positions, Value};

/// What was moved in one call: by whom (`>` the client), captured bytes, and bytes that were not captured.
type Said = (char, Vec<u8>, u64);

fn said(who: char, text: &str) -> Said {
    (who, text.as_bytes().to_vec(), 0)
}

fn cut_short(who: char, text: &str, missing: u64) -> Said {
    (who, text.as_bytes().to_vec(), missing)
}

/// Runs a parser over pieces; each says whether it is the rest of the one before.
fn run(pieces: &[(Said, bool)]) -> (Output, Http1, bool) {
    let (mut parser, mut output) = (Http1::default(), Output::default());
    let (mut before, mut time_ns, mut positions) = (None, 0, Positions::default());
    for ((who, bytes, missing), is_rest) in pieces {
        time_ns += u64::from(!is_rest);
        let direction = if *who == '>' { Direction::Request } else { Direction::Response };
        let is_turn = before != Some(*who);
        before = Some(*who);
        let position = positions.next(direction, bytes.len() as u64 + missing);
        let mark = Mark { time_ns, position, ..Mark::default() };
        let piece = Piece { bytes, missing: *missing, is_turn, mark };
        if parser.take(direction, piece, &mut output) == Progress::Leave {
            Positions::keep_requests(&mut output);
            return (output, parser, true);
        }
        assert!(parser.pending.len() <= PENDING_MAX);
        assert!(parser.requests.carried.len() <= CARRIED_BYTES_MAX);
        assert!(parser.responses.carried.len() <= CARRIED_BYTES_MAX);
    }
    parser.finish(Mark::default(), &mut output);
    Positions::keep_requests(&mut output);
    (output, parser, false)
}

fn whole(stream: &[Said]) -> Output {
    run(&stream.iter().map(|said| (said.clone(), false)).collect::<Vec<_>>()).0
}

/// The stream with one of its pieces in two.
fn cut_at(stream: &[Said], index: usize, at: usize) -> Vec<(Said, bool)> {
    let mut pieces: Vec<_> = stream.iter().map(|said| (said.clone(), false)).collect();
    let (who, bytes, missing) = &stream[index];
    let (first, second) = bytes.split_at(at);
    pieces[index] = ((*who, first.to_vec(), 0), false);
    pieces.insert(index + 1, ((*who, second.to_vec(), *missing), true));
    pieces
}

fn byte_by_byte(stream: &[Said]) -> Vec<(Said, bool)> {
    let mut pieces = Vec::new();
    for (who, bytes, missing) in stream {
        for (at, byte) in bytes.iter().enumerate() {
            pieces.push(((*who, vec![*byte], 0), at > 0));
        }
        for at in 0..(*missing).min(50) {
            let rest = if at == 49 { missing - 49 } else { 1 };
            pieces.push(((*who, Vec::new(), rest), at > 0 || !bytes.is_empty()));
        }
    }
    pieces
}

fn attribute<'a>(exchange: &'a Exchange, key: &str) -> Option<&'a Value> {
    exchange.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

/// An exchange as a line: name, status or failure, pieces and bytes of the request and of the response.
fn line(exchange: &Exchange) -> String {
    let extent =
        |extent: &Extent| format!("{}..{} {}b", extent.first.time_ns, extent.last.time_ns, extent.bytes);
    let mut line = exchange.name.to_string();
    if let Some(Value::Integer(status)) = attribute(exchange, "http.response.status_code") {
        line += &format!(" = {status}");
    }
    if let Some(failure) = &exchange.failure {
        line += &format!(" !{}{}", failure.kind, if failure.is_servers { "" } else { " client" });
    }
    line += &format!(" >{}", extent(&exchange.request));
    line += &exchange.response.as_ref().map_or(String::new(), |response| format!(" <{}", extent(response)));
    line + if exchange.is_partial { " partial" } else { "" }
}

/// Checks the exchanges of a stream, whole and cut everywhere.
#[track_caller]
fn check(stream: &[Said], lines: &[&str]) -> Output {
    let expected = whole(stream);
    let found: Vec<_> = expected.exchanges.iter().map(line).collect();
    assert_eq!(found, lines);
    for (index, (_, bytes, missing)) in stream.iter().enumerate() {
        for at in 1..bytes.len() + usize::from(*missing > 0) {
            let (cut, ..) = run(&cut_at(stream, index, at));
            assert_eq!(cut.exchanges, expected.exchanges, "piece {index} cut at {at}");
            assert_eq!(cut.abandoned, expected.abandoned, "piece {index} cut at {at}");
        }
    }
    let (cut, ..) = run(&byte_by_byte(stream));
    assert_eq!(cut.exchanges, expected.exchanges, "byte by byte");
    expected
}

const GET: &str = "GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_has_its_response() {
    let output = check(&[said('>', GET), said('<', OK)], &["GET /orders/{id} = 200 >1..1 39b <2..2 40b"]);
    assert_eq!((output.abandoned, output.rejected), (0, 0));
    check(
        &[said('>', GET), said('<', OK), said('>', GET), said('<', "HTTP/1.1 404 No\ncontent-length:0\n\n")],
        &[
            "GET /orders/{id} = 200 >1..1 39b <2..2 40b",
            "GET /orders/{id} = 404 !404 client >3..3 39b <4..4 34b",
        ],
    );
    check(&[said('>', GET)], &["GET /orders/{id} !no_response >1..1 39b"]);
}

#[test]
fn requests_may_be_pipelined() {
    let requests = [GET, "GET /b HTTP/1.1\r\n\r\n", "HEAD /c HTTP/1.1\r\n\r\n"].concat();
    let responses =
        [OK, "HTTP/1.1 500 E\r\nContent-Length: 3\r\n\r\nabc", OK.trim_end_matches("ok")].concat();
    check(
        &[said('>', &requests), said('<', &responses)],
        &[
            "GET /orders/{id} = 200 >1..1 39b <2..2 40b",
            "GET /b = 500 !500 >1..1 19b <2..2 40b",
            "HEAD /c = 200 >1..1 20b <2..2 38b",
        ],
    );
    check(
        &[said('>', GET), said('>', "\r\nGET /b HTTP/1.1\r\n\r\n"), said('<', OK)],
        &["GET /orders/{id} = 200 >1..1 39b <3..3 40b", "GET /b !no_response >2..2 19b"],
    );
}

#[test]
fn bodies_are_skipped_by_their_length() {
    let post = "POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
    check(&[said('>', post), said('>', "GET / HTTP"), said('<', OK)], &["POST /a = 200 >1..2 50b <3..3 40b"]);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    let stream = [
        cut_short('>', post, 10),
        cut_short('<', head, 1000),
        cut_short('<', "", 3000),
        cut_short('<', "abcd", 996),
        said('>', GET),
        said('<', OK),
    ];
    check(&stream, &["POST /a = 200 >1..1 50b <2..4 5041b", "GET /orders/{id} = 200 >5..5 39b <6..6 40b"]);
    // More is missing than the body has: what follows it is not known.
    let stream = [said('>', GET), said('>', GET), cut_short('<', head, 5001), said('>', GET), said('<', OK)];
    let output = check(
        &stream,
        &["GET /orders/{id} = 200 >1..1 39b <3..3 5041b", "GET /orders/{id} = 200 >4..4 39b <5..5 40b"],
    );
    assert_eq!(output.abandoned, 1);
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn bodies_may_come_in_chunks() {
    let body = "5\r\nabcde\r\n1c;x=y\r\n0\r\n\r\n56789012345678901234567\r\n0\r\n\r\n";
    let all = [CHUNKED, body, OK].concat();
    check(
        &[said('>', GET), said('>', GET), said('<', &all)],
        &["GET /orders/{id} = 200 >1..1 39b <3..3 100b", "GET /orders/{id} = 200 >2..2 39b <3..3 40b"],
    );
    let trailer = [CHUNKED, "0\r\nExpires: now\r\nA: b\r\n\r\n", OK].concat();
    check(
        &[said('>', GET), said('>', GET), said('<', &trailer)],
        &["GET /orders/{id} = 200 >1..1 39b <3..3 72b", "GET /orders/{id} = 200 >2..2 39b <3..3 40b"],
    );
    let missing = [
        said('>', "POST /a HTTP/1.1\r\ntransfer-encoding: gzip, Chunked\r\n\r\n"),
        said('>', "3\r\nabc\r\n0\r\n\r\n"),
        cut_short('<', &[CHUNKED, "fff\r\nabcd"].concat(), 4000),
        cut_short('<', "", 90),
        cut_short('<', "x", 2),
        said('<', "0\r\n\r\n"),
        said('>', GET),
        said('<', OK),
    ];
    check(&missing, &["POST /a = 200 >1..2 67b <3..6 4154b", "GET /orders/{id} = 200 >7..7 39b <8..8 40b"]);
}

#[test]
fn a_body_whose_chunks_are_lost_lasts_until_the_turn() {
    let lost = cut_short('<', &[CHUNKED, "5\r\nabcde\r\n"].concat(), 100);
    check(
        &[said('>', GET), lost.clone(), said('<', "0\r\n\r\n"), said('>', GET), said('<', OK)],
        &[
            "GET /orders/{id} = 200 >1..1 39b <2..3 162b partial",
            "GET /orders/{id} = 200 >4..4 39b <5..5 40b",
        ],
    );
    // The second response is somewhere in the first: it belongs to nobody.
    let output = check(
        &[said('>', GET), said('>', GET), lost, said('<', OK), said('>', GET), said('<', OK)],
        &[
            "GET /orders/{id} = 200 >1..1 39b <3..4 197b partial",
            "GET /orders/{id} = 200 >5..5 39b <6..6 40b",
        ],
    );
    assert_eq!(output.abandoned, 1);
    let upload = "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(
        &[cut_short('>', upload, 9), said('>', GET), said('<', OK), said('>', GET), said('<', OK)],
        &["PUT /a = 200 >1..2 95b <3..3 40b partial", "GET /orders/{id} = 200 >4..4 39b <5..5 40b"],
    );
    let output = whole(&[said('>', GET), said('<', &[CHUNKED, "nonsense"].concat())]);
    assert_eq!(output.rejected, 1);
    assert!(output.exchanges[0].is_partial);
}

#[test]
fn a_body_without_length_lasts_until_the_end() {
    let stream = [
        said('>', "GET /a HTTP/1.0\r\n\r\n"),
        said('<', "HTTP/1.0 200 OK\r\n\r\nabc"),
        cut_short('<', "HTTP/1.1 200 OK\r\n\r\n", 7),
    ];
    let output = check(&stream, &["GET /a = 200 >1..1 19b <2..3 48b"]);
    assert_eq!(attribute(&output.exchanges[0], "http.response.body.size"), Some(&Value::Integer(29)));
    // A head at a turn shows that there was a length.
    let stream = [said('>', GET), said('<', "HTTP/1.1 200 OK\r\n\r\nabc"), said('>', GET), said('<', OK)];
    let found: Vec<_> = whole(&stream).exchanges.iter().map(line).collect();
    let expected =
        ["GET /orders/{id} = 200 >1..1 39b <2..2 22b partial", "GET /orders/{id} = 200 >3..3 39b <4..4 40b"];
    assert_eq!(found, expected);
}

#[test]
fn some_responses_have_no_body() {
    let length = "Content-Length: 900\r\n\r\n";
    let stream = [
        said('>', "HEAD /a HTTP/1.1\r\n\r\n"),
        said('<', &["HTTP/1.1 200 OK\r\n", length].concat()),
        said('>', "GET /b HTTP/1.1\r\n\r\n"),
        said('<', &["HTTP/1.1 304 Not Modified\r\n", length].concat()),
        said('>', "DELETE /c HTTP/1.1\r\n\r\n"),
        said('<', "HTTP/1.1 204 No Content\r\n\r\n"),
        said('>', "GET /d HTTP/1.1\r\n\r\n"),
        said('<', OK),
    ];
    let output = check(
        &stream,
        &[
            "HEAD /a = 200 >1..1 20b <2..2 40b",
            "GET /b = 304 >3..3 19b <4..4 50b",
            "DELETE /c = 204 >5..5 22b <6..6 27b",
            "GET /d = 200 >7..7 19b <8..8 40b",
        ],
    );
    assert_eq!(attribute(&output.exchanges[0], "http.response.body.size"), None);
}

#[test]
fn interim_responses_are_not_the_response() {
    let head = "POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let stream = [
        said('>', head),
        said('<', "HTTP/1.1 100 Continue\r\n\r\n"),
        said('>', "abc"),
        said('<', &["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK].concat()),
    ];
    check(&stream, &["POST /a = 200 >1..3 64b <4..4 40b"]);
    let stream = [
        cut_short('>', &head[..30], 31),
        said('<', "HTTP/1.1 100 Continue\r\n\r\n"),
        said('>', "abc"),
        said('<', OK),
        said('>', GET),
        said('<', OK),
    ];
    check(
        &stream,
        &["POST /a = 200 >1..1 61b <4..4 40b partial", "GET /orders/{id} = 200 >5..5 39b <6..6 40b"],
    );
}

#[test]
fn other_protocols_are_left() {
    let upgrade = [
        said('>', "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        said('<', "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}"),
    ];
    check(&upgrade, &["GET /ws = 101 >1..1 40b <2..2 56b"]);
    let connect = [
        said('>', "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n"),
        said('<', "HTTP/1.1 200 OK\r\n\r\n"),
    ];
    check(&connect, &["CONNECT = 200 >1..1 43b <2..2 19b"]);
    for stream in [upgrade, connect] {
        assert!(run(&stream.map(|said| (said, false))).2);
    }
}

#[test]
fn the_missing_end_of_a_head_is_survived() {
    let stream = [
        cut_short('>', "GET /orders/12?a=b HTTP/1.1\r\nHost: shop\r\nCook", 300),
        cut_short('<', "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-", 40),
        said('>', GET),
        said('<', OK),
    ];
    let second = "GET /orders/{id} = 200 >3..3 39b <4..4 40b";
    check(&stream, &["GET /orders/{id} = 200 >1..1 345b <2..2 80b partial", second]);
    let mut stream = stream;
    stream[0] = cut_short('>', "GET /orders/abou", 30);
    check(&stream, &["GET /orders/* = 200 >1..1 46b <2..2 80b partial", second]);
    stream[0] = cut_short('>', "GE", 30);
    let output = check(&stream, &[second]);
    assert_eq!(output.abandoned, 1);
    stream[0] = cut_short('>', "", 32);
    check(&stream, &[second]);
    stream[0] = said('>', GET);
    stream[1] = cut_short('<', "", 80);
    let output = check(&stream, &[second]);
    assert_eq!(output.abandoned, 1);
}

#[test]
fn large_heads_are_known_in_part() {
    let long = format!("GET /a HTTP/1.1\r\nHost: shop\r\nCookie: {}\r\n\r\n", "x".repeat(9000));
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: {}\r\n\r\nok", "x".repeat(9000));
    let output = check(
        &[said('>', &long), said('<', &response), said('>', GET), said('<', OK)],
        &["GET /a = 200 >1..1 9041b <2..2 9045b partial", "GET /orders/{id} = 200 >3..3 39b <4..4 40b"],
    );
    assert_eq!(attribute(&output.exchanges[0], "server.address"), Some(&Value::Text("shop".into())));
    let many = format!("GET /a HTTP/1.1\r\nHost: shop\r\n{}\r\n", "A: b\r\n".repeat(80));
    check(&[said('>', &many), said('<', OK)], &["GET /a = 200 >1..1 511b <2..2 40b partial"]);
    let target = format!("GET /a/{} HTTP/1.1\r\n\r\n", "x".repeat(9000));
    check(&[said('>', &target), said('<', OK)], &["GET /a/* = 200 >1..1 9020b <2..2 40b partial"]);
}

#[test]
fn a_parser_may_join_at_any_piece() {
    let post = "POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
    let chunks = [CHUNKED, "3\r\nabc\r\n"].concat();
    let stream = [
        said('>', GET),
        said('<', OK),
        said('>', post),
        said('>', "abc"),
        said('<', &chunks),
        said('<', "0\r\n\r\n"),
        said('>', "GET /c HTTP/1.1\r\n\r\n"),
        said('<', OK),
    ];
    let all: Vec<_> = whole(&stream).exchanges.iter().map(|exchange| exchange.name.clone()).collect();
    assert_eq!(all, ["GET /orders/{id}", "POST /b", "GET /c"]);
    for skipped in 0..stream.len() {
        let first_kept = [0, 1, 1, 2, 2, 2, 2, 3][skipped];
        let joined: Vec<_> =
            whole(&stream[skipped..]).exchanges.iter().map(|exchange| exchange.name.clone()).collect();
        assert_eq!(joined, all[first_kept..], "joined at {skipped}");
        // In the middle of a piece that is not a turn.
        let (who, bytes, _) = &stream[skipped];
        let mut cut = stream[skipped..].to_vec();
        cut[0] = (*who, bytes[1..].to_vec(), 0);
        let kept = first_kept + usize::from([0, 2, 6].contains(&skipped));
        let joined: Vec<_> = whole(&cut).exchanges.iter().map(|exchange| exchange.name.clone()).collect();
        // Joined at a turn, what is left of a method still looks like one.
        if ![0, 2, 6].contains(&skipped) {
            assert_eq!(joined, all[kept..], "joined in {skipped}");
        }
    }
}

#[test]
fn what_is_no_http_is_rejected() {
    let output =
        whole(&[said('>', "\u{16}\u{3}\u{1}hello"), said('<', "\u{16}\u{3}"), said('>', GET), said('<', OK)]);
    assert_eq!((output.exchanges.len(), output.rejected), (1, 2));
    let output = whole(&[said('>', GET), said('<', "nonsense"), said('>', GET), said('<', OK)]);
    assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (1, 1, 1));
}

/// Nobody knows how many requests were in the bytes that made no sense.
#[test]
fn a_request_amid_a_response_does_not_end_doubt() {
    let stream = [
        said('>', GET),
        said('>', "\u{1}\u{2}"),
        cut_short('<', "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", 4000),
        said('>', "GET /b HTTP/1.1\r\n\r\n"),
        cut_short('<', "", 1000),
        said('<', OK),
        said('>', "GET /c HTTP/1.1\r\n\r\n"),
        said('<', OK),
    ];
    let output =
        check(&stream, &["GET /orders/{id} = 200 >1..1 39b <3..5 5041b", "GET /c = 200 >7..7 19b <8..8 40b"]);
    assert_eq!((output.abandoned, output.rejected), (1, 1));
}

/// `sendfile` and the like move bytes that nobody sees.
#[test]
fn bodies_that_never_come_are_given_up() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    let post = "POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
    let stream =
        [said('>', GET), said('<', head), said('>', post), said('<', OK), said('>', GET), said('<', OK)];
    let found: Vec<_> = whole(&stream).exchanges.iter().map(line).collect();
    let expected = [
        "GET /orders/{id} = 200 >1..1 39b <2..2 41b partial",
        "POST /a = 200 >3..3 40b <4..4 40b partial",
        "GET /orders/{id} = 200 >5..5 39b <6..6 40b",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unanswered_requests_are_bounded() {
    let stream: Vec<_> = (0..PENDING_MAX + 10).map(|_| said('>', GET)).chain([said('<', OK)]).collect();
    let output = whole(&stream);
    assert_eq!(output.exchanges.len(), 0);
    assert_eq!(output.abandoned, PENDING_MAX as u64 + 10);
}

#[test]
fn attributes_follow_the_conventions() {
    let request = "FETCH http://u:p@h/orders/9f8b7c6d5e/items?page=2&access_token=abc&q= HTTP/1.0\r\n\
        Host: [2001:db8::1]:8443\r\nUser-Agent: curl/8\r\nAuthorization: Basic c2VjcmV0\r\nCookie: sid=1\r\n\
        Content-Length: 4\r\n\r\nbody";
    let output = whole(&[said('>', request), said('<', "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")]);
    let exchange = &output.exchanges[0];
    assert_eq!(exchange.name, "HTTP /orders/{id}/items");
    let text =
        |key, text: &'static str, is_metric| Attribute { key, value: Value::Text(text.into()), is_metric };
    let number = |key, number, is_metric| Attribute { key, value: Value::Integer(number), is_metric };
    let expected = [
        text("http.request.method", "_OTHER", true),
        text("http.request.method_original", "FETCH", false),
        text("url.scheme", "http", true),
        text("network.protocol.name", "http", true),
        text("network.protocol.version", "1.0", true),
        text("http.route", "/orders/{id}/items", true),
        text("url.path", "/orders/9f8b7c6d5e/items", false),
        text("url.query", "page=2&access_token=REDACTED&q=", false),
        text("server.address", "2001:db8::1", false),
        number("server.port", 8443, false),
        text("user_agent.original", "curl/8", false),
        number("http.request.body.size", 4, false),
        number("http.response.body.size", 2, false),
        number("http.response.status_code", 503, true),
    ];
    assert_eq!(exchange.attributes, expected);
    assert_eq!(
        exchange.failure,
        Some(Failure { kind: "503".into(), message: String::new(), is_servers: true })
    );
}

#[test]
fn routes_are_guessed() {
    let cases = [
        ("/", "/"),
        ("//", "/"),
        ("/orders/17", "/orders/{id}"),
        ("/orders/17/", "/orders/{id}"),
        ("/api/v1/users/550e8400-e29b-41d4-a716-446655440000", "/api/v1/users/{id}"),
        ("/apis/apps/v1beta1/namespaces", "/apis/apps/v1beta1/namespaces"),
        ("/blobs/deadbeef", "/blobs/{id}"),
        ("/o/oauth2/s3/ipv4", "/o/oauth2/s3/ipv4"),
        ("/order-123/user42/ab12cd", "/{id}/{id}/{id}"),
        ("/t/dGhpcyBpcyBhIHRva2VuCg", "/t/{id}"),
        ("/t/dGhpcyBpcyBhdGhpcyBpcyBh", "/t/{id}"),
        ("/u/jane@example.com/x%20y/%E4", "/u/{id}/{id}/{id}"),
        ("/static/app.js", "/static/app.js"),
        ("/static/main.3f2a1b9c.chunk.css", "/static/main.{id}.chunk.css"),
        ("/img/1234.PNG", "/img/{id}.PNG"),
        ("/a/b/c/d/e", "/a/b/c/d/e"),
        ("/a/b/c/d/e/f", "/a/b/c/d/e/*"),
        ("/a;jsessionid=42/b", "/a/b"),
        ("/my-first-post-about-rust", "/{id}"),
        ("/.well-known/openid-configuration", "/.well-known/openid-configuration"),
        ("/a/thisisaverylongsegmentthatnobodywouldwrite", "/a/{id}"),
    ];
    for (path, expected) in cases {
        assert_eq!(route(path, false), expected, "{path}");
    }
    assert_eq!(route("/orders/acc", true), "/orders/*");
    assert_eq!(route("/orders/", true), "/orders/*");
    assert_eq!(route("/", true), "/*");
}

#[test]
fn secrets_are_not_shown() {
    let cases = [
        ("a=b&c", "a=b&c"),
        ("Api_Key=1&b=2", "Api_Key=REDACTED&b=2"),
        ("X-Amz-Signature=00&AWSAccessKeyId=1", "X-Amz-Signature=REDACTED&AWSAccessKeyId=REDACTED"),
        ("%74oken=1", "%74oken=REDACTED"),
        ("q=eyJhbGciOi.a.b", "q=REDACTED"),
        ("q=0123456789abcdef0123456789abcdef", "q=REDACTED"),
        ("0123456789abcdef0123456789abcdef", "REDACTED"),
        ("id=550e8400-e29b-41d4-a716-446655440000", "id=550e8400-e29b-41d4-a716-446655440000"),
        ("password=a=b&x", "password=REDACTED&x"),
    ];
    for (query, expected) in cases {
        assert_eq!(redact(query), expected);
    }
    let key = "a".repeat(65);
    assert_eq!(redact(&format!("{key}=1")), format!("{key}=REDACTED"));
}

/// Checks the trace that headers name: both identifiers, `sampled`, the state.
#[track_caller]
fn check_context(headers: &[(&str, &str)], expected: Option<(&str, &str, Option<bool>, &str)>) {
    let mut carriers = Carriers::default();
    headers.iter().for_each(|(name, value)| carriers.note(name, value.as_bytes()));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let found = carriers.context();
    let found = found.map(|found| (hex(&found.trace_id), hex(&found.span_id), found.is_sampled, found.state));
    let expected = expected.map(|(trace, span, is_sampled, state)| {
        (trace.to_owned(), span.to_owned(), is_sampled, state.to_owned())
    });
    assert_eq!(found, expected, "{headers:?}");
}

#[test]
fn traces_are_read() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let w3c = Some((TRACE, SPAN, Some(true), ""));
    check_context(&[("Traceparent", &parent)], w3c);
    check_context(&[("traceparent", &parent), ("b3", "0")], w3c);
    check_context(&[("traceparent", &format!("00-{TRACE}-{SPAN}-02"))], Some((TRACE, SPAN, Some(false), "")));
    check_context(&[("traceparent", &format!("cc-{TRACE}-{SPAN}-01-what"))], w3c);
    for wrong in [
        format!("00-{TRACE}-{SPAN}-01-what"),
        format!("cc-{TRACE}-{SPAN}-01what"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-0"),
        format!("00-{TRACE}-{SPAN}x-1"),
        String::new(),
    ] {
        check_context(&[("traceparent", &wrong)], None);
    }
    check_context(&[("traceparent", &parent), ("traceparent", &parent)], None);
    let state = [("traceparent", &*parent), ("tracestate", "a=1"), ("tracestate", "b=2")];
    check_context(&state, Some((TRACE, SPAN, Some(true), "a=1,b=2")));
    let long = format!("a={},b={}", "x".repeat(300), "y".repeat(300));
    let kept = format!("a={}", "x".repeat(300));
    check_context(&[("traceparent", &parent), ("tracestate", &long)], Some((TRACE, SPAN, Some(true), &kept)));
    check_context(&[("b3", &format!("{TRACE}-{SPAN}-d"))], w3c);
    check_context(&[("b3", &format!("{TRACE}-{SPAN}"))], Some((TRACE, SPAN, None, "")));
    let short = format!("0000000000000000{SPAN}");
    check_context(&[("b3", &format!("{SPAN}-{SPAN}-0-{SPAN}"))], Some((&short, SPAN, Some(false), "")));
    check_context(&[("b3", "0")], None);
    let many = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "1")];
    check_context(&many, w3c);
    check_context(&many[..1], None);
}

#[test]
fn first_bytes_show_the_protocol() {
    let request = Some(Direction::Request);
    let cases: [(&[u8], Option<Direction>); 19] = [
        (b"GET / HTTP/1.1\r\n", request),
        (b"GET /abc", request),
        (b"GET /abc HTT", request),
        (b"OPTIONS * HTTP/1.1\r\n", request),
        (b"CONNECT a:443 HTTP/1.1\r\n", request),
        (b"POST http://a/b HTTP/1.0\r\n", request),
        (b"PROPFIND /a HTTP/1.1\r\n", request),
        (b"PROPFIND /a", None),
        (b"GET /key\r\n", None),
        (b"GET key\r\n", None),
        (b"OPTIONS sip:a SIP/2.0\r\n", None),
        (b"OPTIONS /a RTSP/1.0\r\n", None),
        (b"PRI * HTTP/2.0\r\n\r\nSM", None),
        (b"GET /a b HTTP/1.1\r\n", None),
        (b"GET /\0", None),
        (b"", None),
        (b"HTTP/1.1 200", Some(Direction::Response)),
        (b"HTTP/2.0 200", None),
        (b"HTTP/1.1 2x0", None),
    ];
    for (bytes, expected) in cases {
        assert_eq!(detect(bytes), expected, "{}", bytes.escape_ascii());
    }
}

/// Captured between curl 7.88 and nginx 1.22: `>` the client, `<` the server.
#[test]
fn nginx_and_curl_are_understood() {
    let stream: Vec<_> = include_str!("nginx.txt").lines().map(from_hex).collect();
    let output = check(
        &stream,
        &[
            "GET /orders/{id} = 200 >1..1 200b <2..2 161b",
            "GET /small.html = 200 >3..3 182b <4..4 240b",
            "HEAD /text.txt = 200 >5..5 88b <6..6 239b",
            "GET /text.txt = 200 >7..7 110b <8..8 421b",
            "POST /fail = 503 !503 >9..9 155b <10..10 179b",
            "GET /nothing = 404 !404 client >11..11 86b <12..12 308b",
        ],
    );
    assert!(output.exchanges[0].context.is_some());
    assert_eq!(output.rejected + output.abandoned, 0);
}

fn from_hex(line: &str) -> Said {
    let (who, digits) = line.split_at(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    (who.chars().next().unwrap(), digits.trim().as_bytes().chunks(2).map(byte).collect(), 0)
}

/// What the oracle says: a request with a body, and its response. The status tells which request it answers.
#[derive(Clone, Debug)]
struct Talk {
    method: &'static str,
    request_bytes: Option<usize>,
    response: Shape,
    status: u16,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Counted(usize),
    Chunked(usize),
    Nothing,
}

fn talks() -> impl Strategy<Value = Vec<Vec<Talk>>> {
    let shape = prop_oneof![
        (0..3000_usize).prop_map(Shape::Counted),
        (1..900_usize).prop_map(Shape::Chunked),
        Just(Shape::Nothing)
    ];
    let talk = (
        proptest::sample::select(vec!["GET", "POST", "HEAD", "PUT"]),
        proptest::option::of(0..2000_usize),
        shape,
    );
    let talk = talk.prop_map(|(method, request_bytes, response)| Talk {
        method,
        request_bytes,
        response,
        status: 0,
    });
    proptest::collection::vec(proptest::collection::vec(talk, 1..4), 1..8).prop_map(|mut batches| {
        let talks = batches.iter_mut().flatten();
        talks.zip(205..300).for_each(|(talk, status)| talk.status = status);
        batches
    })
}

impl Talk {
    fn request(&self) -> Vec<u8> {
        let mut bytes = format!("{} /{} HTTP/1.1\r\nHost: a\r\n", self.method, self.status);
        if let Some(length) = self.request_bytes {
            bytes += &format!("Content-Length: {length}\r\n\r\n{}", "r".repeat(length));
        } else {
            bytes += "\r\n";
        }
        bytes.into_bytes()
    }

    fn response(&self) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} A\r\nServer: oracle\r\n", self.status);
        let content = |count: usize| "s".repeat(if self.method == "HEAD" { 0 } else { count });
        match self.response {
            Shape::Counted(count) => bytes += &format!("Content-Length: {count}\r\n\r\n{}", content(count)),
            Shape::Nothing => bytes += "Content-Length: 0\r\n\r\n",
            Shape::Chunked(_) if self.method == "HEAD" => bytes += "Transfer-Encoding: chunked\r\n\r\n",
            Shape::Chunked(count) => {
                let chunk = format!("{count:x}\r\n{}\r\n", content(count));
                bytes += &format!("Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
            }
        }
        bytes.into_bytes()
    }
}

/// Batches of pipelined requests, each followed by the responses, in pieces of which so much is captured.
fn stream_of(batches: &[Vec<Talk>], sizes: &[usize], captured: usize) -> Vec<Said> {
    let mut sizes = sizes.iter().cycle();
    let mut stream = Vec::new();
    for batch in batches {
        for who in ['>', '<'] {
            let each = |talk| if who == '>' { Talk::request(talk) } else { Talk::response(talk) };
            let bytes: Vec<u8> = batch.iter().flat_map(each).collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                let kept = &piece[..captured.min(piece.len())];
                stream.push((who, kept.to_vec(), (piece.len() - kept.len()) as u64));
                rest = after;
            }
        }
    }
    stream
}

/// Which request and which response were put together.
fn pair(exchange: &Exchange) -> (String, Option<i64>) {
    let Some(Value::Text(path)) = attribute(exchange, "url.path") else { panic!("no path") };
    let status = match attribute(exchange, "http.response.status_code") {
        Some(Value::Integer(status)) => Some(*status),
        _ => None,
    };
    (path.to_string(), status)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However a head is cut and spoilt, its end is where a library says that it is.
    #[test]
    fn heads_end_where_a_library_says(
        lines in proptest::collection::vec("[A-Za-z-]{1,12}: ?[ -~]{0,30}(\r)?\n", 0..12),
        spoilt in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = format!("GET /a HTTP/1.1\r\n{}\r\nbody\n\n", lines.concat()).into_bytes();
        if let Some((index, byte)) = spoilt {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        // Empty lines before a head are skipped before its end is looked for.
        prop_assume!(!bytes[0].is_ascii_whitespace());
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = httparse::ParserConfig::default()
            .ignore_invalid_headers_in_requests(true)
            .parse_request(&mut request, &bytes);
        if let Ok(httparse::Status::Complete(length)) = parsed {
            let (first, second) = bytes.split_at(cut.index(bytes.len()));
            let mut finder = head::EndFinder::default();
            let end = finder.find(first).or_else(|| finder.find(second).map(|end| first.len() + end));
            prop_assert_eq!(end, Some(length), "{}", bytes.escape_ascii());
        }
    }

    /// All that was said is understood, however it is cut.
    #[test]
    fn an_oracle_is_understood(batches in talks(), sizes in proptest::collection::vec(1..700_usize, 1..20)) {
        let output = whole(&stream_of(&batches, &sizes, usize::MAX));
        let talks: Vec<_> = batches.iter().flatten().collect();
        prop_assert_eq!(output.exchanges.len(), talks.len());
        for (exchange, talk) in output.exchanges.iter().zip(talks) {
            prop_assert_eq!(pair(exchange), (format!("/{}", talk.status), Some(i64::from(talk.status))));
            prop_assert_eq!(exchange.request.bytes, talk.request().len() as u64);
            prop_assert_eq!(exchange.response.unwrap().bytes, talk.response().len() as u64);
            prop_assert!(!exchange.is_partial);
        }
        prop_assert_eq!(output.rejected + output.abandoned, 0);
    }

    /// With the ends of pieces missing, no request is given the response of another.
    #[test]
    fn holes_make_no_wrong_exchanges(
        batches in talks(),
        sizes in proptest::collection::vec(1..3000_usize, 1..20),
        captured in 20..300_usize,
    ) {
        let output = whole(&stream_of(&batches, &sizes, captured));
        for exchange in &output.exchanges {
            let (path, status) = pair(exchange);
            if let Some(status) = status {
                prop_assert!(format!("/{status}").starts_with(&path), "{} has {}", path, status);
            }
        }
        let talks = batches.iter().flatten().count();
        prop_assert!(output.exchanges.len() <= talks);
    }

    /// With a piece for each message, whose head alone is captured, nothing is lost.
    #[test]
    fn heads_are_enough(batches in talks(), captured in 60..300_usize) {
        let talks: Vec<_> = batches.into_iter().flatten().map(|talk| vec![talk]).collect();
        let output = whole(&stream_of(&talks, &[usize::MAX], captured));
        prop_assert_eq!(output.exchanges.len(), talks.len());
        for (exchange, talk) in output.exchanges.iter().zip(talks.iter().flatten()) {
            prop_assert_eq!(pair(exchange), (format!("/{}", talk.status), Some(i64::from(talk.status))));
            prop_assert_eq!(exchange.response.unwrap().bytes, talk.response().len() as u64);
        }
        prop_assert_eq!(output.rejected + output.abandoned, 0);
    }

    #[test]
    fn any_bytes_are_survived(
        pieces in proptest::collection::vec(
            (
                any::<bool>(),
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..80),
                    "(GET|HEAD|CONNECT) /[a-z0-9/%?=&;.]{0,20} HTTP/1.[01]\r\n(Content-Length: [0-9]{1,20}\r\n)?\r\n"
                        .prop_map(String::into_bytes),
                    "HTTP/1.1 [1-5][0-9][0-9] \r\n(Transfer-Encoding: chunked\r\n\r\n[0-9a-f]{1,3}\r\n)?\r\n"
                        .prop_map(String::into_bytes),
                    "[\r\n0-9a-f:;A-Z ]{0,20}".prop_map(String::into_bytes),
                ],
                prop_oneof![4 => Just(0_u64), 1 => 0..50_u64, 1 => any::<u64>()],
                any::<bool>(),
            ),
            0..40,
        )
    ) {
        let (mut parser, mut output) = (Http1::default(), Output::default());
        for (is_request, bytes, missing, is_turn) in &pieces {
            let direction = if *is_request { Direction::Request } else { Direction::Response };
            detect(bytes);
            let mark = Mark::default();
            parser.take(direction, Piece { bytes, missing: *missing, is_turn: *is_turn, mark }, &mut output);
            prop_assert!(parser.pending.len() <= PENDING_MAX);
            prop_assert!(parser.answer.is_none() || !parser.pending.is_empty());
        }
        parser.finish(Mark::default(), &mut output);
    }
}
