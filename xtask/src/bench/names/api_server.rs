//! The API server's stand-in of the tests, with a node's pods and a cluster around it.
//!
//! Refuses: objects that are smaller than usual ones.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::children::Guarded;
use super::super::interrupt::pause;
use super::super::io::{container_name, pod_name};
use super::super::setup::Bench;
use super::super::tools::stdout_of;

/// The node of the agent.
pub const NODE: &str = "node-1";

/// Pods of other nodes.
pub const PEER_PODS: usize = 8_000;

pub const SERVICES: usize = 2_000;

/// Numbers of Services are far from those of pods: addresses follow from them.
const FIRST_SERVICE: usize = 1_000_000;

const START_TIME_MAX: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(100);

/// A running server.
pub struct ApiServer {
    _process: Guarded,
    port: u16,
    order: std::path::PathBuf,
    kubeconfig: std::path::PathBuf,
    own_pods: usize,
    /// How often something changed.
    changes: usize,
}

impl ApiServer {
    /// With so many pods of this node, in the cgroups of [`super::super::io::Kubepods`].
    pub fn start(bench: &Bench, own_pods: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        let port = listener.local_addr().context("read the port")?.port();
        drop(listener);
        let (token, kubeconfig) = (bench.file("token"), bench.file("kubeconfig"));
        write(&token, "bench")?;
        write(&kubeconfig, &config(port, &token).to_string())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/workloads/api_server.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(port.to_string()).arg(&token).stdin(Stdio::null());
        let process = Guarded::start("the API server's stand-in", &mut command)?;
        let mut server =
            Self { _process: process, port, order: bench.file("order"), kubeconfig, own_pods, changes: 0 };
        server.wait_until_it_answers()?;
        server.tell(&json!({"put": peer("{n}"), "copies": [1, PEER_PODS]}))?;
        let services = [FIRST_SERVICE, FIRST_SERVICE + SERVICES - 1];
        server.tell(&json!({"at": "/api/v1/services", "put": service(), "copies": services}))?;
        for index in 0..own_pods {
            server.tell(&json!({ "put": own_pod(index, 0) }))?;
        }
        Ok(server)
    }

    /// What leads the agent here.
    pub fn setting(&self) -> String {
        format!("kubernetes.kubeconfig={}", self.kubeconfig.display())
    }

    /// Bytes of a pod as the server sends it.
    pub fn pod_bytes(&self) -> usize {
        own_pod(0, 0).to_string().len()
    }

    /// A peer goes, another comes, and one of this node's pods has another status.
    pub fn change(&mut self) -> Result<()> {
        self.changes += 1;
        let number = PEER_PODS + self.changes;
        self.tell(&json!({
            "delete": format!("shop-{}/peer-{}", self.changes % 10, self.changes),
            "put": peer("{n}"), "copies": [number, number],
        }))?;
        self.tell(&json!({ "put": own_pod(self.changes % self.own_pods, self.changes) }))
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let end = Instant::now() + START_TIME_MAX;
        while self.tell(&json!({})).is_err() {
            if Instant::now() >= end {
                bail!("the API server's stand-in does not answer");
            }
            pause(POLL)?;
        }
        Ok(())
    }

    fn tell(&mut self, order: &Value) -> Result<()> {
        write(&self.order, &order.to_string())?;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "120", "--data-binary"]);
        curl.arg(format!("@{}", self.order.display()));
        stdout_of(curl.arg(format!("http://127.0.0.1:{}/control", self.port))).map(drop)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn config(port: u16, token: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bench", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "bench", "user": {"tokenFile": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "current-context": "bench",
    })
}

/// A pod of another node, as a template. Ten namespaces; the number's last digit tells which.
fn peer(number: &str) -> Value {
    let mut pod = pod(&format!("peer-{number}"), "{uid}", "containerd://none", 0);
    pod["spec"]["nodeName"] = "node-2".into();
    pod["status"]["podIP"] = "{ip}".into();
    pod["status"]["podIPs"] = json!([{"ip": "{ip}"}]);
    pod["metadata"]["namespace"] = "shop-{digit}".into();
    pod
}

fn service() -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": "service-{n}", "uid": "{uid}", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "service-{n}", "app.kubernetes.io/managed-by": "Helm"},
            "managedFields": managed_fields(10),
        },
        "spec": {
            "clusterIP": "{ip}", "clusterIPs": ["{ip}"], "type": "ClusterIP", "selector": {"app": "service-{n}"},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// A pod of this node after so many changes.
fn own_pod(index: usize, changes: usize) -> Value {
    let uid = pod_name(index);
    let uid = uid.trim_start_matches("pod");
    pod(
        &format!("own-7d9c5b4f6d-{index:05}"),
        uid,
        &format!("containerd://{}", container_name(index)),
        changes,
    )
}

/// A pod of the usual size: two thirds are fields that nobody reads.
fn pod(name: &str, uid: &str, container_id: &str, changes: usize) -> Value {
    let environment: Vec<Value> = (0..20)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("http://service-{number}.shop:8080/path")}))
        .collect();
    let label = |number: usize| (format!("example.org/label-{number}"), json!(format!("value-{number}")));
    let mut labels: serde_json::Map<String, Value> = (0..5).map(label).collect();
    labels.insert("pod-template-hash".to_owned(), "7d9c5b4f6d".into());
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
            "annotations": {
                "checksum/config": "5f16a4c1f3e0c0a9d1b8b1d1e6f6c0b7e4a2d3c4b5a697887766554433221100",
                "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "own-7d9c5b4f6d",
                "uid": "00000000-0000-4000-8000-000000000001", "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": managed_fields(30),
        },
        "spec": {
            "nodeName": NODE,
            "serviceAccountName": "default",
            "containers": [{
                "name": "web", "image": "registry.example/shop/web:1.2.3", "env": environment,
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            }],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": (0..5).map(|number| json!({
                "type": format!("Condition{number}"), "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            })).collect::<Vec<_>>(),
            "containerStatuses": [{
                "name": "web", "containerID": container_id, "image": "registry.example/shop/web:1.2.3",
                "imageID": "registry.example/shop/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "ready": true, "restartCount": changes,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        },
    })
}

/// Who set which field: on most objects more than all the rest.
fn managed_fields(fields: usize) -> Value {
    let fields: serde_json::Map<String, Value> =
        (0..fields).map(|number| (format!("f:field-{number}"), json!({".": {}, "f:value": {}}))).collect();
    let manager = |name: &str| {
        json!({
            "manager": name, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": fields, "f:spec": fields},
        })
    };
    json!([manager("kube-controller-manager"), manager("kubelet")])
}
