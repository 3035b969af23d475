//! Whose a cgroup of the unified hierarchy is: by what the pipeline told, else by its own path.
//!
//! The pipeline tells some time after the first counts. Until then they wait in the kernel's map: what is taken for the host
//! once stays the host's. Refuses: to wait for ever.

use std::collections::HashMap;

use super::series::OwnerKey;
use crate::identity::{CgroupName, Directory, Key};
use crate::kernel::CgroupMount;

/// Counts of a cgroup wait this long for its owner's name; what has none by then is the host's.
const WAIT_NS: u64 = 10_000_000_000;

/// Cgroups that are remembered. Above it all are looked at anew.
const CGROUPS_MAX: usize = 32_768;

/// Finds owners.
pub struct Owners {
    mount: Option<CgroupMount>,
    known: HashMap<u64, Known>,
}

/// What a cgroup's own path said when it was first met.
struct Known {
    path: Path,
    first_ns: u64,
}

enum Path {
    /// It names this owner.
    Owner(Key),
    /// It names nobody.
    Nobody,
    /// The cgroup was gone already.
    Gone,
}

/// Whose counts are.
#[derive(Debug, PartialEq, Eq)]
pub enum Whose {
    /// These; `None` for the host's.
    Owner(OwnerKey),
    /// That is not known yet.
    Later,
}

impl Owners {
    /// Nothing is known yet. Without a unified hierarchy all is the host's.
    pub fn new(mount: Option<CgroupMount>) -> Self {
        Self { mount, known: HashMap::new() }
    }

    /// Whose a cgroup is. `now_ns` is `CLOCK_MONOTONIC`.
    pub fn of_cgroup(&mut self, cgroup_id: u64, directory: &Directory, now_ns: u64) -> Whose {
        if let Some(key) = directory.of_cgroup(cgroup_id) {
            return Whose::Owner(Some(key.clone()));
        }
        // 0 is for what has no cgroup, 1 is the root.
        if cgroup_id <= 1 {
            return Whose::Owner(None);
        }
        if self.known.len() >= CGROUPS_MAX {
            self.known.clear();
        }
        let mount = &self.mount;
        let known = self.known.entry(cgroup_id).or_insert_with(|| {
            let path = mount.as_ref().map(|mount| mount.path_of(cgroup_id));
            let path = match path {
                Some(Some(path)) => CgroupName::parse(&path).key().map_or(Path::Nobody, Path::Owner),
                Some(None) => Path::Gone,
                None => Path::Nobody,
            };
            Known { path, first_ns: now_ns }
        });
        decide(&known.path, known.first_ns, directory, now_ns)
    }

    /// Whether a cgroup is there.
    pub fn is_there(&self, cgroup_id: u64) -> bool {
        let Some(mount) = &self.mount else { return true };
        cgroup_id <= 1 || mount.path_of(cgroup_id).is_some()
    }

    /// Forgets cgroups that are gone.
    pub fn sweep(&mut self) {
        let Some(mount) = &self.mount else { return };
        self.known.retain(|&cgroup_id, _| mount.path_of(cgroup_id).is_some());
    }
}

fn decide(path: &Path, first_ns: u64, directory: &Directory, now_ns: u64) -> Whose {
    let is_late = now_ns.saturating_sub(first_ns) >= WAIT_NS;
    match path {
        Path::Nobody => Whose::Owner(None),
        Path::Owner(key) if directory.subject(key).is_some() => Whose::Owner(Some(key.clone())),
        Path::Owner(_) | Path::Gone if is_late => Whose::Owner(None),
        Path::Owner(_) | Path::Gone => Whose::Later,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::{Container, Placement, Subject};

    fn check(path: &Path, is_told: bool, waited_ns: u64, expected: &Whose) {
        let mut directory = Directory::default();
        if is_told {
            let container = Some(Container { id: "a".to_owned(), runtime: None });
            let subject = Subject { container, ..Subject::named("nginx") };
            directory.place(Placement { cgroup_id: 7, subject: Arc::new(subject) });
        }
        assert_eq!(&decide(path, 5, &directory, 5 + waited_ns), expected);
    }

    #[test]
    fn owners_that_are_not_told_yet_are_waited_for() {
        let key = || Key::Container("a".to_owned());
        check(&Path::Nobody, false, 0, &Whose::Owner(None));
        check(&Path::Owner(key()), true, 0, &Whose::Owner(Some(key())));
        check(&Path::Owner(key()), false, 0, &Whose::Later);
        check(&Path::Owner(key()), false, WAIT_NS, &Whose::Owner(None));
        check(&Path::Gone, false, WAIT_NS - 1, &Whose::Later);
        check(&Path::Gone, false, WAIT_NS, &Whose::Owner(None));
    }
}
