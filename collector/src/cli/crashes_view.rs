//! Crash records as text: a table of many, and one page about one.
//!
//! Refuses: colours, the clock and the terminal. And it trusts no string in a record: the dead process chose its
//! names, its arguments and its last words, and none of them may send the terminal a command.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use comfy_table::ColumnConstraint;

use super::doctor;
use crate::crash::record::{
    CodeMapping, CrashRecord, Kind, OomInfo, OomScope, ProcessInfo, Sender, SenderKind, SignalInfo,
    StackFrame,
};
use crate::crash::spool::Entry;

/// Columns of a terminal.
const WIDTH: usize = 120;

/// Width of the labels before what they label.
const LABEL_WIDTH: usize = 14;

/// Characters of a record's name in the table; what is longer is cut.
const NAME_CHARS_MAX: usize = 24;
const WHAT_CHARS_MAX: usize = 120;

/// The column of the summary.
const WHAT_COLUMN: usize = 4;

const REGISTERS_PER_LINE: usize = 4;
const THREADS_PER_LINE: usize = 4;

const INDENT: &str = "  ";

const TAB: &str = "    ";

const NS_PER_S: u64 = 1_000_000_000;

/// Resource attributes that have a line of their own; the others are listed after them.
const KNOWN_ATTRIBUTES: [&str; 5] =
    ["service.name", "service.version", "service.namespace", "container.id", "container.runtime.name"];

/// All records, the newest last.
pub(super) fn table(entries: &[Entry], now_unix_ns: u64) -> String {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by(|one, other| one.record.id.cmp(&other.record.id));
    let mut table = doctor::table(&["id (time, UTC, and pid)", "age", "kind", "service", "what", "count"]);
    table.set_width(WIDTH as u16);
    for entry in entries {
        let record = &entry.record;
        table.add_row([
            escaped(&record.id),
            coarse(now_unix_ns.saturating_sub(record.time_unix_ns)),
            kind(record.kind).to_owned(),
            cut(&escaped(service(record)), NAME_CHARS_MAX),
            cut(&escaped(&record.summary), WHAT_CHARS_MAX),
            record.suppressed.saturating_add(1).to_string(),
        ]);
    }
    // What has blanks to wrap at makes room for the others.
    for (_, column) in table.column_iter_mut().enumerate().filter(|&(number, _)| number != WHAT_COLUMN) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.to_string()
}

/// One page about one death. `all` also shows the mappings that the stack does not pass through.
pub(super) fn show(record: &CrashRecord, all: bool) -> String {
    let mut page = Page::default();
    headline(&mut page, record);
    who(&mut page, record);
    how(&mut page, record);
    stack(&mut page, &record.stack);
    kernel_stack(&mut page, &record.kernel_stack);
    threads(&mut page, record);
    last_words(&mut page, record);
    registers(&mut page, record);
    mappings(&mut page, record, all);
    incomplete(&mut page, record);
    files(&mut page, record);
    page.text
}

fn headline(page: &mut Page, record: &CrashRecord) {
    let summary = if record.summary.is_empty() { kind(record.kind) } else { &record.summary };
    page.line("", summary);
    let mut when = format!("{} UTC", time(record.time_unix_ns));
    if let Some(start) = record.start_unix_ns {
        let _ = write!(when, ", {} after the start", age(record.time_unix_ns.saturating_sub(start)));
    }
    page.line("", &when);
    if record.suppressed > 0 {
        page.line("", &format!("{} more of this kind since the record before it", record.suppressed));
    }
}

fn who(page: &mut Page, record: &CrashRecord) {
    let attribute = |name: &str| record.resource.get(name).map(String::as_str);
    let process = &record.process;
    page.section("Who");
    let version = attribute("service.version").map(|version| format!(" {version}"));
    let namespace = attribute("service.namespace").map(|namespace| format!(" in {namespace}"));
    if let Some(service) = attribute("service.name") {
        let rest = version.unwrap_or_default() + &namespace.unwrap_or_default();
        page.entry("service", &format!("{service}{rest}"));
    }
    if let Some(id) = attribute("container.id") {
        let runtime =
            attribute("container.runtime.name").map(|name| format!(" ({name})")).unwrap_or_default();
        page.entry("container", &format!("{id}{runtime}"));
    }
    let path = process.executable_path.as_deref().unwrap_or(&process.executable_name);
    let build_id = process.executable_build_id.as_ref().map(|id| format!(" (build id {id})"));
    page.entry("executable", &format!("{path}{}", build_id.unwrap_or_default()));
    page.entry("process", &process_ids(process));
    page.entry("user", &format!("{}, group {}", process.user_id, process.group_id));
    page.entry("command", &command(&process.command_args));
    page.entry("directory", process.working_directory.as_deref().unwrap_or_default());
    for (name, value) in record.resource.iter().filter(|(name, _)| !KNOWN_ATTRIBUTES.contains(&name.as_str()))
    {
        page.entry(name, value);
    }
}

fn process_ids(process: &ProcessInfo) -> String {
    let mut ids = process.pid.to_string();
    if let Some(pid) = process.namespace_pid.filter(|&pid| pid != process.pid) {
        let _ = write!(ids, " ({pid} in its own namespace)");
    }
    if let Some(parent) = process.parent_pid {
        let _ = write!(ids, ", parent {parent}");
    }
    let _ = write!(ids, ", thread {}", process.thread_id);
    if !process.thread_name.is_empty() {
        let _ = write!(ids, " {:?}", process.thread_name);
    }
    ids
}

/// As one would type it, with quotes where blanks would mislead.
fn command(args: &[String]) -> String {
    let quoted = |arg: &String| {
        let is_plain =
            !arg.is_empty() && !arg.contains(|letter: char| letter.is_whitespace() || "'\"".contains(letter));
        if is_plain { arg.clone() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    };
    args.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn how(page: &mut Page, record: &CrashRecord) {
    page.section("How");
    let mut ends = Vec::new();
    if let Some(signal) = &record.exit.signal {
        ends.push(format!("killed by {signal}"));
    }
    if let Some(code) = record.exit.code {
        ends.push(format!("exited with code {code}"));
    }
    if record.exit.core_dumped {
        ends.push("a core was written".to_owned());
    }
    page.entry("end", &ends.join(", "));
    if let Some(signal) = &record.signal {
        signal_lines(page, "signal", signal);
    }
    if let Some(fault) = &record.handled_fault {
        signal_lines(page, "fault before", fault);
    }
    if let Some(sender) = &record.sender {
        page.entry("sender", &sender_text(sender));
    }
    if let Some(oom) = &record.oom {
        oom_lines(page, oom);
    }
    if let Some(memory) = &record.cgroup_memory {
        let limit = memory.limit_bytes.map_or("no limit".to_owned(), |limit| format!("limit {}", mib(limit)));
        let share = match (memory.usage_bytes, memory.limit_bytes) {
            (Some(usage), Some(limit)) if limit > 0 => {
                format!(" ({:.0} % used)", usage as f64 / limit as f64 * 100.0)
            }
            _ => String::new(),
        };
        let parts = [("usage", memory.usage_bytes), ("peak", memory.peak_bytes)];
        page.entry("cgroup memory", &format!("{}{limit}{share}", sizes(&parts, ", ")));
        let events = memory.events.iter().map(|(name, count)| format!("{name} {count}"));
        page.entry("cgroup events", &events.collect::<Vec<_>>().join(", "));
    }
}

fn signal_lines(page: &mut Page, label: &str, signal: &SignalInfo) {
    let handled = if signal.handled { "; the process had a handler for it" } else { "" };
    let code = match signal.code_name.as_str() {
        "" => format!("code {}", signal.code),
        name => format!("{name} ({})", signal.code),
    };
    page.entry(label, &format!("{} ({}), {code}{handled}", signal.name, signal.number));
    if let Some(address) = &signal.fault_address {
        let place = signal.fault_place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        page.entry("  at", &format!("{address}{place}"));
    }
}

fn sender_text(sender: &Sender) -> String {
    let kind = match sender.kind {
        SenderKind::Kernel => return format!("{} by the kernel", sender.signal),
        SenderKind::Itself => return format!("{} by the process itself", sender.signal),
        SenderKind::Kubelet => "the kubelet",
        SenderKind::ContainerRuntime => "the container runtime",
        SenderKind::Systemd => "systemd",
        SenderKind::User => "another process",
    };
    let container = sender.container_id.as_ref().map(|id| format!(", in container {id}")).unwrap_or_default();
    let (signal, name) = (&sender.signal, &sender.executable_name);
    format!("{signal} by {kind}: {name}, process {}, user {}{container}", sender.pid, sender.user_id)
}

fn oom_lines(page: &mut Page, oom: &OomInfo) {
    let scope = match oom.scope {
        OomScope::Cgroup => "the limit of its cgroup, or of one above, was reached",
        OomScope::Node => "the node had no memory left",
        OomScope::Unknown => "whose limit was reached is not known",
    };
    let child = if oom.is_child { "; not the container's main process" } else { "" };
    page.entry("out of memory", &format!("{scope}{child}"));
    let parts = [
        ("anonymous", oom.anon_bytes),
        ("file", oom.file_bytes),
        ("shared", oom.shmem_bytes),
        ("swap", oom.swap_bytes),
        ("virtual", oom.virtual_bytes),
    ];
    page.entry("its memory", sizes(&parts, ", ").trim_end_matches(", "));
    let adjusted = oom.oom_score_adj.map(|score| format!("oom_score_adj {score}"));
    let invoked = (!oom.invoked_by.is_empty()).then(|| format!("asked for by {}", oom.invoked_by));
    page.entry("chosen", &[adjusted, invoked].into_iter().flatten().collect::<Vec<_>>().join(", "));
}

/// The known ones, each followed by the separator.
fn sizes(parts: &[(&str, Option<u64>)], separator: &str) -> String {
    parts.iter().filter_map(|(name, bytes)| Some(format!("{name} {}{separator}", mib((*bytes)?)))).collect()
}

fn stack(page: &mut Page, frames: &[StackFrame]) {
    if frames.is_empty() {
        return;
    }
    page.section("Stack, innermost first");
    let number_width = frames.len().saturating_sub(1).to_string().len().max(2);
    for (number, frame) in frames.iter().enumerate() {
        let label = format!("{number:>number_width$}  ");
        let function = frame.function.as_deref().filter(|name| !name.is_empty()).unwrap_or(&frame.address);
        let inlined = if frame.inlined { "  [inlined]" } else { "" };
        page.line(&label, &format!("{function}{inlined}"));
        let module = frame.module.as_deref().map(|path| {
            let offset = frame.offset.map(|offset| format!("+{offset:#x}")).unwrap_or_default();
            format!("in {}{offset}", file_name(path))
        });
        let source = frame.file.as_ref().map(|file| {
            let line = frame.line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("at {file}{line}")
        });
        let place = [source, module].into_iter().flatten().collect::<Vec<_>>().join("  ");
        if !place.is_empty() {
            page.line(&" ".repeat(label.len() + 2), &place);
        }
    }
}

fn kernel_stack(page: &mut Page, functions: &[String]) {
    if functions.is_empty() {
        return;
    }
    page.section("Kernel stack of the sender, innermost first");
    for (number, function) in functions.iter().enumerate() {
        page.line(&format!("{number:>2}  "), function);
    }
}

fn threads(page: &mut Page, record: &CrashRecord) {
    let Some(threads) = &record.threads else { return };
    page.section(&format!("Threads: {}", threads.total));
    let mut names: Vec<_> = threads.by_name.iter().collect();
    names.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    let cells = names.iter().map(|(name, count)| format!("{count:>5} {}", escaped(name)));
    page.cells(&cells.collect::<Vec<_>>(), THREADS_PER_LINE);
}

fn last_words(page: &mut Page, record: &CrashRecord) {
    let Some(stderr) = &record.stderr else { return };
    let cut = if stderr.is_truncated { ", the beginning is missing" } else { "" };
    page.section(&format!("Last words: {} written to stderr in all{cut}", size(stderr.written_bytes)));
    for line in stderr.text.lines() {
        page.line("| ", line);
    }
}

fn registers(page: &mut Page, record: &CrashRecord) {
    if record.registers.is_empty() {
        return;
    }
    page.section("Registers");
    let mut registers: Vec<_> = record.registers.iter().collect();
    registers.sort_by_key(|(name, _)| natural(name));
    let cell = |(name, value): &(&String, &String)| format!("{:>6} {}", escaped(name), escaped(value));
    page.cells(&registers.iter().map(cell).collect::<Vec<_>>(), REGISTERS_PER_LINE);
}

/// `r9` before `r10`.
fn natural(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0))
}

fn mappings(page: &mut Page, record: &CrashRecord, all: bool) {
    let addresses: Vec<u64> = record.stack.iter().filter_map(|frame| address(&frame.address)).collect();
    let is_used = |mapping: &CodeMapping| match (address(&mapping.start), address(&mapping.end)) {
        (Some(start), Some(end)) => addresses.iter().any(|address| (start..end).contains(address)),
        _ => false,
    };
    let shown: Vec<_> = record.mappings.iter().filter(|mapping| all || is_used(mapping)).collect();
    if shown.is_empty() {
        return;
    }
    page.section(&format!("Mappings of code: {} of {}", shown.len(), record.mappings.len()));
    for mapping in shown {
        let build_id = mapping.build_id.as_ref().map(|id| format!("  (build id {id})")).unwrap_or_default();
        let CodeMapping { start, end, offset, path, .. } = mapping;
        page.line("", &format!("{start}-{end} +{offset:#x}  {path}{build_id}"));
    }
}

fn incomplete(page: &mut Page, record: &CrashRecord) {
    if record.incomplete.is_empty() {
        return;
    }
    page.section("Missing");
    for reason in &record.incomplete {
        page.line("- ", reason);
    }
}

fn files(page: &mut Page, record: &CrashRecord) {
    page.section("Record");
    if let Some(dump) = &record.dump {
        let cut = if dump.is_truncated { ", cut to stay under the size cap" } else { "" };
        page.entry(&dump.format, &format!("{} ({}{cut})", dump.path, size(dump.bytes)));
    }
    if let Some(span) = &record.span {
        page.entry("trace", &format!("{}, span {}", span.trace_id, span.span_id));
    }
    page.entry("fingerprint", &record.fingerprint);
    page.entry("id", &record.id);
}

/// Text in the making. All that comes in is escaped here and wrapped at [`WIDTH`].
#[derive(Default)]
struct Page {
    text: String,
    /// Lines are indented by this: by nothing in the headline.
    indent: &'static str,
}

impl Page {
    fn section(&mut self, title: &str) {
        self.indent = "";
        self.text.push('\n');
        self.line("", title);
        self.indent = INDENT;
    }

    /// A label and what it labels, or nothing.
    fn entry(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            // A name that takes the place of the value gets a line of its own.
            let label = escaped(label);
            if label.chars().count() < LABEL_WIDTH {
                self.line(&format!("{label:<LABEL_WIDTH$}"), value);
            } else {
                self.line(&format!("{label}  "), value);
            }
        }
    }

    /// A line after a prefix. A text that takes more than one goes on below its own beginning.
    fn line(&mut self, prefix: &str, value: &str) {
        let indent = self.indent;
        let prefix: String = escaped(prefix).chars().take(WIDTH / 2).collect();
        let margin = indent.len() + prefix.chars().count();
        let letters: Vec<char> = escaped(value).chars().collect();
        let room = WIDTH.saturating_sub(margin).max(1);
        let mut rest = letters.as_slice();
        let mut start = format!("{indent}{prefix}");
        loop {
            let (now, later) = rest.split_at(line_end(rest, room));
            let now: String = now.iter().collect();
            let _ = writeln!(self.text, "{}", format!("{start}{now}").trim_end());
            if later.is_empty() {
                return;
            }
            rest = later;
            // Quoted lines stay recognisable as such.
            start = if prefix == "| " { format!("{indent}| ") } else { " ".repeat(margin) };
        }
    }

    /// Short texts in columns, row by row.
    fn cells(&mut self, cells: &[String], per_line: usize) {
        let room = (WIDTH - INDENT.len()) / per_line - INDENT.len();
        let cells: Vec<String> = cells.iter().map(|cell| cut(cell, room)).collect();
        let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for row in cells.chunks(per_line) {
            let row: Vec<String> = row.iter().map(|cell| format!("{cell:<width$}")).collect();
            self.line("", &row.join(INDENT));
        }
    }
}

/// How many of these letters go on one line: up to the last blank, if there is one in the second half.
fn line_end(letters: &[char], room: usize) -> usize {
    if letters.len() <= room {
        return letters.len();
    }
    let blank = letters[..room].iter().rposition(|letter| *letter == ' ').map(|at| at + 1);
    blank.filter(|&at| at > room / 2).unwrap_or(room)
}

/// What a terminal or a reader's eye could take for something else, spelled out: control characters, and those that
/// turn the direction of writing or have no width.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t' => shown.push_str(TAB),
            '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}' => {
                shown.extend(letter.escape_unicode());
            }
            letter if letter.is_control() => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Crash => "crash",
        Kind::OomKill => "OOM kill",
        Kind::Kill => "kill",
        Kind::Terminate => "terminate",
        Kind::Exit => "exit",
        Kind::Agent => "agent",
    }
}

fn service(record: &CrashRecord) -> &str {
    record.resource.get("service.name").unwrap_or(&record.process.executable_name)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// `2026-11-22 18:01:02.123456`
fn time(unix_ns: u64) -> String {
    let time = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_nanos(unix_ns)).to_string();
    time.replace('T', " ").trim_end_matches('Z').to_owned()
}

/// The largest unit.
fn coarse(ns: u64) -> String {
    let seconds = ns / NS_PER_S;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// The two largest units.
fn age(ns: u64) -> String {
    let seconds = ns / NS_PER_S;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0 => format!("{} ms", ns / 1_000_000),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        1_048_576..1_073_741_824 => mib(bytes),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::record::{CgroupMemory, DumpFile, Exit, Stderr, Threads};

    const TIME: u64 = 1_795_370_462_123_456_789;

    fn map<V: Clone>(pairs: &[(&str, V)]) -> std::collections::BTreeMap<String, V> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
    }

    fn frame(address: &str, function: &str, inlined: bool) -> StackFrame {
        StackFrame {
            address: address.to_owned(),
            function: (!function.is_empty()).then(|| function.to_owned()),
            module: Some("/app/checkout".to_owned()),
            offset: Some(0x1234),
            file: (!function.is_empty()).then(|| "src/main.rs".to_owned()),
            line: Some(42),
            inlined,
            build_id: None,
        }
    }

    fn mapping(start: &str, end: &str, path: &str) -> CodeMapping {
        let [start, end, path] = [start, end, path].map(str::to_owned);
        CodeMapping { start, end, offset: 0x1000, path, build_id: None }
    }

    fn full() -> CrashRecord {
        CrashRecord {
            schema: 1,
            id: crate::crash::spool::id(TIME, 4242),
            time_unix_ns: TIME,
            start_unix_ns: Some(TIME - 11_520 * NS_PER_S),
            kind: Kind::OomKill,
            summary: "SIGSEGV (SEGV_MAPERR) at 0x0 in main".to_owned(),
            fingerprint: "0123456789abcdef".to_owned(),
            suppressed: 3,
            resource: map(&[
                ("service.name", "checkout".to_owned()),
                ("service.version", "1.2".to_owned()),
                ("container.id", "ab".repeat(32)),
                ("host.name", "node-1".to_owned()),
            ]),
            process: ProcessInfo {
                pid: 4242,
                namespace_pid: Some(7),
                parent_pid: Some(4200),
                thread_id: 4250,
                thread_name: "worker 3".to_owned(),
                executable_name: "checkout".to_owned(),
                executable_path: Some("/app/checkout".to_owned()),
                executable_build_id: Some("4f3c".to_owned()),
                command_args: ["checkout", "--name", "a b", "it's"].map(str::to_owned).to_vec(),
                working_directory: Some("/app".to_owned()),
                user_id: 1000,
                group_id: 1000,
            },
            exit: Exit { code: None, signal: Some("SIGSEGV".to_owned()), core_dumped: true },
            signal: Some(SignalInfo {
                name: "SIGSEGV".to_owned(),
                number: 11,
                code: 1,
                code_name: "SEGV_MAPERR".to_owned(),
                fault_address: Some("0x0".to_owned()),
                fault_place: Some("null page".to_owned()),
                handled: true,
                time_unix_ns: TIME,
            }),
            sender: Some(Sender {
                kind: SenderKind::Systemd,
                signal: "SIGTERM".to_owned(),
                pid: 1,
                user_id: 0,
                executable_name: "systemd".to_owned(),
                container_id: None,
            }),
            oom: Some(OomInfo {
                scope: OomScope::Cgroup,
                is_child: true,
                anon_bytes: Some(512 << 20),
                oom_score_adj: Some(900),
                invoked_by: "java".to_owned(),
                ..OomInfo::default()
            }),
            cgroup_memory: Some(CgroupMemory {
                usage_bytes: Some(500 << 20),
                peak_bytes: None,
                limit_bytes: Some(512 << 20),
                events: map(&[("oom", 1), ("oom_kill", 1)]),
            }),
            registers: map(
                &["rax", "rip", "r8", "r9", "r10", "r11"].map(|name| (name, "0x00007ffe12345678".to_owned()))
            ),
            stack: vec![
                frame("0x1010", "core::ops::index", true),
                frame("0x1010", "main", false),
                frame("0x9000", "", false),
            ],
            kernel_stack: vec!["oom_kill_process+0x71".to_owned()],
            threads: Some(Threads { total: 23, by_name: map(&[("main", 1), ("tokio", 20), ("gc", 2)]) }),
            mappings: vec![
                mapping("0x1000", "0x2000", "/app/checkout"),
                mapping("0x5000", "0x6000", "/lib/libc.so.6"),
            ],
            stderr: Some(Stderr {
                text: "one\n\u{1b}[31mtwo\u{1b}[0m\tthree\r\n".to_owned() + &"long ".repeat(40),
                written_bytes: 30_000,
                is_truncated: true,
            }),
            dump: Some(DumpFile {
                format: "minidump".to_owned(),
                path: "/var/x.dmp".to_owned(),
                bytes: 5 << 20,
                is_truncated: true,
            }),
            incomplete: vec!["threads: more than were read".to_owned()],
            ..CrashRecord::default()
        }
    }

    fn entry(record: CrashRecord) -> Entry {
        Entry { record, is_pending: false, path: "x".into() }
    }

    /// The page has this text on one line, or with a `!` before it on none.
    fn check(record: &CrashRecord, all: bool, expected: &[&str]) {
        let page = show(record, all);
        for line in page.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(!line.contains(|letter: char| letter.is_control()), "{line:?}");
            assert_eq!(line, line.trim_end());
        }
        for text in expected {
            match text.strip_prefix('!') {
                Some(text) => assert!(!page.contains(text), "{text:?} is in\n{page}"),
                None => assert!(page.lines().any(|line| line.contains(text)), "{text:?} is not in\n{page}"),
            }
        }
    }

    #[test]
    fn a_full_record() {
        check(
            &full(),
            false,
            &[
                "SIGSEGV (SEGV_MAPERR) at 0x0 in main",
                "2026-11-22 18:01:02.123456 UTC, 3 h 12 min after the start",
                "3 more",
                "service       checkout 1.2",
                "/app/checkout (build id 4f3c)",
                "4242 (7 in its own namespace), parent 4200, thread 4250 \"worker 3\"",
                r"checkout --name 'a b' 'it'\''s'",
                "host.name     node-1",
                "killed by SIGSEGV, a core was written",
                "SIGSEGV (11), SEGV_MAPERR (1); the process had a handler for it",
                "0x0 (null page)",
                "SIGTERM by systemd: systemd, process 1, user 0",
                "the limit of its cgroup",
                "anonymous 512.0 MiB",
                "usage 500.0 MiB, limit 512.0 MiB (98 % used)",
                "oom 1, oom_kill 1",
                " 0  core::ops::index  [inlined]",
                "at src/main.rs:42  in checkout+0x1234",
                " 2  0x9000",
                " 0  oom_kill_process+0x71",
                "20 tokio      2 gc         1 main",
                r"| \u{1b}[31mtwo\u{1b}[0m    three",
                "r8 0x00007ffe12345678      r9 0x00007ffe12345678     r10 0x00007ffe12345678",
                "Mappings of code: 1 of 2",
                "!libc.so.6",
                "- threads: more than were read",
                "/var/x.dmp (5.0 MiB, cut to stay under the size cap)",
                "fingerprint   0123456789abcdef",
                "id            20261122T180102.123456Z-4242",
            ],
        );
        check(&full(), true, &["Mappings of code: 2 of 2", "/lib/libc.so.6"]);
        let mut other = full();
        other.signal = None;
        other.handled_fault = full().signal;
        other.exit = Exit { code: Some(134), ..Exit::default() };
        check(&other, false, &["fault before  SIGSEGV (11)", "exited with code 134", "!  signal "]);
    }

    #[test]
    fn an_empty_record() {
        let missing = [
            "Stack",
            "Kernel stack",
            "Threads",
            "Last words",
            "Registers",
            "Mappings",
            "Missing",
            "sender",
            "directory",
        ];
        let missing = missing.map(|title| format!("!{title}"));
        check(&CrashRecord::default(), true, &missing.each_ref().map(String::as_str));
        check(&CrashRecord::default(), true, &["crash", "1970-01-01 00:00:00.000000 UTC"]);
    }

    #[test]
    fn nothing_reaches_the_terminal() {
        let evil = "\u{1b}]0;x\u{7}\r\u{9b}2J\u{202e}\n\u{200b}|".repeat(40);
        let odd = CrashRecord {
            time_unix_ns: u64::MAX,
            start_unix_ns: Some(u64::MAX),
            suppressed: u64::MAX,
            id: evil.clone(),
            summary: evil.clone(),
            fingerprint: evil.clone(),
            resource: map(&[
                ("service.name", evil.clone()),
                (&evil, evil.clone()),
                ("container.id", evil.clone()),
            ]),
            process: ProcessInfo {
                thread_name: evil.clone(),
                executable_path: Some(evil.clone()),
                command_args: vec![evil.clone(), String::new()],
                ..ProcessInfo::default()
            },
            exit: Exit { signal: Some(evil.clone()), ..Exit::default() },
            signal: Some(SignalInfo {
                name: evil.clone(),
                fault_address: Some(evil.clone()),
                ..SignalInfo::default()
            }),
            oom: Some(OomInfo { anon_bytes: Some(u64::MAX), invoked_by: evil.clone(), ..OomInfo::default() }),
            cgroup_memory: Some(CgroupMemory {
                usage_bytes: Some(1),
                limit_bytes: Some(0),
                ..CgroupMemory::default()
            }),
            registers: map(&[(evil.as_str(), evil.clone()), ("r99999999999999999999999", evil.clone())]),
            stack: vec![frame(&evil, &evil, true); 3],
            threads: Some(Threads { total: 1, by_name: map(&[(evil.as_str(), 1)]) }),
            mappings: vec![mapping("0xzz", "", &evil)],
            stderr: Some(Stderr { text: evil.clone(), written_bytes: u64::MAX, is_truncated: false }),
            dump: Some(DumpFile { format: evil.clone(), path: evil.clone(), ..DumpFile::default() }),
            kernel_stack: vec![evil.clone()],
            incomplete: vec![evil.clone()],
            ..CrashRecord::default()
        };
        check(&odd, true, &[]);
        let table = table(&[entry(odd), entry(CrashRecord::default())], 0);
        assert!(!table.contains(|letter: char| letter.is_control() && letter != '\n'), "{table:?}");
    }

    #[test]
    fn a_huge_record_takes_no_time() {
        let mut huge = full();
        huge.stderr = Some(Stderr { text: "\u{1b}".repeat(250_000), ..Stderr::default() });
        huge.summary = "x".repeat(250_000);
        huge.stack = vec![frame("0x1", &"f<".repeat(1_000), false); 200];
        check(&huge, true, &[]);
    }

    /// The table of records with these ids and seconds of age, by row.
    fn check_table(records: &[(&str, u64)], expected: &[&str]) {
        let of = |&(id, age): &(&str, u64)| {
            entry(CrashRecord { id: id.to_owned(), time_unix_ns: TIME - age * NS_PER_S, ..full() })
        };
        let table = table(&records.iter().map(of).collect::<Vec<_>>(), TIME);
        let rows: Vec<String> = table
            .lines()
            .filter(|line| line.contains("checkout"))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(rows.len(), expected.len(), "{table}");
        for (row, expected) in rows.iter().zip(expected) {
            let [start, end] = [0, 1].map(|part| expected.split(" … ").nth(part).unwrap());
            assert!(row.starts_with(start) && row.ends_with(end), "{row:?} {expected:?}\n{table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
    }

    #[test]
    fn tables() {
        check_table(&[], &[]);
        check_table(
            &[
                ("20261122T180102.123456Z-4242", 90),
                ("20261122T180102.123456Z-42421", 90),
                ("20261122T180103.123456Z-1", 5),
                ("20261121T180102.999999Z-1", 86_400),
                ("20261121T180102.123456Z-1", 7_200),
            ],
            &[
                "20261121T180102.123456Z-1 2 h OOM kill checkout … 4",
                "20261121T180102.999999Z-1 1 d OOM kill checkout … 4",
                "20261122T180102.123456Z-4242 1 min OOM kill checkout … 4",
                "20261122T180102.123456Z-42421 1 min OOM kill checkout … 4",
                "20261122T180103.123456Z-1 5 s OOM kill checkout … 4",
            ],
        );
    }

    #[test]
    fn units() {
        assert_eq!(
            [0, 999_999_999, NS_PER_S, 61 * NS_PER_S, u64::MAX].map(age),
            ["0 ms", "999 ms", "1 s", "1 min 1 s", "213503 d 23 h"]
        );
        assert_eq!(
            [0, 1_023, 1_536, 5 << 20, 3 << 30].map(size),
            ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 MiB", "3.0 GiB"]
        );
        assert_eq!(natural("r10"), ("r", 10));
        assert_eq!(cut("añb", 3), "añb");
        assert_eq!(cut("añbc", 3), "añ…");
    }

    proptest::proptest! {
        #[test]
        fn any_strings(text in "(\\PC|\n|\u{1b}|[ -~]{1,90}){0,20}", number in proptest::num::u64::ANY) {
            let record = CrashRecord { summary: text.clone(), id: text.clone(), time_unix_ns: number, stack: vec![frame(&text, &text, true)], ..full() };
            check(&record, true, &[]);
            table(&[entry(record)], 3);
        }
    }
}
