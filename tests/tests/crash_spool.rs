//! Where crash records go: storms, backends that are down, restarts, full disks, the agent's own end, and the commands
//! that read the spool.
//!
//! Refuses: a record that arrives twice, or a death that is neither in a record nor counted.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::{self, Agent, STOP_MAX};
use tests::crash::{self, Checks, Death, LIFE_MAX, LogRecord, Spool, text};
use tests::metrics;
use tests::receiver::{Behaviour, Protocol, Receiver, free_address, variables};
use tests::workload::{FRAME_POINTERS, Program, Running, utf8};

/// The budget of the whole agent.
const RESIDENT_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// Fast retries, so that a backend that is back is found at once.
const RETRY: [&str; 3] =
    ["otlp.retry_initial_ms=100", "otlp.retry_delay_max_ms=500", "crash.records_per_minute=1000"];

fn program() -> Program {
    Program::c("crash.c", FRAME_POINTERS)
}

/// Runs the program to its end; returns its process id.
#[track_caller]
fn run(command: &mut Command) -> u64 {
    Death::of(command).pid
}

/// A thousand crashes in a second: every one is in a record or counted in one, and the agent stays small.
#[test]
fn a_storm_of_a_thousand() {
    const STORM: u64 = 1_000;
    let program = program();
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let spool = Spool::default();
    let agent = spool.start_agent(&["profile.window_ms=1000"], &receiver.variables());
    let started = Instant::now();
    Running::start(&mut program.command(&["storm", &STORM.to_string()])).expect_success(LIFE_MAX * 2);
    println!("{STORM} crashes in {:?}", started.elapsed());
    let is_own = |record: &Value| record["process"]["command_args"][1] == "storm";
    std::thread::sleep(Duration::from_secs(2));
    let (now, most) = agent.resident_bytes();
    println!("{} KiB resident, {} KiB at most", now / 1024, most / 1024);
    assert!(most < RESIDENT_BYTES_MAX, "{most} bytes resident");
    agent.terminate();
    let books = agent.finish(STOP_MAX).expect_code(0).books();
    println!("{books:#?}");
    books.expect_balance();
    // What was suppressed is told by a last record of the kind, at the latest at the stop.
    let (own, others): (Vec<Value>, Vec<Value>) = spool.records().into_iter().partition(is_own);
    let told = |records: &[Value]| -> u64 {
        records.iter().map(|record| 1 + record["suppressed"].as_u64().unwrap_or(0)).sum()
    };
    assert_eq!(told(&own), STORM, "{} records", own.len());
    let fingerprint = text(&own[0], "/fingerprint");
    for record in &own {
        assert_eq!(record["fingerprint"], fingerprint, "one cause, one fingerprint: {record:#}");
    }
    assert!((10..20).contains(&own.len()), "{} records of {STORM} deaths", own.len());
    let account = books.of("crash");
    let (deaths, written) = (STORM + told(&others), (own.len() + others.len()) as u64);
    assert_eq!(account.seen - account.lost_as("healthy_exit"), deaths, "abnormal deaths: {account:#?}");
    assert_eq!(account.represented, written, "records: {account:#?}");
    assert_eq!(account.lost_as("crash_rate_limited"), deaths - written, "suppressed: {account:#?}");
    assert_eq!(account.exported, Some(written), "exported: {account:#?}");
    assert_eq!(crash::log_records(&receiver.logs()).len() as u64, written, "log records at the receiver");
    let crashes = metrics::counter(&receiver.metrics(), "kansoku.crashes");
    let counted = metrics::total(&crashes, |series| {
        series.attribute("service.name") == "crash"
            && series.attribute("kansoku.crash.kind") == "crash"
            && series.attribute("kansoku.crash.reason") == "SIGSEGV"
    });
    assert_eq!(counted, STORM, "kansoku.crashes: {crashes:#?}");
    assert_eq!(receiver.complaints(), Vec::<String>::new());
}

/// More kinds of deaths in a minute than are told apart: records, what they stand for, and counted losses are all deaths, and
/// the metrics have every one in a series or in the overflow.
#[test]
fn more_kinds_than_are_told_apart() {
    const KINDS: u64 = 1_100;
    const OFTEN: u64 = 20;
    let program = program();
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let spool = Spool::default();
    let agent = spool.start_agent(&["profile.window_ms=1000"], &receiver.variables());
    for _ in 0..OFTEN {
        run(&mut program.command(&["tgkill"]));
    }
    for kind in 0..KINDS {
        let path = program.directory().join(format!("kind-{kind}"));
        std::fs::hard_link(program.path(), &path).expect("our directory");
        run(Command::new(&path).arg("tgkill"));
    }
    std::thread::sleep(Duration::from_secs(1));
    agent.terminate();
    let books = agent.finish(STOP_MAX).expect_code(0).books();
    books.expect_balance();
    let account = books.of("crash");
    let deaths = account.seen - account.lost_as("healthy_exit");
    assert!(deaths >= KINDS + OFTEN, "{account:#?}");
    let records = crash::log_records(&receiver.logs());
    let suppressed =
        |record: &LogRecord| record.attributes["kansoku.crash.suppressed"].as_u64().unwrap_or_default();
    let stood_for: u64 = records.iter().map(suppressed).sum();
    let lost = ["crash_kinds_full", "crash_reporter_behind"].map(|reason| account.lost_as(reason));
    println!("{} records stand for {stood_for} more; lost {lost:?} of {deaths}", records.len());
    assert_eq!(records.len() as u64 + stood_for + lost[0] + lost[1], deaths, "{account:#?}");
    assert_eq!(account.lost_as("crash_rate_limited"), stood_for, "{account:#?}");
    assert!(stood_for >= OFTEN - 11 && lost[0] >= KINDS - 1_024, "{account:#?}");
    let crashes = metrics::counter(&receiver.metrics(), "kansoku.crashes");
    assert_eq!(metrics::total(&crashes, |_| true), deaths, "kansoku.crashes");
}

/// The backend is down when a process dies, and up after a restart of the agent: the record arrives, and never again.
#[test]
fn exactly_once_across_restarts() {
    let program = program();
    let check = |protocol: Protocol| {
        let spool = Spool::default();
        let address = free_address();
        let variables = variables(address, protocol);
        let agent = spool.start_agent(&RETRY, &variables);
        let pid = run(&mut program.command(&["segv", "0", "one two"]));
        let record = spool.wait_for_pid("segv", pid);
        let id = text(&record, "/id").to_owned();
        assert_eq!(spool.pending(), [id.as_str()], "{protocol:?}: it waits; files {:?}", spool.files());
        agent.terminate();
        let books = agent.finish(STOP_MAX).expect_code(0).books();
        books.expect_balance();
        assert_eq!(books.of("crash").lost_as("export_spooled"), 1, "{protocol:?}: {books:#?}");
        assert_eq!(spool.pending(), [id.as_str()], "{protocol:?}: it waits for the next start");

        let receiver = Receiver::start_at(address, protocol, Behaviour::Accept);
        let arrived = || -> Vec<LogRecord> {
            let logs = crash::log_records(&receiver.logs());
            logs.into_iter().filter(|log| log.attributes["log.record.uid"] == id).collect()
        };
        let agent = spool.start_agent(&RETRY, &variables);
        wait_until(&format!("{protocol:?}: the record arrives"), || !arrived().is_empty());
        check_log_record(&arrived()[0], &record);
        wait_until(&format!("{protocol:?}: nothing is pending"), || spool.pending().is_empty());
        agent.terminate();
        agent.finish(STOP_MAX).expect_code(0).books().expect_balance();

        // Once more, and with a new death, which is sent at once.
        let agent = spool.start_agent(&RETRY, &variables);
        let pid = run(&mut program.command(&["segv"]));
        let second = spool.wait_for_pid("segv after the restart", pid);
        wait_until(&format!("{protocol:?}: the second record is marked as sent"), || {
            spool.pending().is_empty()
        });
        std::thread::sleep(Duration::from_secs(1));
        agent.terminate();
        agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
        assert_eq!(arrived().len(), 1, "{protocol:?}: exactly once");
        let ids: Vec<_> = crash::log_records(&receiver.logs())
            .into_iter()
            .map(|log| log.attributes["log.record.uid"].clone())
            .collect();
        assert_eq!(ids, [json!(id), second["id"].clone()], "{protocol:?}: both, once");
        assert_eq!(spool.files().len(), 2, "{protocol:?}: files {:?}", spool.files());
        assert_eq!(receiver.complaints(), Vec::<String>::new(), "{protocol:?}");
    };
    check(Protocol::Grpc);
    check(Protocol::Http);
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A log record says what the file says, in the words of the semantic conventions.
#[track_caller]
fn check_log_record(log: &LogRecord, record: &Value) {
    let shown = json!({
        "record": record,
        "resource": log.resource,
        "attributes": log.attributes,
        "severity": log.log.severity_number,
        "severity_text": log.log.severity_text,
        "event_name": log.log.event_name,
        "body": crash::json(log.log.body.as_ref()),
        "time": log.log.time_unix_nano,
    });
    let mut checks = Checks::of("the log record", &shown);
    checks.is("/severity", 21);
    checks.is("/severity_text", "FATAL");
    checks.is("/event_name", "kansoku.crash");
    checks.is("/body", record["summary"].clone());
    checks.is("/time", record["time_unix_ns"].clone());
    for (key, value) in record["resource"].as_object().into_iter().flatten() {
        checks.is(&format!("/resource/{key}"), value.clone());
    }
    for (key, pointer) in [
        ("exception.message", "/summary"),
        ("process.pid", "/process/pid"),
        ("process.vpid", "/process/namespace_pid"),
        ("process.parent_pid", "/process/parent_pid"),
        ("process.executable.name", "/process/executable_name"),
        ("process.executable.path", "/process/executable_path"),
        ("process.command_args", "/process/command_args"),
        ("process.working_directory", "/process/working_directory"),
        ("thread.id", "/process/thread_id"),
        ("thread.name", "/process/thread_name"),
        ("log.record.uid", "/id"),
        ("kansoku.crash.kind", "/kind"),
        ("kansoku.crash.fingerprint", "/fingerprint"),
        ("kansoku.crash.signal.code", "/signal/code_name"),
        ("kansoku.crash.fault.address", "/signal/fault_address"),
        ("kansoku.crash.kernel_stack", "/kernel_stack"),
        ("kansoku.crash.process.group.id", "/process/group_id"),
        ("kansoku.crash.threads", "/threads/total"),
    ] {
        let expected = record.pointer(pointer).cloned().unwrap_or_default();
        checks.is(&format!("/attributes/{key}"), expected);
    }
    checks.is("/attributes/kansoku.crash.thread_names", json!(["1 crash"]));
    let build_id = text(record, "/process/executable_build_id");
    let is_told = text(&shown, "/attributes/kansoku.crash.mappings/0").contains(build_id);
    checks.holds("the first mapping is the program's, with its build id", is_told && !build_id.is_empty());
    checks.is("/attributes/exception.type", "SIGSEGV");
    for function in ["crash_here", "outer", "main"] {
        checks.contains("/attributes/exception.stacktrace", function);
    }
    for key in ["process.exit.time", "process.creation.time"] {
        let is_time = text(&shown, &format!("/attributes/{key}")).starts_with("20");
        checks.holds(&format!("{key} is a time as text"), is_time);
    }
    checks.expect();
}

const FILLER: &str = "filler";

/// A tiny file system, unmounted with its handle.
struct TinyDisk {
    directory: TempDir,
}

impl TinyDisk {
    fn mount() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), c"size=64k,mode=0700")
            .expect("root may mount");
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes it read-only; full, if somebody holds a file open there for writing.
    fn freeze(&self) {
        if let Err(error) = rustix::mount::mount_remount(self.path(), MountFlags::RDONLY, c"") {
            println!("cannot be made read-only, is filled instead: {error}");
            self.fill();
        }
    }

    fn fill(&self) {
        let _full = std::fs::write(self.path().join(FILLER), vec![0; 128 * 1024]);
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // It stays mounted only if a killed test still writes there.
        let _busy = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// A full disk and one that turned read-only: the agent lives on, counts what it cannot keep, and leaves no part of a
/// file. Where there is room again, it writes again.
#[test]
fn a_disk_without_room() {
    let program = program();
    let disk = TinyDisk::mount();
    let spool = Spool::at(disk.path());
    let mut agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let before = spool.files();
    disk.fill();
    for _ in 0..3 {
        run(&mut program.command(&["segv"]));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(agent.is_running(), "ended on a full disk:\n{}", agent.stderr());
    let left: Vec<String> = spool.files().into_iter().filter(|name| name != FILLER).collect();
    assert_eq!(left, before, "left behind on a full disk:\n{}", agent.stderr());
    std::fs::remove_file(disk.path().join(FILLER)).expect("ours");
    let pid = run(&mut program.command(&["segv"]));
    spool.wait_for_pid("segv after the disk was full", pid);
    let written = spool.records().len();
    disk.freeze();
    for _ in 0..2 {
        run(&mut program.command(&["segv"]));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(agent.is_running(), "ended on a read-only disk:\n{}", agent.stderr());
    assert_eq!(spool.records().len(), written, "written to a read-only disk");
    agent.terminate();
    let finished = agent.finish(STOP_MAX).expect_code(0);
    let books = finished.books();
    books.expect_balance();
    let account = books.of("crash");
    assert_eq!(account.lost_as("spool_failed"), 5, "{account:#?}\n{}", finished.stderr);
}

/// A spool that cannot be made at all, with a backend: what the disk refuses still arrives there.
#[test]
fn no_spool_but_a_backend() {
    let program = program();
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").expect("our directory");
    let spool = Spool::at(&file.join("spool"));
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let mut agent = spool.start_agent(&[], &receiver.variables());
    let pid = run(&mut program.command(&["segv"]));
    wait_until("the record arrives without a spool", || {
        crash::log_records(&receiver.logs()).iter().any(|log| log.attributes["process.pid"] == pid)
    });
    assert!(agent.is_running(), "{}", agent.stderr());
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// The spool keeps the newest records only.
#[test]
fn a_bounded_spool() {
    let program = program();
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.spool_files_max=3", "crash.records_per_minute=1000"], &[]);
    let pids: Vec<u64> = (0..6)
        .map(|_| {
            let pid = run(&mut program.command(&["segv"]));
            spool.wait_for_pid("segv", pid);
            pid
        })
        .collect();
    wait_until("three files are left", || spool.records().len() == 3);
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    let left: Vec<u64> =
        spool.records().iter().filter_map(|record| record["process"]["pid"].as_u64()).collect();
    assert_eq!(left, pids[3..], "the newest three are left of {pids:?}");
}

/// The agent's own end makes a record at its next start, unless it was told to stop.
#[test]
fn the_agent_itself() {
    let spool = Spool::default();
    let of_agents =
        || -> Vec<Value> { spool.records().into_iter().filter(|record| record["kind"] == "agent").collect() };
    let check = |signal: Signal, count: usize| {
        let mut agent = spool.start_agent(&[], &[]);
        let pid = u64::from(agent.pid());
        let deadline = Instant::now() + LIFE_MAX;
        // Rust's runtime takes the first SIGSEGV for a stack overflow, finds that it is none, and lets the next one kill.
        while agent.is_running() {
            assert!(Instant::now() < deadline, "{signal:?} does not kill the agent");
            agent.signal(signal);
            std::thread::sleep(Duration::from_millis(50));
        }
        let finished = agent.finish(STOP_MAX);
        assert_eq!(finished.code, None, "killed by {signal:?}");
        let next = spool.start_agent(&[], &[]);
        let record = spool.wait_for("the agent", crash::RECORD_MAX, |record| {
            record["kind"] == "agent" && record["process"]["pid"] == pid
        });
        let mut checks = Checks::of("the agent's own record", &record);
        checks.is("/process/executable_name", "kansoku");
        checks.is("/resource/service.name", "kansoku");
        checks.holds("it has a summary", !text(&record, "/summary").is_empty());
        checks.expect();
        next.terminate();
        next.finish(STOP_MAX).expect_code(0).books().expect_balance();
        assert_eq!(of_agents().len(), count, "after {signal:?}: {:#?}", of_agents());
    };
    check(Signal::KILL, 1);
    check(Signal::SEGV, 2);
    // The stops above were normal, by SIGTERM; so is one by SIGINT.
    let agent = spool.start_agent(&[], &[]);
    agent.interrupt();
    agent.finish(STOP_MAX).expect_code(0);
    let agent = spool.start_agent(&[], &[]);
    std::thread::sleep(Duration::from_secs(1));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
    assert_eq!(of_agents().len(), 2, "a normal stop made a record: {:#?}", of_agents());
}

/// JSON documents of an output: one array, or one document after the other.
fn documents(output: &str) -> Vec<Value> {
    let stream = serde_json::Deserializer::from_str(output).into_iter::<Value>();
    let documents: Vec<Value> =
        stream.map(|value| value.unwrap_or_else(|error| panic!("{error} in:\n{output}"))).collect();
    match documents.as_slice() {
        [Value::Array(all)] => all.clone(),
        _ => documents,
    }
}

/// Runs `kansoku crashes` on a spool; fails unless it ends well. Returns standard output.
#[track_caller]
fn crashes(spool: &Path, arguments: &[&str]) -> String {
    let arguments = [&["crashes"], arguments, &["--spool", utf8(spool)]].concat();
    agent::run_to_end(&arguments, STOP_MAX).expect_code(0).stdout_text()
}

#[test]
fn commands() {
    let program = program();
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let records: Vec<Value> = ["segv", "tgkill", "stderr"]
        .iter()
        .map(|mode| {
            let pid = run(&mut program.command(&[mode, "2", "--password=hunter2"]));
            spool.wait_for_pid(mode, pid)
        })
        .collect();
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
    let ids: Vec<&str> = records.iter().map(|record| text(record, "/id")).collect();
    let path = spool.path();

    let listed = crashes(path, &["list"]);
    for record in &records {
        let line = listed.lines().find(|line| line.contains(text(record, "/id")));
        let line = line.unwrap_or_else(|| panic!("no {} in:\n{listed}", record["id"]));
        assert!(
            line.contains(text(record, "/exit/signal")) && line.contains("crash"),
            "{line:?} of\n{listed}"
        );
    }
    let listed = documents(&crashes(path, &["list", "--json"]));
    let mut listed_ids: Vec<&str> = listed.iter().map(|record| text(record, "/id")).collect();
    listed_ids.sort_unstable();
    assert_eq!(listed_ids, ids, "{listed:#?}");

    let shown = crashes(path, &["show", ids[0]]);
    for expected in ["SIGSEGV", "SEGV_MAPERR", "0x18", "crash_here", "outer", "main", utf8(program.path())] {
        assert!(shown.contains(expected), "no {expected:?} in:\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "a secret:\n{shown}");
    let shown = crashes(path, &["show", ids[2]]);
    assert!(shown.contains("line 00000002") && !shown.contains("hunter2"), "standard error:\n{shown}");
    assert_eq!(documents(&crashes(path, &["show", ids[1], "--json"])), [records[1].clone()]);

    let directory = TempDir::new().expect("a temporary directory");
    let json_file = directory.path().join("crashes.json");
    crashes(path, &["export", "--format", "json", "-o", utf8(&json_file)]);
    let exported = documents(&std::fs::read_to_string(&json_file).expect("the exported file"));
    assert_eq!(exported, records, "exported as JSON");
    let otlp_file = directory.path().join("crashes.otlp");
    crashes(path, &["export", "--format", "otlp", "-o", utf8(&otlp_file)]);
    let exported = crash::log_records_of_file(&std::fs::read(&otlp_file).expect("the exported file"));
    let uids: Vec<&str> = exported.iter().map(|log| text(&log.attributes, "/log.record.uid")).collect();
    assert_eq!(uids, ids, "exported as OTLP");
    check_log_record(&exported[0], &records[0]);

    // An id that is not there, a spool that is not there, a file that is no record.
    let unknown = ["crashes", "show", "20010101T000000.000000Z-1", "--spool", utf8(path)];
    let finished = agent::run_to_end(&unknown, STOP_MAX).expect_code(1);
    assert!(finished.stderr.contains("20010101T000000.000000Z-1"), "{}", finished.stderr);
    let traversal = ["crashes", "show", "../../etc/passwd", "--spool", utf8(path)];
    let finished = agent::run_to_end(&traversal, STOP_MAX);
    assert!(finished.code == Some(1) || finished.code == Some(2), "{finished:?}");
    let missing = ["crashes", "list", "--spool", "/no/such/spool"];
    let finished = Agent::spawn(agent::command(&missing)).finish(STOP_MAX);
    assert!(finished.code == Some(0) || finished.stderr.contains("/no/such/spool"), "{finished:?}");
    std::fs::write(path.join("20990101T000000.000000Z-7.json"), "{\"schema\": 1, \"id\"").expect("our spool");
    std::fs::write(path.join("20990101T000000.000000Z-8.json"), [0xff, 0x00, 0x7b]).expect("our spool");
    let listed = crashes(path, &["list"]);
    assert!(ids.iter().all(|id| listed.contains(id)), "beside broken files:\n{listed}");

    let empty = TempDir::new().expect("a temporary directory");
    assert_eq!(documents(&crashes(empty.path(), &["list", "--json"])), Vec::<Value>::new());
}
