//! The harness of the end-to-end tests: starts the built agent and real workloads, receives and reads what comes out.
//!
//! Refuses: mocks, and the agent's own code: nothing here links the `collector` crate, so what is checked is what a
//! user's backend would see. Needs root, and the tests run one at a time: they measure shares of two CPUs.

pub mod agent;
pub mod api_server;
pub mod bundle;
pub mod callers;
pub mod certificates;
pub mod cgroup;
pub mod container;
pub mod crash;
pub mod cri;
pub mod daemon;
pub mod dnsmasq;
pub mod endpoint;
pub mod http;
pub mod kubectl;
pub mod ledger;
pub mod metrics;
pub mod nginx;
pub mod parents;
pub mod pod_networks;
pub mod pods;
pub mod postgres;
pub mod profile;
pub mod prometheus;
pub mod promql;
pub mod receiver;
pub mod resources;
pub mod services;
pub mod spans;
pub mod strace;
pub mod swarm;
pub mod tools;
pub mod traced;
pub mod victoria_metrics;
pub mod web_server;
pub mod workload;
