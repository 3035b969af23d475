//! `cargo xtask test [FILTER]`: sets up, builds, and passes every test.
//!
//! The end-to-end tests measure shares of CPU time, so they run one after the other. Refuses: skipping them where
//! the kernel cannot be hooked; a machine that cannot run them fails.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::run as run_command;
use crate::setup;

mod leftovers;

/// Runs the unit tests, then the end-to-end tests.
pub fn run(workspace: &Path, filter: &[String]) -> Result<()> {
    setup::run(workspace)?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(workspace);
        command
    };
    run_command(cargo(&["test", "--workspace", "--exclude", "tests"]).args(filter))?;
    // After the unit tests, which build one that is not optimised.
    run_command(&mut cargo(&["build", "--package", "collector", "--bin", "kansoku"]))?;
    leftovers::remove();
    let path = setup::path_with_tools(workspace)?;
    run_command(
        cargo(&["test", "--package", "tests", "--no-fail-fast", "--"])
            .arg("--test-threads=1")
            .args(filter)
            .env("PATH", path),
    )
}
