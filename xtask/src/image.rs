//! `cargo xtask image [--agent PATH] [--output FILE]`: the agent's image as an OCI archive, with its SBOM, by buildah.
//!
//! The last stage of the Dockerfile as it stands, over a root that the same scripts fill: what its first stage does in a Rust
//! image, this machine does. Refuses: registries and daemons; none is asked, and nothing is pushed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{exists, run as run_command};

const DOCKERFILE: &str = "manifests/image/Dockerfile";

const NAME: &str = concat!("docker.io/library/kansoku:", env!("CARGO_PKG_VERSION"));

/// The version that the Dockerfile names too.
const SBOM_VERSION: &str = "0.5.9";

/// Builds it.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    let directory = workspace.join("target/image");
    let (mut agent, mut output) = (None, directory.join("kansoku.tar"));
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = rest.next().with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--agent" => agent = Some(PathBuf::from(value)),
            "--output" => output = PathBuf::from(value),
            _ => bail!("use cargo xtask image [--agent PATH] [--output FILE]"),
        }
    }
    ensure!(exists("buildah"), "buildah is missing: run cargo xtask setup");
    let agent = match agent {
        Some(agent) => agent,
        None => build(workspace)?,
    };
    fs::create_dir_all(&directory)?;
    let context = directory.join("context");
    // Files that another run left are not of this image.
    if context.exists() {
        fs::remove_dir_all(&context)?;
    }
    let sbom = directory.join("kansoku.cdx.json");
    write_sbom(workspace, &sbom)?;
    fill(workspace, &agent, &context.join("rootfs"), &sbom)?;
    pack(workspace, &directory, &context, &output)?;
    let mebibytes = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.len() as f64 / 1_048_576.0);
    println!("image: {NAME} in {} ({:.1} MiB)", output.display(), mebibytes(&output)?);
    Ok(())
}

fn build(workspace: &Path) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "collector", "--bin", "kansoku"];
    run_command(Command::new("cargo").args(build).current_dir(workspace))?;
    Ok(workspace.join("target/release/kansoku"))
}

fn write_sbom(workspace: &Path, sbom: &Path) -> Result<()> {
    if !exists("cargo-cyclonedx") {
        run_command(Command::new("cargo").args([
            "install",
            "--locked",
            "--version",
            SBOM_VERSION,
            "cargo-cyclonedx",
        ]))?;
    }
    run_command(Command::new(workspace.join("manifests/image/sbom.sh")).arg(sbom).current_dir(workspace))
}

/// What the Dockerfile's first stage leaves.
fn fill(workspace: &Path, agent: &Path, root: &Path, sbom: &Path) -> Result<()> {
    let stripped = root.with_file_name("kansoku");
    fs::create_dir_all(root)?;
    run_command(Command::new("strip").args(["--strip-debug", "-o"]).arg(&stripped).arg(agent))?;
    let script = workspace.join("manifests/image/rootfs.sh");
    run_command(Command::new(script).arg(&stripped).arg(root).arg(sbom))?;
    fs::remove_file(stripped).context("remove the stripped agent")
}

/// The Dockerfile, with the root in the place of its first stage.
fn pack(workspace: &Path, directory: &Path, context: &Path, output: &Path) -> Result<()> {
    let buildah = || {
        let mut buildah = Command::new("buildah");
        buildah.current_dir(workspace).arg("--root").arg(directory.join("storage"));
        buildah.arg("--runroot").arg(directory.join("run")).args(["--storage-driver", "vfs"]);
        buildah
    };
    let mut build = buildah();
    build.args(["build", "--quiet", "--isolation", "chroot", "--timestamp", "0", "--file", DOCKERFILE]);
    build.arg(format!("--build-context=build={}", context.display())).args(["--tag", NAME]);
    run_command(build.arg(directory))?;
    if output.exists() {
        fs::remove_file(output)?;
    }
    let archive = format!("oci-archive:{}:{NAME}", output.display());
    run_command(buildah().args(["push", "--quiet", NAME]).arg(archive))?;
    // The archive is all that is wanted; vfs keeps a whole copy for each layer.
    run_command(buildah().args(["rmi", "--all", "--force"]))
}
