//! The pods of this node as the API server told them, those that are gone for a while too: their last records are late.
//!
//! Refuses: more than `PODS_MAX`. Those that are gone go first.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::kubernetes::ApiPod;

/// Pods that are remembered. A node has at most some hundred at a time.
const PODS_MAX: usize = 2_048;

/// Pods by their uid on the node.
#[derive(Default)]
pub struct Pods {
    pods: HashMap<String, Known>,
    by_container: HashMap<String, String>,
    /// Those that are gone, by the order in which they went.
    gone: BTreeMap<u64, String>,
    /// Pods that went so far.
    went: u64,
    /// Those that the list being told has; `None` while none is.
    told: Option<HashSet<String>>,
}

struct Known {
    pod: ApiPod,
    /// Its place in the order of those that are gone; `None` while it is there.
    gone: Option<u64>,
}

impl Pods {
    /// All pods are told anew.
    pub fn begin(&mut self) {
        self.told = Some(HashSet::new());
    }

    /// All have been told: those that were not are gone.
    pub fn end(&mut self) {
        let Some(told) = self.told.take() else { return };
        let gone: Vec<String> = self.pods.keys().filter(|uid| !told.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.gone(uid));
    }

    /// A pod is there, or changed.
    pub fn insert(&mut self, pod: ApiPod) {
        let uid = pod.node_uid.clone();
        while self.pods.len() >= PODS_MAX && !self.pods.contains_key(&uid) {
            let Some((_, oldest)) = self.gone.pop_first() else { return };
            self.forget(&oldest);
        }
        if let Some(told) = &mut self.told {
            told.insert(uid.clone());
        }
        for (container_id, _) in &pod.containers {
            self.by_container.insert(container_id.clone(), uid.clone());
        }
        // Its containers that ran longer ago are in no status any more.
        if let Some(older) = self.pods.insert(uid.clone(), Known { pod, gone: None }) {
            older.gone.into_iter().for_each(|order| drop(self.gone.remove(&order)));
            self.forget_containers(&older.pod, &uid);
        }
    }

    /// A pod is gone.
    pub fn gone(&mut self, uid: &str) {
        if let Some(known) = self.pods.get_mut(uid).filter(|known| known.gone.is_none()) {
            known.gone = Some(self.went);
            self.gone.insert(self.went, uid.to_owned());
            self.went += 1;
        }
    }

    /// Those that are there.
    pub fn present(&self) -> impl Iterator<Item = &ApiPod> {
        self.pods.values().filter(|known| known.gone.is_none()).map(|known| &known.pod)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// The pod of a container: by its uid on the node, else by the container's own id.
    pub fn of(&self, container_id: &str, uid: Option<&str>) -> Option<&ApiPod> {
        let uid = uid.or_else(|| self.by_container.get(container_id).map(String::as_str))?;
        self.pods.get(uid).map(|known| &known.pod)
    }

    fn forget(&mut self, uid: &str) {
        if let Some(known) = self.pods.remove(uid) {
            self.forget_containers(&known.pod, uid);
        }
    }

    fn forget_containers(&mut self, pod: &ApiPod, uid: &str) {
        let current = self.pods.get(uid);
        let is_current =
            |id: &str| current.is_some_and(|known| known.pod.containers.iter().any(|(known, _)| known == id));
        for (container_id, _) in pod.containers.iter().filter(|(id, _)| !is_current(id)) {
            self.by_container.remove(container_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Facts;

    fn pod(uid: &str, containers: &[&str]) -> ApiPod {
        let container = |id: &&str| {
            let facts =
                Facts { container: Some(format!("c-{id}")), restart_count: Some(1), ..Facts::default() };
            ((*id).to_owned(), facts)
        };
        ApiPod {
            facts: Facts {
                container: None,
                has_metadata: true,
                ..Facts::of_pod("shop", &format!("pod-{uid}"), uid, "")
            },
            node_uid: uid.to_owned(),
            containers: containers.iter().map(container).collect(),
            ..ApiPod::default()
        }
    }

    fn name(pods: &Pods, container: &str, uid: Option<&str>) -> Option<(String, Option<String>)> {
        let pod = pods.of(container, uid)?;
        let facts = pod.facts_of(container, &Facts::default());
        assert_eq!(pod.names(container, &Facts::default()), facts.are_enough());
        Some((facts.name, facts.container))
    }

    #[test]
    fn by_uid_and_by_container() {
        let mut pods = Pods::default();
        pods.insert(pod("1", &["a"]));
        let known = Some(("pod-1".to_owned(), Some("c-a".to_owned())));
        assert_eq!(name(&pods, "a", None), known);
        assert_eq!(name(&pods, "a", Some("1")), known);
        assert_eq!(name(&pods, "a", Some("2")), None);
        assert_eq!(name(&pods, "z", Some("1")), Some(("pod-1".to_owned(), None)));
        // A restarted container is not its predecessor.
        pods.insert(pod("1", &["b"]));
        assert_eq!(name(&pods, "a", None), None);
        assert_eq!(name(&pods, "b", None), Some(("pod-1".to_owned(), Some("c-b".to_owned()))));
    }

    #[test]
    fn those_that_are_gone_make_room() {
        let mut pods = Pods::default();
        for number in 0..PODS_MAX {
            pods.insert(pod(&number.to_string(), &[&format!("c{number}")]));
        }
        pods.insert(pod("one-too-many", &[]));
        assert_eq!((pods.len(), name(&pods, "x", Some("one-too-many"))), (PODS_MAX, None));
        pods.gone("7");
        pods.gone("7");
        assert!(name(&pods, "c7", None).is_some(), "late records are named");
        pods.insert(pod("new", &[]));
        assert_eq!((pods.len(), name(&pods, "c7", None)), (PODS_MAX, None));
        // A list without it tells that a pod is gone.
        pods.begin();
        pods.insert(pod("new", &[]));
        pods.end();
        assert_eq!(pods.present().map(|pod| pod.node_uid.as_str()).collect::<Vec<_>>(), ["new"]);
        // One that is told again is there again, and makes no room for others.
        pods.insert(pod("9", &["c9"]));
        pods.gone("new");
        for number in 0..PODS_MAX {
            pods.insert(pod(&format!("later-{number}"), &[]));
        }
        assert!(name(&pods, "c9", None).is_some());
        assert_eq!(name(&pods, "x", Some("new")), None);
    }
}
