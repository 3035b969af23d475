//! I/O, scheduling, memory and TCP by container: the kernel's counts become metrics.
//!
//! Refuses: counting. That is done in the kernel; here counts get names and owners.

pub mod calls;
mod cgroups;
mod files;
mod metrics;
mod owners;
mod series;
mod slow;

use std::collections::HashMap;
use std::sync::Arc;

use collector_common::io::{Key as KernelKey, Measure};

use crate::identity::Directory;
use crate::kernel::{CgroupMount, IoMaps, IoOptions};
use crate::telemetry::{Metric, MetricKind, Owner, Point};
use cgroups::BlockCgroups;
use files::Files;
use metrics::Names;
use owners::{Owners, Whose};
use series::{AllSeries, SeriesKey};
pub use slow::{PendingOperation, SlowOperations};

/// Cgroups are looked for that are gone, so that their counts can be freed, each so many nanoseconds.
const SWEEP_NS: u64 = 60_000_000_000;

/// Reads the kernel's counts and names them.
pub struct Io {
    maps: IoMaps,
    series: AllSeries,
    owners: Owners,
    block: BlockCgroups,
    files: Option<Files>,
    start_unix_ns: u64,
    sweep_unix_ns: u64,
}

impl Io {
    /// Counting began at `now_unix_ns`.
    pub fn new(maps: IoMaps, options: &IoOptions, now_unix_ns: u64) -> Self {
        Self {
            maps,
            series: AllSeries::new(now_unix_ns),
            owners: Owners::new(CgroupMount::find()),
            block: BlockCgroups::find(),
            files: options.files.then(|| Files::new(now_unix_ns)),
            start_unix_ns: now_unix_ns,
            sweep_unix_ns: now_unix_ns,
        }
    }

    /// All metrics now.
    pub fn collect(&mut self, now_unix_ns: u64, directory: &mut Directory) -> Vec<Metric> {
        let Self { maps, series, block, owners, .. } = self;
        block.begin();
        maps.read(|key, counts| {
            let whose = match key.measure == Measure::Block as u8 && block.is_apart() {
                true => Whose::Owner(block.owner_of(key.cgroup_id)),
                false => owners.of_cgroup(key.cgroup_id, directory, now_unix_ns),
            };
            // What is not taken now is taken with what comes until then.
            if let Whose::Owner(owner) = whose {
                series.take(key, counts, owner, now_unix_ns);
            }
        });
        series.end_reading(now_unix_ns, |owner| {
            owner.as_ref().is_none_or(|key| directory.subject(key).is_some())
        });
        let owner_of = |owner: &series::OwnerKey| match owner {
            None => Some(Owner::Host),
            Some(key) => directory.subject(key).map(|subject| Owner::Subject(Arc::clone(subject))),
        };
        let owner = |key: &SeriesKey| owner_of(&key.owner);
        let names = Names { owner: &owner, process: &process_name, device: &device_name };
        let mut metrics = metrics::metrics(series.iter(), &names);
        if let Some(files) = &mut self.files {
            let owned = |cgroup_id: u64| owner_of(&directory.of_cgroup(cgroup_id).cloned());
            metrics.extend(files.collect(maps, now_unix_ns, owned));
        }
        metrics.push(self.overflow());
        if now_unix_ns.saturating_sub(self.sweep_unix_ns) >= SWEEP_NS {
            self.sweep_unix_ns = now_unix_ns;
            self.sweep(directory);
        }
        metrics
    }

    /// Frees what belongs to cgroups that are gone. Their last counts were read before: nobody runs in them any more.
    fn sweep(&mut self, directory: &mut Directory) {
        let Self { owners, .. } = self;
        let mut known: HashMap<u64, bool> = HashMap::new();
        let mut is_there =
            |cgroup_id: u64| *known.entry(cgroup_id).or_insert_with(|| owners.is_there(cgroup_id));
        let is_gone = |key: &&KernelKey| match key.measure == Measure::Block as u8 && self.block.is_apart() {
            true => !self.block.is_there(key.cgroup_id),
            false => !is_there(key.cgroup_id),
        };
        let gone: Vec<KernelKey> = self.series.kernel_keys().filter(is_gone).copied().collect();
        for key in gone.iter().filter(|key| key.cgroup_id != collector_common::io::OVERFLOW_CGROUP) {
            self.maps.forget(key);
            self.series.forget(key);
        }
        directory.retain(|cgroup_id| self.owners.is_there(cgroup_id));
        self.owners.sweep();
    }

    fn overflow(&self) -> Metric {
        let overflow = self.series.overflow() as f64;
        Metric::new(
            MetricKind::Counter,
            "kansoku.io.overflow",
            "{operation}",
            "Operations that found no room in the kernel's map: they are in no other metric.",
        )
        .with(vec![Point::number(Owner::Agent, Vec::new(), self.start_unix_ns, overflow)])
    }
}

/// What a process calls itself.
fn process_name(pid: u32) -> Option<Arc<str>> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().into())
}

/// The name of a block device, or its numbers where it is gone.
fn device_name(device: u32) -> String {
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name = link.as_deref().and_then(|path| path.file_name());
    name.map_or_else(|| format!("{major}:{minor}"), |name| name.to_string_lossy().into_owned())
}
