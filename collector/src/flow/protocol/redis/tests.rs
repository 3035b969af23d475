//! Sessions of Redis: recorded and built ones, whole and cut anywhere. Refuses: a server.

use proptest::prelude::*;

use super::super::{CARRIED_BYTES_MAX, Positions, Value as AttributeValue};
use super::reader::DEPTH_MAX;
use super::*;

use Direction::{Request, Response};

type Pieces<'a> = Vec<(Direction, &'a [u8], u64)>;

/// What is known of exchanges, one a line: name, text, bytes of both, database, failure.
fn lines(output: &Output) -> Vec<String> {
    let line = |exchange: &Exchange| {
        let attribute = |key: &str| {
            let found = exchange.attributes.iter().find(|attribute| attribute.key == key)?;
            let AttributeValue::Text(text) = &found.value else { panic!("{key} is no text") };
            Some(text.as_ref())
        };
        let text = attribute("db.query.text").unwrap_or_default();
        let database = attribute("db.namespace").map_or(String::new(), |database| format!(" db {database}"));
        let response = exchange.response.map_or("none".to_owned(), |response| response.bytes.to_string());
        let failure = exchange.failure.as_ref();
        let failure =
            failure.map_or(String::new(), |failure| format!(" {} {}", failure.kind, failure.is_servers));
        let partial = if exchange.is_partial { " partial" } else { "" };
        format!("{}: {text} {}/{response}{database}{failure}{partial}", exchange.name, exchange.request.bytes)
    };
    output.exchanges.iter().map(line).collect()
}

fn run(pieces: &Pieces<'_>, turns: bool) -> (Output, Progress) {
    let mut redis = Redis::default();
    let mut output = Output::default();
    let (mut previous, mut positions) = (None, Positions::default());
    for (direction, bytes, missing) in pieces {
        // A hole is no turn: the message behind it is.
        let is_turn = turns && !bytes.is_empty() && previous != Some(*direction);
        previous = if bytes.is_empty() { previous } else { Some(*direction) };
        let position = positions.next(*direction, bytes.len() as u64 + missing);
        let mark = Mark { position, ..Mark::default() };
        let piece = Piece { bytes, missing: *missing, is_turn, mark };
        if redis.take(*direction, piece, &mut output) == Progress::Leave {
            Positions::keep_requests(&mut output);
            return (output, Progress::Leave);
        }
        assert!(redis.session.pending.len() <= PENDING_MAX);
    }
    redis.finish(Mark::default(), &mut output);
    Positions::keep_requests(&mut output);
    (output, Progress::More)
}

/// Checks a stream, whole, cut anywhere, and byte by byte.
fn check(stream: &[(Direction, &str)], expected: &[&str]) -> Progress {
    let whole: Pieces<'_> = stream.iter().map(|(direction, text)| (*direction, text.as_bytes(), 0)).collect();
    let (output, progress) = run(&whole, true);
    assert_eq!(lines(&output), expected);
    assert_eq!((output.rejected, output.abandoned), (0, 0));
    for index in 0..whole.len() {
        let (direction, bytes, _) = whole[index];
        for cut in 0..=bytes.len() {
            let mut pieces = whole.clone();
            pieces.splice(index..=index, [(direction, &bytes[..cut], 0), (direction, &bytes[cut..], 0)]);
            assert_eq!(run(&pieces, true).0.exchanges, output.exchanges, "cut {index} at {cut}");
        }
    }
    let bytes: Pieces<'_> = whole
        .iter()
        .flat_map(|(direction, bytes, _)| bytes.chunks(1).map(|byte| (*direction, byte, 0)))
        .collect();
    assert_eq!(run(&bytes, true).0.exchanges, output.exchanges);
    progress
}

/// Checks pieces as they were captured, with holes, and how much was given up and rejected.
fn check_pieces(pieces: &[(Direction, &str, u64)], expected: &[&str], given_up: (u64, u64)) {
    let pieces =
        pieces.iter().map(|(direction, text, missing)| (*direction, text.as_bytes(), *missing)).collect();
    let (output, _) = run(&pieces, true);
    assert_eq!(lines(&output), expected);
    assert_eq!((output.abandoned, output.rejected), given_up);
}

#[test]
fn commands_and_replies() {
    check(
        &[
            (Request, "*2\r\n$3\r\nget\r\n$6\r\nsecret\r\n"),
            (Response, "$5\r\nhello\r\n"),
            (Request, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n"),
            (Response, "+OK\r\n"),
            (Request, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
            (Response, "$-1\r\n"),
            (Request, "*4\r\n$6\r\nLRANGE\r\n$1\r\na\r\n$1\r\n0\r\n$2\r\n-1\r\n"),
            (Response, "*3\r\n$7\r\nmessage\r\n*2\r\n:1\r\n*-1\r\n*0\r\n"),
            (Request, "*1\r\n$7\r\nMYTHING\r\n*2\r\n$6\r\nCLIENT\r\n$7\r\ngetname\r\n"),
            (Response, "-ERR unknown command 'MYTHING'\r\n_\r\n"),
        ],
        &[
            "GET: GET ? 25/11",
            "SET: SET ? ? 26/5",
            "GET: GET ? 20/5",
            "LRANGE: LRANGE ? ? ? 38/34",
            "OTHER: OTHER 17/32 ERR false",
            "CLIENT GETNAME: CLIENT GETNAME 29/3",
        ],
    );
}

#[test]
fn pipelines_transactions_and_databases() {
    check(
        &[
            (
                Request,
                "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n",
            ),
            (Response, "+OK\r\n+OK\r\n"),
            (Request, "*1\r\n$4\r\nEXEC\r\n"),
            (Response, "+QUEUED\r\n*1\r\n-WRONGTYPE Operation\r\n"),
            (Request, "*2\r\n$6\r\nSELECT\r\n$2\r\n99\r\nPING\r\n"),
            (Response, "-ERR DB index is out of range\r\n+PONG\r\n"),
            (Request, "*1\r\n$5\r\nRESET\r\n*1\r\n$4\r\nPING\r\n"),
            (Response, "+RESET\r\n-OOM command not allowed\r\n"),
        ],
        &[
            "SELECT: SELECT ? 23/5",
            "MULTI: MULTI 15/5 db 3",
            "INCR: INCR ? 21/9 db 3",
            "EXEC: EXEC 14/26 db 3",
            "SELECT: SELECT ? 24/31 db 3 ERR false",
            "PING: PING 6/7 db 3",
            "RESET: RESET 15/8 db 3",
            "PING: PING 14/26 OOM true",
        ],
    );
}

#[test]
fn channels() {
    let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
    let pushed = ">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$2\r\nhi\r\n";
    check(
        &[
            (Request, "*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n"),
            (Response, "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
            (Response, message),
            (Response, "*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"),
            (Response, message),
            (Request, "*1\r\n$4\r\nPING\r\n"),
            (Response, "*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
            (Request, "*1\r\n$11\r\nUNSUBSCRIBE\r\n*1\r\n$4\r\nPING\r\n"),
            (
                Response,
                "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n",
            ),
            (Response, "+PONG\r\n"),
            (Request, "*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$2\r\nhi\r\n"),
            (Response, ":1\r\n"),
        ],
        &[
            "receive:  32/none",
            "SUBSCRIBE: SUBSCRIBE ? ? 33/60",
            "receive:  32/none",
            "PING: PING 14/20",
            "UNSUBSCRIBE: UNSUBSCRIBE 22/33",
            "PING: PING 14/7",
            "PUBLISH: PUBLISH ? ? 32/4",
        ],
    );
    check(
        &[
            (
                Request,
                "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$10\r\nPSUBSCRIBE\r\n$1\r\n*\r\n*1\r\n$4\r\nPING\r\n",
            ),
            (Response, "|1\r\n+ttl\r\n:3\r\n%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n+proto\r\n:3\r\n"),
            (Response, ">3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n"),
            (Response, pushed),
            (Response, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n+PONG\r\n"),
        ],
        &["HELLO: HELLO ? 22/53", "PSUBSCRIBE: PSUBSCRIBE ? 28/32", "receive:  40/none", "PING: PING 14/7"],
    );
    // Joined in the middle.
    check(&[(Response, message), (Response, pushed)], &["receive:  32/none", "receive:  40/none"]);
}

#[test]
fn who_answers_nothing() {
    let reply = |mode: &str| format!("*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n${}\r\n{mode}\r\n", mode.len());
    let skip = format!("{}*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nTIME\r\n", reply("skip"));
    check(
        &[(Request, &skip), (Response, "*2\r\n:1\r\n:2\r\n")],
        &["CLIENT REPLY: CLIENT REPLY ? 37/none", "PING: PING 14/none", "TIME: TIME 14/12"],
    );
    let left = check(&[(Request, &reply("OFF"))], &["CLIENT REPLY: CLIENT REPLY ? 36/none"]);
    assert_eq!(left, Progress::Leave);
    let monitor =
        &[(Request, "*1\r\n$7\r\nMONITOR\r\n"), (Response, "+OK\r\n"), (Response, "+1 [0] \"SET\"\r\n")];
    assert_eq!(check(monitor, &["MONITOR: MONITOR 17/5"]), Progress::Leave);
    let left =
        check(&[(Request, "*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n")], &["PSYNC: PSYNC ? ? 30/none"]);
    assert_eq!(left, Progress::Leave);
    check(
        &[(Request, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nTIME\r\n"), (Response, "+PONG\r\n*2\r\n:1")],
        &["PING: PING 14/7", "TIME: TIME 14/none no_response true"],
    );
}

#[test]
fn holes() {
    // Within strings they are skipped.
    check_pieces(
        &[
            (Request, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\nabc", 99_999),
            (Response, "+OK\r\n", 0),
            (Request, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", 0),
            (Response, "$100000\r\nabc", 50_000),
            (Response, "abc", 49_996),
            (Request, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", 0),
            (Response, "$-1\r\n", 0),
        ],
        &["SET: SET ? ? 100031/5", "GET: GET ? 20/100011", "GET: GET ? 20/5"],
        (0, 0),
    );
    // The end of a long array is not seen: what is known of the reply is given when the client goes on.
    check_pieces(
        &[
            (Request, "*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n*1\r\n$4\r\nPING\r\n", 0),
            (Response, "*1000\r\n$1\r\na\r\n", 5000),
            (Response, "$1\r\na\r\n", 0),
            (Request, "*1\r\n$4\r\nTIME\r\n", 0),
            (Response, "*2\r\n:1\r\n:2\r\n", 0),
        ],
        &["KEYS: KEYS ? 21/5021 partial", "TIME: TIME 14/12"],
        (1, 0),
    );
    // The end of a command.
    check_pieces(
        &[
            (Request, "*5\r\n$4\r\nMSET\r\n$1\r\na\r\n", 5000),
            (Response, "+OK\r\n", 0),
            (Request, "*1\r\n$4\r\nTIME\r\n", 0),
            (Response, "*2\r\n:1\r\n:2\r\n", 0),
        ],
        &["MSET: MSET ? ? ? ? 5021/5 partial", "TIME: TIME 14/12"],
        (0, 0),
    );
    // Commands behind what was captured: the replies tell how many.
    check_pieces(
        &[
            (Request, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI", 32),
            (Response, "+PONG\r\n+PONG\r\n+PONG\r\n+PONG\r\n", 0),
            (Request, "*1\r\n$4\r\nTIME\r\n", 0),
            (Response, "*2\r\n:1\r\n:2\r\n", 0),
        ],
        &["PING: PING 14/7", "OTHER: OTHER 14/7 partial", "TIME: TIME 14/12"],
        (2, 0),
    );
    // Those that a full ring lost are counted by the connection.
    check_pieces(
        &[
            (Request, "*1\r\n$4\r\nPING\r\n", 0),
            (Request, "", 28),
            (Response, "+PONG\r\n+PONG\r\n+PONG\r\n", 0),
        ],
        &["PING: PING 14/7"],
        (0, 0),
    );
    // Between values.
    check_pieces(
        &[
            (Request, "*1\r\n$4\r\nTIME\r\n", 0),
            (Response, "", 12),
            (Request, "*1\r\n$4\r\nPING\r\n", 0),
            (Response, "+PONG\r\n", 0),
        ],
        &["TIME: TIME 14/12 partial", "PING: PING 14/7"],
        (0, 0),
    );
}

/// Behind commands that were not captured nobody knows which reply answers what is sent before all are answered.
#[test]
fn sent_ahead_behind_a_hole() {
    let (first, get, later) =
        ("*1\r\n$4\r\nPING\r\n", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", "*2\r\n$4\r\nINCR\r\n$1\r\nb\r\n");
    let batch = format!("{first}{get}");
    check_pieces(
        &[
            (Request, &batch, 60),
            (Response, "+PONG\r\n", 0),
            (Request, later, 0),
            (Response, "$1\r\nx\r\n:1\r\n:2\r\n:3\r\n", 0),
        ],
        &["PING: PING 14/7", "GET: GET ? 20/7"],
        (3, 0),
    );
    // A client that waits for all replies is read on.
    check_pieces(
        &[
            (Request, &batch, 30),
            (Response, "+PONG\r\n$1\r\nx\r\n:1\r\n", 0),
            (Request, later, 0),
            (Response, ":2\r\n", 0),
        ],
        &["PING: PING 14/7", "GET: GET ? 20/7", "INCR: INCR ? 21/4"],
        (1, 0),
    );
    // One that has sent ahead before may do so behind a hole too, though all is answered that was read.
    check_pieces(
        &[
            (Request, &batch, 0),
            (Response, "+PONG\r\n", 0),
            (Request, first, 0),
            (Response, "$1\r\nx\r\n+PONG\r\n", 0),
            (Request, &batch, 30),
            (Response, "+PONG\r\n$1\r\nx\r\n", 0),
            (Request, later, 0),
            (Response, ":1\r\n:2\r\n", 0),
        ],
        &["PING: PING 14/7", "GET: GET ? 20/7", "PING: PING 14/7", "PING: PING 14/7", "GET: GET ? 20/7"],
        (2, 0),
    );
}

/// A server reads what one buffer holds: the next message begins within a command whose begin was not captured.
#[test]
fn the_rest_of_a_command_behind_a_hole() {
    check_pieces(
        &[
            (Request, "*1\r\n$4\r\nPING\r\n", 40),
            (Response, "+PONG\r\n:1\r\n", 0),
            (Request, "INCR\r\n$1\r\nb\r\n*1\r\n$4\r\nTIME\r\n", 0),
            (Response, ":2\r\n*2\r\n:1\r\n:2\r\n", 0),
            (Request, "*1\r\n$4\r\nPING\r\n", 0),
            (Response, "+PONG\r\n", 0),
        ],
        &["PING: PING 14/7", "PING: PING 14/7"],
        (3, 0),
    );
    // The begin found no room in the ring: nothing but the reply tells of it.
    check_pieces(
        &[
            (Request, "*1\r\n$4\r\nPING\r\n", 0),
            (Response, "+PONG\r\n", 0),
            (Request, "", 16_384),
            (Request, "the rest\r\n", 0),
            (Response, "+OK\r\n", 0),
        ],
        &["PING: PING 14/7"],
        (1, 0),
    );
}

#[test]
fn what_makes_no_sense_is_rejected_until_the_turn() {
    check_pieces(
        &[
            (Request, "nonsense\r\n", 0),
            (Request, "*1\r\n$4\r\nPING\r\n", 0),
            (Response, "+PONG\r\n", 0),
            (Request, "*1\r\n$4\r\nTIME\r\n", 0),
            (Response, "*2\r\n:1\r\n:2\r\n", 0),
        ],
        &["TIME: TIME 14/12"],
        (0, 1),
    );
    let deep = "*1\r\n".repeat(DEPTH_MAX);
    let exact = format!("{deep}:1\r\n");
    check(&[(Request, "*1\r\n$4\r\nTIME\r\n"), (Response, &exact)], &["TIME: TIME 14/132"]);
    let deeper = format!("{deep}*1\r\n:1\r\n");
    check_pieces(
        &[(Request, "*1\r\n$4\r\nTIME\r\n", 0), (Response, &deeper, 0), (Request, "*1\r\n$4\r\nPING\r\n", 0)],
        &["TIME: TIME 14/4 partial", "PING: PING 14/none no_response true"],
        (0, 1),
    );
    // The end of a value that was joined.
    check_pieces(
        &[(Response, "lo\r\n", 0), (Request, "*1\r\n$4\r\nTIME\r\n", 0), (Response, "*2\r\n:1\r\n:2\r\n", 0)],
        &["TIME: TIME 14/12"],
        (0, 1),
    );
}

#[test]
fn too_many_pending() {
    let commands = "*1\r\n$4\r\nPING\r\n".repeat(PENDING_MAX + 2) + "*1\r\n$4\r\nTIME\r\n";
    let replies = "+PONG\r\n".repeat(PENDING_MAX + 2) + "*0\r\n";
    let pieces = vec![(Request, commands.as_bytes(), 0), (Response, replies.as_bytes(), 0)];
    let (output, _) = run(&pieces, true);
    assert_eq!((output.exchanges.len(), output.abandoned), (PENDING_MAX, 3));
    assert_eq!(lines(&output).last().map(String::as_str), Some("TIME: TIME 14/4"));
}

#[test]
fn times_are_those_of_the_first_and_last_bytes() {
    let mut redis = Redis::default();
    let mut output = Output::default();
    let stream = [(Request, "*1\r\n"), (Request, "$4\r\nPING\r\n"), (Response, "+PO"), (Response, "NG\r\n")];
    for (time_ns, (direction, text)) in (1..).zip(stream) {
        let mark = Mark { time_ns, ..Mark::default() };
        redis.take(
            direction,
            Piece { bytes: text.as_bytes(), missing: 0, is_turn: false, mark },
            &mut output,
        );
    }
    let exchange = &output.exchanges[0];
    let times = |extent: Extent| (extent.first.time_ns, extent.last.time_ns);
    assert_eq!((times(exchange.request), exchange.response.map(times)), ((1, 2), Some((3, 4))));
}

#[test]
fn first_bytes() {
    for (bytes, expected) in [
        ("*1\r\n$4\r\nPING\r\n", Some(Request)),
        ("*3\r\n$3\r\nset\r\n$1", Some(Request)),
        ("*3\r\n$7\r\nmessage\r\n$1", Some(Response)),
        ("*3\r\n$5\r\nhello\r\n", Some(Request)),
        ("*3\r\n$3\r\nfoo\r\n", None),
        ("*2\r\n:1\r\n", Some(Response)),
        ("$3\r\nfoo\r\n", Some(Response)),
        ("$3\r\nfoobar", None),
        ("%1\r\n+a", Some(Response)),
        (":12\r\n", Some(Response)),
        ("+OK\r\n", None),
        ("-ERR 'Unknown'\r\n", None),
        ("PING\r\n", None),
        ("GET / HTTP/1.1\r\n", None),
        ("", None),
        ("*", None),
    ] {
        assert_eq!(detect(bytes.as_bytes()), expected, "{bytes}");
    }
}

/// Recorded from Redis 7.0.15.
#[test]
fn real_streams() {
    check(
        &[
            (Request, "*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n"),
            (Response, "+OK\r\n"),
            (
                Request,
                "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*3\r\n$5\r\nLPUSH\r\n$1\r\na\r\n$1\r\nx\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
            ),
            (
                Response,
                "+OK\r\n:2\r\n-WRONGTYPE Operation against a key holding the wrong kind of value\r\n$1\r\n2\r\n",
            ),
            (Request, "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"),
            (
                Response,
                "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:4\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
            ),
            (Request, "*6\r\n$4\r\nHSET\r\n$1\r\nh\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$1\r\nw\r\n"),
            (Response, ":2\r\n"),
            (Request, "*2\r\n$7\r\nHGETALL\r\n$1\r\nh\r\n"),
            (Response, "%2\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$1\r\nw\r\n"),
            (Request, "PING\r\n"),
            (Response, "+PONG\r\n"),
            (
                Request,
                "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$2\r\nme\r\n*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$9\r\nmaxmemory\r\n*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$2\r\nhi\r\n*1\r\n$11\r\nUNSUBSCRIBE\r\n*1\r\n$4\r\nTIME\r\n",
            ),
            (
                Response,
                "+OK\r\n%1\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n:1\r\n>3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n*2\r\n$10\r\n1795693307\r\n$6\r\n799361\r\n",
            ),
            (
                Request,
                "*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n*3\r\n$4\r\nEVAL\r\n$46\r\nreturn{1,{2,\"x\"},redis.error_reply(\"MY1_err\")}\r\n$1\r\n0\r\n*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$3\r\n1-1\r\n$1\r\nf\r\n$1\r\nv\r\n*4\r\n$6\r\nXRANGE\r\n$1\r\ns\r\n$1\r\n-\r\n$1\r\n+\r\n*4\r\n$4\r\nZADD\r\n$1\r\nz\r\n$3\r\n1.5\r\n$1\r\nm\r\n*3\r\n$6\r\nZSCORE\r\n$1\r\nz\r\n$1\r\nm\r\n*1\r\n$5\r\nRESET\r\n*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n",
            ),
            (
                Response,
                "+OK\r\n+QUEUED\r\n*1\r\n$1\r\n2\r\n*3\r\n:1\r\n*2\r\n:2\r\n$1\r\nx\r\n-ERR MY1_err\r\n$3\r\n1-1\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n:1\r\n,1.5\r\n+RESET\r\n$1\r\nx\r\n",
            ),
        ],
        &[
            "SELECT: SELECT ? 23/5",
            "SET: SET ? ? 27/5 db 2",
            "INCR: INCR ? 21/4 db 2",
            "LPUSH: LPUSH ? ? 29/68 db 2 WRONGTYPE false",
            "GET: GET ? 20/7 db 2",
            "HELLO: HELLO ? 22/145 db 2",
            "HSET: HSET ? ? ? ? ? 49/4 db 2",
            "HGETALL: HGETALL ? 24/32 db 2",
            "PING: PING 6/7 db 2",
            "CLIENT SETNAME: CLIENT SETNAME ? 37/5 db 2",
            "CONFIG GET: CONFIG GET ? 40/26 db 2",
            "SUBSCRIBE: SUBSCRIBE ? 26/30 db 2",
            "receive:  32/none",
            "PUBLISH: PUBLISH ? ? 32/4 db 2",
            "UNSUBSCRIBE: UNSUBSCRIBE 22/33 db 2",
            "TIME: TIME 14/33 db 2",
            "MULTI: MULTI 15/5 db 2",
            "GET: GET ? 20/9 db 2",
            "EXEC: EXEC 14/11 db 2",
            "EVAL: EVAL ? ? 74/37 db 2",
            "XADD: XADD ? ? ? ? 44/9 db 2",
            "XRANGE: XRANGE ? ? ? 37/35 db 2",
            "ZADD: ZADD ? ? ? 37/4 db 2",
            "ZSCORE: ZSCORE ? ? 30/6 db 2",
            "RESET: RESET 15/8 db 2",
            "ECHO: ECHO ? 21/7",
        ],
    );
}

/// Any value of RESP3, as bytes.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let string = |kind: &'static str| {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(move |bytes| {
            [format!("{kind}{}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat()
        })
    };
    let fixed =
        prop::sample::select(vec!["_\r\n", "#t\r\n", ",1.5\r\n", "(123\r\n", "+OK\r\n", "-ERR x\r\n"]);
    let leaf = prop_oneof![
        string("$"),
        fixed.prop_map(|text| text.as_bytes().to_vec()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|all| [
                format!("*{}\r\n", all.len()).into_bytes(),
                all.concat()
            ]
            .concat()),
            // The library refuses what cannot be a key of a map: numbers will do.
            prop::collection::vec(inner, 0..4).prop_map(|all| {
                let pair =
                    |(index, value): (usize, &Vec<u8>)| [format!(":{index}\r\n").as_bytes(), value].concat();
                let pairs: Vec<_> = all.iter().enumerate().map(pair).collect();
                [format!("%{}\r\n", all.len()).into_bytes(), pairs.concat()].concat()
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Values end where a library says that they end.
    #[test]
    fn values_end_where_they_end(all in prop::collection::vec(values(), 1..6), cut in any::<prop::sample::Index>()) {
        let bytes = all.concat();
        let mut expected = Vec::new();
        let mut rest = &bytes[..];
        while let Ok(Some((_, length))) = redis_protocol::resp3::decode::complete::decode(rest) {
            expected.push(length as u64);
            rest = &rest[length..];
        }
        prop_assert!(rest.is_empty());
        let mut reader = Reader::default();
        let mut found = Vec::new();
        let (mut first, mut second) = bytes.split_at(cut.index(bytes.len() + 1));
        for piece in [&mut first, &mut second] {
            while let Step::Value(value) = reader.step(piece, Mark::default(), false, false) {
                found.push(value.extent.bytes);
            }
        }
        prop_assert_eq!(found, expected);
    }

    /// What is spoilt and still makes sense ends where a library says. That one takes any two bytes for the end of a bulk string, and
    /// parts of streams where none was begun: what is broken for us may be a value for it, but nothing that we wait for.
    #[test]
    fn spoilt_values_end_where_they_end(
        all in prop::collection::vec(values(), 1..6),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = all.concat();
        for (index, byte) in &spoilt {
            let index = index.index(bytes.len());
            if ![bytes[index], *byte].iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
                bytes[index] = *byte;
            }
        }
        let mut expected = Vec::new();
        let mut rest = &bytes[..];
        while let Ok(Some((_, length))) = redis_protocol::resp3::decode::complete::decode(rest) {
            expected.push(length as u64);
            rest = &rest[length..];
        }
        let mut reader = Reader::default();
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        let is_broken = loop {
            match reader.step(&mut rest, Mark::default(), false, false) {
                Step::Value(value) => found.push(value.extent.bytes),
                Step::More => break false,
                Step::Broken => break true,
            }
        };
        found.truncate(expected.len());
        if is_broken {
            expected.truncate(found.len());
        }
        prop_assert_eq!(found, expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn anything(pieces in prop::collection::vec((any::<bool>(), any::<bool>(), noise(), 0_u64..50), 0..30)) {
        let mut redis = Redis::default();
        let mut output = Output::default();
        for (is_request, is_turn, bytes, missing) in &pieces {
            let direction = if *is_request { Request } else { Response };
            let piece = Piece { bytes, missing: missing.saturating_sub(30), is_turn: *is_turn, mark: Mark::default() };
            redis.take(direction, piece, &mut output);
            let _ = detect(bytes);
            prop_assert!(redis.session.pending.len() <= PENDING_MAX);
            prop_assert!(size_of::<Redis>() <= CARRIED_BYTES_MAX);
        }
        redis.finish(Mark::default(), &mut output);
    }
}

/// Bytes that often make sense.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "*1\r\n",
        "*2\r\n",
        "$4\r\nPING\r\n",
        "$6\r\nSELECT\r\n",
        "$1\r\n1\r\n",
        "+OK\r\n",
        "-ERR\r\n",
        "%1\r\n",
        "|1\r\n",
        ">3\r\n",
        "$9\r\nsubscribe\r\n",
        "$7\r\nmessage\r\n",
        "*99999\r\n",
        "$9999\r\n",
        "PING\r\n",
        "\r\n",
        "*-1\r\n",
        "$9\r\nSUBSCRIBE\r\n",
        "$11\r\nunsubscribe\r\n",
        ":0\r\n",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat().into_bytes()),
    ]
}
