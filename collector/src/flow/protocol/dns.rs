//! DNS over UDP and TCP: questions and their answers, paired by number and question.
//!
//! Refuses: zone transfers behind their first message, what multicast says without being asked, DNS over TLS and HTTPS.

mod framing;
mod message;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;

use super::{
    Attribute, Direction, Exchange, Extent, Failure, Mark, Output, PENDING_MAX, Pattern, Piece, Progress,
    Protocol, Text, Transport, Value,
};
use framing::Framing;
use message::{Answers, HEADER_BYTES, Header, Question, Reader, code_name, kind_name};

/// A question without an answer for so long gets none: resolvers give up sooner.
const ANSWER_NS_MAX: u64 = 15_000_000_000;

/// Ports of DNS, of multicast DNS and of link-local name resolution.
const PORTS: [u16; 3] = [53, 5353, 5355];

/// The state of one connection, or of one datagram socket.
#[derive(Debug)]
pub struct Dns {
    transport: Transport,
    requests: Framing,
    responses: Framing,
    /// Questions that wait, the oldest first.
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    id: u16,
    question: Question,
    extent: Extent,
    is_partial: bool,
}

/// A whole message, or what there is of one.
struct Received<'a> {
    bytes: &'a [u8],
    extent: Extent,
    is_partial: bool,
}

/// Whether these are the first bytes of a message.
pub fn detect(bytes: &[u8], transport: Transport, ports: [u16; 2]) -> Option<Direction> {
    let is_expected = ports.iter().any(|port| PORTS.contains(port));
    let message = match transport {
        Transport::Udp => bytes,
        Transport::Tcp => {
            let (prefix, message) = bytes.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*prefix));
            message
                .get(..length)
                .or(Some(message))
                .filter(|_| length >= HEADER_BYTES && ports.contains(&53))?
        }
    };
    let header = Header::read(message).filter(Header::is_sane)?;
    let mut reader = Reader::new(message);
    let mut questions = (0..header.counts[0]).map(|_| reader.question());
    let first = questions.next();
    let is_whole = first.as_ref().is_none_or(Option::is_some) && questions.all(|question| question.is_some());
    let is_certain = is_expected || is_certain(&header, first.flatten().as_ref(), &reader);
    let direction = if header.is_response { Direction::Response } else { Direction::Request };
    (is_whole && is_certain).then_some(direction)
}

/// Whether it can hardly be anything else, where no port says so.
fn is_certain(header: &Header, question: Option<&Question>, reader: &Reader<'_>) -> bool {
    let is_plain = header.opcode == 0 && header.is_reserved_zero && question.is_some_and(Question::is_plain);
    let is_end = match (header.is_response, header.counts) {
        (false, [1, 0, 0, 0]) => reader.is_at_end(),
        (false, [1, 0, 0, 1]) => reader.is_at_options(),
        (true, [1, 0, 0, 0]) => reader.is_at_end(),
        (true, [1, 0, 0, 1]) => reader.is_at_options(),
        (true, [1, ..]) => !reader.is_at_end(),
        _ => false,
    };
    is_plain && is_end
}

impl Dns {
    /// At the start of a connection, or in the middle of one.
    pub fn new(transport: Transport) -> Self {
        let (requests, responses) = Default::default();
        Self { transport, requests, responses, pending: VecDeque::new() }
    }

    /// Takes a piece.
    pub fn take(&mut self, direction: Direction, piece: Piece<'_>, output: &mut Output) -> Progress {
        self.expire(piece.mark, output);
        let Piece { mut bytes, mut missing, mut mark, .. } = piece;
        if self.transport == Transport::Udp {
            let length = missing.saturating_add(bytes.len() as u64);
            let extent = Extent { first: mark, last: mark, bytes: length };
            // A hole without bytes is datagrams that nobody saw.
            if !bytes.is_empty() {
                self.receive(direction, Received { bytes, extent, is_partial: missing > 0 }, output);
            }
            return Progress::More;
        }
        if piece.is_turn {
            self.framing(direction).turn();
        }
        while let Some(frame) = self.framing(direction).take(&mut bytes, &mut missing, mark) {
            mark = piece.mark_at(bytes);
            let received =
                Received { bytes: &frame.bytes, extent: frame.extent, is_partial: frame.is_partial };
            self.receive(direction, received, output);
        }
        Progress::More
    }

    /// Whether nothing waits for its response.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The connection ended.
    pub fn finish(&mut self, _mark: Mark, output: &mut Output) {
        output.exchanges.extend(self.pending.drain(..).map(Pending::unanswered));
        *self = Self::new(self.transport);
    }

    fn framing(&mut self, direction: Direction) -> &mut Framing {
        match direction {
            Direction::Request => &mut self.requests,
            Direction::Response => &mut self.responses,
        }
    }

    /// Gives out what waits for too long.
    fn expire(&mut self, now: Mark, output: &mut Output) {
        let is_old =
            |pending: &mut Pending| now.time_ns.saturating_sub(pending.extent.first.time_ns) > ANSWER_NS_MAX;
        while let Some(pending) = self.pending.pop_front_if(is_old) {
            output.exchanges.push(pending.unanswered());
        }
    }

    fn receive(&mut self, direction: Direction, received: Received<'_>, output: &mut Output) {
        let header = Header::read(received.bytes).filter(Header::is_sane);
        let is_response = direction == Direction::Response;
        let Some(header) = header.filter(|header| header.is_response == is_response) else {
            output.rejected += 1;
            return;
        };
        let mut reader = Reader::new(received.bytes);
        let question = if header.counts[0] > 0 { reader.question() } else { None };
        if question.is_none() && header.counts[0] > 0 {
            // Without the question nothing can be paired.
            let count = if received.is_partial { &mut output.abandoned } else { &mut output.rejected };
            *count += 1;
            return;
        }
        // Of several questions only the first is read; the answers then stand behind the others.
        let is_readable = (1..header.counts[0]).all(|_| reader.question().is_some());
        match question {
            _ if is_response => {
                let answers = if is_readable { reader.answers(header.counts[1]) } else { Answers::default() };
                self.answer(&header, question.as_ref(), answers, &received, output);
            }
            Some(question) => self.ask(header.id, question, &received, output),
            None => {}
        }
    }

    fn ask(&mut self, id: u16, question: Question, received: &Received<'_>, output: &mut Output) {
        let is_known = |pending: &Pending| pending.id == id && pending.question.is_same(&question);
        // Asked again because the answer was lost: to the one who asks it is one wait.
        if self.pending.iter().any(is_known) {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.pending.pop_front();
            output.abandoned += 1;
        }
        let (mut extent, is_partial) = (received.extent, received.is_partial);
        if self.transport == Transport::Udp {
            extent.first.position = id.into();
        }
        self.pending.push_back(Pending { id, question, extent, is_partial });
    }

    fn answer(
        &mut self,
        header: &Header,
        question: Option<&Question>,
        answers: Answers,
        received: &Received<'_>,
        output: &mut Output,
    ) {
        let is_asked = |pending: &Pending| {
            pending.id == header.id
                && match (question, &answers.owner) {
                    (Some(question), _) => pending.question.is_same(question),
                    // Some servers leave the question out of errors, multicast out of answers.
                    (None, Some(owner)) => pending.question.name.eq_ignore_ascii_case(owner),
                    (None, None) => header.code != 0,
                }
        };
        let place = self.pending.iter().position(is_asked);
        if let Some(pending) = place.and_then(|place| self.pending.remove(place)) {
            output.exchanges.push(pending.answered(header.code, answers, received));
        }
    }
}

impl Pending {
    fn answered(self, code: u8, answers: Answers, received: &Received<'_>) -> Exchange {
        let failure = code_name(code).map(|(kind, is_servers)| Failure {
            kind: Cow::Borrowed(kind),
            message: String::new(),
            is_servers,
        });
        let is_partial = received.is_partial || answers.is_partial;
        let mut exchange = self.exchange(Some(received.extent), failure);
        exchange.is_partial |= is_partial;
        if !answers.values.is_empty() {
            exchange.attributes.push(Attribute::of_span("dns.answers", Value::Texts(answers.values)));
        }
        exchange
    }

    fn unanswered(self) -> Exchange {
        let failure = Failure { kind: Cow::Borrowed("timeout"), message: String::new(), is_servers: true };
        self.exchange(None, Some(failure))
    }

    fn exchange(self, response: Option<Extent>, failure: Option<Failure>) -> Exchange {
        let kind = kind_name(self.question.kind);
        Exchange {
            protocol: Protocol::Dns,
            pattern: Pattern::Call,
            request: self.extent,
            response,
            name: kind.map_or(Text::Borrowed("DNS"), |kind| ["DNS ", kind].concat().into()),
            attributes: vec![
                Attribute::of_span("dns.question.name", self.question.name),
                Attribute::of_both("kansoku.dns.question.type", kind.unwrap_or("_OTHER")),
            ],
            failure,
            context: None,
            is_partial: self.is_partial,
        }
    }
}
