//! Asks the container runtime whose a container is, over the socket that the kubelet uses.
//!
//! Only reads, and only two calls of the interface; the messages here have the fields that matter. A connection lives for
//! one question: they are rare, and there is nothing to mend when a runtime restarts. Refuses: answers over
//! `ANSWER_BYTES_MAX`, and waiting longer than `ASK_MAX`.
//!
//! Source: Kubernetes CRI `runtime/v1/api.proto`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic_prost::ProstCodec;

use super::Facts;

/// Bytes of an answer. etcd holds no pod over 1.5 MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How long one container's question may take.
const ASK_MAX: Duration = Duration::from_secs(2);

/// Where the usual distributions have the socket, below the root.
const SOCKETS: [&str; 6] = [
    "run/containerd/containerd.sock",
    "run/crio/crio.sock",
    "run/k3s/containerd/containerd.sock",
    "run/k0s/containerd.sock",
    "var/snap/microk8s/common/run/containerd.sock",
    "run/cri-dockerd.sock",
];

/// Where the socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CriSocket {
    /// Where the usual distributions have it.
    #[default]
    Auto,
    /// There.
    At(PathBuf),
    /// Nowhere: the runtime is not asked.
    None,
}

impl CriSocket {
    /// The socket, if it is there now.
    pub fn find(&self, roots: &[PathBuf]) -> Option<PathBuf> {
        match self {
            Self::None => None,
            Self::At(path) => path.exists().then(|| path.clone()),
            Self::Auto => {
                let paths = roots.iter().flat_map(|root| SOCKETS.iter().map(|socket| root.join(socket)));
                paths.into_iter().find(|path| path.exists())
            }
        }
    }
}

/// What the runtime says of a container or a pod's sandbox; `None` if it knows neither.
///
/// # Errors
///
/// If the socket cannot be reached, or the runtime gives no answer in time.
pub async fn facts_of(socket: &Path, container_id: &str) -> Result<Option<Facts>> {
    let ask = async {
        let mut runtime = Runtime::connect(socket).await?;
        runtime.facts_of(container_id).await
    };
    tokio::time::timeout(ASK_MAX, ask).await.with_context(|| format!("no answer within {ASK_MAX:?}"))?
}

/// Name and version of the runtime.
///
/// # Errors
///
/// As for [`facts_of`].
pub async fn version(socket: &Path) -> Result<String> {
    let ask = async {
        let mut runtime = Runtime::connect(socket).await?;
        let answer: VersionResponse = runtime.call("Version", VersionRequest::default()).await?;
        anyhow::Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
    };
    tokio::time::timeout(ASK_MAX, ask).await.with_context(|| format!("no answer within {ASK_MAX:?}"))?
}

struct Runtime(Grpc<Wire>);

/// One HTTP/2 connection.
struct Wire(SendRequest<Body>);

impl Runtime {
    async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // It ends with the sender; what went wrong is in the answers.
        tokio::spawn(connection);
        let origin = http::Uri::from_static("http://localhost");
        Ok(Self(Grpc::with_origin(Wire(sender), origin).max_decoding_message_size(ANSWER_BYTES_MAX)))
    }

    async fn facts_of(&mut self, id: &str) -> Result<Option<Facts>> {
        let filter = Some(ContainerFilter { id: id.to_owned() });
        let list: ListContainersResponse =
            self.call("ListContainers", ListContainersRequest { filter }).await?;
        let container = list.containers.into_iter().find(|container| container.id == id);
        let sandbox = container.as_ref().map_or(id, |container| &container.pod_sandbox_id);
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned() };
        let sandbox: Option<PodSandboxStatusResponse> = match self.call("PodSandboxStatus", request).await {
            Ok(answer) => Some(answer),
            Err(error) if container.is_none() && is_not_found(&error) => return Ok(None),
            // The container is there, its sandbox is being removed.
            Err(_) => None,
        };
        Ok(facts(container, sandbox.and_then(|answer| answer.status)))
    }

    async fn call<Q, A>(&mut self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.0.ready().await.context("the runtime hung up")?;
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let answer = self.0.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }
}

impl GrpcService<Body> for Wire {
    type ResponseBody = Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<tonic::Status>().is_some_and(|status| status.code() == tonic::Code::NotFound)
}

fn facts(container: Option<Container>, sandbox: Option<PodSandboxStatus>) -> Option<Facts> {
    let mut facts = match container {
        None => Facts { container: Some(String::new()), ..Facts::default() },
        Some(container) => {
            let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
            let metadata = container.metadata.unwrap_or_default();
            let image = container.image.unwrap_or_default();
            let named = [image.user_specified_image, image.image];
            let is_name = |image: &String| !image.is_empty() && !image.starts_with("sha256:");
            Facts {
                namespace: label("io.kubernetes.pod.namespace"),
                name: label("io.kubernetes.pod.name"),
                uid: label("io.kubernetes.pod.uid"),
                container: Some(metadata.name).filter(|name| !name.is_empty()),
                image: named.into_iter().find(is_name),
                image_id: Some(container.image_ref).filter(|id| !id.is_empty()),
                restart_count: Some(metadata.attempt),
                ..Facts::default()
            }
        }
    };
    if let Some(sandbox) = sandbox {
        let metadata = sandbox.metadata.unwrap_or_default();
        // The kubelet's own labels tell what is known already.
        let labels = sandbox.labels.into_iter().filter(|(key, _)| !key.starts_with("io.kubernetes."));
        facts.add(Facts {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels: labels.collect(),
            annotations: sandbox.annotations.into_iter().collect(),
            has_metadata: true,
            ..Facts::default()
        });
    }
    facts.are_enough().then_some(facts)
}

#[derive(Clone, PartialEq, Message)]
struct VersionRequest {
    #[prost(string, tag = "1")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct VersionResponse {
    #[prost(string, tag = "2")]
    runtime_name: String,
    #[prost(string, tag = "3")]
    runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerFilter {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    image: Option<ImageSpec>,
    #[prost(string, tag = "5")]
    image_ref: String,
    #[prost(map = "string, string", tag = "8")]
    labels: HashMap<String, String>,
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
    #[prost(string, tag = "18")]
    user_specified_image: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "2")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(map = "string, string", tag = "7")]
    labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "8")]
    annotations: HashMap<String, String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_and_its_sandbox() {
        let sandbox = || PodSandboxStatus {
            metadata: Some(PodSandboxMetadata {
                name: "cart-1".to_owned(),
                uid: "12".to_owned(),
                namespace: "shop".to_owned(),
            }),
            labels: HashMap::from([
                ("tier".to_owned(), "front".to_owned()),
                ("io.kubernetes.pod.uid".to_owned(), "12".to_owned()),
            ]),
            annotations: HashMap::new(),
        };
        let container = Container {
            metadata: Some(ContainerMetadata { name: "web".to_owned(), attempt: 2 }),
            image: Some(ImageSpec {
                image: "sha256:00".to_owned(),
                user_specified_image: "shop:1".to_owned(),
            }),
            image_ref: "sha256:00".to_owned(),
            ..Container::default()
        };
        let of_container = facts(Some(container.clone()), Some(sandbox())).expect("enough");
        assert_eq!(
            (of_container.name.as_str(), of_container.container.as_deref(), of_container.restart_count),
            ("cart-1", Some("web"), Some(2))
        );
        assert_eq!(of_container.image.as_deref(), Some("shop:1"));
        assert_eq!(of_container.labels.len(), 1);
        let of_sandbox = facts(None, Some(sandbox())).expect("enough");
        assert_eq!((of_sandbox.container.as_deref(), of_sandbox.restart_count), (Some(""), None));
        assert_eq!(facts(Some(container), None), None);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cri.sock");
        assert!(facts_of(&path, "a").await.is_err_and(|error| format!("{error:#}").contains("cri.sock")));
        // Somebody listens and says nothing.
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let error = facts_of(&path, "a").await.expect_err("no answer");
        assert!(format!("{error:#}").contains("no answer"), "{error:#}");
    }
}
