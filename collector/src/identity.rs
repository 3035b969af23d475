//! Whose record is it: cgroup -> container -> (later: pod -> workload) -> service name, as one [`Subject`].
//!
//! Resolved when a record arrives. The seam for Kubernetes is [`Identity::subject`]: a source that knows the
//! container's pod adds attributes there. Refuses: guesses. What is not known is not said.

mod bundle;
mod cgroup;
mod directory;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use cgroup::{CgroupName, Container, Runtime, pod_uid};
pub use directory::{Directory, KEEP_ENDED_NS, Placement};
use quick_cache::unsync::Cache;

use crate::kernel::{CgroupMount, cgroup_id_of};

/// Cgroup names that are remembered; a busy node has some thousand.
const CGROUPS_MAX: usize = 16_384;

/// Subjects that are remembered before those that nobody uses are swept.
const SUBJECTS_SWEEP: usize = 4_096;

/// The pod of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `k8s.namespace.name`
    pub namespace: String,
    /// `k8s.pod.name`
    pub name: String,
    /// `k8s.pod.uid`
    pub uid: String,
    /// `k8s.container.name`; empty for the pod's sandbox.
    pub container: String,
    /// `container.image.name`, as the runtime was asked for it.
    pub image: Option<String>,
}

/// Whose telemetry a record is. The same attributes go on all signals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `service.name`
    pub service_name: String,
    /// The container, if it is one.
    pub container: Option<Container>,
    /// The systemd service, if it is one and not a container.
    pub unit: Option<String>,
    /// The container's pod, if it is in one.
    pub pod: Option<Arc<Pod>>,
    /// Grows when a container's main process executes another program and so names the service anew.
    pub revision: u32,
}

impl Subject {
    /// What makes it one: two subjects with the same key are the same, under an older and a newer name.
    pub fn key(&self) -> Key {
        match (&self.container, &self.unit) {
            (Some(container), _) => Key::Container(container.id.clone()),
            (None, Some(unit)) => Key::Unit(unit.clone()),
            (None, None) => Key::Executable(self.service_name.clone()),
        }
    }

    /// Resource attributes by the OpenTelemetry semantic conventions, without those of the host.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let mut attributes = vec![("service.name", self.service_name.clone())];
        if let Some(container) = &self.container {
            attributes.push(("container.id", container.id.clone()));
            if let Some(runtime) = container.runtime {
                attributes.push(("container.runtime.name", runtime.name().to_owned()));
            }
        }
        if let Some(pod) = &self.pod {
            attributes.push(("k8s.namespace.name", pod.namespace.clone()));
            attributes.push(("k8s.pod.name", pod.name.clone()));
            attributes.push(("k8s.pod.uid", pod.uid.clone()));
            attributes.push(("k8s.container.name", pod.container.clone()));
            attributes.extend(pod.image.iter().map(|image| ("container.image.name", image.clone())));
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
    cgroups: Cache<u64, Known>,
    subjects: HashMap<Key, Named>,
}

/// What a cgroup's place said.
#[derive(Clone)]
struct Known {
    name: Arc<CgroupName>,
    /// Whether its own path names its owner. Otherwise a process did, and others in the cgroup may be somebody else's.
    is_own: bool,
}

/// A subject, and the process whose executable names it.
struct Named {
    subject: Arc<Subject>,
    named_by: u32,
}

/// What makes a subject one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The container's id.
    Container(String),
    /// The systemd service.
    Unit(String),
    /// The executable.
    Executable(String),
}

impl Default for Identity {
    fn default() -> Self {
        Self { mount: CgroupMount::find(), cgroups: Cache::new(CGROUPS_MAX), subjects: HashMap::new() }
    }
}

impl Identity {
    /// The subject of a process in a cgroup. `executable` names the service where nothing else does: a container is
    /// named by its main process, or by its first one until that is seen, and anew when that executes another program (a
    /// runtime joins the container before it executes the container's program).
    pub fn subject(
        &mut self,
        cgroup: &CgroupName,
        tgid: u32,
        executable: &str,
        is_main: bool,
    ) -> Arc<Subject> {
        let mut subject = Subject {
            service_name: executable.to_owned(),
            container: cgroup.container.clone(),
            unit: cgroup.unit.clone(),
            pod: None,
            revision: 0,
        };
        if let (None, Some(unit)) = (&subject.container, &subject.unit) {
            subject.service_name = unit.trim_end_matches(".service").to_owned();
        }
        let key = subject.key();
        if self.subjects.len() >= SUBJECTS_SWEEP && !self.subjects.contains_key(&key) {
            self.subjects.retain(|_, named| Arc::strong_count(&named.subject) > 1);
        }
        let named = self.subjects.entry(key).or_insert_with(|| {
            subject.pod = subject.container.as_ref().and_then(|container| pod_of(&container.id));
            Named { subject: Arc::new(subject.clone()), named_by: tgid }
        });
        if is_main {
            named.named_by = tgid;
        }
        if named.named_by == tgid && named.subject.service_name != subject.service_name {
            subject.revision = named.subject.revision + 1;
            subject.pod.clone_from(&named.subject.pod);
            named.subject = Arc::new(subject);
        }
        Arc::clone(&named.subject)
    }

    /// What a cgroup's place says. The process helps where the unified hierarchy does not tell: on v1 and hybrid
    /// machines, and where the cgroup is gone. The root cgroup is not remembered: there the process alone tells.
    pub fn cgroup(&mut self, cgroup_id: u64, tgid: u32) -> Arc<CgroupName> {
        if let Some(known) = self.cgroups.get(&cgroup_id) {
            return Arc::clone(&known.name);
        }
        let path = self.mount.as_ref().and_then(|mount| mount.path_of(cgroup_id));
        let by_path = path.as_deref().map(CgroupName::parse).filter(CgroupName::tells_something);
        let is_shared = path.as_deref().is_none_or(|path| path == "/");
        let is_own = by_path.is_some();
        let name = Arc::new(by_path.or_else(|| of_process(tgid)).unwrap_or_default());
        if !is_shared {
            self.cgroups.insert(cgroup_id, Known { name: Arc::clone(&name), is_own });
        }
        name
    }

    /// The id of the cgroup that a process is in now; 0 if that cannot be told.
    pub fn cgroup_id_of(&self, tgid: u32) -> u64 {
        let path = i32::try_from(tgid).ok().and_then(|tgid| procfs::process::Process::new(tgid).ok());
        let path = path.and_then(|process| process.cgroups().ok()).and_then(|hierarchies| {
            hierarchies
                .into_iter()
                .find(|hierarchy| hierarchy.hierarchy == 0)
                .map(|hierarchy| hierarchy.pathname)
        });
        let (Some(mount), Some(path)) = (&self.mount, path) else { return 0 };
        cgroup_id_of(&mount.path().join(path.trim_start_matches('/'))).unwrap_or(0)
    }

    /// Whether all that happens in a cgroup is its owner's: its own path names it.
    pub fn owns(&self, cgroup_id: u64) -> bool {
        self.cgroups.get(&cgroup_id).is_some_and(|known| known.is_own)
    }
}

/// The pod of a container, by what its runtime keeps on the node: one read when the container is first seen.
fn pod_of(container_id: &str) -> Option<Arc<Pod>> {
    // An agent in a container finds the node's files where the first process has its root.
    let roots = ["/", "/proc/1/root"];
    roots.iter().find_map(|root| bundle::pod_of(container_id, Path::new(root))).map(Arc::new)
}

/// What `/proc/PID/cgroup` says: the first hierarchy that names a container, else the first that names a unit.
fn of_process(tgid: u32) -> Option<CgroupName> {
    let process = procfs::process::Process::new(i32::try_from(tgid).ok()?).ok()?;
    let paths = process.cgroups().ok()?.into_iter().map(|hierarchy| hierarchy.pathname);
    let names: Vec<CgroupName> = paths.map(|path| CgroupName::parse(&path)).collect();
    let container = names.iter().find(|name| name.container.is_some());
    container.or_else(|| names.iter().find(|name| name.unit.is_some())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processes of one container, with the executable each has at its turn and whether it is the main one; expects the last subject's name.
    fn check(steps: &[(u32, &str, bool)], expected: &str) {
        let mut identity = Identity::default();
        let container = Container { id: "a".repeat(64), runtime: None };
        let cgroup = CgroupName { container: Some(container), unit: None };
        let names: Vec<_> = steps
            .iter()
            .map(|(tgid, executable, is_main)| {
                identity.subject(&cgroup, *tgid, executable, *is_main).service_name.clone()
            })
            .collect();
        assert_eq!(names.last().map(String::as_str), Some(expected), "{steps:?}");
    }

    #[test]
    fn a_container_is_named_by_its_main_process() {
        check(&[(7, "nginx", false)], "nginx");
        check(&[(7, "runc", false), (7, "nginx", false)], "nginx");
        check(&[(7, "nginx", true), (8, "sh", false)], "nginx");
        check(&[(7, "runc", false), (8, "sh", false), (7, "nginx", false), (8, "curl", false)], "nginx");
        check(&[(6, "runc", false), (7, "nginx", true), (6, "runc", false)], "nginx");
    }
}
