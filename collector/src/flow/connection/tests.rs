//! Connections whose messages come, come in part, or do not come: what is counted, and that nothing gets the response of another.

use collector_common::event::Head;
use collector_common::flow::{CloseRecord, MessageHead};
use zerocopy::FromZeros;

use super::super::fixture::opened;
use super::super::translations::Translations;
use super::*;
use crate::identity::{Choice, Facts, PeerEvent, PeerKind, PeerObject, Peers};
use crate::kernel::Route;

fn open(role: Role) -> Connection {
    let record = opened(5, [80, 5000], role);
    let subject = Subject::named("shop");
    let process = ProcessName { pid: 1, executable_name: "shop".into(), executable_path: None };
    Connection::new(&record, (Arc::new(subject), Arc::new(process)), true)
}

/// A message by its way, bytes, number in the connection, turns and bytes before it.
type Said = (Way, &'static [u8], u32, u32, u64);

fn say(connection: &mut Connection, said: Said, output: &mut Output) -> Verdict {
    say_after(connection, said, false, output)
}

fn say_after(
    connection: &mut Connection,
    (way, bytes, number, turns, position): Said,
    is_after_skip: bool,
    output: &mut Output,
) -> Verdict {
    let head = MessageHead {
        head: Head { kind: 0, record_bytes: 0, time_ns: u64::from(number) },
        connection: 5,
        position,
        length: bytes.len() as u32,
        captured: bytes.len() as u32,
        tgid: 1,
        tid: 1,
        number,
        turns,
        way: way as u16,
        is_after_skip: is_after_skip.into(),
        polls: 0,
        begun_ns: 0,
        times: [0; 6],
    };
    connection.take(&Message { head: &head, bytes }, output)
}

/// A connection in which this was said, and what came out of it.
fn talk(role: Role, said: &[Said]) -> (Connection, Output) {
    let mut connection = open(role);
    let mut output = Output::default();
    for message in said {
        let _verdict = say(&mut connection, *message, &mut output);
    }
    (connection, output)
}

/// Expects the exchanges that came out, those that were lost in the kernel, and the role at the end.
#[track_caller]
fn check(role: Role, said: &[Said], exchanges: usize, lost: u64, expected_role: Role) {
    let (mut connection, output) = talk(role, said);
    let found = (output.exchanges.len(), connection.take_lost_exchanges(), connection.role);
    assert_eq!(found, (exchanges, lost, expected_role));
}

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn the_first_bytes_tell_protocol_and_role() {
    use Way::{Received, Sent};
    check(Role::Unknown, &[(Received, GET, 1, 1, 0), (Sent, OK, 2, 2, 0)], 1, 0, Role::Server);
    check(Role::Unknown, &[(Sent, GET, 1, 1, 0), (Received, OK, 2, 2, 0)], 1, 0, Role::Client);
    // A server does not send requests.
    check(Role::Server, &[(Sent, GET, 1, 1, 0)], 0, 0, Role::Server);
}

#[test]
fn a_length_that_is_read_byte_by_byte_belongs_to_its_message() {
    use Way::{Received, Sent};
    let said: [Said; 5] = [
        (Received, b"*", 1, 1, 0),
        (Received, b"1", 2, 1, 1),
        (Received, b"\r\n$4\r\nP", 3, 1, 2),
        (Received, b"ING\r\n", 4, 1, 9),
        (Sent, b"+PONG\r\n", 5, 2, 0),
    ];
    check(Role::Server, &said, 1, 0, Role::Server);
    // Behind a hole nothing is joined.
    let [first, _, third, fourth, fifth] = said;
    check(Role::Server, &[first, third, fourth, fifth], 0, 0, Role::Server);
    // Nor over a turn.
    check(
        Role::Server,
        &[first, (Sent, b"+", 2, 2, 0), (Received, b"1\r\n$4\r\nPING\r\n", 3, 3, 1)],
        0,
        0,
        Role::Server,
    );
}

#[test]
fn what_the_kernel_lost_is_counted_by_its_turns() {
    use Way::{Received, Sent};
    let (request, response) = (GET.len() as u64, OK.len() as u64);
    let whole = [(Received, GET, 1, 1, 0), (Sent, OK, 2, 2, 0)];
    // The second exchange is missing as a whole.
    let third = [(Received, GET, 5, 5, 2 * request), (Sent, OK, 6, 6, 2 * response)];
    check(Role::Server, &[whole, third].concat(), 2, 1, Role::Server);
    // Of the second only the response came.
    check(Role::Server, &[&whole[..], &[(Sent, OK, 4, 4, response)]].concat(), 1, 1, Role::Server);
}

/// Words of four bytes, as lengths that are read by themselves, until nothing more is wanted.
#[test]
fn what_was_left_alone_has_lost_nothing() {
    let said: Vec<Said> = (1..=UNRECOGNISED_MAX + 1)
        .map(|number| {
            let way = if number % 2 == 1 { Way::Received } else { Way::Sent };
            (way, &b"\x01\x02\x03\x04"[..], number, number, u64::from((number - 1) / 2) * 4)
        })
        .collect();
    let (mut connection, output) = talk(Role::Server, &said);
    assert!(!connection.catch_up(500, 500));
    assert_eq!((output.exchanges.len(), connection.take_lost_exchanges()), (0, 0));
}

#[test]
fn a_response_that_was_lost_is_not_said_to_be_missing() {
    for (messages, exchanges, abandoned) in [(1, 1, 0), (2, 0, 1)] {
        let (mut connection, mut output) = talk(Role::Server, &[(Way::Received, GET, 1, 1, 0)]);
        let head = Head { kind: 0, record_bytes: 0, time_ns: 99 };
        let record =
            CloseRecord { head, connection: 5, messages, turns: messages, ..CloseRecord::new_zeroed() };
        connection.close(&record, &mut output);
        let found = (output.exchanges.len(), output.abandoned, connection.take_lost_exchanges());
        assert_eq!(found, (exchanges, abandoned, 0), "{messages} messages");
    }
}

#[test]
fn after_lost_responses_nothing_gets_that_of_another() {
    use Way::{Received, Sent};
    let (request, response) = (GET.len() as u64, OK.len() as u64);
    let asked = |index: u32| (Received, GET, 2 * index + 1, 2 * index + 1, u64::from(index) * request);
    let said = [asked(0), asked(1), asked(2), (Sent, OK, 6, 6, 2 * response)];
    let (_, output) = talk(Role::Server, &said);
    assert_eq!((output.exchanges.len(), output.abandoned), (1, 2));
    assert_eq!(output.exchanges[0].request.first.position, 2 * request);
}

/// The end of an answer was lost: the next answer does not go on with it.
#[test]
fn an_answer_that_was_cut_short_is_not_gone_on_with() {
    use Way::{Received, Sent};
    const QUERY: &[u8] = b"Q\0\0\0\x0dselect 1\0";
    const ANSWER: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    let (query, answer) = (QUERY.len() as u64, ANSWER.len() as u64);
    let whole = [(Sent, QUERY, 1, 1, 0), (Received, ANSWER, 2, 2, 0)];
    let cut_short = [(Sent, QUERY, 3, 3, query), (Received, &b"T\0\0\x01\x02\0\x0c"[..], 4, 4, answer)];
    let next = [(Sent, QUERY, 6, 5, 2 * query), (Received, ANSWER, 7, 6, answer + 300)];
    let (_, output) = talk(Role::Client, &[whole, cut_short, next].concat());
    assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (2, 1, 0));
}

#[test]
fn the_rest_of_a_response_whose_head_was_lost_is_counted_once() {
    use Way::{Received, Sent};
    let (_, output) = talk(Role::Server, &[(Received, GET, 1, 1, 0), (Sent, b"rows", 3, 2, 50)]);
    assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (0, 1, 0));
}

#[test]
fn the_rest_of_a_word_is_no_method() {
    use Way::{Received, Sent};
    let (request, response) = (GET.len() as u64, OK.len() as u64);
    let whole = [(Received, GET, 1, 1, 0), (Sent, OK, 2, 2, 0)];
    let rest = [(Received, &GET[1..], 4, 3, request + 1), (Sent, OK, 5, 4, response)];
    let (_, output) = talk(Role::Server, &[whole, rest].concat());
    assert_eq!((output.exchanges.len(), output.abandoned, output.rejected), (1, 0, 1));
}

#[test]
fn a_response_whose_rest_was_lost_does_not_end_with_the_next_one() {
    use Way::{Received, Sent};
    let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    let first = [(Received, GET, 1, 1, 0), (Sent, head, 2, 2, 0)];
    let second = [(Received, GET, 4, 3, GET.len() as u64), (Sent, OK, 5, 4, head.len() as u64 + 4)];
    let (_, output) = talk(Role::Server, &[first, second].concat());
    assert_eq!((output.exchanges.len(), output.abandoned), (1, 1));
    assert_eq!(output.exchanges[0].request.first.position, GET.len() as u64);
}

#[test]
fn a_connection_of_which_nothing_came_may_have_spoken() {
    for (unrecognised, turns, expected) in [(0, 0, 0), (0, 1, 1), (0, 2, 1), (0, 5, 3), (1, 5, 0)] {
        let garbage = b"\x01\x02garbage, longer than an opening";
        let said: Vec<Said> =
            (1..=unrecognised).map(|number| (Way::Received, &garbage[..], number, 1, 0)).collect();
        let (mut connection, mut output) = talk(Role::Server, &said);
        let head = Head { kind: 0, record_bytes: 0, time_ns: 99 };
        let messages = unrecognised + turns;
        let record = CloseRecord { head, connection: 5, messages, turns, ..CloseRecord::new_zeroed() };
        connection.close(&record, &mut output);
        assert_eq!(connection.take_lost_exchanges(), expected, "{unrecognised} came, {turns} turns");
    }
}

#[test]
fn what_was_lost_before_a_protocol_was_known_is_counted_once_it_is() {
    use Way::{Received, Sent};
    let (request, response) = (GET.len() as u64, OK.len() as u64);
    check(Role::Server, &[(Sent, OK, 2, 2, 0)], 0, 1, Role::Server);
    let third = [(Received, GET, 5, 5, 2 * request), (Sent, OK, 6, 6, 2 * response)];
    check(Role::Server, &third, 1, 2, Role::Server);
}

#[test]
fn requests_of_one_piece_have_places_of_their_own() {
    use Way::{Received, Sent};
    let requests: &[u8] = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
    let responses = [(Sent, OK, 2, 2, 0), (Sent, OK, 3, 2, OK.len() as u64)];
    let (_, output) = talk(Role::Server, &[&[(Received, requests, 1, 1, 0)], &responses[..]].concat());
    let places: Vec<_> = output.exchanges.iter().map(|exchange| exchange.request.first.position).collect();
    assert_eq!(places, [0, requests.len() as u64 / 2]);
}

#[test]
fn paths_of_unix_sockets() {
    let path = |bytes: &[u8]| path_of(bytes).to_string();
    assert_eq!(path(b"/run/redis.sock\0"), "/run/redis.sock");
    assert_eq!(path(b"/run/redis.sock"), "/run/redis.sock");
    assert_eq!(path(b"\0hidden"), "@hidden");
    assert_eq!(path(b""), "");
    assert_eq!(path(b"/run/\xff"), "/run/\u{fffd}");
}

#[test]
fn a_connection_of_no_protocol_is_left_alone() {
    let mut connection = open(Role::Server);
    let mut output = Output::default();
    let mut verdicts = Vec::new();
    for number in 1..=UNRECOGNISED_MAX + 3 {
        let said: Said = (Way::Received, b"\x01\x02garbage", number, 1, u64::from(number) * 9);
        verdicts.push(say(&mut connection, said, &mut output));
    }
    let nothing = Verdict::Want { sent_bytes: 0, received_bytes: 0 };
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == nothing).count(), 1);
    assert!(output.exchanges.is_empty());
}

proptest::proptest! {
    /// Whatever the kernel leaves out or loses of a talk, each exchange that was not left out comes out, or is counted as
    /// lost or broken.
    #[test]
    fn nothing_is_lost_without_a_count(
        // Of each exchange: whether it is left out, and which of its messages are lost.
        fates in proptest::collection::vec(
            (proptest::bool::weighted(0.4), proptest::bool::weighted(0.3), proptest::bool::weighted(0.3)),
            1..40,
        ),
        is_server: bool,
    ) {
        let (asks, answers) = match is_server {
            true => (Way::Received, Way::Sent),
            false => (Way::Sent, Way::Received),
        };
        let mut connection = open(if is_server { Role::Server } else { Role::Client });
        let mut output = Output::default();
        let (mut lost, mut number, mut exchanges, mut has_skipped) = (0, 0, 0, false);
        let mut is_recognised = false;
        for (index, (is_left_out, is_request_lost, is_response_lost)) in fates.iter().enumerate() {
            if *is_left_out && is_recognised {
                has_skipped = true;
                continue;
            }
            exchanges += 1;
            for (way, bytes, is_lost) in [(asks, GET, is_request_lost), (answers, OK, is_response_lost)] {
                number += 1;
                let is_after_skip = std::mem::take(&mut has_skipped);
                if !*is_lost {
                    let position = index as u64 * bytes.len() as u64;
                    let said = (way, bytes, number, number, position);
                    say_after(&mut connection, said, is_after_skip, &mut output);
                    lost += connection.take_lost_exchanges();
                    is_recognised = true;
                }
            }
        }
        let record = CloseRecord {
            head: Head { kind: 0, record_bytes: 0, time_ns: 99 },
            connection: 5,
            messages: number,
            turns: number,
            ..CloseRecord::new_zeroed()
        };
        connection.close(&record, &mut output);
        lost += connection.take_lost_exchanges();
        // Each has its own response.
        for exchange in &output.exchanges {
            let asked = exchange.request.first.position / GET.len() as u64;
            let answered = exchange.response.map(|response| response.first.position / OK.len() as u64);
            proptest::prop_assert_eq!(Some(asked), answered);
        }
        let found = output.exchanges.len() as u64 + output.abandoned + lost;
        proptest::prop_assert_eq!(
            found, exchanges, "{} out, {} abandoned, {} lost", output.exchanges.len(), output.abandoned, lost
        );
    }
}

fn peers() -> Peers {
    let mut peers = Peers::default();
    let objects = [(PeerKind::Service, "127.127.127.127", "db"), (PeerKind::Pod, "10.0.0.7", "db-0")];
    for (uid, (kind, address, name)) in (1..).zip(objects) {
        let facts = Facts { namespace: "shop".to_owned(), name: name.to_owned(), ..Facts::default() };
        let peer = Peer::of(kind, &facts, &Choice::default());
        let addresses = [address.parse().expect("an address")].into();
        peers.on_event(PeerEvent::Begin(kind), 0);
        peers.on_event(PeerEvent::Here(Box::new(PeerObject { uid, created_unix_s: 0, addresses, peer })), 0);
        peers.on_event(PeerEvent::Live(kind), 0);
    }
    peers
}

/// Expects who is called, of a connection to the IP of a Service that the node says goes to this address.
#[track_caller]
fn check_callee(role: Role, destination: Option<&str>, expected: &str) {
    let destination = destination.map(|address| address.parse().expect("an address"));
    let mut translations = Translations::by(Box::new(move |route: Route| {
        assert_eq!((route.is_datagram, route.to.to_string().as_str()), (false, "127.127.127.127:5000"));
        Ok(destination)
    }));
    let mut connection = open(role);
    for time_ns in [1, 2] {
        connection.find_peer(&peers(), &mut translations, time_ns);
    }
    let callee = connection.callee().map(|callee| &*callee.name);
    let translated = connection.translated().map(|ends| ends.local);
    let expected_address = destination.filter(|_| role != Role::Server);
    assert_eq!((callee, translated), (Some(expected), expected_address), "{role:?} {destination:?}");
}

#[test]
fn a_service_is_the_pod_behind_it() {
    check_callee(Role::Client, Some("10.0.0.7:5432"), "db-0");
    check_callee(Role::Unknown, Some("10.0.0.7:5432"), "db-0");
    // A pod that nobody knows, no translation, and who was called himself.
    check_callee(Role::Client, Some("10.0.0.8:5432"), "db");
    check_callee(Role::Client, None, "db");
    check_callee(Role::Server, Some("10.0.0.7:5432"), "db");
}

#[test]
fn what_was_not_asked_is_asked_with_a_later_exchange() {
    let mut translations =
        Translations::by(Box::new(|_| Ok(Some("10.0.0.7:5432".parse().expect("an address")))));
    let peers = peers();
    let mut connections: Vec<Connection> = (0..1_500).map(|_| open(Role::Client)).collect();
    let ask = |now_ns| {
        translations.turn(now_ns);
        connections.iter_mut().for_each(|connection| connection.find_peer(&peers, &mut translations, 1));
        connections.iter().filter(|connection| connection.backend().is_some()).count()
    };
    assert_eq!([1, 2, 1_000_000_000, 2_000_000_000].map(ask), [1_000, 1_000, 1_500, 1_500]);
}

/// A resolver keeps its socket while the pod behind the Service is replaced.
#[test]
fn a_datagram_socket_outlives_the_pod_behind_its_service() {
    let mut answers =
        [Ok(Some("10.0.0.7:53")), Ok(Some("10.0.0.8:53")), Ok(None), Err(()), Ok(Some("10.0.0.7:53"))]
            .into_iter();
    let mut translations = Translations::by(Box::new(move |route: Route| {
        assert!(route.is_datagram);
        let answer = answers.next().expect("a question for each exchange");
        let address = answer.map_err(|()| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
        Ok(address.map(|address| address.parse().expect("an address")))
    }));
    let mut record = opened(5, [5000, 53], Role::Client);
    record.ends.protocol = UDP;
    let owner = open(Role::Client);
    let mut connection = Connection::new(&record, (owner.subject, owner.process), true);
    let found = [1, 2, 3, 4, 5].map(|exchange_ns| {
        connection.find_peer(&peers(), &mut translations, exchange_ns);
        connection.callee().map(|callee| callee.name.to_string())
    });
    let expected = ["db-0", "db", "db", "db", "db-0"].map(|name| Some(name.to_owned()));
    assert_eq!(found, expected);
}
