//! Reads a container id or a systemd service out of the path of a cgroup.
//!
//! Knows containerd, CRI-O, Docker and Podman under the systemd and cgroupfs drivers, on v1 and v2. Nested
//! containers: the last id wins. Refuses: ids of other lengths than the runtimes make (64 hexadecimal digits).

use super::Key;

/// Digits of a container id.
const ID_DIGITS: usize = 64;

/// What the kubelet calls the cgroup above all pods, whatever stands before it.
const KUBERNETES: &str = "kubepods";

/// What the path of a cgroup says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupName {
    /// The container.
    pub container: Option<Container>,
    /// The systemd service, unescaped, with its suffix.
    pub unit: Option<String>,
    /// The container's pod.
    pub pod: Option<PodPlace>,
}

/// The place of a container in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    /// The pod's uid on this node.
    pub uid: String,
    /// The pod's own container. Another one than the container itself where that runs inside of it.
    pub container_id: String,
}

/// The uid of the pod whose cgroup this is; `None` if the path is no pod's own. The systemd driver writes underscores
/// for dashes.
pub fn pod_uid(path: &str) -> Option<String> {
    segment_uid(path.rsplit('/').next()?).filter(|_| path.contains(KUBERNETES))
}

/// A segment that names a pod: `pod<uid>`, or `<prefix>-pod<uid>.slice`.
fn segment_uid(segment: &str) -> Option<String> {
    let uid = match segment.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => segment.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

/// A container as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// The id, 64 hexadecimal digits.
    pub id: String,
    /// The runtime, where the path tells.
    pub runtime: Option<Runtime>,
}

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd, by CRI or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Runtime {
    /// The name in `container.runtime.name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

impl CgroupName {
    /// What makes its owner one; `None` if it is neither a container's nor a service's.
    pub fn key(&self) -> Option<Key> {
        match (&self.container, &self.unit) {
            (Some(container), _) => Some(Key::Container(container.id.clone())),
            (None, Some(unit)) => Some(Key::Unit(unit.clone())),
            (None, None) => None,
        }
    }

    /// Parses a path such as `/system.slice/docker-<id>.scope`.
    pub fn parse(path: &str) -> Self {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let container = (0..segments.len()).rev().find_map(|index| {
            let parent = index.checked_sub(1).map(|parent| segments[parent]);
            container(segments[index], parent)
        });
        let unit = match container {
            Some(_) => None,
            None => {
                segments.iter().rev().find(|segment| segment.ends_with(".service")).map(|unit| unescape(unit))
            }
        };
        let pod = container.as_ref().filter(|_| path.contains(KUBERNETES)).and_then(|inner| {
            let uid = path.split(['/', ':']).find_map(segment_uid)?;
            let outer = segments.iter().find_map(|segment| self::container(segment, None));
            Some(PodPlace { uid, container_id: outer.map_or_else(|| inner.id.clone(), |outer| outer.id) })
        });
        Self { container, unit, pod }
    }

    /// Whether the path named anything.
    pub fn tells_something(&self) -> bool {
        self.container.is_some() || self.unit.is_some()
    }
}

/// A segment that names a container: `<id>`, `<prefix>-<id>.scope`, or `<slice>:<prefix>:<id>`.
fn container(segment: &str, parent: Option<&str>) -> Option<Container> {
    let bare = segment.strip_suffix(".scope").unwrap_or(segment);
    let (prefix, id) = match bare.rsplit_once([':', '-']) {
        Some((prefix, id)) => (prefix.rsplit(':').next().unwrap_or(prefix), id),
        None => ("", bare),
    };
    let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id || prefix.ends_with("conmon") {
        return None;
    }
    let runtime = runtime(prefix).or_else(|| parent.and_then(runtime));
    Some(Container { id: id.to_ascii_lowercase(), runtime })
}

fn runtime(word: &str) -> Option<Runtime> {
    match word {
        "cri-containerd" | "nerdctl" | "k8s.io" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" | "libpod_parent" => Some(Runtime::Podman),
        _ => None,
    }
}

/// Undoes systemd's escaping of unit names: `\x2d` for `-`.
fn unescape(unit: &str) -> String {
    let mut text = String::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        text.push_str(before);
        match byte {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                text.push_str("\\x");
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

    /// `{A}` and `{B}` in the path stand for container ids.
    fn check(
        path: &str,
        expected_id: Option<&str>,
        expected_runtime: Option<Runtime>,
        expected_unit: Option<&str>,
    ) {
        let name = CgroupName::parse(&path.replace("{A}", A).replace("{B}", B));
        let (id, runtime) = match &name.container {
            Some(container) => (Some(container.id.as_str()), container.runtime),
            None => (None, None),
        };
        assert_eq!(
            (id, runtime, name.unit.as_deref()),
            (expected_id, expected_runtime, expected_unit),
            "{path}"
        );
    }

    #[test]
    fn containers() {
        use Runtime::{Containerd, CriO, Docker, Podman};
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice";
        check(&format!("{pod}/cri-containerd-{{A}}.scope"), Some(A), Some(Containerd), None);
        check(&format!("{pod}/crio-{{A}}.scope"), Some(A), Some(CriO), None);
        check(&format!("{pod}/crio-{{A}}.scope/container"), Some(A), Some(CriO), None);
        check(&format!("{pod}/crio-conmon-{{A}}.scope"), None, None, None);
        check(&format!("{pod}/docker-{{A}}.scope"), Some(A), Some(Docker), None);
        check("/kubepods/besteffort/pod12-34/{A}", Some(A), None, None);
        check("/kubepods-besteffort-pod12.slice:cri-containerd:{A}", Some(A), Some(Containerd), None);
        check("/k8s.io/{A}", Some(A), Some(Containerd), None);
        check("/docker/{A}", Some(A), Some(Docker), None);
        check("/system.slice/docker-{A}.scope", Some(A), Some(Docker), None);
        check("/machine.slice/libpod-{A}.scope/container", Some(A), Some(Podman), None);
        check("/libpod_parent/libpod-{A}", Some(A), Some(Podman), None);
        check("/libpod_parent/{A}", Some(A), Some(Podman), None);
        check("/machine.slice/libpod-conmon-{A}.scope", None, None, None);
        // Docker in a Kubernetes pod: the last id wins.
        check(&format!("{pod}/cri-containerd-{{A}}.scope/docker/{{B}}"), Some(B), Some(Docker), None);
        // Seen from a private cgroup namespace.
        check("/../../kubepods/besteffort/pod12-34/{A}", Some(A), None, None);
        // A service inside a container belongs to the container.
        check("/docker/{A}/system.slice/nginx.service", Some(A), Some(Docker), None);
    }

    proptest::proptest! {
        #[test]
        fn any_path(path in ".{0,200}") {
            CgroupName::parse(&path);
            CgroupName::parse(&format!("/{path}\\x2d{path}.service"));
        }
    }

    #[test]
    fn pods() {
        let check = |path: &str, expected: Option<(&str, &str)>| {
            let name = CgroupName::parse(&path.replace("{A}", A).replace("{B}", B));
            let found = name.pod.as_ref().map(|pod| (pod.uid.as_str(), pod.container_id.as_str()));
            assert_eq!(found, expected, "{path}");
        };
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice";
        check(&format!("{pod}/cri-containerd-{{A}}.scope"), Some(("12-34", A)));
        check(&format!("{pod}/cri-containerd-{{A}}.scope/docker/{{B}}"), Some(("12-34", A)));
        check("/kubepods/besteffort/pod12-34/{A}", Some(("12-34", A)));
        check("/kubepods-besteffort-pod12.slice:cri-containerd:{A}", Some(("12", A)));
        check("/kubelet.slice/kubepods/podabc/{A}", Some(("abc", A)));
        check("/kubepods/besteffort/pod12-34", None);
        check("/podman/pod12-34/{A}", None);
        check("/docker/{A}", None);
    }

    #[test]
    fn units_and_nothing() {
        check("/", None, None, None);
        check("", None, None, None);
        check("/system.slice/nginx.service", None, None, Some("nginx.service"));
        check("/system.slice/system-getty.slice/getty@tty1.service", None, None, Some("getty@tty1.service"));
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db.service",
            None,
            None,
            Some("app-a-b.service"),
        );
        check("/system.slice/odd\\x", None, None, None);
        check("/system.slice/odd\\xzz.service", None, None, Some("odd\\xzz.service"));
        check("/user.slice/user-1000.slice/session-1.scope", None, None, None);
        check("/docker/0123456789abcdef", None, None, None);
        check(&format!("/docker/{}g", &A[..63]), None, None, None);
    }
}
