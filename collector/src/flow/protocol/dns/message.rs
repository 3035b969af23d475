//! DNS messages: header, first question, and the answers that are addresses or aliases.
//!
//! Read here and not by a library: messages are often cut, and libraries refuse those as a whole, allocate for each label
//! and reserve memory by counts that the sender chose. Refuses: EDNS, DNSSEC, sections behind the answers.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::flow::protocol::Text;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;

/// Answers that are kept.
const ANSWERS_MAX: usize = 16;

/// Bytes of a name on the wire, and of one label.
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: u8 = 63;

/// Questions that anyone asks at once; multicast asks several.
const QUESTIONS_MAX: u16 = 32;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;

/// The fixed part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which question an answer is for.
    pub id: u16,
    /// Whether it is a response.
    pub is_response: bool,
    /// Kind of the query: 0 is the usual one.
    pub opcode: u8,
    /// Whether the bit that must be zero is.
    pub is_reserved_zero: bool,
    /// Response code.
    pub code: u8,
    /// How many questions, answers, authorities and additional records.
    pub counts: [u16; 4],
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, escaped as the semantic conventions want it.
    pub name: String,
    /// The type of records.
    pub kind: u16,
    /// The class of records.
    pub class: u16,
}

/// The answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Addresses and aliases.
    pub values: Vec<Text>,
    /// Whose the first is.
    pub owner: Option<String>,
    /// Whether some of the message was not there to be read.
    pub is_partial: bool,
}

/// Reads a message from front to back.
pub struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Header {
    /// The header of a message.
    pub fn read(message: &[u8]) -> Option<Self> {
        let (fields, _) = message.get(..HEADER_BYTES)?.as_chunks::<2>();
        let [id, flags, counts @ ..] = fields else { return None };
        let [high, low] = *flags;
        Some(Self {
            id: u16::from_be_bytes(*id),
            is_response: high & 0x80 != 0,
            opcode: high >> 3 & 0xf,
            is_reserved_zero: low & 0x40 == 0,
            code: low & 0xf,
            counts: <[[u8; 2]; 4]>::try_from(counts).ok()?.map(u16::from_be_bytes),
        })
    }

    /// Whether a message that is well-formed may have it.
    pub fn is_sane(&self) -> bool {
        let [questions, answers, authorities, _] = self.counts;
        // Query, inverse query, status, notify, update, stateful operations.
        let is_opcode = matches!(self.opcode, 0..=2 | 4..=6);
        let is_request = self.code == 0 && questions > 0;
        let is_response = questions > 0 || answers > 0 || authorities > 0 || self.code != 0;
        is_opcode && questions <= QUESTIONS_MAX && if self.is_response { is_response } else { is_request }
    }
}

impl<'a> Reader<'a> {
    /// Behind the header.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: HEADER_BYTES }
    }

    /// Whether all was read.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// Whether a record of EDNS is next: all that a query has behind its question.
    pub fn is_at_options(&self) -> bool {
        matches!(self.message.get(self.at..), Some([0, high, low, ..]) if u16::from_be_bytes([*high, *low]) == TYPE_OPT)
    }

    /// The question that is next.
    pub fn question(&mut self) -> Option<Question> {
        Some(Question { name: self.name()?, kind: self.number()?, class: self.number()? })
    }

    /// So many answers.
    pub fn answers(&mut self, count: u16) -> Answers {
        let mut answers = Answers::default();
        for _ in 0..count {
            if answers.values.len() >= ANSWERS_MAX {
                break;
            }
            if self.answer(&mut answers).is_none() {
                answers.is_partial = true;
                break;
            }
        }
        answers
    }

    fn answer(&mut self, answers: &mut Answers) -> Option<()> {
        if answers.owner.is_none() {
            answers.owner = Some(self.name()?);
        } else {
            self.skip_name()?;
        }
        let kind = self.number()?;
        // Class and time to live.
        self.at += 6;
        let length = usize::from(self.number()?);
        let end = self.at.checked_add(length)?;
        let data = self.message.get(self.at..end)?;
        let value = match kind {
            TYPE_A => <[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
            TYPE_AAAA => <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
            TYPE_CNAME => self.name(),
            _ => None,
        };
        self.at = end;
        answers.values.extend(value.map(Cow::Owned));
        Some(())
    }

    fn number(&mut self) -> Option<u16> {
        let end = self.at.checked_add(2)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    /// A name. Each pointer must go further back than all before it, so that they end.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut lowest = self.at;
        let mut after = None;
        let mut bytes = 1;
        loop {
            let length = *self.message.get(at)?;
            match length {
                0 => break,
                1..=LABEL_BYTES_MAX => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length))?;
                    bytes += 1 + label.len();
                    if bytes > NAME_BYTES_MAX {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    push_label(&mut name, label);
                    at += 1 + label.len();
                }
                0xc0.. => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(*self.message.get(at + 1)?);
                    if target >= lowest {
                        return None;
                    }
                    after.get_or_insert(at + 2);
                    lowest = target;
                    at = target;
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(at + 1);
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    fn skip_name(&mut self) -> Option<()> {
        loop {
            match *self.message.get(self.at)? {
                0 => self.at += 1,
                length @ 1..=LABEL_BYTES_MAX => {
                    self.at += 1 + usize::from(length);
                    continue;
                }
                0xc0.. => self.at += 2,
                _ => return None,
            }
            return Some(());
        }
    }
}

impl Question {
    /// Whether both ask the same. Resolvers vary the case of names.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same_kind = self.kind == other.kind && self.class == other.class;
        is_same_kind && self.name.eq_ignore_ascii_case(&other.name)
    }

    /// Whether it is plain enough to be one on a port where nobody expects it.
    pub fn is_plain(&self) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        kind_name(self.kind).is_some() && self.class == 1 && self.name.bytes().all(is_plain)
    }
}

/// Name of a type of records, of those that are in use.
pub fn kind_name(kind: u16) -> Option<&'static str> {
    Some(match kind {
        TYPE_A => "A",
        2 => "NS",
        TYPE_CNAME => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        TYPE_AAAA => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        TYPE_OPT => "OPT",
        43 => "DS",
        44 => "SSHFP",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => return None,
    })
}

/// Name of a response code (RFC 6895), and whether the server is to blame.
pub fn code_name(code: u8) -> Option<(&'static str, bool)> {
    Some(match code {
        0 => return None,
        1 => ("FORMERR", false),
        2 => ("SERVFAIL", true),
        3 => ("NXDOMAIN", false),
        4 => ("NOTIMP", true),
        5 => ("REFUSED", true),
        6 => ("YXDOMAIN", false),
        7 => ("YXRRSET", false),
        8 => ("NXRRSET", false),
        9 => ("NOTAUTH", true),
        10 => ("NOTZONE", false),
        11 => ("DSOTYPENI", true),
        _ => ("_OTHER", true),
    })
}

fn push_label(name: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'\t' => name.push_str("\\t"),
            b'\r' => name.push_str("\\r"),
            b'\n' => name.push_str("\\n"),
            b'.' | b'\\' | b'"' => name.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => name.push(char::from(*byte)),
            // Writing to a string can't fail.
            _ => _ = write!(name, "\\{byte:03}"),
        }
    }
}
