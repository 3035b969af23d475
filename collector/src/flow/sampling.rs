//! Which exchanges become spans. Metrics have all of them.
//!
//! A ratio decides by the trace, so that a trace is kept whole; a rate per service bounds what a storm costs. Errors and slow
//! exchanges pass the ratio and have a rate of their own. Refuses: clocks.

use std::collections::HashMap;
use std::sync::Arc;

use super::protocol::{Exchange, Pattern};
use crate::identity::Subject;

/// Services whose rates are kept in one second.
const SERVICES_MAX: usize = 4_096;

/// Second of the token count, nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

/// Which spans are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Share of the traces that are kept, where no caller decided before us.
    pub ratio: f64,
    /// Spans of one service in a second; errors and slow ones have as many again.
    pub per_second_max: u32,
    /// From which time on an exchange is slow, nanoseconds.
    pub slow_ns: u64,
}

/// Decides.
pub struct Sampler {
    options: SamplingOptions,
    /// Spans of each service in this second: plain ones, and those that must not be missed.
    used: HashMap<usize, [u32; 2]>,
    second: u64,
}

impl Sampler {
    /// Nothing decided yet.
    pub fn new(options: SamplingOptions) -> Self {
        Self { options, used: HashMap::new(), second: 0 }
    }

    /// Starts a turn.
    pub fn turn(&mut self, now_ns: u64) {
        if now_ns / SECOND_NS != self.second {
            self.second = now_ns / SECOND_NS;
            self.used.clear();
        }
    }

    /// Whether an exchange of a service becomes a span, as far as the service's rate goes.
    pub fn wants(&mut self, subject: &Arc<Subject>, must_stay: bool) -> bool {
        // The address of a subject stands for it within one second; a mistake costs a service its rate for that second.
        let service = Arc::as_ptr(subject) as usize;
        if self.used.len() >= SERVICES_MAX && !self.used.contains_key(&service) {
            return false;
        }
        let used = &mut self.used.entry(service).or_default()[usize::from(must_stay)];
        *used += 1;
        *used <= self.options.per_second_max
    }

    /// Whether an exchange is kept whatever the ratio.
    pub fn must_stay(&self, exchange: &Exchange, ended_ns: u64) -> bool {
        exchange.failure.as_ref().is_some_and(|failure| failure.is_servers)
            || duration_ns(exchange, ended_ns) >= self.options.slow_ns
    }

    /// Whether a trace that begins here is kept: its last seven bytes against the ratio (OpenTelemetry, "TraceState:
    /// probability sampling").
    pub fn keeps(&self, trace_id: &[u8; 16]) -> bool {
        let [_, _, _, _, _, _, _, _, _, tail @ ..] = trace_id;
        let randomness = tail.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        randomness >= ((1.0 - self.options.ratio) * (1u64 << 56) as f64) as u64
    }
}

/// How long an exchange took. `ended_ns` is when it was given up, if no response came.
pub fn duration_ns(exchange: &Exchange, ended_ns: u64) -> u64 {
    end_ns(exchange, ended_ns).saturating_sub(exchange.request.first.begun_ns)
}

/// When an exchange ended.
pub fn end_ns(exchange: &Exchange, ended_ns: u64) -> u64 {
    let request_ns = exchange.request.last.time_ns;
    match (exchange.response, exchange.pattern) {
        (Some(response), _) => response.last.time_ns,
        (None, Pattern::Call) => ended_ns.max(request_ns),
        (None, Pattern::Publish | Pattern::Deliver) => request_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ratio: f64, tail: u8, expected: bool) {
        let sampler = Sampler::new(SamplingOptions { ratio, per_second_max: 1, slow_ns: 1 });
        let mut trace_id = [0; 16];
        trace_id[9..].fill(tail);
        assert_eq!(sampler.keeps(&trace_id), expected, "{ratio} {tail}");
    }

    #[test]
    fn the_ratio_decides_by_the_trace() {
        check(1.0, 0, true);
        check(0.0, 0xff, false);
        check(0.5, 0x7f, false);
        check(0.5, 0x80, true);
        check(0.25, 0xbf, false);
        check(0.25, 0xc0, true);
    }
}
