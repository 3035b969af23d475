//! Slow operations -> OTLP log records: semantic conventions first, `kansoku.io.*` for the rest.
//!
//! Refuses: deciding what is slow.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};

use super::SCOPE_NAME;
use super::resource::{HostResource, attribute, scope};
use crate::telemetry::{Location, SlowOperation};

/// `event_name` of every record.
const EVENT_NAME: &str = "kansoku.io.slow";

/// The request for a backend. Each record has the resource of its own subject.
pub fn slow_operations_request(
    operations: &[SlowOperation],
    host: &HostResource,
) -> ExportLogsServiceRequest {
    let resource_logs = operations.iter().map(|operation| ResourceLogs {
        resource: Some(host.of(&operation.subject)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope(SCOPE_NAME)),
            log_records: vec![log_record(operation)],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

/// One line about an operation: `read of file /data/x took 1.25 s`.
pub fn summary(operation: &SlowOperation) -> String {
    let what = match (&operation.path, operation.peer) {
        (Some(path), _) => format!(" of {path}"),
        (None, Some(peer)) => format!(" to {peer}"),
        (None, None) => operation.descriptor.map(|kind| format!(" of a {kind}")).unwrap_or_default(),
    };
    let end = operation.error.map(|error| format!(" and failed: {error}")).unwrap_or_default();
    format!("{}{what} took {:.3} s{end}", operation.operation, operation.duration_ns as f64 / 1e9)
}

fn log_record(operation: &SlowOperation) -> LogRecord {
    LogRecord {
        time_unix_nano: operation.time_unix_ns,
        observed_time_unix_nano: operation.time_unix_ns,
        severity_number: SeverityNumber::Warn.into(),
        severity_text: "WARN".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(summary(operation))) }),
        attributes: attributes(operation),
        event_name: EVENT_NAME.to_owned(),
        trace_id: operation.span.map(|span| span.trace_id.to_vec()).unwrap_or_default(),
        span_id: operation.span.map(|span| span.span_id.to_vec()).unwrap_or_default(),
        ..LogRecord::default()
    }
}

fn attributes(operation: &SlowOperation) -> Vec<KeyValue> {
    let process = &operation.process;
    let mut list = vec![
        number("process.pid", i64::from(process.pid)),
        attribute("process.executable.name", process.executable_name.to_string()),
        number("thread.id", i64::from(operation.thread_id)),
        attribute("thread.name", operation.thread_name.to_string()),
        attribute("syscall.operation", operation.operation.to_owned()),
        KeyValue {
            key: "kansoku.io.duration".to_owned(),
            value: Some(AnyValue { value: Some(Value::DoubleValue(operation.duration_ns as f64 / 1e9)) }),
            ..KeyValue::default()
        },
        number("kansoku.io.result", operation.result),
    ];
    let mut text = |key: &str, value: Option<String>| list.extend(value.map(|value| attribute(key, value)));
    text("syscall.descriptor", operation.descriptor.map(str::to_owned));
    text("error.type", operation.error.map(str::to_owned));
    text("file.path", operation.path.clone());
    text("network.local.address", operation.local.map(|address| address.ip().to_string()));
    text("network.peer.address", operation.peer.map(|address| address.ip().to_string()));
    text("code.stacktrace", (!operation.stack.is_empty()).then(|| stack_trace(operation)));
    list.extend(operation.local.map(|address| number("network.local.port", i64::from(address.port()))));
    list.extend(operation.peer.map(|address| number("network.peer.port", i64::from(address.port()))));
    list
}

/// A frame a line, the innermost first.
fn stack_trace(operation: &SlowOperation) -> String {
    let line = |(number, location): (usize, &std::sync::Arc<Location>)| {
        let functions: Vec<&str> = location.lines.iter().map(|line| &*line.function).collect();
        format!("#{number:<3} {}\n", functions.join(" < "))
    };
    operation.stack.iter().enumerate().map(line).collect()
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Subject;
    use crate::telemetry::ProcessName;

    fn operation(path: Option<&str>, peer: Option<&str>, error: Option<&'static str>) -> SlowOperation {
        SlowOperation {
            subject: Arc::new(Subject::named("db")),
            process: Arc::new(ProcessName { pid: 7, executable_name: "db".into(), executable_path: None }),
            thread_id: 8,
            thread_name: "writer".into(),
            time_unix_ns: 5,
            duration_ns: 1_250_000_000,
            operation: "write",
            descriptor: Some("file"),
            error,
            result: 512,
            path: path.map(str::to_owned),
            local: None,
            peer: peer.map(|peer| peer.parse().expect("an address")),
            stack: Vec::new(),
            span: None,
        }
    }

    fn check(operation: &SlowOperation, expected: &str) {
        assert_eq!(summary(operation), expected);
        let request = slow_operations_request(std::slice::from_ref(operation), &HostResource::default());
        let record = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((record.event_name.as_str(), record.time_unix_nano), (EVENT_NAME, 5));
        let has = |key: &str| record.attributes.iter().any(|attribute| attribute.key == key);
        assert_eq!(has("file.path"), operation.path.is_some());
        assert_eq!(has("network.peer.port"), operation.peer.is_some());
        assert_eq!(has("error.type"), operation.error.is_some());
    }

    #[test]
    fn what_was_slow() {
        check(&operation(Some("/data/x"), None, None), "write of /data/x took 1.250 s");
        check(
            &operation(None, Some("10.0.0.1:5432"), Some("timeout")),
            "write to 10.0.0.1:5432 took 1.250 s and failed: timeout",
        );
        check(&operation(None, None, None), "write of a file took 1.250 s");
    }
}
