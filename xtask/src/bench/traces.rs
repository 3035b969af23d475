//! What it costs to turn connections into spans: the latency of a server, and the agent's work for each span.
//!
//! Refuses: throughput, which stands with that of metrics (`io`), and the parsers alone (`parsers`).

use anyhow::Result;

use super::figures::Measured;
use super::parts::{self, NO_TARGET, Part};
use super::setup::Bench;

mod cost;
mod latency;
mod paced;
mod service;

/// Requests a second where the server is not at its limit.
const PACE: u32 = 2_000;

/// What all parts must reach, in short.
pub fn target() -> String {
    latency::target()
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let part = |title, name, target, measure| Part { title, name, target, measure };
    let parts = vec![
        part("Latency of a server", "latency", latency::target(), latency::measure),
        part("Work for each span", "cost", NO_TARGET.to_owned(), cost::measure),
    ];
    parts::measure("traces", parts, bench)
}
