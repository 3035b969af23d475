//! Whose record is it: cgroup -> container -> pod -> workload -> service name, as one [`Subject`].
//!
//! Resolved when a record arrives: from the cgroup at once, and the pod's part by a thread of its own ([`Names`]), for which
//! records wait a little. Refuses: guesses. What is not known is not said.

mod bundle;
mod cache;
mod cgroup;
pub mod cri;
mod directory;
pub mod kubernetes;
mod log_path;
mod names;
mod pauses;
mod peer_watch;
mod peers;
mod pod;
mod pods;
mod stats;
mod subject;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use cgroup::{CgroupName, Container, PodPlace, Runtime, pod_uid};
pub use cri::CriSocket;
pub use directory::{Directory, KEEP_ENDED_NS, Placement};
pub use kubernetes::ApiAccess;
pub use names::{NameOptions, NameThread, Names, NodePod};
pub use peer_watch::{PeerFeed, try_list as try_list_peers};
pub use peers::{Peer, PeerEvent, PeerKind, PeerObject, Peers};
pub use pod::{Choice, Facts, LatePod, Pod};
use quick_cache::unsync::Cache;
pub use stats::NameStats;
pub use subject::{Attribute, Key, Subject};

use crate::kernel::{CgroupMount, cgroup_id_of};

/// Cgroup names that are remembered; a busy node has some thousand.
const CGROUPS_MAX: usize = 16_384;

/// Subjects that are remembered before those that nobody uses are swept.
const SUBJECTS_SWEEP: usize = 4_096;

/// Where the node's files may be: an agent in a container finds them where the first process has its root.
pub fn roots() -> Vec<PathBuf> {
    ["/", "/proc/1/root"].map(PathBuf::from).into()
}

/// Names cgroups and processes.
pub struct Identity {
    mount: Option<CgroupMount>,
    cgroups: Cache<u64, Known>,
    subjects: HashMap<Key, Named>,
    names: Names,
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

impl Identity {
    /// Nobody is known yet. `names` finds the pods of containers.
    pub fn new(names: Names) -> Self {
        let (mount, cgroups) = (CgroupMount::find(), Cache::new(CGROUPS_MAX));
        Self { mount, cgroups, subjects: HashMap::new(), names }
    }

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
            container: cgroup.container.clone(),
            unit: cgroup.unit.clone(),
            ..Subject::named(executable)
        };
        if let (None, Some(unit)) = (&subject.container, &subject.unit) {
            subject.own_name = unit.trim_end_matches(".service").to_owned();
        }
        let key = subject.key();
        if self.subjects.len() >= SUBJECTS_SWEEP && !self.subjects.contains_key(&key) {
            self.subjects.retain(|_, named| Arc::strong_count(&named.subject) > 1);
        }
        let named = self.subjects.entry(key).or_insert_with(|| {
            if let Some(container) = &subject.container {
                subject.pod = self.names.pod_of(container, cgroup.pod.as_ref());
            }
            Named { subject: Arc::new(subject.clone()), named_by: tgid }
        });
        if is_main {
            named.named_by = tgid;
        }
        if named.named_by == tgid && named.subject.own_name != subject.own_name {
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
        let mut identity = Identity::new(Names::default());
        let container = Container { id: "a".repeat(64), runtime: None };
        let cgroup = CgroupName { container: Some(container), ..CgroupName::default() };
        let names: Vec<_> = steps
            .iter()
            .map(|(tgid, executable, is_main)| {
                identity.subject(&cgroup, *tgid, executable, *is_main).own_name.clone()
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
