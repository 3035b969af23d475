//! Deployments.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::{Report, created_s, truth};
use super::{Condition, Kind, Listed, Observed, listed, text};

/// A Deployment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    replicas: Option<i32>,
    paused: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    replicas: i32,
    ready_replicas: i32,
    available_replicas: i32,
    unavailable_replicas: i32,
    updated_replicas: i32,
    observed_generation: i64,
    conditions: Vec<Condition>,
}

listed!(Deployment, Deployment, "apps", "v1", "Deployment", NamespaceResourceScope);

impl Listed for Deployment {
    const KIND: Kind = Kind::Deployment;
}

impl Observed for Deployment {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("deployment", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.deployment.name", name),
                ("k8s.deployment.uid", text(&metadata.uid)),
            ],
        );
        let wanted = spec.replicas.map(f64::from);
        let mut count = |name, help, value: i32| series.gauge(name, help, &[], f64::from(value));
        count("kube_deployment_status_replicas", "Pods of a Deployment.", status.replicas);
        count("kube_deployment_status_replicas_ready", "Pods that are ready.", status.ready_replicas);
        count(
            "kube_deployment_status_replicas_available",
            "Pods that are available.",
            status.available_replicas,
        );
        count(
            "kube_deployment_status_replicas_unavailable",
            "Pods that are missing.",
            status.unavailable_replicas,
        );
        count(
            "kube_deployment_status_replicas_updated",
            "Pods of the newest template.",
            status.updated_replicas,
        );
        series.gauge("kube_deployment_spec_replicas", "Pods that are wanted.", &[], wanted);
        series.gauge(
            "kube_deployment_spec_paused",
            "Whether nothing is rolled out.",
            &[],
            truth(spec.paused),
        );
        series.gauge("kube_deployment_created", "When a Deployment was made.", &[], created_s(metadata));
        series.gauge(
            "kube_deployment_status_observed_generation",
            "The generation that the controller has seen.",
            &[],
            status.observed_generation as f64,
        );
        series.gauge(
            "kube_deployment_metadata_generation",
            "The generation that is wanted.",
            &[],
            metadata.generation.map(|generation| generation as f64),
        );
        for condition in &status.conditions {
            let of = [("reason", &*condition.reason), ("condition", &condition.kind)];
            let name = "kube_deployment_status_condition";
            series.condition(name, "A condition of a Deployment.", "status", &of, &condition.status);
        }
        series.sum(["k8s.deployment.pod.desired", "{pod}", "Replica pods that are wanted."], &[], wanted);
        series.sum(
            ["k8s.deployment.pod.available", "{pod}", "Replica pods that are available."],
            &[],
            f64::from(status.available_replicas),
        );
    }
}
