//! Kansoku's daemon as a library: the binary is a thin `main`, and the tests use the same code.
//!
//! Data goes one way: `kernel` -> `pipeline` (with `process`, `identity`, `profile`) -> `symbolize` -> `export`.

mod address;
pub mod agent;
pub mod arch;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod crash;
pub mod daemon;
pub mod diagnostics;
pub mod dump;
pub mod export;
pub mod flow;
pub mod health;
pub mod identity;
pub mod io;
pub mod kernel;
pub mod loss;
pub mod meter;
pub mod pipeline;
pub mod process;
pub mod profile;
pub mod resource;
pub mod scrape;
pub mod symbolize;
pub mod telemetry;
