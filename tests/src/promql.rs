//! PromQL over HTTP, as Prometheus and VictoriaMetrics both answer it.
//!
//! Refuses: ranges and whole native histograms; a question is put so that its answer is a number for each series
//! (`rate`, `histogram_quantile`, `histogram_count`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::http;

/// How often a question is put.
const POLL: Duration = Duration::from_millis(100);

/// One series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels, `__name__` among them if the expression keeps it. Empty for a scalar.
    pub labels: BTreeMap<String, String>,
    /// Its value; may be `NaN` or infinite.
    pub value: f64,
}

impl Sample {
    /// A label, empty if it is not there, which is the same to Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Evaluates an expression at the server's own now, or at another time. The error is what the server says of it.
pub fn query(address: SocketAddr, expression: &str, time: Option<SystemTime>) -> Result<Vec<Sample>, String> {
    let mut form = format!("query={}", http::percent_encoded(expression));
    if let Some(time) = time {
        let since_epoch = time.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        form += &format!("&time={:.3}", since_epoch.as_secs_f64());
    }
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let answer = http::post(address, "/api/v1/query", &headers, form)?;
    samples(&answer.body).map_err(|error| format!("{expression}: {error}"))
}

/// Asks until the answer is good enough, and returns that. Fails with the last answer.
#[track_caller]
pub fn ask_until(
    expression: &str,
    time_max: Duration,
    ask: impl Fn(&str) -> Vec<Sample>,
    is_enough: impl Fn(&[Sample]) -> bool,
) -> Vec<Sample> {
    let deadline = Instant::now() + time_max;
    loop {
        let samples = ask(expression);
        if is_enough(&samples) {
            return samples;
        }
        assert!(Instant::now() < deadline, "{expression}: after {time_max:?} still {samples:#?}");
        std::thread::sleep(POLL);
    }
}

/// Reads the body of an answer: `{"status": "success", "data": {"resultType": ..., "result": ...}}`.
fn samples(body: &[u8]) -> Result<Vec<Sample>, String> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| format!("{error} in {:?}", String::from_utf8_lossy(body)))?;
    if body["status"] != "success" {
        return Err(body["error"].as_str().unwrap_or("no success and no error").to_owned());
    }
    let result = &body["data"]["result"];
    match body["data"]["resultType"].as_str() {
        Some("scalar") => Ok(vec![Sample { labels: BTreeMap::new(), value: number(result)? }]),
        Some("vector") => result.as_array().ok_or("a vector is a list")?.iter().map(sample).collect(),
        other => Err(format!("a result of type {other:?} is not read")),
    }
}

fn sample(series: &Value) -> Result<Sample, String> {
    let labels = series["metric"].as_object().ok_or("a series has labels")?.iter();
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    Ok(Sample { labels: labels.collect(), value: number(&series["value"])? })
}

/// `[seconds, "value"]`, the value as Go prints it.
fn number(pair: &Value) -> Result<f64, String> {
    let text = pair[1].as_str().ok_or_else(|| format!("no number, a native histogram perhaps: {pair}"))?;
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::samples;

    fn check(body: &str, expected: Result<&str, &str>) {
        let printed = samples(body.as_bytes()).map(|samples| {
            let lines = samples.iter().map(|sample| format!("{:?} {}", sample.labels, sample.value));
            lines.collect::<Vec<_>>().join("\n")
        });
        assert_eq!(printed.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn answers() {
        let vector = |result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#)
        };
        check(&vector("[]"), Ok(""));
        check(
            &vector(r#"[{"metric":{"__name__":"up"},"value":[1.5,"1"]},{"metric":{},"value":[1.5,"+Inf"]}]"#),
            Ok("{\"__name__\": \"up\"} 1\n{} inf"),
        );
        check(&vector(r#"[{"metric":{},"value":[1.5,"NaN"]}]"#), Ok("{} NaN"));
        check(r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"2e-3"]}}"#, Ok("{} 0.002"));
        check(r#"{"status":"error","error":"parse error"}"#, Err("parse error"));
        check(
            &vector(r#"[{"metric":{},"histogram":[1.5,{"count":"1"}]}]"#),
            Err("no number, a native histogram perhaps: null"),
        );
    }
}
