//! PostgreSQL: version 3 of its protocol.
//!
//! What ends with its own answer is an exchange: a simple query with all of its statements, ended by ReadyForQuery; and each
//! Execute of a prepared statement, ended by its completion, or by ReadyForQuery if that follows and was asked for. After an
//! error the server reads nothing up to the next Sync: what was sent till then never ran and is no exchange. A statement that
//! is prepared and not run is an exchange only if it fails. A query that was sent to a connection in `COPY … FROM STDIN` ends
//! where the client was sent the completion; the bytes of the copy are not those of its request.
//!
//! Refuses: passwords, values, rows and the texts of errors; encryption, replication streams and what follows a request to
//! cancel (the connection is left); function calls, which only old libraries make.

mod detection;
mod failure;
mod pending;
mod reader;
#[cfg(test)]
mod recorded;
mod session;
mod statements;
#[cfg(test)]
mod tests;

use super::{Direction, Extent, Mark, Output, Piece, Progress};
pub use detection::detect;
use reader::{Reader, Step};
use session::Session;

/// The last message of every answer: the server is idle, in a transaction, or in a failed one.
const READY: [&[u8]; 3] = [b"Z\0\0\0\x05I", b"Z\0\0\0\x05T", b"Z\0\0\0\x05E"];

/// The state of a connection.
#[derive(Debug)]
pub struct Postgres {
    requests: Reader,
    responses: Reader,
    session: Session,
    /// Whether bytes of answers were lost before what comes next, so that it may be the rest of a message.
    is_behind_hole: bool,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            requests: Reader::new(Direction::Request),
            responses: Reader::new(Direction::Response),
            session: Session::default(),
            is_behind_hole: false,
        }
    }
}

impl Postgres {
    /// Takes a piece.
    pub fn take(&mut self, direction: Direction, piece: Piece<'_>, output: &mut Output) -> Progress {
        let is_request = direction == Direction::Request;
        if is_request {
            self.session.settle(output);
        }
        let reader = if is_request { &mut self.requests } else { &mut self.responses };
        if piece.is_turn {
            reader.turn();
        }
        self.is_behind_hole |= !is_request && piece.bytes.is_empty() && piece.missing > 0;
        let mut bytes = piece.bytes;
        if !is_request && reader.is_between() && self.session.take_negotiation(&mut bytes) == Progress::Leave
        {
            return Progress::Leave;
        }
        while !reader.is_lost() {
            let mark = piece.mark_at(bytes);
            let message = match reader.step(&mut bytes, mark) {
                Step::More => break,
                Step::Message(message) => {
                    self.is_behind_hole &= is_request;
                    message
                }
                Step::Broken => {
                    // The exchange of an answer's rest is counted where its begin was lost.
                    output.rejected += u64::from(is_request || !self.is_behind_hole);
                    reader.lose();
                    self.session.lose(is_request, piece.mark, output);
                    break;
                }
            };
            if self.session.take(is_request, message, output) == Progress::Leave {
                return Progress::Leave;
            }
        }
        if reader.is_lost() {
            self.pass(is_request, bytes, &piece, output);
        } else if piece.missing > 0 {
            return self.skip(is_request, &piece, output);
        }
        Progress::More
    }

    /// About the memory that it takes.
    pub fn held_bytes(&self) -> usize {
        self.requests.carried_bytes() + self.responses.carried_bytes() + self.session.held_bytes()
    }

    /// Whether nothing waits for its response.
    pub fn is_idle(&self) -> bool {
        self.session.is_idle()
    }

    /// The connection ended.
    pub fn finish(&mut self, _: Mark, output: &mut Output) {
        self.session.finish(output);
    }

    /// Bytes that cannot be read, unless they end with what every answer ends with.
    fn pass(&mut self, is_request: bool, bytes: &[u8], piece: &Piece<'_>, output: &mut Output) {
        if is_request {
            return;
        }
        let bytes_count = bytes.len() as u64 + piece.missing;
        self.session.pass(Extent { first: piece.mark, last: piece.mark, bytes: bytes_count });
        if piece.missing == 0 && READY.iter().any(|ready| bytes.ends_with(ready)) {
            self.responses.find();
            self.session.find(output);
        }
    }

    /// Bytes that were not captured.
    fn skip(&mut self, is_request: bool, piece: &Piece<'_>, output: &mut Output) -> Progress {
        let reader = if is_request { &mut self.requests } else { &mut self.responses };
        let mut progress = Progress::More;
        if let Some(message) = reader.skip(piece.missing, piece.mark) {
            progress = self.session.take(is_request, message, output);
        }
        if reader.is_lost() {
            self.session.lose(is_request, piece.mark, output);
            let extent = Extent { first: piece.mark, last: piece.mark, bytes: piece.missing };
            if !is_request {
                self.session.pass(extent);
            }
        }
        progress
    }
}
