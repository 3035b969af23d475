//! The keys of metrics -> options: what is collected, where it is scraped, what we scrape.
//!
//! Refuses: opening anything but the password's file.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Resolved, kubernetes, optional};
use crate::cluster::{ClusterOptions, Words};
use crate::export::prometheus::{PrometheusOptions, TlsOptions};
use crate::identity::{NameOptions, Subject};
use crate::meter::MeterOptions;
use crate::scrape::{Access, Target, TargetSpec};
use crate::telemetry::cardinality::Limits;
use crate::telemetry::{ClusterObject, Owner, Vocabulary};

/// What is collected. `is_pushed`: metrics go out over OTLP.
pub fn meter(resolved: &Resolved, is_pushed: bool) -> Result<MeterOptions> {
    let mut limits = Limits::default();
    limits.series_per_owner_max = resolved.integer("metrics.series_per_owner_max") as usize;
    limits.series_per_metric_max = resolved.integer("metrics.series_max") as usize;
    for (glob, limit) in resolved.table("metrics.limits") {
        let limit = limit.parse().with_context(|| format!("metrics.limits: {limit:?} is no number"))?;
        limits = limits.with_override(glob, limit).context("in metrics.limits")?;
    }
    Ok(MeterOptions {
        interval: Duration::from_millis(resolved.integer("metrics.interval_ms")),
        node: resolved.flag("resource.node"),
        containers: resolved.flag("resource.containers"),
        cadvisor: resolved.flag("prometheus.cadvisor") && listens(resolved),
        layers: resolved.flag("resource.layers"),
        words: Words { kube_state: listens(resolved), conventions: is_pushed },
        root: resolved.text("resource.root").into(),
        limits,
    })
}

/// The endpoint; `None` if it is switched off.
pub fn prometheus(resolved: &Resolved) -> Result<Option<PrometheusOptions>> {
    if !listens(resolved) {
        return Ok(None);
    }
    let listen = resolved.text("prometheus.listen").split(',').map(|address| address_of(address.trim()));
    let mut vocabularies = HashSet::from([Vocabulary::OpenTelemetry]);
    if resolved.flag("prometheus.cadvisor") {
        vocabularies.insert(Vocabulary::Cadvisor);
    }
    if resolved.flag("prometheus.node_exporter") {
        vocabularies.insert(Vocabulary::NodeExporter);
    }
    if resolved.flag("kubernetes.cluster") {
        vocabularies.insert(Vocabulary::KubeState);
    }
    let file = |key: &str| optional(resolved.text(key)).map(PathBuf::from);
    let tls = match (file("prometheus.certificate"), file("prometheus.key")) {
        (Some(certificate), Some(key)) => {
            Some(TlsOptions { certificate, key, client_ca: file("prometheus.client_certificate") })
        }
        (None, None) => None,
        _ => bail!("prometheus.certificate and prometheus.key go together: set both or none"),
    };
    let user = optional(resolved.text("prometheus.user"));
    let basic = match (user, file("prometheus.password_file")) {
        (Some(user), Some(path)) => {
            let password = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read prometheus.password_file {}", path.display()))?;
            Some((user.to_owned(), password.trim_end_matches(['\r', '\n']).to_owned()))
        }
        (None, None) => None,
        _ => bail!("prometheus.user and prometheus.password_file go together: set both or none"),
    };
    Ok(Some(PrometheusOptions {
        listen: listen.collect::<Result<_>>()?,
        tls,
        basic,
        bearer_token_file: file("prometheus.bearer_token_file"),
        vocabularies,
        created: resolved.flag("prometheus.created"),
    }))
}

/// The pages of applications.
pub fn targets(resolved: &Resolved) -> Result<Vec<Target>> {
    let interval = Duration::from_millis(resolved.integer("scrape.interval_ms"));
    let target = |(name, url): (&String, &String)| {
        let target = Target::of_config(name, url, Some(name));
        let target = target.with_context(|| format!("scrape.targets: {name}"))?;
        Ok(Target { interval, ..target })
    };
    let of_table = resolved.table("scrape.targets").iter().map(target);
    let kubelet = optional(resolved.text("scrape.kubelet")).map(|url| {
        let spec = TargetSpec::of_url(url).context("in scrape.kubelet")?;
        let owner = Owner::Subject(Arc::new(Subject::named("kubelet")));
        Ok(Target { interval, access: Access::Cluster, ..Target::new(owner, spec) })
    });
    of_table.chain(kubelet).collect()
}

/// What one elected agent does; `None` if nothing needs one.
pub fn cluster(resolved: &Resolved, names: &NameOptions) -> Result<Option<ClusterOptions>> {
    let (objects, control_plane) =
        (resolved.flag("kubernetes.cluster"), resolved.flag("scrape.control_plane"));
    let urls = resolved.table("scrape.cluster_targets");
    if !objects && !control_plane && urls.is_empty() {
        return Ok(None);
    }
    let interval = Duration::from_millis(resolved.integer("scrape.interval_ms"));
    // Whichever agent is elected: nothing of it is in their resource.
    let target = |(name, url): (&String, &String)| {
        let spec = TargetSpec::of_url(url).with_context(|| format!("scrape.cluster_targets: {name}"))?;
        let attributes = vec![("service.name".into(), name.clone().into())];
        let owner = Owner::Object(Arc::new(ClusterObject { attributes, ..ClusterObject::default() }));
        Ok(Target { interval, is_elected: true, ..Target::new(owner, spec) })
    };
    Ok(Some(ClusterOptions {
        lease: resolved.text("kubernetes.lease").to_owned(),
        node: names.node.clone(),
        objects,
        labels: kubernetes::globs(resolved, "kubernetes.labels")?,
        control_plane,
        targets: urls.iter().map(target).collect::<Result<_>>()?,
        interval,
    }))
}

fn listens(resolved: &Resolved) -> bool {
    !matches!(resolved.text("prometheus.listen"), "" | "none")
}

/// `:9464` is that port on all addresses.
fn address_of(text: &str) -> Result<SocketAddr> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    full.parse().with_context(|| {
        format!("prometheus.listen: {text:?} is no address with a port, such as 0.0.0.0:9464 or :9464")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(address_of(text).ok().map(|address| address.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn addresses() {
        check("127.0.0.1:9464", Some("127.0.0.1:9464"));
        check(":9464", Some("[::]:9464"));
        check("localhost:1", Some("127.0.0.1:1"));
        check("[::1]:80", Some("[::1]:80"));
        check("9464", None);
        check("example.org:80", None);
    }
}
