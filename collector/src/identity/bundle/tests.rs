//! Bundles of each runtime as they stand on nodes, cut to what matters, and hostile ones.

use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

const ID: &str = "3f4ebfc3b6ca8ea4b9bf0d2a9a28c6a4ea2ed9e1c7d20d7c2a0ff7a9f9a3f001";
const UID: &str = "8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11";

const CONTAINERD: &str = r#"{"ociVersion":"1.1.0","process":{"user":{"uid":0,"gid":0},"args":["/app"],"env":["A=\"b\""]},
"root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
"annotations":{"io.kubernetes.cri.container-name":"server","io.kubernetes.cri.container-type":"container",
"io.kubernetes.cri.image-name":"ghcr.io/acme/shop:1.2","io.kubernetes.cri.sandbox-id":"aa","io.kubernetes.cri.sandbox-name":"shop-7d9c-x2.a",
"io.kubernetes.cri.sandbox-namespace":"prod","io.kubernetes.cri.sandbox-uid":"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11"},
"linux":{"cgroupsPath":"kubepods.slice:cri-containerd:3f4e"}}"#;

const CONTAINERD_SANDBOX: &str = r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox",
"io.kubernetes.cri.sandbox-cpu-period":"100000","io.kubernetes.cri.sandbox-id":"aa",
"io.kubernetes.cri.sandbox-log-directory":"/var/log/pods/prod_shop","io.kubernetes.cri.sandbox-name":"shop-7d9c-x2.a",
"io.kubernetes.cri.sandbox-namespace":"prod","io.kubernetes.cri.sandbox-uid":"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11"}}"#;

const CRI_O: &str = r#"{"ociVersion":"1.0.2","annotations":{"io.container.manager":"cri-o",
"io.kubernetes.container.hash":"af","io.kubernetes.container.name":"server","io.kubernetes.container.restartCount":"0",
"io.kubernetes.cri-o.ContainerName":"k8s_server_shop_prod_8b3f_0","io.kubernetes.cri-o.ContainerType":"container",
"io.kubernetes.cri-o.ImageName":"ghcr.io/acme/shop:1.2","io.kubernetes.pod.name":"shop-7d9c-x2.a",
"io.kubernetes.pod.namespace":"prod","io.kubernetes.pod.uid":"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11"}}"#;

const CRI_O_LABELS: &str = r#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"container",
"io.kubernetes.cri-o.ImageName":"ghcr.io/acme/shop:1.2",
"io.kubernetes.cri-o.Labels":"{\"io.kubernetes.container.name\":\"server\",\"io.kubernetes.pod.name\":\"shop-7d9c-x2.a\",\"io.kubernetes.pod.namespace\":\"prod\",\"io.kubernetes.pod.uid\":\"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11\"}"}}"#;

const CRI_O_SANDBOX: &str = r#"{"annotations":{"io.kubernetes.container.name":"POD",
"io.kubernetes.cri-o.ContainerType":"sandbox","io.kubernetes.cri-o.KubeName":"shop-7d9c-x2.a","io.kubernetes.cri-o.Namespace":"prod",
"io.kubernetes.cri-o.ImageName":"registry.k8s.io/pause:3.9","io.kubernetes.pod.name":"shop-7d9c-x2.a",
"io.kubernetes.pod.namespace":"prod","io.kubernetes.pod.uid":"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11"}}"#;

const DOCKER: &str = r#"{"StreamConfig":{},"State":{"Running":true},"ID":"3f4e","Config":{"Hostname":"shop","Image":"sha256:0a1b",
"Labels":{"annotation.io.kubernetes.container.hash":"af","io.kubernetes.container.name":"server",
"io.kubernetes.docker.type":"container","io.kubernetes.pod.name":"shop-7d9c-x2.a","io.kubernetes.pod.namespace":"prod",
"io.kubernetes.pod.uid":"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11","io.kubernetes.sandbox.id":"aa"}}}"#;

const DOCKER_SANDBOX: &str = r#"{"Config":{"Image":"registry.k8s.io/pause:3.9","Labels":{"io.kubernetes.container.name":"POD",
"io.kubernetes.docker.type":"podsandbox","io.kubernetes.pod.name":"shop-7d9c-x2.a","io.kubernetes.pod.namespace":"prod",
"io.kubernetes.pod.uid":"8b3f9a52-7f0e-4d5b-9b53-8a1f6f7f1c11"}}}"#;

const TASKS: &str = "run/containerd/io.containerd.runtime.v2.task/k8s.io/";

fn node(path: &str, content: &[u8]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    root
}

fn expected(container: &str, image: Option<&str>) -> Option<Facts> {
    Some(Facts { image: image.map(Into::into), ..Facts::of_pod("prod", "shop-7d9c-x2.a", UID, container) })
}

#[test]
fn each_runtime_names_its_pod() {
    #[track_caller]
    fn check(path: &str, content: &str, container: &str, image: Option<&str>) {
        let root = node(&path.replace("ID", ID), content.as_bytes());
        assert_eq!(facts_of(ID, root.path()), expected(container, image), "{path}");
    }
    let image = Some("ghcr.io/acme/shop:1.2");
    let task = "io.containerd.runtime.v2.task/k8s.io/ID/config.json";
    check(&format!("run/containerd/{task}"), CONTAINERD, "server", image);
    check(&format!("run/containerd/{task}"), CONTAINERD_SANDBOX, "", None);
    check(&format!("run/k3s/containerd/{task}"), CONTAINERD, "server", image);
    check(&format!("run/k0s/containerd/{task}"), CONTAINERD, "server", image);
    check(&format!("var/snap/microk8s/common/run/containerd/{task}"), CONTAINERD, "server", image);
    let userdata = "run/containers/storage/overlay-containers/ID/userdata/config.json";
    check(userdata, CRI_O, "server", image);
    check(userdata, CRI_O_LABELS, "server", image);
    check(userdata, CRI_O_SANDBOX, "", None);
    check("var/lib/docker/containers/ID/config.v2.json", DOCKER, "server", None);
    check("var/lib/docker/containers/ID/config.v2.json", DOCKER_SANDBOX, "", None);
}

#[test]
fn names_that_kubernetes_has_not_give_no_pod() {
    #[track_caller]
    fn check(from: &str, to: &str) {
        let content = CONTAINERD.replace(from, to);
        assert_ne!(content, CONTAINERD);
        let root = node(&format!("{TASKS}{ID}/config.json"), content.as_bytes());
        assert_eq!(facts_of(ID, root.path()), None, "{to}");
    }
    let quoted = |text: &str| format!("\"{text}\"");
    check("\"prod\"", "\"\"");
    check("\"prod\"", "\"Prod\"");
    check("\"prod\"", "\"a.b\"");
    check("\"prod\"", "\"-a\"");
    check("\"prod\"", "null");
    check("\"prod\"", "17");
    check("\"prod\"", &quoted(&"a".repeat(64)));
    check("\"shop-7d9c-x2.a\"", "\"a..b\"");
    check("\"shop-7d9c-x2.a\"", "\"a/../b\"");
    check("\"shop-7d9c-x2.a\"", "\"a\\nb\"");
    check("\"shop-7d9c-x2.a\"", &quoted(&"a".repeat(254)));
    check("\"server\"", "\"ser ver\"");
    check("\"server\"", "\"\"");
    check(&quoted(UID), "\"\"");
    check(&quoted(UID), "\"<script>\"");
    check("\"container\"", "\"other\"");
    check("\"annotations\"", "\"other\"");
    check("\"linux\":{", "\"linux\":");
}

#[test]
fn an_odd_image_costs_the_image_only() {
    let content = CONTAINERD.replace("ghcr.io/acme/shop:1.2", "a\\u0000b");
    let root = node(&format!("{TASKS}{ID}/config.json"), content.as_bytes());
    assert_eq!(facts_of(ID, root.path()), expected("server", None));
}

#[test]
fn ids_are_one_part_of_a_path() {
    let root = node(&format!("{TASKS}{ID}/config.json"), CONTAINERD.as_bytes());
    assert!(facts_of(ID, root.path()).is_some());
    for id in ["", ".", "..", "../k8s.io", &format!("./{ID}"), &format!("{ID}/"), "a\0b", &"a".repeat(129)] {
        assert_eq!(facts_of(id, root.path()), None, "{id:?}");
    }
    assert_eq!(facts_of(ID, Path::new("/nowhere")), None);
}

#[test]
fn only_regular_files_in_the_root_are_read() {
    let outside = node("config.json", CONTAINERD.as_bytes());
    let bundle = format!("{TASKS}{ID}");
    // The file itself is a link.
    let root = node(&format!("{bundle}/other.json"), CONTAINERD.as_bytes());
    symlink("other.json", root.path().join(&bundle).join("config.json")).unwrap();
    assert_eq!(facts_of(ID, root.path()), None);
    // The folder links out of the root, then within it.
    for (target, found) in [(outside.path().to_path_buf(), false), ("/real".into(), true)] {
        let root = node("real/config.json", CONTAINERD.as_bytes());
        std::fs::create_dir_all(root.path().join(TASKS)).unwrap();
        symlink(&target, root.path().join(&bundle)).unwrap();
        assert_eq!(facts_of(ID, root.path()).is_some(), found, "{}", target.display());
    }
    // A fifo must not block, a folder is no file, and a huge file is not read.
    let root = node(&format!("{bundle}/x"), b"");
    let path = root.path().join(&bundle).join("config.json");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(facts_of(ID, root.path()), None);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(facts_of(ID, root.path()), None);
    let fill = |bytes: usize| format!("{CONTAINERD}{}", " ".repeat(bytes - CONTAINERD.len()));
    for (bytes, found) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let root = node(&format!("{bundle}/config.json"), fill(bytes).as_bytes());
        assert_eq!(facts_of(ID, root.path()).is_some(), found, "{bytes}");
    }
}

#[test]
fn deep_json_is_refused() {
    for open in ["[", "{\"annotations\":", "{\"a\":"] {
        assert_eq!(of_oci(open.repeat(200_000).as_bytes()), None);
        assert_eq!(of_docker(open.repeat(200_000).as_bytes()), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        of_oci(&bytes);
        of_docker(&bytes);
    }

    #[test]
    fn a_changed_bundle_is_survived(position in 0..CRI_O_LABELS.len(), byte: u8) {
        let mut bytes = CRI_O_LABELS.as_bytes().to_vec();
        bytes[position] = byte;
        if let Some(pod) = of_oci(&bytes) {
            prop_assert!(is_label(&pod.namespace) && is_subdomain(&pod.name) && is_label(pod.container.as_deref().unwrap_or_default()));
        }
    }
}
