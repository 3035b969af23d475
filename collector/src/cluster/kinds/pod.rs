//! Pods of all nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::{Report, Series, created_s, seconds, truth};
use super::container::{self, Container, ContainerStatus};
use super::{Condition, Kind, Listed, Observed, listed, owners, sanitized, slim, text};
use crate::dump::Glob;
use crate::telemetry::Text;

const PHASES: [&str; 5] = ["Pending", "Succeeded", "Failed", "Unknown", "Running"];

/// Why a pod as a whole is as it is; kube-state-metrics knows these.
const REASONS: [&str; 5] = ["Evicted", "NodeAffinity", "NodeLost", "Shutdown", "UnexpectedAdmissionError"];

/// Conditions that are told.
const READY: &str = "Ready";
const SCHEDULED: &str = "PodScheduled";

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Spec,
    pub(super) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) containers: Vec<Container>,
    pub(super) node_name: Option<String>,
    priority_class_name: Option<String>,
    host_network: bool,
    restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    phase: String,
    reason: String,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    start_time: Option<Time>,
    conditions: Vec<Condition>,
    pub(super) container_statuses: Vec<ContainerStatus>,
}

listed!(Pod, Pod, "", "v1", "Pod", NamespaceResourceScope);

impl Listed for Pod {
    const KIND: Kind = Kind::Pod;

    fn slim(&mut self, labels: &[Glob]) {
        let mut kept = self.metadata.labels.take();
        if let Some(kept) = &mut kept {
            kept.retain(|name, _| labels.iter().any(|glob| glob.matches(name)));
        }
        slim(&mut self.metadata);
        self.metadata.labels = kept.filter(|kept| !kept.is_empty());
        let Status { conditions, container_statuses, .. } = &mut self.status;
        conditions.retain(|condition| [READY, SCHEDULED].contains(&condition.kind.as_str()));
        conditions.shrink_to_fit();
        container_statuses.shrink_to_fit();
        self.spec.containers.shrink_to_fit();
    }
}

impl Observed for Pod {
    fn report(&self, report: &mut Report) {
        let meta = &self.metadata;
        let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
        let mut series = report.object(
            meta,
            &[("namespace", namespace), ("pod", name), ("uid", uid)],
            &[
                ("k8s.namespace.name", namespace),
                ("k8s.pod.name", name),
                ("k8s.pod.uid", uid),
                ("k8s.node.name", text(&self.spec.node_name)),
            ],
        );
        self.who(&mut series);
        self.state(&mut series);
        container::report(self, report);
    }
}

impl Pod {
    fn who(&self, series: &mut Series<'_>) {
        let Self { metadata, spec, status } = self;
        let owners_of = metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners_of.iter().find(|owner| owner.controller == Some(true));
        let info = [
            ("host_ip", text(&status.host_ip)),
            ("pod_ip", text(&status.pod_ip)),
            ("node", text(&spec.node_name)),
            ("created_by_kind", controller.map_or("", |owner| &owner.kind)),
            ("created_by_name", controller.map_or("", |owner| &owner.name)),
            ("priority_class", text(&spec.priority_class_name)),
            ("host_network", if spec.host_network { "true" } else { "false" }),
        ];
        series.gauge("kube_pod_info", "A pod.", &info, 1.0);
        owners(series, "kube_pod_owner", "Whose a pod is.", metadata);
        series.gauge(
            "kube_pod_restart_policy",
            "When containers of a pod are started anew.",
            &[("type", &spec.restart_policy)],
            1.0,
        );
        series.gauge("kube_pod_created", "When a pod was made.", &[], created_s(metadata));
        series.gauge(
            "kube_pod_start_time",
            "When the kubelet took a pod.",
            &[],
            status.start_time.as_ref().map(seconds),
        );
        series.gauge(
            "kube_pod_deletion_timestamp",
            "When a pod is to be gone.",
            &[],
            metadata.deletion_timestamp.as_ref().map(seconds),
        );
        let labels = metadata.labels.iter().flatten();
        let labels = labels.map(|(name, value)| {
            (Text::from(format!("label_{}", sanitized(name))), Text::from(value.clone()))
        });
        series.labels("kube_pod_labels", "Labels of a pod that were chosen.", labels.collect());
    }

    fn state(&self, series: &mut Series<'_>) {
        // As kubectl: what a node that is lost still runs, nobody knows.
        let is_lost = self.metadata.deletion_timestamp.is_some() && self.status.reason == "NodeLost";
        let phase = if is_lost { "Unknown" } else { self.status.phase.as_str() };
        if !phase.is_empty() {
            series.states("kube_pod_status_phase", "The phase of a pod.", "phase", &PHASES, |known| {
                known == phase
            });
            for known in PHASES {
                series.sum(
                    ["k8s.pod.status.phase", "{pod}", "Pods that are in a given phase."],
                    &[("k8s.pod.status.phase", known)],
                    truth(known == phase),
                );
            }
        }
        let reason = &self.status.reason;
        series.states("kube_pod_status_reason", "Why a pod is as it is.", "reason", &REASONS, |known| {
            known == reason
        });
        for condition in &self.status.conditions {
            let mut condition_of =
                |name, help| series.condition(name, help, "condition", &[], &condition.status);
            match condition.kind.as_str() {
                READY => condition_of("kube_pod_status_ready", "Whether a pod is ready to serve."),
                SCHEDULED => {
                    condition_of("kube_pod_status_scheduled", "Whether a pod has a node.");
                    let is_unschedulable = condition.status == "False" && condition.reason == "Unschedulable";
                    let value = Some(1.0).filter(|_| is_unschedulable);
                    series.gauge("kube_pod_status_unschedulable", "No node takes the pod.", &[], value);
                }
                _ => {}
            }
        }
    }
}
