//! The keys of Kubernetes -> options: whom to ask for the pods of containers, and what of them goes out.
//!
//! Refuses: asking anybody.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Resolved, optional};
use crate::dump::Glob;
use crate::health::Health;
use crate::identity::{ApiAccess, Choice, CriSocket, NameOptions};
use crate::kernel;

/// How pods are found.
pub fn names(resolved: &Resolved) -> Result<NameOptions> {
    let api = match (resolved.text("kubernetes.api"), optional(resolved.text("kubernetes.kubeconfig"))) {
        ("off", _) => ApiAccess::Off,
        (_, Some(path)) => ApiAccess::Kubeconfig(path.into()),
        (_, None) => ApiAccess::Auto,
    };
    Ok(NameOptions {
        cri: match resolved.text("kubernetes.cri_socket") {
            "auto" => CriSocket::Auto,
            "none" | "" => CriSocket::None,
            path => CriSocket::At(path.into()),
        },
        node: node_name(resolved, &api).unwrap_or_default(),
        api,
        choice: Choice {
            labels: globs(resolved, "kubernetes.labels")?,
            annotations: globs(resolved, "kubernetes.annotations")?,
            service_labels: resolved.flag("kubernetes.service_labels"),
        },
        peers: resolved.flag("kubernetes.peers"),
        cache: optional(resolved.text("kubernetes.cache")).map(PathBuf::from),
        keeps_cache: false,
        health: Health::default(),
    })
}

/// The network namespace to ask for the pods behind IPs of Services, which only those know who know the IPs.
pub fn node_network(resolved: &Resolved) -> Option<PathBuf> {
    let path = match resolved.text("kubernetes.node_network") {
        "none" | "" => return None,
        "auto" => kernel::node_network()?,
        path => Path::new(path),
    };
    resolved.flag("kubernetes.peers").then(|| path.into())
}

/// As the user says, else the host's name where pods are watched: so do kubelets.
fn node_name(resolved: &Resolved, api: &ApiAccess) -> Option<String> {
    let hostname = || rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let given = optional(resolved.text("kubernetes.node_name")).map(str::to_owned);
    given.or_else(|| api.is_there().then(hostname))
}

/// Names with commas between them.
pub(super) fn globs(resolved: &Resolved, key: &str) -> Result<Vec<Glob>> {
    let names = resolved.text(key).split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| Glob::parse(name).with_context(|| format!("in {key}"))).collect()
}
