//! `cargo xtask tidy`: formatting, lints, licences, and those rules of the house that can be checked.
//!
//! Refuses: rewriting files. It says what is wrong and where.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{exists, run as run_command};

/// Checks everything.
pub fn run(workspace: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for file in rust_files(workspace)? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let shown = file.strip_prefix(workspace).unwrap_or(&file).display().to_string();
        problems.extend(rules(&shown, &text).into_iter().map(|problem| format!("{shown}: {problem}")));
    }
    problems.extend(signals_match(workspace)?);
    problems.extend(readme_commands_exist(workspace)?);
    if !problems.is_empty() {
        bail!("the rules of the house:\n  {}", problems.join("\n  "));
    }
    let cargo = |arguments: &[&str], directory: &str| {
        run_command(Command::new("cargo").args(arguments).current_dir(workspace.join(directory)))
    };
    cargo(&["fmt", "--all", "--check"], ".")?;
    cargo(&["fmt", "--check"], "collector-ebpf")?;
    cargo(&["fmt", "--check"], "tests/fuzz")?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], ".")?;
    if !exists("cargo-deny") {
        eprintln!("installing cargo-deny: some minutes, once");
        cargo(&["install", "cargo-deny", "--version", "0.20.2", "--locked", "--quiet"], ".")?;
    }
    cargo(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"], ".")?;
    println!("tidy");
    Ok(())
}

/// The rules that one file can break.
fn rules(path: &str, text: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push("it must open with //!: its job and what it refuses");
    }
    if path.ends_with("/mod.rs") {
        problems.push("name the file after the module: no mod.rs");
    }
    if ["utils", "util", "helpers", "types"].iter().any(|name| path.ends_with(&format!("/{name}.rs"))) {
        problems.push("name the file after what it holds");
    }
    // Spelled apart, so that this file keeps its own rule.
    if text.contains(concat!("#[", "allow(")) || text.contains(concat!("#![", "allow(")) {
        problems.push("use #[expect(lint, reason = ...)], never a bare allow");
    }
    if text.contains(concat!("#[", "ignore")) {
        problems.push("no ignored tests: assert today's behaviour with a note");
    }
    problems
}

/// A signal has its records, its programs and its daemon side under one name.
fn signals_match(workspace: &Path) -> Result<Vec<String>> {
    const SHARED: [&str; 4] = ["lib.rs", "event.rs", "limits.rs", "loss.rs"];
    let mut problems = Vec::new();
    for file in rust_files(&workspace.join("collector-common/src"))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for side in ["collector/src", "collector-ebpf/src"] {
            if !SHARED.contains(&name.as_str()) && !workspace.join(side).join(&name).is_file() {
                problems.push(format!("collector-common/src/{name} has no {side}/{name}"));
            }
        }
    }
    Ok(problems)
}

/// Commands that the README shows must exist.
fn readme_commands_exist(workspace: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(workspace.join("README.md")).context("cannot read README.md")?;
    let sources = [
        ("cargo xtask ", std::fs::read_to_string(workspace.join("xtask/src/main.rs"))?),
        ("kansoku ", std::fs::read_to_string(workspace.join("collector/src/cli.rs"))?),
    ];
    let mut problems = Vec::new();
    for line in
        text.lines().filter(|line| line.starts_with("cargo xtask ") || line.starts_with("sudo kansoku "))
    {
        for (program, source) in &sources {
            let Some((_, rest)) = line.split_once(program) else { continue };
            let word = rest.split_whitespace().next().unwrap_or_default();
            let name: String = word.chars().take_while(char::is_ascii_lowercase).collect();
            if !name.is_empty() && !source.to_lowercase().contains(&name) {
                problems.push(format!("README.md shows `{program}{name}`, which does not exist"));
            }
        }
    }
    Ok(problems)
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(rust_files(&path)?);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected_problems: usize) {
        assert_eq!(rules(path, text).len(), expected_problems, "{path}: {text:?}");
    }

    #[test]
    fn rules_of_one_file() {
        check("a/src/b.rs", "//! Job.\n", 0);
        check("a/src/b.rs", "fn main() {}\n", 1);
        check("a/src/mod.rs", "//! Job.\n", 1);
        check("a/src/utils.rs", "//! Job.\n", 1);
        check("a/src/b.rs", concat!("//! Job.\n#[", "allow(unused)]\n"), 1);
        check("a/src/b.rs", concat!("//! Job.\n#[", "ignore]\n"), 1);
    }
}
