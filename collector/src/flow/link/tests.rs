//! Exchanges on threads and connections: which is whose parent, and by what proof.

use super::super::sampling::SamplingOptions;
use super::*;
use crate::telemetry::ProcessName;

const PORTS: u16 = 1000;

/// A side of an exchange: its letter is its name, the connection's number tells the ends.
struct Side {
    name: &'static str,
    kind: SpanKind,
    connection: u16,
    thread: u32,
    polls: bool,
    moves: bool,
    start_ms: u64,
    end_ms: u64,
}

fn side(
    name: &'static str,
    kind: SpanKind,
    connection: u16,
    thread: u32,
    (start_ms, end_ms): (u64, u64),
) -> Side {
    Side { name, kind, connection, thread, polls: false, moves: false, start_ms, end_ms }
}

fn client(name: &'static str, connection: u16, thread: u32, times: (u64, u64)) -> Side {
    side(name, SpanKind::Client, connection, thread, times)
}

fn server(name: &'static str, connection: u16, thread: u32, times: (u64, u64)) -> Side {
    side(name, SpanKind::Server, connection, thread, times)
}

fn waiting(side: &Side, context: Option<TraceContext>) -> Waiting {
    let subject = Subject::named("shop");
    let (start_ns, end_ns) = (side.start_ms * 1_000_000, side.end_ms * 1_000_000);
    let span = Span {
        subject: Arc::new(subject),
        process: Arc::new(ProcessName { pid: 1, executable_name: "shop".into(), executable_path: None }),
        trace_id: [0; 16],
        span_id: [0; 8],
        parent: None,
        link: None,
        trace_state: String::new(),
        protocol: "http",
        kind: side.kind,
        name: side.name.into(),
        start_unix_ns: start_ns,
        end_unix_ns: end_ns,
        attributes: Vec::new(),
        error: None,
    };
    let (is_of_one_thread, has_polled) = (!side.moves, side.polls);
    let place = Place { thread: side.thread, is_of_one_thread, has_polled, start_ns, end_ns };
    let address = |port: u16| ([127, 0, 0, 1], port).into();
    let ends = Ends { local: address(PORTS + side.connection), peer: address(80) };
    let wire = Wire { line: Line::Addresses(ends), position: 0, is_client: side.kind == SpanKind::Client };
    Waiting { span, context, place, wire, series: SeriesId::default(), must_stay: false }
}

/// Adds the sides in the order in which they ended, and expects the parent of each, `-` for none.
fn check(counts_polls: bool, sides: &[Side], expected: &[(&str, &str)]) {
    let mut linker = Linker::new(counts_polls, Arc::default());
    let sampler = Sampler::new(SamplingOptions { ratio: 1.0, per_second_max: 9, slow_ns: u64::MAX });
    let mut requests = Requests::default();
    for side in sides {
        let Waiting { wire, span, .. } = waiting(side, None);
        let Line::Addresses(ends) = wire.line else { panic!("sides have addresses") };
        let end = wire.line.client_end().expect("a connection");
        if side.kind == SpanKind::Client {
            linker.local.insert(end, Local { subject: span.subject, ends, connection: 0 });
        } else {
            linker.serving.entry(side.thread).or_default().insert(end);
            linker.receivers.insert(end, side.thread);
        }
    }
    let mut sides: Vec<&Side> = sides.iter().collect();
    sides.sort_by_key(|side| side.end_ms);
    for side in sides {
        let waiting = waiting(side, None);
        if side.kind == SpanKind::Server {
            linker.answered(&waiting.wire.line.client_end().expect("a connection"));
        }
        linker.add(waiting);
        linker.turn(side.end_ms * 1_000_000, &sampler, &mut requests);
    }
    linker.settle_all(&sampler, &mut requests);
    let spans = linker.take_spans(0);
    let name = |id: [u8; 8]| spans.iter().find(|span| span.span_id == id).map(|span| &*span.name);
    let mut found: Vec<(&str, &str)> = spans
        .iter()
        .map(|span| (&*span.name, span.parent.map_or("-", |(id, _)| name(id).unwrap_or("lost"))))
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    for span in spans.iter().filter(|span| span.parent.is_some()) {
        let parent = spans.iter().find(|other| span.parent.is_some_and(|(id, _)| id == other.span_id));
        assert_eq!(parent.map(|parent| parent.trace_id), Some(span.trace_id), "{}", span.name);
    }
}

#[test]
fn both_ends_of_a_connection_are_one_trace() {
    check(true, &[client("a", 1, 7, (0, 10)), server("b", 1, 8, (2, 8))], &[("a", "-"), ("b", "a")]);
    check(true, &[client("a", 1, 7, (0, 10)), server("b", 2, 8, (2, 8))], &[("a", "-"), ("b", "-")]);
}

#[test]
fn a_thread_that_does_nothing_else_is_a_proof() {
    let chain = [
        client("a", 1, 7, (0, 20)),
        server("b", 1, 8, (1, 19)),
        client("c", 2, 8, (3, 10)),
        server("d", 2, 9, (4, 9)),
        client("e", 3, 8, (11, 15)),
    ];
    check(true, &chain, &[("a", "-"), ("b", "a"), ("c", "b"), ("d", "c"), ("e", "b")]);
    // Where nobody counts what event queues were asked, nothing is proven by a thread.
    check(false, &chain, &[("a", "-"), ("b", "a"), ("c", "-"), ("d", "c"), ("e", "-")]);
}

#[test]
fn a_thread_proves_nothing_about() {
    let served = || server("b", 1, 8, (1, 19));
    // Another thread's call.
    check(true, &[served(), client("c", 2, 9, (3, 10))], &[("b", "-"), ("c", "-")]);
    // A call that began before the request, or ended after its response.
    check(true, &[served(), client("c", 2, 8, (0, 10))], &[("b", "-"), ("c", "-")]);
    check(true, &[served(), client("c", 2, 8, (3, 20))], &[("b", "-"), ("c", "-")]);
    // Two requests at once.
    let both = [served(), server("d", 3, 8, (2, 18)), client("c", 2, 8, (3, 10))];
    check(true, &both, &[("b", "-"), ("c", "-"), ("d", "-")]);
    // An event loop.
    let looped = [Side { polls: true, ..served() }, client("c", 2, 8, (3, 10))];
    check(true, &looped, &[("b", "-"), ("c", "-")]);
    // Tasks that change their threads, as another one of the process did.
    let moved = [Side { moves: true, ..client("m", 3, 9, (0, 2)) }, served(), client("c", 2, 8, (3, 10))];
    check(true, &moved, &[("b", "-"), ("c", "-"), ("m", "-")]);
}

/// A call on a thread that served these; expects what it is linked to, and why it is no child of that.
fn check_link(call: Side, served: &[Side], expected: Option<(&str, Doubt)>) {
    let mut linker = Linker::new(true, Arc::default());
    let sampler = Sampler::new(SamplingOptions { ratio: 1.0, per_second_max: 9, slow_ns: u64::MAX });
    for side in served.iter().chain([&call]) {
        linker.add(waiting(side, None));
    }
    linker.settle_all(&sampler, &mut Requests::default());
    let spans = linker.take_spans(0);
    let name = |id: [u8; 8]| spans.iter().find(|span| span.span_id == id).map_or("lost", |span| &span.name);
    let found = spans.iter().find(|span| *span.name == *call.name).expect("it is settled");
    assert_eq!(found.link.map(|link| (name(link.to.span_id), link.doubt)), expected);
    assert_eq!(found.parent, None);
}

#[test]
fn what_is_not_proven_is_a_link() {
    let served = |polls| Side { polls, ..server("b", 1, 8, (1, 19)) };
    let call = || client("c", 2, 8, (3, 10));
    check_link(call(), &[served(true)], Some(("b", Doubt::ThreadPolled)));
    check_link(Side { polls: true, ..call() }, &[served(false)], Some(("b", Doubt::ThreadPolled)));
    // Two requests at once, and none around it.
    check_link(call(), &[served(true), server("d", 3, 8, (2, 18))], None);
    check_link(client("c", 2, 8, (3, 30)), &[served(true)], None);
    check_link(client("c", 2, 9, (3, 10)), &[served(true)], None);
}

#[test]
fn what_happens_in_a_request_names_it() {
    let mut linker = Linker::new(true, Arc::default());
    let sampler = Sampler::new(SamplingOptions { ratio: 1.0, per_second_max: 9, slow_ns: u64::MAX });
    let ms = 1_000_000;
    assert_eq!(linker.serving(8, 3 * ms, 5 * ms), Serving::Nothing);
    let server = waiting(&server("b", 1, 8, (1, 19)), None);
    linker.serving.entry(8).or_default().extend(server.wire.line.client_end());
    assert_eq!(linker.serving(8, 3 * ms, 5 * ms), Serving::Later);
    linker.serving.clear();
    linker.add(server);
    assert_eq!(linker.serving(8, 3 * ms, 5 * ms), Serving::Later);
    linker.settle_all(&sampler, &mut Requests::default());
    let span = linker.spans[0].clone();
    let known = SpanContext { trace_id: span.trace_id, span_id: span.span_id };
    assert_eq!(linker.serving(8, 3 * ms, 5 * ms), Serving::Known(known));
    assert_eq!(linker.serving(9, 3 * ms, 5 * ms), Serving::Nothing);
    assert_eq!(linker.serving(8, 3 * ms, 25 * ms), Serving::Nothing);
}

/// Exchanges of datagrams by who asked, with which number, and when; expects what is above each.
#[test]
fn a_number_that_is_used_again_is_another_question() {
    let mut linker = Linker::new(true, Arc::default());
    let sampler = Sampler::new(SamplingOptions { ratio: 1.0, per_second_max: 9, slow_ns: u64::MAX });
    let mut requests = Requests::default();
    let mut add = |side: Side, port: u16, position: u64| {
        let mut waiting = waiting(&side, None);
        waiting.wire.line = Line::Asker(([127, 0, 0, 1], port).into());
        waiting.wire.position = position;
        linker.add(waiting);
        linker.turn(side.end_ms * 1_000_000, &sampler, &mut requests);
    };
    add(client("a", 1, 7, (0, 10)), 5000, 9);
    add(client("b", 1, 7, (20, 30)), 5000, 9);
    add(server("of b", 2, 8, (22, 28)), 5000, 9);
    add(server("of nobody here", 2, 8, (22, 28)), 6000, 9);
    add(server("late", 2, 8, (40, 41)), 5000, 9);
    add(server("of another number", 2, 8, (22, 28)), 5000, 8);
    linker.settle_all(&sampler, &mut requests);
    let spans = linker.take_spans(0);
    let name = |id: [u8; 8]| spans.iter().find(|span| span.span_id == id).map(|span| &*span.name);
    let joined: Vec<(&str, Option<&str>)> = spans
        .iter()
        .filter(|span| span.parent.is_some())
        .map(|span| (&*span.name, span.parent.and_then(|(id, _)| name(id))))
        .collect();
    assert_eq!((spans.len(), joined), (6, vec![("of b", Some("b"))]));
}

#[test]
fn the_caller_names_the_parent() {
    let mut linker = Linker::new(true, Arc::default());
    let sampler = Sampler::new(SamplingOptions { ratio: 0.0, per_second_max: 9, slow_ns: u64::MAX });
    let mut requests = Requests::default();
    for (is_sampled, expected) in [(Some(true), 1), (None, 1), (Some(false), 0)] {
        let context =
            TraceContext { trace_id: [5; 16], span_id: [6; 8], is_sampled, state: "a=b".to_owned() };
        linker.add(waiting(&server("b", 1, 8, (1, 19)), Some(context)));
        linker.settle_all(&sampler, &mut requests);
        let spans = linker.take_spans(0);
        assert_eq!(spans.len(), expected, "{is_sampled:?}");
        for span in spans {
            assert_eq!((span.trace_id, span.parent), ([5; 16], Some(([6; 8], Proof::Header))));
            assert_eq!(span.trace_state, "a=b");
        }
        // The next one is at the same place of the same connection.
        linker.settled.clear();
    }
}
