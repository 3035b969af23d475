//! How runtimes end: what they handle and raise again is one record, and what they handle for good is none.
//!
//! Refuses: a runtime that is only simulated. Rust, Go, Python, Node and Java themselves run here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::agent::STOP_MAX;
use tests::crash::{Checks, Death, Spool, expect_none, file_name};
use tests::tools;
use tests::workload::{Program, source, utf8};

/// A program of a runtime and what its record must say.
struct Runtime<'r> {
    what: &'static str,
    command: Command,
    name: &'r str,
    exit_code: Option<i32>,
    exit_signal: Option<&'static str>,
    /// Signal, whether it was handled, address.
    signal: Option<(&'static str, bool, Option<&'static str>)>,
    /// The fault that it handled before another signal ended it.
    handled_fault: Option<&'static str>,
    stderr: &'static [&'static str],
    top_function: Option<&'static str>,
}

impl Runtime<'_> {
    fn check(&self, death: &Death, record: &Value) -> Option<String> {
        let mut checks = Checks::of(&format!("{}, {}", self.what, death.status), record);
        checks.is("/kind", if self.exit_signal.is_some() { "crash" } else { "exit" });
        checks.is("/exit/code", self.exit_code);
        checks.is("/exit/signal", self.exit_signal);
        checks.is("/process/executable_name", self.name);
        checks.is("/process/pid", death.pid);
        checks.is("/process/parent_pid", std::process::id());
        checks.is_in_life(death);
        if let Some((name, is_handled, address)) = self.signal {
            checks.is("/signal/name", name);
            checks.is("/signal/handled", is_handled);
            if let Some(address) = address {
                checks.is("/signal/fault_address", address);
            }
        }
        checks.is("/handled_fault/name", self.handled_fault);
        if self.handled_fault.is_some() {
            checks.is("/handled_fault/handled", true);
            // The cause, not one of those that the JVM makes while it writes its report.
            checks.is("/handled_fault/fault_address", "0x0");
            let times = ["/handled_fault/time_unix_ns", "/signal/time_unix_ns"];
            let [fault, signal] = times.map(|time| record.pointer(time).and_then(Value::as_u64));
            checks.holds("it comes before the signal", fault.is_some() && fault <= signal);
        }
        for text in self.stderr {
            checks.contains("/stderr/text", text);
        }
        if let Some(function) = self.top_function {
            checks.is("/stack/0/function", function);
        }
        if self.what == "Python's ctypes" {
            let module = file_name(&record["stack"][0]["module"]);
            checks.holds("the top frame is the C library's", module.starts_with("libc"));
        }
        if self.what.starts_with("Node") && self.exit_signal.is_some() {
            let threads = record["threads"]["total"].as_u64();
            checks.holds("Node has helper threads", threads.is_some_and(|total| total > 4));
        }
        checks.problems()
    }
}

#[test]
fn runtimes() {
    tools::require("node", "nodejs");
    tools::require("java", "openjdk-17-jdk-headless");
    let rust = Program::rust("crash_panic.rs");
    let go = Program::go("crash_nil.go");
    let directory = TempDir::new().expect("a temporary directory");
    let interpreter =
        tools::output_of("python3", &["-c", "import os, sys; print(os.path.realpath(sys.executable))"]);
    let interpreter = Path::new(interpreter.trim());
    let script = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        // A core or a report of the runtime stays here.
        command.args(arguments).current_dir(directory.path());
        command
    };
    let java = |mode: &str| {
        let classes = utf8(directory.path());
        script("java", &["-Xmx64m", "-XX:ErrorFile=hs_err.log", "-cp", classes, "Crash", mode])
    };
    let crash_java = source("Crash.java");
    tools::succeed(Command::new("javac").args(["-nowarn", "-d", utf8(directory.path()), utf8(&crash_java)]));
    let (python, node) = (utf8(interpreter), "node");
    let (ctypes, exception, abort) =
        (source("crash_ctypes.py"), source("crash_exception.py"), source("crash_abort.js"));
    let python_name = file_of(python);
    let exit = |what, command, name, code, stderr: &'static [&'static str]| Runtime {
        what,
        command,
        name,
        exit_code: Some(code),
        exit_signal: None,
        signal: None,
        handled_fault: None,
        stderr,
        top_function: None,
    };
    let mut cases = [
        exit("a Rust panic", rust.command(&[]), "crash_panic", 101, &["panicked at", "plank 7 is not there"]),
        Runtime {
            signal: Some(("SIGSEGV", true, Some("0x18"))),
            top_function: Some("main.readNil"),
            ..exit(
                "a Go nil dereference",
                go.command(&[]),
                "crash_nil",
                2,
                &["panic: runtime error: invalid memory address", "goroutine 1"],
            )
        },
        Runtime {
            what: "Python's ctypes",
            command: script(python, &[utf8(&ctypes)]),
            name: python_name,
            exit_code: None,
            exit_signal: Some("SIGSEGV"),
            signal: Some(("SIGSEGV", false, Some("0x0"))),
            handled_fault: None,
            stderr: &[],
            top_function: None,
        },
        exit(
            "a Python exception",
            script(python, &[utf8(&exception)]),
            python_name,
            1,
            &["Traceback (most recent call last)", "KeyError"],
        ),
        Runtime {
            what: "Node's process.abort()",
            command: script(node, &[utf8(&abort), "abort"]),
            name: "node",
            exit_code: None,
            exit_signal: Some("SIGABRT"),
            signal: Some(("SIGABRT", false, None)),
            handled_fault: None,
            stderr: &["sinkBoat"],
            top_function: None,
        },
        exit(
            "a Node exception",
            script(node, &[utf8(&abort), "throw"]),
            "node",
            1,
            &["Error: the keel is gone", "Node.js v"],
        ),
        Runtime {
            what: "Java's Unsafe",
            command: java("write"),
            name: "java",
            exit_code: None,
            exit_signal: Some("SIGABRT"),
            signal: Some(("SIGABRT", false, None)),
            handled_fault: Some("SIGSEGV"),
            stderr: &[],
            top_function: None,
        },
        exit(
            "a Java exception",
            java("throw"),
            "java",
            1,
            &["Exception in thread \"main\"", "the keel is gone"],
        ),
    ];
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    // Its handled faults make no record. The sentinel behind it is the first of the cases.
    let healthy = Death::of(&mut java("caught"));
    assert_eq!(healthy.status.code(), Some(0), "the healthy JVM");
    let mut problems = Vec::new();
    let mut pids = Vec::new();
    for case in &mut cases {
        let death = Death::of(&mut case.command);
        let record = spool.wait_for_pid(case.what, death.pid);
        problems.extend(case.check(&death, &record));
        pids.push((case.what, death.pid));
    }
    std::thread::sleep(Duration::from_secs(1));
    for (what, pid) in pids {
        let records = spool.of_pid(pid);
        if records.len() != 1 {
            problems.push(format!("{what}: {} records of one death: {records:#?}", records.len()));
        }
    }
    assert_eq!(spool.of_pid(healthy.pid), Vec::<Value>::new(), "a healthy JVM made a record");
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    expect_none(problems);
}

fn file_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
