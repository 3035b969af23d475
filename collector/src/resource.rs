//! What containers and the node use, from cgroups and `/proc`.
//!
//! Refuses: eBPF. What only the kernel's hooks can tell is in `io`.

pub mod cgroup;
pub mod node;
