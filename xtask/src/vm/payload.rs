//! Builds the two programs that run in the guest: the agent and a workload with a known shape.
//!
//! Both must be static, because the guest has no dynamic loader and no libraries; a dynamic result is refused
//! here and not found out by a failed boot.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::host::{is_static_elf, stdout_of};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Compiles the agent with its C library inside. Its own target directory keeps the usual one from being
/// rebuilt.
pub fn build_static_agent(workspace: &Path, vm_dir: &Path) -> Result<PathBuf> {
    let build_dir = vm_dir.join("build");
    eprintln!("vm: build the static agent in {}", build_dir.display());
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace)
        .args(["build", "--package", "collector", "--bin", "kansoku"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&build_dir)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // The guest reads the whole image into memory, and the agent's own symbols are no use there. Not a release
        // build: what is asked here is whether the kernel takes the object, and the build is five minutes shorter.
        .env("CARGO_PROFILE_DEV_STRIP", "true")
        .status()
        .context("start cargo to build the agent")?;
    if !status.success() {
        bail!("the static agent does not build ({status}); cargo's messages are above");
    }
    let agent = build_dir.join(TARGET).join("debug/kansoku");
    refuse_dynamic(&agent)?;
    Ok(agent)
}

/// Compiles a workload of `tests/workloads`, such as `spin`.
pub fn build_workload(vm_dir: &Path, name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/workloads/{name}.c"));
    let program = vm_dir.join(name);
    // Without the leaf option gcc gives small functions no frame, and their caller vanishes from the stacks.
    let mut gcc = Command::new("gcc");
    gcc.args(["-static", "-O1", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-o"])
        .arg(&program)
        .arg(&source);
    stdout_of(&mut gcc).context("compile the workload (apt-get install gcc libc6-dev)")?;
    refuse_dynamic(&program)?;
    Ok(program)
}

/// Fails unless `program` can run where there is no dynamic loader.
pub fn refuse_dynamic(program: &Path) -> Result<()> {
    if !program.is_file() {
        bail!("{} does not exist", program.display());
    }
    if !is_static_elf(program) {
        bail!(
            "{} is not a static x86_64 program: build it with RUSTFLAGS=\"-C target-feature=+crt-static\"",
            program.display()
        );
    }
    Ok(())
}
