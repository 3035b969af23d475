//! Pods as the kubelet makes them: a real containerd of the test's own, through its CRI socket.
//!
//! Refuses: images from anywhere and networks of pods: they have the host's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};

use crate::daemon::{Daemon, Launch};
use crate::tools;
use crate::workload::{source, utf8};

/// The image of all containers.
pub const IMAGE: &str = "docker.io/local/box:1";

/// A containerd with its own folders. Pods that are left go with it.
pub struct Containerd {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
    sandboxes: Mutex<Vec<(String, String)>>,
    _server: Daemon,
}

/// A pod to be made.
pub struct PodSpec<'a> {
    /// `metadata.namespace`
    pub namespace: &'a str,
    /// `metadata.name`
    pub name: &'a str,
    /// `metadata.uid`
    pub uid: &'a str,
    /// The cgroup that the kubelet makes for it.
    pub cgroup: &'a str,
    /// `metadata.labels`
    pub labels: &'a [(&'a str, &'a str)],
    /// `metadata.annotations`
    pub annotations: &'a [(&'a str, &'a str)],
}

/// A pod that was made.
pub struct Pod {
    id: String,
    config: PodSandboxConfig,
}

impl Containerd {
    /// Starts it in a directory and gives it the image.
    pub fn start(directory: &Path) -> Self {
        let program = tools::require("containerd", "containerd");
        let socket = directory.join("containerd.sock");
        let configuration = directory.join("containerd.toml");
        tools::write_file(&configuration, configuration_of(directory, &socket).as_bytes());
        let log = directory.join("containerd.log");
        let launch = Launch::plain(&log);
        let mut server = Daemon::start(&program, &["--config", utf8(&configuration)], launch);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let version = || runtime.block_on(call::<_, Empty>(&socket, "Version", &Empty {}));
        server.wait_until("containerd", || version().is_ok());
        let image = directory.join("image.tar");
        let script = source("image.py");
        tools::succeed(Command::new("python3").args([utf8(&script), utf8(&image), IMAGE]));
        let containerd = Self { socket, runtime, sandboxes: Mutex::default(), _server: server };
        containerd.import(&image);
        containerd
    }

    /// Gives it another image.
    pub fn import(&self, archive: &Path) {
        let import = ["-a", utf8(&self.socket), "-n", "k8s.io", "images", "import", utf8(archive)];
        tools::succeed(Command::new("ctr").args(import));
    }

    /// Runs a command in a container of an image on the host's network, to its end; what it printed.
    pub fn run(&self, image: &str, command: &[&str]) -> String {
        let run = [
            "-a",
            utf8(&self.socket),
            "-n",
            "k8s.io",
            "run",
            "--rm",
            "--net-host",
            "--snapshotter",
            "native",
        ];
        let output =
            tools::succeed(Command::new("ctr").args(run).args([image, "kansoku-test-image"]).args(command));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What leads the agent to the socket.
    pub fn setting(&self) -> String {
        format!("kubernetes.cri_socket={}", utf8(&self.socket))
    }

    /// Makes a pod without containers.
    pub fn pod(&self, spec: &PodSpec) -> Pod {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: spec.name.to_owned(),
                uid: spec.uid.to_owned(),
                namespace: spec.namespace.to_owned(),
            }),
            labels: map(spec.labels),
            annotations: map(spec.annotations),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: spec.cgroup.to_owned(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption { network: HOST }),
                }),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let id = self.ask::<_, Id>("RunPodSandbox", &request).id;
        self.sandboxes.lock().expect("unpoisoned").push((id.clone(), spec.cgroup.to_owned()));
        Pod { id, config }
    }

    /// Starts a container in a pod and returns its id. `attempt` is how often it was started before.
    pub fn container(&self, pod: &Pod, name: &str, attempt: u32, command: &[&str]) -> String {
        let metadata = pod.config.metadata.clone().unwrap_or_default();
        let labels = [
            ("io.kubernetes.container.name", name),
            ("io.kubernetes.pod.name", &metadata.name),
            ("io.kubernetes.pod.namespace", &metadata.namespace),
            ("io.kubernetes.pod.uid", &metadata.uid),
        ];
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt }),
            image: Some(ImageSpec { image: IMAGE.to_owned() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption { network: HOST }),
                }),
            }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.ask::<_, Id>("CreateContainer", &request).id;
        self.ask::<_, Empty>("StartContainer", &Id { id: id.clone() });
        id
    }

    /// Ends a pod and all in it.
    pub fn remove(&self, pod: &Pod) {
        self.remove_sandbox(&pod.id);
    }

    fn remove_sandbox(&self, id: &str) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            // It may be gone already.
            let _gone =
                self.runtime.block_on(call::<_, Empty>(&self.socket, method, &Id { id: id.to_owned() }));
        }
    }

    fn ask<Q: Message + Clone + 'static, A: Message + Default + 'static>(
        &self,
        method: &str,
        request: &Q,
    ) -> A {
        self.runtime
            .block_on(call(&self.socket, method, request))
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let sandboxes = std::mem::take(&mut *self.sandboxes.lock().expect("unpoisoned"));
        for (id, cgroup) in sandboxes {
            self.remove_sandbox(&id);
            remove_cgroups(&cgroup);
        }
    }
}

/// The runtime removes the containers' cgroups, and those above them are the kubelet's to remove.
fn remove_cgroups(below: &str) {
    let mounts = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for mount in mounts.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]) {
        let own = mount.join(below.trim_start_matches('/'));
        for cgroup in own.ancestors().take_while(|path| *path != mount) {
            let _not_there = std::fs::remove_dir(cgroup);
        }
    }
}

fn configuration_of(directory: &Path, socket: &Path) -> String {
    let directory = utf8(directory);
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  disable_tcp_service = true
  # These machines grant no CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{directory}/cni"
"#,
        utf8(socket)
    )
}

async fn call<Q: Message + Clone + 'static, A: Message + Default + 'static>(
    socket: &Path,
    method: &str,
    request: &Q,
) -> Result<A, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| text(&error))?;
    let connected = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = connected.map_err(|error| text(&error))?;
    tokio::spawn(connection);
    let mut grpc = Grpc::with_origin(Wire(sender), hyper::Uri::from_static("http://localhost"));
    grpc.ready().await.map_err(|error| text(&error))?;
    let path = format!("/runtime.v1.RuntimeService/{method}").parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let answer = grpc.unary(tonic::Request::new(request.clone()), path, codec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

struct Wire(SendRequest<Body>);

impl GrpcService<Body> for Wire {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = hyper::Result<hyper::Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// `NODE` of the CRI's namespace modes.
const HOST: i32 = 2;

/// Any message whose fields do not matter.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// A message that is one id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "7")]
    annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxSandboxSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandboxSecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(map = "string, string", tag = "9")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainerConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerConfig {
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxContainerSecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerSecurityContext {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}
