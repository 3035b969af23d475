//! ReplicaSets: what stands between pods and their Deployment.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::{Report, created_s};
use super::{Kind, Listed, Observed, listed, owners, text};

/// A ReplicaSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaSet {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    replicas: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    replicas: i32,
    ready_replicas: i32,
    available_replicas: i32,
    fully_labeled_replicas: i32,
    observed_generation: i64,
}

listed!(ReplicaSet, ReplicaSet, "apps", "v1", "ReplicaSet", NamespaceResourceScope);

impl Listed for ReplicaSet {
    const KIND: Kind = Kind::ReplicaSet;
}

impl Observed for ReplicaSet {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("replicaset", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.replicaset.name", name),
                ("k8s.replicaset.uid", text(&metadata.uid)),
            ],
        );
        owners(&mut series, "kube_replicaset_owner", "Whose a ReplicaSet is.", metadata);
        let wanted = spec.replicas.map(f64::from);
        let mut gauge = |name, help, value: Option<f64>| series.gauge(name, help, &[], value);
        gauge("kube_replicaset_created", "When a ReplicaSet was made.", created_s(metadata));
        gauge("kube_replicaset_spec_replicas", "Pods that are wanted.", wanted);
        gauge("kube_replicaset_status_replicas", "Pods of a ReplicaSet.", Some(status.replicas.into()));
        gauge(
            "kube_replicaset_status_ready_replicas",
            "Pods that are ready.",
            Some(status.ready_replicas.into()),
        );
        gauge(
            "kube_replicaset_status_fully_labeled_replicas",
            "Pods with all labels of the template.",
            Some(status.fully_labeled_replicas.into()),
        );
        gauge(
            "kube_replicaset_status_observed_generation",
            "The generation that the controller has seen.",
            Some(status.observed_generation as f64),
        );
        gauge(
            "kube_replicaset_metadata_generation",
            "The generation that is wanted.",
            metadata.generation.map(|generation| generation as f64),
        );
        series.sum(["k8s.replicaset.pod.desired", "{pod}", "Replica pods that are wanted."], &[], wanted);
        series.sum(
            ["k8s.replicaset.pod.available", "{pod}", "Replica pods that are available."],
            &[],
            f64::from(status.available_replicas),
        );
    }
}
