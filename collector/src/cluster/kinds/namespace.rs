//! Namespaces.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::report::{Report, created_s, truth};
use super::{Kind, Listed, Observed, listed, text};

/// Phases with their values in OpenTelemetry's words.
const PHASES: [(&str, &str); 2] = [("Active", "active"), ("Terminating", "terminating")];

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    metadata: ObjectMeta,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

listed!(Namespace, Namespace, "", "v1", "Namespace", ClusterResourceScope);

impl Listed for Namespace {
    const KIND: Kind = Kind::Namespace;
}

impl Observed for Namespace {
    fn report(&self, report: &mut Report) {
        let (name, phase) = (text(&self.metadata.name), self.status.phase.as_str());
        let mut series =
            report.object(&self.metadata, &[("namespace", name)], &[("k8s.namespace.name", name)]);
        series.gauge("kube_namespace_created", "When a namespace was made.", &[], created_s(&self.metadata));
        for (known, word) in PHASES {
            let is = truth(known == phase);
            series.gauge("kube_namespace_status_phase", "The phase of a namespace.", &[("phase", known)], is);
            let text = ["k8s.namespace.phase", "{namespace}", "Namespaces that are in a given phase."];
            series.sum(text, &[("k8s.namespace.phase", word)], is);
        }
    }
}
