//! Whose record is it: cgroup -> container -> (later: pod -> workload) -> service name, as one [`Subject`].
//!
//! Resolved when a record arrives. The seam for Kubernetes is [`Identity::subject`]: a source that knows the
//! container's pod adds attributes there. Refuses: guesses. What is not known is not said.

mod cgroup;

use std::collections::HashMap;
use std::sync::Arc;

pub use cgroup::{CgroupName, Container, Runtime};
use quick_cache::unsync::Cache;

use crate::kernel::CgroupMount;

/// Cgroup names that are remembered; a busy node has some thousand.
const CGROUPS_MAX: usize = 16_384;

/// Subjects that are remembered before those that nobody uses are swept.
const SUBJECTS_SWEEP: usize = 4_096;

/// Whose telemetry a record is. The same attributes go on all signals.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `service.name`
    pub service_name: String,
    /// The container, if it is one.
    pub container: Option<Container>,
    /// The systemd service, if it is one and not a container.
    pub unit: Option<String>,
}

impl Subject {
    /// Resource attributes by the OpenTelemetry semantic conventions, without those of the host.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let mut attributes = vec![("service.name", self.service_name.clone())];
        if let Some(container) = &self.container {
            attributes.push(("container.id", container.id.clone()));
            if let Some(runtime) = container.runtime {
                attributes.push(("container.runtime.name", runtime.name().to_owned()));
            }
        }
        if let Some(unit) = &self.unit {
            attributes.push(("kansoku.systemd.unit", unit.clone()));
        }
        attributes
    }
}

/// Names cgroups and processes.
pub struct Identity {
    mount: Option<CgroupMount>,
    cgroups: Cache<u64, Arc<CgroupName>>,
    subjects: HashMap<Key, Arc<Subject>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Container(String),
    Unit(String),
    Executable(String),
}

impl Default for Identity {
    fn default() -> Self {
        Self { mount: CgroupMount::find(), cgroups: Cache::new(CGROUPS_MAX), subjects: HashMap::new() }
    }
}

impl Identity {
    /// The subject of a process in a cgroup. `executable` names the service where nothing else does.
    pub fn subject(&mut self, cgroup: &CgroupName, executable: &str) -> Arc<Subject> {
        let key = match (&cgroup.container, &cgroup.unit) {
            (Some(container), _) => Key::Container(container.id.clone()),
            (None, Some(unit)) => Key::Unit(unit.clone()),
            (None, None) => Key::Executable(executable.to_owned()),
        };
        if self.subjects.len() >= SUBJECTS_SWEEP && !self.subjects.contains_key(&key) {
            self.subjects.retain(|_, subject| Arc::strong_count(subject) > 1);
        }
        let subject = self.subjects.entry(key).or_insert_with(|| {
            let service_name = match (&cgroup.container, &cgroup.unit) {
                (None, Some(unit)) => unit.trim_end_matches(".service").to_owned(),
                _ => executable.to_owned(),
            };
            Arc::new(Subject { service_name, container: cgroup.container.clone(), unit: cgroup.unit.clone() })
        });
        Arc::clone(subject)
    }

    /// What a cgroup's place says. The process helps where the unified hierarchy does not tell: on v1 and hybrid
    /// machines, and where the cgroup is gone. The root cgroup is not remembered: there the process alone tells.
    pub fn cgroup(&mut self, cgroup_id: u64, tgid: u32) -> Arc<CgroupName> {
        if let Some(name) = self.cgroups.get(&cgroup_id) {
            return Arc::clone(name);
        }
        let path = self.mount.as_ref().and_then(|mount| mount.path_of(cgroup_id));
        let by_path = path.as_deref().map(CgroupName::parse).filter(CgroupName::tells_something);
        let is_shared = path.as_deref().is_none_or(|path| path == "/");
        let name = Arc::new(by_path.or_else(|| of_process(tgid)).unwrap_or_default());
        if !is_shared {
            self.cgroups.insert(cgroup_id, Arc::clone(&name));
        }
        name
    }
}

/// What `/proc/PID/cgroup` says: the first hierarchy that names a container, else the first that names a unit.
fn of_process(tgid: u32) -> Option<CgroupName> {
    let process = procfs::process::Process::new(i32::try_from(tgid).ok()?).ok()?;
    let paths = process.cgroups().ok()?.into_iter().map(|hierarchy| hierarchy.pathname);
    let names: Vec<CgroupName> = paths.map(|path| CgroupName::parse(&path)).collect();
    let container = names.iter().find(|name| name.container.is_some());
    container.or_else(|| names.iter().find(|name| name.unit.is_some())).cloned()
}
