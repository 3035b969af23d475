//! Other programs that run to their end: compilers, version questions.
//!
//! Refuses: shells and pipelines.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs `command` to its end and returns its standard output; a failure quotes its error output.
pub fn stdout_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {program}: is it installed?"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first line of what a program says, or `unknown`: for versions and the like, which no figure rests on.
pub fn first_line(program: &str, arguments: &[&str]) -> String {
    let said = stdout_of(Command::new(program).args(arguments)).unwrap_or_default();
    said.lines().next().unwrap_or("unknown").trim().to_owned()
}

/// Where a program is found on the search path.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}
