//! A backend that takes everything: answers each HTTP POST with 200 and an empty body, and counts.
//!
//! Refuses: reading what was sent. It must cost next to nothing on the measured machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What came in so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub requests: u64,
    pub bytes: u64,
}

#[derive(Default)]
struct Shared {
    requests: AtomicU64,
    bytes: AtomicU64,
    is_stopped: AtomicBool,
}

/// A running backend; dropping it stops it.
pub struct HttpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl HttpSink {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on the loopback")?;
        let address = listener.local_addr().context("read the listening address")?;
        let shared = Arc::new(Shared::default());
        let listening = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("bench-sink".to_owned()).spawn(move || listen(&listener, &shared))
        };
        Ok(Self { address, shared, listening: Some(listening.context("start the sink's thread")?) })
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Received {
        Received {
            requests: self.shared.requests.load(Ordering::Relaxed),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        // A connection wakes the listener, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

/// Connections have a thread each, which ends with its client.
fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopped.load(Ordering::Relaxed) {
            return;
        }
        let (Ok(stream), shared) = (stream, Arc::clone(shared)) else { continue };
        thread::spawn(move || {
            if let Err(error) = serve(&stream, &shared) {
                eprintln!("bench: sink: {error:#}");
            }
        });
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(body_bytes) = skip_request(&mut reader)? {
        shared.requests.fetch_add(1, Ordering::Relaxed);
        shared.bytes.fetch_add(body_bytes, Ordering::Relaxed);
        writer.write_all(ANSWER).context("answer")?;
    }
    Ok(())
}

/// Reads one request and returns the bytes of its body; `None` when the client has gone.
fn skip_request(reader: &mut impl BufRead) -> Result<Option<u64>> {
    let mut body_bytes = None;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            body_bytes = Some(value.trim().parse().context("parse content-length")?);
        }
    }
    let Some(body_bytes) = body_bytes else { bail!("a request without content-length") };
    let copied = std::io::copy(&mut reader.take(body_bytes), &mut std::io::sink()).unwrap_or(0);
    Ok((copied == body_bytes).then_some(body_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_connection_is_answered_and_counted() {
        let sink = HttpSink::start().expect("the sink starts");
        let mut stream = TcpStream::connect(sink.address).expect("the sink listens");
        for _ in 0..2 {
            stream.write_all(b"POST /v1/metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").expect("sent");
            let mut answer = [0; ANSWER.len()];
            stream.read_exact(&mut answer).expect("answered");
            assert_eq!(answer, ANSWER);
        }
        assert_eq!(sink.received(), Received { requests: 2, bytes: 6 });
    }

    #[test]
    fn a_request_that_breaks_off_is_no_request() {
        assert_eq!(skip_request(&mut &b""[..]).expect("no error"), None);
        assert_eq!(
            skip_request(&mut &b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nab"[..]).expect("no error"),
            None
        );
        assert!(skip_request(&mut &b"POST / HTTP/1.1\r\n\r\n"[..]).is_err());
    }
}
