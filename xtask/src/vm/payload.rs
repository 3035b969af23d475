//! Builds the programs that run in the guest: the agent, with the libraries that it is linked to, and workloads with a known shape.
//!
//! The agent is the one that tests run here, without its symbols. Workloads are static, so that their stacks are their own;
//! another result is refused here and not found out by a failed boot.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::host::{is_static_elf, stdout_of};
use crate::command::run as run_command;

/// Builds the agent and takes its symbols away: the guest keeps the whole image in memory. Not a release build: what is asked
/// here is whether the kernel takes the object.
pub fn build_agent(workspace: &Path, vm_dir: &Path) -> Result<PathBuf> {
    let build = ["build", "--package", "collector", "--bin", "kansoku"];
    run_command(Command::new("cargo").args(build).current_dir(workspace))?;
    let agent = vm_dir.join("kansoku");
    let built = workspace.join("target/debug/kansoku");
    run_command(Command::new("strip").arg("-o").arg(&agent).arg(&built))
        .context("take the agent's symbols away (apt-get install binutils)")?;
    Ok(agent)
}

/// What the loader of this machine gives to a program, and the loader itself; nothing for a static one.
pub fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    if is_static_elf(program) {
        return Ok(Vec::new());
    }
    let said = stdout_of(Command::new("ldd").arg(program))
        .with_context(|| format!("find the libraries of {}", program.display()))?;
    Ok(library_paths(&said).map(PathBuf::from).collect())
}

/// `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)`; the vDSO has no path.
fn library_paths(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
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
fn refuse_dynamic(program: &Path) -> Result<()> {
    if !program.is_file() {
        bail!("{} does not exist", program.display());
    }
    if !is_static_elf(program) {
        bail!("{} is not a static x86_64 program", program.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_have_paths() {
        let said = "\tlinux-vdso.so.1 (0x7f3e)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f3e)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f3e)\n\tlibgone.so => not found\n";
        let found: Vec<_> = library_paths(said).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
