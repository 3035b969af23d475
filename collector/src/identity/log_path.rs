//! The last resort: the pod of a container by the link that the kubelet makes to its log.
//!
//! Refuses: following the link, and folders with more than `LINKS_MAX` entries.
//!
//! Source: Kubernetes `pkg/kubelet/kuberuntime/legacy.go`: `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` ->
//! `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Facts;

/// Links that are looked at.
const LINKS_MAX: usize = 16_384;

/// The links that are there, by the ids of their containers.
#[derive(Debug, Default)]
pub struct Links(HashMap<String, PathBuf>);

impl Links {
    /// Those below roots, the first before the others.
    pub fn read(roots: &[PathBuf]) -> Self {
        let folders = roots.iter().filter_map(|root| std::fs::read_dir(root.join("var/log/containers")).ok());
        let mut links = HashMap::new();
        for link in folders.flat_map(|folder| folder.flatten().take(LINKS_MAX)) {
            let path = link.path();
            let stem = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log"));
            if let Some((_, container_id)) = stem.and_then(|stem| stem.rsplit_once('-')) {
                links.entry(container_id.to_owned()).or_insert(path);
            }
        }
        Self(links)
    }

    /// What they say of a container.
    pub fn facts_of(&self, container_id: &str) -> Option<Facts> {
        let path = self.0.get(container_id)?;
        let name = path.file_name()?.to_str()?.strip_suffix(&format!("-{container_id}.log"))?;
        facts(name, &std::fs::read_link(path).unwrap_or_default())
    }
}

/// From the link's name without the container's id, and its target.
fn facts(name: &str, target: &Path) -> Option<Facts> {
    let mut parts = name.split('_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [pod, namespace, container].contains(&"") {
        return None;
    }
    let restart_count = target.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    let directory = target.ancestors().nth(2).and_then(|directory| directory.file_name()?.to_str());
    let uid = directory.and_then(|directory| directory.strip_prefix(&format!("{namespace}_{pod}_")));
    Some(Facts { restart_count, ..Facts::of_pod(namespace, pod, uid.unwrap_or_default(), container) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, target: &str, expected: Option<(&str, &str, &str, &str, Option<u32>)>) {
        let found = facts(name, Path::new(target));
        let found = found.as_ref().map(|facts| {
            let container = facts.container.as_deref().unwrap_or_default();
            (
                facts.namespace.as_str(),
                facts.name.as_str(),
                facts.uid.as_str(),
                container,
                facts.restart_count,
            )
        });
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn links() {
        check(
            "cart-1_shop_web",
            "/var/log/pods/shop_cart-1_12-34/web/3.log",
            Some(("shop", "cart-1", "12-34", "web", Some(3))),
        );
        check("cart-1_shop_web", "/elsewhere", Some(("shop", "cart-1", "", "web", None)));
        check("cart-1_shop", "/var/log/pods/shop_cart-1_12-34/web/3.log", None);
        check("cart-1_shop_web_x", "", None);
        check("__", "", None);
    }

    #[test]
    fn by_the_containers_id() {
        let root = tempfile::tempdir().expect("a directory");
        let folder = root.path().join("var/log/containers");
        std::fs::create_dir_all(&folder).expect("made");
        let link = |id: &str, name: &str| {
            let target = format!("/var/log/pods/shop_{name}_12/web/0.log");
            std::os::unix::fs::symlink(target, folder.join(format!("{name}_shop_web-{id}.log")))
                .expect("made");
        };
        link(&"a".repeat(64), "cart");
        link(&"b".repeat(64), "till");
        std::fs::write(folder.join("notes.txt"), "").expect("written");
        let links = Links::read(&["/nowhere".into(), root.path().to_owned()]);
        let name = |id: &str| links.facts_of(id).map(|facts| facts.name);
        assert_eq!(name(&"b".repeat(64)).as_deref(), Some("till"));
        assert_eq!(name(&"c".repeat(64)), None);
    }
}
