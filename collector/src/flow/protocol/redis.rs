//! Redis: RESP2 and RESP3.
//!
//! A command and its reply are an exchange, also when commands are sent ahead of replies, and in a transaction: each command
//! after `MULTI` is answered `QUEUED`, and `EXEC` by the results of all. `SUBSCRIBE` is a call that its confirmations answer,
//! one for each channel; messages of channels are delivered. Pushes of the client-side cache are neither.
//!
//! Refuses: to show any argument of a command, names of channels too, or an error's text; and to follow a `SELECT` within a
//! transaction. After `MONITOR`, `SYNC`, `PSYNC` and `CLIENT REPLY OFF` the connection is left.

mod commands;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::{
    Attribute, Direction, Exchange, Extent, Failure, Mark, Output, PENDING_MAX, Pattern, Piece, Progress,
    Protocol, Text,
};
use reader::{Reader, Step, Value};

/// Arguments that a query text shows, each as `?`.
const ARGUMENTS_MAX: u64 = 16;

/// Bytes of an error's first word.
const ERROR_BYTES_MAX: usize = 31;

/// Silence after which a client that sends ahead has all its replies.
const SILENCE_NS: u64 = 1_000_000_000;

/// What starts a push of a channel's message.
const MESSAGES: [&[u8]; 3] = [b"message", b"pmessage", b"smessage"];

/// What starts a confirmation, by the command that it confirms.
const CONFIRMATIONS: [(&str, &[u8]); 6] = [
    ("SUBSCRIBE", b"subscribe"),
    ("PSUBSCRIBE", b"psubscribe"),
    ("SSUBSCRIBE", b"ssubscribe"),
    ("UNSUBSCRIBE", b"unsubscribe"),
    ("PUNSUBSCRIBE", b"punsubscribe"),
    ("SUNSUBSCRIBE", b"sunsubscribe"),
];

/// Errors for which the server or its operator is to blame.
const SERVER_ERRORS: [&str; 8] =
    ["BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "OOM", "READONLY", "TRYAGAIN"];

/// Databases that servers have unless they are configured otherwise.
const DATABASES: [&str; 16] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];

/// The state of a connection.
#[derive(Debug, Default)]
pub struct Redis {
    commands: Reader,
    replies: Reader,
    session: Session,
    /// Whether bytes of replies and of commands are missing before what comes next, so that it may be the rest of a value.
    is_behind_hole: [bool; 2],
}

/// Whether bytes begin a command or a reply. Errors and simple strings (`+OK`) are those of other protocols too.
pub fn detect(bytes: &[u8]) -> Option<Direction> {
    let (kind, rest) = bytes.split_first()?;
    let (length, rest) = line(rest)?;
    let is_count = matches!(length, [b'1'..=b'9', ..]) && length.iter().all(u8::is_ascii_digit);
    match kind {
        b'*' if is_count => of_array(rest),
        b'>' | b'%' | b'~' if is_count => {
            rest.first().is_none_or(|byte| b"$+-:*%~#,_".contains(byte)).then_some(Direction::Response)
        }
        b'$' if is_count => {
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            let end = rest.get(length..).unwrap_or_default();
            (end.is_empty() || end.starts_with(b"\r\n")).then_some(Direction::Response)
        }
        b'$' | b'*' if length == b"-1" => Some(Direction::Response),
        b':' if is_count || length == b"0" => Some(Direction::Response),
        _ => None,
    }
}

/// Arrays of strings are commands, and replies too: there the first word decides.
fn of_array(elements: &[u8]) -> Option<Direction> {
    match elements.split_first()? {
        (b'$', rest) => {
            let (length, rest) = line(rest)?;
            let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
            let word = rest.get(..length.min(rest.len()))?;
            let is_message = MESSAGES.contains(&word);
            let direction = if is_message { Direction::Response } else { Direction::Request };
            (is_message || commands::name(word, b"").is_some()).then_some(direction)
        }
        (b':' | b'*' | b'+' | b'-', _) => Some(Direction::Response),
        _ => None,
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().take(12).position(|byte| *byte == b'\r')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}

impl Redis {
    /// Takes a piece.
    pub fn take(&mut self, direction: Direction, piece: Piece<'_>, output: &mut Output) -> Progress {
        let is_command = direction == Direction::Request;
        if is_command {
            self.session.settle(output);
            // What a full ring lost has no bytes at all, and is counted by the turns of the connection.
            self.session.has_unread &= !piece.bytes.is_empty();
            if piece.is_turn {
                self.session.go_on(piece.mark);
            }
        }
        let reader = if is_command { &mut self.commands } else { &mut self.replies };
        if piece.is_turn {
            reader.turn();
        }
        let is_behind_hole = &mut self.is_behind_hole[usize::from(is_command)];
        *is_behind_hole |= !is_command && piece.bytes.is_empty() && piece.missing > 0;
        let mut bytes = piece.bytes;
        while !reader.is_lost() {
            let mark = piece.mark_at(bytes);
            // The rest of a value may look like an inline command.
            let with_inline = self.session.is_known && !*is_behind_hole;
            match reader.step(&mut bytes, mark, is_command, with_inline) {
                Step::More => break,
                Step::Value(value) => {
                    *is_behind_hole = false;
                    if self.session.take(is_command, &value, output) == Progress::Leave {
                        return Progress::Leave;
                    }
                }
                Step::Broken => {
                    // The exchange of a reply's rest is counted where its begin was lost, that of a command's by its reply,
                    // as those of the commands behind it.
                    output.rejected += u64::from(!*is_behind_hole);
                    let is_rest = is_command && *is_behind_hole;
                    self.session.has_unread |= is_rest;
                    self.session.has_hole |= is_rest;
                    reader.lose(0, piece.mark);
                    self.session.lose(is_command, None);
                }
            }
        }
        if reader.is_lost() {
            self.session.pass(is_command, bytes.len() as u64 + piece.missing, piece.mark);
        } else if piece.missing > 0 {
            let value = reader.skip(piece.missing, piece.mark);
            if is_command {
                *is_behind_hole = reader.is_lost();
            }
            let hides_commands = is_command && reader.is_lost() && !piece.bytes.is_empty();
            self.session.has_unread |= hides_commands;
            self.session.has_hole |= hides_commands;
            if reader.is_lost() && value.is_none() {
                self.session.lose(is_command, None);
                self.session.pass(is_command, piece.missing, piece.mark);
            } else if let Some(value) = value {
                return self.session.skip(is_command, value, reader.is_lost(), output);
            }
        }
        Progress::More
    }

    /// Whether nothing waits for its response.
    pub fn is_idle(&self) -> bool {
        self.session.is_idle()
    }

    /// The connection ended.
    pub fn finish(&mut self, _: Mark, output: &mut Output) {
        self.session.finish(output);
    }
}

/// What was asked and not answered.
#[derive(Debug, Default)]
struct Session {
    pending: VecDeque<Pending>,
    /// Replies to commands that were given up.
    ghosts: u64,
    /// Since when it makes sense as Redis.
    is_known: bool,
    /// Replies were lost: who is answered by what is not known before all are answered.
    is_lost: bool,
    /// Commands stood behind the captured bytes of a piece: replies that answer nothing else are theirs.
    has_unread: bool,
    /// Commands of the last batch were not read.
    has_hole: bool,
    /// The client has sent more before all was answered.
    sends_ahead: bool,
    /// It may have done so behind such a batch: which reply answers what is not known.
    is_unsure: bool,
    last_reply_ns: u64,
    is_subscribed: bool,
    /// After `CLIENT REPLY SKIP`: the next command has no reply.
    skips_next: bool,
    database: Option<Text>,
}

#[derive(Debug)]
struct Pending {
    /// `None` for a command that is not known.
    name: Option<&'static str>,
    arguments: u64,
    request: Extent,
    response: Option<Extent>,
    /// Replies that answer it.
    replies: u64,
    /// What `SELECT` asks for.
    database: Option<u32>,
    is_partial: bool,
}

impl Session {
    fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    fn take(&mut self, is_command: bool, value: &Value, output: &mut Output) -> Progress {
        self.is_known = true;
        if is_command { self.take_command(value, output) } else { self.take_reply(value, output) }
    }

    fn take_command(&mut self, value: &Value, output: &mut Output) -> Progress {
        if value.count == 0 {
            return Progress::More;
        }
        let pending = Pending::of(value);
        match pending.name {
            Some("CLIENT REPLY") if value.word(2).eq_ignore_ascii_case(b"OFF") => {
                self.emit(pending, None, output);
                return Progress::Leave;
            }
            Some("CLIENT REPLY") if value.word(2).eq_ignore_ascii_case(b"SKIP") => {
                self.skips_next = true;
                self.emit(pending, None, output);
            }
            Some("SYNC" | "PSYNC") => {
                self.emit(pending, None, output);
                return Progress::Leave;
            }
            _ if std::mem::take(&mut self.skips_next) => self.emit(pending, None, output),
            _ => self.push(pending, output),
        }
        Progress::More
    }

    /// The client sends again after it got replies. One that sends ahead of replies behind a hole is read again once it was
    /// silent for so long that all must be answered.
    fn go_on(&mut self, mark: Mark) {
        let is_answered = self.pending.is_empty();
        self.sends_ahead |= !is_answered;
        if self.is_unsure {
            let silence_ns = mark.begun_ns.saturating_sub(self.last_reply_ns);
            self.is_unsure = !is_answered || silence_ns < SILENCE_NS;
            self.has_hole &= self.is_unsure;
        } else if std::mem::take(&mut self.has_hole) {
            self.is_unsure = self.sends_ahead;
        }
    }

    fn push(&mut self, pending: Pending, output: &mut Output) {
        if self.is_unsure {
            // Its reply is one of those that answer nothing that is known.
            self.has_unread = true;
            return;
        }
        if self.pending.len() >= PENDING_MAX
            && let Some(oldest) = self.pending.pop_front()
        {
            self.ghosts = self.ghosts.saturating_add(oldest.replies);
            output.abandoned += 1;
        }
        self.pending.push_back(pending);
    }

    fn take_reply(&mut self, value: &Value, output: &mut Output) -> Progress {
        self.last_reply_ns = value.extent.last.time_ns;
        let is_array = value.kind == b'*';
        if (is_array || value.kind == b'>') && self.is_unasked(value, is_array, output) {
            return Progress::More;
        }
        if self.ghosts > 0 {
            self.ghosts -= 1;
            return Progress::More;
        }
        let Some(front) = self.pending.front_mut() else {
            output.abandoned += u64::from(self.has_unread);
            return Progress::More;
        };
        let failure = failure(value);
        front.answer(value.extent);
        front.is_partial |= value.is_partial;
        front.replies = front.replies.saturating_sub(1);
        if front.replies > 0 && failure.is_none() {
            return Progress::More;
        }
        let Some(front) = self.pending.pop_front() else { return Progress::More };
        let is_monitor = front.name == Some("MONITOR") && failure.is_none();
        self.emit_answered(front, failure, value.kind == b'+' && value.word(0) == b"OK", output);
        if is_monitor { Progress::Leave } else { Progress::More }
    }

    fn emit_answered(&mut self, front: Pending, failure: Option<Failure>, is_ok: bool, output: &mut Output) {
        let (name, database) = (front.name, front.database);
        self.emit(front, failure, output);
        if is_ok && let Some(database) = database {
            let known = DATABASES.get(database as usize);
            self.database =
                Some(known.map_or_else(|| Text::from(database.to_string()), |known| Text::from(*known)));
        }
        if name == Some("RESET") {
            self.database = None;
            self.is_subscribed = false;
        }
    }

    /// Handles arrays and pushes that may not answer the oldest command; says whether this one does not.
    fn is_unasked(&mut self, value: &Value, is_array: bool, output: &mut Output) -> bool {
        let word = value.word(0);
        if MESSAGES.contains(&word) && matches!(value.count, 3 | 4) {
            let is_message = !is_array || self.is_subscribed || self.pending.is_empty();
            if is_message {
                self.is_subscribed |= is_array;
                output.exchanges.push(delivered(value));
            }
            return is_message;
        }
        let Some((name, _)) = CONFIRMATIONS.iter().find(|(_, known)| *known == word) else {
            return !is_array;
        };
        if self.pending.front().and_then(|front| front.name) == Some(name) {
            self.is_subscribed = is_array && value.word(2) != b"0";
            return false;
        }
        // `UNSUBSCRIBE` without channels is confirmed for each of them; the exchange ended with the first.
        let is_late = name.contains("UNSUBSCRIBE");
        let is_unasked = !is_array || (self.is_subscribed && is_late);
        if is_unasked && value.word(2) == b"0" {
            self.is_subscribed = false;
        }
        is_unasked
    }

    /// A value that ended in a hole, and whether the place was lost there.
    fn skip(&mut self, is_command: bool, value: Value, is_lost: bool, output: &mut Output) -> Progress {
        if is_lost && !is_command && value.is_partial {
            // A reply whose end is not known is the last that can be told from others.
            self.lose(is_command, Some(value));
            return Progress::More;
        }
        let progress = self.take(is_command, &value, output);
        self.is_lost |= is_lost && !is_command;
        progress
    }

    fn lose(&mut self, is_command: bool, value: Option<Value>) {
        if is_command {
            return;
        }
        self.is_lost = true;
        if let (Some(value), 0) = (value, self.ghosts)
            && let Some(front) = self.pending.front_mut()
        {
            front.answer(value.extent);
            front.is_partial = true;
        }
    }

    /// Bytes that were not read.
    fn pass(&mut self, is_command: bool, bytes: u64, mark: Mark) {
        if is_command || !self.is_lost || bytes == 0 {
            return;
        }
        if let Some(front) = self.pending.front_mut() {
            front.answer(Extent { first: mark, last: mark, bytes });
            front.is_partial = true;
        }
    }

    /// The client goes on after replies were lost: what waited was answered somewhere in them.
    fn settle(&mut self, output: &mut Output) {
        if !std::mem::take(&mut self.is_lost) {
            return;
        }
        self.ghosts = 0;
        let front = self.pending.pop_front_if(|front| front.response.is_some());
        output.abandoned += self.pending.len() as u64;
        self.pending.clear();
        if let Some(front) = front {
            self.emit(front, None, output);
        }
    }

    fn finish(&mut self, output: &mut Output) {
        self.settle(output);
        while let Some(mut pending) = self.pending.pop_front() {
            pending.is_partial |= pending.response.take().is_some();
            let failure = Failure { kind: "no_response".into(), message: String::new(), is_servers: true };
            self.emit(pending, Some(failure), output);
        }
    }

    fn emit(&self, pending: Pending, failure: Option<Failure>, output: &mut Output) {
        let name = pending.name.unwrap_or(commands::OTHER);
        let mut attributes = Vec::with_capacity(5);
        attributes.push(Attribute::of_both("db.system.name", "redis"));
        attributes.push(Attribute::of_both("db.operation.name", name));
        attributes.push(Attribute::of_span("db.query.text", text(name, pending.arguments)));
        if let Some(database) = &self.database {
            attributes.push(Attribute::of_both("db.namespace", database.clone()));
        }
        if pending.response.is_some()
            && let Some(failure) = &failure
        {
            attributes.push(Attribute::of_both("db.response.status_code", failure.kind.clone()));
        }
        output.exchanges.push(Exchange {
            protocol: Protocol::Redis,
            pattern: Pattern::Call,
            request: pending.request,
            response: pending.response,
            name: Text::Borrowed(name),
            attributes,
            failure,
            context: None,
            is_partial: pending.is_partial,
        });
    }
}

impl Pending {
    fn of(value: &Value) -> Self {
        let name = commands::name(value.word(0), value.word(1));
        let words = name.map_or(1, |name| 1 + u64::from(name.contains(' ')));
        let arguments = value.count.saturating_sub(words);
        let is_subscription = CONFIRMATIONS.iter().any(|(command, _)| Some(*command) == name);
        let database =
            (name == Some("SELECT")).then(|| std::str::from_utf8(value.word(1)).ok()?.parse().ok());
        Self {
            name,
            arguments,
            request: value.extent,
            response: None,
            replies: if is_subscription { arguments.max(1) } else { 1 },
            database: database.flatten(),
            is_partial: value.is_partial,
        }
    }

    fn answer(&mut self, extent: Extent) {
        let response = self.response.get_or_insert(Extent { first: extent.first, ..Extent::default() });
        response.last = extent.last;
        response.bytes = response.bytes.saturating_add(extent.bytes);
    }
}

/// A message of a channel, as messaging systems are described.
fn delivered(value: &Value) -> Exchange {
    Exchange {
        protocol: Protocol::Redis,
        pattern: Pattern::Deliver,
        request: value.extent,
        response: None,
        name: Text::Borrowed("receive"),
        attributes: vec![
            Attribute::of_both("messaging.system", "redis"),
            Attribute::of_both("messaging.operation.name", "receive"),
            Attribute::of_both("messaging.operation.type", "receive"),
        ],
        failure: None,
        context: None,
        is_partial: value.is_partial,
    }
}

fn failure(value: &Value) -> Option<Failure> {
    if !matches!(value.kind, b'-' | b'!') {
        return None;
    }
    let word = value.word(0).split(|byte| *byte == b' ').next().unwrap_or_default();
    // Scripts and modules may say what they like.
    let is_code = (1..=ERROR_BYTES_MAX).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
    let kind = if is_code {
        String::from_utf8_lossy(word).into_owned().into()
    } else {
        Text::Borrowed(commands::OTHER)
    };
    let is_servers = SERVER_ERRORS.contains(&&*kind);
    Some(Failure { kind, message: String::new(), is_servers })
}

/// The command with a `?` for each argument.
fn text(name: &str, arguments: u64) -> String {
    let shown = arguments.min(ARGUMENTS_MAX) as usize;
    let is_cut = arguments > ARGUMENTS_MAX;
    let mut text = String::with_capacity(name.len() + 2 * shown + if is_cut { " …".len() } else { 0 });
    text.push_str(name);
    (0..shown).for_each(|_| text.push_str(" ?"));
    if is_cut {
        text.push_str(" …");
    }
    text
}
