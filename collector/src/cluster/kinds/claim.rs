//! PersistentVolumeClaims.
//!
//! OpenTelemetry has no metrics of them yet: on the endpoint only.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::quantity::Quantities;
use super::super::report::{Report, created_s};
use super::{Kind, Listed, Observed, listed, text};

const PHASES: [&str; 3] = ["Lost", "Bound", "Pending"];

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    access_modes: Vec<String>,
    storage_class_name: Option<String>,
    volume_name: String,
    volume_mode: Option<String>,
    resources: Resources,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Quantities,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

listed!(Claim, Claim, "", "v1", "PersistentVolumeClaim", NamespaceResourceScope);

impl Listed for Claim {
    const KIND: Kind = Kind::Claim;
}

impl Observed for Claim {
    fn report(&self, report: &mut Report) {
        let Self { metadata, spec, status } = self;
        let (namespace, name) = (text(&metadata.namespace), text(&metadata.name));
        let mut series =
            report.object(metadata, &[("namespace", namespace), ("persistentvolumeclaim", name)], &[]);
        let info = [
            ("storageclass", text(&spec.storage_class_name)),
            ("volumename", &spec.volume_name),
            ("volumemode", text(&spec.volume_mode)),
        ];
        series.gauge("kube_persistentvolumeclaim_info", "A claim of a volume.", &info, 1.0);
        series.gauge(
            "kube_persistentvolumeclaim_created",
            "When a claim was made.",
            &[],
            created_s(metadata),
        );
        let is = |phase: &str| phase == status.phase;
        series.states(
            "kube_persistentvolumeclaim_status_phase",
            "The phase of a claim.",
            "phase",
            &PHASES,
            is,
        );
        series.gauge(
            "kube_persistentvolumeclaim_resource_requests_storage_bytes",
            "Bytes that are asked for.",
            &[],
            spec.resources.requests.get("storage"),
        );
        for mode in &spec.access_modes {
            let name = "kube_persistentvolumeclaim_access_mode";
            series.gauge(name, "How a volume is to be mounted.", &[("access_mode", mode)], 1.0);
        }
    }
}
