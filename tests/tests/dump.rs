//! Dumps of dying processes: through the kernel's socket and through its pipe, opened by readers that are not ours.
//!
//! These tests take the machine's `core_pattern` over, as the agent does for its user, and check that it comes back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use minidump::{Minidump, MinidumpMiscInfo, Module};
use minidump_processor::ProcessState;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX, command, run_to_end};
use tests::api_server::{ApiServer, NODE};
use tests::cgroup::Cgroup;
use tests::crash::{Death, Spool, text};
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, utf8};

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Time for a command that only reads.
const COMMAND_MAX: Duration = Duration::from_secs(10);

/// `core_pattern` before the test, put back whatever happens.
struct Before(String);

impl Before {
    fn read() -> Self {
        Self(pattern())
    }

    #[track_caller]
    fn expect_back(&self) {
        assert_eq!(pattern(), self.0, "core_pattern after the agent");
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        // The test has failed already if this one does.
        let _read_only = std::fs::write(CORE_PATTERN, &self.0);
    }
}

fn pattern() -> String {
    std::fs::read_to_string(CORE_PATTERN).expect("proc(5)")
}

/// An agent that takes dumps, its spool, and the settings for commands beside it.
fn start(spool: &Spool, directory: &Path, settings: &[&str]) -> Agent {
    let dumps = format!("dump.directory={}", utf8(&directory.join("dumps")));
    let socket = format!("dump.socket={}", utf8(&directory.join("core.sock")));
    spool.start_agent(&[&[dumps.as_str(), socket.as_str()], settings].concat(), &[])
}

fn read_minidump(path: &str) -> (Minidump<'static, Vec<u8>>, ProcessState) {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let dump = Minidump::read(bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
    let symbols = minidump_unwind::Symbolizer::new(minidump_unwind::simple_symbol_supplier(Vec::new()));
    let state = pollster::block_on(minidump_processor::process_minidump(&dump, &symbols));
    (dump, state.unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// What an independent reader sees must be what the record says.
fn check_minidump(record: &Value, program: &Program, threads_min: usize) {
    let path = text(record, "/dump/path");
    assert_eq!(text(record, "/dump/format"), "minidump", "{record:#}");
    let (dump, state) = read_minidump(path);
    let information: MinidumpMiscInfo = dump.get_stream().expect("who it was");
    assert_eq!(
        information.raw.process_id(),
        record["process"]["pid"].as_u64().map(|pid| pid as u32).as_ref()
    );
    assert!(state.threads.len() >= threads_min, "{} threads", state.threads.len());
    let crashed = &state.threads[state.requesting_thread.expect("a thread that crashed")];
    let top = &crashed.frames[0];
    let expected = u64::from_str_radix(text(record, "/stack/0/address").trim_start_matches("0x"), 16);
    assert_eq!(Ok(top.instruction), expected, "the innermost frame");
    let module = top.module.as_ref().expect("the frame is in a module");
    assert_eq!(module.code_file(), utf8(program.path()));
    let build_id = module.code_identifier().map(|id| id.to_string()).unwrap_or_default();
    assert!(build_id.eq_ignore_ascii_case(text(record, "/stack/0/build_id")), "{build_id} {record:#}");
    assert!(crashed.frames.len() > 1, "the stack is in the dump: {:?}", crashed.frames);
}

#[test]
fn minidumps_by_every_way() {
    let program = Program::c("crash.c", FRAME_POINTERS);
    for way in ["auto", "pipe"] {
        let before = Before::read();
        let (spool, directory) = (Spool::default(), TempDir::new().expect("a temporary directory"));
        let pattern_key = format!("dump.pattern={way}");
        let agent = start(&spool, directory.path(), &[&pattern_key, "dump.default=minidump"]);
        assert_ne!(pattern(), before.0, "{way}: core_pattern is the agent's");
        for (mode, threads) in [("segv", 1), ("threads", 21)] {
            let death = Death::of(&mut program.command(&[mode]));
            let record = spool.wait_for_pid(mode, death.pid);
            assert_eq!(record["exit"]["core_dumped"], true, "{way}: {record:#}");
            check_minidump(&record, &program, threads);
        }
        agent.terminate();
        let finished = agent.finish(STOP_MAX).expect_code(0);
        finished.books().expect_balance();
        before.expect_back();
    }
}

/// A pod asks for a minidump of its processes. The program that the kernel starts for a pipe knows what the agent knew.
#[test]
fn a_pod_asks_by_annotation() {
    let program = Program::c("crash.c", FRAME_POINTERS);
    let (id, uid) = ("d".repeat(64), "0000d001-0000-4000-8000-00000000c0de");
    for way in ["auto", "pipe"] {
        let before = Before::read();
        let (spool, directory) = (Spool::default(), TempDir::new().expect("a temporary directory"));
        let api = ApiServer::start(directory.path());
        api.put(&json!({
            "metadata": {"namespace": "shop", "name": "cart-0", "uid": uid, "annotations": {"kansoku.io/dump": "core"}},
            "spec": {"nodeName": NODE},
            "status": {"containerStatuses": [{"name": "c", "containerID": format!("containerd://{id}")}]},
        }));
        let cache = format!("kubernetes.cache={}", utf8(&directory.path().join("names.json")));
        let node = format!("kubernetes.node_name={NODE}");
        let pattern_key = format!("dump.pattern={way}");
        let names =
            [&api.setting(), &cache, &node, "kubernetes.cri_socket=none", "dump.annotation_max=minidump"];
        let agent = start(&spool, directory.path(), &[&names[..], &[&pattern_key]].concat());
        let cgroup = Cgroup::make(&format!("kubepods/besteffort/pod{uid}/{id}"));
        // It is known, and on disk, once it has been seen for a while.
        let _earlier = cgroup.start(&program, &["wait"]);
        std::thread::sleep(Duration::from_secs(7));
        let dying = cgroup.start(&program, &["segv"]);
        let record = spool.wait_for_pid(way, u64::from(dying.pid()));
        assert_eq!(text(&record, "/resource/k8s.pod.name"), "cart-0");
        // A core is more than pods may ask for.
        check_minidump(&record, &program, 1);
        let stranger = Death::of(&mut program.command(&["segv"]));
        assert!(spool.wait_for_pid("stranger", stranger.pid)["dump"].is_null(), "{way}");
        agent.terminate();
        agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
        before.expect_back();
    }
}

#[test]
fn policies_cores_and_redaction() {
    tools::require("readelf", "binutils");
    let program = Program::c("crash.c", FRAME_POINTERS);
    let before = Before::read();
    let (spool, directory) = (Spool::default(), TempDir::new().expect("a temporary directory"));
    let policies = "dump.policies=service:crash=core,service:sailor=none,service:boat=minidump";
    let agent = start(&spool, directory.path(), &["dump.pattern=auto", policies, "dump.redact_memory=true"]);

    let death = Death::of(&mut program.command(&["segv"]));
    let record = spool.wait_for_pid("a whole core", death.pid);
    assert_eq!(text(&record, "/dump/format"), "core+zstd", "{record:#}");
    let packed = std::fs::read(text(&record, "/dump/path")).expect("the core");
    let core = directory.path().join("core");
    tools::write_file(&core, &zstd::decode_all(packed.as_slice()).expect("zstd"));
    let notes = tools::output_of("readelf", &["-n", utf8(&core)]);
    assert!(notes.contains("NT_PRSTATUS") && notes.contains("NT_FILE"), "{notes}");

    let named = |name: &str| {
        let path = program.directory().join(name);
        std::fs::copy(program.path(), &path).expect("our directory");
        path
    };
    let none = Death::of(Command::new(named("sailor")).arg("segv"));
    let secret = "TOPSECRET-in-the-arguments-0123456789";
    let death = Death::of(Command::new(named("boat")).args(["segv", "0", secret]));
    let record = spool.wait_for_pid("a redacted minidump", death.pid);
    let bytes = std::fs::read(text(&record, "/dump/path")).expect("the minidump");
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!holds(&secret[..9]), "the minidump holds the secret");
    let name: Vec<u8> = "boat".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let has_name = bytes.windows(name.len()).any(|window| window == name);
    assert!(has_name, "the names of modules are no secret");
    assert_eq!(spool.of_pid(none.pid), Vec::<Value>::new(), "the policy is none");
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();
    before.expect_back();
}

/// An agent that was killed leaves `core_pattern` behind: a command gives it back, and so does the next agent's stop.
#[test]
fn what_a_killed_agent_leaves() {
    let before = Before::read();
    for by_command in [true, false] {
        let (spool, directory) = (Spool::default(), TempDir::new().expect("a temporary directory"));
        let settings = ["dump.pattern=auto", "dump.default=minidump"];
        let agent = start(&spool, directory.path(), &settings);
        agent.signal(rustix::process::Signal::KILL);
        agent.finish(STOP_MAX);
        assert_ne!(pattern(), before.0, "nobody has given it back yet");
        if by_command {
            let dumps = format!("dump.directory={}", utf8(&directory.path().join("dumps")));
            let arguments = ["core-handler", "--restore", "--set", &dumps];
            run_to_end(&arguments, COMMAND_MAX).expect_code(0);
        } else {
            let next = start(&spool, directory.path(), &settings);
            next.terminate();
            next.finish(STOP_MAX).expect_code(0);
        }
        before.expect_back();
    }
}

/// Without the user's word nothing is touched.
#[test]
fn nothing_is_touched_without_opt_in() {
    let before = Before::read();
    let (spool, directory) = (Spool::default(), TempDir::new().expect("a temporary directory"));
    for settings in [&["dump.default=core"][..], &["dump.pattern=auto"][..]] {
        let agent = start(&spool, directory.path(), settings);
        before.expect_back();
        agent.terminate();
        agent.finish(STOP_MAX).expect_code(0);
    }
    let wrong = command(&["run", "--set", "dump.policies=servise:x=core"]);
    let finished = Agent::spawn(wrong).finish(COMMAND_MAX).expect_code(2);
    assert!(finished.stderr.contains("service"), "the nearest word: {}", finished.stderr);
}
