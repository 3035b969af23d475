//! Names in a real cluster: the one that `KUBECONFIG` names, of which this machine is a node.
//!
//! `KANSOKU_TEST_NODE` is the node's name there if that is not the host's, `KANSOKU_TEST_IMAGE` an image with a shell. The
//! same runs against the stand-in and a real containerd everywhere. Refuses: passing in silence where there is no cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::api_server::{ApiServer, NODE};
use tests::certificates::Authority;
use tests::cri::{Containerd, IMAGE, PodSpec};
use tests::kubectl::Namespace;
use tests::pods::{start_on, stop};
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::resources;

/// A cluster, and what stands for what it lacks.
struct Cluster<'a> {
    kubeconfig: &'a Path,
    node: &'a str,
    image: &'a str,
    /// More settings of the agent.
    settings: &'a [&'a str],
    /// Runs a pod where no kubelet does.
    kubelet: &'a dyn Fn(&Value),
}

#[test]
fn in_the_cluster_of_kubeconfig() {
    let Some(kubeconfig) = std::env::var_os("KUBECONFIG") else {
        return println!("skipped: KUBECONFIG names no cluster");
    };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("proc(5)");
    let node = std::env::var("KANSOKU_TEST_NODE").unwrap_or_else(|_| hostname.trim().to_lowercase());
    let image = std::env::var("KANSOKU_TEST_IMAGE").unwrap_or_else(|_| "busybox:1.36".to_owned());
    let kubeconfig = Path::new(&kubeconfig);
    check(&Cluster { kubeconfig, node: &node, image: &image, settings: &[], kubelet: &|_| {} });
}

#[test]
fn in_the_stand_in() {
    let directory = TempDir::new().expect("a temporary directory");
    // By TLS: kubectl sends no token without.
    let authority = Authority::make(directory.path());
    authority.issue("20200101000000Z", "20990102000000Z");
    let (certificate, key) = authority.server_files();
    let (api, address) = ApiServer::start_with_tls(directory.path(), &certificate, &key);
    let containerd = Containerd::start(directory.path());
    let setting = api.setting_by_tls(address, &authority.certificate());
    let (_, kubeconfig) = setting.split_once('=').expect("a setting");
    let kubelet = |pod: &Value| {
        let text = |key: &str| pod["metadata"][key].as_str().expect("a text").to_owned();
        let (namespace, name, uid) = (text("namespace"), text("name"), text("uid"));
        let cgroup = format!("/kubepods/besteffort/pod{uid}");
        let spec = PodSpec {
            namespace: &namespace,
            name: &name,
            uid: &uid,
            cgroup: &cgroup,
            labels: &[],
            annotations: &[],
        };
        let command: Vec<&str> = pod["spec"]["containers"][0]["command"]
            .as_array()
            .expect("a command")
            .iter()
            .map(|word| word.as_str().expect("a word"))
            .collect();
        let id = containerd.container(&containerd.pod(&spec), "c", 0, &command);
        let mut running = pod.clone();
        running["status"] = json!({"phase": "Running", "containerStatuses": [{
            "name": "c", "containerID": format!("containerd://{id}"), "image": IMAGE, "restartCount": 0,
        }]});
        api.put(&running);
    };
    let settings = [&*containerd.setting()];
    let kubeconfig = Path::new(kubeconfig);
    check(&Cluster { kubeconfig, node: NODE, image: IMAGE, settings: &settings, kubelet: &kubelet });
}

/// Makes a namespace and a pod there, and looks for its names on what the agent says of it.
fn check(cluster: &Cluster) {
    let namespace = Namespace::make(cluster.kubeconfig);
    let pod = namespace.create_pod(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "spinning", "labels": {"app.kubernetes.io/name": "till", "tier": "shop"}},
        "spec": {
            "nodeName": cluster.node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "c",
                "image": cluster.image,
                "command": ["/bin/sh", "-c", "while true; do :; done"],
                "resources": {"limits": {"cpu": "500m", "memory": "32Mi"}},
            }],
        },
    }));
    (cluster.kubelet)(&pod);
    let running = namespace.wait_until_it_runs("spinning");
    let id = running["status"]["containerStatuses"][0]["containerID"].as_str().expect("an id");
    let id = id.rsplit_once("://").map_or(id, |(_, id)| id);

    let directory = TempDir::new().expect("a temporary directory");
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let kubeconfig = format!("kubernetes.kubeconfig={}", cluster.kubeconfig.display());
    let settings = [&[&*kubeconfig, "kubernetes.labels=tier"], cluster.settings].concat();
    let agent = start_on(cluster.node, directory.path(), &receiver, &settings);
    std::thread::sleep(Duration::from_secs(5));
    stop(agent);

    let found = resources::of_containers(&receiver);
    for signal in ["profiles", "metrics"] {
        let of_signal = found.get(&(id.to_owned(), signal)).unwrap_or_else(|| panic!("no {signal} of {id}"));
        assert_eq!(of_signal.len(), 1, "{of_signal:#?}");
        let resource = of_signal.first().expect("one");
        let expected = [
            ("k8s.namespace.name", namespace.name()),
            ("k8s.pod.name", "spinning"),
            ("k8s.pod.uid", running["metadata"]["uid"].as_str().expect("a uid")),
            ("k8s.container.name", "c"),
            ("k8s.node.name", cluster.node),
            ("k8s.pod.label.tier", "shop"),
            ("service.name", "till"),
            ("service.namespace", namespace.name()),
        ];
        let found: BTreeSet<(&str, &str)> =
            resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        for pair in expected {
            assert!(found.contains(&pair), "{signal}: no {pair:?} in {resource:#?}");
        }
    }
}
