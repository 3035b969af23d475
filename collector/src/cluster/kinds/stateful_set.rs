//! StatefulSets.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::{Report, created_s};
use super::{Kind, Listed, Observed, listed, text};

/// A StatefulSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StatefulSet {
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
    available_replicas: i32,
    current_replicas: i32,
    ready_replicas: i32,
    updated_replicas: i32,
    observed_generation: Option<i64>,
    current_revision: String,
    update_revision: String,
}

listed!(StatefulSet, StatefulSet, "apps", "v1", "StatefulSet", NamespaceResourceScope);

impl Listed for StatefulSet {
    const KIND: Kind = Kind::StatefulSet;
}

impl Observed for StatefulSet {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("statefulset", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.statefulset.name", name),
                ("k8s.statefulset.uid", text(&metadata.uid)),
            ],
        );
        let counts = [
            ("kube_statefulset_status_replicas", "Pods of a StatefulSet.", status.replicas),
            (
                "kube_statefulset_status_replicas_available",
                "Pods that are available.",
                status.available_replicas,
            ),
            (
                "kube_statefulset_status_replicas_current",
                "Pods of the current revision.",
                status.current_replicas,
            ),
            ("kube_statefulset_status_replicas_ready", "Pods that are ready.", status.ready_replicas),
            (
                "kube_statefulset_status_replicas_updated",
                "Pods of the newest revision.",
                status.updated_replicas,
            ),
        ];
        for (name, help, value) in counts {
            series.gauge(name, help, &[], f64::from(value));
        }
        let wanted = spec.replicas.map(f64::from);
        series.gauge("kube_statefulset_replicas", "Pods that are wanted.", &[], wanted);
        series.gauge("kube_statefulset_created", "When a StatefulSet was made.", &[], created_s(metadata));
        series.gauge(
            "kube_statefulset_status_observed_generation",
            "The generation that the controller has seen.",
            &[],
            status.observed_generation.map(|generation| generation as f64),
        );
        series.gauge(
            "kube_statefulset_metadata_generation",
            "The generation that is wanted.",
            &[],
            metadata.generation.map(|generation| generation as f64),
        );
        let current = [("revision", status.current_revision.as_str())];
        series.gauge(
            "kube_statefulset_status_current_revision",
            "The revision that pods have.",
            &current,
            1.0,
        );
        let update = [("revision", status.update_revision.as_str())];
        series.gauge("kube_statefulset_status_update_revision", "The revision that pods get.", &update, 1.0);

        series.sum(["k8s.statefulset.pod.desired", "{pod}", "Replica pods that are wanted."], &[], wanted);
        for (text, value) in [
            (["k8s.statefulset.pod.ready", "{pod}", "Replica pods that are ready."], status.ready_replicas),
            (
                ["k8s.statefulset.pod.current", "{pod}", "Replica pods of the current revision."],
                status.current_replicas,
            ),
            (
                ["k8s.statefulset.pod.updated", "{pod}", "Replica pods of the newest revision."],
                status.updated_replicas,
            ),
        ] {
            series.sum(text, &[], f64::from(value));
        }
    }
}
