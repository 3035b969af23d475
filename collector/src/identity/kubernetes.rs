//! Watches this node's pods at the API server: labels, annotations and owners, which nothing on the node has.
//!
//! A slim type is read, so that a pod costs some hundred bytes and not some ten thousand. Refuses: pods of other nodes, and
//! going away: a server that is absent, slow or says no is asked again, ever more seldom.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ObjectMeta;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use serde::Deserialize;
use tokio::sync::mpsc::Sender;

use super::Facts;
use super::pauses::Pauses;

/// Where a static pod's uid on the node is: in the API it has another.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// The kubelet sets it in every pod.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";

/// How long the server may take to accept a connection.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);

/// `status.phase` of a pod whose containers were started.
const RUNNING: &str = "Running";

/// Ports of a pod that are remembered.
const PORTS_MAX: usize = 32;

/// Pods in one page of the first list.
const PAGE_PODS: u32 = 100;

/// How the API server is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApiAccess {
    /// By the service account, where the agent is a pod.
    #[default]
    Auto,
    /// By a kubeconfig.
    Kubeconfig(PathBuf),
    /// It is not asked.
    Off,
}

impl ApiAccess {
    /// Whether a server can be expected to answer.
    pub fn is_there(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Auto => std::env::var_os(IN_POD).is_some(),
            Self::Kubeconfig(_) => true,
        }
    }
}

/// What the watch tells.
#[derive(Debug)]
pub enum ApiEvent {
    /// All pods of the node are told anew.
    Begin,
    /// They have been told.
    Live,
    /// It cannot be told any more, and why.
    Down(String),
    /// A pod is there, or changed.
    Pod(Box<ApiPod>),
    /// A pod is gone.
    Gone(Box<ApiPod>),
}

/// A pod as the API server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiPod {
    /// What is true for all its containers.
    pub facts: Facts,
    /// Its uid on the node.
    pub node_uid: String,
    /// Its containers by id, those that ran before included.
    pub containers: Vec<(String, Facts)>,
    /// Its address, while it runs.
    pub address: Option<IpAddr>,
    /// The ports that its containers name.
    pub ports: Vec<u16>,
}

impl ApiPod {
    /// What is known of one of its containers, with what the node's own sources say where the server says nothing.
    pub fn facts_of(&self, container_id: &str, own: &Facts) -> Facts {
        let mut facts = self.facts.clone();
        facts.add(own.clone());
        self.container(container_id).into_iter().for_each(|container| facts.add(container.clone()));
        facts
    }

    /// Whether that names the container.
    pub fn names(&self, container_id: &str, own: &Facts) -> bool {
        let container = self.container(container_id);
        Facts::are_enough_together([&self.facts, own].into_iter().chain(container))
    }

    fn container(&self, id: &str) -> Option<&Facts> {
        self.containers.iter().find(|(known, _)| known == id).map(|(_, facts)| facts)
    }
}

/// Where the API server is and how it is asked; `None` if this is no pod and nobody named one.
///
/// # Errors
///
/// If what is named cannot be read.
pub async fn config(access: &ApiAccess) -> Result<Option<Config>> {
    let mut config = match access {
        ApiAccess::Off => return Ok(None),
        ApiAccess::Auto => {
            if !access.is_there() {
                return Ok(None);
            }
            Config::incluster().context("the pod's service account cannot be read")?
        }
        ApiAccess::Kubeconfig(path) => {
            let read = Kubeconfig::read_from(path);
            let kubeconfig =
                read.with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} names no server", path.display()))?
        }
    };
    config.connect_timeout = Some(CONNECT_MAX);
    Ok(Some(config))
}

/// Likewise, for who has no runtime.
///
/// # Errors
///
/// If what is named cannot be read.
pub fn config_blocking(access: &ApiAccess) -> Result<Option<Config>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.context("cannot make a runtime")?.block_on(config(access))
}

/// Asks once for the pods of a node; the answer is how many there are.
///
/// # Errors
///
/// Why the server gives none.
pub async fn try_list(config: Config, node: &str) -> Result<usize> {
    let api: Api<SlimPod> = Api::all(Client::try_from(config)?);
    let list = kube::api::ListParams::default().fields(&format!("spec.nodeName={node}"));
    Ok(tokio::time::timeout(CONNECT_MAX, api.list(&list)).await.context("no answer in time")??.items.len())
}

/// Tells the pods of a node until nobody listens.
pub async fn watch(config: Config, node: String, events: Sender<ApiEvent>) {
    let client = match Client::try_from(config) {
        Ok(client) => client,
        Err(error) => {
            let _nobody_listens = events.send(ApiEvent::Down(error.to_string())).await;
            return;
        }
    };
    let api: Api<SlimPod> = Api::all(client);
    let options = watcher::Config::default().fields(&format!("spec.nodeName={node}")).page_size(PAGE_PODS);
    let mut stream = std::pin::pin!(watcher(api, options));
    let mut pauses = Pauses::new(Instant::now());
    while let Some(event) = stream.next().await {
        let is_error = event.is_err();
        let told = match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => Some(ApiEvent::Pod(Box::new(ApiPod::of(pod)))),
            Ok(Event::Delete(pod)) => Some(ApiEvent::Gone(Box::new(ApiPod::of(pod)))),
            Ok(Event::Init) => Some(ApiEvent::Begin),
            Ok(Event::InitDone) => Some(ApiEvent::Live),
            // A watch that was cut goes on where it was, without another list.
            Err(watcher::Error::WatchFailed(_)) => None,
            Err(error) => Some(ApiEvent::Down(describe(&error))),
        };
        if let Some(told) = told
            && events.send(told).await.is_err()
        {
            return;
        }
        if is_error {
            tokio::time::sleep(pauses.after_error(Instant::now())).await;
        }
    }
}

/// The chain of causes in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Many errors repeat their cause.
    texts.dedup_by(|inner, outer| outer.contains(inner.as_str()));
    texts.join(": ")
}

/// The fields of a pod that are read.
#[derive(Clone, Debug, Default, Deserialize)]
struct SlimPod {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimSpec {
    containers: Vec<SlimPorts>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimPorts {
    ports: Vec<SlimPort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimPort {
    container_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    container_statuses: Vec<SlimContainer>,
    init_container_statuses: Vec<SlimContainer>,
    ephemeral_container_statuses: Vec<SlimContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimContainer {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    restart_count: u32,
    last_state: SlimState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimState {
    terminated: Option<SlimEnd>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimEnd {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

impl kube::Resource for SlimPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl ApiPod {
    fn of(pod: SlimPod) -> Self {
        let SlimPod { metadata, spec, status } = pod;
        let owners = metadata.owner_references.unwrap_or_default();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
        let facts = Facts {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            owner: owner.map(|owner| (owner.kind, owner.name)),
            has_metadata: true,
            ..Facts::default()
        };
        let address = status.pod_ip.as_ref().filter(|_| status.phase == RUNNING);
        let address = address.and_then(|address| address.parse().ok());
        let ports = spec.containers.iter().flat_map(|container| &container.ports);
        let ports = ports.take(PORTS_MAX).map(|port| port.container_port).collect();
        let statuses = status
            .container_statuses
            .into_iter()
            .chain(status.init_container_statuses)
            .chain(status.ephemeral_container_statuses);
        let node_uid = facts.annotations.get(CONFIG_HASH).unwrap_or(&facts.uid).clone();
        Self { containers: statuses.flat_map(containers).collect(), node_uid, facts, address, ports }
    }
}

/// The container that runs and the one that ran before it, by their ids without the runtime's name in front.
fn containers(status: SlimContainer) -> Vec<(String, Facts)> {
    let bare = |id: &str| id.split_once("://").map(|(_, id)| id.to_owned());
    let filled = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let facts = |restart_count| Facts {
        container: Some(status.name.clone()),
        image: filled(&status.image),
        image_id: filled(&status.image_id),
        restart_count: Some(restart_count),
        ..Facts::default()
    };
    let running = status.container_id.as_deref().and_then(bare);
    let before = status.last_state.terminated.as_ref().and_then(|end| bare(end.container_id.as_deref()?));
    let running = running.map(|id| (id, facts(status.restart_count)));
    let before = before.map(|id| (id, facts(status.restart_count.saturating_sub(1))));
    running.into_iter().chain(before).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_as_the_server_sends_it() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"cart-7d9c-x2","namespace":"shop","uid":"12-34",
            "labels":{"pod-template-hash":"7d9c"},"managedFields":[{"manager":"kubelet"}],
            "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"cart-7d9c","uid":"9","controller":true}]},
            "spec":{"nodeName":"n1","containers":[{"name":"web"}]},
            "status":{"phase":"Running","containerStatuses":[{"name":"web","containerID":"containerd://aa","image":"shop:1",
            "imageID":"shop@sha256:00","restartCount":2,"lastState":{"terminated":{"containerID":"containerd://bb"}},
            "state":{"running":{}}}]}}"#;
        let pod = ApiPod::of(serde_json::from_str(text).expect("a pod"));
        assert_eq!((pod.facts.name.as_str(), pod.node_uid.as_str()), ("cart-7d9c-x2", "12-34"));
        assert_eq!(pod.facts.owner, Some(("ReplicaSet".to_owned(), "cart-7d9c".to_owned())));
        let ids: Vec<_> =
            pod.containers.iter().map(|(id, facts)| (id.as_str(), facts.restart_count)).collect();
        assert_eq!(ids, [("aa", Some(2)), ("bb", Some(1))]);
    }

    #[test]
    fn static_and_odd_pods() {
        let check = |text: &str, expected_uid: &str, expected_containers: usize| {
            let pod = ApiPod::of(serde_json::from_str(text).expect("a pod"));
            assert_eq!(
                (pod.node_uid.as_str(), pod.containers.len()),
                (expected_uid, expected_containers),
                "{text}"
            );
        };
        check(r#"{"metadata":{"uid":"1","annotations":{"kubernetes.io/config.hash":"ff"}}}"#, "ff", 0);
        check("{}", "", 0);
        check(
            r#"{"metadata":{},"status":{"containerStatuses":[{"name":"a"},{"containerID":"odd"}]}}"#,
            "",
            0,
        );
    }
}
