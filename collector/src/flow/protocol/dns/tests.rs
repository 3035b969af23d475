//! Messages as data, over both transports; a library as the oracle; any bytes.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

use super::*;
use crate::flow::protocol::{CARRIED_BYTES_MAX, Positions};

const SECOND_NS: u64 = 1_000_000_000;

/// What was moved in one call: by whom (`>` the client), captured bytes, and bytes that were not captured.
type Said = (char, Vec<u8>, u64);

/// Runs a parser over pieces, a second apart; each says whether it is the rest of the one before.
fn run(transport: Transport, pieces: &[(Said, bool)]) -> Output {
    let (mut parser, mut output) = (Dns::new(transport), Output::default());
    let (mut before, mut second, mut positions) = (None, 0, Positions::default());
    for ((who, bytes, missing), is_rest) in pieces {
        second += u64::from(!is_rest);
        let direction = if *who == '>' { Direction::Request } else { Direction::Response };
        let position = positions.next(direction, bytes.len() as u64 + missing);
        let mark = Mark { time_ns: second * SECOND_NS, position, ..Mark::default() };
        let piece = Piece { bytes, missing: *missing, is_turn: before != Some(*who), mark };
        before = Some(*who);
        assert_eq!(parser.take(direction, piece, &mut output), Progress::More);
        assert!(parser.pending.len() <= PENDING_MAX);
    }
    parser.finish(Mark::default(), &mut output);
    Positions::keep_requests(&mut output);
    output
}

fn datagrams(stream: &[Said]) -> Output {
    run(Transport::Udp, &stream.iter().map(|said| (said.clone(), false)).collect::<Vec<_>>())
}

/// An exchange as a line: name, what is asked, answers, failure, seconds of the request and of the response.
fn line(exchange: &Exchange) -> String {
    let mut line = exchange.name.to_string();
    for attribute in &exchange.attributes {
        match &attribute.value {
            Value::Texts(texts) => line += &format!(" = {}", texts.join(",")),
            Value::Text(text) if attribute.key == "dns.question.name" => line += &format!(" {text}"),
            _ => {}
        }
    }
    if let Some(failure) = &exchange.failure {
        line += &format!(" !{}{}", failure.kind, if failure.is_servers { "" } else { " client" });
    }
    line += &format!(" >{}", exchange.request.first.time_ns / SECOND_NS);
    line += &exchange
        .response
        .map_or(String::new(), |response| format!(" <{}", response.last.time_ns / SECOND_NS));
    line + if exchange.is_partial { " partial" } else { "" }
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// Checks the exchanges of whole messages: as datagrams, and as streams that are cut everywhere.
#[track_caller]
fn check(stream: &[Said], lines: &[&str]) {
    let output = datagrams(stream);
    assert_eq!(output.exchanges.iter().map(line).collect::<Vec<_>>(), lines);
    let pieces: Vec<_> =
        stream.iter().map(|(who, bytes, missing)| ((*who, prefixed(bytes), *missing), false)).collect();
    let expected = run(Transport::Tcp, &pieces);
    assert_eq!(expected.exchanges.iter().map(line).collect::<Vec<_>>(), lines);
    for (index, ((who, bytes, _), _)) in pieces.iter().enumerate() {
        for at in 1..bytes.len() {
            let mut cut = pieces.clone();
            cut[index].0.1.truncate(at);
            cut.insert(index + 1, ((*who, bytes[at..].to_vec(), 0), true));
            assert_eq!(run(Transport::Tcp, &cut).exchanges, expected.exchanges, "{index} cut at {at}");
        }
    }
    let bytes = pieces.iter().flat_map(|((who, bytes, _), is_rest)| {
        let byte = move |(at, byte): (usize, &u8)| ((*who, vec![*byte], 0), *is_rest || at > 0);
        bytes.iter().enumerate().map(byte)
    });
    assert_eq!(run(Transport::Tcp, &bytes.collect::<Vec<_>>()).exchanges, expected.exchanges, "byte by byte");
}

fn query(id: u16, name: &str, kind: TYPE) -> Packet<'_> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = simple_dns::Question::new(
        Name::new_unchecked(name),
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    );
    packet.questions.push(question);
    packet
}

fn asked(id: u16, name: &str, kind: TYPE) -> Said {
    ('>', query(id, name, kind).build_bytes_vec().unwrap(), 0)
}

fn answered(id: u16, name: &str, kind: TYPE, code: RCODE, addresses: &[[u8; 4]]) -> Said {
    let mut packet = query(id, name, kind).into_reply();
    *packet.rcode_mut() = code;
    packet.answers = addresses
        .iter()
        .map(|octets| {
            let data = RData::A(A { address: u32::from(Ipv4Addr::from(*octets)) });
            ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 60, data)
        })
        .collect();
    ('<', packet.build_bytes_vec_compressed().unwrap(), 0)
}

#[test]
fn a_question_has_its_answer() {
    let stream = [
        asked(7, "shop.example", TYPE::A),
        asked(8, "shop.example", TYPE::AAAA),
        answered(8, "shop.example", TYPE::AAAA, RCODE::NoError, &[]),
        answered(7, "SHOP.example", TYPE::A, RCODE::NoError, &[[10, 0, 0, 1], [10, 0, 0, 2]]),
    ];
    check(&stream, &["DNS AAAA shop.example >2 <3", "DNS A shop.example = 10.0.0.1,10.0.0.2 >1 <4"]);
    let exchange = &datagrams(&stream).exchanges[1];
    let expected = [
        Attribute::of_span("dns.question.name", "shop.example"),
        Attribute::of_both("kansoku.dns.question.type", "A"),
        Attribute::of_span("dns.answers", Value::Texts(vec!["10.0.0.1".into(), "10.0.0.2".into()])),
    ];
    assert_eq!(exchange.attributes, expected);
    assert_eq!(exchange.request.bytes, 30);
}

#[test]
fn failures_have_names() {
    let stream = [
        asked(1, "a.example", TYPE::A),
        answered(1, "a.example", TYPE::A, RCODE::NameError, &[]),
        asked(2, "a.example", TYPE::A),
        answered(2, "a.example", TYPE::A, RCODE::ServerFailure, &[]),
        asked(3, "a.example", TYPE::A),
        answered(3, "a.example", TYPE::A, RCODE::Refused, &[]),
        asked(4, "a.example", TYPE::A),
    ];
    check(
        &stream,
        &[
            "DNS A a.example !NXDOMAIN client >1 <2",
            "DNS A a.example !SERVFAIL >3 <4",
            "DNS A a.example !REFUSED >5 <6",
            "DNS A a.example !timeout >7",
        ],
    );
}

#[test]
fn answers_belong_to_the_same_question() {
    let stream = [
        asked(1, "a.example", TYPE::A),
        answered(1, "b.example", TYPE::A, RCODE::NoError, &[]),
        answered(1, "a.example", TYPE::TXT, RCODE::NoError, &[]),
        answered(2, "a.example", TYPE::A, RCODE::NoError, &[]),
        // Asked once more.
        asked(1, "a.example", TYPE::A),
        answered(1, "a.example", TYPE::A, RCODE::NoError, &[]),
        answered(1, "a.example", TYPE::A, RCODE::NoError, &[]),
    ];
    check(&stream, &["DNS A a.example >1 <6"]);
}

#[test]
fn answers_that_come_too_late_are_none() {
    let mut stream = vec![asked(1, "a.example", TYPE::A)];
    stream.extend((2..18).map(|id| asked(id, "b.example", TYPE::A)));
    stream.push(answered(1, "a.example", TYPE::A, RCODE::NoError, &[]));
    let output = datagrams(&stream);
    assert_eq!(line(&output.exchanges[0]), "DNS A a.example !timeout >1");
    assert_eq!(output.exchanges.len(), 17);
    let many: Vec<_> = (0..300).map(|id| (asked(id, "c.example", TYPE::A), id > 0)).collect();
    let output = run(Transport::Udp, &many);
    assert_eq!((output.exchanges.len(), output.abandoned), (PENDING_MAX, 300 - PENDING_MAX as u64));
}

#[test]
fn aliases_are_answers_and_many_are_bounded() {
    let (_, mut bytes, _) = answered(1, "a.example", TYPE::A, RCODE::NoError, &[[1, 2, 3, 4]; 20]);
    let output = datagrams(&[asked(1, "a.example", TYPE::A), ('<', bytes.clone(), 0)]);
    let Some(Value::Texts(texts)) = output.exchanges[0].attributes.last().map(|last| last.value.clone())
    else {
        panic!("no answers")
    };
    assert_eq!(texts.len(), 16);
    // The first record becomes an alias whose name is a pointer to the question; the rest is behind its new end.
    let record = bytes.len() - 20 * 16;
    bytes.truncate(record + 12);
    bytes[record + 3] = 5;
    bytes[record + 11] = 2;
    bytes.extend([0xc0, 12]);
    bytes[7] = 1;
    check(&[asked(1, "a.example", TYPE::A), ('<', bytes, 0)], &["DNS A a.example = a.example >1 <2"]);
}

#[test]
fn names_that_go_in_circles_end() {
    let header = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for name in [
        &[0xc0, 12][..],
        &[1, b'a', 0xc0, 12],
        &[0xc0, 14, 0xc0, 12],
        &[0xc0, 0xff],
        &[0x80, 0],
        &[0xc0],
        &[5],
    ] {
        let bytes = [&header[..], name, &[0, 1, 0, 1]].concat();
        assert_eq!(detect(&bytes, Transport::Udp, [53, 53]), None, "{name:?}");
        assert_eq!(datagrams(&[('>', bytes, 0)]).rejected, 1, "{name:?}");
    }
    let long = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0]].concat();
    assert_eq!(datagrams(&[('>', [&header[..], &long, &[0, 1, 0, 1]].concat(), 0)]).rejected, 1);
    let odd = [&header[..], &[5, b'a', b'.', b'"', 7, 0xff, 0], &[0xff, 0, 0, 1]].concat();
    check(&[('>', odd, 0)], &[r#"DNS a\.\"\007\255 !timeout >1"#]);
    let root = [&header[..], &[0], &[0, 2, 0, 1]].concat();
    check(&[('>', root, 0)], &["DNS NS . !timeout >1"]);
}

#[test]
fn missing_ends_are_survived() {
    let (question, answer) = (asked(1, "a.example", TYPE::A), [[10, 0, 0, 1], [10, 0, 0, 2]]);
    let (_, bytes, _) = answered(1, "a.example", TYPE::A, RCODE::NoError, &answer);
    let output = datagrams(&[question.clone(), ('<', bytes[..bytes.len() - 5].to_vec(), 5)]);
    assert_eq!(line(&output.exchanges[0]), "DNS A a.example = 10.0.0.1 >1 <2 partial");
    assert_eq!(output.exchanges[0].response.unwrap().bytes, bytes.len() as u64);
    // Without the end of the question nothing can be paired.
    let output = datagrams(&[question.clone(), ('<', bytes[..20].to_vec(), 50)]);
    assert_eq!((line(&output.exchanges[0]), output.abandoned), ("DNS A a.example !timeout >1".to_owned(), 1));

    let stream = |bytes: &[u8], missing| {
        vec![(('>', prefixed(&question.1), 0), false), (('<', bytes.to_vec(), missing), false)]
    };
    let framed = prefixed(&bytes);
    let mut pieces = stream(&framed[..framed.len() - 5], 5);
    pieces.push((('<', framed.clone(), 0), false));
    let output = run(Transport::Tcp, &pieces);
    assert_eq!(line(&output.exchanges[0]), "DNS A a.example = 10.0.0.1 >1 <2 partial");
    assert_eq!(output.abandoned + output.rejected, 0);
    // A length that is missing loses the place until the turn.
    let mut pieces = stream(&[0], 100);
    pieces.push((('<', framed.clone(), 0), false));
    pieces.push((('>', prefixed(&question.1), 0), false));
    pieces.push((('<', framed, 0), false));
    let output = run(Transport::Tcp, &pieces);
    assert_eq!(
        output.exchanges.iter().map(line).collect::<Vec<_>>(),
        ["DNS A a.example = 10.0.0.1,10.0.0.2 >1 <5"]
    );
}

#[test]
fn joined_in_the_middle_the_next_message_is_found() {
    let (_, query, _) = asked(1, "a.example", TYPE::A);
    let (_, answer, _) = answered(1, "a.example", TYPE::A, RCODE::NoError, &[]);
    let pieces = [
        (('<', prefixed(&answer), 0), false),
        (('>', prefixed(&query), 0), false),
        (('<', prefixed(&answer), 0), false),
    ];
    let output = run(Transport::Tcp, &pieces);
    assert_eq!(output.exchanges.iter().map(line).collect::<Vec<_>>(), ["DNS A a.example >2 <3"]);
    // Too large to keep: the rest is skipped.
    let large = [&answer[..], &vec![0; CARRIED_BYTES_MAX * 2]].concat();
    let pieces = [
        (('>', prefixed(&query), 0), false),
        (('<', prefixed(&large), 0), false),
        (('>', prefixed(&query), 0), false),
        (('<', prefixed(&answer), 0), false),
    ];
    assert_eq!(run(Transport::Tcp, &pieces).exchanges.len(), 2);
}

/// Captured from dig 9.18, as it asked a resolver: `>` the client, `<` the server.
#[test]
fn dig_is_understood() {
    let from_hex = |line: &str| {
        let (who, digits) = line.split_at(2);
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        (who.chars().next().unwrap(), digits.as_bytes().chunks(2).map(byte).collect(), 0)
    };
    let stream: Vec<Said> = include_str!("dig.txt").lines().map(from_hex).collect();
    check(
        &stream,
        &[
            "DNS A index.crates.io = 203.0.113.80 >1 <2",
            "DNS AAAA index.crates.io >3 <4",
            "DNS A nothing.invalid !NXDOMAIN client >5 <6",
        ],
    );
    for (who, bytes, _) in &stream {
        let direction = Some(if *who == '>' { Direction::Request } else { Direction::Response });
        assert_eq!(detect(bytes, Transport::Udp, [40000, 53]), direction);
        assert_eq!(detect(&prefixed(bytes), Transport::Tcp, [40000, 53]), direction);
        assert_eq!(detect(&prefixed(bytes), Transport::Tcp, [40000, 54]), None);
        // On any port, if it is a message through and through.
        assert_eq!(detect(bytes, Transport::Udp, [40000, 1053]), direction);
    }
}

#[test]
fn other_bytes_are_not_dns() {
    let (_, bytes, _) = asked(1, "a.example", TYPE::A);
    let wrong: [fn(&mut Vec<u8>); 6] = [
        |bytes| bytes[2] |= 0x78,
        |bytes| bytes[3] |= 0x03,
        |bytes| bytes[5] = 0,
        |bytes| bytes[4] = 1,
        |bytes| bytes[12] = 60,
        |bytes| bytes.truncate(20),
    ];
    for (index, spoil) in wrong.iter().enumerate() {
        let mut bytes = bytes.clone();
        spoil(&mut bytes);
        assert_eq!(detect(&bytes, Transport::Udp, [1, 53]), None, "{index}");
    }
    for bytes in [[bytes.clone(), vec![0]].concat(), [&bytes[..23], &[0x77, 0x77, 0, 1]].concat()] {
        assert_eq!(detect(&bytes, Transport::Udp, [1, 2]), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What a library writes and reads is read the same.
    #[test]
    fn a_library_reads_the_same(
        id: u16,
        labels in proptest::collection::vec("[a-z0-9_-]{1,20}", 1..8),
        addresses in proptest::collection::vec(any::<[u8; 4]>(), 0..10),
    ) {
        let name = labels.join(".");
        let (_, bytes, _) = answered(id, &name, TYPE::A, RCODE::NoError, &addresses);
        let packet = Packet::parse(&bytes).unwrap();
        let mut reader = Reader::new(&bytes);
        let question = reader.question().unwrap();
        let answers = reader.answers(addresses.len() as u16);
        prop_assert_eq!(&question.name, &packet.questions[0].qname.to_string());
        prop_assert!(reader.is_at_end() && !answers.is_partial);
        let texts: Vec<Text> = packet.answers.iter().map(|record| match &record.rdata {
            RData::A(a) => Ipv4Addr::from(a.address).to_string().into(),
            other => format!("{other:?}").into(),
        }).collect();
        prop_assert_eq!(answers.values, texts);
    }

    /// What a library takes is taken, however it is spoilt.
    #[test]
    fn a_spoilt_message_is_read_like_a_library_does(
        at in 12..60_usize,
        byte: u8,
        addresses in proptest::collection::vec(any::<[u8; 4]>(), 0..3),
    ) {
        let (_, mut bytes, _) = answered(1, "a.long.example", TYPE::A, RCODE::NoError, &addresses);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let mut reader = Reader::new(&bytes);
        let question = reader.question();
        if Packet::parse(&bytes).is_ok() {
            prop_assert!(question.is_some());
            prop_assert!(!reader.answers(addresses.len() as u16).is_partial);
        }
    }

    #[test]
    fn any_bytes_are_survived(
        is_udp: bool,
        pieces in proptest::collection::vec(
            (
                any::<bool>(),
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..60),
                    (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(is_response, rest)| {
                        let flags = if is_response { 0x80 } else { 0 };
                        [&[0, 40, 0, 1, flags, 0, 0, 1, 0, 3, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1][..], &rest].concat()
                    }),
                    (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(is_response, rest)| {
                        let flags = if is_response { 0x80 } else { 0 };
                        [&[0, 1, flags, 0, 0, 1, 0, 3, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1][..], &rest].concat()
                    }),
                ],
                prop_oneof![4 => Just(0_u64), 1 => 0..50_u64, 1 => any::<u64>()],
                any::<bool>(),
                any::<u64>(),
            ),
            0..40,
        )
    ) {
        let transport = if is_udp { Transport::Udp } else { Transport::Tcp };
        let (mut parser, mut output) = (Dns::new(transport), Output::default());
        for (is_request, bytes, missing, is_turn, time_ns) in &pieces {
            let direction = if *is_request { Direction::Request } else { Direction::Response };
            detect(bytes, transport, [1, 53]);
            detect(bytes, transport, [1, 2]);
            let mark = Mark { time_ns: *time_ns, ..Mark::default() };
            parser.take(direction, Piece { bytes, missing: *missing, is_turn: *is_turn, mark }, &mut output);
            prop_assert!(parser.pending.len() <= PENDING_MAX);
        }
        parser.finish(Mark::default(), &mut output);
    }
}
