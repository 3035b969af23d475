//! `cargo xtask ebpf [--check]`: builds the eBPF object, the same bytes on every machine.
//!
//! Needs a nightly rustc and the sources of `core`: the `rust-src` component, or a folder or archive named by
//! `KANSOKU_RUST_SRC`, or `../shared/rust-src-*.tar.xz`. Refuses: other versions of bpf-linker and of crates than
//! the pinned ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{output, run as run_command};

const LINKER_VERSION: &str = "0.10.4";
const OBJECT: &str = "collector-ebpf/object/kansoku.bpf.o";
const TARGET: &str = "bpfel-unknown-none";

/// The toolchain that made the committed object. Another one makes another object.
const RUSTC: &str = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)";

/// Builds, and replaces the committed object or compares with it.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    let is_check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("usage: cargo xtask ebpf [--check]"),
    };
    let built = build(workspace)?;
    let committed = workspace.join(OBJECT);
    let new = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if !is_check {
        std::fs::write(&committed, &new).with_context(|| format!("cannot write {OBJECT}"))?;
        println!("{OBJECT}: {} bytes", new.len());
        return Ok(());
    }
    let old = std::fs::read(&committed).with_context(|| format!("cannot read {OBJECT}"))?;
    ensure!(
        old == new,
        "{OBJECT} is not what the sources make: run `cargo xtask ebpf` and commit it{}",
        toolchain_hint()
    );
    println!("{OBJECT} is what the sources make, byte for byte");
    Ok(())
}

fn build(workspace: &Path) -> Result<PathBuf> {
    install_linker()?;
    let sources = core_sources(workspace)?;
    let target_directory = workspace.join("target/ebpf");
    run_command(
        Command::new("cargo")
            .args(["+nightly", "build", "--release", "--locked", "--target", TARGET, "-Z", "build-std=core"])
            .arg("--target-dir")
            .arg(&target_directory)
            .current_dir(workspace.join("collector-ebpf"))
            .env("__CARGO_TESTS_ONLY_SRC_ROOT", &sources)
            .env("RUSTFLAGS", remapped_paths(workspace, &sources)?)
            .env("RUSTC_WRAPPER", std::env::current_exe().context("cannot name this program")?)
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    Ok(target_directory.join(TARGET).join("release/kansoku"))
}

/// Paths are part of panic locations and symbol hashes: they are named by what they are.
fn remapped_paths(workspace: &Path, sources: &Path) -> Result<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let workspace = workspace.canonicalize().context("cannot resolve the workspace")?;
    Ok(format!(
        "-C debuginfo=0 --remap-path-prefix={}=/kansoku --remap-path-prefix={}=/cargo --remap-path-prefix={}=/rust",
        workspace.display(),
        home.display(),
        sources.display()
    ))
}

/// Runs rustc for cargo, which puts this program before it: `arguments` are rustc's path and its arguments.
///
/// The names of functions that are not inlined carry a hash that cargo makes of the packages' folders. For what is
/// compiled for the kernel, that hash is made of the crate's name alone: one name stands for one crate there.
pub fn rustc(arguments: &[String]) -> Result<()> {
    let (program, rest) = arguments.split_first().context("cargo gave no rustc")?;
    let is_for_kernel = rest.windows(2).any(|pair| pair == ["--target", TARGET]);
    let name = rest.windows(2).find(|pair| pair[0] == "--crate-name").map(|pair| pair[1].as_str());
    let metadata = name.filter(|_| is_for_kernel).map(|name| format!("metadata={name}"));
    let rest = rest.iter().map(|argument| match &metadata {
        Some(metadata) if argument.starts_with("metadata=") => metadata,
        _ => argument,
    });
    let status =
        Command::new(program).args(rest).status().with_context(|| format!("cannot start {program}"))?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}

fn install_linker() -> Result<()> {
    let installed = output(Command::new("bpf-linker").arg("--version")).unwrap_or_default();
    if installed.trim().ends_with(LINKER_VERSION) {
        return Ok(());
    }
    eprintln!("installing bpf-linker {LINKER_VERSION}: about a minute");
    let arguments = ["+nightly", "install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"];
    run_command(Command::new("cargo").args(arguments))
}

/// The folder `library` of the Rust sources.
fn core_sources(workspace: &Path) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("KANSOKU_RUST_SRC") {
        return library_of(workspace, Path::new(&named));
    }
    let sysroot = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]))
        .context("there is no nightly toolchain: rustup toolchain install nightly")?;
    let component = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if component.is_dir() {
        return Ok(component);
    }
    if let Some(archive) = shared_archive(workspace) {
        return library_of(workspace, &archive);
    }
    bail!(
        "the sources of core are missing: rustup component add rust-src --toolchain nightly, or set KANSOKU_RUST_SRC"
    )
}

fn shared_archive(workspace: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(workspace.parent()?.join("shared")).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("rust-src-") && name.ends_with(".tar.xz")
    })
}

/// Unpacks an archive under `target`, once.
fn library_of(workspace: &Path, named: &Path) -> Result<PathBuf> {
    if named.is_dir() {
        return [named.join("library"), named.to_path_buf()]
            .into_iter()
            .find(|path| path.join("core").is_dir())
            .with_context(|| format!("{} holds no library/core", named.display()));
    }
    let unpacked = workspace.join("target/rust-src");
    if !unpacked.join("library/core").is_dir() {
        std::fs::create_dir_all(&unpacked).context("cannot make target/rust-src")?;
        run_command(Command::new("tar").arg("-xf").arg(named).arg("-C").arg(&unpacked))?;
    }
    Ok(unpacked.join("library"))
}

fn toolchain_hint() -> String {
    let found = output(Command::new("rustc").args(["+nightly", "--version"])).unwrap_or_default();
    match found.trim() {
        RUSTC => String::new(),
        other => format!(" (it was made with {RUSTC}; here is {other})"),
    }
}
