//! Scrapes of the agent, by `curl`, asking as Prometheus asks.
//!
//! Refuses: another agent's answer. What listens before ours starts is an error.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::super::setup::Bench;
use super::super::tools::stdout_of;

/// The agent's default.
const PORT: u16 = 9464;

const TIME_MAX_S: &str = "60";

/// What `curl` says of a transfer.
const ACCOUNT: &str = "%{http_code} %{size_download} %{time_total} %{content_type}";

/// How a scraper wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    OpenMetrics,
    /// As Prometheus asks: it takes gzip, which is smaller and costs the agent more.
    OpenMetricsGzip,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scrape {
    pub bytes: u64,
    pub milliseconds: f64,
}

/// Where scrapes go.
pub struct Scraper {
    body: PathBuf,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::OpenMetricsGzip];

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::OpenMetrics => "OpenMetrics",
            Self::OpenMetricsGzip => "OpenMetrics, gzip if the agent can",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::OpenMetrics | Self::OpenMetricsGzip => "application/openmetrics-text",
        }
    }

    fn headers(self) -> &'static [&'static str] {
        match self {
            Self::Text => &["Accept: text/plain;version=0.0.4"],
            Self::OpenMetrics => &["Accept: application/openmetrics-text;version=1.0.0"],
            Self::OpenMetricsGzip => {
                &["Accept: application/openmetrics-text;version=1.0.0", "Accept-Encoding: gzip"]
            }
        }
    }
}

impl Scraper {
    /// Before the agent starts.
    pub fn prepare(bench: &Bench) -> Result<Self> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
            .with_context(|| format!("port {PORT} is taken: another agent would be scraped"))?;
        Ok(Self { body: bench.file("scrape") })
    }

    /// One scrape, whose body stays until the next.
    pub fn scrape(&self, format: Format) -> Result<Scrape> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", TIME_MAX_S, "--write-out", ACCOUNT, "--output"]);
        curl.arg(&self.body);
        for header in format.headers() {
            curl.args(["--header", header]);
        }
        let said = stdout_of(curl.arg(format!("http://127.0.0.1:{PORT}/metrics")))?;
        parse(&said, format)
    }

    /// The series of the last scrape, which must not be compressed.
    pub fn series(&self) -> Result<usize> {
        Ok(series(&body(&self.body)?))
    }

    /// The sum of a metric's series in the last scrape, which must not be compressed; `label` is a part of theirs.
    pub fn sum(&self, metric: &str, label: &str) -> Result<f64> {
        Ok(sum(&body(&self.body)?, metric, label))
    }
}

fn body(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Of lines like `name{label="value"} 7`.
fn sum(body: &str, metric: &str, label: &str) -> f64 {
    let of_metric = body.lines().filter_map(|line| line.strip_prefix(metric));
    let of_label = of_metric.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    of_label.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Every line that is neither empty nor a comment is one.
fn series(body: &str) -> usize {
    body.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

fn parse(said: &str, format: Format) -> Result<Scrape> {
    let mut fields = said.split(' ');
    let (Some(status), Some(bytes), Some(seconds)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("curl said {said:?}");
    };
    ensure!(status == "200", "the agent answered {status}");
    let media_type = fields.next().unwrap_or_default();
    ensure!(
        media_type.starts_with(format.media_type()),
        "the agent answered {media_type:?}, not {}",
        format.media_type()
    );
    let seconds: f64 = seconds.parse().with_context(|| format!("curl said {said:?}"))?;
    let bytes = bytes.parse().with_context(|| format!("curl said {said:?}"))?;
    Ok(Scrape { bytes, milliseconds: seconds * 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: &str, format: Format, expected: Option<Scrape>) {
        assert_eq!(parse(said, format).ok(), expected, "{said}");
    }

    #[test]
    fn series_of_a_metric_are_added_up() {
        let body = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\nab{x=\"1\"} 9\nc 4\n";
        assert_eq!([sum(body, "a", ""), sum(body, "a", "x=\"1\""), sum(body, "c", "")], [5.0, 2.0, 4.0]);
    }

    #[test]
    fn what_curl_says() {
        let expected = Some(Scrape { bytes: 8000, milliseconds: 125.0 });
        let text = "200 8000 0.125 text/plain; version=0.0.4; charset=utf-8";
        check(text, Format::Text, expected);
        check(text, Format::OpenMetrics, None);
        check(
            "200 8000 0.125 application/openmetrics-text; version=1.0.0",
            Format::OpenMetricsGzip,
            expected,
        );
        check("503 20 0.125 text/plain", Format::Text, None);
        check("200 x 0.125 text/plain", Format::Text, None);
        check("", Format::Text, None);
    }

    #[test]
    fn comments_are_no_series() {
        assert_eq!(series("# TYPE a counter\na_total{x=\"1\"} 1\n\na_total{x=\"#\"} 2\n# EOF\n"), 2);
        assert!(body(Path::new("/nowhere/at/all")).is_err());
    }
}
