//! Many connections at once: what they take together is bounded, and what is dropped is counted.

use collector_common::event::Head;
use collector_common::flow::{MessageHead, Way};
use zerocopy::FromZeros;

use super::*;
use crate::identity::Names;
use fixture::opened;
use kernel_state::{COUNT_NS, STREAM_IDLE_NS, UNOWNED_NS};
use state::STATE_BYTES_MAX;

fn flows(ledger: &Arc<Ledger>) -> Flows {
    let sampling = SamplingOptions { ratio: 1.0, per_second_max: u32::MAX, slow_ns: u64::MAX };
    let options =
        FlowOptions { sampling, exchanges_per_second_max: u64::MAX, counts_polls: true, node_network: None };
    Flows::new(&options, 0, 0, Arc::clone(ledger))
}

fn open(flows: &mut Flows, number: u64) {
    open_as(flows, number, Role::Client);
}

fn open_as(flows: &mut Flows, number: u64, role: Role) {
    take_up(flows, &opened(number, [5000, 5432], role));
}

/// A connection that says nothing of its end to the kernel.
fn open_datagrams(flows: &mut Flows, number: u64) {
    let mut record = opened(number, [5000, 53], Role::Client);
    record.ends.protocol = connection::UDP;
    take_up(flows, &record);
}

fn take_up(flows: &mut Flows, record: &OpenRecord) {
    let number = record.connection;
    let record = OpenRecord { sequence: number, key: number, ..*record };
    flows.connections.insert(number, Connection::new(&record, flows.nobody.clone(), true));
}

fn send(flows: &mut Flows, connection: u64, bytes: &[u8], number: u32, position: u64) {
    say(flows, connection, (Way::Sent, 1, 1), bytes, number, position);
}

/// Which way, by which thread, and after how many turns.
type Moved = (Way, u32, u32);

fn say(
    flows: &mut Flows,
    connection: u64,
    (way, tid, turns): Moved,
    bytes: &[u8],
    number: u32,
    position: u64,
) {
    let head = MessageHead {
        head: Head { kind: 0, record_bytes: 0, time_ns: u64::from(number) },
        connection,
        position,
        length: bytes.len() as u32,
        captured: bytes.len() as u32,
        tgid: 1,
        tid,
        number,
        turns,
        way: way as u16,
        is_after_skip: 0,
        polls: 0,
        begun_ns: 0,
        times: [0; 6],
    };
    flows.on_message(&Message { head: &head, bytes });
}

/// A statement of PostgreSQL that is prepared under a name of its own, of some hundred bytes.
fn prepare(number: u32) -> Vec<u8> {
    let columns: Vec<String> = (0..60).map(|column| format!("column_{number}_{column}")).collect();
    let body = format!("s{number}\0select {} from shelf\0\0\0", columns.join(", "));
    [&b"P"[..], &(body.len() as u32 + 4).to_be_bytes(), body.as_bytes()].concat()
}

/// Ten thousand connections that prepare more than there is room for, and all of them ask something that nobody answers.
#[test]
fn states_of_many_connections_are_bounded() {
    const CONNECTIONS: u64 = 10_000;
    const STATEMENTS: u32 = 5;
    let ledger = Arc::new(Ledger::default());
    let mut flows = flows(&ledger);
    let startup = b"\0\0\0\x10\0\x03\0\0user\0a\0\0";
    let startup = [&(startup.len() as u32).to_be_bytes()[..], &startup[4..]].concat();
    let question = b"Q\0\0\0\x0dselect 1\0";
    let statements: Vec<Vec<u8>> = (0..STATEMENTS).map(prepare).collect();
    for connection in 1..=CONNECTIONS {
        open(&mut flows, connection);
        let (mut number, mut position) = (0, 0);
        for bytes in std::iter::once(&startup).chain(&statements).map(Vec::as_slice).chain([&question[..]]) {
            number += 1;
            send(&mut flows, connection, bytes, number, position);
            position += bytes.len() as u64;
        }
        assert!(flows.states.sum_bytes() <= STATE_BYTES_MAX);
    }
    let dropped = flows.states.dropped;
    assert!(dropped > CONNECTIONS / 10 && dropped < CONNECTIONS, "{dropped}");
    // What waited in a dropped state is counted, and nothing else is lost.
    let waiting: Vec<u64> = flows.connections.keys().copied().collect();
    let broken = |ledger: &Ledger| {
        let account = ledger.account(Signal::Span);
        account
            .lost
            .iter()
            .filter(|(reason, _)| *reason == LossReason::ExchangeBroken)
            .map(|loss| loss.1)
            .sum::<u64>()
    };
    assert_eq!(broken(&ledger), dropped);
    waiting.into_iter().for_each(|number| flows.forget_state(number));
    assert_eq!(broken(&ledger), CONNECTIONS);
}

/// How many exchanges were lost because the kernel's ring was full.
fn ring_full(ledger: &Ledger) -> u64 {
    let lost = ledger.account(Signal::Span).lost;
    lost.iter().filter(|(reason, _)| *reason == LossReason::RingFull).map(|loss| loss.1).sum()
}

/// Nothing of a connection came, or nothing of its end: what the kernel side says of it is counted, once.
#[test]
fn exchanges_of_connections_that_nobody_told_of_are_counted() {
    let ledger = Arc::new(Ledger::default());
    let mut flows = flows(&ledger);
    let processes = ProcessTable::new(false, Names::default(), Arc::clone(&ledger));
    let head = Head { kind: 0, record_bytes: 0, time_ns: 99 };
    let record = CloseRecord { head, connection: 5, untold_exchanges: 3, ..CloseRecord::new_zeroed() };
    flows.on_close(&record, &processes);
    assert_eq!(ring_full(&ledger), 3);
    let losses = FlowLosses { records: 9, exchanges: 4 };
    flows.on_losses(losses, 100);
    flows.on_losses(losses, 200);
    assert_eq!(ring_full(&ledger), 7);
}

/// A connection whose end was lost is given up, and what waits in it for its response is no exchange without one.
#[test]
fn a_connection_whose_end_was_lost_is_found() {
    let ledger = Arc::new(Ledger::default());
    let mut flows = flows(&ledger);
    open(&mut flows, 1);
    send(&mut flows, 1, b"GET /orders HTTP/1.1\r\n\r\n", 1, 0);
    let here = |_, number, _| {
        Some(ConnectionState { number, messages: 1, turns: 1, ..ConnectionState::new_zeroed() })
    };
    for (count, is_here, expected) in [(1, true, 1), (2, false, 1), (3, false, 0)] {
        let now_ns = count * COUNT_NS + UNOWNED_NS;
        flows.count_moved(now_ns, |key, number, is_datagram| {
            here(key, number, is_datagram).filter(|_| is_here)
        });
        assert_eq!(flows.len(), expected, "count {count}");
    }
    let account = ledger.account(Signal::Span);
    assert_eq!(account.lost, [(LossReason::ExchangeBroken, 1)]);
    assert_eq!(account.represented, 0);
}

/// A thread loses its CPU before its call that sends the response has ended, and another one receives the next request.
#[test]
fn a_call_that_ends_late_does_not_end_what_another_thread_serves() {
    const REQUEST: &[u8] = b"GET /orders HTTP/1.1\r\n\r\n";
    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut flows = flows(&Arc::default());
    open_as(&mut flows, 1, Role::Server);
    say(&mut flows, 1, (Way::Received, 7, 1), REQUEST, 1, 0);
    say(&mut flows, 1, (Way::Received, 8, 1), REQUEST, 2, REQUEST.len() as u64);
    say(&mut flows, 1, (Way::Sent, 7, 2), RESPONSE, 3, 0);
    assert_eq!([7, 8].map(|thread| flows.serving(thread, 9, 9)), [Serving::Nothing, Serving::Later]);
    say(&mut flows, 1, (Way::Sent, 8, 2), RESPONSE, 4, RESPONSE.len() as u64);
    assert_eq!(flows.serving(8, 9, 9), Serving::Nothing);
}

/// A datagram socket that says nothing more has no answer, unless it may have been lost.
#[test]
fn silence_after_a_loss_is_no_missing_response() {
    for (is_lost, expected) in [(false, 0), (true, 1)] {
        let ledger = Arc::new(Ledger::default());
        let mut flows = flows(&ledger);
        open(&mut flows, 1);
        send(&mut flows, 1, b"GET /orders HTTP/1.1\r\n\r\n", 1, 0);
        if is_lost {
            flows.on_losses(FlowLosses { records: 1, exchanges: 0 }, 2);
        }
        flows.turn(2 * STREAM_IDLE_NS, |_, _, _| None);
        assert!(flows.is_empty());
        let lost: u64 = ledger.account(Signal::Span).lost.iter().map(|loss| loss.1).sum();
        assert_eq!((lost, ledger.account(Signal::Span).seen), (expected, 1));
    }
}

/// What a socket said last before it fell silent is not there: the kernel's state counts it. As long as that says that the socket
/// is used, it is not forgotten.
#[test]
fn what_was_lost_before_a_silence_is_counted() {
    const SECOND_NS: u64 = 1_000_000_000;
    let query = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
    let ledger = Arc::new(Ledger::default());
    let mut flows = flows(&ledger);
    open_datagrams(&mut flows, 1);
    send(&mut flows, 1, query, 1, 0);
    // A response and two more exchanges came, of which nothing was told.
    let state = |_, number, _| {
        let [messages, turns, used_s] = [6, 6, 100];
        Some(ConnectionState { number, messages, turns, used_s, ..ConnectionState::new_zeroed() })
    };
    flows.turn(120 * SECOND_NS, state);
    assert_eq!((flows.len(), ledger.account(Signal::Span).seen), (1, 0));
    flows.turn(140 * SECOND_NS, state);
    let account = ledger.account(Signal::Span);
    assert_eq!((flows.len(), account.seen), (0, 3));
    assert_eq!(account.lost, [(LossReason::RingFull, 2), (LossReason::ExchangeBroken, 1)]);
}
