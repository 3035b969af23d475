//! A real VictoriaMetrics: takes OTLP metrics, answers PromQL.
//!
//! Refuses: its cache and its habit to hide the last thirty seconds. What it took is found by the next question.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tempfile::TempDir;

use crate::daemon::{Daemon, Launch};
use crate::http;
use crate::promql::{self, Sample};
use crate::receiver::free_address;
use crate::tools;
use crate::workload::utf8;

/// How metrics and labels are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As they came, dots and all: `{__name__="system.cpu.time"}`.
    AsSent,
    /// As Prometheus would: `system_cpu_time_seconds_total`.
    Prometheus,
}

/// One series with its samples.
#[derive(Debug, Deserialize)]
pub struct Exported {
    /// Its labels, `__name__` among them.
    #[serde(rename = "metric")]
    pub labels: BTreeMap<String, String>,
    values: Vec<Option<f64>>,
    timestamps: Vec<u64>,
}

impl Exported {
    /// The value at a moment, milliseconds since the epoch.
    pub fn at(&self, time_unix_ms: u64) -> Option<f64> {
        let place = self.timestamps.iter().position(|&time| time == time_unix_ms)?;
        // What JSON has no form for: no number, or an infinite one.
        self.values[place]
    }

    /// When it had a value last.
    pub fn time_of(&self, value: f64) -> Option<u64> {
        let place = self.values.iter().rposition(|found| *found == Some(value))?;
        Some(self.timestamps[place])
    }
}

/// A running VictoriaMetrics, with its data in a directory that goes with it.
pub struct VictoriaMetrics {
    address: SocketAddr,
    daemon: Daemon,
    _directory: TempDir,
}

impl VictoriaMetrics {
    /// Starts it and waits until it answers.
    pub fn start(naming: Naming) -> Self {
        let program = tools::require("victoria-metrics", "victoria-metrics");
        let directory = TempDir::new().expect("a temporary directory");
        let data = format!("-storageDataPath={}", utf8(&directory.path().join("data")));
        let address = free_address();
        let listen = format!("-httpListenAddr={address}");
        // Without these it hides the last thirty seconds, and answers from its cache.
        let mut arguments = vec![
            data.as_str(),
            &listen,
            "-search.latencyOffset=0s",
            "-search.disableCache",
            "-retentionPeriod=1d",
        ];
        if naming == Naming::Prometheus {
            arguments.push("-opentelemetry.usePrometheusNaming");
        }
        let log = directory.path().join("log");
        let launch = Launch::plain(&log);
        let mut daemon = Daemon::start(&program, &arguments, launch);
        daemon.wait_until("VictoriaMetrics", || {
            http::get(address, "/health", &[]).is_ok_and(|answer| answer.status.is_success())
        });
        Self { address, daemon, _directory: directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for `OTEL_EXPORTER_OTLP_ENDPOINT`, to which exporters add `/v1/metrics`. HTTP only.
    pub fn otlp_url(&self) -> String {
        format!("http://{}/opentelemetry", self.address)
    }

    /// Evaluates an expression a second ahead, over all that was taken until now.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        // New series are found after a flush only, and "now" is the second that has begun: it ends before they do.
        let flushed = http::get(self.address, "/internal/force_flush", &[]);
        flushed.expect("VictoriaMetrics answers").expect_success();
        let soon = SystemTime::now() + Duration::from_secs(1);
        promql::query(self.address, expression, Some(soon)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Evaluates an expression until its answer is good enough.
    #[track_caller]
    pub fn query_until(
        &self,
        expression: &str,
        time_max: Duration,
        is_enough: impl Fn(&[Sample]) -> bool,
    ) -> Vec<Sample> {
        promql::ask_until(expression, time_max, |expression| self.query(expression), is_enough)
    }

    /// All series with all their samples.
    pub fn export(&self) -> Vec<Exported> {
        let flushed = http::get(self.address, "/internal/force_flush", &[]);
        flushed.expect("VictoriaMetrics answers").expect_success();
        let path = format!("/api/v1/export?match[]={}", http::percent_encoded(r#"{__name__!=""}"#));
        let answer = http::get(self.address, &path, &[]).expect("VictoriaMetrics answers").expect_success();
        let lines = answer.text();
        lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// What it has said: a warning here names requests that it refused.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
