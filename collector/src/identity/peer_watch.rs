//! Watches the cluster's pods and Services at the API server, for their addresses alone.
//!
//! Only what names an address is read, and only that leaves here. Refuses: pods on their node's network, whose address is
//! the node's, and pods that have ended, whose address is free.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::kubernetes::{CONNECT_MAX, describe};
use super::peers::{Peer, PeerEvent, PeerKind, PeerObject};
use super::pod::{Choice, Facts, RESOURCE_PREFIX};
use super::stats::NameStats;

/// What was told and not heard yet; above it the watch waits.
const EVENTS_MAX: usize = 1_024;

/// Objects in one page of a list.
const PAGE_OBJECTS: u32 = 200;

/// Pods that have an address of their own. Those that ended leave the watch as if they were deleted.
const WITHOUT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// `status.phase` of pods that ended, where the server's selection did not leave them out.
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

/// What the watch tells, for one listener.
#[derive(Debug)]
pub struct PeerFeed(Receiver<PeerEvent>);

impl PeerFeed {
    /// The feed, and the end that fills it.
    pub(super) fn channel() -> (Sender<PeerEvent>, Self) {
        let (sender, receiver) = channel(EVENTS_MAX);
        (sender, Self(receiver))
    }

    /// What was told next, if anything was. Does not wait.
    pub fn try_next(&mut self) -> Option<PeerEvent> {
        self.0.try_recv().ok()
    }
}

/// Tells all pods and Services of the cluster until nobody listens.
pub(super) async fn watch(config: Config, choice: Choice, stats: &NameStats, events: Sender<PeerEvent>) {
    match Client::try_from(config) {
        Ok(client) => {
            let watch = |kind| watch_kind(client.clone(), kind, &choice, stats, &events);
            tokio::join!(watch(PeerKind::Pod), watch(PeerKind::Service));
        }
        Err(error) => tracing::warn!(why = describe(&error), "peers stay without names"),
    }
}

/// Asks once for one object of each kind: whether the server allows it.
///
/// # Errors
///
/// Why it does not.
pub async fn try_list(config: Config) -> Result<()> {
    let client = Client::try_from(config)?;
    for kind in [PeerKind::Pod, PeerKind::Service] {
        let api: Api<SlimPeer> = Api::all_with(client.clone(), &kind);
        let list = kube::api::ListParams::default().limit(1);
        tokio::time::timeout(CONNECT_MAX, api.list(&list)).await.context("no answer in time")??;
    }
    Ok(())
}

async fn watch_kind(
    client: Client,
    kind: PeerKind,
    choice: &Choice,
    stats: &NameStats,
    events: &Sender<PeerEvent>,
) {
    let api: Api<SlimPeer> = Api::all_with(client, &kind);
    let options = watcher::Config::default().page_size(PAGE_OBJECTS);
    let options = if kind == PeerKind::Pod { options.fields(WITHOUT_ENDED) } else { options };
    let mut stream = std::pin::pin!(watcher(api, options).default_backoff());
    let mut is_down = false;
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(Event::Init) => Some(PeerEvent::Begin(kind)),
            Ok(Event::InitDone) => {
                is_down = false;
                tracing::info!(?kind, "the API server tells the cluster's addresses");
                Some(PeerEvent::Live(kind))
            }
            Ok(Event::Apply(object) | Event::InitApply(object)) => object.event(kind, choice),
            Ok(Event::Delete(object)) => object.uid().map(PeerEvent::Gone),
            // A watch that was cut goes on where it was, without another list.
            Err(watcher::Error::WatchFailed(_)) => None,
            Err(error) => {
                stats.count_api_error();
                if !std::mem::replace(&mut is_down, true) {
                    let why = describe(&error);
                    tracing::warn!(
                        why,
                        ?kind,
                        "the API server does not tell the cluster's addresses; it is asked again"
                    );
                }
                None
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// The fields of a pod or Service that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimPeer {
    #[serde(deserialize_with = "slim_metadata")]
    metadata: ObjectMeta,
    spec: SlimSpec,
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimSpec {
    host_network: bool,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimStatus {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<SlimAddress>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimAddress {
    ip: String,
}

/// Of the metadata, `managedFields` alone is often more than all the rest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SlimMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owner_references: Vec<OwnerReference>,
}

fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<ObjectMeta, D::Error> {
    let mut metadata = SlimMetadata::deserialize(deserializer)?;
    metadata.annotations.retain(|key, _| key.starts_with(RESOURCE_PREFIX));
    Ok(ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        creation_timestamp: metadata.creation_timestamp,
        labels: Some(metadata.labels),
        annotations: Some(metadata.annotations),
        owner_references: Some(metadata.owner_references),
        ..ObjectMeta::default()
    })
}

impl SlimPeer {
    /// What it means for its addresses; `None` if it never has one of its own.
    fn event(self, kind: PeerKind, choice: &Choice) -> Option<PeerEvent> {
        let uid = self.uid()?;
        if self.spec.host_network {
            return None;
        }
        let addresses = self.addresses(kind);
        if addresses.is_empty() || ENDED.contains(&self.status.phase.as_str()) {
            return Some(PeerEvent::Gone(uid));
        }
        let metadata = self.metadata;
        let created = metadata.creation_timestamp.map_or(0, |time| time.0.as_second());
        let owners = metadata.owner_references.unwrap_or_default();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
        let facts = Facts {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            owner: owner.map(|owner| (owner.kind, owner.name)),
            has_metadata: true,
            ..Facts::default()
        };
        let peer = Peer::of(kind, &facts, choice);
        Some(PeerEvent::Here(Box::new(PeerObject { uid, created_unix_s: created, addresses, peer })))
    }

    /// Its uid, which is a UUID (Kubernetes documentation, "Object Names and IDs").
    fn uid(&self) -> Option<u128> {
        let digits = self.metadata.uid.as_ref()?.replace('-', "");
        if digits.len() == 32 { u128::from_str_radix(&digits, 16).ok() } else { None }
    }

    /// `None` as a Service's IP says that it is headless: its pods' addresses are its own.
    fn addresses(&self, kind: PeerKind) -> Box<[IpAddr]> {
        let (many, one) = match kind {
            PeerKind::Pod => {
                (self.status.pod_ips.iter().map(|address| &address.ip).collect(), &self.status.pod_ip)
            }
            PeerKind::Service => (self.spec.cluster_ips.iter().collect::<Vec<_>>(), &self.spec.cluster_ip),
        };
        let one = one.iter().filter(|_| many.is_empty());
        many.iter().copied().chain(one).filter_map(|address| address.parse().ok()).collect()
    }
}

impl kube::Resource for SlimPeer {
    type DynamicType = PeerKind;
    type Scope = NamespaceResourceScope;

    fn kind(kind: &PeerKind) -> Cow<'_, str> {
        match kind {
            PeerKind::Pod => "Pod".into(),
            PeerKind::Service => "Service".into(),
        }
    }

    fn group(_: &PeerKind) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &PeerKind) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(kind: &PeerKind) -> Cow<'_, str> {
        match kind {
            PeerKind::Pod => "pods".into(),
            PeerKind::Service => "services".into(),
        }
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "00000000-0000-4000-8000-0000000000aa";

    /// An object as the server sends it; expects `NAME@ADDRESS,…`, `gone`, or nothing.
    fn check(kind: PeerKind, text: &str, expected: &str) {
        let object: SlimPeer = serde_json::from_str(&text.replace("UID", UID)).expect("an object");
        let found = match object.event(kind, &Choice::default()) {
            Some(PeerEvent::Here(object)) => {
                let addresses: Vec<String> = object.addresses.iter().map(ToString::to_string).collect();
                format!("{}@{}", object.peer.service_name(), addresses.join(","))
            }
            Some(PeerEvent::Gone(_)) => "gone".to_owned(),
            _ => String::new(),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn pods() {
        let pod = |spec: &str, status: &str| {
            format!(
                r#"{{"metadata":{{"name":"cart-7d9c-x","namespace":"shop","uid":"UID","managedFields":[{{"manager":"m"}}],
                "creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"pod-template-hash":"7d9c"}},"ownerReferences":
                [{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"cart-7d9c","uid":"9","controller":true}}]}},
                "spec":{{{spec}}},"status":{{{status}}}}}"#
            )
        };
        let both = r#""phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]"#;
        check(PeerKind::Pod, &pod("", both), "cart@10.0.0.1,fd00::1");
        check(PeerKind::Pod, &pod("", r#""phase":"Pending","podIP":"10.0.0.1""#), "cart@10.0.0.1");
        check(PeerKind::Pod, &pod("", r#""phase":"Pending""#), "gone");
        check(PeerKind::Pod, &pod("", r#""phase":"Succeeded","podIP":"10.0.0.1""#), "gone");
        check(PeerKind::Pod, &pod(r#""hostNetwork":true"#, both), "");
        check(PeerKind::Pod, &pod("", r#""phase":"Running","podIP":"no address""#), "gone");
    }

    #[test]
    fn services() {
        let service = |spec: &str| {
            format!(
                r#"{{"metadata":{{"name":"db","namespace":"shop","uid":"UID"}},"spec":{{{spec}}},"status":{{}}}}"#
            )
        };
        check(
            PeerKind::Service,
            &service(r#""clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1"]"#),
            "db@10.96.0.1",
        );
        check(PeerKind::Service, &service(r#""clusterIP":"10.96.0.1""#), "db@10.96.0.1");
        check(PeerKind::Service, &service(r#""clusterIP":"None","clusterIPs":["None"]"#), "gone");
        check(PeerKind::Service, &service(""), "gone");
    }

    #[test]
    fn what_has_no_uid_is_nobody() {
        check(PeerKind::Pod, r#"{"metadata":{"uid":"12-34"},"status":{"podIP":"10.0.0.1"}}"#, "");
        check(PeerKind::Pod, "{}", "");
    }
}
