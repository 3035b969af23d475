//! Who ended it: killers, the OOM killer, exits, containers; and the ends that make no record.
//!
//! Refuses: a record too many. What is healthy must leave none, and a death one.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::STOP_MAX;
use tests::cgroup::{Cgroup, MemoryCgroup};
use tests::container::Container;
use tests::crash::{self, Checks, Death, LIFE_MAX, Spool, expect_none, functions, now_ns, text};
use tests::metrics;
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::workload::{FRAME_POINTERS, Program, Running, utf8};

const DOCKER_ID: &str = "d1d1d1d1b2b2b2b2c3c3c3c3d4d4d4d4e5e5e5e5f6f6f6f6a7a7a7a7b8b8b8b8";
const RUNC_ID: &str = "e1e1e1e1b2b2b2b2c3c3c3c3d4d4d4d4e5e5e5e5f6f6f6f6a7a7a7a7b8b8b8b8";

/// Names of a shell that sends a signal, by its executable or its thread.
const SHELLS: [&str; 5] = ["sh", "dash", "bash", "busybox", "kill"];

/// The program's build id, known to the test.
const BUILD_ID: &str = "6b616e736f6b750000000000000000000000c0de";
const BUILD_ID_FLAG: &str = "-Wl,--build-id=0x6b616e736f6b750000000000000000000000c0de";

fn program(more: &[&str]) -> Program {
    Program::c("crash.c", &[FRAME_POINTERS, &[BUILD_ID_FLAG], more].concat())
}

/// Starts the program and waits until it sleeps in `crash_wait` or the like.
fn start_sleeper(command: &mut Command) -> Running {
    let running = Running::start(command);
    running.wait_until(|process| {
        let is_there = std::fs::read_to_string(format!("{process}/comm")).is_ok_and(|name| name == "crash\n");
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        is_there && status.contains("State:\tS")
    });
    running
}

/// Runs a shell whose built-in `kill` sends a signal; returns the shell's process id.
fn shell_kill(shell: &mut Command, signal: &str, pid: u32) -> u64 {
    let running = Running::start(shell.args(["-c", &format!("kill -{signal} {pid}")]));
    let shell_pid = u64::from(running.pid());
    running.expect_success(LIFE_MAX);
    shell_pid
}

/// Who killed it. A process that only has the name of a kubelet is a user like others, unless it is root's.
#[test]
fn killers() {
    let program = program(&[]);
    std::fs::set_permissions(program.directory(), Permissions::from_mode(0o755)).expect("our directory");
    let shell = std::fs::canonicalize("/bin/sh").expect("a shell");
    let impostor = program.directory().join("kubelet");
    std::fs::copy(&shell, &impostor).expect("our directory");
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let mut problems = Vec::new();
    let mut check = |mode: &str, signal: &str, shell: &mut Command, user: u32, names: &[&str]| {
        let mut command = program.command(&[mode]);
        if user != 0 {
            command.uid(user);
            shell.uid(user);
        }
        let started_ns = now_ns();
        let running = start_sleeper(&mut command);
        let pid = running.pid();
        if mode == "sigterm_ignored" {
            shell_kill(&mut Command::new("sh"), "TERM", pid);
        }
        let sender = shell_kill(shell, signal, pid);
        let status = running.wait(LIFE_MAX);
        let death = Death { pid: pid.into(), status, started_ns, ended_ns: now_ns() };
        let what = format!("{mode} by {signal} of {user}");
        let record = spool.wait_for_pid(&what, death.pid);
        let mut checks = Checks::of(&what, &record);
        let name = format!("SIG{signal}");
        checks.is("/kind", if signal == "KILL" { "kill" } else { "terminate" });
        checks.is("/exit/signal", name.as_str());
        checks.is("/exit/code", Value::Null);
        checks.is("/sender/kind", "user");
        checks.is("/sender/signal", name.as_str());
        checks.is("/sender/pid", sender);
        checks.is("/sender/user_id", user);
        checks.is("/sender/container_id", Value::Null);
        checks.holds("the sender is the shell", names.contains(&text(&record, "/sender/executable_name")));
        checks.contains("/summary", &name);
        checks.is("/oom", Value::Null);
        checks.is("/kernel_stack", json!([]));
        checks.is("/process/executable_name", "crash");
        checks.is("/process/executable_path", utf8(program.path()));
        checks.is("/process/command_args", [utf8(program.path()), mode].as_slice());
        checks.is("/process/working_directory", utf8(program.directory()));
        checks.is("/process/user_id", user);
        checks.is("/process/parent_pid", std::process::id());
        checks.is_in_life(&death);
        problems.extend(checks.problems());
        assert_eq!(spool.of_pid(death.pid).len(), 1, "{what}: one record");
    };
    check("wait", "KILL", &mut Command::new("sh"), 0, &SHELLS);
    check("wait", "TERM", &mut Command::new("sh"), 0, &SHELLS);
    check("sigterm_ignored", "KILL", &mut Command::new("sh"), 0, &SHELLS);
    check("wait", "TERM", &mut Command::new(&impostor), 12_345, &["kubelet"]);
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    expect_none(problems);
}

/// What is no crash: signals that ask to end, a runtime that stops a container, handled faults, good ends, plain exits.
#[test]
fn no_record() {
    let program = program(&[]);
    let runtime = program.directory().join("containerd-shim-runc-v2");
    std::fs::copy(std::fs::canonicalize("/bin/sh").expect("a shell"), &runtime).expect("our directory");
    let spool = Spool::default();
    let agent = spool.start_agent(&["crash.records_per_minute=1000"], &[]);
    let mut healthy = BTreeMap::new();
    for (shell, signal) in
        [(Path::new("sh"), "INT"), (Path::new("sh"), "HUP"), (Path::new("sh"), "PIPE"), (&runtime, "TERM")]
    {
        let running = start_sleeper(&mut program.command(&["wait"]));
        let pid = running.pid();
        shell_kill(&mut Command::new(shell), signal, pid);
        let status = running.wait(LIFE_MAX);
        assert!(status.signal().is_some(), "{signal} ends it: {status}");
        healthy.insert(u64::from(pid), format!("{signal} by {}", shell.display()));
    }
    for (arguments, code) in [(&["handled"][..], 0), (&["exit", "0"], 0), (&["exit", "3"], 3)] {
        let death = Death::of(&mut program.command(arguments));
        assert_eq!(death.status.code(), Some(code), "{arguments:?}");
        healthy.insert(death.pid, format!("{arguments:?}"));
    }
    let sentinel = Death::of(&mut program.command(&["segv"]));
    spool.wait_for_pid("the sentinel", sentinel.pid);
    std::thread::sleep(Duration::from_secs(1));
    let records = spool.records();
    let wrong = records.iter().filter_map(|record| {
        let what = healthy.get(&record["process"]["pid"].as_u64()?)?;
        Some(format!("{what} made a record:\n{record:#}"))
    });
    expect_none(wrong);
    agent.terminate();
    let books = agent.finish(STOP_MAX).expect_code(0).books();
    books.expect_balance();
    let healthy_exits = books.of("crash").lost_as("healthy_exit");
    println!("healthy ends: {healthy_exits}, details: {:#?}", books.of("crash_detail"));
}

/// `crash.exits` decides which non-zero exits make a record; `crash.stderr=false` leaves the last words out.
#[test]
fn exits() {
    let program = program(&[]);
    let container = Cgroup::make(&format!("kansoku-test.docker/docker/{DOCKER_ID}"));
    let unit = Cgroup::make("kansoku-test.slice/kansoku-demo.service");
    let check = |setting: &str, expected: [bool; 3]| {
        let spool = Spool::default();
        let agent = spool.start_agent(&["crash.stderr=false", setting], &[]);
        let plain = Death::of(&mut program.command(&["exit", "3"]));
        assert_eq!(plain.status.code(), Some(3), "{setting}");
        // The main process of a container, and one that init started in a unit's cgroup.
        let path = utf8(program.path());
        let enter = |cgroup: &Cgroup| format!("echo $$ > {}/cgroup.procs && exec", cgroup.path().display());
        let inner = format!("{} unshare --pid --fork --kill-child {path} exit 4", enter(&container));
        let status = Running::start(Command::new("sh").args(["-c", &inner])).wait(LIFE_MAX);
        assert_eq!(status.code(), Some(4), "{setting}");
        let service = format!("sh -c '{} {path} exit 5' &", enter(&unit));
        Running::start(Command::new("sh").args(["-c", &service])).expect_success(LIFE_MAX);
        std::thread::sleep(Duration::from_secs(1));
        let sentinel = Death::of(&mut program.command(&["stderr"]));
        let sentinel = spool.wait_for_pid("the sentinel", sentinel.pid);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(sentinel["stderr"], Value::Null, "{setting}: {sentinel:#}");
        let records = spool.records();
        let of_code = |code: i64| {
            records.iter().find(|record| {
                record["exit"]["code"] == code && record["process"]["executable_name"] == "crash"
            })
        };
        let (plain, container, unit) = (of_code(3), of_code(4), of_code(5));
        let summaries: Vec<_> = records.iter().map(crash::summary).collect();
        let found = [plain.is_some(), container.is_some(), unit.is_some()];
        assert_eq!(found, expected, "{setting}: [plain, container, unit] of {summaries:#?}");
        for record in [plain, container, unit].into_iter().flatten() {
            let mut checks = Checks::of(setting, record);
            checks.is("/kind", "exit");
            checks.is("/exit/signal", Value::Null);
            checks.is("/signal", Value::Null);
            checks.expect();
        }
        if let (Some(container), Some(unit)) = (container, unit) {
            let mut checks = Checks::of(setting, container);
            checks.is("/resource/container.id", DOCKER_ID);
            checks.is("/process/namespace_pid", 1);
            checks.expect();
            let mut checks = Checks::of(setting, unit);
            checks.is("/resource/kansoku.systemd.unit", "kansoku-demo.service");
            checks.expect();
        }
        agent.terminate();
        agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    };
    check("crash.exits=main", [false, true, true]);
    check("crash.exits=all", [true, true, true]);
    check("crash.exits=none", [false, false, false]);
}

/// A cgroup at its limit: first a child is the victim and its parent, the container's main process, survives; then the
/// main process itself.
#[test]
fn oom_kill() {
    const LIMIT_BYTES: u64 = 64 * 1024 * 1024;
    let program = program(&[]);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let cgroup = MemoryCgroup::make(&format!("kansoku-test.docker/docker/{DOCKER_ID}"), LIMIT_BYTES);
    let spool = Spool::default();
    let agent = spool.start_agent(&["profile.window_ms=1000"], &receiver.variables());
    let mut problems = Vec::new();
    for (mode, is_child) in [("oom", true), ("oom_main", false)] {
        let words = ["unshare", "--pid", "--fork", "--kill-child", utf8(program.path()), mode, "256"];
        let status = cgroup.start(&words).wait(LIFE_MAX);
        // unshare passes the end of the main process on.
        assert_eq!(status.code() == Some(0), is_child, "{mode}: the main process ended with {status}");
        let record = spool.wait_for(mode, crash::RECORD_MAX, |record| {
            record["kind"] == "oom_kill" && record["process"]["command_args"][1] == mode
        });
        let mut checks = Checks::of(mode, &record);
        checks.is("/exit/signal", "SIGKILL");
        checks.is("/process/executable_name", "crash");
        checks.is("/process/command_args", [utf8(program.path()), mode, "256"].as_slice());
        checks.is("/process/namespace_pid", if is_child { 2 } else { 1 });
        checks.is("/resource/container.id", DOCKER_ID);
        checks.is("/oom/scope", "cgroup");
        checks.is("/oom/is_child", is_child);
        checks.is("/oom/oom_score_adj", 1000);
        checks.is("/oom/invoked_by", "crash");
        checks.is("/oom/swap_bytes", 0);
        for way in [&["oom_kill"][..], &["charge"], &["fault"]] {
            checks.holds(&format!("the kernel was in {way:?}"), crash::was_in_kernel(&record, way));
        }
        let number = |pointer: &str| record.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let anonymous = number("/oom/anon_bytes");
        checks.holds(
            &format!("anonymous memory {anonymous} is near the limit {LIMIT_BYTES}"),
            anonymous <= LIMIT_BYTES && anonymous * 4 >= LIMIT_BYTES * 3,
        );
        checks.holds("the address space is larger", number("/oom/virtual_bytes") > anonymous);
        checks.holds("file memory is known", record["oom"]["file_bytes"].is_u64());
        checks.is("/cgroup_memory/limit_bytes", LIMIT_BYTES);
        checks.holds("the usage is known", record["cgroup_memory"]["usage_bytes"].is_u64());
        let peak = number("/cgroup_memory/peak_bytes");
        let is_full = peak <= LIMIT_BYTES && peak * 10 >= LIMIT_BYTES * 9;
        checks.holds("the peak is the limit", record["cgroup_memory"]["peak_bytes"].is_null() || is_full);
        checks.holds("the OOM kill is counted", number("/cgroup_memory/events/oom_kill") >= 1);
        problems.extend(checks.problems());
    }
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    for log in &crash::log_records(&receiver.logs()) {
        let mut checks = Checks::of("the log record", &log.attributes);
        checks.is("/kansoku.crash.oom.score_adj", 1000);
        let events = &log.attributes["kansoku.crash.cgroup.memory.events.oom_kill"];
        checks.holds("the cgroup's events are told", events.as_u64() >= Some(1));
        let functions = log.attributes["kansoku.crash.kernel_stack"].to_string();
        checks.holds("the kernel's stack is told", functions.contains("oom_kill_process"));
        problems.extend(checks.problems());
    }
    let requests = receiver.metrics();
    let kills = metrics::counter(&requests, "kansoku.oom_kills");
    let counted = metrics::total(&kills, |series| !series.attribute("service.name").is_empty());
    assert_eq!(counted, 2, "kansoku.oom_kills: {kills:#?}");
    let exits = metrics::counter(&requests, "kansoku.process.exits");
    let counted = metrics::total(&exits, |series| !series.attribute("kansoku.exit.outcome").is_empty());
    assert!(counted > 0, "kansoku.process.exits: {exits:#?}");
    assert_eq!(receiver.complaints(), Vec::<String>::new());
    expect_none(problems);
}

/// Writes a setting of the kernel, and the old one when it goes.
struct Setting(&'static str, String);

impl Setting {
    fn write(path: &'static str, value: &str) -> Self {
        let before = std::fs::read_to_string(path).expect("the setting is there");
        std::fs::write(path, value).expect("we are root");
        Self(path, before)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0, &self.1);
    }
}

/// SIGKILL for a process that is dying of something else already, while its core is written: the record is about what it
/// died of.
#[test]
fn killed_while_it_dumps() {
    let program = program(&[]);
    let spool = Spool::default();
    let agent = spool.start_agent(&[], &[]);
    // A handler that reads nothing holds the process.
    let handler = Setting::write("/proc/sys/kernel/core_pattern", "|/bin/sleep 5");
    let started_ns = now_ns();
    let running = Running::start(&mut program.command(&["segv"]));
    let pid = running.pid();
    running.wait_until(|process| {
        std::fs::read_to_string(format!("{process}/status"))
            .is_ok_and(|text| text.contains("CoreDumping:\t1"))
    });
    shell_kill(&mut Command::new("sh"), "KILL", pid);
    let status = running.wait(LIFE_MAX);
    drop(handler);
    let death = Death { pid: pid.into(), status, started_ns, ended_ns: now_ns() };
    let record = spool.wait_for_pid("segv", death.pid);
    let mut checks = Checks::of("killed while it dumps", &record);
    checks.is("/kind", "crash");
    // A kernel may tell of the last signal only.
    checks.is("/exit/signal", if status.signal() == Some(9) { "SIGKILL" } else { "SIGSEGV" });
    checks.is("/signal/name", "SIGSEGV");
    checks.is("/signal/fault_address", "0x18");
    checks.contains("/summary", "SIGSEGV (SEGV_MAPERR) at 0x18");
    checks.holds("the kernel's stack is that of the fault", crash::was_in_kernel(&record, &["force_sig"]));
    checks.is_in_life(&death);
    let names = functions(&record);
    checks.holds(&format!("{names:?}"), names.starts_with(&["crash_here", "outer", "main"]));
    checks.expect();
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// A kernel that hides its addresses gets none of its functions told, and the record says why.
#[test]
fn a_kernel_that_hides_its_functions() {
    let program = program(&[]);
    let spool = Spool::default();
    let agent = spool.start_agent(&[], &[]);
    let hidden = Setting::write("/proc/sys/kernel/kptr_restrict", "2");
    let death = Death::of(&mut program.command(&["segv"]));
    let record = spool.wait_for_pid("segv", death.pid);
    drop(hidden);
    let mut checks = Checks::of("hidden", &record);
    checks.is("/kernel_stack", json!([]));
    let reasons = record["incomplete"].to_string();
    checks.holds(&format!("{reasons} names the setting"), reasons.contains("kernel.kptr_restrict"));
    checks.expect();
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}

/// A process that lives for 100 ms in a container made by runc: its record is its own, and runc has none.
#[test]
fn a_short_life_in_a_container() {
    let program = program(&["-static"]);
    let directory = TempDir::new().expect("a temporary directory");
    let container = Container::prepare(directory.path(), program.path(), &["/opt/sailor", "brief"], RUNC_ID);
    let spool = Spool::default();
    let agent = spool.start_agent(&[], &[]);
    let (status, pid) = container.run(LIFE_MAX);
    assert_eq!(status.code(), Some(128 + 11), "runc passes on SIGSEGV: {status}");
    let record = spool.wait_for_pid("the container's program", pid);
    let mut checks = Checks::of("runc", &record);
    checks.is("/kind", "crash");
    checks.is("/exit/signal", "SIGSEGV");
    checks.is("/signal/code_name", "SEGV_MAPERR");
    checks.is("/signal/fault_address", "0x18");
    checks.is("/resource/container.id", RUNC_ID);
    checks.is("/resource/service.name", "sailor");
    checks.is("/process/namespace_pid", 1);
    checks.is("/process/executable_name", "sailor");
    checks.is("/process/executable_path", "/opt/sailor");
    checks.is("/process/executable_build_id", BUILD_ID);
    checks.is("/process/command_args", ["/opt/sailor", "brief"].as_slice());
    checks.is("/process/working_directory", "/");
    checks.is("/process/user_id", 0);
    checks.is("/process/thread_name", "sailor");
    checks.is("/threads", json!({"total": 1, "by_name": {"sailor": 1}}));
    let names = functions(&record);
    let expected = ["crash_here", "crash_brief", "outer", "main"];
    checks.holds(&format!("{names:?} starts with {expected:?}"), names.starts_with(&expected));
    checks.holds("the module is named as inside", record["stack"][0]["module"] == "/opt/sailor");
    let time = |key: &str| record[key].as_u64().unwrap_or_default();
    let life_ms = time("time_unix_ns").saturating_sub(time("start_unix_ns")) / 1_000_000;
    checks.holds(
        &format!("it lived for {life_ms} ms, runc's start-up included"),
        (95..5_000).contains(&life_ms),
    );
    checks.expect();
    std::thread::sleep(Duration::from_secs(1));
    let records = spool.records();
    let others = records.iter().filter(|other| {
        let is_near = other["resource"]["container.id"] == RUNC_ID
            || text(other, "/process/executable_name").starts_with("runc");
        is_near && other["id"] != record["id"]
    });
    let others: Vec<_> = others.map(crash::summary).collect();
    assert!(others.is_empty(), "records of something else: {others:#?}");
    drop(container);
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
}
