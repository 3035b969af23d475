//! OTLP over gRPC: one unary call with an already encoded request, and what its status means.
//!
//! Refuses compressed answers, and messages over `RESPONSE_BYTES_MAX`.
//!
//! Spec: <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>

use std::{
    error::Error as _,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, Uri, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use tonic::{
    Code, Request, Status,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::{
    Compression, Endpoint, Signal,
    answer::{self, Answer, RESPONSE_BYTES_MAX},
    transport::{Client, describe},
};

/// Longest timeout told to the backend: `grpc-timeout` has eight digits, and tonic panics on more.
const TOLD_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// Sends one signal's requests over gRPC.
pub(super) struct GrpcTransport {
    grpc: Grpc<Wire>,
    path: PathAndQuery,
    /// Told to the backend (`grpc-timeout`), which can then stop working on what nobody waits for.
    timeout: Duration,
}

/// The shared client, with the user's headers added to each call.
#[derive(Clone)]
struct Wire {
    client: Client,
    headers: HeaderMap,
}

/// Passes messages through as they are: requests arrive encoded, and answers are read by `answer`.
#[derive(Clone, Copy)]
struct Encoded;

impl GrpcTransport {
    pub(super) fn new(
        signal: Signal,
        client: Client,
        origin: Uri,
        headers: HeaderMap,
        endpoint: &Endpoint,
    ) -> GrpcTransport {
        let grpc =
            Grpc::with_origin(Wire { client, headers }, origin).max_decoding_message_size(RESPONSE_BYTES_MAX);
        // Servers in Go compress the answer as the request was, whether we offered to read that or not.
        let grpc =
            grpc.accept_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Zstd);
        let grpc = match endpoint.compression {
            Compression::None => grpc,
            Compression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
        };
        let path = PathAndQuery::from_static(signal.grpc_path());
        GrpcTransport { grpc, path, timeout: endpoint.timeout.min(TOLD_TIMEOUT_MAX) }
    }

    /// Makes one attempt.
    pub(super) async fn send(&self, body: Bytes) -> Answer {
        let mut request = Request::new(body);
        request.set_timeout(self.timeout);
        match self.grpc.clone().unary(request, self.path.clone(), Encoded).await {
            Ok(response) => Answer::accepted(response.get_ref()),
            Err(status) => read(&status),
        }
    }
}

/// Sorts a failed call.
fn read(status: &Status) -> Answer {
    // A source means that the failure is the connection's: the backend's own statuses have none.
    if let Some(source) = status.source() {
        return Answer::Retry { after: None, why: describe(source) };
    }
    let why = format!("gRPC {:?}: {}", status.code(), answer::printable(status.message()));
    let after = answer::retry_info(status.details());
    if retryable(status.code(), after.is_some()) {
        return Answer::Retry { after, why };
    }
    Answer::Refused { why }
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures>: an exhausted resource is worth a retry only if the backend
/// says, by a `RetryInfo`, that it will recover.
fn retryable(code: Code, retry_info: bool) -> bool {
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => retry_info,
        _ => false,
    }
}

impl GrpcService<Body> for Wire {
    type ResponseBody = Incoming;
    type Error = legacy::Error;
    type Future = legacy::ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> legacy::ResponseFuture {
        for (name, value) in &self.headers {
            // What the protocol set itself is not the user's to change.
            if !request.headers().contains_key(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        self.client.request(request)
    }
}

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Encoded;
    type Decoder = Encoded;

    fn encoder(&mut self) -> Encoded {
        Encoded
    }

    fn decoder(&mut self) -> Encoded {
        Encoded
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.reserve(message.len());
        target.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_codes_are_retried() {
        #[track_caller]
        fn check(retry_info: bool, expected: &[Code]) {
            let retried: Vec<Code> =
                (0..=16).map(Code::from).filter(|code| retryable(*code, retry_info)).collect();
            assert_eq!(retried, expected);
        }
        use Code::{
            Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, ResourceExhausted, Unavailable,
        };
        check(false, &[Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss]);
        check(
            true,
            &[Cancelled, DeadlineExceeded, ResourceExhausted, Aborted, OutOfRange, Unavailable, DataLoss],
        );
    }
}
