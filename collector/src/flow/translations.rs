//! Which pod is behind a Service's IP, where the node translates it: the kernel's connection tracking says so.
//!
//! Asked once for each connection of a client to a Service, and for each exchange over UDP, so many in a second at most; those
//! beyond are asked about with a later exchange. Refuses: asking itself, which is I/O, and addresses that no Service has.

use std::io;
use std::net::SocketAddr;

use crate::kernel::Route;
use crate::telemetry::{Metric, MetricKind, Owner, Point};

/// Questions in a second. One takes some 3 microseconds.
const QUESTIONS_MAX: u32 = 1_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Says where a connection goes; `None` if nobody knows that it goes elsewhere than asked.
pub type Translate = Box<dyn FnMut(Route) -> io::Result<Option<SocketAddr>> + Send>;

/// Asks for translations, and counts what came of it.
#[derive(Default)]
pub struct Translations {
    translate: Option<Translate>,
    /// Questions since then.
    asked: u32,
    since_ns: u64,
    found: u64,
    none: u64,
    failed: u64,
    postponed: u64,
}

impl Translations {
    /// By whoever says them.
    pub fn by(translate: Translate) -> Self {
        Self { translate: Some(translate), ..Self::default() }
    }

    /// May begin another second.
    pub fn turn(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            self.since_ns = now_ns;
            self.asked = 0;
        }
    }

    /// The answer about a connection; `None` if it must be asked for later.
    pub fn of(&mut self, route: Route) -> Option<Option<SocketAddr>> {
        let Some(translate) = &mut self.translate else { return Some(None) };
        if self.asked >= QUESTIONS_MAX {
            self.postponed += 1;
            return None;
        }
        self.asked += 1;
        let answer = translate(route);
        match answer {
            Ok(Some(_)) => self.found += 1,
            Ok(None) => self.none += 1,
            Err(_) => self.failed += 1,
        }
        Some(answer.ok().flatten())
    }

    /// What came of the questions since the start; nothing where nobody can be asked.
    pub fn metrics(&self, start_unix_ns: u64) -> Option<Metric> {
        self.translate.as_ref()?;
        let (found, none) = (("found", self.found), ("none", self.none));
        let outcomes = [found, none, ("failed", self.failed), ("postponed", self.postponed)];
        let point = |(outcome, count): (&'static str, u64)| {
            let attributes = vec![("kansoku.outcome".into(), outcome.into())];
            Point::number(Owner::Agent, attributes, start_unix_ns, count as f64)
        };
        let description = "Questions to the kernel's connection tracking about who is behind a Service's IP.";
        let metric = Metric::new(MetricKind::Counter, "kansoku.flow.translations", "{question}", description);
        Some(metric.with(outcomes.into_iter().map(point).collect()))
    }
}
