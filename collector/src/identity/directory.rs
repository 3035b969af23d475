//! Which subject owns a cgroup, for those who read numbers by cgroup: told by the pipeline as it meets processes.
//!
//! Refuses: looking by itself. What the pipeline has not met has no owner here.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Key, Subject};

/// Cgroups and subjects that are known; a busy node has some thousand.
const ENTRIES_MAX: usize = 32_768;

/// A process was met in a cgroup.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Id of the cgroup in the unified hierarchy.
    pub cgroup_id: u64,
    /// Whose the process is.
    pub subject: Arc<Subject>,
}

/// A subject is known this long after its last cgroup went, so that everybody sees its last numbers.
pub const KEEP_ENDED_NS: u64 = 120_000_000_000;

/// Owners by cgroup and by what makes them one.
#[derive(Default)]
pub struct Directory {
    by_cgroup: HashMap<u64, Key>,
    by_key: HashMap<Key, Entry>,
}

struct Entry {
    subject: Arc<Subject>,
    /// When it was seen first that it has no cgroup any more, `CLOCK_MONOTONIC`.
    ended_ns: Option<u64>,
}

impl Directory {
    /// Takes a placement. Programs that are neither in a container nor in a service own nothing: they share their cgroup.
    pub fn place(&mut self, placement: Placement) {
        let key = placement.subject.key();
        if matches!(key, Key::Executable(_)) {
            return;
        }
        let has_room =
            self.by_cgroup.len() < ENTRIES_MAX || self.by_cgroup.contains_key(&placement.cgroup_id);
        if has_room {
            self.by_cgroup.insert(placement.cgroup_id, key.clone());
        }
        if self.by_key.len() < ENTRIES_MAX || self.by_key.contains_key(&key) {
            self.by_key.insert(key, Entry { subject: placement.subject, ended_ns: None });
        }
    }

    /// Whose a cgroup is.
    pub fn of_cgroup(&self, cgroup_id: u64) -> Option<&Key> {
        self.by_cgroup.get(&cgroup_id)
    }

    /// The newest name of a subject.
    pub fn subject(&self, key: &Key) -> Option<&Arc<Subject>> {
        self.by_key.get(key).map(|entry| &entry.subject)
    }

    /// Forgets cgroups that are gone, and subjects that have had none for a while.
    pub fn retain(&mut self, now_ns: u64, mut is_there: impl FnMut(u64) -> bool) {
        self.by_cgroup.retain(|&cgroup_id, _| is_there(cgroup_id));
        let used: std::collections::HashSet<&Key> = self.by_cgroup.values().collect();
        self.by_key.retain(|key, entry| {
            entry.ended_ns = match used.contains(key) {
                true => None,
                false => entry.ended_ns.or(Some(now_ns)),
            };
            entry.ended_ns.is_none_or(|ended_ns| now_ns.saturating_sub(ended_ns) < KEEP_ENDED_NS)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Container;

    fn placement(cgroup_id: u64, container: Option<&str>, name: &str) -> Placement {
        let container = container.map(|id| Container { id: id.to_owned(), runtime: None });
        let subject = Subject { container, ..Subject::named(name) };
        Placement { cgroup_id, subject: Arc::new(subject) }
    }

    /// Places in order, then expects the name that the owner of cgroup 7 has.
    fn check(placements: &[(u64, Option<&str>, &str)], expected: Option<&str>) {
        let mut directory = Directory::default();
        for &(cgroup_id, container, name) in placements {
            directory.place(placement(cgroup_id, container, name));
        }
        let owner = directory.of_cgroup(7).and_then(|key| directory.subject(key));
        assert_eq!(owner.map(|subject| subject.own_name.as_str()), expected, "{placements:?}");
    }

    #[test]
    fn the_newest_name_of_a_cgroup() {
        check(&[], None);
        check(&[(7, Some("a"), "nginx")], Some("nginx"));
        check(&[(7, None, "bash")], None);
        check(&[(7, Some("a"), "runc"), (8, Some("a"), "nginx")], Some("nginx"));
        check(&[(7, Some("a"), "one"), (7, Some("b"), "two")], Some("two"));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut directory = Directory::default();
        directory.place(placement(7, Some("a"), "one"));
        directory.retain(5, |cgroup_id| cgroup_id != 7);
        assert!(directory.of_cgroup(7).is_none() && directory.by_key.len() == 1);
        directory.retain(5 + KEEP_ENDED_NS, |_| true);
        assert!(directory.by_key.is_empty());
    }
}
