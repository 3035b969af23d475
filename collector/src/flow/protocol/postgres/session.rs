//! Who is answered by what.
//!
//! Refuses: to look for messages in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::sql::Statement;
use super::super::{
    Attribute, Exchange, Extent, Failure, Mark, Output, PENDING_MAX, Pattern, Progress, Protocol, Text,
};
use super::detection::{CANCEL, GSSAPI, TLS};
use super::failure::failure;
use super::pending::{Kind, Pending, add};
use super::reader::{Message, STARTUP};
use super::statements::Statements;

/// Bytes of a database's name.
const DATABASE_BYTES_MAX: usize = 128;

/// The state of a session.
#[derive(Debug, Default)]
pub struct Session {
    database: Option<Text>,
    statements: Statements,
    /// What was sent since the last Execute.
    group: Group,
    pending: VecDeque<Pending>,
    ghosts: Ghosts,
    /// The server reads nothing before the next Sync.
    is_skipping: bool,
    /// Encryption was asked for.
    is_negotiating: bool,
    /// The client sends the rows of a copy, during which servers ignore Sync.
    is_copying: bool,
    /// Answers were lost: which of them answered what is not known before all are answered.
    is_lost: bool,
}

#[derive(Debug, Default)]
struct Group {
    extent: Option<Extent>,
    statement: Option<Arc<Statement>>,
}

/// Answers to what was given up: first those up to so many ReadyForQuery, then so many completions.
#[derive(Debug, Default)]
struct Ghosts {
    ready: u64,
    executes: u64,
}

impl Session {
    /// Whether nothing waits for its response.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.is_copying
    }

    /// About the memory that it takes.
    pub fn held_bytes(&self) -> usize {
        let texts = self.pending.iter().filter_map(|pending| pending.statement.as_ref());
        let pending = self.pending.capacity() * size_of::<Pending>();
        self.statements.held_bytes() + pending + texts.map(|text| text.held_bytes()).sum::<usize>()
    }

    /// What waits for an answer.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.pending.len(), self.statements.len())
    }

    /// Takes the byte that answers a request for encryption.
    pub fn take_negotiation(&mut self, bytes: &mut &[u8]) -> Progress {
        if !self.is_negotiating {
            return Progress::More;
        }
        match bytes.split_first() {
            Some((b'S' | b'G', _)) => return Progress::Leave,
            Some((b'N', rest)) => {
                *bytes = rest;
                self.is_negotiating = false;
            }
            // Servers from before encryption answer with an error.
            Some(_) => self.is_negotiating = false,
            None => {}
        }
        Progress::More
    }

    /// Takes a message.
    pub fn take(&mut self, is_request: bool, message: Message<'_>, output: &mut Output) -> Progress {
        if !is_request {
            return self.take_response(message, output);
        }
        if message.kind == STARTUP {
            return self.start(message, output);
        }
        self.take_request(message, output);
        Progress::More
    }

    /// Loses its place in one direction.
    pub fn lose(&mut self, is_request: bool, mark: Mark, output: &mut Output) {
        if !is_request {
            self.is_lost = true;
            return;
        }
        self.statements.forget_unnamed();
        if let Some(extent) = self.group.extent.take() {
            // A large value hides the Execute and the Sync that come after it.
            let request = Extent { last: mark, ..extent };
            let statement = self.group.statement.take();
            let pending =
                Pending { is_partial: true, ..Pending::new(Kind::Execute, statement, Some(request)) };
            self.push(pending, output);
            self.push(Pending::new(Kind::Sync, None, None), output);
        }
    }

    /// Bytes of answers that were not read.
    pub fn pass(&mut self, extent: Extent) {
        if let (true, Some(front)) = (self.is_lost && extent.bytes > 0, self.pending.front_mut()) {
            front.answer(extent);
            front.is_partial = true;
        }
    }

    /// After lost answers the server is ready.
    pub fn find(&mut self, output: &mut Output) {
        if std::mem::take(&mut self.is_lost) {
            self.ghosts = Ghosts::default();
            self.ready(None, output);
        }
    }

    /// The client goes on after answers were lost: what waited was answered somewhere in them.
    pub fn settle(&mut self, output: &mut Output) {
        if !std::mem::take(&mut self.is_lost) {
            return;
        }
        self.ghosts = Ghosts::default();
        self.is_skipping = false;
        self.is_copying = false;
        if let Some(front) =
            self.pending.pop_front_if(|front| front.kind != Kind::Sync && front.response.is_some())
        {
            self.emit(front, output);
        }
        let given_up = self.pending.drain(..).filter(|pending| pending.kind != Kind::Sync).count();
        output.abandoned += given_up as u64;
    }

    /// The connection ended.
    pub fn finish(&mut self, output: &mut Output) {
        self.settle(output);
        self.is_copying = false;
        while let Some(mut pending) = self.pending.pop_front() {
            if !pending.is_done && pending.failure.is_none() {
                if pending.kind == Kind::Sync {
                    continue;
                }
                pending.is_partial |= pending.response.take().is_some();
                let kind = Text::Borrowed("no_response");
                pending.failure = Some(Failure { kind, message: String::new(), is_servers: true });
            }
            self.emit(pending, output);
        }
    }

    fn start(&mut self, message: Message<'_>, output: &mut Output) -> Progress {
        let Some((code, parameters)) = message.body.split_first_chunk() else { return Progress::Leave };
        match u32::from_be_bytes(*code) {
            TLS | GSSAPI => self.is_negotiating = true,
            CANCEL => {
                output.exchanges.push(cancel(message.extent));
                return Progress::Leave;
            }
            version if version >> 16 == 3 => self.database = database(parameters),
            _ => return Progress::Leave,
        }
        Progress::More
    }

    fn take_request(&mut self, message: Message<'_>, output: &mut Output) {
        if self.is_skipping && message.kind != b'S' {
            return;
        }
        match message.kind {
            b'Q' => {
                let text = message.body.strip_suffix(b"\0").unwrap_or(message.body);
                let statement = self.statements.read(text, message.is_cut);
                self.push(Pending::new(Kind::Simple, Some(statement), Some(message.extent)), output);
            }
            b'P' => {
                let (name, rest) = name(message.body);
                let (text, _) = self::name(rest);
                let statement = self.statements.read(text, text.len() == rest.len());
                self.statements.prepare(name, Arc::clone(&statement));
                self.group.statement = Some(statement);
                add(&mut self.group.extent, message.extent);
            }
            b'B' => {
                let (portal, rest) = name(message.body);
                self.group.statement = self.statements.bind(portal, name(rest).0);
                add(&mut self.group.extent, message.extent);
            }
            b'D' => add(&mut self.group.extent, message.extent),
            b'E' => self.execute(message, output),
            b'C' => match message.body.split_first() {
                Some((b'S', statement)) => self.statements.close(name(statement).0),
                Some((_, portal)) => self.statements.close_portal(name(portal).0),
                None => {}
            },
            b'S' => self.sync(message.extent, output),
            // It has a ReadyForQuery of its own.
            b'F' => self.push(Pending::new(Kind::Sync, None, None), output),
            b'c' | b'f' => self.is_copying = false,
            _ => {}
        }
    }

    fn execute(&mut self, message: Message<'_>, output: &mut Output) {
        let group = std::mem::take(&mut self.group);
        let statement = self.statements.portal(name(message.body).0);
        let mut request = group.extent;
        add(&mut request, message.extent);
        self.push(Pending::new(Kind::Execute, statement, request), output);
    }

    fn sync(&mut self, extent: Extent, output: &mut Output) {
        self.is_skipping = false;
        if self.is_copying {
            return;
        }
        let mut group = std::mem::take(&mut self.group);
        if group.extent.is_some() {
            add(&mut group.extent, extent);
        } else if let Some(last) = self.pending.back_mut().filter(|last| last.kind == Kind::Execute) {
            add(&mut last.request, extent);
        }
        self.push(Pending::new(Kind::Sync, group.statement, group.extent), output);
    }

    fn push(&mut self, pending: Pending, output: &mut Output) {
        if self.pending.len() >= PENDING_MAX {
            self.give_up(output);
        }
        self.pending.push_back(pending);
    }

    fn give_up(&mut self, output: &mut Output) {
        let Some(oldest) = self.pending.pop_front() else { return };
        output.abandoned += u64::from(oldest.kind != Kind::Sync);
        match oldest.kind {
            Kind::Execute if oldest.is_done => {}
            Kind::Execute => self.ghosts.executes += 1,
            Kind::Simple | Kind::Sync => self.ghosts = Ghosts { ready: self.ghosts.ready + 1, executes: 0 },
        }
    }

    fn take_response(&mut self, message: Message<'_>, output: &mut Output) -> Progress {
        let extent = message.extent;
        match message.kind {
            // These come at any time, and ask for nothing.
            b'A' | b'N' | b'S' => {
                if let Some(front) = self.pending.front_mut().filter(|front| front.response.is_some()) {
                    front.answer(extent);
                }
            }
            b'K' | b'R' | b'v' => {}
            kind if self.is_ghost(kind, output) => {}
            b'Z' => self.ready(Some(extent), output),
            b'E' => self.fail(extent, failure(message.body), output),
            b'C' | b'I' | b's' => self.complete(message, output),
            b'W' => {
                self.answer(message.kind, extent, output);
                if let Some(front) = self.pending.pop_front_if(|front| front.kind != Kind::Sync) {
                    self.emit(front, output);
                }
                return Progress::Leave;
            }
            b'G' => {
                self.answer(message.kind, extent, output);
                self.is_copying = true;
                let is_ignored = |next: &Pending| next.kind == Kind::Sync && next.request.is_none();
                if self.pending.front().is_some_and(|front| front.kind == Kind::Execute)
                    && self.pending.get(1).is_some_and(is_ignored)
                {
                    self.pending.remove(1);
                }
            }
            kind => self.answer(kind, extent, output),
        }
        Progress::More
    }

    /// Whether the message answers what was given up.
    fn is_ghost(&mut self, kind: u8, output: &mut Output) -> bool {
        if self.ghosts.ready > 0 {
            self.ghosts.ready -= u64::from(kind == b'Z');
            return true;
        }
        if self.ghosts.executes == 0 {
            return false;
        }
        match kind {
            b'C' | b'I' | b's' => self.ghosts.executes -= 1,
            b'E' => {
                self.ghosts.executes = 0;
                self.drop_unread(0);
            }
            b'Z' => {
                self.ghosts.executes = 0;
                self.ready(None, output);
            }
            _ => {}
        }
        true
    }

    /// Adds a message to the answer of the oldest, and ends what it shows to have ended.
    fn answer(&mut self, kind: u8, extent: Extent, output: &mut Output) {
        // A Sync is answered by no row: it was never sent, but presumed in a hole.
        let is_of_execute = matches!(kind, b'C' | b'D' | b'I' | b's');
        while self.pending.pop_front_if(|front| front.kind == Kind::Sync && is_of_execute).is_some() {}
        // CloseComplete comes before ReadyForQuery.
        if kind != b'3'
            && let Some(done) = self.pending.pop_front_if(|front| front.is_done)
        {
            self.emit(done, output);
        }
        if let Some(front) = self.pending.front_mut() {
            front.answer(extent);
        }
    }

    fn complete(&mut self, message: Message<'_>, output: &mut Output) {
        self.answer(message.kind, message.extent, output);
        let is_synced = self.pending.get(1).is_some_and(|next| next.kind == Kind::Sync);
        let Some(front) = self.pending.front_mut() else { return };
        if let Some(rows) = rows(message.body) {
            front.rows = Some(front.rows.unwrap_or(0).saturating_add(rows));
        }
        if front.kind == Kind::Execute {
            front.is_done = true;
            if !is_synced && let Some(front) = self.pending.pop_front() {
                self.emit(front, output);
            }
        }
    }

    fn fail(&mut self, extent: Extent, failure: Failure, output: &mut Output) {
        self.is_copying = false;
        if self.pending.is_empty() && self.group.extent.is_some() {
            // A client that waits for the answer to Parse before it goes on.
            let group = std::mem::take(&mut self.group);
            self.pending.push_back(Pending::new(Kind::Execute, group.statement, group.extent));
        }
        let is_asked = |front: &&mut Pending| front.request.is_some();
        let Some(front) = self.pending.front_mut().filter(is_asked) else { return };
        // Also after a completion: a constraint may be checked as the Sync commits.
        front.answer(extent);
        front.failure.get_or_insert(failure);
        if front.kind != Kind::Execute {
            return;
        }
        front.is_done = true;
        if !self.drop_unread(1)
            && let Some(front) = self.pending.pop_front()
        {
            self.emit(front, output);
        }
    }

    /// Drops what the server does not read after an error, beginning with the entry `start`. Whether the Sync that ends this
    /// was already sent.
    fn drop_unread(&mut self, start: usize) -> bool {
        let sync = self.pending.iter().skip(start).position(|pending| pending.kind == Kind::Sync);
        let end = sync.map_or(self.pending.len(), |sync| start + sync);
        self.pending.drain(start.min(end)..end);
        self.is_skipping = sync.is_none();
        if self.is_skipping {
            self.group = Group::default();
        }
        sync.is_some()
    }

    /// ReadyForQuery: all up to the next Sync or simple query is answered.
    fn ready(&mut self, extent: Option<Extent>, output: &mut Output) {
        self.is_copying = false;
        while let Some(mut pending) = self.pending.pop_front() {
            let is_last = pending.kind != Kind::Execute;
            let is_answered = match pending.kind {
                Kind::Simple => true,
                Kind::Execute => pending.is_done || (pending.is_partial && pending.response.is_some()),
                Kind::Sync => pending.failure.is_some(),
            };
            if let Some(extent) = extent {
                pending.answer(extent);
            }
            match pending.kind {
                _ if is_answered => self.emit(pending, output),
                Kind::Sync => {}
                _ => output.abandoned += 1,
            }
            if is_last {
                break;
            }
        }
    }

    fn emit(&self, pending: Pending, output: &mut Output) {
        output.exchanges.push(pending.into_exchange(self.database.as_ref()));
    }
}

/// A request to cancel what another connection asked: the server answers by closing this one.
fn cancel(request: Extent) -> Exchange {
    let system = Attribute::of_both("db.system.name", "postgresql");
    Exchange {
        protocol: Protocol::Postgres,
        pattern: Pattern::Call,
        request,
        response: None,
        name: Text::Borrowed("CANCEL"),
        attributes: vec![system, Attribute::of_both("db.operation.name", "CANCEL")],
        failure: None,
        context: None,
        is_partial: false,
    }
}

/// The database of a StartupMessage; it is named as the user if it is not named.
fn database(parameters: &[u8]) -> Option<Text> {
    let mut parts = parameters.split(|byte| *byte == 0);
    let (mut user, mut database) = (None, None);
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        match key {
            b"user" => user = Some(value),
            b"database" => database = Some(value),
            _ => {}
        }
    }
    let named = |name: &&[u8]| (1..=DATABASE_BYTES_MAX).contains(&name.len());
    let name = database.filter(|name| !name.is_empty()).or(user).filter(named)?;
    Some(String::from_utf8_lossy(name).into_owned().into())
}

/// A text up to its NUL, and what follows that.
fn name(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (name, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    (name, rest.get(1..).unwrap_or_default())
}

/// The rows by the tag of a CommandComplete.
fn rows(tag: &[u8]) -> Option<i64> {
    let digits = tag.strip_prefix(b"SELECT ")?;
    std::str::from_utf8(digits.strip_suffix(b"\0")?).ok()?.parse().ok()
}
