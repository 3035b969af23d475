//! A snapshot -> OTLP requests that a receiver takes: one resource per owner, within it metrics by name.
//!
//! A number is an integer or a double by its metric alone, see [`is_whole`]: one that changed from export to export would
//! be two streams to a backend. Refuses: the vocabularies that only Prometheus has, and making deltas; it only says of
//! a metric which it is.

use std::collections::HashMap;
use std::sync::Arc;

use fnv::FnvBuildHasher;
use prost::Message;

use super::HostResource;
use super::delta::TemporalityPreference;
use crate::telemetry::{Metric, MetricKind, Owner, Snapshot, Vocabulary};

mod packer;
mod points;

use packer::{Packer, Piece};
use points::data_point;

/// A snapshot's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsRequests {
    /// Each an encoded `ExportMetricsServiceRequest`, with the number of points in it for whoever drops it.
    pub requests: Vec<(Vec<u8>, u64)>,
    /// Points in no request: of another type than their metric, not finite where the metric is whole, or alone too
    /// large. `sum of points + refused` is the number of points in the vocabularies that OTLP takes.
    pub refused: u64,
}

/// The requests for a snapshot, each of at most `bytes_max` encoded. `temporality` says which kinds of metrics
/// [`super::Deltas`] has made deltas. A resource is cut only if it is too large for a request of its own.
pub fn metrics_requests(
    snapshot: &Snapshot,
    host: &HostResource,
    temporality: TemporalityPreference,
    bytes_max: usize,
) -> MetricsRequests {
    let mut metrics: Vec<&Metric> = snapshot.metrics.iter().filter(|metric| is_exported(metric)).collect();
    // Scopes one after the other.
    metrics.sort_by(|a, b| {
        let scope = |metric: &Metric| metric.vocabulary == Vocabulary::Application;
        (scope(a), &a.name).cmp(&(scope(b), &b.name))
    });
    let mut owners = Owners::default();
    let mut points = Vec::new();
    let mut refused = 0;
    for (position, metric) in metrics.iter().enumerate() {
        let is_whole = is_whole(metric);
        for point in &metric.points {
            let start = points.len();
            if data_point(metric, is_whole, point, snapshot.time_unix_ns, &mut points) {
                owners.pieces_of(&point.owner).push(Piece { metric: position, bytes: start..points.len() });
            } else {
                refused += 1;
            }
        }
    }
    let mut packer = Packer::new(&metrics, &points, temporality, bytes_max, refused);
    for (owner, pieces) in owners.in_order {
        let resource = match owner {
            Owner::Agent => host.of_agent(),
            // Cgroups in cAdvisor's words are for the endpoint only.
            Owner::Host | Owner::Cgroup(_) => host.of_host(),
            Owner::Subject(subject) => host.of(subject),
            Owner::Object(object) => host.of_object(object),
            Owner::Endpoint(endpoint) => host.of_endpoint(endpoint),
        };
        packer.add(&resource.encode_to_vec(), &pieces);
    }
    packer.finish()
}

fn is_exported(metric: &Metric) -> bool {
    metric.vocabulary.is_pushed()
}

/// Whether a metric's numbers are integers: sums of bytes and of countable things (`{process}`), and gauges of bytes.
/// All else is a double: times, shares, `{cpu}` (half a CPU is one), gauges of things (they may be averages), and what
/// applications say, since Prometheus knows doubles only.
fn is_whole(metric: &Metric) -> bool {
    let is_annotation = metric.unit.starts_with('{') && metric.unit.ends_with('}') && metric.unit != "{cpu}";
    match (metric.vocabulary, metric.kind) {
        (
            Vocabulary::OpenTelemetry | Vocabulary::Cluster,
            MetricKind::Counter | MetricKind::UpDownCounter,
        ) => metric.unit == "By" || is_annotation,
        (Vocabulary::OpenTelemetry, MetricKind::Gauge) => metric.unit == "By",
        _ => false,
    }
}

/// Owners in the order in which they are first seen, with their points.
#[derive(Default)]
struct Owners<'a> {
    in_order: Vec<(&'a Owner, Vec<Piece>)>,
    by_content: HashMap<&'a Owner, usize>,
    /// Spares hashing a subject's texts for each of its points.
    by_address: HashMap<usize, usize, FnvBuildHasher>,
}

impl<'a> Owners<'a> {
    fn pieces_of(&mut self, owner: &'a Owner) -> &mut Vec<Piece> {
        let position = match owner {
            Owner::Agent | Owner::Host | Owner::Endpoint(_) | Owner::Cgroup(_) => self.position(owner),
            Owner::Subject(subject) => self.position_at(Arc::as_ptr(subject) as usize, owner),
            Owner::Object(object) => self.position_at(Arc::as_ptr(object) as usize, owner),
        };
        &mut self.in_order[position].1
    }

    fn position_at(&mut self, address: usize, owner: &'a Owner) -> usize {
        if let Some(position) = self.by_address.get(&address) {
            return *position;
        }
        let position = self.position(owner);
        self.by_address.insert(address, position);
        position
    }

    fn position(&mut self, owner: &'a Owner) -> usize {
        *self.by_content.entry(owner).or_insert_with(|| {
            self.in_order.push((owner, Vec::new()));
            self.in_order.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
