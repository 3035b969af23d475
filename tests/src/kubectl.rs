//! A cluster as `kubectl` reaches it: a real one, or the stand-in.
//!
//! Paths are asked as they are, which needs no discovery. Refuses: what it did not make. A namespace goes with its handle.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tools;

/// How long a pod may take until it runs: an image may have to come from far away.
const START_MAX: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(200);

/// A namespace of the test's own.
pub struct Namespace {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    name: String,
}

impl Namespace {
    /// Makes it in the cluster that a kubeconfig names.
    pub fn make(kubeconfig: &Path) -> Self {
        let kubectl = tools::require("kubectl", "kubernetes-client, or run `cargo xtask setup`");
        let name = format!("kansoku-test-{}", std::process::id());
        let namespace = Self { kubectl, kubeconfig: kubeconfig.to_owned(), name };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}});
        namespace.create("/api/v1/namespaces", &object);
        namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a pod in it; the answer is what the server has.
    pub fn create_pod(&self, pod: &Value) -> Value {
        self.create(&format!("/api/v1/namespaces/{}/pods", self.name), pod)
    }

    /// Waits until a pod runs and has its containers' ids.
    pub fn wait_until_it_runs(&self, pod: &str) -> Value {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", self.name);
        let deadline = Instant::now() + START_MAX;
        loop {
            let found: Value = serde_json::from_str(&self.kubectl(&["get", "--raw", &path])).expect("JSON");
            let status = &found["status"];
            if status["phase"] == "Running" && status["containerStatuses"][0]["containerID"].is_string() {
                return found;
            }
            assert!(Instant::now() < deadline, "{pod} does not run: {status:#}");
            std::thread::sleep(POLL);
        }
    }

    fn create(&self, path: &str, object: &Value) -> Value {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        tools::write_file(file.path(), object.to_string().as_bytes());
        let file = file.path().to_str().expect("UTF-8");
        serde_json::from_str(&self.kubectl(&["create", "--raw", path, "--filename", file])).expect("JSON")
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let mut kubectl = Command::new(&self.kubectl);
        let output = tools::succeed(kubectl.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let path = format!("/api/v1/namespaces/{}", self.name);
        let mut kubectl = Command::new(&self.kubectl);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig).args(["delete", "--raw", &path]);
        if !kubectl.output().is_ok_and(|output| output.status.success()) {
            eprintln!("the namespace {} is left behind", self.name);
        }
    }
}
