//! Which process was met in which cgroup, as news for those who read numbers by cgroup.
//!
//! Refuses: saying the same twice, and waiting: news that nobody takes are bounded.

use std::collections::HashMap;
use std::sync::Arc;

use crate::identity::{Placement, Subject};

/// Cgroups that are remembered as told. Above it all are told anew.
const TOLD_MAX: usize = 32_768;

/// News that wait. What does not fit is told when the next process is met in the cgroup.
const WAITING_MAX: usize = 8_192;

/// News of placements.
#[derive(Default)]
pub struct Placements {
    told: HashMap<u64, Arc<Subject>>,
    waiting: Vec<Placement>,
}

impl Placements {
    /// A process of a subject was met in a cgroup.
    pub fn met(&mut self, cgroup_id: u64, subject: &Arc<Subject>) {
        let is_told = self.told.get(&cgroup_id).is_some_and(|told| Arc::ptr_eq(told, subject));
        if is_told || (subject.container.is_none() && subject.unit.is_none()) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        self.told.insert(cgroup_id, Arc::clone(subject));
        self.waiting.push(Placement { cgroup_id, subject: Arc::clone(subject) });
    }

    /// Whose a cgroup is, if that was told.
    pub fn subject(&self, cgroup_id: u64) -> Option<&Arc<Subject>> {
        self.told.get(&cgroup_id)
    }

    /// Takes the news.
    pub fn take(&mut self) -> Vec<Placement> {
        std::mem::take(&mut self.waiting)
    }

    /// Gives news back that could not be delivered.
    pub fn give_back(&mut self, mut placements: Vec<Placement>) {
        placements.append(&mut self.waiting);
        for left_out in placements.drain(placements.len().min(WAITING_MAX)..) {
            self.told.remove(&left_out.cgroup_id);
        }
        self.waiting = placements;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Container;

    #[test]
    fn the_same_is_told_once() {
        let container = Some(Container { id: "a".repeat(64), runtime: None });
        let subject = |name: &str| Arc::new(Subject { container: container.clone(), ..Subject::named(name) });
        let (runc, nginx) = (subject("runc"), subject("nginx"));
        let mut placements = Placements::default();
        for (cgroup_id, subject) in [(7, &runc), (7, &runc), (8, &runc), (7, &nginx)] {
            placements.met(cgroup_id, subject);
        }
        let told: Vec<(u64, String)> = placements
            .take()
            .into_iter()
            .map(|placement| (placement.cgroup_id, placement.subject.own_name.clone()))
            .collect();
        assert_eq!(told, [(7, "runc".to_owned()), (8, "runc".to_owned()), (7, "nginx".to_owned())]);
        assert!(placements.take().is_empty());
    }
}
