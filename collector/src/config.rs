//! Text and environment -> one validated [`Config`], once, at start.
//!
//! Order: flag over environment over file over default, for each key of one table (`keys`). Refuses: keys that are
//! not in the table, and values of another type; the error names the nearest key and where the value came from.

mod keys;
mod kubernetes;
mod metrics;
mod resolve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use keys::{Key, Kind, keys};
pub use resolve::{Origin, Resolved, Sources, Value};

use crate::cluster::ClusterOptions;
use crate::crash::spool::SpoolLimits;
use crate::crash::verdict::Exits;
use crate::crash::{CrashOptions, Redactor};
use crate::dump::service::{DumpConfig, Way};
use crate::dump::{DumpKind, DumpOptions, MinidumpLimits, Policies, StoreLimits};
use crate::export::TemporalityPreference;
use crate::export::otlp::{Compression, Endpoint, Limits, Protocol, Signal};
use crate::export::prometheus::PrometheusOptions;
use crate::flow::{FlowOptions, SamplingOptions};
use crate::identity::NameOptions;
use crate::kernel::{IoOptions, KernelOptions, online_cpus};
use crate::meter::MeterOptions;
use crate::scrape::Target;
use crate::symbolize::SymbolOptions;

/// Where the file is looked for if none is named.
pub const DEFAULT_PATH: &str = "/etc/kansoku/config.yaml";

/// Exchanges in a second that are looked at for each CPU of the node: some percent of one, by the bench.
const EXCHANGES_PER_CPU_MAX: u64 = 2_500;

/// Everything that can be configured, validated.
pub struct Config {
    /// How to hook into the kernel.
    pub kernel: KernelOptions,
    /// How connections are followed; `None` for not at all.
    pub flows: Option<FlowOptions>,
    /// Length of a window.
    pub window: Duration,
    /// How to name frames.
    pub symbols: SymbolOptions,
    /// Where to export each signal; empty for the local view.
    pub endpoints: Vec<(Signal, Endpoint)>,
    /// Bounds of the export.
    pub limits: Limits,
    /// `OTEL_RESOURCE_ATTRIBUTES`
    pub resource_attributes: Vec<(String, String)>,
    /// The flame graph of the local view.
    pub flame_graph: PathBuf,
    /// How deaths become records.
    pub crash: CrashOptions,
    /// Where crash records are kept.
    pub crash_spool: PathBuf,
    /// How many.
    pub crash_spool_limits: SpoolLimits,
    /// Dumps beside crash records.
    pub dump: DumpConfig,
    /// How the pods of containers are found.
    pub names: NameOptions,
    /// Which metrics are collected.
    pub meter: MeterOptions,
    /// Whether the backend wants counters and histograms as deltas.
    pub temporality: TemporalityPreference,
    /// The Prometheus endpoint; `None` for none.
    pub prometheus: Option<PrometheusOptions>,
    /// Pages of applications that are scraped.
    pub scrape_targets: Vec<Target>,
    /// Whether pods are scraped that ask for it by annotations.
    pub scrape_annotations: bool,
    /// Time between two scrapes of a page.
    pub scrape_interval: Duration,
    /// What one elected agent does for the whole cluster; `None` for nothing.
    pub cluster: Option<ClusterOptions>,
    /// Whether pages of the cluster must have its certificates.
    pub cluster_verify: bool,
    /// CA certificates for those over TLS; the system's where there are none.
    pub scrape_authorities: Option<PathBuf>,
    /// What must not leave in crash records.
    pub redactor: Redactor,
    /// Level of the agent's own log.
    pub log_level: String,
    /// Where the agent's own spans and logs go over OTLP/HTTP.
    pub own_telemetry_endpoint: Option<String>,
}

impl Config {
    /// Validates what was resolved.
    ///
    /// # Errors
    ///
    /// If values contradict each other, or a file that is named does not exist.
    pub fn new(resolved: &Resolved) -> Result<Self> {
        let endpoints = [Signal::Profiles, Signal::Metrics, Signal::Logs, Signal::Traces]
            .into_iter()
            .filter_map(|signal| {
                endpoint(resolved, signal).transpose().map(|endpoint| Ok((signal, endpoint?)))
            })
            .collect::<Result<Vec<_>>>()?;
        crate::export::otlp::check(&endpoints)?;
        let is_pushed = endpoints.iter().any(|(signal, _)| *signal == Signal::Metrics);
        let (dump, names) = (dump(resolved)?, kubernetes::names(resolved)?);
        let ring_bytes = resolved.integer("profile.sample_ring_bytes");
        if ring_bytes != 0 && !ring_bytes.is_power_of_two() {
            bail!("profile.sample_ring_bytes is {ring_bytes}: use a power of two of at least one page, or 0");
        }
        Ok(Self {
            kernel: KernelOptions {
                frequency_hz: resolved.integer("profile.frequency_hz") as u32,
                sample_ring_bytes: (ring_bytes != 0).then_some(ring_bytes as u32),
                btf: resolved.text("kernel.btf").into(),
                log_level: kernel_log_level(resolved.text("kernel.log_level")),
                watch_crashes: resolved.flag("crash.enabled"),
                keep_stderr: keeps_stderr(resolved),
                io: resolved.flag("io.enabled").then(|| IoOptions {
                    by_process: resolved.flag("io.by_process"),
                    slow_ns: resolved.integer("io.slow_ms") * 1_000_000,
                    files: resolved.flag("io.files"),
                    scheduler: resolved.flag("io.scheduler"),
                }),
                watch_flows: resolved.flag("trace.enabled"),
                syscalls_share_max: syscalls_share(resolved)?,
            },
            flows: resolved.flag("trace.enabled").then(|| flows(resolved)).transpose()?,
            window: Duration::from_millis(resolved.integer("profile.window_ms")),
            symbols: SymbolOptions {
                lines: resolved.flag("symbols.lines"),
                lines_file_bytes_max: u64::MAX,
                cache_bytes_max: resolved.integer("symbols.cache_bytes_max") as usize,
            },
            endpoints,
            limits: Limits {
                queue_bytes_max: resolved.integer("otlp.queue_bytes_max") as usize,
                retry_initial: Duration::from_millis(resolved.integer("otlp.retry_initial_ms")),
                retry_delay_max: Duration::from_millis(resolved.integer("otlp.retry_delay_max_ms")),
                retry_elapsed_max: Duration::from_millis(resolved.integer("otlp.retry_elapsed_max_ms")),
            },
            resource_attributes: resource_attributes(resolved, &names),
            flame_graph: resolved.text("local.flame_graph").into(),
            crash: CrashOptions {
                exits: match resolved.text("crash.exits") {
                    "all" => Exits::All,
                    "none" => Exits::None,
                    _ => Exits::Main,
                },
                records_per_minute: resolved.integer("crash.records_per_minute") as u32,
                policies: dump.policies.clone(),
            },
            crash_spool: resolved.text("crash.spool").into(),
            crash_spool_limits: SpoolLimits {
                bytes_max: resolved.integer("crash.spool_bytes_max"),
                files_max: resolved.integer("crash.spool_files_max") as usize,
            },
            dump,
            cluster: metrics::cluster(resolved, &names)?,
            names,
            meter: metrics::meter(resolved, is_pushed)?,
            cluster_verify: resolved.flag("scrape.cluster_verify"),
            temporality: resolved.text("otlp.metrics.temporality").parse()?,
            prometheus: metrics::prometheus(resolved)?,
            scrape_targets: metrics::targets(resolved)?,
            scrape_annotations: resolved.flag("scrape.annotations"),
            scrape_interval: Duration::from_millis(resolved.integer("scrape.interval_ms")),
            scrape_authorities: optional(resolved.text("scrape.certificate")).map(PathBuf::from),
            redactor: Redactor::new(resolved.table("crash.redact")).context("in crash.redact")?,
            log_level: resolved.text("log.level").to_owned(),
            own_telemetry_endpoint: optional(resolved.text("log.otlp_endpoint")).map(str::to_owned),
        })
    }
}

/// Whether the hook on returns of system calls is there for standard error.
fn keeps_stderr(resolved: &Resolved) -> bool {
    resolved.flag("crash.enabled") && resolved.flag("crash.stderr")
}

fn syscalls_share(resolved: &Resolved) -> Result<f64> {
    let percent = resolved.text("budget.syscalls_percent").parse::<f64>().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    Ok(percent.context("budget.syscalls_percent must be a number from 0 to 100, such as 0.5")? / 100.0)
}

fn flows(resolved: &Resolved) -> Result<FlowOptions> {
    let ratio = resolved.text("trace.sample_ratio");
    let ratio = ratio.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    Ok(FlowOptions {
        sampling: SamplingOptions {
            ratio: ratio.context("trace.sample_ratio must be a number from 0 to 1, such as 0.1")?,
            per_second_max: resolved.integer("trace.spans_per_second_max") as u32,
            slow_ns: resolved.integer("trace.slow_ms") * 1_000_000,
        },
        exchanges_per_second_max: match resolved.integer("trace.exchanges_per_second_max") {
            0 => EXCHANGES_PER_CPU_MAX * online_cpus().map_or(1, |cpus| cpus.len() as u64),
            given => given,
        },
        counts_polls: resolved.flag("io.enabled") || keeps_stderr(resolved),
        node_network: kubernetes::node_network(resolved),
    })
}

/// What the user wants on every resource, with the node's name in Kubernetes.
fn resource_attributes(resolved: &Resolved, names: &NameOptions) -> Vec<(String, String)> {
    let mut attributes = resolved.table("resource.attributes").clone();
    if !names.node.is_empty() {
        attributes.entry("k8s.node.name".to_owned()).or_insert_with(|| names.node.clone());
    }
    attributes.into_iter().collect()
}

fn dump(resolved: &Resolved) -> Result<DumpConfig> {
    let minidump = MinidumpLimits {
        bytes_max: resolved.integer("dump.minidump_bytes_max"),
        redact_memory: resolved.flag("dump.redact_memory"),
        ..MinidumpLimits::default()
    };
    Ok(DumpConfig {
        way: match resolved.text("dump.pattern") {
            "auto" => Way::Auto,
            "socket" => Way::Socket,
            "pipe" => Way::Pipe,
            _ => Way::Off,
        },
        policies: policies(resolved)?,
        store: StoreLimits {
            directory: resolved.text("dump.directory").into(),
            bytes_max: resolved.integer("dump.bytes_max"),
            files_max: resolved.integer("dump.files_max") as usize,
            file_bytes_max: resolved.integer("dump.file_bytes_max"),
        },
        socket: resolved.text("dump.socket").into(),
        text: handler_configuration(resolved),
        options: DumpOptions { minidump, ..DumpOptions::default() },
    })
}

fn policies(resolved: &Resolved) -> Result<Policies> {
    let rules = resolved.table("dump.policies").iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let policies = Policies::parse(resolved.text("dump.default"), rules).context("in dump.policies")?;
    Ok(policies.with_annotations(DumpKind::parse(resolved.text("dump.annotation_max"))?))
}

/// What a program needs to know that the kernel starts: it has neither our environment nor our flags. It does not ask the API
/// server, which would hold the process that dies.
fn handler_configuration(resolved: &Resolved) -> String {
    serde_json::json!({
        "dump": {
            "default": resolved.text("dump.default"),
            "policies": resolved.table("dump.policies"),
            "annotation_max": resolved.text("dump.annotation_max"),
            "directory": resolved.text("dump.directory"),
            "bytes_max": resolved.integer("dump.bytes_max"),
            "files_max": resolved.integer("dump.files_max"),
            "file_bytes_max": resolved.integer("dump.file_bytes_max"),
            "minidump_bytes_max": resolved.integer("dump.minidump_bytes_max"),
            "redact_memory": resolved.flag("dump.redact_memory"),
        },
        "kubernetes": {
            "api": "off",
            "cri_socket": resolved.text("kubernetes.cri_socket"),
            "cache": resolved.text("kubernetes.cache"),
        },
    })
    .to_string()
}

/// A signal's endpoint: its own keys over the general ones; `None` if neither names an endpoint.
fn endpoint(resolved: &Resolved, signal: Signal) -> Result<Option<Endpoint>> {
    let own = |key: &str| format!("otlp.{signal}.{key}");
    let text = |key: &str| {
        let own = resolved.text(&own(key));
        if own.is_empty() { resolved.text(&format!("otlp.{key}")) } else { own }
    };
    let own_url = resolved.text(&own("endpoint"));
    let url = text("endpoint");
    if url.is_empty() || url == "none" {
        return Ok(None);
    }
    let protocol = match text("protocol") {
        "grpc" => Protocol::Grpc,
        "http/protobuf" => Protocol::HttpProtobuf,
        other => bail!("otlp.protocol is {other:?}: use grpc or http/protobuf"),
    };
    // The general endpoint is a base; a signal's own endpoint is used as it is: OTLP exporter specification.
    let url = match (&protocol, own_url.is_empty()) {
        (Protocol::HttpProtobuf, true) => format!("{}{}", url.trim_end_matches('/'), signal.http_path()),
        _ => url.to_owned(),
    };
    let own_timeout = resolved.integer(&own("timeout_ms"));
    let timeout = if own_timeout == 0 { resolved.integer("otlp.timeout_ms") } else { own_timeout };
    let mut headers: BTreeMap<String, String> = resolved.table("otlp.headers").clone();
    headers.extend(resolved.table(&own("headers")).clone());
    let file = |key: &str| optional(text(key)).map(PathBuf::from);
    Ok(Some(Endpoint {
        url,
        protocol,
        compression: match text("compression") {
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        },
        headers: headers.into_iter().collect(),
        timeout: Duration::from_millis(timeout),
        certificate: file("certificate"),
        client_certificate: file("client_certificate"),
        client_key: file("client_key"),
        insecure: resolved.flag("otlp.insecure"),
    }))
}

fn optional(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// As `aya_log` numbers them.
fn kernel_log_level(level: &str) -> u8 {
    ["off", "error", "warn", "info", "debug", "trace"].iter().position(|name| *name == level).unwrap_or(0)
        as u8
}

/// Reads the file that is named, or the default one if it exists.
///
/// # Errors
///
/// If a named file cannot be read.
pub fn read_file(named: Option<&PathBuf>) -> Result<Option<(PathBuf, String)>> {
    let path = named.cloned().unwrap_or_else(|| DEFAULT_PATH.into());
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the configuration {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str, environment: &[(&str, &str)]) -> Result<Config> {
        let resolved = Resolved::new(&Sources {
            file: (!file.is_empty()).then(|| ("test.yaml".into(), file.to_owned())),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            flags: Vec::new(),
        })?;
        Config::new(&resolved)
    }

    /// Expects the URL and protocol of each signal's endpoint.
    fn check(environment: &[(&str, &str)], expected: &[(Signal, &str, Protocol)]) {
        let config = config("", environment).expect("a valid configuration");
        let found: Vec<_> = config
            .endpoints
            .iter()
            .map(|(signal, endpoint)| (*signal, endpoint.url.as_str(), endpoint.protocol))
            .collect();
        assert_eq!(found, expected, "{environment:?}");
    }

    #[test]
    fn endpoints_by_the_standard_variables() {
        use Protocol::{Grpc, HttpProtobuf};
        check(&[], &[]);
        check(
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/")],
            &[
                (Signal::Profiles, "http://c:4318/v1development/profiles", HttpProtobuf),
                (Signal::Metrics, "http://c:4318/v1/metrics", HttpProtobuf),
                (Signal::Logs, "http://c:4318/v1/logs", HttpProtobuf),
                (Signal::Traces, "http://c:4318/v1/traces", HttpProtobuf),
            ],
        );
        check(
            &[("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "http://p/own"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[(Signal::Profiles, "http://p/own", HttpProtobuf)],
        );
        check(
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "none"),
                ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "none"),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "none"),
            ],
            &[(Signal::Profiles, "http://c:4317", Grpc)],
        );
    }

    #[test]
    fn own_values_win_over_general_ones() {
        let config = config(
            "otlp:\n  endpoint: http://c\n  timeout_ms: 5\n  headers: {a: '1', b: '2'}\n  profiles:\n    timeout_ms: 7\n    headers: {b: '3'}\n",
            &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_PROFILES_COMPRESSION", "zstd")],
        )
        .expect("a valid configuration");
        let (profiles, metrics) = (&config.endpoints[0].1, &config.endpoints[1].1);
        assert_eq!(profiles.timeout, Duration::from_millis(7));
        assert_eq!(metrics.timeout, Duration::from_millis(5));
        assert_eq!(profiles.headers, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "3".to_owned())]);
        assert_eq!((&profiles.compression, &metrics.compression), (&Compression::Zstd, &Compression::Gzip));
    }

    #[test]
    fn contradictions_are_errors() {
        let error =
            config("profile: {sample_ring_bytes: 5000}\n", &[]).err().expect("5000 is not a power of two");
        assert!(error.to_string().contains("power of two"), "{error}");
        let protocol =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")];
        assert!(config("", &protocol).is_err());
        assert!(config("trace: {sample_ratio: 'half'}\n", &[]).is_err());
        assert!(config("trace: {sample_ratio: '1.5'}\n", &[]).is_err());
    }
}
