//! The Prometheus endpoint: snapshots in the three formats that Prometheus reads, over HTTP.
//!
//! Refuses: pushing, and metrics of applications, which whoever scrapes us can scrape.

mod answer;
mod authorization;
mod bodies;
mod buckets;
mod counters;
mod deadline;
mod encode;
mod families;
mod labels;
mod names;
mod negotiation;
mod numbers;
mod protobuf;
mod requests;
mod server;
mod text;
mod tls;
mod watched_file;

pub use encode::{Encoder, Format, Omitted};
pub use requests::{SnapshotAnswers, SnapshotRequest, SnapshotRequests};
pub use server::{PrometheusOptions, Server};
pub use tls::TlsOptions;
