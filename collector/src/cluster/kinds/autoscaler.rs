//! HorizontalPodAutoscalers.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::Report;
use super::{Condition, Kind, Listed, Observed, listed, text};

/// A HorizontalPodAutoscaler.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Autoscaler {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    min_replicas: Option<i32>,
    max_replicas: i32,
    scale_target_ref: Target,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Target {
    api_version: String,
    kind: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    current_replicas: i32,
    desired_replicas: i32,
    conditions: Vec<Condition>,
}

listed!(Autoscaler, Autoscaler, "autoscaling", "v2", "HorizontalPodAutoscaler", NamespaceResourceScope);

impl Listed for Autoscaler {
    const KIND: Kind = Kind::Autoscaler;
}

impl Observed for Autoscaler {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("horizontalpodautoscaler", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.hpa.name", name),
                ("k8s.hpa.uid", text(&metadata.uid)),
            ],
        );
        let target = [
            ("scaletargetref_api_version", spec.scale_target_ref.api_version.as_str()),
            ("scaletargetref_kind", &spec.scale_target_ref.kind),
            ("scaletargetref_name", &spec.scale_target_ref.name),
        ];
        series.gauge("kube_horizontalpodautoscaler_info", "What an autoscaler scales.", &target, 1.0);
        let generation = metadata.generation.map(|generation| generation as f64);
        let help = "The generation that is wanted.";
        series.gauge("kube_horizontalpodautoscaler_metadata_generation", help, &[], generation);
        // The server's default.
        let least = spec.min_replicas.unwrap_or(1);
        let counts = [
            ("kube_horizontalpodautoscaler_spec_min_replicas", "k8s.hpa.pod.min", "The fewest pods.", least),
            (
                "kube_horizontalpodautoscaler_spec_max_replicas",
                "k8s.hpa.pod.max",
                "The most pods.",
                spec.max_replicas,
            ),
            (
                "kube_horizontalpodautoscaler_status_current_replicas",
                "k8s.hpa.pod.current",
                "Pods that there are.",
                status.current_replicas,
            ),
            (
                "kube_horizontalpodautoscaler_status_desired_replicas",
                "k8s.hpa.pod.desired",
                "Pods that there are to be.",
                status.desired_replicas,
            ),
        ];
        for (kube_state, convention, help, value) in counts {
            series.gauge(kube_state, help, &[], f64::from(value));
            series.sum([convention, "{pod}", help], &[], f64::from(value));
        }
        for condition in &status.conditions {
            let of = [("condition", condition.kind.as_str())];
            let name = "kube_horizontalpodautoscaler_status_condition";
            series.condition(name, "A condition of an autoscaler.", "status", &of, &condition.status);
        }
    }
}
