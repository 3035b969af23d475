//! Encoded points -> requests under a size.
//!
//! The size of a message within a message is known only when it is complete, but its prefix has at most
//! [`NESTING_BYTES`](wire::NESTING_BYTES): adding that much keeps the sum at or above what is written in the end. Field numbers:
//! opentelemetry/proto/metrics/v1/metrics.proto. Refuses: looking into a point.

use std::ops::Range;

use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
use prost::Message;

use super::MetricsRequests;
use crate::export::SCOPE_NAME;
use crate::export::delta::TemporalityPreference;
use crate::export::resource::scope;
use crate::export::wire;
use crate::telemetry::{Metric, MetricKind, Vocabulary};

/// Name of the scope of what applications said themselves.
const SCRAPE_SCOPE_NAME: &str = "kansoku/scrape";

/// An encoded point with the metric that it belongs to.
pub struct Piece {
    /// The position in the packer's metrics.
    pub metric: usize,
    /// Where it stands among all points.
    pub bytes: Range<usize>,
}

/// What stands around the points of a metric.
struct Frame {
    /// Name, description and unit.
    head: Vec<u8>,
    /// The field of its kind of data.
    field: u8,
    /// What follows the points: temporality and monotonicity.
    tail: Vec<u8>,
    is_application: bool,
}

/// Fills requests.
pub struct Packer<'a> {
    points: &'a [u8],
    frames: Vec<Frame>,
    /// The encoded scopes: the agent's own and that of applications.
    scopes: [Vec<u8>; 2],
    bytes_max: usize,
    done: MetricsRequests,
    request: Vec<u8>,
    /// What the request has at most.
    bytes: usize,
    count: u64,
}

/// What of the present resource the present request already has.
#[derive(Clone, Copy, Default)]
struct Open {
    resource: bool,
    scope: Option<bool>,
    metric: Option<usize>,
}

impl<'a> Packer<'a> {
    /// No request yet; `refused` points were never handed in.
    pub fn new(
        metrics: &[&Metric],
        points: &'a [u8],
        temporality: TemporalityPreference,
        bytes_max: usize,
        refused: u64,
    ) -> Self {
        let scopes = [SCOPE_NAME, SCRAPE_SCOPE_NAME].map(|name| scope(name).encode_to_vec());
        let frames = metrics.iter().map(|metric| Frame::of(metric, temporality)).collect();
        let done = MetricsRequests { requests: Vec::new(), refused };
        Self { points, frames, scopes, bytes_max, done, request: Vec::new(), bytes: 0, count: 0 }
    }

    /// Adds all of an encoded resource. `pieces` stand in the order of their metrics.
    pub fn add(&mut self, resource: &[u8], pieces: &[Piece]) {
        let mut open = Open::default();
        let all = pieces.iter().map(|piece| self.needed(&mut open, resource, piece)).sum::<usize>();
        if self.bytes + all > self.bytes_max {
            self.close();
        }
        let mut open = Open::default();
        let mut first = 0;
        for (position, piece) in pieces.iter().enumerate() {
            let mut needed = self.needed(&mut open, resource, piece);
            if self.bytes + needed > self.bytes_max && self.count + (position - first) as u64 > 0 {
                self.write(resource, &pieces[first..position]);
                self.close();
                first = position;
                open = Open::default();
                needed = self.needed(&mut open, resource, piece);
            }
            if self.bytes + needed > self.bytes_max {
                // Alone too large: nothing stands before it by now, and it is left out.
                self.done.refused += 1;
                first = position + 1;
                open = Open::default();
                continue;
            }
            self.bytes += needed;
        }
        self.write(resource, &pieces[first..]);
    }

    /// The requests.
    pub fn finish(mut self) -> MetricsRequests {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.count > 0 {
            self.done.requests.push((std::mem::take(&mut self.request), self.count));
        }
        (self.bytes, self.count) = (0, 0);
    }

    /// What a piece takes at most, with what must come before it.
    fn needed(&self, open: &mut Open, resource: &[u8], piece: &Piece) -> usize {
        let mut bytes = piece.bytes.len() + wire::NESTING_BYTES;
        if open.metric == Some(piece.metric) {
            return bytes;
        }
        let frame = &self.frames[piece.metric];
        bytes += frame.head.len() + frame.tail.len() + 2 * wire::NESTING_BYTES;
        if open.scope != Some(frame.is_application) {
            bytes += self.scopes[usize::from(frame.is_application)].len() + 2 * wire::NESTING_BYTES;
        }
        if !open.resource {
            bytes += resource.len() + 2 * wire::NESTING_BYTES;
        }
        *open = Open { resource: true, scope: Some(frame.is_application), metric: Some(piece.metric) };
        bytes
    }

    /// Writes a resource with these points into the request.
    fn write(&mut self, resource: &[u8], pieces: &[Piece]) {
        if pieces.is_empty() {
            return;
        }
        self.count += pieces.len() as u64;
        let of_scope = |one: &Piece, other: &Piece| {
            self.frames[one.metric].is_application == self.frames[other.metric].is_application
        };
        let scopes: Vec<(&[Piece], usize)> =
            pieces.chunk_by(of_scope).map(|pieces| (pieces, self.scope_bytes(pieces))).collect();
        let scopes_bytes = scopes.iter().map(|(_, bytes)| wire::part_bytes(*bytes)).sum::<usize>();
        let out = &mut self.request;
        wire::head(out, 1, wire::part_bytes(resource.len()) + scopes_bytes);
        wire::part(out, 1, resource);
        for (pieces, bytes) in scopes {
            wire::head(out, 2, bytes);
            let is_application = self.frames[pieces[0].metric].is_application;
            wire::part(out, 1, &self.scopes[usize::from(is_application)]);
            for pieces in of_metrics(pieces) {
                let frame = &self.frames[pieces[0].metric];
                let data_bytes = frame.data_bytes(pieces);
                wire::head(out, 2, frame.head.len() + wire::part_bytes(data_bytes));
                out.extend_from_slice(&frame.head);
                wire::head(out, frame.field, data_bytes);
                pieces.iter().for_each(|piece| wire::part(out, 1, &self.points[piece.bytes.clone()]));
                out.extend_from_slice(&frame.tail);
            }
        }
    }

    fn scope_bytes(&self, pieces: &[Piece]) -> usize {
        let is_application = self.frames[pieces[0].metric].is_application;
        let metric_bytes = |pieces: &[Piece]| {
            let frame = &self.frames[pieces[0].metric];
            wire::part_bytes(frame.head.len() + wire::part_bytes(frame.data_bytes(pieces)))
        };
        let metrics = of_metrics(pieces).map(metric_bytes).sum::<usize>();
        wire::part_bytes(self.scopes[usize::from(is_application)].len()) + metrics
    }
}

/// The pieces of each metric, never none.
fn of_metrics(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    pieces.chunk_by(|one, other| one.metric == other.metric)
}

impl Frame {
    fn of(metric: &Metric, temporality: TemporalityPreference) -> Self {
        let mut head = Vec::new();
        for (field, text) in [(1, &metric.name), (2, &metric.description), (3, &metric.unit)] {
            if !text.is_empty() {
                wire::part(&mut head, field, text.as_bytes());
            }
        }
        let aggregation = match temporality.is_delta(metric.kind) {
            true => AggregationTemporality::Delta,
            false => AggregationTemporality::Cumulative,
        };
        let is_application = metric.vocabulary == Vocabulary::Application;
        let mut tail = Vec::new();
        let field = match metric.kind {
            MetricKind::Gauge | MetricKind::Unknown => 5,
            MetricKind::Counter | MetricKind::UpDownCounter => 7,
            MetricKind::Histogram if is_application => 9,
            MetricKind::Histogram => 10,
            MetricKind::Summary => 11,
        };
        if matches!(field, 7 | 9 | 10) {
            wire::unsigned(&mut tail, 2, aggregation as u64);
            wire::unsigned(&mut tail, 3, u64::from(metric.kind == MetricKind::Counter));
        }
        Self { head, field, tail, is_application }
    }

    fn data_bytes(&self, pieces: &[Piece]) -> usize {
        let points = pieces.iter().map(|piece| wire::part_bytes(piece.bytes.len()));
        points.sum::<usize>() + self.tail.len()
    }
}
