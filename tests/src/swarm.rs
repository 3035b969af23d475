//! A client with many requests in flight, a connection for each, that logs every one: the clock is read before the first byte is
//! written and after the last one was read.
//!
//! Refuses: threads of its own for each connection, whose turns on two CPUs would be the times that it logs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::callers::Transfer;

/// What a swarm did.
#[derive(Debug)]
pub struct Log {
    /// Each request with its answer.
    pub transfers: Vec<Transfer>,
    /// The most requests that waited for their answers at one time.
    pub in_flight_max: usize,
}

/// Asks for `/item/N` with each number once, on so many connections at once. All of them are open before the first request.
pub fn ask(address: SocketAddr, requests: usize, in_flight: usize) -> Log {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let mut streams = Vec::with_capacity(in_flight);
        for _ in 0..in_flight {
            let stream = TcpStream::connect(address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket of TCP");
            streams.push(stream);
        }
        let flight = Rc::new(Flight::default());
        let members = streams.into_iter().enumerate().map(|(first, stream)| {
            let numbers = (first..requests).step_by(in_flight);
            tokio::task::spawn_local(ask_by(stream, address, numbers, Rc::clone(&flight)))
        });
        let members: Vec<_> = members.collect();
        let mut transfers = Vec::with_capacity(requests);
        for member in members {
            transfers.extend(member.await.expect("every request is answered"));
        }
        Log { transfers, in_flight_max: flight.most.get() }
    })
}

/// How many requests wait for their answers.
#[derive(Default)]
struct Flight {
    now: Cell<usize>,
    most: Cell<usize>,
}

impl Flight {
    fn begin(&self) {
        self.now.update(|now| now + 1);
        self.most.update(|most| most.max(self.now.get()));
    }

    fn end(&self) {
        self.now.update(|now| now - 1);
    }
}

/// One connection, a request after the other.
async fn ask_by(
    mut stream: TcpStream,
    address: SocketAddr,
    numbers: impl Iterator<Item = usize>,
    flight: Rc<Flight>,
) -> Vec<Transfer> {
    let mut transfers = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    for number in numbers {
        let target = format!("/item/{number}");
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        answer.clear();
        flight.begin();
        let begin = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let (status, body_bytes) = loop {
            let count = stream.read_buf(&mut answer).await.expect("it answers");
            assert!(count > 0, "closed in the middle of {target}: {}", String::from_utf8_lossy(&answer));
            if let Some(end) = end_of(&answer) {
                break end;
            }
        };
        let seconds = begin.elapsed().as_secs_f64();
        flight.end();
        transfers.push(Transfer { method: "GET".to_owned(), target, status, seconds, body_bytes });
    }
    transfers
}

/// The status of an answer and the bytes of its body, if it is whole: by its length, or in chunks.
fn end_of(answer: &[u8]) -> Option<(u16, u64)> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (answer.get(..head_end)?, answer.get(head_end + 4..)?);
    let head = String::from_utf8_lossy(head).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let is_whole = match length {
        Some(length) => body.len() >= length.trim().parse().expect("a length"),
        None => body.ends_with(b"0\r\n\r\n"),
    };
    is_whole.then_some((status, body.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn answers_end_by_their_length_or_their_last_chunk() {
        assert_eq!(end_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ndon"), None);
        assert_eq!(end_of(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ndone"), Some((404, 4)));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n";
        assert_eq!(end_of(&chunked[..chunked.len() - 1]), None);
        assert_eq!(end_of(chunked), Some((200, 14)));
    }
}
