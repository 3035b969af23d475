//! A blocking HTTP/1.1 client: one request, one connection, one answer.
//!
//! Refuses: TLS, redirects and keep-alive; what a test asks, it asks on the loopback.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it came.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless the answer is a good one.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self
    }
}

/// Asks for a path, which may hold a query.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    send(address, "GET", path, headers, Bytes::new())
}

/// Sends a body to a path.
pub fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    send(address, "POST", path, headers, body.into())
}

/// A value as a form or a query holds it: all but letters, digits and `-._~` as `%XX` (RFC 3986, 2.3).
pub fn percent_encoded(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value
        .bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, String> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let host = HeaderValue::from_str(&address.to_string()).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(ANSWER_MAX, exchange(address, request)).await;
        answer.map_err(|_| format!("no answer from {address} in {ANSWER_MAX:?}"))?
    })
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    connection.abort();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

#[cfg(test)]
mod tests {
    use super::percent_encoded;

    #[test]
    fn promql_survives_a_query() {
        let cases = [("up", "up"), ("a{b=\"c d\"}[5m]+é", "a%7Bb%3D%22c%20d%22%7D%5B5m%5D%2B%C3%A9")];
        for (plain, encoded) in cases {
            assert_eq!(percent_encoded(plain), encoded);
        }
    }
}
