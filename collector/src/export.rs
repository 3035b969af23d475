//! Everything that leaves the agent: the only module that knows OTLP, pprof, folded stacks and flame graphs.
//!
//! Refuses: looking at the system. What is exported is decided by the batch alone.

mod backend;
#[cfg(test)]
mod fixture;
pub mod flame_graph;
pub mod folded;
pub mod otlp;
mod otlp_logs;
mod otlp_metrics;
mod otlp_profiles;
mod outbox;
pub mod pprof;
mod resource;
mod table;

pub use backend::Backend;
pub use otlp_logs::{logs_request, stack_trace};
pub use otlp_metrics::metrics_request;
pub use otlp_profiles::{profiles_data, profiles_request};
pub use outbox::{Outbox, Receipts};
pub use resource::HostResource;

/// Name of the instrumentation scope on everything that is exported.
pub const SCOPE_NAME: &str = "kansoku";

/// The agent's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
