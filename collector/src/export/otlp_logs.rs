//! Crash records -> OTLP log records: semantic conventions first, `kansoku.crash.*` for the rest.
//!
//! Refuses: redaction, which the record has behind it, and records without a bound: texts and lists end at theirs and say so. The
//! spool has the whole.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};

use super::SCOPE_NAME;
use super::resource::{HostResource, attribute, scope};
use crate::crash::record::{CodeMapping, CrashRecord, Kind, SignalInfo, StackFrame};

/// `event_name` of every crash record.
const EVENT_NAME: &str = "kansoku.crash";

/// Bytes of one text, or of all texts of one list. With about ten such attributes a record has 256 KiB at most, and those of
/// a usual crash 4 to 12.
const ATTRIBUTE_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the stack as text: 127 frames of functions with long names.
const STACK_TRACE_BYTES_MAX: usize = 64 * 1024;

/// Kinds of events of a cgroup's memory. The kernel has seven.
const MEMORY_EVENTS_MAX: usize = 16;

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
        body: Some(AnyValue {
            value: Some(Value::StringValue(bounded(&record.summary, ATTRIBUTE_BYTES_MAX))),
        }),
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
    let stack = stack_trace(&record.stack);
    list.text_up_to("exception.stacktrace", Some(stack), STACK_TRACE_BYTES_MAX);
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
    list.number("kansoku.crash.process.group.id", Some(process.group_id));
    add_crash(record, &mut list);
    add_signals(record, &mut list);
    add_memory(record, &mut list);
    add_code(record, &mut list);
    add_files(record, &mut list);
    list.texts("kansoku.crash.incomplete", &record.incomplete);
    list.0
}

fn add_crash(record: &CrashRecord, list: &mut List) {
    list.text("kansoku.crash.kind", Some(record.kind.name().to_owned()));
    list.text("kansoku.crash.fingerprint", Some(record.fingerprint.clone()));
    list.number("kansoku.crash.suppressed", Some(record.suppressed));
    list.text("kansoku.crash.exit.signal", record.exit.signal.clone());
    list.flag("kansoku.crash.exit.core_dumped", record.exit.signal.as_ref().map(|_| record.exit.core_dumped));
    if let Some(sender) = &record.sender {
        list.text("kansoku.crash.sender.kind", Some(sender.kind.name().to_owned()));
        list.text("kansoku.crash.sender.signal", Some(sender.signal.clone()));
        list.number("kansoku.crash.sender.pid", Some(sender.pid));
        list.number("kansoku.crash.sender.user.id", Some(sender.user_id));
        list.text("kansoku.crash.sender.executable.name", Some(sender.executable_name.clone()));
        list.text("kansoku.crash.sender.container.id", sender.container_id.clone());
    }
}

fn add_signals(record: &CrashRecord, list: &mut List) {
    if let Some(signal) = &record.signal {
        list.text("kansoku.crash.signal.name", Some(signal.name.clone()));
        list.text("kansoku.crash.signal.code", Some(signal.code_name.clone()));
        list.flag("kansoku.crash.signal.handled", Some(signal.handled));
        list.text("kansoku.crash.signal.time", Some(timestamp(signal.time_unix_ns)));
        list.text("kansoku.crash.fault.address", signal.fault_address.clone());
        list.text("kansoku.crash.fault.place", signal.fault_place.clone());
    }
    let handled = record.handled_fault.as_ref();
    let text = |of: fn(&SignalInfo) -> Option<&String>| handled.and_then(of).cloned();
    list.text("kansoku.crash.handled_fault.signal", text(|fault| Some(&fault.name)));
    list.text("kansoku.crash.handled_fault.code", text(|fault| Some(&fault.code_name)));
    list.text("kansoku.crash.handled_fault.address", text(|fault| fault.fault_address.as_ref()));
    list.text("kansoku.crash.handled_fault.place", text(|fault| fault.fault_place.as_ref()));
    list.text("kansoku.crash.handled_fault.time", handled.map(|fault| timestamp(fault.time_unix_ns)));
}

fn add_memory(record: &CrashRecord, list: &mut List) {
    if let Some(oom) = &record.oom {
        list.text("kansoku.crash.oom.scope", Some(oom.scope.name().to_owned()));
        list.flag("kansoku.crash.oom.is_child", Some(oom.is_child));
        list.number("kansoku.crash.oom.anon_bytes", oom.anon_bytes);
        list.number("kansoku.crash.oom.file_bytes", oom.file_bytes);
        list.number("kansoku.crash.oom.shmem_bytes", oom.shmem_bytes);
        list.number("kansoku.crash.oom.swap_bytes", oom.swap_bytes);
        list.number("kansoku.crash.oom.virtual_bytes", oom.virtual_bytes);
        list.number("kansoku.crash.oom.score_adj", oom.oom_score_adj);
        list.text("kansoku.crash.oom.invoked_by", Some(oom.invoked_by.clone()));
    }
    if let Some(memory) = &record.cgroup_memory {
        list.number("kansoku.crash.cgroup.memory.usage_bytes", memory.usage_bytes);
        list.number("kansoku.crash.cgroup.memory.limit_bytes", memory.limit_bytes);
        list.number("kansoku.crash.cgroup.memory.peak_bytes", memory.peak_bytes);
        for (name, count) in memory.events.iter().take(MEMORY_EVENTS_MAX) {
            list.number(&format!("kansoku.crash.cgroup.memory.events.{name}"), Some(*count));
        }
    }
}

fn add_code(record: &CrashRecord, list: &mut List) {
    if !record.registers.is_empty() {
        let registers = record.registers.iter().map(|(name, value)| format!("{name}={value}"));
        list.text("kansoku.crash.registers", Some(registers.collect::<Vec<_>>().join(" ")));
    }
    list.texts("kansoku.crash.kernel_stack", &record.kernel_stack);
    list.number("kansoku.crash.threads", record.threads.as_ref().map(|threads| threads.total));
    let threads = record.threads.iter().flat_map(|threads| &threads.by_name);
    let names: Vec<String> = threads.map(|(name, count)| format!("{count} {name}")).collect();
    list.texts("kansoku.crash.thread_names", &names);
    list.texts("kansoku.crash.mappings", &mappings(record));
}

fn add_files(record: &CrashRecord, list: &mut List) {
    let stderr = record.stderr.as_ref();
    list.text("kansoku.crash.stderr", stderr.map(|stderr| stderr.text.clone()));
    list.number("kansoku.crash.stderr_written_bytes", stderr.map(|stderr| stderr.written_bytes));
    list.flag("kansoku.crash.stderr_truncated", stderr.map(|stderr| stderr.is_truncated));
    let dump = record.dump.as_ref();
    list.text("kansoku.crash.dump.format", dump.map(|dump| dump.format.clone()));
    list.text("kansoku.crash.dump.path", dump.map(|dump| dump.path.clone()));
    list.number("kansoku.crash.dump.bytes", dump.map(|dump| dump.bytes));
}

/// The mappings as texts, `start-end +offset build id path`, `-` for no build id. Those of the stack's files come first: a long
/// list is cut.
fn mappings(record: &CrashRecord) -> Vec<String> {
    let is_of_stack = |mapping: &&CodeMapping| {
        record.stack.iter().any(|frame| frame.module.as_deref() == Some(mapping.path.as_str()))
    };
    let (first, rest): (Vec<_>, Vec<_>) = record.mappings.iter().partition(is_of_stack);
    let text = |mapping: &CodeMapping| {
        let CodeMapping { start, end, offset, path, build_id } = mapping;
        format!("{start}-{end} +{offset:#x} {} {path}", build_id.as_deref().unwrap_or("-"))
    };
    first.into_iter().chain(rest).map(text).collect()
}

/// A text up to its bound, with a mark if that cut it.
fn bounded(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
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
        self.text_up_to(key, value, ATTRIBUTE_BYTES_MAX);
    }

    fn text_up_to(&mut self, key: &str, value: Option<String>, bytes_max: usize) {
        let value = value.filter(|value| !value.is_empty());
        self.0.extend(value.map(|value| attribute(key, bounded(&value, bytes_max))));
    }

    fn number(&mut self, key: &str, value: Option<impl TryInto<i64>>) {
        let value = value.and_then(|value| value.try_into().ok());
        self.0.extend(value.map(|value| of(key, Value::IntValue(value))));
    }

    fn flag(&mut self, key: &str, value: Option<bool>) {
        self.0.extend(value.map(|value| of(key, Value::BoolValue(value))));
    }

    /// A list up to the bound of its bytes; what is left out is a last text.
    fn texts(&mut self, key: &str, texts: &[String]) {
        if texts.is_empty() {
            return;
        }
        let mut left = ATTRIBUTE_BYTES_MAX;
        let fits = |text: &&String| {
            let room = left.checked_sub(text.len());
            left = room.unwrap_or(0);
            room.is_some()
        };
        let mut kept: Vec<String> = texts.iter().take_while(fits).cloned().collect();
        if kept.len() < texts.len() {
            kept.push(format!("… {} more", texts.len() - kept.len()));
        }
        let values = kept.into_iter().map(|text| AnyValue { value: Some(Value::StringValue(text)) });
        self.0.push(of(key, Value::ArrayValue(ArrayValue { values: values.collect() })));
    }
}

fn of(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::record::{CgroupMemory, OomInfo, ProcessInfo, SignalInfo, Stderr, Threads};

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
    fn what_the_conventions_have_no_word_for() {
        let number = |number: i64| Some(Value::IntValue(number));
        let text = |text: &str| Some(Value::StringValue(text.to_owned()));
        let list = |texts: &[&str]| {
            let value = |text: &&str| AnyValue { value: Some(Value::StringValue((*text).to_owned())) };
            Some(Value::ArrayValue(ArrayValue { values: texts.iter().map(value).collect() }))
        };
        let mapping = |start: &str, path: &str, build_id: Option<&str>| CodeMapping {
            start: start.to_owned(),
            end: "0xff".to_owned(),
            offset: 4096,
            path: path.to_owned(),
            build_id: build_id.map(str::to_owned),
        };
        let record = CrashRecord {
            process: ProcessInfo { group_id: 12, ..ProcessInfo::default() },
            handled_fault: Some(SignalInfo {
                name: "SIGSEGV".to_owned(),
                code_name: "SEGV_ACCERR".to_owned(),
                fault_address: Some("0x7".to_owned()),
                ..SignalInfo::default()
            }),
            oom: Some(OomInfo { oom_score_adj: Some(-998), ..OomInfo::default() }),
            cgroup_memory: Some(CgroupMemory {
                events: [("oom_kill".to_owned(), 3)].into(),
                ..CgroupMemory::default()
            }),
            stack: vec![StackFrame { module: Some("/bin/app".to_owned()), ..StackFrame::default() }],
            threads: Some(Threads { total: 9, by_name: [("io worker".to_owned(), 8)].into() }),
            mappings: vec![mapping("0x1", "/lib/libc.so", None), mapping("0x2", "/bin/app", Some("c0de"))],
            stderr: Some(Stderr { written_bytes: 9_000, is_truncated: true, ..Stderr::default() }),
            kernel_stack: vec!["out_of_memory+0x1".to_owned()],
            ..record()
        };
        check(&record, "kansoku.crash.process.group.id", number(12));
        check(&record, "kansoku.crash.handled_fault.signal", text("SIGSEGV"));
        check(&record, "kansoku.crash.handled_fault.code", text("SEGV_ACCERR"));
        check(&record, "kansoku.crash.handled_fault.address", text("0x7"));
        check(&record, "kansoku.crash.handled_fault.place", None);
        check(&record, "kansoku.crash.oom.score_adj", number(-998));
        check(&record, "kansoku.crash.cgroup.memory.events.oom_kill", number(3));
        check(&record, "kansoku.crash.threads", number(9));
        check(&record, "kansoku.crash.thread_names", list(&["8 io worker"]));
        let mappings = ["0x2-0xff +0x1000 c0de /bin/app", "0x1-0xff +0x1000 - /lib/libc.so"];
        check(&record, "kansoku.crash.mappings", list(&mappings));
        check(&record, "kansoku.crash.stderr_written_bytes", number(9_000));
        check(&record, "kansoku.crash.stderr_truncated", Some(Value::BoolValue(true)));
        check(&record, "kansoku.crash.kernel_stack", list(&["out_of_memory+0x1"]));
        check(&super::tests::record(), "kansoku.crash.handled_fault.time", None);
    }

    #[test]
    fn a_huge_record_is_bounded() {
        let long = "ü".repeat(100_000);
        let frame = StackFrame { function: Some(long.clone()), ..StackFrame::default() };
        let mapping = CodeMapping { path: "/a/path".repeat(20), ..CodeMapping::default() };
        let huge = CrashRecord {
            summary: long.clone(),
            process: ProcessInfo {
                command_args: vec!["argument".to_owned(); 10_000],
                executable_path: Some(long.clone()),
                working_directory: Some(long.clone()),
                ..ProcessInfo::default()
            },
            stack: vec![frame; 127],
            kernel_stack: vec!["x".repeat(500); 100],
            mappings: vec![mapping; 256],
            stderr: Some(Stderr { text: long.clone(), ..Stderr::default() }),
            incomplete: vec![long.clone(); 3],
            ..record()
        };
        let request = logs_request(std::slice::from_ref(&huge), &HostResource::default());
        let bytes = prost::Message::encoded_len(&request);
        assert!(bytes < 256 * 1024, "{bytes} bytes");
        let log = &request.resource_logs[0].scope_logs[0].log_records[0];
        let arguments = log.attributes.iter().find(|attribute| attribute.key == "process.command_args");
        let shown = format!("{:?}", arguments.and_then(|arguments| arguments.value.clone()));
        assert!(shown.contains("… 7952 more"), "{}", &shown[shown.len() - 200..]);
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
