//! Nodes.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::quantity::Quantities;
use super::super::report::{Report, STATUSES, Series, created_s, truth};
use super::{Condition, Kind, Listed, Observed, listed, resource, slim, text};
use crate::dump::Glob;

/// What the label of a node's role begins with.
const ROLE: &str = "node-role.kubernetes.io/";

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
    #[serde(skip)]
    roles: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "providerID")]
    provider_id: String,
    unschedulable: bool,
    taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    capacity: Quantities,
    allocatable: Quantities,
    conditions: Vec<Condition>,
    addresses: Vec<Address>,
    node_info: Info,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Info {
    kernel_version: String,
    os_image: String,
    container_runtime_version: String,
    kubelet_version: String,
    kube_proxy_version: String,
    #[serde(rename = "systemUUID")]
    system_uuid: String,
}

listed!(Node, Node, "", "v1", "Node", ClusterResourceScope);

impl Listed for Node {
    const KIND: Kind = Kind::Node;

    fn slim(&mut self, _: &[Glob]) {
        let labels = self.metadata.labels.take().unwrap_or_default();
        self.roles = labels.keys().filter_map(|name| name.strip_prefix(ROLE)).map(str::to_owned).collect();
        slim(&mut self.metadata);
    }
}

impl Observed for Node {
    fn report(&self, report: &mut Report) {
        let (name, uid) = (text(&self.metadata.name), text(&self.metadata.uid));
        let resource = [("k8s.node.name", name), ("k8s.node.uid", uid)];
        let mut series = report.object(&self.metadata, &[("node", name)], &resource);
        self.who(&mut series);
        self.state(&mut series);
        self.room(&mut series);
    }
}

impl Node {
    fn who(&self, series: &mut Series<'_>) {
        let Self { spec, status, .. } = self;
        let internal = status.addresses.iter().find(|address| address.kind == "InternalIP");
        let info = [
            ("kernel_version", status.node_info.kernel_version.as_str()),
            ("os_image", &status.node_info.os_image),
            ("container_runtime_version", &status.node_info.container_runtime_version),
            ("kubelet_version", &status.node_info.kubelet_version),
            ("kubeproxy_version", &status.node_info.kube_proxy_version),
            ("provider_id", &spec.provider_id),
            ("pod_cidr", &spec.pod_cidr),
            ("system_uuid", &status.node_info.system_uuid),
            ("internal_ip", internal.map_or("", |address| &address.address)),
        ];
        series.gauge("kube_node_info", "A node.", &info, 1.0);
        series.gauge("kube_node_created", "When a node was made known.", &[], created_s(&self.metadata));
        for role in &self.roles {
            series.gauge("kube_node_role", "A role of a node.", &[("role", role)], 1.0);
        }
    }

    fn state(&self, series: &mut Series<'_>) {
        let is_closed = truth(self.spec.unschedulable);
        series.gauge("kube_node_spec_unschedulable", "Whether a node takes no new pods.", &[], is_closed);
        for taint in &self.spec.taints {
            let labels = [("key", &*taint.key), ("value", &taint.value), ("effect", &taint.effect)];
            series.gauge("kube_node_spec_taint", "A taint of a node.", &labels, 1.0);
        }
        for condition in &self.status.conditions {
            let of = [("condition", condition.kind.as_str())];
            series.condition(
                "kube_node_status_condition",
                "A condition of a node.",
                "status",
                &of,
                &condition.status,
            );
            for known in STATUSES {
                series.sum(
                    ["k8s.node.condition.status", "{node}", "Nodes whose condition has a given status."],
                    &[("k8s.node.condition.type", &condition.kind), ("k8s.node.condition.status", known)],
                    truth(condition.status.eq_ignore_ascii_case(known)),
                );
            }
        }
    }

    fn room(&self, series: &mut Series<'_>) {
        let Status { capacity, allocatable, .. } = &self.status;
        let families = [
            ("kube_node_status_capacity", "What a node has.", capacity),
            ("kube_node_status_allocatable", "What a node has for pods.", allocatable),
        ];
        for (name, help, quantities) in families {
            for (of, amount) in quantities.iter() {
                let (resource, unit) = resource(of);
                series.gauge(name, help, &[("resource", &resource), ("unit", unit)], amount);
            }
        }
        for (of, text) in [
            ("cpu", ["k8s.node.cpu.allocatable", "{cpu}", "CPUs that the node has for pods."]),
            ("memory", ["k8s.node.memory.allocatable", "By", "Memory that the node has for pods."]),
            (
                "ephemeral-storage",
                [
                    "k8s.node.ephemeral_storage.allocatable",
                    "By",
                    "Ephemeral storage that the node has for pods.",
                ],
            ),
            ("pods", ["k8s.node.pod.allocatable", "{pod}", "Pods that the node takes."]),
        ] {
            series.sum(text, &[], allocatable.get(of));
        }
    }
}
