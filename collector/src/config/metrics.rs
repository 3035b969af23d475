//! The keys of metrics -> options: what is collected, where it is scraped, what we scrape.
//!
//! Refuses: opening anything but the password's file.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Resolved, optional};
use crate::export::prometheus::{PrometheusOptions, TlsOptions};
use crate::meter::MeterOptions;
use crate::scrape::Target;
use crate::telemetry::Vocabulary;
use crate::telemetry::cardinality::Limits;

/// What is collected.
pub fn meter(resolved: &Resolved) -> Result<MeterOptions> {
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
    resolved.table("scrape.targets").iter().map(target).collect()
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
