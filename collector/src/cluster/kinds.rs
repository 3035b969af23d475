//! The kinds of objects that are watched: what is read of each, and what is told of it.
//!
//! Names, labels and values are kube-state-metrics' (v2, `internal/store`) and OpenTelemetry's (semantic conventions,
//! `model/k8s/metrics.yaml`). One file a kind. Refuses: fields that nothing here needs; they are dropped while they are read.

mod autoscaler;
mod claim;
mod container;
mod daemon_set;
mod deployment;
mod job;
mod namespace;
mod node;
mod pod;
mod quota;
mod replica_set;
mod stateful_set;

use std::fmt::Debug;

pub use autoscaler::Autoscaler;
pub use claim::Claim;
pub use daemon_set::DaemonSet;
pub use deployment::Deployment;
pub use job::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
pub use namespace::Namespace;
pub use node::Node;
pub use pod::Pod;
pub use quota::Quota;
pub use replica_set::ReplicaSet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
pub use stateful_set::StatefulSet;

use super::report::{Report, Series};
use crate::dump::Glob;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Pod,
    Node,
    Namespace,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    Autoscaler,
    Claim,
    Quota,
}

/// All kinds, in the order of their numbers.
pub const KINDS: [Kind; 12] = [
    Kind::Pod,
    Kind::Node,
    Kind::Namespace,
    Kind::Deployment,
    Kind::ReplicaSet,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Job,
    Kind::CronJob,
    Kind::Autoscaler,
    Kind::Claim,
    Kind::Quota,
];

impl Kind {
    /// As it stands in URLs and in RBAC.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Node => "nodes",
            Self::Namespace => "namespaces",
            Self::Deployment => "deployments",
            Self::ReplicaSet => "replicasets",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::Job => "jobs",
            Self::CronJob => "cronjobs",
            Self::Autoscaler => "horizontalpodautoscalers",
            Self::Claim => "persistentvolumeclaims",
            Self::Quota => "resourcequotas",
        }
    }
}

/// An object that is held.
pub trait Observed: Send {
    /// Adds its series.
    fn report(&self, report: &mut Report);
}

/// A kind that is watched.
pub trait Listed:
    Observed + kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static
{
    /// Which it is.
    const KIND: Kind;

    /// Drops what is not told. `labels` are those of pods that are.
    fn slim(&mut self, labels: &[Glob]) {
        let _no_pod = labels;
        slim(self.meta_mut());
    }
}

/// Keeps what all kinds tell, in no more memory than that takes: a list that is read has room for four of its items at least.
fn slim(meta: &mut ObjectMeta) {
    let owner = |owner: OwnerReference| OwnerReference {
        kind: owner.kind,
        name: owner.name,
        controller: owner.controller,
        ..OwnerReference::default()
    };
    let owners = meta.owner_references.take();
    *meta = ObjectMeta {
        name: meta.name.take(),
        namespace: meta.namespace.take(),
        uid: meta.uid.take(),
        creation_timestamp: meta.creation_timestamp.take(),
        deletion_timestamp: meta.deletion_timestamp.take(),
        generation: meta.generation,
        owner_references: owners.map(|owners| owners.into_iter().map(owner).collect::<Box<[_]>>().into_vec()),
        ..ObjectMeta::default()
    };
}

/// Makes a type a resource of the API.
macro_rules! listed {
    ($type:ty, $kind:ident, $group:literal, $version:literal, $api_kind:literal, $scope:ident) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = k8s_openapi::$scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $api_kind.into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                crate::cluster::kinds::Kind::$kind.name().into()
            }

            fn meta(&self) -> &kube::api::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut kube::api::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(super) use listed;

/// A condition of any object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
}

/// The text of a field that all objects have.
fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// Whose an object is: one series for each owner, or one without names.
fn owners(series: &mut Series<'_>, name: &'static str, help: &'static str, meta: &ObjectMeta) {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    if owners.is_empty() {
        series.gauge(name, help, &[("owner_kind", ""), ("owner_name", ""), ("owner_is_controller", "")], 1.0);
    }
    for owner in owners {
        let is_controller = if owner.controller == Some(true) { "true" } else { "false" };
        let labels = [
            ("owner_kind", &*owner.kind),
            ("owner_name", &owner.name),
            ("owner_is_controller", is_controller),
        ];
        series.gauge(name, help, &labels, 1.0);
    }
}

/// The name and unit of a resource in kube-state-metrics' words.
fn resource(name: &str) -> (String, &'static str) {
    let unit = match name {
        "cpu" => "core",
        "memory" | "storage" | "ephemeral-storage" => "byte",
        name if name.starts_with("hugepages-") || name.starts_with("attachable-volumes-") => "byte",
        _ => "integer",
    };
    (sanitized(name), unit)
}

/// With `_` for what no name of a label may have.
fn sanitized(name: &str) -> String {
    name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect()
}

#[cfg(test)]
mod tests;
