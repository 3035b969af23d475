//! The kernel boundary: load, attach, drain, counters. The only module that imports aya and perf-event.
//!
//! Every hook has a fallback that is chosen by trying, and no single hook is fatal: what was tried, taken and lost is
//! kept as [`Hook`]s for `kansoku doctor`. Refuses: what the records mean.

mod alarm;
mod batch;
mod btf;
mod bus_error;
mod cgroup_path;
mod clock_discipline;
mod conntrack;
mod duty;
mod flow_maps;
mod heap;
mod hook;
mod hooks;
mod inbox;
mod io_maps;
mod layout;
mod map;
mod mapped_files;
mod object;
mod online;
mod pidfd;
mod sampler;
mod sideband;
mod stderr_tails;
mod syscalls;
mod trial;

pub use alarm::Alarm;
pub use bus_error::{pages_replaced, survive_truncated_files};
pub use cgroup_path::{CgroupMount, cgroup_id_of};
pub use clock_discipline::clock_discipline;
pub use conntrack::{Conntrack, Route, node_network};
pub use duty::{Costs, Watched, WatchedTime};
pub use heap::keep_heap_small;
pub use hook::{Attempt, Hook};
pub use inbox::{Arrival, Inbox};
pub use io_maps::IoMaps;
pub use mapped_files::MappedFiles;
pub use object::{IoOptions, Kernel, KernelOptions, ProgramTime};
pub use online::online_cpus;
pub use pidfd::{Peer, peer_of};
pub use sampler::{SampleSource, sample_ring_bytes};
pub use sideband::{FileId, MappingEvent, SidebandEvent, sideband_ring_bytes};
pub use stderr_tails::{StderrTails, Tail};
pub use syscalls::SystemCalls;
