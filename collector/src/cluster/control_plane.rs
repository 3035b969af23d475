//! Pages of the control plane for the elected agent to scrape: the API servers, scheduler, controller manager and etcd.
//!
//! They are found as the pods in `kube-system` that kubeadm, and what is made like it, labels so; where the provider hides
//! them there is the API server's own address. Refuses: components that listen on their node's loopback alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;

use super::Stats;
use super::kinds::listed;
use crate::identity::kubernetes::describe;
use crate::scrape::{Access, Scheme, Target, TargetSpec};
use crate::telemetry::{ClusterObject, Owner};

/// Pods of the control plane that are followed: ten nodes of it.
const PODS_MAX: usize = 64;

const NAMESPACE: &str = "kube-system";
const SELECTOR: &str = "tier=control-plane";

/// Components by the label `component`, with the port of their metrics.
const COMPONENTS: [(&str, Scheme, u16); 4] = [
    ("kube-apiserver", Scheme::Https, 6443),
    ("kube-scheduler", Scheme::Https, 10259),
    ("kube-controller-manager", Scheme::Https, 10257),
    ("etcd", Scheme::Http, 2381),
];

/// What is scraped as long as we lead.
pub struct ControlPlane {
    /// The API server.
    pub client: Client,
    /// Its own page, where no pod of it can be seen.
    pub server: Option<TargetSpec>,
    /// Whether the control plane is looked for.
    pub finds: bool,
    /// Those of the configuration.
    pub fixed: Vec<Target>,
    /// Time between two scrapes of a page.
    pub interval: Duration,
    /// Where targets go.
    pub targets: watch::Sender<Arc<[Target]>>,
    /// Where errors are counted.
    pub stats: Arc<Stats>,
}

/// A pod of the control plane.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: kube::api::ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: String,
}

listed!(Pod, Pod, "", "v1", "Pod", NamespaceResourceScope);

impl ControlPlane {
    /// Tells the targets, anew whenever the pods change.
    pub async fn run(self: Arc<Self>) {
        self.tell(&[]);
        if !self.finds {
            return;
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut events =
            std::pin::pin!(watcher(api, watcher::Config::default().labels(SELECTOR)).default_backoff());
        let (mut pods, mut is_listing, mut is_told) = (Vec::<Pod>::new(), false, false);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    pods.clear();
                    is_listing = true;
                }
                Ok(Event::InitDone) => is_listing = false,
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                    pods.retain(|known| known.metadata.name != pod.metadata.name);
                    if pods.len() < PODS_MAX {
                        pods.push(pod);
                    } else {
                        Stats::count(&self.stats.left_out);
                    }
                }
                Ok(Event::Delete(pod)) => pods.retain(|known| known.metadata.name != pod.metadata.name),
                Err(watcher::Error::WatchFailed(_)) => continue,
                Err(error) => {
                    Stats::count(&self.stats.watch_errors);
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(error = describe(&error), "the control plane's pods are not told");
                    }
                    continue;
                }
            }
            if !is_listing {
                self.tell(&pods);
            }
        }
    }

    /// Nothing is scraped any more.
    pub fn forget(&self) {
        self.targets.send_replace(Arc::default());
    }

    fn tell(&self, pods: &[Pod]) {
        let mut targets: Vec<Target> = pods.iter().filter_map(|pod| self.of_pod(pod)).collect();
        let has_server = pods.iter().any(|pod| component(pod) == Some(COMPONENTS[0]));
        if let Some(spec) = self.server.clone().filter(|_| self.finds && !has_server) {
            let owner = owner(&[("service.name", COMPONENTS[0].0)]);
            targets.push(self.target(owner, spec, Access::Cluster));
        }
        targets.extend(self.fixed.iter().cloned());
        self.targets.send_if_modified(|known| {
            let has_changed = **known != *targets;
            if has_changed {
                *known = targets.into();
            }
            has_changed
        });
    }

    fn target(&self, owner: Owner, spec: TargetSpec, access: Access) -> Target {
        Target { interval: self.interval, access, is_elected: true, ..Target::new(owner, spec) }
    }

    fn of_pod(&self, pod: &Pod) -> Option<Target> {
        let (name, spec) = spec(pod)?;
        let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
        let owner = owner(&[
            ("service.name", name),
            ("k8s.namespace.name", NAMESPACE),
            ("k8s.pod.name", &text(&pod.metadata.name)),
            ("k8s.pod.uid", &text(&pod.metadata.uid)),
            ("k8s.node.name", &pod.spec.node_name),
        ]);
        // etcd's page of metrics is open, and its port no place for a token.
        let access = if spec.scheme == Scheme::Http { Access::Open } else { Access::Cluster };
        Some(self.target(owner, spec, access))
    }
}

/// The component's name, and its page.
fn spec(pod: &Pod) -> Option<(&'static str, TargetSpec)> {
    let (name, scheme, port) = component(pod)?;
    let host: IpAddr = pod.status.pod_ip.parse().ok()?;
    Some((name, TargetSpec { scheme, host: host.to_string(), port, path: "/metrics".to_owned() }))
}

fn component(pod: &Pod) -> Option<(&'static str, Scheme, u16)> {
    let component = pod.metadata.labels.as_ref()?.get("component")?;
    COMPONENTS.into_iter().find(|(name, ..)| name == component)
}

fn owner(attributes: &[(&'static str, &str)]) -> Owner {
    let attributes = attributes.iter().map(|(key, value)| ((*key).into(), (*value).to_owned().into()));
    Owner::Object(Arc::new(ClusterObject { attributes: attributes.collect(), ..ClusterObject::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: &str) -> Pod {
        serde_json::from_str(json).expect("a pod")
    }

    #[test]
    fn components_by_their_labels() {
        let labelled = |component: &str, ip: &str| {
            pod(&format!(
                r#"{{"metadata":{{"name":"x","labels":{{"component":"{component}"}}}},"status":{{"podIP":"{ip}"}}}}"#
            ))
        };
        let check = |pod: Pod, expected: Option<&str>| {
            let found = spec(&pod).map(|(_, spec)| spec.url());
            assert_eq!(found.as_deref(), expected, "{pod:?}");
        };
        check(labelled("kube-apiserver", "10.0.0.1"), Some("https://10.0.0.1:6443/metrics"));
        check(labelled("kube-scheduler", "fd00::1"), Some("https://[fd00::1]:10259/metrics"));
        check(labelled("kube-controller-manager", "10.0.0.1"), Some("https://10.0.0.1:10257/metrics"));
        check(labelled("etcd", "10.0.0.1"), Some("http://10.0.0.1:2381/metrics"));
        check(labelled("kube-proxy", "10.0.0.1"), None);
        // It has no address yet.
        check(pod(r#"{"metadata":{"name":"x","labels":{"component":"etcd"}}}"#), None);
        check(pod("{}"), None);
    }
}
