//! A client that asks a server for a file at a pace, over connections that stay, and times each answer.
//!
//! Refuses: to ask for more than one at a time on a connection, and to hurry after what came late.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Connections, each with a thread.
pub const CONNECTIONS: u32 = 8;

const REQUEST: &[u8] = b"GET /file HTTP/1.1\r\nhost: bench\r\n\r\n";

/// Longer than the head of any answer with the file.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Asks `pace` times a second for so long; returns how long each answer took, microseconds.
pub fn ask(address: SocketAddr, pace: u32, duration: Duration) -> Result<Vec<f64>> {
    let period = Duration::from_secs(1) * CONNECTIONS / pace;
    let threads = (0..CONNECTIONS).map(|index| {
        let start = Instant::now() + period * index / CONNECTIONS;
        thread::spawn(move || ask_over_one(address, start, period, duration))
    });
    let threads: Vec<_> = threads.collect();
    let mut times_us = Vec::new();
    for thread in threads {
        let Ok(times) = thread.join() else { bail!("a thread of the client failed") };
        times_us.extend(times?);
    }
    ensure!(!times_us.is_empty(), "nothing was asked");
    Ok(times_us)
}

fn ask_over_one(
    address: SocketAddr,
    start: Instant,
    period: Duration,
    duration: Duration,
) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address).context("connect to the server")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).context("set a timeout")?;
    let mut times_us = Vec::new();
    let mut due = start;
    while due < start + duration {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        stream.write_all(REQUEST).context("ask the server")?;
        read_answer(&mut stream)?;
        times_us.push(asked.elapsed().as_secs_f64() * 1e6);
        due = (due + period).max(Instant::now());
    }
    Ok(times_us)
}

/// Reads until the file is whole.
fn read_answer(stream: &mut impl Read) -> Result<()> {
    let mut answer = [0; ANSWER_BYTES_MAX];
    let mut length = 0;
    loop {
        let rest = answer.get_mut(length..).filter(|rest| !rest.is_empty());
        let read = stream.read(rest.context("the answer is too long")?).context("read the answer")?;
        ensure!(read > 0, "the server closed the connection");
        length += read;
        if is_whole(&answer[..length])? {
            return Ok(());
        }
    }
}

fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end]).context("the head is no text")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "the server said {head:?}");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).context("no Content-Length")?;
    Ok(answer.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_by_their_length() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for length in 0..answer.len() {
            assert!(!is_whole(&answer[..length]).expect("a part of a good answer"), "{length}");
        }
        assert!(is_whole(answer).expect("a good answer"));
        assert!(is_whole(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn what_ends_early_is_an_error() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        assert!(read_answer(&mut &answer[..]).is_err());
    }
}
