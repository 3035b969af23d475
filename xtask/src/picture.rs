//! `cargo xtask picture`: makes the flame graph that the README shows, with the agent itself.
//!
//! Refuses: drawings by hand. The picture is what the agent saw of a demo workload on this machine.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::command::run as run_command;

const DEMO_SECONDS: &str = "30";

/// Runs two demo programs and profiles the machine.
pub fn run(workspace: &Path) -> Result<()> {
    run_command(Command::new("cargo").args(["build", "--package", "collector"]).current_dir(workspace))?;
    let directory = workspace.join("target/picture");
    std::fs::create_dir_all(&directory).context("cannot make target/picture")?;
    let spin = directory.join("spin");
    let gcc = ["-O1", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-o"];
    run_command(Command::new("gcc").args(gcc).arg(&spin).arg(workspace.join("tests/workloads/spin.c")))?;
    let _spin = Demo::start(Command::new(&spin).arg(DEMO_SECONDS))?;
    let _copy = Demo::start(Command::new("dd").args(["if=/dev/urandom", "of=/dev/null", "bs=64k"]))?;
    let docs = workspace.join("docs");
    std::fs::create_dir_all(&docs).context("cannot make docs")?;
    run_command(
        Command::new(workspace.join("target/debug/kansoku"))
            .args(["profile", "--duration", "10s", "--output"])
            .arg(docs.join("flamegraph.svg")),
    )
}

/// A child that ends with the picture.
struct Demo(Child);

impl Demo {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Self).with_context(|| format!("cannot start {command:?}"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = (self.0.kill(), self.0.wait());
    }
}
