//! The pod of a container, from the bundle that its runtime keeps on the node while it runs: containerd's and CRI-O's
//! OCI `config.json`, dockerd's `config.v2.json`.
//!
//! Refuses: any API or socket, writing, files that are not regular or over `BUNDLE_BYTES_MAX`, and names that
//! Kubernetes would not allow. What is missing or odd gives no pod: bundles of containers outside Kubernetes are normal.
//!
//! Sources: containerd `internal/cri/annotations`, CRI-O `pkg/annotations`, cri-dockerd `core/docker_service.go`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::Facts;

/// Bytes of a bundle's file; beyond, there is no pod. Real ones have some 10 KiB.
pub const BUNDLE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a container's id; containerd's own limit is 76.
const ID_BYTES_MAX: usize = 128;
/// Bytes of a DNS-1123 label: a namespace's or a container's name.
const LABEL_BYTES_MAX: usize = 63;
/// Bytes of a DNS-1123 subdomain: a pod's name.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// Bytes of a pod's uid: a UUID, or 32 hexadecimal digits of a static pod.
const UID_BYTES_MAX: usize = 64;
/// Bytes of an image's name; longer ones are left out.
const IMAGE_BYTES_MAX: usize = 1024;

/// Where the containerds of the usual distributions keep the bundles of running tasks, below the root.
const CONTAINERD_STATES: [&str; 4] =
    ["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"];
/// containerd's namespaces: the kubelet's, the command line's and dockerd's.
const CONTAINERD_NAMESPACES: [&str; 3] = ["k8s.io", "default", "moby"];
/// Where CRI-O keeps them: the run root, and the graph root on nodes that share both.
const CRI_O_STATES: [&str; 2] = ["run/containers/storage", "var/lib/containers/storage"];

/// What the bundles say of the pod of the container `container_id`: those below `root` (`/`, or where a containerised agent has the
/// node's root, such as `/host`). `None` if no bundle is there, or none that names a pod.
///
/// The sandbox (pause) container of a pod has an empty container name (`""`) and no image.
///
/// Paths are resolved in `root` by `openat2(2)` (kernel 5.6): links, absolute ones too, cannot lead out of it.
pub fn facts_of(container_id: &str, root: &Path) -> Option<Facts> {
    if !is_id(container_id) {
        return None;
    }
    let root =
        rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let containerd = CONTAINERD_STATES.iter().flat_map(|state| {
        CONTAINERD_NAMESPACES.iter().map(move |namespace| {
            format!("{state}/io.containerd.runtime.v2.task/{namespace}/{container_id}/config.json")
        })
    });
    let cri_o = CRI_O_STATES
        .iter()
        .map(|state| format!("{state}/overlay-containers/{container_id}/userdata/config.json"));
    if let Some(json) = containerd.chain(cri_o).find_map(|path| read(&root, &path)) {
        return of_oci(&json);
    }
    of_docker(&read(&root, &format!("var/lib/docker/containers/{container_id}/config.v2.json"))?)
}

/// An OCI runtime configuration, of which only the annotations matter.
#[derive(Deserialize)]
struct Oci {
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(flatten)]
    containerd: ContainerdNames,
    #[serde(flatten)]
    cri_o: CriONames,
    #[serde(flatten)]
    kubelet: KubeletNames,
}

#[derive(Deserialize)]
struct ContainerdNames {
    #[serde(rename = "io.kubernetes.cri.container-type")]
    container_type: Option<String>,
    #[serde(rename = "io.kubernetes.cri.container-name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-name")]
    name: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-namespace")]
    namespace: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-uid")]
    uid: Option<String>,
    #[serde(rename = "io.kubernetes.cri.image-name")]
    image: Option<String>,
}

#[derive(Deserialize)]
struct CriONames {
    #[serde(rename = "io.kubernetes.cri-o.ContainerType")]
    container_type: Option<String>,
    #[serde(rename = "io.kubernetes.cri-o.ImageName")]
    image: Option<String>,
    /// The kubelet's labels as a JSON object in a string.
    #[serde(rename = "io.kubernetes.cri-o.Labels")]
    labels: Option<String>,
}

/// What the kubelet puts on each container; CRI-O copies it to the annotations, cri-dockerd to the labels.
#[derive(Deserialize)]
struct KubeletNames {
    #[serde(rename = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.pod.name")]
    name: Option<String>,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: Option<String>,
    #[serde(rename = "io.kubernetes.pod.uid")]
    uid: Option<String>,
    #[serde(rename = "io.kubernetes.docker.type")]
    docker_type: Option<String>,
}

/// dockerd's record of a container.
#[derive(Deserialize)]
struct Docker {
    #[serde(rename = "Config")]
    config: DockerConfig,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "Image")]
    image: Option<String>,
    #[serde(rename = "Labels")]
    labels: Option<KubeletNames>,
}

fn of_oci(json: &[u8]) -> Option<Facts> {
    let Annotations { containerd, cri_o, kubelet } = serde_json::from_slice::<Oci>(json).ok()?.annotations?;
    if let Some(container_type) = &containerd.container_type {
        let container = container_name(container_type, "sandbox", containerd.container)?;
        return pod(containerd.namespace?, containerd.name?, containerd.uid?, container, containerd.image);
    }
    let container_type = cri_o.container_type?;
    // Which of the two it has depends on CRI-O's version and on the container's type.
    let names = match &kubelet.uid {
        Some(_) => kubelet,
        None => serde_json::from_str(&cri_o.labels?).ok()?,
    };
    let container = container_name(&container_type, "sandbox", names.container)?;
    pod(names.namespace?, names.name?, names.uid?, container, cri_o.image)
}

fn of_docker(json: &[u8]) -> Option<Facts> {
    let config = serde_json::from_slice::<Docker>(json).ok()?.config;
    let names = config.labels?;
    let container = container_name(&names.docker_type?, "podsandbox", names.container)?;
    pod(names.namespace?, names.name?, names.uid?, container, config.image)
}

/// The container's name, empty for a sandbox; `None` for what is neither or has no name.
fn container_name(container_type: &str, sandbox: &str, name: Option<String>) -> Option<String> {
    match container_type {
        "container" => name.filter(|name| is_label(name)),
        other if other == sandbox => Some(String::new()),
        _ => None,
    }
}

fn pod(
    namespace: String,
    name: String,
    uid: String,
    container: String,
    image: Option<String>,
) -> Option<Facts> {
    if !is_label(&namespace) || !is_subdomain(&name) || !is_uid(&uid) {
        return None;
    }
    let image = image.filter(|image| !container.is_empty() && is_image(image));
    Some(Facts { namespace, name, uid, container: Some(container), image, ..Facts::default() })
}

/// The content of a regular file below `root`; `None` if it is anything else, or too long.
fn read(root: &impl std::os::fd::AsFd, path: &str) -> Option<Vec<u8>> {
    // A fifo in the file's place must not hold us up, hence NONBLOCK.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()?);
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > BUNDLE_BYTES_MAX {
        return None;
    }
    let mut content = Vec::new();
    file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut content).ok()?;
    (content.len() as u64 <= BUNDLE_BYTES_MAX).then_some(content)
}

/// Whether it can be a container's id, and so one part of a path: containerd's `identifiers` package.
fn is_id(id: &str) -> bool {
    id.len() <= ID_BYTES_MAX
        && id
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// RFC 1123 label as Kubernetes has it.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123 subdomain as Kubernetes has it: its parts may be as long as the whole.
fn is_subdomain(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= SUBDOMAIN_BYTES_MAX
        && text.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        })
}

fn is_uid(text: &str) -> bool {
    (1..=UID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// An image by its name. The bare digest that cri-dockerd passes is none.
fn is_image(text: &str) -> bool {
    (1..=IMAGE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.starts_with("sha256:")
}

#[cfg(test)]
mod tests;
