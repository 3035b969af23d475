//! What was asked, and how it becomes an exchange.
//!
//! Refuses: to know what the messages look like.

use std::sync::Arc;

use super::super::sql::Statement;
use super::super::{Attribute, Exchange, Extent, Failure, Pattern, Protocol, Text};

/// What ends something that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A simple query: ReadyForQuery.
    Simple,
    /// An Execute: its completion.
    Execute,
    /// A Sync, which is no exchange unless what it closes fails: ReadyForQuery.
    Sync,
}

/// Something that waits for its answer.
#[derive(Debug)]
pub struct Pending {
    /// What ends it.
    pub kind: Kind,
    /// The text; `None` if it was not seen.
    pub statement: Option<Arc<Statement>>,
    /// The request. None of a Sync that follows an Execute.
    pub request: Option<Extent>,
    /// The answer as far as it came.
    pub response: Option<Extent>,
    /// How it failed.
    pub failure: Option<Failure>,
    /// Rows of `SELECT`.
    pub rows: Option<i64>,
    /// Whether only ReadyForQuery is missing.
    pub is_done: bool,
    /// Whether something of it is missing.
    pub is_partial: bool,
}

impl Pending {
    /// Something that was just asked.
    pub fn new(kind: Kind, statement: Option<Arc<Statement>>, request: Option<Extent>) -> Self {
        let (response, failure, rows) = (None, None, None);
        Self { kind, statement, request, response, failure, rows, is_done: false, is_partial: false }
    }

    /// Adds to its answer.
    pub fn answer(&mut self, extent: Extent) {
        add(&mut self.response, extent);
    }

    /// It is given out.
    pub fn into_exchange(self, database: Option<&Text>) -> Exchange {
        let mut attributes = Vec::with_capacity(8);
        attributes.push(Attribute::of_both("db.system.name", "postgresql"));
        if let Some(database) = database {
            attributes.push(Attribute::of_both("db.namespace", database.clone()));
        }
        let mut name = Text::Borrowed("postgresql");
        if let Some(statement) = &self.statement {
            name = describe(statement, &mut attributes).unwrap_or(name);
        }
        if let (Some(failure), Some(_)) = (&self.failure, self.response) {
            attributes.push(Attribute::of_both("db.response.status_code", failure.kind.clone()));
        }
        if let Some(rows) = self.rows {
            attributes.push(Attribute::of_span("db.response.returned_rows", rows));
        }
        Exchange {
            protocol: Protocol::Postgres,
            pattern: Pattern::Call,
            request: self.request.unwrap_or_default(),
            response: self.response,
            name,
            attributes,
            failure: self.failure,
            context: None,
            is_partial: self.is_partial,
        }
    }
}

/// Adds the attributes of a statement; gives the name of its span.
fn describe(statement: &Statement, attributes: &mut Vec<Attribute>) -> Option<Text> {
    let owned = |text: &str| Text::Owned(text.to_owned());
    if !statement.text.is_empty() {
        attributes.push(Attribute::of_span("db.query.text", owned(&statement.text)));
    }
    if let Some(operation) = statement.operation {
        attributes.push(Attribute::of_both("db.operation.name", operation));
    }
    if let Some(collection) = &statement.collection {
        attributes.push(Attribute::of_both("db.collection.name", owned(collection)));
    }
    if statement.summary.is_empty() {
        return statement.operation.map(Text::Borrowed);
    }
    // Without a target the summary is often the operation, which is a constant.
    let summary = match statement.operation {
        Some(operation) if *operation == *statement.summary => Text::Borrowed(operation),
        _ => owned(&statement.summary),
    };
    attributes.push(Attribute::of_both("db.query.summary", summary.clone()));
    Some(summary)
}

/// Adds a message to the messages before it.
pub fn add(to: &mut Option<Extent>, extent: Extent) {
    match to {
        Some(to) => {
            to.last = extent.last;
            to.bytes = to.bytes.saturating_add(extent.bytes);
        }
        None => *to = Some(extent),
    }
}
