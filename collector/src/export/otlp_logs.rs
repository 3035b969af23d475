//! Crash records -> OTLP log records: semantic conventions first, `kansoku.crash.*` for the rest.
//!
//! Refuses: redaction and truncation; a record is exported as it stands in the spool.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};

use super::SCOPE_NAME;
use super::resource::{HostResource, attribute, scope};
use crate::crash::record::{CrashRecord, Kind, StackFrame};

/// `event_name` of every crash record.
const EVENT_NAME: &str = "kansoku.crash";

/// The request for a backend. Each record keeps the resource of its own container.
pub fn logs_request(records: &[CrashRecord], host: &HostResource) -> ExportLogsServiceRequest {
    let resource_logs = records.iter().map(|record| ResourceLogs {
        resource: Some(host.of_attributes(&record.resource)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope(SCOPE_NAME)),
            log_records: vec![log_record(record)],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
}

/// The stack as text, a frame a line, as debuggers print it.
pub fn stack_trace(stack: &[StackFrame]) -> String {
    let mut number = 0;
    let mut text = String::new();
    for frame in stack {
        let function = frame.function.as_deref().unwrap_or("??");
        let place = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!(" at {file}:{line}"),
            (Some(file), None) => format!(" at {file}"),
            _ => String::new(),
        };
        let module = match (&frame.module, frame.offset) {
            (Some(module), Some(offset)) => format!(" ({module}+{offset:#x})"),
            (Some(module), None) => format!(" ({module})"),
            _ => String::new(),
        };
        let inlined = if frame.inlined { " [inlined]" } else { "" };
        text += &format!("#{number:<3} {} {function}{place}{module}{inlined}\n", frame.address);
        number += u32::from(!frame.inlined);
    }
    text
}

fn log_record(record: &CrashRecord) -> LogRecord {
    LogRecord {
        time_unix_nano: record.time_unix_ns,
        observed_time_unix_nano: record.time_unix_ns,
        severity_number: SeverityNumber::Fatal.into(),
        severity_text: "FATAL".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(record.summary.clone())) }),
        attributes: attributes(record),
        event_name: EVENT_NAME.to_owned(),
        trace_id: record.span.as_ref().map(|span| bytes(&span.trace_id)).unwrap_or_default(),
        span_id: record.span.as_ref().map(|span| bytes(&span.span_id)).unwrap_or_default(),
        ..LogRecord::default()
    }
}

/// The bytes of hexadecimal digits; none for a spool file that somebody changed.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().unwrap_or_default()
}

fn attributes(record: &CrashRecord) -> Vec<KeyValue> {
    let process = &record.process;
    let exception_type = match (&record.signal, record.kind) {
        (_, Kind::Exit) => Some("exit".to_owned()),
        (Some(signal), _) => Some(signal.name.clone()),
        (None, kind) => Some(kind.name().to_owned()),
    };
    let mut list = List::default();
    list.text("exception.type", exception_type);
    list.text("exception.message", Some(record.summary.clone()));
    list.text("exception.stacktrace", Some(stack_trace(&record.stack)));
    list.text("log.record.uid", Some(record.id.clone()));
    list.number("process.pid", Some(process.pid));
    list.number("process.vpid", process.namespace_pid);
    list.number("process.parent_pid", process.parent_pid);
    list.text("process.executable.name", Some(process.executable_name.clone()));
    list.text("process.executable.path", process.executable_path.clone());
    list.text("process.executable.build_id.gnu", process.executable_build_id.clone());
    list.texts("process.command_args", &process.command_args);
    list.text("process.working_directory", process.working_directory.clone());
    list.number("process.user.id", Some(process.user_id));
    list.number("process.exit.code", record.exit.code);
    list.text("process.exit.time", Some(timestamp(record.time_unix_ns)));
    list.text("process.creation.time", record.start_unix_ns.map(timestamp));
    list.number("thread.id", Some(process.thread_id));
    list.text("thread.name", Some(process.thread_name.clone()));
    add_crash(record, &mut list);
    list.0
}

fn add_crash(record: &CrashRecord, list: &mut List) {
    list.text("kansoku.crash.kind", Some(record.kind.name().to_owned()));
    list.text("kansoku.crash.fingerprint", Some(record.fingerprint.clone()));
    list.number("kansoku.crash.suppressed", Some(record.suppressed));
    list.text("kansoku.crash.exit.signal", record.exit.signal.clone());
    list.flag("kansoku.crash.exit.core_dumped", record.exit.signal.as_ref().map(|_| record.exit.core_dumped));
    if let Some(signal) = &record.signal {
        list.text("kansoku.crash.signal.name", Some(signal.name.clone()));
        list.text("kansoku.crash.signal.code", Some(signal.code_name.clone()));
        list.flag("kansoku.crash.signal.handled", Some(signal.handled));
        list.text("kansoku.crash.fault.address", signal.fault_address.clone());
        list.text("kansoku.crash.fault.place", signal.fault_place.clone());
    }
    if let Some(sender) = &record.sender {
        list.text("kansoku.crash.sender.kind", Some(sender.kind.name().to_owned()));
        list.text("kansoku.crash.sender.signal", Some(sender.signal.clone()));
        list.number("kansoku.crash.sender.pid", Some(sender.pid));
        list.number("kansoku.crash.sender.user.id", Some(sender.user_id));
        list.text("kansoku.crash.sender.executable.name", Some(sender.executable_name.clone()));
        list.text("kansoku.crash.sender.container.id", sender.container_id.clone());
    }
    if let Some(oom) = &record.oom {
        list.text("kansoku.crash.oom.scope", Some(oom.scope.name().to_owned()));
        list.flag("kansoku.crash.oom.is_child", Some(oom.is_child));
        list.number("kansoku.crash.oom.anon_bytes", oom.anon_bytes);
        list.number("kansoku.crash.oom.file_bytes", oom.file_bytes);
        list.number("kansoku.crash.oom.shmem_bytes", oom.shmem_bytes);
        list.number("kansoku.crash.oom.swap_bytes", oom.swap_bytes);
        list.text("kansoku.crash.oom.invoked_by", Some(oom.invoked_by.clone()));
    }
    if let Some(memory) = &record.cgroup_memory {
        list.number("kansoku.crash.cgroup.memory.usage_bytes", memory.usage_bytes);
        list.number("kansoku.crash.cgroup.memory.limit_bytes", memory.limit_bytes);
        list.number("kansoku.crash.cgroup.memory.peak_bytes", memory.peak_bytes);
    }
    if !record.registers.is_empty() {
        let registers = record.registers.iter().map(|(name, value)| format!("{name}={value}"));
        list.text("kansoku.crash.registers", Some(registers.collect::<Vec<_>>().join(" ")));
    }
    list.texts("kansoku.crash.kernel_stack", &record.kernel_stack);
    list.number("kansoku.crash.threads", record.threads.as_ref().map(|threads| threads.total));
    list.text("kansoku.crash.stderr", record.stderr.as_ref().map(|stderr| stderr.text.clone()));
    list.text("kansoku.crash.dump.format", record.dump.as_ref().map(|dump| dump.format.clone()));
    list.text("kansoku.crash.dump.path", record.dump.as_ref().map(|dump| dump.path.clone()));
    list.texts("kansoku.crash.incomplete", &record.incomplete);
}

/// RFC 3339, as the semantic conventions ask for times of processes.
fn timestamp(unix_ns: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(unix_ns);
    humantime::format_rfc3339_nanos(time).to_string()
}

/// Attributes; what is not known is left out.
#[derive(Default)]
struct List(Vec<KeyValue>);

impl List {
    fn text(&mut self, key: &str, value: Option<String>) {
        self.0.extend(value.filter(|value| !value.is_empty()).map(|value| attribute(key, value)));
    }

    fn number(&mut self, key: &str, value: Option<impl TryInto<i64>>) {
        let value = value.and_then(|value| value.try_into().ok());
        self.0.extend(value.map(|value| of(key, Value::IntValue(value))));
    }

    fn flag(&mut self, key: &str, value: Option<bool>) {
        self.0.extend(value.map(|value| of(key, Value::BoolValue(value))));
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let values = values.iter().map(|value| AnyValue { value: Some(Value::StringValue(value.clone())) });
        self.0.push(of(key, Value::ArrayValue(ArrayValue { values: values.collect() })));
    }
}

fn of(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::record::{ProcessInfo, SignalInfo};

    fn record() -> CrashRecord {
        CrashRecord {
            id: "20261122T180102.123456Z-7".to_owned(),
            summary: "SIGSEGV in f".to_owned(),
            time_unix_ns: 1_795_370_462_123_456_789,
            resource: [("service.name".to_owned(), "app".to_owned())].into(),
            process: ProcessInfo { pid: 7, command_args: vec!["app".to_owned()], ..ProcessInfo::default() },
            signal: Some(SignalInfo { name: "SIGSEGV".to_owned(), ..SignalInfo::default() }),
            ..CrashRecord::default()
        }
    }

    fn check(record: &CrashRecord, key: &str, expected: Option<Value>) {
        let request = logs_request(std::slice::from_ref(record), &HostResource::default());
        let log = &request.resource_logs[0].scope_logs[0].log_records[0];
        let found = log.attributes.iter().find(|attribute| attribute.key == key);
        let found = found.and_then(|attribute| attribute.value.clone()?.value);
        assert_eq!(found, expected, "{key}");
    }

    #[test]
    fn conventions() {
        let text = |text: &str| Some(Value::StringValue(text.to_owned()));
        check(&record(), "exception.type", text("SIGSEGV"));
        check(&record(), "exception.message", text("SIGSEGV in f"));
        check(&record(), "log.record.uid", text("20261122T180102.123456Z-7"));
        check(&record(), "process.pid", Some(Value::IntValue(7)));
        check(&record(), "process.vpid", None);
        check(&record(), "process.exit.time", text("2026-11-22T18:01:02.123456789Z"));
        check(&CrashRecord { kind: Kind::Exit, ..record() }, "exception.type", text("exit"));
        check(&CrashRecord { kind: Kind::Agent, signal: None, ..record() }, "exception.type", text("agent"));
    }

    #[test]
    fn stack_as_text() {
        let frame = |function: Option<&str>, inlined| StackFrame {
            address: "0x10".to_owned(),
            function: function.map(str::to_owned),
            module: Some("/bin/app".to_owned()),
            offset: Some(16),
            inlined,
            ..StackFrame::default()
        };
        let text =
            stack_trace(&[frame(Some("inner"), true), frame(Some("outer"), false), frame(None, false)]);
        let expected = "#0   0x10 inner (/bin/app+0x10) [inlined]\n\
                        #0   0x10 outer (/bin/app+0x10)\n\
                        #1   0x10 ?? (/bin/app+0x10)\n";
        assert_eq!(text, expected);
    }
}
