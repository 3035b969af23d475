//! The command line in bad circumstances: every one ends with a message that helps and the documented exit code.
//!
//! Refuses: a panic, whatever is missing, wrong, full or closed.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;
use tests::agent::{self, Agent, Finished, STOP_MAX};
use tests::profile;
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, utf8};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const INCOMPLETE: i32 = 3;

/// Rust's exit code of a panic.
const PANICKED: i32 = 101;

/// Runs the agent; fails unless it ends with this code and says all of this on standard error.
#[track_caller]
fn check(arguments: &[&str], expected_code: i32, expected_texts: &[&str]) {
    let finished = agent::run_to_end(arguments, STOP_MAX);
    expect_message(arguments, &finished, expected_code, expected_texts);
}

#[track_caller]
fn expect_message(arguments: &[&str], finished: &Finished, expected_code: i32, expected_texts: &[&str]) {
    let stderr = &finished.stderr;
    assert_eq!(finished.code, Some(expected_code), "{arguments:?}:\n{stderr}");
    for text in expected_texts {
        assert!(stderr.contains(text), "{arguments:?} does not say {text:?} but:\n{stderr}");
    }
}

#[test]
fn wrong_arguments() {
    check(&[], USAGE, &["Usage"]);
    check(&["nonsense"], USAGE, &["nonsense"]);
    check(&["profile", "--nonsense"], USAGE, &["--nonsense"]);
    check(&["profile", "--duration", "0s"], USAGE, &["longer than nothing"]);
    check(&["profile", "--duration", "soon"], USAGE, &["10s"]);
    check(&["profile", "--frequency", "0"], USAGE, &["profile.frequency_hz"]);
    check(&["profile", "--pid", "-1"], USAGE, &[]);
    check(&["profile", "--pid", "1", "--container", "ab"], USAGE, &["cannot be used with"]);
    check(&["profile", "--pid", "42949672960"], USAGE, &["42949672960"]);
    check(&["profile", "--pid", "4194303", "--duration", "1s"], FAILED, &["no process 4194303"]);
    check(&["profile", "--cgroup", "/no/such"], FAILED, &["no cgroup", "/no/such"]);
    check(&["profile", "-o", "x.xyz", "--duration", "1s"], USAGE, &["x.xyz", ".pb.gz"]);
    check(&["profile", "-o", "", "--duration", "1s"], USAGE, &["--output"]);
    check(&["run", "--set", "nonsense"], USAGE, &["KEY=VALUE"]);
}

/// A container that does not exist has no samples: done, but incomplete, and nothing is written.
#[test]
fn a_target_without_samples() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("none.html");
    let arguments = ["profile", "--container", "0123456789", "--duration", "1s", "-o", utf8(&path)];
    check(&arguments, INCOMPLETE, &["no samples of this target"]);
    assert!(!path.exists(), "an empty flame graph");
}

#[test]
fn wrong_configuration() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        tools::write_file(&path, text);
        utf8(&path).to_owned()
    };
    let check_file = |name: &str, text: &[u8], expected: &[&str]| {
        let path = file(name, text);
        check(&["config", "check", "--config", &path], USAGE, &[expected, &[name]].concat());
        check(&["run", "--duration", "1s", "--config", &path], USAGE, &[expected, &[name]].concat());
    };
    check(&["config", "check", "--set", "profile.frequencyhz=9"], USAGE, &["profile.frequency_hz"]);
    check(
        &["config", "check", "--set", "profile.frequency_hz=fast"],
        USAGE,
        &["profile.frequency_hz", "fast"],
    );
    check(&["config", "check", "--set", "profile.frequency_hz=20000"], USAGE, &["10000"]);
    check(&["config", "check", "--set", "otlp.endpoint=not a url"], USAGE, &["endpoint"]);
    check(&["config", "check", "--config", "/no/such/file.yaml"], USAGE, &["/no/such/file.yaml"]);
    check(&["config", "check", "--config", "/"], USAGE, &["/"]);
    check_file("key.yaml", b"profile:\n  frequncy_hz: 49\n", &["frequncy_hz", "profile.frequency_hz"]);
    check_file("type.yaml", b"profile:\n  window_ms: soon\n", &["profile.window_ms", "soon"]);
    check_file("shape.yaml", b"profile: 7\n", &["profile"]);
    check_file("list.yaml", b"- profile\n", &[]);
    check_file("broken.yaml", b"profile: {frequency_hz: [\n", &[]);
    check_file("bytes.yaml", &[0xff, 0xfe, 0x00, 0x80, 0x7f], &[]);

    let environment = |name: &str, value: &str, expected: &[&str]| {
        let mut command = agent::command(&["config", "check"]);
        command.env(name, value);
        let finished = Agent::spawn(command).finish(STOP_MAX);
        expect_message(&[name, value], &finished, USAGE, expected);
    };
    environment("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", &["OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"]);
    environment("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", &["OTEL_EXPORTER_OTLP_TIMEOUT", "soon"]);
    environment("KANSOKU_PROFILE_FREQUENCY_HZ", "fast", &["KANSOKU_PROFILE_FREQUENCY_HZ", "fast"]);
}

/// What `config print` prints is a configuration that says the same; the secrets alone are left out.
#[test]
fn printed_configuration() {
    let directory = TempDir::new().expect("a temporary directory");
    let settings = [
        "--set",
        "profile.frequency_hz=49",
        "--set",
        "otlp.endpoint=http://127.0.0.1:4317",
        "--set",
        "otlp.protocol=grpc",
        "--set",
        "resource.attributes=a=b,c=d e",
        "--set",
        "otlp.headers=authorization=Bearer secret-token",
    ];
    let printed = agent::run_to_end(&[&["config", "print"], &settings[..]].concat(), STOP_MAX).expect_code(0);
    let text = printed.stdout_text();
    assert!(!text.contains("secret-token"), "a secret is printed:\n{text}");
    let path = directory.path().join("config.yaml");
    tools::write_file(&path, text.as_bytes());
    agent::run_to_end(&["config", "check", "--config", utf8(&path)], STOP_MAX).expect_code(0);
    let again = agent::run_to_end(&["config", "print", "--config", utf8(&path)], STOP_MAX).expect_code(0);
    // The origin of each value differs, and must; the values must not.
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value).to_owned()).collect()
    };
    assert_eq!(values(&text), values(&again.stdout_text()));
    assert!(values(&text).iter().any(|line| line.trim() == "frequency_hz: 49"), "{text}");
}

/// The agent where any user can execute it, started without any privilege.
fn as_nobody(directory: &Path, arguments: &[&str]) -> Finished {
    tools::require("setpriv", "util-linux");
    let binary = directory.join("kansoku");
    if !binary.exists() {
        std::fs::copy(agent::binary(), &binary).expect("a copy of the agent");
        std::fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("ours");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", utf8(&binary)]).args(arguments);
    Agent::spawn(command).finish(STOP_MAX)
}

#[test]
fn not_root() {
    let directory = TempDir::new().expect("a temporary directory");
    let directory = directory.path();
    for arguments in [&["run", "--duration", "1s"][..], &["profile", "--duration", "1s"]] {
        let finished = as_nobody(directory, arguments);
        assert!(
            matches!(finished.code, Some(FAILED | INCOMPLETE)),
            "{arguments:?} without privileges: {finished:?}"
        );
        let helps = ["root", "CAP_BPF", "capabilit", "permission", "Permission", "not permitted"];
        assert!(helps.iter().any(|text| finished.stderr.contains(text)), "{arguments:?}: {finished:?}");
    }
    let finished = as_nobody(directory, &["doctor"]);
    assert_eq!(finished.code, Some(INCOMPLETE), "{finished:?}");
    let text = finished.stdout_text();
    for expected in ["CAP_BPF", "CAP_PERFMON", "MISSING", "run as root or grant CAP_BPF"] {
        assert!(text.contains(expected), "doctor does not say {expected}:\n{text}");
    }
    let finished = as_nobody(directory, &["doctor", "--json"]);
    assert_eq!(finished.code, Some(INCOMPLETE), "{finished:?}");
    let json: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert_eq!(json["complete"], false);
    // What needs no privilege works without.
    assert_eq!(as_nobody(directory, &["config", "check"]).code, Some(0));
    assert_eq!(as_nobody(directory, &["--version"]).code, Some(0));
}

#[test]
fn doctor_as_json() {
    let finished = agent::run_to_end(&["doctor", "--json"], STOP_MAX);
    assert!(matches!(finished.code, Some(0 | INCOMPLETE)), "{finished:?}");
    let json: serde_json::Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    assert_eq!(json["complete"], finished.code == Some(0), "{json:#}");
    let hooks = json["hooks"].as_array().expect("hooks");
    let taken = |purpose: &str| {
        let hook = hooks.iter().find(|hook| hook["purpose"] == purpose);
        hook.unwrap_or_else(|| panic!("no hook {purpose:?} in {json:#}"))["taken"].as_str()
    };
    assert!(taken("on-CPU sampler").is_some(), "{json:#}");
    assert!(taken("process exec").is_some(), "{json:#}");
    for account in json["ledger"].as_array().expect("a ledger") {
        assert_eq!(account["unexplained"], 0, "{account:#}");
    }
}

/// Without the kernel's type information the agent does less, but samples.
#[test]
fn without_type_information() {
    let program = Program::c("spin.c", FRAME_POINTERS);
    let _spin = program.start(&["60"]);
    let check = |btf: &str| {
        let setting = format!("kernel.btf={btf}");
        let arguments = ["--duration", "3s", "--set", &setting, "-o", "-"];
        let finished = Agent::profile(&arguments).finish(STOP_MAX).expect_code(0);
        let stacks = profile::of_folded(&finished.stdout_text());
        let found = profile::total(stacks.iter().filter(|stack| stack.has("spin_seventy")));
        assert!(found >= 60, "{btf}: {found} samples of spin_seventy: {:?}", profile::leaves(&stacks));
        let doctor = agent::run_to_end(&["doctor", "--set", &setting], STOP_MAX);
        assert!(matches!(doctor.code, Some(0 | INCOMPLETE)), "{btf}: {doctor:?}");
        assert!(
            doctor.stdout_text().contains(btf),
            "{btf}: doctor names the file:\n{}",
            doctor.stdout_text()
        );
    };
    let broken = program.directory().join("broken.btf");
    tools::write_file(&broken, &[0x9f, 0xeb, 0x01, 0x00, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff]);
    check("/nonexistent");
    check(utf8(&broken));
    check("/dev/null");
}

/// A tiny file system, unmounted with its handle.
struct TinyDisk {
    directory: TempDir,
}

impl TinyDisk {
    fn mount() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), c"size=4k")
            .expect("root may mount");
        Self { directory }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // It stays mounted only if a killed test still writes there.
        let _busy = rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn full_disk() {
    let program = Program::c("spin.c", FRAME_POINTERS);
    let _spin = program.start(&["60"]);
    let disk = TinyDisk::mount();
    for name in ["flame.html", "flame.svg", "a.pb.gz"] {
        let path = disk.directory.path().join(name);
        // Fill the disk, so that even a small profile has no room.
        let filler = disk.directory.path().join("filler");
        let _full = std::fs::write(&filler, vec![0; 8192]);
        let finished = agent::run_to_end(&["profile", "--duration", "1s", "-o", utf8(&path)], STOP_MAX);
        expect_message(&[name], &finished, FAILED, &["cannot write", name]);
        assert!(!path.exists(), "{name}: a part of a file");
        let left: Vec<_> = std::fs::read_dir(disk.directory.path()).expect("the disk").flatten().collect();
        assert_eq!(left.len(), 1, "{name}: left behind beside the filler: {left:?}");
    }
    // The daemon goes on without its flame graph, and says so.
    let setting = format!("local.flame_graph={}/flame.html", disk.directory.path().display());
    let arguments = ["--duration", "3s", "--set", &setting, "--set", "profile.window_ms=500"];
    let finished = Agent::run(&arguments, &[]).finish(STOP_MAX).expect_code(0);
    assert!(finished.stderr.contains("no flame graph"), "{}", finished.stderr);
    finished.books().expect_balance();
}

/// What a standard output or error is in bad circumstances.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// A pipe that nobody reads.
    ClosedPipe,
    /// A disk without room.
    Full,
}

impl Broken {
    fn stdio(self) -> Stdio {
        match self {
            Self::ClosedPipe => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                writer.into()
            }
            Self::Full => File::options().write(true).open("/dev/full").expect("/dev/full").into(),
        }
    }
}

#[test]
fn closed_or_full_output() {
    let program = Program::c("spin.c", FRAME_POINTERS);
    let _spin = program.start(&["120"]);
    let graph = format!("local.flame_graph={}/flame.html", program.directory().display());
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["--version"],
        &["nonsense"],
        &["config", "print"],
        &["config", "check"],
        &["doctor"],
        &["doctor", "--json"],
        &["profile", "--duration", "1s", "-o", "-"],
        &["run", "--duration", "2s", "--set", &graph, "--set", "profile.window_ms=500"],
    ];
    let mut failures = Vec::new();
    for broken in [Broken::ClosedPipe, Broken::Full] {
        for arguments in commands {
            for is_stdout in [true, false] {
                let mut command = agent::command(arguments);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
                if is_stdout {
                    command.stdout(broken.stdio());
                } else {
                    command.stderr(broken.stdio());
                }
                let what = format!(
                    "{arguments:?}, standard {} {broken:?}",
                    if is_stdout { "output" } else { "error" }
                );
                let mut child = command.spawn().expect("the agent starts");
                let deadline = std::time::Instant::now() + STOP_MAX;
                let status = loop {
                    match child.try_wait().expect("our child") {
                        Some(status) => break Some(status),
                        None if std::time::Instant::now() > deadline => break None,
                        None => std::thread::sleep(Duration::from_millis(20)),
                    }
                };
                if status.is_none() {
                    child.kill().expect("our child");
                }
                let output = child.wait_with_output().expect("our child");
                let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                let code = status.and_then(|status| status.code());
                if code.is_none() || code == Some(PANICKED) || stderr.contains("panicked at") {
                    failures.push(format!("{what}: ended with {status:?} {stderr}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of 36 fail:\n{}", failures.len(), failures.join("\n"));
}
