//! Targets that come and go: this node's pods that ask for it by `prometheus.io/scrape`, and those of the elected agent,
//! beside the list of the configuration.
//!
//! Refuses: finding them; who knows the pods and the cluster tells them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Scraper, Target, of_annotations};
use crate::identity::{LatePod, NodePod, Subject};
use crate::telemetry::Owner;

/// Gives the scraper its targets, anew whenever they change.
pub struct Discovery {
    /// Those of the configuration, which never change.
    fixed: Vec<Target>,
    /// Time between two scrapes of a pod.
    interval: Duration,
    /// `None` if pods are not scraped.
    pods: Option<watch::Receiver<Arc<[NodePod]>>>,
    /// `None` if nobody is elected.
    elected: Option<watch::Receiver<Arc<[Target]>>>,
}

impl Discovery {
    /// Over what is told from now on.
    pub fn new(
        fixed: Vec<Target>,
        interval: Duration,
        mut pods: Option<watch::Receiver<Arc<[NodePod]>>>,
        mut elected: Option<watch::Receiver<Arc<[Target]>>>,
    ) -> Self {
        pods.iter_mut().for_each(watch::Receiver::mark_changed);
        elected.iter_mut().for_each(watch::Receiver::mark_changed);
        Self { fixed, interval, pods, elected }
    }

    /// Takes what changed since the last turn.
    pub fn turn(&mut self, scraper: &Scraper) {
        if !has_changed(self.pods.as_ref()) && !has_changed(self.elected.as_ref()) {
            return;
        }
        let pods = self.pods.as_mut().map(|pods| Arc::clone(&pods.borrow_and_update()));
        let elected = self.elected.as_mut().map(|elected| Arc::clone(&elected.borrow_and_update()));
        let of_pods = pods.iter().flat_map(|pods| pods.iter());
        let of_pods = of_pods.filter_map(|pod| of_pod(pod, self.interval));
        let elected = elected.iter().flat_map(|elected| elected.iter().cloned());
        let left_out =
            scraper.set_targets(self.fixed.iter().cloned().chain(elected).chain(of_pods).collect());
        if left_out > 0 {
            tracing::warn!(left_out, "too many targets to scrape");
        }
    }
}

fn has_changed<T>(receiver: Option<&watch::Receiver<T>>) -> bool {
    receiver.is_some_and(|receiver| receiver.has_changed().unwrap_or(false))
}

/// The page that a pod asks to be scraped; its series have the pod's resource, without a container.
fn of_pod(pod: &NodePod, interval: Duration) -> Option<Target> {
    let spec = of_annotations(&pod.annotations, pod.address, &pod.ports)?;
    let subject = Subject { pod: LatePod::known(pod.pod.clone()), ..Subject::named(&pod.pod.name) };
    Some(Target { interval, ..Target::new(Owner::Subject(Arc::new(subject)), spec) })
}
