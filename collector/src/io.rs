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

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use collector_common::io::{Key as KernelKey, Measure, OVERFLOW_CGROUP};

use crate::clock::monotonic_ns;
use crate::identity::Directory;
use crate::kernel::{CgroupMount, IoMaps, IoOptions};
use crate::process::EndedName;
use crate::resource::cgroup::device::DeviceNames;
use crate::resource::cgroup::usage::DeviceNumber;
use crate::telemetry::{Metric, MetricKind, Owner, Point};
use cgroups::BlockCgroups;
use files::Files;
use metrics::Names;
use owners::{Owners, Whose};
use series::{AllSeries, SeriesKey};
pub use slow::{PendingOperation, SlowOperations};

/// Cgroups are looked for that are gone, so that their counts can be freed, each so many nanoseconds.
const SWEEP_NS: u64 = 60_000_000_000;

/// Names of processes that are remembered; those without series go with each sweep. More processes have no name.
const PROCESS_NAMES_MAX: usize = 65_536;

/// Reads the kernel's counts and names them.
pub struct Io {
    maps: IoMaps,
    series: AllSeries,
    owners: Owners,
    block: BlockCgroups,
    files: Option<Files>,
    start_unix_ns: u64,
    process_names: HashMap<u32, Arc<str>>,
    device_names: DeviceNames,
    sweep_ns: u64,
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
            process_names: HashMap::new(),
            device_names: DeviceNames::default(),
            sweep_ns: monotonic_ns(),
        }
    }

    /// Processes that ended had these names: nobody can ask them any more. The first name of a process stays, so that it has
    /// no second series.
    pub fn learn_names(&mut self, names: &[EndedName]) {
        for (pid, name) in names {
            if self.process_names.len() < PROCESS_NAMES_MAX {
                self.process_names.entry(*pid).or_insert_with(|| Arc::clone(name));
            }
        }
    }

    /// Takes the kernel's counts.
    pub fn read(&mut self, now_unix_ns: u64, directory: &mut Directory) {
        let now_ns = monotonic_ns();
        let gone = if now_ns.saturating_sub(self.sweep_ns) >= SWEEP_NS {
            self.sweep_ns = now_ns;
            self.block.refresh();
            self.gone()
        } else {
            Vec::new()
        };
        let Self { maps, series, block, owners, .. } = self;
        block.begin();
        maps.read(|place, key, counts| {
            if series.has(place, key, counts) {
                return;
            }
            let whose = match key.measure == Measure::Block as u8 && block.is_apart() {
                true => match block.owner_of(key.cgroup_id) {
                    Some(key) if directory.subject(&key).is_none() => Whose::Later,
                    owner => Whose::Owner(owner),
                },
                false => owners.of_cgroup(key.cgroup_id, directory, now_ns),
            };
            // What is not taken now is taken with what comes until then.
            if let Whose::Owner(owner) = whose {
                series.take(place, key, counts, owner);
            }
        });
        series.end_reading(now_unix_ns, |owner| {
            owner.as_ref().is_none_or(|key| directory.subject(key).is_some())
        });
        if self.sweep_ns == now_ns {
            self.sweep(&gone, now_ns, directory);
        }
    }

    /// All metrics now.
    pub fn collect(&mut self, now_unix_ns: u64, directory: &mut Directory) -> Vec<Metric> {
        self.read(now_unix_ns, directory);
        let now_ns = monotonic_ns();
        let owner_of = |owner: &series::OwnerKey| match owner {
            None => Some(Owner::Host),
            Some(key) => directory.subject(key).map(|subject| Owner::Subject(Arc::clone(subject))),
        };
        let owner = |key: &SeriesKey| owner_of(&key.owner);
        for (key, _) in self.series.iter().filter(|(key, _)| is_of_process(key.measure, key.detail)) {
            // Remembered: a process that ended or took another name has no second series.
            if !self.process_names.contains_key(&key.detail)
                && self.process_names.len() < PROCESS_NAMES_MAX
                && let Some(name) = process_name(key.detail)
            {
                self.process_names.insert(key.detail, name);
            }
        }
        for (key, _) in self.series.iter().filter(|(key, _)| key.measure == Measure::Block as u8) {
            self.device_names.learn(device_number(key.detail));
        }
        let device = |number| self.device_names.name(device_number(number));
        let process = |pid| self.process_names.get(&pid).cloned();
        let names = Names { owner: &owner, process: &process, device: &device };
        let mut metrics = metrics::metrics(self.series.iter(), &names);
        if let Some(files) = &mut self.files {
            let owners = &mut self.owners;
            let owned = |cgroup_id: u64| match owners.of_cgroup(cgroup_id, directory, now_ns) {
                Whose::Owner(owner) => owner_of(&owner),
                Whose::Later => None,
            };
            metrics.extend(files.collect(&mut self.maps, now_unix_ns, owned));
        }
        metrics.push(self.overflow());
        metrics
    }

    /// Counts whose cgroup or process is gone. Looked for before a reading and freed after it: so what they counted last
    /// is read.
    fn gone(&self) -> Vec<(u32, KernelKey)> {
        let mut cgroups: HashMap<u64, bool> = HashMap::new();
        let mut processes: HashMap<u32, bool> = HashMap::new();
        let is_gone = |(_, key): &(u32, &KernelKey)| {
            if key.cgroup_id == OVERFLOW_CGROUP {
                return false;
            }
            if is_of_process(key.measure, key.detail)
                && !*processes.entry(key.detail).or_insert_with(|| is_running(key.detail))
            {
                return true;
            }
            match key.measure == Measure::Block as u8 && self.block.is_apart() {
                true => !self.block.is_there(key.cgroup_id),
                false => {
                    let owners = &self.owners;
                    !*cgroups.entry(key.cgroup_id).or_insert_with(|| owners.is_there(key.cgroup_id))
                }
            }
        };
        self.series.kernel_keys().filter(is_gone).map(|(place, key)| (place, *key)).collect()
    }

    /// Frees what is gone, and forgets who has been gone for a while.
    fn sweep(&mut self, gone: &[(u32, KernelKey)], now_ns: u64, directory: &mut Directory) {
        for (place, key) in gone {
            self.maps.forget(key, *place);
            self.series.forget(*place);
        }
        self.series.forget_processes(now_ns, is_running);
        let named: HashSet<u32> = self.series.iter().map(|(key, _)| key.detail).collect();
        self.process_names.retain(|pid, _| named.contains(pid));
        let owners = &self.owners;
        directory.retain(now_ns, |cgroup_id| owners.is_there(cgroup_id));
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

/// Whether a count is of a process: then the detail is its id.
fn is_of_process(measure: u8, detail: u32) -> bool {
    detail != 0 && (measure == Measure::Syscall as u8 || measure == Measure::Uring as u8)
}

fn is_running(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// The name of a process's executable; that of its main thread where it has none (kernel threads).
fn process_name(pid: u32) -> Option<Arc<str>> {
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    if let Some(name) = executable.as_deref().and_then(|path| path.file_name()?.to_str()) {
        // A file that was replaced since.
        return Some(name.strip_suffix(" (deleted)").unwrap_or(name).into());
    }
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().into())
}

/// A device's number in the kernel's form: 12 bits of major, 20 bits of minor.
fn device_number(device: u32) -> DeviceNumber {
    DeviceNumber { major: device >> 20, minor: device & 0xf_ffff }
}
