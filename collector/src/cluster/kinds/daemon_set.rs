//! DaemonSets.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::{Report, created_s};
use super::{Kind, Listed, Observed, listed, text};

/// A DaemonSet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DaemonSet {
    metadata: ObjectMeta,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    current_number_scheduled: i32,
    desired_number_scheduled: i32,
    number_available: i32,
    number_misscheduled: i32,
    number_ready: i32,
    number_unavailable: i32,
    updated_number_scheduled: i32,
    observed_generation: i64,
}

listed!(DaemonSet, DaemonSet, "apps", "v1", "DaemonSet", NamespaceResourceScope);

impl Listed for DaemonSet {
    const KIND: Kind = Kind::DaemonSet;
}

impl Observed for DaemonSet {
    fn report(&self, report: &mut Report) {
        let Self { metadata, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series = report.object(
            metadata,
            &[("namespace", namespace), ("daemonset", name)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.daemonset.name", name),
                ("k8s.daemonset.uid", text(&metadata.uid)),
            ],
        );
        let Status { current_number_scheduled, desired_number_scheduled, number_misscheduled, .. } = *status;
        let counts = [
            (
                "kube_daemonset_status_current_number_scheduled",
                "Nodes that run it and should.",
                current_number_scheduled,
            ),
            (
                "kube_daemonset_status_desired_number_scheduled",
                "Nodes that should run it.",
                desired_number_scheduled,
            ),
            (
                "kube_daemonset_status_number_misscheduled",
                "Nodes that run it and should not.",
                number_misscheduled,
            ),
            (
                "kube_daemonset_status_number_available",
                "Nodes where it is available.",
                status.number_available,
            ),
            ("kube_daemonset_status_number_ready", "Nodes where it is ready.", status.number_ready),
            (
                "kube_daemonset_status_number_unavailable",
                "Nodes where it is missing.",
                status.number_unavailable,
            ),
            (
                "kube_daemonset_status_updated_number_scheduled",
                "Nodes that run the newest template.",
                status.updated_number_scheduled,
            ),
        ];
        for (name, help, value) in counts {
            series.gauge(name, help, &[], f64::from(value));
        }
        series.gauge("kube_daemonset_created", "When a DaemonSet was made.", &[], created_s(metadata));
        series.gauge(
            "kube_daemonset_status_observed_generation",
            "The generation that the controller has seen.",
            &[],
            status.observed_generation as f64,
        );
        series.gauge(
            "kube_daemonset_metadata_generation",
            "The generation that is wanted.",
            &[],
            metadata.generation.map(|generation| generation as f64),
        );
        for (text, value) in [
            (
                ["k8s.daemonset.node.current_scheduled", "{node}", "Nodes that run it and should."],
                current_number_scheduled,
            ),
            (
                ["k8s.daemonset.node.desired_scheduled", "{node}", "Nodes that should run it."],
                desired_number_scheduled,
            ),
            (
                ["k8s.daemonset.node.misscheduled", "{node}", "Nodes that run it and should not."],
                number_misscheduled,
            ),
            (["k8s.daemonset.node.ready", "{node}", "Nodes where it is ready."], status.number_ready),
        ] {
            series.sum(text, &[], f64::from(value));
        }
    }
}
