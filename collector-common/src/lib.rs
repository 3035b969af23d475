//! The one place where the kernel side and the daemon agree: record layouts, limits, loss reasons.
//!
//! Refuses: the standard library, I/O, allocation, and anything that only one of the two sides needs.
#![no_std]

pub mod crash;
pub mod event;
pub mod flow;
pub mod io;
pub mod limits;
pub mod loss;
pub mod process;
pub mod profile;
