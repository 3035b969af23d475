//! HTTP/1.0 and 1.1: requests and their responses, in the order in which they are on the connection.
//!
//! Responses name no request, so a parser that lost its place gives nothing until the client speaks after the server.
//! Refuses: bodies, HTTP/2, what follows an upgrade.

mod body;
mod context;
mod describe;
mod exchange;
mod head;
mod query;
mod route;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::{CARRIED_BYTES_MAX, Direction, Mark, Output, PENDING_MAX, Piece, Progress};
use body::{Body, Input, Verdict};
use exchange::{Answer, Pending};
use head::{Length, Outcome, RequestHead, ResponseHead};
use stream::{Ending, Place, Stream, extend, request_body, response_body};

/// Bytes of a method, so that `detect` does not look for its end in a long text.
const METHOD_BYTES_MAX: usize = 20;

/// The state of one connection.
#[derive(Debug, Default)]
pub struct Http1 {
    requests: Stream,
    responses: Stream,
    /// Requests that wait for their response, the oldest first.
    pending: VecDeque<Pending>,
    /// Whether the last of them is still being sent.
    is_request_open: bool,
    /// The response to the first of them, once its head was read.
    answer: Option<Answer>,
    /// Whether no request was missed after the last of them: else the responses after theirs belong to nobody.
    is_in_step: bool,
}

/// Whether these are the first bytes of a message.
pub fn detect(bytes: &[u8]) -> Option<Direction> {
    if let Some(rest) = bytes.strip_prefix(b"HTTP/1.") {
        let is_status = matches!(rest, [b'0' | b'1', b' ', status @ ..]
            if status.get(..3).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit)));
        return is_status.then_some(Direction::Response);
    }
    let space = bytes.iter().take(METHOD_BYTES_MAX).position(|byte| *byte == b' ')?;
    let (method, rest) = (bytes.get(..space)?, bytes.get(space + 1..)?);
    let end = rest.iter().position(|byte| *byte == b'\n');
    let line = rest.get(..end.unwrap_or(rest.len()))?;
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let (target, version) = (words.next()?, words.next());
    let is_known = describe::known_method(method).is_some();
    let is_target = match target.first()? {
        b'/' => true,
        b'*' => target.len() == 1,
        _ => method == b"CONNECT" || target.starts_with(b"http://") || target.starts_with(b"https://"),
    };
    let is_version = match version {
        Some(version) if end.is_some() => matches!(version, b"HTTP/1.0" | b"HTTP/1.1"),
        Some(version) => b"HTTP/1.1".starts_with(version) || b"HTTP/1.0".starts_with(version),
        None => end.is_none(),
    };
    let is_method =
        is_known || end.is_some() && method.len() >= 3 && method.iter().all(u8::is_ascii_uppercase);
    let is_request = is_method && is_target && is_version && words.next().is_none();
    // Text of other protocols has control bytes sooner or later.
    (is_request && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f)).then_some(Direction::Request)
}

/// Whether these bytes begin with a word that is no method that is known.
fn begins_with_a_rest(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b' ');
    end.and_then(|end| bytes.get(..end)).is_some_and(|word| describe::known_method(word).is_none())
}

impl Http1 {
    /// Takes a piece.
    pub fn take(&mut self, direction: Direction, piece: Piece<'_>, output: &mut Output) -> Progress {
        if piece.is_turn {
            self.turn(direction, piece.bytes, output);
        }
        self.stream(direction).is_behind_hole |= piece.bytes.is_empty() && piece.missing > 0;
        let mut input = Input { bytes: piece.bytes, missing: piece.missing, mark: piece.mark };
        while input.len() > 0 {
            let progress = match self.stream(direction).place {
                Place::Lost => return Progress::More,
                Place::Start | Place::Head => self.take_head(direction, &mut input, output),
                Place::HeadRest(_) => self.take_head_rest(direction, &mut input, output),
                Place::Body(_) => self.take_body(direction, &mut input, output),
            };
            if progress == Progress::Leave {
                return Progress::Leave;
            }
        }
        Progress::More
    }

    /// Whether nothing waits for its response.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The connection ended.
    pub fn finish(&mut self, _mark: Mark, output: &mut Output) {
        let are_responses_lost = self.responses.is_body_lost();
        if let Some(answer) = &mut self.answer {
            match &self.responses.place {
                Place::Body(body) if body.is_endless() => answer.body_bytes = body.size(),
                _ => answer.is_partial = true,
            }
            self.emit_answer(output);
        }
        if are_responses_lost {
            self.abandon(output);
        }
        if matches!(self.requests.place, Place::Head) {
            output.abandoned += 1;
        }
        if let Some(last) = self.pending.back_mut() {
            last.is_partial |= self.is_request_open;
        }
        if let Some(first) = self.pending.front_mut() {
            // Its response had begun.
            first.is_partial |= matches!(self.responses.place, Place::Head);
        }
        for pending in std::mem::take(&mut self.pending) {
            output.exchanges.push(pending.exchange(None));
        }
        *self = Self::default();
    }

    /// The other side spoke before this piece: messages whose end could not be told have ended.
    fn turn(&mut self, direction: Direction, bytes: &[u8], output: &mut Output) {
        let stream = self.stream(direction);
        stream.has_turned = true;
        let is_inside = stream.is_inside();
        // Where a head is, the rest that was expected is not.
        let is_anew = (is_inside || stream.is_body_lost()) && detect(bytes) == Some(direction);
        if is_anew || stream.is_head_doubtful(direction) {
            self.cut_off(direction, output);
        } else if is_inside {
            return;
        }
        match direction {
            Direction::Request if self.responses.is_body_lost() => {
                self.responses.place = Place::Start;
                self.emit_answer(output);
                // Their responses may have been behind the one that ended somewhere.
                self.abandon(output);
            }
            Direction::Response if self.requests.is_body_lost() => {
                self.requests.place = Place::Start;
                self.is_request_open = false;
                self.is_in_step = false;
            }
            _ => {}
        }
        let stream = self.stream(direction);
        if matches!(stream.place, Place::Lost) {
            stream.place = Place::Start;
        }
    }

    /// Ends the message of that direction where it is.
    fn cut_off(&mut self, direction: Direction, output: &mut Output) {
        let is_head = matches!(self.stream(direction).place, Place::Head);
        if is_head {
            output.abandoned += 1;
            self.lose(direction, output);
        } else if direction == Direction::Response {
            if let Some(answer) = &mut self.answer {
                answer.is_partial = true;
            }
            self.emit_answer(output);
        } else if std::mem::take(&mut self.is_request_open)
            && let Some(last) = self.pending.back_mut()
        {
            last.is_partial = true;
        }
        let stream = self.stream(direction);
        stream.carried = Vec::new();
        stream.place = Place::Start;
    }

    fn take_head(&mut self, direction: Direction, input: &mut Input<'_>, output: &mut Output) -> Progress {
        if matches!(self.stream(direction).place, Place::Start) {
            let line_ends = input.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            input.advance(line_ends);
            if input.bytes.is_empty() {
                if input.missing > 0 {
                    self.lose(direction, output);
                }
                return Progress::More;
            }
            self.stream(direction).begin(input.mark);
            // Most heads are whole: they are read where they are.
            let whole = input.bytes.get(..CARRIED_BYTES_MAX).unwrap_or(input.bytes);
            if let Some(progress) = self.open(direction, whole, None, input, output) {
                return progress;
            }
        }
        let stream = self.stream(direction);
        let space = CARRIED_BYTES_MAX.saturating_sub(stream.carried.len());
        let taken = input.bytes.get(..space).unwrap_or(input.bytes);
        let end = stream.end.find(taken);
        let taken = end.and_then(|end| taken.get(..end)).unwrap_or(taken);
        stream.carried.extend_from_slice(taken);
        extend(&mut stream.extent, taken.len() as u64, input.mark);
        input.advance(taken.len());
        let ending = if end.is_some() {
            Ending::Seen
        } else if stream.carried.len() >= CARRIED_BYTES_MAX {
            Ending::Later
        } else if input.bytes.is_empty() && input.missing > 0 {
            Ending::Cut
        } else {
            return Progress::More;
        };
        let carried = std::mem::take(&mut stream.carried);
        self.open(direction, &carried, Some(ending), input, output).unwrap_or(Progress::More)
    }

    /// Reads a head and begins its message. Without an ending it stands in the input and is only taken if it is whole:
    /// nothing is said if it is not.
    fn open(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        ending: Option<Ending>,
        input: &mut Input<'_>,
        output: &mut Output,
    ) -> Option<Progress> {
        let mut enter = |stream: &mut Stream, length: usize| {
            if ending.is_none() {
                extend(&mut stream.extent, length as u64, input.mark);
                input.advance(length);
            }
        };
        let seen = ending.unwrap_or(Ending::Seen);
        match direction {
            // What is behind a hole may be the rest of a word.
            Direction::Request if self.requests.is_behind_hole && begins_with_a_rest(bytes) => {
                output.rejected += 1
            }
            Direction::Request => match head::request(bytes) {
                Outcome::Whole(head, length) => {
                    enter(&mut self.requests, length);
                    self.open_request(&head, seen, false, output);
                    return Some(Progress::More);
                }
                Outcome::Part(Some(head)) if ending.is_some() => {
                    self.open_request(&head, seen, true, output);
                    return Some(Progress::More);
                }
                Outcome::Part(_) if ending.is_none() => return None,
                Outcome::Part(_) => output.abandoned += 1,
                Outcome::Invalid => output.rejected += 1,
            },
            Direction::Response => match head::response(bytes) {
                Outcome::Whole(head, length) => {
                    enter(&mut self.responses, length);
                    return Some(self.open_response(&head, seen, false, output));
                }
                Outcome::Part(Some(head)) if ending.is_some() => {
                    return Some(self.open_response(&head, seen, true, output));
                }
                Outcome::Part(_) if ending.is_none() => return None,
                // The exchange of a rest is counted where its head was lost.
                Outcome::Part(_) | Outcome::Invalid => {
                    output.rejected += u64::from(!self.responses.is_behind_hole);
                }
            },
        }
        self.lose(direction, output);
        Some(Progress::More)
    }

    fn open_request(
        &mut self,
        head: &RequestHead<'_>,
        ending: Ending,
        is_partial: bool,
        output: &mut Output,
    ) {
        self.requests.is_behind_hole = false;
        let body = request_body(head, ending, is_partial);
        let is_over = ending == Ending::Seen && body.is_none();
        self.requests.enter(body, ending);
        if !self.admit(output) {
            output.abandoned += 1;
            return;
        }
        self.is_request_open = !is_over;
        self.pending.push_back(Pending::new(head, self.requests.extent, is_partial));
    }

    /// Whether the response to a request that begins now will be recognised.
    fn admit(&mut self, output: &mut Output) -> bool {
        if !self.is_in_step {
            // The client waited for all responses before it spoke, as far as can be told: the next one is to this request.
            if !self.requests.is_at_turn || self.responses.is_inside() {
                return false;
            }
            self.abandon(output);
            self.is_in_step = true;
        }
        if self.pending.len() >= PENDING_MAX {
            // Responses come in order: without the oldest the others can't be told apart.
            self.abandon(output);
            return false;
        }
        true
    }

    fn open_response(
        &mut self,
        head: &ResponseHead,
        ending: Ending,
        is_partial: bool,
        output: &mut Output,
    ) -> Progress {
        self.responses.is_behind_hole = false;
        let status = head.status;
        let is_interim = (100..200).contains(&status) && status != 101;
        if is_interim {
            if ending == Ending::Seen {
                self.responses.place = Place::Start;
            } else {
                self.lose(Direction::Response, output);
            }
            return Progress::More;
        }
        let Some(pending) = self.pending.front() else {
            // Nobody asked, as far as is known: whether it has a body can't be told.
            self.is_in_step = false;
            self.responses.enter(Some(Body::lost()), ending);
            return if status == 101 { Progress::Leave } else { Progress::More };
        };
        let is_taken_over = status == 101 || pending.is_connect && (200..300).contains(&status);
        let has_body = !(pending.is_head || matches!(status, 204 | 304) || is_taken_over);
        let body = response_body(head.length, ending, is_partial, has_body);
        let is_over = ending == Ending::Seen && body.is_none();
        let body_bytes = (has_body && head.length == Length::Bytes(0)).then_some(0);
        self.answer = Some(Answer { extent: self.responses.extent, status, body_bytes, is_partial });
        self.responses.enter(body, ending);
        if is_over || is_taken_over {
            self.emit_answer(output);
        }
        if is_taken_over { Progress::Leave } else { Progress::More }
    }

    fn take_head_rest(
        &mut self,
        direction: Direction,
        input: &mut Input<'_>,
        output: &mut Output,
    ) -> Progress {
        let stream = self.stream(direction);
        let end = stream.end.find(input.bytes);
        let taken = end.unwrap_or(input.bytes.len());
        input.advance(taken);
        let place = std::mem::take(&mut stream.place);
        stream.place = match place {
            Place::HeadRest(Some(body)) if end.is_some() => Place::Body(body),
            place if end.is_some() => place,
            Place::HeadRest(_) if input.missing > 0 => Place::Body(Body::lost()),
            place => place,
        };
        let is_over = end.is_some() && matches!(stream.place, Place::HeadRest(None));
        self.grow(direction, taken as u64, input.mark);
        if is_over {
            self.close(direction, None, output);
        }
        Progress::More
    }

    fn take_body(&mut self, direction: Direction, input: &mut Input<'_>, output: &mut Output) -> Progress {
        let before = input.len();
        let Place::Body(body) = &mut self.stream(direction).place else { return Progress::More };
        let verdict = body.take(input);
        let size = body.size();
        self.grow(direction, before - input.len(), input.mark);
        match verdict {
            Verdict::More => {}
            Verdict::Over => self.close(direction, size, output),
            Verdict::Lost | Verdict::Broken => {
                output.rejected += u64::from(verdict == Verdict::Broken);
                self.mark_partial(direction);
            }
        }
        Progress::More
    }

    /// The message of that direction is over.
    fn close(&mut self, direction: Direction, body_bytes: Option<u64>, output: &mut Output) {
        self.stream(direction).place = Place::Start;
        match direction {
            Direction::Request => {
                if std::mem::take(&mut self.is_request_open)
                    && let Some(last) = self.pending.back_mut()
                {
                    last.body_bytes = body_bytes;
                }
            }
            Direction::Response => {
                if let Some(answer) = &mut self.answer {
                    answer.body_bytes = body_bytes;
                }
                self.emit_answer(output);
            }
        }
    }

    /// The place in that direction is lost, until the other side has spoken.
    fn lose(&mut self, direction: Direction, output: &mut Output) {
        self.stream(direction).place = Place::Lost;
        self.is_in_step = false;
        if direction == Direction::Response {
            self.abandon(output);
        }
    }

    /// Gives up what waits.
    fn abandon(&mut self, output: &mut Output) {
        output.abandoned += self.pending.len() as u64;
        self.is_in_step &= self.pending.is_empty();
        self.pending.clear();
        self.is_request_open = false;
        self.answer = None;
    }

    fn emit_answer(&mut self, output: &mut Output) {
        let Some(answer) = self.answer.take() else { return };
        let Some(mut pending) = self.pending.pop_front() else { return };
        if self.pending.is_empty() && std::mem::take(&mut self.is_request_open) {
            pending.is_partial = true;
        }
        output.exchanges.push(pending.exchange(Some(answer)));
    }

    fn mark_partial(&mut self, direction: Direction) {
        match direction {
            Direction::Request if self.is_request_open => {
                if let Some(last) = self.pending.back_mut() {
                    last.is_partial = true;
                }
            }
            Direction::Request => {}
            Direction::Response => {
                if let Some(answer) = &mut self.answer {
                    answer.is_partial = true;
                }
            }
        }
    }

    /// More bytes of the message of that direction.
    fn grow(&mut self, direction: Direction, bytes: u64, mark: Mark) {
        let extent = match direction {
            Direction::Request if self.is_request_open => {
                self.pending.back_mut().map(|last| &mut last.extent)
            }
            Direction::Request => None,
            Direction::Response => self.answer.as_mut().map(|answer| &mut answer.extent),
        };
        if let Some(extent) = extent {
            extend(extent, bytes, mark);
        }
    }

    fn stream(&mut self, direction: Direction) -> &mut Stream {
        match direction {
            Direction::Request => &mut self.requests,
            Direction::Response => &mut self.responses,
        }
    }
}
