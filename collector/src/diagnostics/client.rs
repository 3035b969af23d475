//! The HTTP client of the agent's own telemetry.
//!
//! The OpenTelemetry SDK exports from threads of its own, which have no tokio runtime; hyper needs one. Refuses: TLS:
//! the receiver of the agent's own telemetry is a collector on the node.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A hyper client with a runtime of its own.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: Handle,
    client: HyperClient,
}

impl Client {
    /// Starts the runtime's thread, which lives as long as the process.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime of the agent's own telemetry")?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("diagnostics".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .context("cannot start the thread of the agent's own telemetry")?;
        Ok(Self { runtime: handle, client: HyperClient::with_default_connector(TIMEOUT, None) })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
