//! Heads of HTTP messages: the start line and the few headers that matter.
//!
//! Refuses: bodies, credentials, and what a head means to its connection.

use httparse::{EMPTY_HEADER, Error, Header, ParserConfig, Request, Response, Status};

use super::context::Carriers;

/// Headers that are looked at; a head with more is known in part.
const HEADERS_MAX: usize = 64;

/// What bytes are as a head.
pub enum Outcome<H> {
    /// A head, and the bytes it takes.
    Whole(H, usize),
    /// The begin of a head, and what is known of it: nothing if its start line is not understood yet.
    Part(Option<H>),
    /// Not a head.
    Invalid,
}

/// How long a body is by its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// The head does not say.
    #[default]
    Unsaid,
    /// So many bytes.
    Bytes(u64),
    /// In chunks.
    Chunked,
    /// In another transfer coding, which ends with the connection.
    Coded,
    /// The head contradicts itself.
    Invalid,
}

/// Head of a request.
pub struct RequestHead<'a> {
    /// The method as it came.
    pub method: &'a str,
    /// What is asked for.
    pub target: &'a str,
    /// Whether the end of the target is missing.
    pub is_target_cut: bool,
    /// The minor version, if it was reached.
    pub version: Option<u8>,
    /// Header `host`.
    pub host: Option<&'a str>,
    /// Header `user-agent`.
    pub user_agent: Option<&'a str>,
    /// Its body.
    pub length: Length,
    /// The trace it belongs to.
    pub carriers: Carriers<'a>,
}

/// Head of a response.
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Its body.
    pub length: Length,
}

/// Reads the head of a request.
pub fn request(bytes: &[u8]) -> Outcome<RequestHead<'_>> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = Request::new(&mut headers);
    let result =
        ParserConfig::default().ignore_invalid_headers_in_requests(true).parse_request(&mut parsed, bytes);
    let head = parsed.method.and_then(|method| {
        let target = parsed.path.or_else(|| cut_target(bytes, method))?;
        let mut head = RequestHead {
            method,
            target,
            is_target_cut: parsed.path.is_none(),
            version: parsed.version,
            host: None,
            user_agent: None,
            length: Length::Unsaid,
            carriers: Carriers::default(),
        };
        known(parsed.headers).for_each(|header| head.note(header));
        Some(head)
    });
    outcome(result, head)
}

/// Reads the head of a response.
pub fn response(bytes: &[u8]) -> Outcome<ResponseHead> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = Response::new(&mut headers);
    let result = ParserConfig::default()
        .ignore_invalid_headers_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true)
        .parse_response(&mut parsed, bytes);
    let head = parsed.code.map(|status| {
        let mut length = Length::Unsaid;
        known(parsed.headers).for_each(|header| length.note(header));
        ResponseHead { status, length }
    });
    outcome(result, head)
}

/// Finds where a head ends, however it is cut.
#[derive(Debug, Default)]
pub struct EndFinder {
    /// How much of the empty line that ends a head was seen: a line's end, and the first byte of the next one's.
    seen: u8,
}

impl EndFinder {
    /// Index after the end.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            self.seen = match (byte, self.seen) {
                (b'\n', 0) => 1,
                (b'\n', _) => return Some(index + 1),
                (b'\r', 1) => 2,
                _ => 0,
            };
        }
        None
    }
}

impl<'a> RequestHead<'a> {
    fn note(&mut self, header: &Header<'a>) {
        let name = header.name;
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => self.host = std::str::from_utf8(header.value).ok(),
            10 if name.eq_ignore_ascii_case("user-agent") => {
                self.user_agent = std::str::from_utf8(header.value).ok();
            }
            14 | 17 => self.length.note(header),
            2 | 10..=12 => self.carriers.note(name, header.value),
            _ => {}
        }
    }
}

impl Length {
    fn note(&mut self, header: &Header<'_>) {
        let name = header.name;
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = decimal(header.value).map_or(Self::Invalid, Self::Bytes);
                *self = match *self {
                    // A transfer coding overrides the length (RFC 9112, 6.3).
                    Self::Chunked | Self::Coded => *self,
                    Self::Unsaid => length,
                    before if before == length => length,
                    _ => Self::Invalid,
                };
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                let last = header.value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
                let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
                *self = if is_chunked { Self::Chunked } else { Self::Coded };
            }
            _ => {}
        }
    }
}

/// The headers that were read; the array is longer when the head is not whole.
fn known<'h, 'a>(headers: &'h [Header<'a>]) -> impl Iterator<Item = &'h Header<'a>> {
    headers.iter().take_while(|header| !header.name.is_empty())
}

fn outcome<H>(result: httparse::Result<usize>, head: Option<H>) -> Outcome<H> {
    match (result, head) {
        (Ok(Status::Complete(length)), Some(head)) => Outcome::Whole(head, length),
        (Ok(Status::Partial) | Err(Error::TooManyHeaders), head) => Outcome::Part(head),
        _ => Outcome::Invalid,
    }
}

/// What there is of a target whose end was not reached.
fn cut_target<'a>(bytes: &'a [u8], method: &str) -> Option<&'a str> {
    let rest = bytes.trim_ascii_start().get(method.len() + 1..)?;
    std::str::from_utf8(rest).ok().filter(|rest| !rest.is_empty() && !rest.contains(' '))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    // `parse` alone would also take a sign.
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_decimal)?.parse().ok()
}
