//! Crash records as a user finds them: JSON files in a spool, and OTLP log records at a backend.
//!
//! Refuses: to stop at the first wrong field. [`Checks`] collects all that is wrong and shows it with the whole record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1 as otlp;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent::Agent;
use crate::workload::{Running, utf8};

/// How long a record may take to its file here: a debug build beside a compiler. The promise is a second.
pub const RECORD_MAX: Duration = Duration::from_secs(10);

/// The longest life of a workload: a second of processor time, beside others.
pub const LIFE_MAX: Duration = Duration::from_secs(20);

/// Clocks are converted between boot time and the epoch.
const CLOCK_TOLERANCE_NS: u64 = 50_000_000;

/// A program that has ended.
pub struct Death {
    /// Its process id.
    pub pid: u64,
    /// How it ended.
    pub status: ExitStatus,
    /// A moment before its start, nanoseconds since the epoch.
    pub started_ns: u64,
    /// A moment after its end, nanoseconds since the epoch.
    pub ended_ns: u64,
}

impl Death {
    /// Runs a command to its end.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let started_ns = now_ns();
        let running = Running::start(command);
        let pid = u64::from(running.pid());
        let status = running.wait(LIFE_MAX);
        Self { pid, status, started_ns, ended_ns: now_ns() }
    }
}

/// A spool directory.
pub struct Spool {
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Default for Spool {
    fn default() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        // The agent makes the directory itself.
        Self { path: directory.path().join("spool"), _directory: Some(directory) }
    }
}

impl Spool {
    /// A spool in a directory that somebody else keeps.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), _directory: None }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts `kansoku run` with this spool.
    pub fn start_agent(&self, settings: &[&str], variables: &[(String, String)]) -> Agent {
        let spool = format!("crash.spool={}", utf8(&self.path));
        let mut arguments = vec!["--set", &spool];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Agent::run(&arguments, &variables)
    }

    /// Names of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Ids of the records that wait for their export.
    pub fn pending(&self) -> Vec<String> {
        let files = self.files();
        files.iter().filter_map(|name| name.strip_suffix(".pending.json").map(str::to_owned)).collect()
    }

    /// The file of a record, whatever state it is in.
    pub fn file(&self, id: &str) -> PathBuf {
        let pending = self.path.join(format!("{id}.pending.json"));
        if pending.exists() { pending } else { self.path.join(format!("{id}.json")) }
    }

    /// All records in the order of their ids. Every file must be whole at any time, and named after its record.
    pub fn records(&self) -> Vec<Value> {
        let mut records = BTreeMap::new();
        for name in self.files() {
            let Some(stem) = name.strip_suffix(".json") else { continue };
            let id = stem.strip_suffix(".pending").unwrap_or(stem);
            // Between the listing and now it may have been exported and renamed, or evicted.
            let Ok(text) = std::fs::read(self.path.join(&name)).or_else(|_| std::fs::read(self.file(id)))
            else {
                continue;
            };
            let record: Value = serde_json::from_slice(&text).unwrap_or_else(|error| {
                panic!("{name} is no whole JSON: {error}\n{}", String::from_utf8_lossy(&text))
            });
            assert_eq!(record["id"], id, "{name} holds another record:\n{record:#}");
            records.insert(id.to_owned(), record);
        }
        records.into_values().collect()
    }

    /// The records of a process, which should be one at most.
    pub fn of_pid(&self, pid: u64) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["process"]["pid"] == pid).collect()
    }

    /// Waits for a record; fails with all records if there is none in time.
    #[track_caller]
    pub fn wait_for(&self, what: &str, time_max: Duration, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + time_max;
        loop {
            let records = self.records();
            if let Some(record) = records.iter().find(|record| is_wanted(record)) {
                return record.clone();
            }
            let summaries: Vec<_> = records.iter().map(summary).collect();
            assert!(
                Instant::now() < deadline,
                "no record of {what} in {time_max:?}; files {:?}, records {summaries:#?}",
                self.files()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the record of a process.
    #[track_caller]
    pub fn wait_for_pid(&self, what: &str, pid: u64) -> Value {
        self.wait_for(&format!("{what}, process {pid}"), RECORD_MAX, |record| record["process"]["pid"] == pid)
    }

    /// Time from a death to the last change of its file.
    pub fn latency(&self, record: &Value) -> Duration {
        let modified = self.file(text(record, "/id")).metadata().and_then(|file| file.modified());
        let modified = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let died = Duration::from_nanos(record["time_unix_ns"].as_u64().unwrap_or_default());
        modified.unwrap_or_default().saturating_sub(died)
    }
}

/// One line about a record: its process, kind and summary.
pub fn summary(record: &Value) -> String {
    let arguments = &record["process"]["command_args"];
    format!("{} {} {} {arguments}", text(record, "/id"), text(record, "/kind"), text(record, "/summary"))
}

/// A text in a record, empty if it is not there.
pub fn text<'r>(record: &'r Value, pointer: &str) -> &'r str {
    record.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number that is written as `0x…`.
pub fn hexadecimal(value: &Value) -> Option<u64> {
    value.as_str()?.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

/// The functions of the stack, innermost first; `-` for one without a name.
pub fn functions(record: &Value) -> Vec<&str> {
    let frames = record["stack"].as_array().into_iter().flatten();
    frames.map(|frame| frame["function"].as_str().unwrap_or("-")).collect()
}

/// Whether a function of the kernel's stack has one of these in its name; true where the kernel hides its functions and the
/// record says so.
pub fn was_in_kernel(record: &Value, names: &[&str]) -> bool {
    let texts = |key: &str| record[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    texts("kernel_stack").any(|function| names.iter().any(|name| function.contains(name)))
        || texts("incomplete").any(|reason| reason.contains("kptr_restrict"))
}

/// File name of a path in a record.
pub fn file_name(value: &Value) -> &str {
    value.as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default()
}

/// Nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    u64::try_from(now.as_nanos()).expect("this century")
}

/// All that is wrong with a record.
pub struct Checks<'r> {
    what: String,
    record: &'r Value,
    problems: Vec<String>,
}

impl<'r> Checks<'r> {
    /// Starts with nothing wrong.
    pub fn of(what: &str, record: &'r Value) -> Self {
        Self { what: what.to_owned(), record, problems: Vec::new() }
    }

    /// The record.
    pub fn record(&self) -> &'r Value {
        self.record
    }

    /// A field, by JSON pointer, has this value. An absent field is `null`.
    pub fn is(&mut self, pointer: &str, expected: impl Into<Value>) {
        let expected = expected.into();
        let found = self.record.pointer(pointer).unwrap_or(&Value::Null);
        if *found != expected {
            self.problems.push(format!("{pointer} is {found}, not {expected}"));
        }
    }

    /// A condition holds.
    pub fn holds(&mut self, what: &str, is_so: bool) {
        if !is_so {
            self.problems.push(format!("not so: {what}"));
        }
    }

    /// A text contains another one.
    pub fn contains(&mut self, pointer: &str, expected: &str) {
        let found = text(self.record, pointer);
        if !found.contains(expected) {
            self.problems.push(format!("{pointer} is {found:?}, without {expected:?}"));
        }
    }

    /// Start and end are within the life of the process.
    pub fn is_in_life(&mut self, death: &Death) {
        let time = |key: &str| self.record[key].as_u64().unwrap_or_default();
        let (start, end) = (time("start_unix_ns"), time("time_unix_ns"));
        let is_so = death.started_ns <= start + CLOCK_TOLERANCE_NS
            && start <= end
            && end <= death.ended_ns + CLOCK_TOLERANCE_NS;
        self.holds(
            &format!("{} <= start {start} <= end {end} <= {}", death.started_ns, death.ended_ns),
            is_so,
        );
    }

    /// What is wrong, with the record if anything is.
    pub fn problems(self) -> Option<String> {
        let (what, record) = (&self.what, self.record);
        let list = self.problems.iter().map(|problem| format!("  {problem}\n")).collect::<String>();
        (!self.problems.is_empty()).then(|| format!("{what}:\n{list}{record:#}\n"))
    }

    /// Fails if anything is wrong.
    #[track_caller]
    pub fn expect(self) {
        expect_none(self.problems());
    }
}

/// Fails with all problems if there are any.
#[track_caller]
pub fn expect_none(problems: impl IntoIterator<Item = String>) {
    let problems: Vec<String> = problems.into_iter().collect();
    assert!(problems.is_empty(), "{} records are wrong:\n{}", problems.len(), problems.join("\n"));
}

/// A log record as a backend has it.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// The resource's attributes.
    pub resource: Value,
    /// Its own attributes.
    pub attributes: Value,
    /// The rest.
    pub log: otlp::LogRecord,
}

/// The log records of crashes in requests.
pub fn log_records(requests: &[ExportLogsServiceRequest]) -> Vec<LogRecord> {
    requests.iter().flat_map(|request| of_resources(&request.resource_logs)).collect()
}

/// The log records of crashes in an `.otlp` file.
pub fn log_records_of_file(bytes: &[u8]) -> Vec<LogRecord> {
    let data = otlp::LogsData::decode(bytes).expect("the file is a LogsData message");
    of_resources(&data.resource_logs)
}

fn of_resources(resources: &[otlp::ResourceLogs]) -> Vec<LogRecord> {
    let mut records = Vec::new();
    for resource_logs in resources {
        let resource = resource_logs.resource.as_ref().expect("logs have a resource");
        for log in resource_logs.scope_logs.iter().flat_map(|scope| &scope.log_records) {
            // The agent may send its own log too.
            if log.event_name == "kansoku.crash" {
                records.push(LogRecord {
                    resource: object(&resource.attributes),
                    attributes: object(&log.attributes),
                    log: log.clone(),
                });
            }
        }
    }
    records
}

/// An OTLP value as JSON.
pub fn json(value: Option<&AnyValue>) -> Value {
    use any_value::Value as Any;
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Null,
        Some(Any::StringValue(text)) => text.as_str().into(),
        Some(Any::BoolValue(flag)) => (*flag).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(number)) => (*number).into(),
        Some(Any::ArrayValue(array)) => array.values.iter().map(|value| json(Some(value))).collect(),
        Some(Any::KvlistValue(list)) => object(&list.values),
        Some(other) => panic!("an attribute of a strange type: {other:?}"),
    }
}

fn object(pairs: &[KeyValue]) -> Value {
    let mut object = serde_json::Map::new();
    for pair in pairs {
        let before = object.insert(pair.key.clone(), json(pair.value.as_ref()));
        assert_eq!(before, None, "{} twice", pair.key);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool() {
        let directory = TempDir::new().expect("a temporary directory");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("ours");
        write("b.pending.json", r#"{"id": "b", "process": {"pid": 7}}"#);
        write(
            "a.json",
            r#"{"id": "a", "process": {"pid": 8}, "stack": [{"function": "f"}, {"function": null}]}"#,
        );
        write("c.json.part", "{");
        let spool = Spool::at(directory.path());
        assert_eq!(spool.pending(), ["b"]);
        assert_eq!(spool.records().len(), 2);
        assert_eq!(spool.wait_for_pid("b", 7)["id"], "b");
        assert_eq!(functions(&spool.of_pid(8)[0]), ["f", "-"]);
        assert!(spool.latency(&spool.of_pid(8)[0]) > Duration::ZERO);
    }

    #[test]
    fn all_that_is_wrong() {
        let record =
            serde_json::json!({"kind": "crash", "exit": {"code": null}, "registers": {"rip": "0x1f"}});
        let mut checks = Checks::of("a record", &record);
        checks.is("/kind", "crash");
        checks.is("/exit/code", Value::Null);
        checks.is("/absent", Value::Null);
        checks.holds("hexadecimal", hexadecimal(&record["registers"]["rip"]) == Some(31));
        assert_eq!(checks.problems(), None);
        let mut checks = Checks::of("a record", &record);
        checks.is("/kind", "exit");
        checks.contains("/kind", "oom");
        let problems = checks.problems().expect("two problems");
        assert!(
            problems.contains("/kind is \"crash\", not \"exit\"") && problems.contains("without \"oom\"")
        );
    }
}
