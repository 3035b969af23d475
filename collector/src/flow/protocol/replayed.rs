//! Recorded connections of every protocol, joined at every byte: a parser that comes late finds its place at the next request, and
//! tells the same exchanges from there on as one that was there from the begin.
//!
//! The recordings are the seeds of the fuzz targets. Refuses: attributes, which may rest on what was said before the join
//! (prepared statements, `SELECT` of Redis).

use super::{Direction, Mark, Output, Piece, Progress, Protocol, Transport, detect};

/// The reader of the seeds is the one of the fuzz targets.
#[path = "../../../../tests/fuzz/src/pieces.rs"]
mod pieces;

use pieces::Pieces;

/// Ports of the client and the server.
const PORTS: [u16; 2] = [40_000, 53];

/// Where an exchange begins and ends: time and position of the first byte of its request, and their bytes.
type Found = (u64, u64, u64, Option<u64>);

fn run<'a>(protocol: Protocol, pieces: impl Iterator<Item = (Direction, Piece<'a>)>) -> Vec<Found> {
    let mut parser = protocol.parser(Transport::Tcp);
    let mut output = Output::default();
    let mut last = None;
    for (direction, piece) in pieces {
        last = Some(piece.mark);
        if parser.take(direction, piece, &mut output) == Progress::Leave {
            break;
        }
    }
    if let Some(last) = last {
        parser.finish(last, &mut output);
    }
    let found = output.exchanges.iter().map(|exchange| {
        let first = exchange.request.first;
        let response_bytes = exchange.response.map(|response| response.bytes);
        (first.time_ns, first.position, exchange.request.bytes, response_bytes)
    });
    found.collect()
}

/// Joins a connection at every byte of every piece, as the daemon does: what looks like the protocol begins it. Returns how many
/// exchanges were compared.
fn check(protocol: Protocol, seed: &[u8]) -> usize {
    let pieces: Vec<(Direction, Piece<'_>)> = Pieces::new(seed).collect();
    let whole = run(protocol, pieces.iter().copied());
    assert!(!whole.is_empty(), "{protocol:?}: nothing was said");
    let mut compared = 0;
    for (index, &(direction, piece)) in pieces.iter().enumerate() {
        for skipped in 0..piece.bytes.len() {
            let mark = Mark { position: piece.mark.position + skipped as u64, ..piece.mark };
            let first = Piece { bytes: &piece.bytes[skipped..], is_turn: false, mark, ..piece };
            let rest = std::iter::once((direction, first)).chain(pieces[index + 1..].iter().copied());
            let is_other = |(direction, piece): &(Direction, Piece<'_>)| {
                detect(piece.bytes, Transport::Tcp, PORTS) != Some((protocol, *direction))
            };
            let mut known: Vec<_> = rest.skip_while(is_other).collect();
            let Some((_, begin)) = known.first_mut() else { continue };
            begin.is_turn = true;
            // The rest of a message may look like a whole one; from the client's next turn on nothing is in doubt.
            let turn = known.windows(2).find_map(|pair| match pair {
                [(Direction::Response, _), (Direction::Request, turn)] => Some(turn.mark.time_ns),
                _ => None,
            });
            let Some(turn_ns) = turn else { continue };
            let is_after = |found: &&Found| found.0 >= turn_ns;
            let joined = run(protocol, known.into_iter());
            let found: Vec<&Found> = joined.iter().filter(is_after).collect();
            let expected: Vec<&Found> = whole.iter().filter(is_after).collect();
            assert_eq!(found, expected, "{protocol:?}: joined at {skipped} of piece {index}");
            compared += found.len();
        }
    }
    compared
}

#[test]
fn joined_at_every_byte() {
    let seeds: [(Protocol, &[&[u8]]); 4] = [
        (
            Protocol::Http1,
            &[
                include_bytes!("../../../../tests/fuzz/corpus/http1/continue_head_and_errors"),
                include_bytes!("../../../../tests/fuzz/corpus/http1/pipelined"),
                include_bytes!("../../../../tests/fuzz/corpus/http1/chunked"),
            ],
        ),
        (
            Protocol::Postgres,
            &[
                include_bytes!("../../../../tests/fuzz/corpus/postgres/psql_simple_and_copy"),
                include_bytes!("../../../../tests/fuzz/corpus/postgres/pgbench_prepared"),
                include_bytes!("../../../../tests/fuzz/corpus/postgres/extended_unnamed"),
            ],
        ),
        (
            Protocol::Redis,
            &[
                include_bytes!("../../../../tests/fuzz/corpus/redis/commands"),
                include_bytes!("../../../../tests/fuzz/corpus/redis/pipeline_and_transaction"),
                include_bytes!("../../../../tests/fuzz/corpus/redis/resp3"),
            ],
        ),
        // The first byte of these says the transport.
        (Protocol::Dns, &[include_bytes!("../../../../tests/fuzz/corpus/dns/dig_tcp").split_at(1).1]),
    ];
    for (protocol, seeds) in seeds {
        let compared: usize = seeds.iter().map(|seed| check(protocol, seed)).sum();
        println!("{protocol:?}: {compared} exchanges behind a join");
        assert!(compared > 50, "{protocol:?}: {compared} exchanges behind a join");
    }
}
