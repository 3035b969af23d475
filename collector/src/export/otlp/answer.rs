//! What a backend's answer means for a payload, and the few protobuf messages to read it with.
//!
//! Refuses to trust: every byte here comes from the network, and what can't be read is said so instead of failing.

use std::time::Duration;

use prost::Message;

/// Longest response body that is read, in bytes.
pub(super) const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// How much of a backend's own words reaches our log, in characters.
const WORDS_CHARS_MAX: usize = 300;

const RETRY_INFO_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The end of one attempt.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Taken, all but `rejected` records. `notice` is the backend's message, or ours about a garbled answer.
    Accepted { rejected: u64, notice: Option<String> },
    /// Worth another attempt, after the wait the backend asked for.
    Retry { after: Option<Duration>, why: String },
    /// Would fail again the same way.
    Refused { why: String },
}

impl Answer {
    /// Reads the body of a successful answer.
    ///
    /// A body that can't be read counts as accepted: the status said success, and sending the payload again would
    /// double it. The spec leaves the case open.
    pub(super) fn accepted(body: &[u8]) -> Answer {
        match ExportResponse::decode(body) {
            Ok(response) => {
                let partial = response.partial_success.unwrap_or_default();
                let notice = printable(&partial.error_message);
                Answer::Accepted {
                    rejected: u64::try_from(partial.rejected).unwrap_or(0),
                    notice: (!notice.is_empty()).then_some(notice),
                }
            }
            Err(error) => Answer::garbled(&error),
        }
    }

    /// Success was said, but what came with it can't be read.
    pub(super) fn garbled(error: &dyn std::fmt::Display) -> Answer {
        Answer::Accepted {
            rejected: 0,
            notice: Some(format!("the backend reports success with an unreadable answer: {error}")),
        }
    }
}

/// What a failed HTTP answer says: the message of the `google.rpc.Status` that the spec prescribes, or the start of
/// the text that proxies send instead.
pub(super) fn words(body: &[u8]) -> String {
    match RpcStatus::decode(body) {
        Ok(status) if !status.message.is_empty() => printable(&status.message),
        _ => str::from_utf8(body).map(printable).unwrap_or_default(),
    }
}

/// The wait in the `google.rpc.RetryInfo` of an encoded `google.rpc.Status`; zero if it names none, `None` if there
/// is no `RetryInfo`.
pub(super) fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url == RETRY_INFO_TYPE)?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// Cuts foreign text to what a log line can bear, without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(WORDS_CHARS_MAX).collect()
}

/// `Export<Signal>ServiceResponse`. The four differ in the name of `rejected_*` only, which protobuf doesn't encode.
/// `opentelemetry/proto/collector/*/v1*/*_service.proto`
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `Export<Signal>PartialSuccess`.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`, without its code. `google/rpc/status.proto`
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`. `google/rpc/error_details.proto`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_read() {
        #[track_caller]
        fn check(partial: Option<(i64, &str)>, rejected: u64, notice: Option<&str>) {
            let partial_success = partial
                .map(|(rejected, message)| PartialSuccess { rejected, error_message: message.to_owned() });
            let body = ExportResponse { partial_success }.encode_to_vec();
            let notice = notice.map(str::to_owned);
            assert_eq!(Answer::accepted(&body), Answer::Accepted { rejected, notice });
        }
        check(None, 0, None);
        check(Some((0, "")), 0, None);
        check(Some((7, "too \nold")), 7, Some("too old"));
        check(Some((0, "deprecated")), 0, Some("deprecated"));
        check(Some((-5, "")), 0, None);
    }

    #[test]
    fn an_unreadable_success_is_a_success() {
        for body in [b"<html>".as_slice(), &[0x0a, 0xff], &[0xff; 40]] {
            let answer = Answer::accepted(body);
            assert!(matches!(answer, Answer::Accepted { rejected: 0, notice: Some(_) }), "{answer:?}");
        }
    }

    #[test]
    fn retry_info_is_found() {
        #[track_caller]
        fn check(types: &[&str], delay: Option<(i64, i32)>, expected: Option<Duration>) {
            let retry_delay = delay.map(|(seconds, nanos)| ProtoDuration { seconds, nanos });
            let value = RetryInfo { retry_delay }.encode_to_vec();
            let details =
                types.iter().map(|name| Any { type_url: (*name).to_owned(), value: value.clone() }).collect();
            let status = RpcStatus { message: "slow down".to_owned(), details };
            assert_eq!(retry_info(&status.encode_to_vec()), expected);
        }
        let other = "type.googleapis.com/google.rpc.DebugInfo";
        check(&[], None, None);
        check(&[other], Some((1, 0)), None);
        check(&[RETRY_INFO_TYPE], None, Some(Duration::ZERO));
        check(&[other, RETRY_INFO_TYPE], Some((2, 500_000_000)), Some(Duration::from_millis(2500)));
        check(&[RETRY_INFO_TYPE], Some((-2, -5)), Some(Duration::ZERO));
        check(
            &[RETRY_INFO_TYPE],
            Some((i64::MAX, i32::MAX)),
            Some(Duration::new(u64::MAX / 2 + 2, 147_483_647)),
        );
        assert_eq!(retry_info(&[0xff; 9]), None);
    }

    #[test]
    fn words_come_from_status_or_text() {
        #[track_caller]
        fn check(body: &[u8], expected: &str) {
            assert_eq!(words(body), expected);
        }
        let status = RpcStatus { message: "no such tenant".to_owned(), details: vec![] };
        check(&status.encode_to_vec(), "no such tenant");
        check(b"upstream\r\n down", "upstream down");
        check(b"", "");
        check(&[0xff, 0xfe], "");
        check("é".repeat(5000).as_bytes(), &"é".repeat(WORDS_CHARS_MAX));
    }
}
