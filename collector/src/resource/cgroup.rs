//! What containers and systemd services use, from the kernel's control groups, and its translation to metrics.
//!
//! Knows v1, v2 and hybrid machines. A collection walks the hierarchies, reads each cgroup once (numbers include nested
//! ones) and forgets what went. A file costs 6 microseconds, so what changes less is read each [`MOST_EVERY`]th or
//! [`SLOW_EVERY`]th time, spread over the collections. Refuses: names and pods, which the caller knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::CWD;
use std::os::fd::AsFd;

use crate::identity::Subject;
use crate::telemetry::Metric;
use device::DeviceNames;
use directory::Buffers;
use hierarchy::Hierarchies;
use hot::{Hot, State};
use layer::Layers;
use metrics::{Machine, Reading};
use network::{NamespaceUsage, Namespaces};
use read::{Place, Scope};
use start::Starts;
use usage::{CgroupUsage, FilesystemUsage, InterfaceUsage, Limit};
use walk::{Classify, Found, Walk};

pub mod device;
pub mod directory;
pub mod filesystem;
pub mod hierarchy;
pub mod hot;
pub mod layer;
pub mod metrics;
pub mod network;
pub mod parse;
pub mod read;
pub mod start;
pub mod usage;
pub mod walk;

/// Limits, peaks, processes and file systems of a cgroup are read each time of so many.
pub const SLOW_EVERY: u64 = 12;

/// Pressure, I/O, threads and OOM kills are read each time of so many.
pub const MOST_EVERY: u64 = 6;

/// The hierarchies are walked each time of so many, beside when the caller knows of a new cgroup or one is gone.
pub const WALK_EVERY: u64 = 10;

/// Whose a cgroup is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CgroupKey {
    /// The root, `/`: the machine.
    Root,
    /// All containers of a pod, by the pod's uid.
    PodLevel(Arc<str>),
    /// A container, by its id.
    Container(Arc<str>),
    /// A systemd service, by its name.
    Unit(Arc<str>),
}

/// What is collected beside the rest.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also in cAdvisor's words.
    pub wants_cadvisor: bool,
    /// Also how much containers wrote, which takes a look at each of their files.
    pub wants_layers: bool,
    /// Where the runtime's mount namespace is seen: overlays are mounted from there.
    pub host_root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { wants_cadvisor: true, wants_layers: false, host_root: PathBuf::from("/proc/1/root") }
    }
}

/// Collects what all cgroups use.
pub struct ContainerResources {
    hierarchies: Hierarchies,
    classify: Box<Classify>,
    options: Options,
    walk: Walk,
    buffers: Buffers,
    entries: BTreeMap<Arc<str>, Entry>,
    namespaces: Namespaces,
    names: DeviceNames,
    layers: Layers,
    hot_files: usize,
    hot_files_max: usize,
    must_walk: bool,
    collections: u64,
    boot_unix_s: u64,
}

/// What is kept of a cgroup between collections.
struct Entry {
    key: CgroupKey,
    inode: u64,
    hot: Option<Hot>,
    usage: CgroupUsage,
    before: CgroupUsage,
    /// When `usage` was read; 0 before the first reading.
    read_unix_ns: u64,
    cpu_cores: Option<f64>,
    start_unix_ns: u64,
    starts: Starts,
    /// Which of the [`SLOW_EVERY`] collections reads its slow numbers.
    slot: u64,
    network: Network,
    filesystem: Option<FilesystemUsage>,
    subject: Option<Arc<Subject>>,
}

/// Which network namespace a cgroup is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// The host's, or not known: looked at again with the slow numbers.
    Host,
    /// One of its own, seen through this process.
    Own { pid: u32, inode: u64 },
}

impl ContainerResources {
    /// A collector over `hierarchies`. `classify` says whose a path is, once for each path.
    pub fn new(
        hierarchies: Hierarchies,
        options: Options,
        classify: impl FnMut(&str) -> Option<CgroupKey> + Send + 'static,
    ) -> Self {
        Self {
            hierarchies,
            classify: Box::new(classify),
            options,
            walk: Walk::default(),
            buffers: Buffers::default(),
            entries: BTreeMap::new(),
            namespaces: Namespaces::default(),
            names: DeviceNames::default(),
            layers: Layers::default(),
            hot_files: 0,
            hot_files_max: hot::files_max(),
            must_walk: true,
            collections: 0,
            boot_unix_s: procfs::boot_time_secs().unwrap_or(0),
        }
    }

    /// Cgroups that were left out for [`walk::CGROUPS_MAX`] at the last collection.
    pub fn left_out(&self) -> u64 {
        self.walk.left_out()
    }

    /// Reads all cgroups. `has_news` says that there may be new ones. `subject_of` names the owner of a path; containers
    /// and services without one are left out.
    pub fn collect(
        &mut self,
        now_unix_ns: u64,
        has_news: bool,
        mut subject_of: impl FnMut(&str, &CgroupKey) -> Option<Arc<Subject>>,
    ) -> Vec<Metric> {
        if has_news || self.must_walk || self.collections.is_multiple_of(WALK_EVERY) {
            self.must_walk = false;
            self.update_entries(now_unix_ns);
        }
        self.namespaces.begin();
        let mut reported: Vec<(Arc<str>, Option<NamespaceUsage>, bool)> =
            Vec::with_capacity(self.entries.len());
        let mut seen_namespaces = BTreeSet::new();
        let paths: Vec<Arc<str>> = self.entries.keys().cloned().collect();
        for path in paths {
            let Some(entry) = self.entries.get_mut(&path) else { continue };
            entry.subject = subject_of(&path, &entry.key);
            let is_named = entry.subject.is_some();
            if !is_named && matches!(entry.key, CgroupKey::Container(_) | CgroupKey::Unit(_)) {
                continue;
            }
            if !self.read_entry(&path, now_unix_ns) {
                // Another one may stand there now.
                self.must_walk = true;
                continue;
            }
            let namespace = self.network_of(&path);
            let is_first = namespace.as_ref().is_none_or(|(inode, _)| seen_namespaces.insert(*inode));
            reported.push((path, namespace.map(|(_, usage)| usage), is_first));
        }
        if self.options.wants_layers {
            let entries = &self.entries;
            self.layers.retain(|path| entries.contains_key(path));
            self.layers.step();
        }
        self.collections += 1;
        self.translate(&reported, now_unix_ns)
    }

    /// Walks: what went is forgotten, what came begins.
    fn update_entries(&mut self, now_unix_ns: u64) {
        let found = self.walk.walk(&self.hierarchies, &mut self.buffers, &mut *self.classify);
        self.entries.retain(|path, entry| found.get(path).is_some_and(|found| found.inode == entry.inode));
        self.hot_files = self.entries.values().filter_map(|entry| entry.hot.as_ref()).map(Hot::files).sum();
        let new: Vec<(Arc<str>, Found)> = found
            .iter()
            .filter(|(path, _)| !self.entries.contains_key(*path))
            .map(|(path, found)| (path.clone(), found.clone()))
            .collect();
        for (path, found) in new {
            let start_unix_ns = self.start_of(&path, &found).min(now_unix_ns);
            let entry = Entry {
                hot: self.open_hot(&path, &found.key),
                key: found.key,
                inode: found.inode,
                usage: CgroupUsage::default(),
                before: CgroupUsage::default(),
                read_unix_ns: 0,
                cpu_cores: None,
                start_unix_ns,
                starts: Starts::since(start_unix_ns),
                slot: self.entries.len() as u64 % SLOW_EVERY,
                network: Network::Host,
                filesystem: None,
                subject: None,
            };
            self.entries.insert(path, entry);
        }
        self.must_walk = self.walk.has_room_again();
    }

    /// The files that tell whether a cgroup rests. The root never does.
    fn open_hot(&mut self, path: &str, key: &CgroupKey) -> Option<Hot> {
        if *key == CgroupKey::Root || self.hot_files >= self.hot_files_max {
            return None;
        }
        let hot = Hot::open(&self.hierarchies, path);
        self.hot_files += hot.as_ref().map_or(0, Hot::files);
        hot
    }

    /// When a cgroup began: its directory's time may be too late, its first process's is not.
    fn start_of(&mut self, path: &str, found: &Found) -> u64 {
        if found.key == CgroupKey::Root {
            return start::process_start_unix_ns(0, self.boot_unix_s);
        }
        let pid = read::first_process(&self.hierarchies, path, &mut self.buffers);
        let ticks = pid.and_then(|pid| {
            let stat = self.buffers.read(CWD.as_fd(), format!("/proc/{pid}/stat"))?;
            parse::start_ticks(stat)
        });
        let started = ticks.map(|ticks| start::process_start_unix_ns(ticks, self.boot_unix_s));
        started.map_or(found.made_unix_ns, |started| started.min(found.made_unix_ns))
    }

    /// Whether it is there still.
    fn read_entry(&mut self, path: &Arc<str>, now_unix_ns: u64) -> bool {
        let Some(entry) = self.entries.get_mut(path) else { return false };
        let is_first = entry.read_unix_ns == 0;
        let is_slow = is_first || self.collections % SLOW_EVERY == entry.slot;
        let is_most =
            self.collections % MOST_EVERY == entry.slot % MOST_EVERY || entry.key == CgroupKey::Root;
        let scope = match (is_slow, is_most) {
            (true, _) => Scope::All,
            (_, true) => Scope::Most,
            _ => Scope::Changing,
        };
        let state = entry.hot.as_ref().map_or(State::Changed(None), |hot| hot.state(&entry.usage));
        let sums = match state {
            State::Gone => return false,
            State::Rests => None,
            State::Changed(sums) => sums,
        };
        entry.before.clone_from(&entry.usage);
        let rests = state == State::Rests && scope == Scope::Changing;
        let place = Place { hierarchies: &self.hierarchies, path, hot: entry.hot.as_ref() };
        if !rests && !read::read(place, scope, sums, &mut self.buffers, &mut entry.usage) {
            return false;
        }
        if entry.key == CgroupKey::Root {
            complete_root(&mut entry.usage, &mut self.buffers);
        }
        let before_unix_ns = std::mem::replace(&mut entry.read_unix_ns, now_unix_ns);
        if !is_first {
            entry.starts.compare(&entry.before, &entry.usage, before_unix_ns.min(now_unix_ns));
        }
        entry.cpu_cores = cores(&entry.before, &entry.usage, now_unix_ns.saturating_sub(before_unix_ns))
            .filter(|_| !is_first);
        for io in entry.usage.io.iter().flatten() {
            self.names.learn(io.device);
        }
        if is_slow {
            self.read_process(path);
        }
        true
    }

    /// What only a process of the cgroup shows: its network namespace and its root file system.
    fn read_process(&mut self, path: &Arc<str>) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        if !matches!(entry.key, CgroupKey::Container(_) | CgroupKey::Unit(_)) {
            return;
        }
        let Some(pid) = read::first_process(&self.hierarchies, path, &mut self.buffers) else {
            entry.network = Network::Host;
            return;
        };
        let inode = network::namespace_of(pid).filter(|&inode| !self.namespaces.is_host(inode));
        entry.network = inode.map_or(Network::Host, |inode| Network::Own { pid, inode });
        if !matches!(entry.key, CgroupKey::Container(_)) {
            return;
        }
        let Some((mut filesystem, upper)) = filesystem::of_process(pid, &mut self.buffers) else {
            entry.filesystem = None;
            return;
        };
        if let Some(upper) = upper.filter(|_| self.options.wants_layers) {
            let upper = self.options.host_root.join(upper.strip_prefix("/").unwrap_or(&upper));
            filesystem.layer_bytes = self.layers.bytes(path, &upper);
        }
        entry.filesystem = Some(filesystem);
    }

    /// The namespace that the cgroup is in and its traffic, unless it is the host's.
    fn network_of(&mut self, path: &Arc<str>) -> Option<(u64, NamespaceUsage)> {
        let entry = self.entries.get_mut(path)?;
        let Network::Own { pid, inode } = entry.network else { return None };
        // The process may have gone, and its number may be another's.
        if network::namespace_of(pid) != Some(inode) {
            entry.network = Network::Host;
            let pid = read::first_process(&self.hierarchies, path, &mut self.buffers)?;
            let inode = network::namespace_of(pid).filter(|&inode| !self.namespaces.is_host(inode))?;
            entry.network = Network::Own { pid, inode };
        }
        let Network::Own { pid, inode } = entry.network else { return None };
        let usage = self.namespaces.traffic(inode, pid, entry.start_unix_ns, &mut self.buffers)?;
        Some((inode, usage.clone()))
    }

    fn translate(
        &mut self,
        reported: &[(Arc<str>, Option<NamespaceUsage>, bool)],
        now_unix_ns: u64,
    ) -> Vec<Metric> {
        let host = network::host_traffic(&mut self.buffers);
        let mut keys = BTreeSet::new();
        let mut readings = Vec::with_capacity(reported.len());
        for (path, namespace, is_first_in_namespace) in reported {
            let Some(entry) = self.entries.get(path) else { continue };
            let host_interfaces: &[InterfaceUsage] = if entry.key == CgroupKey::Root { &host } else { &[] };
            readings.push(Reading {
                path,
                key: &entry.key,
                subject: entry.subject.as_ref(),
                is_first: keys.insert(&entry.key),
                usage: &entry.usage,
                cpu_cores: entry.cpu_cores,
                host_interfaces,
                namespace: namespace.clone(),
                is_first_in_namespace: *is_first_in_namespace,
                filesystem: entry.filesystem.as_ref(),
                starts: entry.starts,
                start_unix_ns: entry.start_unix_ns,
                time_unix_ns: now_unix_ns,
            });
        }
        metrics::metrics(&readings, &self.names, machine(), self.options.wants_cadvisor)
    }
}

/// Processors in use between two readings.
fn cores(before: &CgroupUsage, now: &CgroupUsage, passed_ns: u64) -> Option<f64> {
    let used_ns = now.cpu.total_ns?.checked_sub(before.cpu.total_ns?)?;
    (passed_ns > 0).then(|| used_ns as f64 / passed_ns as f64)
}

/// The root has no limits of its own, and v2's has no memory: the machine's stand for them.
fn complete_root(usage: &mut CgroupUsage, buffers: &mut Buffers) {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit);
    let total = info.totalram.saturating_mul(unit);
    usage.memory.limit_bytes = Some(Limit::At(total));
    if usage.memory.usage_bytes.is_none() {
        usage.memory.usage_bytes = Some(total.saturating_sub(info.freeram.saturating_mul(unit)));
    }
    let pressure = &mut usage.pressure;
    for (part, file) in [
        (&mut pressure.cpu, "/proc/pressure/cpu"),
        (&mut pressure.memory, "/proc/pressure/memory"),
        (&mut pressure.io, "/proc/pressure/io"),
    ] {
        if part.some_us.is_none() {
            *part = buffers.read(CWD.as_fd(), file).map(parse::pressure).unwrap_or_default();
        }
    }
}

fn machine() -> Machine {
    let info = rustix::system::sysinfo();
    let online = std::fs::read("/sys/devices/system/cpu/online").ok();
    Machine {
        cpu_cores: online.as_deref().and_then(parse::count_of_ranges),
        memory_bytes: Some(info.totalram.saturating_mul(u64::from(info.mem_unit))),
    }
}

#[cfg(test)]
mod tests;
