//! Who asks servers: curl, and so many threads of this process at once.
//!
//! Refuses: to ask anything that is not answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::tools;

/// What curl is told to write of each transfer.
const FORMAT: &str =
    "%{method} %{url_effective} %{http_code} %{time_connect} %{time_total} %{size_download}\\n";

/// A transfer, as curl tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// Seconds from when the connection was made, or the transfer began on an old one, to the last byte of the answer.
    pub seconds: f64,
    /// Bytes of the answer's body.
    pub body_bytes: u64,
}

/// Runs curl with these arguments, on these addresses.
pub fn curl(arguments: &[&str], urls: &[String]) -> Vec<Transfer> {
    let mut command = Command::new(tools::require("curl", "curl"));
    command.args(["--silent", "--show-error", "--globoff", "--write-out", FORMAT]).args(arguments);
    for url in urls {
        command.args(["--output", "/dev/null", url]);
    }
    let said = String::from_utf8_lossy(&tools::succeed(&mut command).stdout).into_owned();
    let transfers: Vec<Transfer> = said.lines().map(Transfer::parse).collect();
    assert_eq!(transfers.len(), urls.len(), "{said}");
    transfers
}

/// The addresses of `/item/0`, `/item/1` and so on.
pub fn items(address: SocketAddr, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("http://{address}/item/{number}")).collect()
}

/// Asks for `/item/N` with each number once, from so many threads with a connection each.
pub fn ask_at_once(address: SocketAddr, requests: usize, threads: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).expect("it listens");
                for number in (thread..requests).step_by(threads) {
                    let request = format!("GET /item/{number} HTTP/1.1\r\nHost: {address}\r\n\r\n");
                    stream.write_all(request.as_bytes()).expect("it reads");
                    read_response(&mut stream);
                }
            });
        }
    });
}

/// Reads a response with a length or in chunks to its end.
fn read_response(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let is_whole = match length {
                Some(length) => body.len() >= length.trim().parse().expect("a length"),
                None => body.ends_with("0\r\n\r\n"),
            };
            if is_whole {
                return;
            }
        }
        let count = stream.read(&mut buffer).expect("it answers");
        assert!(count > 0, "closed in the middle: {text}");
        bytes.extend_from_slice(&buffer[..count]);
    }
}

impl Transfer {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let [method, url, status, begin, end, body_bytes] = words[..] else {
            panic!("no line of ours: {line}")
        };
        let seconds = |word: &str| word.parse::<f64>().expect("curl writes seconds");
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        Self {
            method: method.to_owned(),
            target: format!("/{path}"),
            status: status.parse().expect("curl writes a status"),
            seconds: seconds(end) - seconds(begin),
            body_bytes: body_bytes.parse().expect("curl writes bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Transfer;

    #[test]
    fn what_curl_says() {
        let transfer = Transfer::parse("GET http://127.0.0.1:80/a/b?n=1 404 0.250000 1.000000 153");
        let (target, seconds) = (transfer.target.as_str(), transfer.seconds);
        assert_eq!((target, transfer.status, seconds, transfer.body_bytes), ("/a/b?n=1", 404, 0.75, 153));
    }
}
