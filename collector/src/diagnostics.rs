//! The agent's own log lines and spans: to standard error, and over OTLP when asked.
//!
//! Refuses: the telemetry of others; that is `export`.

mod client;

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Keeps the exporters of the agent's own telemetry alive; flushes them when it goes.
#[derive(Default)]
pub struct Diagnostics {
    providers: Option<(SdkTracerProvider, SdkLoggerProvider)>,
}

impl Diagnostics {
    /// Sets up the log for the whole process. `otlp_endpoint` is a base URL for OTLP/HTTP.
    ///
    /// # Errors
    ///
    /// If the level is not a filter, or the endpoint is not a URL.
    pub fn start(level: &str, otlp_endpoint: Option<&str>) -> Result<Self> {
        let filter = EnvFilter::try_new(level)
            .with_context(|| format!("log.level is {level:?}: use error, warn, info, debug or trace"))?;
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let text = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(is_terminal)
            .log_internal_errors(false)
            .compact();
        let registry = tracing_subscriber::registry().with(filter).with(text);
        let Some(endpoint) = otlp_endpoint else {
            registry.try_init().context("the log is set up already")?;
            return Ok(Self::default());
        };
        let (spans, logs) = providers(endpoint)?;
        // What the exporter itself logs would come back to it.
        let no_loop = || EnvFilter::new("info,hyper=off,opentelemetry=off,tonic=off,h2=off");
        let tracer = spans.tracer("kansoku");
        registry
            .with(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(no_loop()))
            .with(OpenTelemetryTracingBridge::new(&logs).with_filter(no_loop()))
            .try_init()
            .context("the log is set up already")?;
        Ok(Self { providers: Some((spans, logs)) })
    }
}

impl Drop for Diagnostics {
    fn drop(&mut self) {
        if let Some((spans, logs)) = self.providers.take() {
            // A backend that is away at the end costs the agent's own last lines, which are on standard error too.
            let _lost = (spans.shutdown(), logs.shutdown());
        }
    }
}

fn providers(endpoint: &str) -> Result<(SdkTracerProvider, SdkLoggerProvider)> {
    let base = endpoint.trim_end_matches('/');
    let advice =
        || format!("log.otlp_endpoint is {endpoint:?}: use a base URL such as http://localhost:4318");
    let client = client::Client::start()?;
    let spans = SpanExporter::builder().with_http().with_http_client(client.clone());
    let spans = spans.with_endpoint(format!("{base}/v1/traces"));
    let logs = LogExporter::builder().with_http().with_http_client(client);
    let logs = logs.with_endpoint(format!("{base}/v1/logs"));
    let resource = Resource::builder().with_service_name("kansoku").build();
    let spans = SdkTracerProvider::builder()
        .with_batch_exporter(spans.build().with_context(advice)?)
        .with_resource(resource.clone())
        .build();
    let logs = SdkLoggerProvider::builder()
        .with_batch_exporter(logs.build().with_context(advice)?)
        .with_resource(resource)
        .build();
    Ok((spans, logs))
}
