//! The end of a connection, and what of it did not come: messages that found no room are known by their numbers and turns.
//!
//! Refuses: guesses at what was said. Of what nobody saw turns alone are counted.

use collector_common::flow::{CloseRecord, Role};

use super::super::protocol::{Direction, Mark, Output, Parser};
use super::Connection;

impl Connection {
    /// It ended, after so many messages and turns: what waits for a response gets none, unless that one was lost.
    pub fn close(&mut self, record: &CloseRecord, output: &mut Output) {
        self.finish_after(record.messages, record.turns, record.head.time_ns, output);
    }

    /// As [`Self::close`], where the kernel's state is what tells.
    pub fn finish_after(&mut self, messages: u32, turns: u32, now_ns: u64, output: &mut Output) {
        let may_be_answered = self.catch_up(messages, turns);
        match &mut self.parser {
            Some(parser) if may_be_answered => give_up(parser, now_ns, output),
            _ => self.finish(now_ns, output),
        }
    }

    /// There were so many messages and turns until now. Counts the exchanges of which nothing came; whether the response that is
    /// waited for may be among what did not come.
    pub fn catch_up(&mut self, messages: u32, turns: u32) -> bool {
        if !self.may_speak() {
            return false;
        }
        // What it was that nobody saw, nobody knows: better a loss too many than one that is hidden.
        self.lost_exchanges += std::mem::take(&mut self.unproven_exchanges);
        if messages == self.last_number || !self.counts_from_begin() {
            return false;
        }
        let turned = turns.wrapping_sub(self.last_turns);
        // Directions alternate, and the first one in the hole is the other one than the last that was seen.
        let begins_with_request = self.last_direction != Some(Direction::Request);
        self.lost_exchanges += u64::from((turned + u32::from(begins_with_request)) / 2);
        turned > 0 || begins_with_request
    }

    /// Whether it speaks a known protocol, or nothing that was seen since its begin says that it does not.
    pub(super) fn may_speak(&self) -> bool {
        let is_unheard = self.role != Role::Unknown && (self.unrecognised == 0 || self.opening.is_some());
        self.parser.is_some() || is_unheard
    }

    /// Whether it is known how many messages there were before the first one that came: other sockets are forgotten and told anew.
    pub(super) fn counts_from_begin(&self) -> bool {
        self.last_number != 0 || self.tells_end()
    }

    /// Nothing more will come of it: what waits for a response gets none.
    pub fn finish(&mut self, time_ns: u64, output: &mut Output) {
        if let Some(parser) = &mut self.parser {
            parser.finish(Mark { begun_ns: time_ns, time_ns, ..Mark::default() }, output);
        }
    }

    /// The agent stops, or may have missed the rest: what waits for a response was not seen to its end.
    pub fn abandon(&mut self, output: &mut Output) {
        if let Some(mut parser) = self.parser.take() {
            give_up(&mut parser, self.last_ns, output);
        }
    }

    /// Exchanges of which nothing came, since the last call.
    pub fn take_lost_exchanges(&mut self) -> u64 {
        std::mem::take(&mut self.lost_exchanges)
    }
}

/// What waits for a response in a parser is counted, and is no exchange: nobody knows whether one came.
pub(super) fn give_up(parser: &mut Parser, time_ns: u64, output: &mut Output) {
    let before = output.exchanges.len();
    parser.finish(Mark { begun_ns: time_ns, time_ns, ..Mark::default() }, output);
    output.abandoned += (output.exchanges.len() - before) as u64;
    output.exchanges.truncate(before);
}
