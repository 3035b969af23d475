//! `cargo xtask run [ARGUMENTS]`: builds the agent and shows what this machine is doing.
//!
//! Refuses: a release build, which takes minutes; the packaged agent is one.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::{output, run as run_command};

/// Builds, then runs `kansoku run` with the arguments, as root.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    run_command(Command::new("cargo").args(["build", "--package", "collector"]).current_dir(workspace))?;
    let agent = workspace.join("target/debug/kansoku");
    let is_root = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    let mut command = if is_root { Command::new(&agent) } else { Command::new("sudo") };
    if !is_root {
        command.arg("--preserve-env").arg(&agent);
    }
    run_command(command.arg("run").args(arguments))
}
