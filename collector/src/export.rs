//! Everything that leaves the agent: the only module that knows OTLP, pprof, folded stacks and flame graphs.
//!
//! Refuses: looking at the system. What is exported is decided by the batch alone.

mod any_value;
mod backend;
mod delta;
#[cfg(test)]
mod fixture;
pub mod flame_graph;
pub mod folded;
pub mod otlp;
mod otlp_logs;
mod otlp_metrics;
mod otlp_profiles;
mod otlp_traces;
mod outbox;
pub mod pprof;
pub mod prometheus;
mod resource;
mod slow_logs;
mod table;
mod wire;

pub use backend::{Backend, MetricExporter};
pub use delta::{Deltas, First, TemporalityPreference};
pub use otlp_logs::{logs_request, stack_trace};
pub use otlp_metrics::{MetricsRequests, metrics_requests};
pub use otlp_profiles::{profiles_data, profiles_request};
pub use otlp_traces::traces_requests;
pub use outbox::{Outbox, Receipts};
pub use resource::HostResource;
pub use slow_logs::summary;

/// Name of the instrumentation scope on everything that is exported.
pub const SCOPE_NAME: &str = "kansoku";

/// The agent's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
