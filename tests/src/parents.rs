//! Whether the parents of spans are right, by what the workloads say of the request that they are doing.
//!
//! Refuses: to excuse a wrong parent. A missing one is counted, and so is one that was lost.

use crate::spans::{self, Span};

/// Links of some spans, all of them right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Spans of servers whose parent is the client's span of the same exchange.
    pub by_connection: usize,
    /// Spans of clients whose parent was proved by a thread.
    pub by_thread: usize,
    /// Spans without a parent.
    pub roots: usize,
    /// Spans whose parent nobody told of: it was lost behind them.
    pub orphans: usize,
}

/// Expects that no span has a wrong parent; returns how many have one.
#[track_caller]
pub fn check_all(spans: &[Span]) -> Links {
    let by_id = spans::by_id(spans);
    let mut links = Links::default();
    for span in spans {
        if span.parent.is_empty() {
            links.roots += 1;
            continue;
        }
        let Some(parent) = by_id.get(&*span.parent) else {
            links.orphans += 1;
            continue;
        };
        check(parent, span);
        match span.attribute("kansoku.link.proof") {
            "connection" => links.by_connection += 1,
            "thread" => links.by_thread += 1,
            other => panic!("{other:?} proves nothing: {}", span.summary()),
        }
    }
    links
}

/// Expects that a span with a parent is of the same request, after it began, and on the other side.
#[track_caller]
pub fn check(parent: &Span, span: &Span) {
    let both = || format!("{} below {}", span.summary(), parent.summary());
    assert_eq!(parent.trace_id, span.trace_id, "{}", both());
    assert_ne!(parent.is_client(), span.is_client(), "{}", both());
    assert!(parent.start_ns <= span.start_ns && span.start_ns <= parent.end_ns, "{}", both());
    if !span.attribute("url.path").is_empty() {
        assert_eq!(parent.attribute("url.path"), span.attribute("url.path"), "{}", both());
    }
    if !span.is_client() && span.attribute("kansoku.partial").is_empty() {
        assert_eq!(parent.attribute("db.query.text"), span.attribute("db.query.text"), "{}", both());
    }
    if let Some(count) = told_count(span).filter(|_| span.is_client()) {
        let number = number_of(parent).expect("the path ends with a number");
        assert_eq!(count, 1 + number % 15, "{}", both());
    }
}

/// The number that a service on an event loop tells its stores by keys or columns.
fn told_count(span: &Span) -> Option<usize> {
    let text = span.attribute("db.query.text");
    match span.attribute("db.operation.name") {
        "DEL" => Some(text.matches('?').count()),
        "SELECT" if text.starts_with("select id") => Some(text.split(" from ").next()?.matches("id").count()),
        _ => None,
    }
}

/// The number in the path of a request.
fn number_of(span: &Span) -> Option<usize> {
    span.attribute("url.path").rsplit('/').next()?.parse().ok()
}
