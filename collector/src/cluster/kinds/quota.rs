//! ResourceQuotas: what a namespace may use, and uses.
//!
//! On the endpoint only.

use kube::api::ObjectMeta;
use serde::Deserialize;

use super::super::quantity::Quantities;
use super::super::report::{Report, created_s};
use super::{Kind, Listed, Observed, listed, text};

/// A ResourceQuota.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Quota {
    metadata: ObjectMeta,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    hard: Quantities,
    used: Quantities,
}

listed!(Quota, Quota, "", "v1", "ResourceQuota", NamespaceResourceScope);

impl Listed for Quota {
    const KIND: Kind = Kind::Quota;
}

impl Observed for Quota {
    fn report(&self, report: &mut Report) {
        let (namespace, name) = (text(&self.metadata.namespace), text(&self.metadata.name));
        let labels = [("namespace", namespace), ("resourcequota", name)];
        let mut series = report.object(&self.metadata, &labels, &[]);
        series.gauge("kube_resourcequota_created", "When a quota was made.", &[], created_s(&self.metadata));
        for (kind, quantities) in [("hard", &self.status.hard), ("used", &self.status.used)] {
            for (resource, amount) in quantities.iter() {
                let labels = [("resource", resource), ("type", kind)];
                series.gauge("kube_resourcequota", "What a namespace may use, and uses.", &labels, amount);
            }
        }
    }
}
