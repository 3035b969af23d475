//! The pod of a container: what the sources said of it, and how that becomes attributes and a service's name.
//!
//! Refuses: labels and annotations that nobody asked for, and more of them than the limits.
//!
//! Source: OpenTelemetry semantic conventions, "Specify resource attributes using Kubernetes annotations".

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::dump::Glob;

/// Annotations with this prefix are resource attributes.
pub(super) const RESOURCE_PREFIX: &str = "resource.opentelemetry.io/";

/// What no annotation may say of a pod: it is known better, or is said elsewhere.
const OWN_PREFIXES: [&str; 5] = ["service.", "k8s.", "container.", "host.", "kansoku."];

/// Attributes by labels and annotations of one pod.
const CHOSEN_MAX: usize = 64;

/// Bytes of a label's or an annotation's value in an attribute.
const VALUE_BYTES_MAX: usize = 256;

/// How a pod asks for dumps of its processes; with `.NAME` behind it, of those of one container.
const DUMP_ANNOTATION: &str = "kansoku.io/dump";

/// What the sources said of a container and its pod, before it is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// The container's name; `Some("")` is the pod's sandbox.
    pub container: Option<String>,
    /// The image, as the pod names it.
    pub image: Option<String>,
    /// The image as the runtime identifies it: `sha256:…`, or with its repository.
    pub image_id: Option<String>,
    /// How often the container was started anew.
    pub restart_count: Option<u32>,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// The controller in `metadata.ownerReferences`: its kind and name.
    pub owner: Option<(String, String)>,
    /// Whether labels, annotations and the owner are known.
    pub has_metadata: bool,
}

/// Which labels and annotations go out.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Labels that become `k8s.pod.label.*`.
    pub labels: Vec<Glob>,
    /// Annotations that become `k8s.pod.annotation.*`.
    pub annotations: Vec<Glob>,
    /// Whether `app.kubernetes.io/*` name the service.
    pub service_labels: bool,
}

impl Default for Choice {
    fn default() -> Self {
        Self { labels: Vec::new(), annotations: Vec::new(), service_labels: true }
    }
}

/// The pod of a container, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `k8s.namespace.name`
    pub namespace: String,
    /// `k8s.pod.name`
    pub name: String,
    /// `k8s.pod.uid`
    pub uid: String,
    /// `k8s.container.name`; empty for the pod's sandbox.
    pub container: String,
    /// `container.image.name`, as the runtime was asked for it.
    pub image: Option<String>,
    /// How often the container was started anew.
    pub restart_count: Option<u32>,
    /// `service.name`, if it says more than the executable.
    pub service_name: Option<String>,
    /// What the pod asks for in [`DUMP_ANNOTATION`].
    pub dump: Option<String>,
    /// All its resource attributes but `service.name`.
    pub attributes: Vec<(String, String)>,
}

/// The place of a container's pod in all that is the container's: empty until a source tells.
#[derive(Clone, Debug, Default)]
pub struct LatePod(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    pod: OnceLock<Pod>,
    /// Whether its container is certainly in a pod.
    is_expected: bool,
    /// Until when records wait for it, `CLOCK_MONOTONIC`; 0 if none does.
    until_ns: AtomicU64,
}

impl Facts {
    /// What the node's own files say at least.
    pub fn of_pod(namespace: &str, name: &str, uid: &str, container: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            container: Some(container.to_owned()),
            ..Self::default()
        }
    }

    /// Whether it names a container of a pod.
    pub fn are_enough(&self) -> bool {
        Self::are_enough_together([self])
    }

    /// Whether what some sources know of it does, one [added](Self::add) to the other.
    pub fn are_enough_together<'a>(sources: impl IntoIterator<Item = &'a Self, IntoIter: Clone>) -> bool {
        let sources = sources.into_iter();
        let has = |is: fn(&Self) -> bool| sources.clone().any(is);
        has(|facts| !facts.namespace.is_empty())
            && has(|facts| !facts.name.is_empty())
            && has(|facts| facts.container.is_some())
    }

    /// Adds what another source knows and this one does not.
    pub fn add(&mut self, other: Self) {
        for (own, new) in
            [(&mut self.namespace, other.namespace), (&mut self.name, other.name), (&mut self.uid, other.uid)]
        {
            if own.is_empty() {
                *own = new;
            }
        }
        self.container = self.container.take().or(other.container);
        self.image = self.image.take().or(other.image);
        self.image_id = self.image_id.take().or(other.image_id);
        self.restart_count = self.restart_count.or(other.restart_count);
        if !self.has_metadata {
            (self.labels, self.annotations) = (other.labels, other.annotations);
            self.has_metadata = other.has_metadata;
        }
        self.owner = self.owner.take().or(other.owner);
    }
}

impl Pod {
    /// Describes what is known.
    pub fn of(facts: &Facts, choice: &Choice) -> Self {
        let container = facts.container.clone().unwrap_or_default();
        let workloads = workloads(facts);
        let service = service_name(facts, &container, &workloads, choice);
        Self {
            attributes: attributes(facts, &container, &workloads, choice),
            dump: [&format!("{DUMP_ANNOTATION}.{container}"), DUMP_ANNOTATION]
                .into_iter()
                .find_map(|key| facts.annotations.get(key).cloned()),
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            uid: facts.uid.clone(),
            container,
            image: facts.image.clone(),
            restart_count: facts.restart_count,
            service_name: service,
        }
    }
}

impl LatePod {
    /// A pod that is known already.
    pub fn known(pod: Pod) -> Self {
        let late = Self::awaited(0);
        late.tell(pod);
        late
    }

    /// A pod that a source may tell; records wait for it until then.
    pub fn awaited(until_ns: u64) -> Self {
        let (pod, is_expected) = (OnceLock::new(), until_ns != 0);
        Self(Some(Arc::new(Place { pod, is_expected, until_ns: until_ns.into() })))
    }

    /// Nobody is left who may tell it soon: records go on without it.
    pub fn stop_waiting(&self) {
        if let Some(place) = &self.0 {
            place.until_ns.store(0, Ordering::Relaxed);
        }
    }

    /// Tells it. The first one stays.
    pub fn tell(&self, pod: Pod) {
        if let Some(place) = &self.0 {
            let _told_before = place.pod.set(pod);
        }
    }

    /// The pod, as soon as it is known.
    pub fn get(&self) -> Option<&Pod> {
        self.0.as_ref()?.pod.get()
    }

    /// Whether records shall wait for it.
    pub fn is_awaited(&self, now_ns: u64) -> bool {
        self.0
            .as_ref()
            .is_some_and(|place| now_ns < place.until_ns.load(Ordering::Relaxed) && place.pod.get().is_none())
    }

    /// Whether its container is one of a pod by all that is known.
    pub fn is_expected(&self) -> bool {
        self.0.as_ref().is_some_and(|place| place.is_expected || place.pod.get().is_some())
    }
}

/// The attribute and the name of each workload that the pod belongs to, the nearest first. By the controller, else by the
/// labels that controllers put on their pods.
fn workloads(facts: &Facts) -> Vec<(&'static str, String)> {
    let label = |key: &str| facts.labels.get(key).map(String::as_str);
    let Some((kind, name)) = &facts.owner else { return workloads_by_labels(facts) };
    let own = |key| vec![(key, name.clone())];
    match kind.as_str() {
        "ReplicaSet" => {
            let suffix = label("pod-template-hash").map(|hash| format!("-{hash}"));
            let deployment = suffix.and_then(|suffix| name.strip_suffix(&suffix));
            let deployment = deployment.map(|deployment| ("k8s.deployment.name", deployment.to_owned()));
            own("k8s.replicaset.name").into_iter().chain(deployment).collect()
        }
        "Job" => job(name),
        "StatefulSet" => own("k8s.statefulset.name"),
        "DaemonSet" => own("k8s.daemonset.name"),
        "CronJob" => own("k8s.cronjob.name"),
        "ReplicationController" => own("k8s.replicationcontroller.name"),
        // The node owns static pods; other controllers have no attribute.
        _ => Vec::new(),
    }
}

fn workloads_by_labels(facts: &Facts) -> Vec<(&'static str, String)> {
    let label = |key: &str| facts.labels.get(key).map(String::as_str);
    let without_suffix = || facts.name.rsplit_once('-').map(|(name, _)| name.to_owned());
    if let Some(hash) = label("pod-template-hash")
        && let Some(replica_set) = without_suffix()
        && let Some(deployment) = replica_set.strip_suffix(&format!("-{hash}"))
    {
        let deployment = deployment.to_owned();
        return vec![("k8s.replicaset.name", replica_set), ("k8s.deployment.name", deployment)];
    }
    if let Some(name) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        return job(name);
    }
    let key = match () {
        () if label("statefulset.kubernetes.io/pod-name").is_some() => "k8s.statefulset.name",
        () if label("pod-template-generation").is_some() => "k8s.daemonset.name",
        () => return Vec::new(),
    };
    without_suffix().map(|name| (key, name)).into_iter().collect()
}

/// A job, and the cron job that made it: it puts the minute of the schedule behind its own name
/// (`pkg/controller/cronjob/utils.go`).
fn job(name: &str) -> Vec<(&'static str, String)> {
    let is_minute = |suffix: &str| suffix.len() >= 8 && suffix.bytes().all(|byte| byte.is_ascii_digit());
    let cron_job = name.rsplit_once('-').filter(|(_, suffix)| is_minute(suffix)).map(|(name, _)| name);
    let cron_job = cron_job.map(|cron_job| ("k8s.cronjob.name", cron_job.to_owned()));
    std::iter::once(("k8s.job.name", name.to_owned())).chain(cron_job).collect()
}

/// The first that is there: annotation, label, workload, pod, container. As long as nothing is known of labels and owners,
/// the container's name: a pod of a Deployment must not be a service of its own.
fn service_name(
    facts: &Facts,
    container: &str,
    workloads: &[(&'static str, String)],
    choice: &Choice,
) -> Option<String> {
    if !facts.has_metadata {
        return Some(container.to_owned()).filter(|name| !name.is_empty());
    }
    let annotation = facts.annotations.get(&format!("{RESOURCE_PREFIX}service.name"));
    let label = |key: &str| facts.labels.get(key).filter(|_| choice.service_labels);
    let of_kind = |kind: &str| workloads.iter().find(|(key, _)| *key == kind).map(|(_, name)| name);
    let workload = [
        "k8s.deployment.name",
        "k8s.replicaset.name",
        "k8s.statefulset.name",
        "k8s.daemonset.name",
        "k8s.cronjob.name",
        "k8s.job.name",
    ]
    .into_iter()
    .find_map(of_kind);
    let name = annotation
        .or_else(|| label("app.kubernetes.io/instance"))
        .or_else(|| label("app.kubernetes.io/name"))
        .or(workload)
        .unwrap_or(&facts.name);
    Some(cut(name)).filter(|name| !name.is_empty())
}

/// In this order, so that the same pod gives the same bytes on every signal.
fn attributes(
    facts: &Facts,
    container: &str,
    workloads: &[(&'static str, String)],
    choice: &Choice,
) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    let mut add = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            attributes.push((key.to_owned(), cut(value)));
        }
    };
    add("k8s.namespace.name", Some(&facts.namespace));
    add("k8s.pod.name", Some(&facts.name));
    add("k8s.pod.uid", Some(&facts.uid));
    add("k8s.container.name", Some(container));
    for (key, name) in workloads {
        add(key, Some(name));
    }
    add("container.image.name", facts.image.as_deref());
    add("container.image.id", facts.image_id.as_deref());
    let restarts = facts.restart_count.map(|count| count.to_string());
    add("k8s.container.restart_count", restarts.as_deref());
    let annotation =
        |key: &str| facts.annotations.get(&format!("{RESOURCE_PREFIX}{key}")).map(String::as_str);
    let version = facts.labels.get("app.kubernetes.io/version").filter(|_| choice.service_labels);
    add("service.namespace", annotation("service.namespace").or(Some(&facts.namespace)));
    add("service.version", annotation("service.version").or(version.map(String::as_str)));
    let instance = format!("{}.{}.{container}", facts.namespace, facts.name);
    let instance = Some(instance.as_str()).filter(|_| !container.is_empty());
    add("service.instance.id", annotation("service.instance.id").or(instance));
    attributes.extend(chosen(facts, choice));
    attributes
}

/// What the pod's owner and the node's owner want beside it.
fn chosen(facts: &Facts, choice: &Choice) -> Vec<(String, String)> {
    let is_own = |key: &str| OWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let resource = facts.annotations.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix(RESOURCE_PREFIX).filter(|key| !is_own(key))?;
        Some((key.to_owned(), cut(value)))
    });
    let of = |prefix: &'static str, all: &BTreeMap<String, String>, globs: &[Glob]| -> Vec<_> {
        let wanted = all.iter().filter(|(key, _)| globs.iter().any(|glob| glob.matches(key)));
        wanted.map(|(key, value)| (format!("{prefix}.{key}"), cut(value))).collect()
    };
    let labels = of("k8s.pod.label", &facts.labels, &choice.labels);
    let annotations = of("k8s.pod.annotation", &facts.annotations, &choice.annotations);
    resource.chain(labels).chain(annotations).take(CHOSEN_MAX).collect()
}

fn cut(value: &str) -> String {
    value[..value.floor_char_boundary(VALUE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests;
