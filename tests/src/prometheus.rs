//! A real Prometheus: scrapes the agent and answers PromQL. And `promtool`, its judge of formats.
//!
//! Refuses: rules, alerts and remote storage. What a user's Prometheus would say of our endpoint is what is asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Daemon, Launch};
use crate::http;
use crate::promql::{self, Sample};
use crate::receiver::free_address;
use crate::tools;
use crate::workload::utf8;

/// How a scrape shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// A bearer token (RFC 6750).
    Bearer(String),
    /// A user and a password (RFC 7617).
    Basic(String, String),
}

/// One scrape job.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The label `job`.
    pub job: String,
    /// Who is scraped.
    pub target: SocketAddr,
    /// Where the metrics are; also the label `metrics_path`, as kube-prometheus has it, unless `labels` has another.
    pub path: String,
    /// The login.
    pub login: Login,
    /// More labels of every series; the labels of the endpoint win.
    pub labels: Vec<(String, String)>,
    /// A regular expression of the metric names that are kept; all, if empty.
    pub keep: String,
}

impl Scrape {
    /// All metrics at `/metrics` of a target, without a login.
    pub fn new(job: &str, target: SocketAddr) -> Self {
        let (job, path) = (job.to_owned(), "/metrics".to_owned());
        Self { job, target, path, login: Login::None, labels: Vec::new(), keep: String::new() }
    }

    fn yaml(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let mut yaml = format!(
            "- job_name: {}\n  metrics_path: {}\n  honor_labels: true\n  static_configs:\n  - targets: [{}]\n",
            quoted(&self.job),
            quoted(&self.path),
            quoted(&self.target.to_string())
        );
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let is_given = self.labels.iter().any(|(name, _)| name == "metrics_path");
        let path = (!is_given).then_some(("metrics_path", self.path.as_str()));
        let labels: Vec<_> = labels.chain(path).collect();
        yaml += "    labels:\n";
        for (name, value) in labels {
            writeln!(yaml, "      {name}: {}", quoted(value)).expect("writes to a string");
        }
        match &self.login {
            Login::None => {}
            Login::Bearer(token) => yaml += &format!("  authorization: {{credentials: {}}}\n", quoted(token)),
            Login::Basic(user, password) => {
                yaml += &format!(
                    "  basic_auth: {{username: {}, password: {}}}\n",
                    quoted(user),
                    quoted(password)
                );
            }
        }
        if !self.keep.is_empty() {
            yaml += &format!(
                "  metric_relabel_configs:\n  - {{source_labels: [__name__], regex: {}, action: keep}}\n",
                quoted(&self.keep)
            );
        }
        yaml
    }
}

/// A running Prometheus, with its data in a directory that goes with it.
pub struct Prometheus {
    address: SocketAddr,
    daemon: Daemon,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes these every second. With native histograms it asks for protobuf, and for text without them.
    pub fn start(scrapes: &[Scrape], has_native_histograms: bool) -> Self {
        let program = tools::require("prometheus", "prometheus");
        let directory = TempDir::new().expect("a temporary directory");
        let at = |name: &str| utf8(&directory.path().join(name)).to_owned();
        let config = "global: {scrape_interval: 2s, scrape_timeout: 2s}\nscrape_configs:\n".to_owned();
        let config = scrapes.iter().fold(config, |config, scrape| config + &scrape.yaml());
        tools::write_file(&directory.path().join("prometheus.yml"), config.as_bytes());
        let address = free_address();
        let mut arguments = vec![
            format!("--config.file={}", at("prometheus.yml")),
            format!("--storage.tsdb.path={}", at("data")),
            format!("--web.listen-address={address}"),
        ];
        arguments.push("--enable-feature=exemplar-storage".to_owned());
        if has_native_histograms {
            arguments.push("--enable-feature=native-histograms".to_owned());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = directory.path().join("log");
        let launch = Launch::plain(&log);
        let mut daemon = Daemon::start(&program, &arguments, launch);
        daemon.wait_until("Prometheus", || {
            http::get(address, "/-/ready", &[]).is_ok_and(|answer| answer.status.is_success())
        });
        Self { address, daemon, _directory: directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Evaluates an expression now.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        promql::query(self.address, expression, None).unwrap_or_else(|error| panic!("{error}"))
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

    /// The labels of all exemplars that it keeps for the series of an expression.
    pub fn exemplars(&self, expression: &str) -> Vec<BTreeMap<String, String>> {
        let path = format!("/api/v1/query_exemplars?query={}", http::percent_encoded(expression));
        let path = format!("{path}&start=0&end=9999999999");
        let answer = http::get(self.address, &path, &[]).expect("Prometheus answers").expect_success();
        let answer: Value = serde_json::from_slice(&answer.body).expect("the API speaks JSON");
        let series = answer["data"].as_array().cloned().unwrap_or_default();
        let exemplars = series.iter().filter_map(|series| series["exemplars"].as_array()).flatten();
        exemplars
            .map(|exemplar| serde_json::from_value(exemplar["labels"].clone()).expect("labels are texts"))
            .collect()
    }

    /// What was wrong with the last scrape of each job; nothing, for a good endpoint. Waits for the first scrapes.
    pub fn scrape_errors(&self, time_max: Duration) -> Vec<(String, String)> {
        let deadline = Instant::now() + time_max;
        loop {
            let answer = http::get(self.address, "/api/v1/targets?state=active", &[]);
            let answer = answer.expect("Prometheus answers").expect_success();
            let answer: Value = serde_json::from_slice(&answer.body).expect("the API speaks JSON");
            let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
            if !targets.is_empty() && targets.iter().all(|target| target["health"] != "unknown") {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let errors =
                    targets.iter().map(|target| (text(&target["labels"]["job"]), text(&target["lastError"])));
                return errors.filter(|(_, error)| !error.is_empty()).collect();
            }
            assert!(Instant::now() < deadline, "nothing was scraped in {time_max:?}:\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What it has said: a warning here names samples that it dropped, out of order or twice the same.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

/// `promtool check metrics`: whether a text is in the exposition format, and what its linter holds against it.
pub fn promtool_check(text: &str) -> Result<(), String> {
    let program = tools::require("promtool", "promtool");
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start promtool: {error}"))?;
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // It reads all before it says anything, so it cannot be held up by its output. A broken pipe shows in its exit.
    let _broken = stdin.write_all(text.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}
