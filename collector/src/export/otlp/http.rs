//! OTLP over HTTP with protobuf bodies: one POST, and what its answer means.
//!
//! Refuses redirects, compressed answers, and response bodies over `RESPONSE_BYTES_MAX`.
//!
//! Spec: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::{
    io::{self, Write},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;

use super::{
    Compression,
    answer::{self, Answer, RESPONSE_BYTES_MAX},
    retry,
    transport::{Client, describe},
};

/// Sends one signal's requests over HTTP.
pub(super) struct HttpTransport {
    client: Client,
    uri: Uri,
    headers: HeaderMap,
    compression: Compression,
}

impl HttpTransport {
    pub(super) fn new(
        client: Client,
        uri: Uri,
        mut headers: HeaderMap,
        compression: Compression,
    ) -> HttpTransport {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        match compression {
            Compression::None => headers.remove(header::CONTENT_ENCODING),
            Compression::Gzip => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            Compression::Zstd => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd")),
        };
        HttpTransport { client, uri, headers, compression }
    }

    /// Makes one attempt. Compresses each time anew: retries are seconds apart, and a payload that waits for one
    /// shouldn't be held twice.
    pub(super) async fn send(&self, body: Bytes) -> Answer {
        let body = match compress(self.compression, body) {
            Ok(body) => body,
            Err(error) => {
                return Answer::Refused { why: format!("cannot compress the request: {error}") };
            }
        };
        let mut request = Request::new(tonic::body::Body::new(Full::new(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        match self.client.request(request).await {
            Ok(response) => read(response).await,
            Err(error) => Answer::Retry { after: None, why: describe(&error) },
        }
    }
}

async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map(Collected::to_bytes);
    if head.status.is_success() {
        return body.map_or_else(|error| Answer::garbled(&error), |body| Answer::accepted(&body));
    }
    let words = answer::words(&body.unwrap_or_default());
    let why = format!("HTTP {}{}{words}", head.status, if words.is_empty() { "" } else { ": " });
    if retryable(head.status) {
        return Answer::Retry { after: retry_after(&head.headers), why };
    }
    if head.status.is_redirection() {
        let location = head.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = answer::printable(location.unwrap_or("nowhere"));
        return Answer::Refused {
            why: format!("{why} (redirects are not followed; it points to {location})"),
        };
    }
    Answer::Refused { why }
}

/// <https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes>
fn retryable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn retry_after(headers: &HeaderMap) -> Option<std::time::Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    retry::retry_after(value, SystemTime::now())
}

fn compress(compression: Compression, body: Bytes) -> io::Result<Bytes> {
    match compression {
        Compression::None => Ok(body),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&body)?;
            encoder.finish().map(Bytes::from)
        }
        Compression::Zstd => zstd::bulk::compress(&body, zstd::DEFAULT_COMPRESSION_LEVEL).map(Bytes::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_statuses_are_retried() {
        let retried: Vec<u16> =
            (100..600).filter(|code| retryable(StatusCode::from_u16(*code).unwrap())).collect();
        assert_eq!(retried, [429, 502, 503, 504]);
    }
}
