//! `cargo xtask fuzz [SECONDS]`: gives the protocol parsers bytes that nobody vouches for, each target for so long.
//!
//! Needs a nightly toolchain and a C++ compiler. What is found lies in `target/fuzz` and is where the next run begins.
//! Refuses: another version of cargo-fuzz than the pinned one, and adding to the corpus in the repository.

use std::fs::File;
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{output, run as run_command};

const VERSION: &str = "0.13.2";
const TARGETS: [&str; 5] = ["http1", "postgres", "redis", "dns", "detect"];
const SECONDS: NonZero<u32> = NonZero::new(60).unwrap();

/// Bytes of an input, and seconds in which it must be read: what takes more is not linear in its bytes.
const INPUT_BYTES_MAX: u32 = 65_536;
const INPUT_SECONDS_MAX: u32 = 5;

/// How slowly inputs grow, 100 if not said: in a minute they would not become longer than what parsers keep.
const INPUT_GROWTH: u32 = 10;

/// Where everything goes, in the repository.
const FOLDER: &str = "target/fuzz";

/// Without AddressSanitizer: the parsers have no unsafe code of their own, and five to nine times as many inputs are read.
const OPTIONS: [&str; 6] = ["--fuzz-dir", "tests/fuzz", "--target-dir", FOLDER, "--sanitizer", "none"];

/// Builds the targets and runs them, as many at a time as there are CPUs.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    let seconds = match arguments {
        [] => SECONDS,
        [seconds] => seconds.parse().context("usage: cargo xtask fuzz [SECONDS]")?,
        _ => bail!("usage: cargo xtask fuzz [SECONDS]"),
    };
    install()?;
    run_command(&mut cargo_fuzz(workspace, "build"))?;
    let at_a_time = available_parallelism().map_or(1, NonZero::get);
    let mut problems = Vec::new();
    for targets in TARGETS.chunks(at_a_time) {
        let running: Vec<_> =
            targets.iter().map(|target| start(workspace, target, seconds)).collect::<Result<_>>()?;
        for (target, child) in targets.iter().zip(running) {
            match finish(workspace, target, child)? {
                Ok(inputs) => println!("{target}: {inputs} inputs in {seconds} s, and nothing was found"),
                Err(problem) => problems.push(problem),
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n\n"));
    Ok(())
}

fn install() -> Result<()> {
    let installed = output(Command::new("cargo").args(["+nightly", "fuzz", "--version"])).unwrap_or_default();
    if installed.trim().ends_with(VERSION) {
        return Ok(());
    }
    eprintln!("installing cargo-fuzz {VERSION}: about a minute");
    let arguments = ["+nightly", "install", "cargo-fuzz", "--version", VERSION, "--locked", "--force"];
    run_command(Command::new("cargo").args(arguments))
}

fn cargo_fuzz(workspace: &Path, command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "fuzz", command]).args(OPTIONS).current_dir(workspace);
    cargo
}

/// Starts a target. It says a lot, so that goes into a file.
fn start(workspace: &Path, target: &str, seconds: NonZero<u32>) -> Result<Child> {
    let found = format!("{FOLDER}/corpus/{target}");
    let artefacts = format!("{FOLDER}/artifacts/{target}/");
    for folder in [&found, &artefacts] {
        std::fs::create_dir_all(workspace.join(folder)).with_context(|| format!("cannot make {folder}"))?;
    }
    let log = log(target);
    let log = File::create(workspace.join(&log)).with_context(|| format!("cannot write {log}"))?;
    eprintln!("{target}: {seconds} s");
    cargo_fuzz(workspace, "run")
        .args([target, &found, &format!("tests/fuzz/corpus/{target}"), "--"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-len_control={INPUT_GROWTH}"))
        .arg(format!("-artifact_prefix={artefacts}"))
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log)
        .spawn()
        .context("cannot start cargo")
}

/// Waits for the end; gives the number of inputs that were read, or what was found.
fn finish(workspace: &Path, target: &str, mut child: Child) -> Result<Result<u64, String>> {
    let status = child.wait().with_context(|| format!("cannot wait for {target}"))?;
    let log = log(target);
    let said = std::fs::read(workspace.join(&log)).with_context(|| format!("cannot read {log}"))?;
    let said = String::from_utf8_lossy(&said);
    if let (true, Some(inputs)) = (status.success(), inputs(&said)) {
        return Ok(Ok(inputs));
    }
    let problem = problem(&said).unwrap_or_else(|| status.to_string());
    let Some(artefact) = artefact(&said) else {
        return Ok(Err(format!("{target}: {problem}\n  log: {log}")));
    };
    let options = OPTIONS.join(" ");
    Ok(Err(format!(
        "{target}: {problem}\n  log: {log}\n  input: {artefact}\n  again: cargo +nightly fuzz run {options} {target} {artefact}"
    )))
}

fn log(target: &str) -> String {
    format!("{FOLDER}/{target}.log")
}

/// libFuzzer's last line: `Done 100 runs in 2 second(s)`.
fn inputs(said: &str) -> Option<u64> {
    let line = said.lines().rev().find_map(|line| line.strip_prefix("Done "))?;
    line.split(' ').next()?.parse().ok().filter(|inputs| *inputs > 0)
}

/// What a target said as it gave up: a panic and its message, or what libFuzzer minds.
fn problem(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    if let (Some(place), Some(message)) = (lines.next(), lines.next()) {
        let place = place.split_once("panicked at ").map_or(place, |(_, place)| place);
        return Some(format!("{message} ({})", place.trim_end_matches(':')));
    }
    let line = said.lines().find_map(|line| line.split_once("ERROR: libFuzzer: "));
    line.map(|(_, problem)| problem.to_owned())
}

fn artefact(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says() {
        let whole = "#10\tINITED cov: 612\nDone 557099 runs in 7 second(s)\n";
        assert_eq!((inputs(whole), problem(whole), artefact(whole)), (Some(557_099), None, None));
        let panic = "thread '<unnamed>' (7000) panicked at src/connection.rs:88:9:\nit waits\nstack backtrace:\n\
                     ==7== ERROR: libFuzzer: deadly signal\n\
                     artifact_prefix='a/'; Test unit written to a/crash-96\n";
        assert_eq!(inputs(panic), None);
        assert_eq!(problem(panic).as_deref(), Some("it waits (src/connection.rs:88:9)"));
        assert_eq!(artefact(panic), Some("a/crash-96"));
        let slow = "==7== ERROR: libFuzzer: timeout after 6 seconds\n";
        assert_eq!(problem(slow).as_deref(), Some("timeout after 6 seconds"));
    }
}
