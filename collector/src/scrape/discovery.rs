//! Targets of this node's pods: those that ask for it by `prometheus.io/scrape`, beside the list of the configuration.
//!
//! Refuses: pods of other nodes, and finding them; who knows the pods tells them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Scraper, Target, of_annotations};
use crate::identity::{LatePod, NodePod, Subject};
use crate::telemetry::Owner;

/// Gives the scraper its targets, anew whenever the pods change.
pub struct Discovery {
    /// Those of the configuration, which never change.
    fixed: Vec<Target>,
    /// Time between two scrapes of a pod.
    interval: Duration,
    pods: watch::Receiver<Arc<[NodePod]>>,
}

impl Discovery {
    /// Over the pods that are told from now on.
    pub fn new(fixed: Vec<Target>, interval: Duration, mut pods: watch::Receiver<Arc<[NodePod]>>) -> Self {
        pods.mark_changed();
        Self { fixed, interval, pods }
    }

    /// Takes what changed since the last turn.
    pub fn turn(&mut self, scraper: &Scraper) {
        if !self.pods.has_changed().unwrap_or(false) {
            return;
        }
        let pods = Arc::clone(&self.pods.borrow_and_update());
        let of_pods = pods.iter().filter_map(|pod| of_pod(pod, self.interval));
        let left_out = scraper.set_targets(self.fixed.iter().cloned().chain(of_pods).collect());
        if left_out > 0 {
            tracing::warn!(left_out, "too many targets to scrape");
        }
    }
}

/// The page that a pod asks to be scraped; its series have the pod's resource, without a container.
fn of_pod(pod: &NodePod, interval: Duration) -> Option<Target> {
    let spec = of_annotations(&pod.annotations, pod.address, &pod.ports)?;
    let subject = Subject { pod: LatePod::known(pod.pod.clone()), ..Subject::named(&pod.pod.name) };
    Some(Target { interval, ..Target::new(Owner::Subject(Arc::new(subject)), spec) })
}
