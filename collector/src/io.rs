//! I/O, scheduling, memory and TCP by container: the kernel's counts become metrics.
//!
//! Refuses: counting. That is done in the kernel; here counts get names and owners.

pub mod calls;
