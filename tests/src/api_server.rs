//! An API server's stand-in that speaks list and watch, and is told what pods there are and what goes wrong.
//!
//! Refuses: schemas; what is written is kept as it is. A real cluster's is asked where `KUBECONFIG` names one; see the tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::daemon::{Daemon, Launch};
use crate::receiver::free_address;
use crate::workload::{source, utf8};
use crate::{http, tools};

/// The node whose pods there are.
pub const NODE: &str = "node-1";

/// A running server.
pub struct ApiServer {
    address: SocketAddr,
    directory: PathBuf,
    _server: Daemon,
}

impl ApiServer {
    /// Starts it without pods, with its token and kubeconfig in a directory.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// Starts it with TLS beside, by a certificate and a key that may change; see [`Self::setting_by_tls`].
    pub fn start_with_tls(directory: &Path, certificate: &Path, key: &Path) -> (Self, SocketAddr) {
        let address = free_address();
        let port = address.port().to_string();
        (Self::start_with(directory, &[&port, utf8(certificate), utf8(key)]), address)
    }

    fn start_with(directory: &Path, more: &[&str]) -> Self {
        let address = free_address();
        let token = directory.join("token");
        tools::write_file(&token, b"first");
        let port = address.port().to_string();
        let script = source("api_server.py");
        let arguments = [&[utf8(&script), &port, utf8(&token)], more].concat();
        let log = directory.join("api_server.log");
        let launch = Launch::plain(&log);
        let mut server = Daemon::start(Path::new("/usr/bin/python3"), &arguments, launch);
        server.wait_until("the API server", || http::get(address, "/control", &[]).is_ok());
        Self { address, directory: directory.to_owned(), _server: server }
    }

    /// What leads the agent here.
    pub fn setting(&self) -> String {
        self.kubeconfig("kubeconfig", "")
    }

    /// What leads an agent here under a name, so that it can be told from others: see `partition` in `api_server.py`.
    pub fn setting_as(&self, name: &str) -> String {
        self.kubeconfig(&format!("kubeconfig-{name}"), &format!("/as/{name}"))
    }

    /// What leads the agent here by TLS, if the server's certificate is of this authority.
    pub fn setting_by_tls(&self, address: SocketAddr, authority: &Path) -> String {
        let cluster = json!({"server": format!("https://{address}"), "certificate-authority": authority});
        self.kubeconfig_of("kubeconfig-tls", &cluster)
    }

    /// Replaces the token: the one before is good for nothing from now on.
    pub fn rotate_token(&self, token: &str) {
        tools::write_file(&self.directory.join("token"), token.as_bytes());
    }

    fn kubeconfig(&self, file: &str, below: &str) -> String {
        self.kubeconfig_of(file, &json!({"server": format!("http://{}{below}", self.address)}))
    }

    fn kubeconfig_of(&self, file: &str, cluster: &Value) -> String {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"tokenFile": self.directory.join("token")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        let path = self.directory.join(file);
        tools::write_file(&path, kubeconfig.to_string().as_bytes());
        format!("kubernetes.kubeconfig={}", utf8(&path))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds or replaces an object of a collection such as `/apis/apps/v1/deployments`.
    pub fn put_at(&self, collection: &str, object: &Value) {
        self.control(&json!({ "at": collection, "put": object }));
    }

    /// Adds or replaces a pod.
    pub fn put(&self, pod: &Value) {
        self.control(&json!({ "put": pod }));
    }

    /// Does something to the server; see `api_server.py`.
    pub fn control(&self, order: &Value) {
        let answer = http::post(self.address, "/control", &[], order.to_string());
        answer.expect("the API server answers").expect_success();
    }

    /// How often it was asked for `lists`, `watches`, or was `unauthorized`.
    pub fn count(&self, what: &str) -> u64 {
        let answer = http::get(self.address, "/control", &[]).expect("the API server answers");
        let counts: Value = serde_json::from_slice(&answer.body).expect("JSON");
        counts[what].as_u64().unwrap_or_else(|| panic!("no {what} in {counts}"))
    }
}
