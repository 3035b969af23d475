//! Sessions of PostgreSQL: recorded and built ones, whole and cut anywhere. Refuses: a server.

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::{backend, frontend};
use proptest::prelude::*;

use super::super::{CARRIED_BYTES_MAX, Exchange, PENDING_MAX, Positions, Value};
use super::recorded::{PGBENCH, PSQL};
use super::statements::STATEMENTS_MAX;
use super::*;

use Direction::{Request, Response};

type Stream = Vec<(Direction, Vec<u8>)>;

/// A name, the bytes of request and response, attributes and failure: what is known of an exchange in one line.
fn line(exchange: &Exchange) -> String {
    let attribute = |key: &str| {
        let found = exchange.attributes.iter().find(|attribute| attribute.key == key);
        found.map_or(String::new(), |found| match &found.value {
            Value::Text(text) => format!(" [{text}]"),
            Value::Integer(number) => format!(" {number} rows"),
            Value::Texts(_) => panic!("{key} has several values"),
        })
    };
    let response = exchange.response.map_or("none".to_owned(), |response| response.bytes.to_string());
    let failure = exchange.failure.as_ref();
    let failure =
        failure.map_or(String::new(), |failure| format!(" {} {}", failure.kind, failure.is_servers));
    let partial = if exchange.is_partial { " partial" } else { "" };
    let (text, rows) = (attribute("db.query.text"), attribute("db.response.returned_rows"));
    format!("{}{text} {}/{response}{rows}{failure}{partial}", exchange.name, exchange.request.bytes)
}

fn run<'a>(pieces: impl IntoIterator<Item = (Direction, &'a [u8], u64)>) -> (Output, Progress) {
    let mut postgres = Postgres::default();
    let mut output = Output::default();
    let (mut previous, mut positions) = (None, Positions::default());
    for (direction, bytes, missing) in pieces {
        let is_turn = previous.replace(direction) != Some(direction);
        let position = positions.next(direction, bytes.len() as u64 + missing);
        let mark = Mark { position, ..Mark::default() };
        let piece = Piece { bytes, missing, is_turn, mark };
        if postgres.take(direction, piece, &mut output) == Progress::Leave {
            Positions::keep_requests(&mut output);
            return (output, Progress::Leave);
        }
    }
    postgres.finish(Mark::default(), &mut output);
    Positions::keep_requests(&mut output);
    (output, Progress::More)
}

fn whole(stream: &Stream) -> Vec<(Direction, &[u8], u64)> {
    stream.iter().map(|(direction, bytes)| (*direction, &bytes[..], 0)).collect()
}

/// Checks a stream, whole, cut anywhere, and byte by byte.
fn check(stream: &Stream, expected: &[&str]) -> Progress {
    let (output, progress) = run(whole(stream));
    assert_eq!(output.exchanges.iter().map(line).collect::<Vec<_>>(), expected);
    assert_eq!((output.rejected, output.abandoned), (0, 0));
    for (index, (direction, bytes)) in stream.iter().enumerate() {
        for cut in 0..=bytes.len() {
            let mut pieces = whole(stream);
            pieces.splice(index..=index, [(*direction, &bytes[..cut], 0), (*direction, &bytes[cut..], 0)]);
            assert_eq!(run(pieces).0.exchanges, output.exchanges, "cut {index} at {cut}");
        }
    }
    let single =
        stream.iter().flat_map(|(direction, bytes)| bytes.chunks(1).map(|byte| (*direction, byte, 0)));
    assert_eq!(run(single).0.exchanges, output.exchanges);
    progress
}

/// Checks pieces with holes, and how much was given up and rejected.
fn check_pieces(pieces: &[(Direction, Vec<u8>, u64)], expected: &[&str], given_up: (u64, u64)) {
    let (output, _) =
        run(pieces.iter().map(|(direction, bytes, missing)| (*direction, &bytes[..], *missing)));
    assert_eq!(output.exchanges.iter().map(line).collect::<Vec<_>>(), expected);
    assert_eq!((output.abandoned, output.rejected), given_up);
}

/// What a client sends, written by a library: `Q text`, `P name text`, `B name`, `B name size`, `E`, `D name`, `C name`, `S`,
/// `H`, `c`, `X`.
fn client(messages: &[&str]) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    for message in messages {
        let (kind, rest) = message.split_once(' ').unwrap_or((message, ""));
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            "Q" => frontend::query(rest, &mut buffer).unwrap(),
            "P" => frontend::parse(name, text, [], &mut buffer).unwrap(),
            "B" => {
                let size = text.parse().unwrap_or(3_usize);
                let value = |size: usize, buffer: &mut BytesMut| {
                    buffer.extend_from_slice(&vec![b'v'; size]);
                    Ok(IsNull::No)
                };
                let bound = frontend::bind("", name, [1], [size], value, [1], &mut buffer);
                assert!(bound.is_ok());
            }
            "E" => frontend::execute("", 0, &mut buffer).unwrap(),
            "D" => frontend::describe(b'S', name, &mut buffer).unwrap(),
            "C" => frontend::close(b'S', name, &mut buffer).unwrap(),
            "S" => frontend::sync(&mut buffer),
            "H" => frontend::flush(&mut buffer),
            "c" => frontend::copy_done(&mut buffer),
            "X" => frontend::terminate(&mut buffer),
            _ => panic!("{kind}"),
        }
    }
    buffer.to_vec()
}

/// What a server sends: a type and a body, in which `_` is NUL.
fn server(messages: &[&str]) -> Vec<u8> {
    let message = |message: &&str| {
        let (kind, body) = message.split_at(1);
        let body = body.replace('_', "\0");
        [kind.as_bytes(), &(body.len() as u32 + 4).to_be_bytes(), body.as_bytes()].concat()
    };
    messages.iter().flat_map(message).collect()
}

fn asks(messages: &[&str]) -> (Direction, Vec<u8>) {
    (Request, client(messages))
}

fn says(messages: &[&str]) -> (Direction, Vec<u8>) {
    (Response, server(messages))
}

#[test]
fn real_sessions() {
    let stream = |recorded: &[(Direction, &[u8])]| {
        recorded.iter().map(|(direction, bytes)| (*direction, bytes.to_vec())).collect::<Stream>()
    };
    check(
        &stream(PSQL),
        &[
            "CREATE TABLE orders [CREATE TABLE orders(id int primary key, name text);] 57/24",
            "BEGIN [BEGIN;] 12/17",
            "INSERT orders [INSERT INTO orders VALUES (?,?);] 48/22",
            "COMMIT [COMMIT;] 13/18",
            "SELECT orders [SELECT * FROM orders WHERE name = ?;] 44/88 1 rows",
            "SELECT [SELECT nonsense;] 22/114 42703 false",
            "SELECT SELECT SELECT [SELECT ?; SELECT ?; SELECT ?/?;] 39/192 2 rows 22012 false",
            "COPY orders [COPY orders FROM STDIN;] 29/30",
            "COPY orders [COPY orders TO STDOUT;] 28/71",
        ],
    );
    let transaction = [
        "SELECT orders [SELECT name FROM orders WHERE id = ?;] 35/61 1 rows",
        "UPDATE orders [UPDATE orders SET name = ? WHERE id = ?;] 35/24",
        "SELECT orders [SELECT count(*) FROM orders;] 40/68 1 rows",
        "DELETE orders [DELETE FROM orders WHERE id = ?;] 40/30",
    ];
    check(&stream(PGBENCH), &[transaction, transaction].concat());
}

#[test]
fn simple_queries() {
    check(
        &vec![
            asks(&["Q SELECT a FROM t WHERE b = 'secret'"]),
            says(&["T____", "D__"]),
            says(&["D__", "CSELECT 2_", "ZI"]),
            asks(&["Q "]),
            says(&["I", "ZI"]),
            asks(&["Q BEGIN; SELECT 1; SELECT 2"]),
            says(&["CBEGIN_", "T__", "CSELECT 1_", "Nx_", "T__", "CSELECT 4_", "ZT"]),
            asks(&["Q frob 'secret'"]),
            says(&["ESERROR_VERROR_C42601_Mnear \"secret\"__", "ZE"]),
            says(&["Ax", "Sa_b_"]),
        ],
        &[
            "SELECT t [SELECT a FROM t WHERE b = ?] 40/43 2 rows",
            "postgresql 6/11",
            "BEGIN SELECT SELECT [BEGIN; SELECT ?; SELECT ?] 31/66 5 rows",
            "postgresql [frob ?] 19/48 42601 false",
        ],
    );
    check(&vec![asks(&["Q SELECT 1"]), says(&["ESFATAL_C57P01__"])], &["SELECT [SELECT ?] 14/20 57P01 true"]);
    check(
        &vec![asks(&["Q SELECT 1"]), says(&["T__"])],
        &["SELECT [SELECT ?] 14/none no_response true partial"],
    );
}

#[test]
fn prepared_statements() {
    check(
        &vec![
            asks(&["P s SELECT a FROM t WHERE b = $1", "D s", "S"]),
            says(&["1", "t__", "T__", "ZI"]),
            asks(&["B s", "E", "S"]),
            says(&["2", "D__", "CSELECT 1_", "ZI"]),
            asks(&["P  SELECT 2", "B ", "D ", "E", "S"]),
            says(&["1", "2", "T__", "s", "ZI"]),
            asks(&["C s", "S"]),
            says(&["3", "ZI"]),
            asks(&["B s", "E", "S"]),
            says(&["ESERROR_C26000__", "ZI"]),
            asks(&["P  SELECT nonsense", "D ", "S"]),
            says(&["ESERROR_C42703__", "ZI"]),
        ],
        &[
            "SELECT t [SELECT a FROM t WHERE b = $1] 40/32 1 rows",
            "SELECT [SELECT ?] 63/28",
            "postgresql 40/26 26000 false",
            "SELECT [SELECT nonsense] 36/26 42703 false",
        ],
    );
    // The error comes before the client goes on.
    check(
        &vec![
            asks(&["P  SELECT nonsense", "D ", "H"]),
            says(&["ESERROR_C42703__"]),
            asks(&["S"]),
            says(&["ZI"]),
            asks(&["Q SELECT 1"]),
            says(&["CSELECT 1_", "ZI"]),
        ],
        &["SELECT [SELECT nonsense] 31/20 42703 false", "SELECT [SELECT ?] 14/20 1 rows"],
    );
}

#[test]
fn pipelines() {
    let prepare = asks(&["P a SELECT 1 FROM a", "P b UPDATE b SET c = 2", "S"]);
    check(
        &vec![
            prepare.clone(),
            says(&["1", "1", "ZI"]),
            asks(&["B a", "E", "B b", "E", "B a", "E", "S", "B b", "E", "S"]),
            says(&["2", "CSELECT 1_", "2", "ESERROR_C23505__", "ZI", "2", "CUPDATE 1_", "ZI"]),
            // Sync comes late.
            asks(&["B a", "E", "H"]),
            says(&["2", "CSELECT 3_"]),
            asks(&["B b", "E", "H"]),
            says(&["2", "ESERROR_C57014__"]),
            asks(&["B a", "E", "S", "Q SELECT 7"]),
            says(&["ZI", "CSELECT 1_", "ZI"]),
            // A constraint fails as the transaction is committed.
            asks(&["B b", "E", "S"]),
            says(&["2", "CUPDATE 1_", "ESERROR_C23503__", "ZI"]),
        ],
        &[
            "SELECT a [SELECT ? FROM a] 35/19 1 rows",
            "UPDATE b [UPDATE b SET c = ?] 35/31 23505 false",
            "UPDATE b [UPDATE b SET c = ?] 40/25",
            "SELECT a [SELECT ? FROM a] 35/19 3 rows",
            "UPDATE b [UPDATE b SET c = ?] 35/25 57014 true",
            "SELECT [SELECT ?] 14/20 1 rows",
            "UPDATE b [UPDATE b SET c = ?] 40/45 23503 false",
        ],
    );
}

#[test]
fn copies() {
    let copied = || (Request, [&b"d\0\0\0\x0ba\tb\t\n\0\0"[..], &client(&["c"])].concat());
    check(
        &vec![
            asks(&["Q COPY t FROM STDIN"]),
            says(&["G___"]),
            copied(),
            says(&["CCOPY 1_", "ZI"]),
            // The first Sync is ignored.
            asks(&["P  COPY t FROM STDIN", "B ", "E", "S"]),
            says(&["1", "2", "G___"]),
            copied(),
            asks(&["S"]),
            says(&["CCOPY 1_", "ZI"]),
            asks(&["Q COPY t TO STDOUT"]),
            says(&["H___", "dabc", "dabc", "c", "CCOPY 2_", "ZI"]),
        ],
        &[
            "COPY t [COPY t FROM STDIN] 23/26",
            "COPY t [COPY t FROM STDIN] 70/36",
            "COPY t [COPY t TO STDOUT] 22/47",
        ],
    );
    let replication = vec![asks(&["Q START_REPLICATION SLOT s LOGICAL 0/0"]), says(&["W___", "dabc"])];
    let expected = ["START_REPLICATION [START_REPLICATION SLOT s LOGICAL ?/?] 42/8"];
    assert_eq!(check(&replication, &expected), Progress::Leave);
}

#[test]
fn beginnings() {
    let mut startup = BytesMut::new();
    frontend::startup_message([("user", "bob"), ("database", "shop")], &mut startup).unwrap();
    let mut encryption = BytesMut::new();
    frontend::ssl_request(&mut encryption);
    let mut cancel = BytesMut::new();
    frontend::cancel_request(1, 2, &mut cancel);
    for begun in [&startup, &encryption, &cancel] {
        assert_eq!(detect(begun), Some(Request));
    }
    let stream = vec![
        (Request, encryption.to_vec()),
        (Response, b"N".to_vec()),
        (Request, startup.to_vec()),
        says(&["R____", "Sa_b_", "K________", "ZI"]),
        asks(&["Q SELECT 1"]),
        says(&["CSELECT 1_", "ZI"]),
    ];
    check(&stream, &["SELECT [SELECT ?] 14/20 1 rows"]);
    let (output, _) = run(whole(&stream));
    let database = output.exchanges[0].attributes.iter().find(|attribute| attribute.key == "db.namespace");
    assert_eq!(database.map(|database| &database.value), Some(&Value::Text("shop".into())));
    let encrypted =
        vec![(Request, encryption.to_vec()), (Response, b"S".to_vec()), (Request, b"\x16\x03".to_vec())];
    assert_eq!(check(&encrypted, &[]), Progress::Leave);
    assert_eq!(check(&vec![(Request, cancel.to_vec())], &["CANCEL 16/none"]), Progress::Leave);
}

#[test]
fn holes() {
    let query = || client(&["Q SELECT a FROM t"]);
    let answered = || server(&["CSELECT 1_", "ZI"]);
    // Within messages they are skipped; a text that is not whole says so.
    let long = client(&[&format!("Q SELECT a FROM t WHERE b = '{}'", "x".repeat(500))]);
    check_pieces(
        &[
            (Request, long[..60].to_vec(), long.len() as u64 - 60),
            (Response, b"T\0\0\x10\0".to_vec(), 4092),
            (Response, [b"D\0\0\x10\0".to_vec(), vec![0; 1000]].concat(), 3000),
            (Response, [vec![0; 92], answered()].concat(), 0),
            (Request, query(), 0),
            (Response, answered(), 0),
        ],
        &[
            "SELECT t [SELECT a FROM t WHERE b = ?…] 534/8214 1 rows",
            "SELECT t [SELECT a FROM t] 21/20 1 rows",
        ],
        (0, 0),
    );
    // The end of the rows is not seen, or only that the server is ready.
    for (last, bytes) in [(b"xx".to_vec(), 9015), (server(&["CSELECT 9_", "ZI"]), 9033)] {
        check_pieces(
            &[
                (Request, query(), 0),
                (Response, server(&["T____"]), 9004),
                (Response, last, 0),
                (Request, query(), 0),
                (Response, answered(), 0),
            ],
            &[
                &format!("SELECT t [SELECT a FROM t] 21/{bytes} partial"),
                "SELECT t [SELECT a FROM t] 21/20 1 rows",
            ],
            (0, 0),
        );
    }
    // A large value hides what comes after it.
    let bound = client(&["P  INSERT INTO t VALUES ($1)", "B  9000", "E", "S"]);
    check_pieces(
        &[
            (Request, bound[..200].to_vec(), bound.len() as u64 - 200),
            (Response, server(&["1", "2", "CINSERT 0 1_", "ZI"]), 0),
            (Request, query(), 0),
            (Response, answered(), 0),
        ],
        &["INSERT t [INSERT INTO t VALUES ($1)] 9055/32 partial", "SELECT t [SELECT a FROM t] 21/20 1 rows"],
        (0, 0),
    );
}

#[test]
fn joined_in_the_middle() {
    check_pieces(
        &[
            (Response, b"Dnonsense".to_vec(), 0),
            (Request, client(&["Q SELECT 1"]), 0),
            (Response, server(&["CSELECT 1_", "ZI"]), 0),
            (Request, b"nonsense".to_vec(), 0),
            (Request, client(&["Q SELECT 1"]), 0),
            (Response, server(&["CSELECT 1_", "ZI"]), 0),
            (Request, client(&["Q SELECT 2"]), 0),
            (Response, b"nonsense".to_vec(), 0),
        ],
        &["SELECT [SELECT ?] 14/20 1 rows", "SELECT [SELECT ?] 14/8 partial"],
        (0, 3),
    );
}

#[test]
fn bounds() {
    let count = PENDING_MAX + 10;
    let mut stream = vec![asks(&vec!["Q SELECT 1"; count]), says(&vec!["ZI"; count])];
    stream.extend([asks(&["Q SELECT 2"]), says(&["CSELECT 5_", "ZI"])]);
    let (output, _) = run(whole(&stream));
    assert_eq!((output.exchanges.len(), output.abandoned), (PENDING_MAX + 1, 10));
    assert_eq!(output.exchanges.last().map(line).unwrap(), "SELECT [SELECT ?] 14/20 5 rows");
    let run_twice = ["B s", "E"].repeat(count);
    let mut answers = ["2", "CSELECT 1_"].repeat(count);
    answers.push("ZI");
    let stream = vec![asks(&run_twice), asks(&["S"]), says(&answers)];
    let (output, _) = run(whole(&stream));
    assert_eq!((output.exchanges.len() as u64, output.abandoned), (PENDING_MAX as u64 - 1, 11));

    let mut postgres = Postgres::default();
    for number in 0..STATEMENTS_MAX * 2 {
        let bytes = client(&[&format!("P s{number} SELECT {number}"), "B s0", "S"]);
        let piece = Piece { bytes: &bytes, missing: 0, is_turn: false, mark: Mark::default() };
        postgres.take(Request, piece, &mut Output::default());
    }
    let (_, statements) = postgres.session.sizes();
    assert_eq!(statements, STATEMENTS_MAX);
    // What is used is kept.
    let bytes = client(&["B s0", "E", "S"]);
    let mut output = Output::default();
    let piece = Piece { bytes: &bytes, missing: 0, is_turn: false, mark: Mark::default() };
    postgres.take(Request, piece, &mut output);
    postgres.finish(Mark::default(), &mut output);
    assert!(output.exchanges.last().is_some_and(|exchange| exchange.name == "SELECT"));
}

#[test]
fn first_bytes() {
    for (_, bytes) in PSQL.iter().chain(PGBENCH).filter(|(direction, _)| *direction == Request) {
        let is_told = !matches!(bytes.first(), Some(b'X' | b'd'));
        assert_eq!(detect(bytes), is_told.then_some(Request), "{}", String::from_utf8_lossy(bytes));
    }
    for (_, bytes) in PSQL.iter().chain(PGBENCH).filter(|(direction, _)| *direction == Response) {
        let is_told = !matches!(bytes.first(), Some(b'N' | b'G' | b'H'));
        assert_eq!(detect(bytes), is_told.then_some(Response), "{}", String::from_utf8_lossy(bytes));
    }
    // A request of Kafka for metadata, TLS, HTTP, and other texts.
    let others: [&[u8]; 7] = [
        b"\0\0\0\x14\0\x03\0\0\0\0\0\x01\0\x02ab\0\0\0\0",
        b"\x16\x03\x01\0\xa5\x01",
        b"PUT / HTTP/1.1\r\n",
        b"QUIT\r\n",
        b"EHLO example.org\r\n",
        b"",
        b"Q",
    ];
    for bytes in others {
        assert_eq!(detect(bytes), None, "{}", String::from_utf8_lossy(bytes));
    }
}

/// A library finds the same messages.
#[test]
fn a_library_agrees() {
    for (_, bytes) in PSQL.iter().chain(PGBENCH).filter(|(direction, _)| *direction == Response) {
        let mut buffer = BytesMut::from(*bytes);
        let mut lengths = Vec::new();
        let mut before = buffer.len();
        while let Ok(Some(message)) = backend::Message::parse(&mut buffer) {
            if let backend::Message::ErrorResponse(_) = message {
                assert_eq!(bytes[bytes.len() - before], b'E');
            }
            lengths.push((before - buffer.len()) as u64);
            before = buffer.len();
        }
        let mut reader = Reader::new(Response);
        let mut rest = *bytes;
        let mut found = Vec::new();
        while let Step::Message(message) = reader.step(&mut rest, Mark::default()) {
            found.push(message.extent.bytes);
        }
        if bytes != b"N" {
            // The library gives rows and copied data one by one, too.
            assert_eq!(found, lengths);
        }
    }
}

/// Messages that often make sense.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let requests = [
        "Q SELECT 'x",
        "P s SELECT 1",
        "P  SELECT 2",
        "B s",
        "B s 99",
        "E",
        "D s",
        "C s",
        "S",
        "H",
        "c",
        "X",
    ];
    let responses = [
        "1",
        "2",
        "T__",
        "D__",
        "CSELECT 1_",
        "ESERROR_C42601__",
        "ZI",
        "G__",
        "I",
        "s",
        "n",
        "A_",
        "3",
        "W_",
    ];
    let asked = prop::sample::select(requests.to_vec()).prop_map(|message| client(&[message]));
    let said = prop::sample::select(responses.to_vec()).prop_map(|message| server(&[message]));
    let startup = Just(b"\0\0\0\x08\x04\xd2\x16/".to_vec());
    let any_bytes = || prop::collection::vec(any::<u8>(), 0..12);
    prop::collection::vec(prop_oneof![6 => asked, 6 => said, 1 => startup, 1 => any_bytes()], 0..12)
        .prop_map(|messages| messages.concat())
}

/// Lengths of the messages of a server, as a library finds them.
fn lengths_by_library(bytes: &[u8]) -> Vec<u64> {
    let mut buffer = BytesMut::from(bytes);
    let mut lengths = Vec::new();
    let mut before = buffer.len();
    while let Ok(Some(_)) = backend::Message::parse(&mut buffer) {
        lengths.push((before - buffer.len()) as u64);
        before = buffer.len();
    }
    lengths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Messages that are spoilt and still make sense to a library are as long as that one says.
    #[test]
    fn a_library_agrees_on_spoilt_messages(
        bytes in prop::sample::select(PSQL.iter().chain(PGBENCH).filter(|(direction, bytes)| *direction == Response
            && *bytes != b"N").map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>()),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes;
        for (index, byte) in &spoilt {
            let index = index.index(bytes.len());
            bytes[index] = *byte;
        }
        let expected = lengths_by_library(&bytes);
        let mut reader = Reader::new(Response);
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while let Step::Message(message) = reader.step(&mut rest, Mark::default()) {
            found.push(message.extent.bytes);
        }
        found.truncate(expected.len());
        prop_assert_eq!(found, expected, "{}", bytes.escape_ascii());
    }

    #[test]
    fn anything(
        pieces in prop::collection::vec((any::<bool>(), any::<bool>(), noise(), 0_u64..60, any::<u8>()), 0..20),
    ) {
        let mut postgres = Postgres::default();
        let mut output = Output::default();
        for (is_request, is_turn, bytes, missing, cut) in &pieces {
            let direction = if *is_request { Request } else { Response };
            let bytes = &bytes[..bytes.len().saturating_sub(usize::from(*cut) / 16)];
            let missing = missing.saturating_sub(40);
            let piece = Piece { bytes, missing, is_turn: *is_turn, mark: Mark::default() };
            let _ = detect(bytes);
            postgres.take(direction, piece, &mut output);
            prop_assert!(postgres.session.sizes().0 <= PENDING_MAX);
            prop_assert!(postgres.requests.carried_bytes() <= CARRIED_BYTES_MAX);
            prop_assert!(postgres.responses.carried_bytes() <= CARRIED_BYTES_MAX);
        }
        postgres.finish(Mark::default(), &mut output);
        for exchange in &output.exchanges {
            prop_assert!(exchange.request.bytes > 0, "{exchange:?}");
        }
    }
}
