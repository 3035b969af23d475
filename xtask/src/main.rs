//! `cargo xtask`: everything that is done with this repository, one file per command.
//!
//! Refuses: what cargo does by itself, and steps that the README does not name.

mod bench;
mod command;
mod ebpf;
mod fuzz;
mod image;
mod manifests;
mod picture;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const HELP: &str = "The commands of this repository:

  cargo xtask run [ARGUMENTS]    set up, build, and show what this machine is doing (kansoku run)
  cargo xtask test [FILTER]      set up, and pass every test
  cargo xtask setup              install what the tests need (Debian, PyPI and npm packages)
  cargo xtask tidy               formatting, lints, licences, and the rules of the house
  cargo xtask ebpf [--check]     rebuild the eBPF object, or compare the committed one byte for byte
  cargo xtask manifests [--check]    render the Kustomize base from the Helm chart, or check both by Kubernetes' schemas
  cargo xtask image [--agent PATH]   the agent's image with its SBOM, as an archive; no registry is asked
  cargo xtask fuzz [SECONDS]     give the protocol parsers any bytes, a minute for each target
  cargo xtask vm [KERNEL...]     run the agent on kernels 5.10, 6.1, 6.12 and newest, in qemu
  cargo xtask picture            make the flame graph in the README
  cargo xtask bench [--quick]    measure, and write BENCHMARKS.md
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&workspace(), &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(workspace: &Path, arguments: &[String]) -> Result<()> {
    let (name, rest) = arguments.split_first().context(HELP)?;
    match name.as_str() {
        "bench" => bench::run(workspace, rest),
        "ebpf" => ebpf::run(workspace, rest),
        "fuzz" => fuzz::run(workspace, rest),
        "image" => image::run(workspace, rest),
        "manifests" => manifests::run(workspace, rest),
        "picture" => picture::run(workspace),
        "run" => run::run(workspace, rest),
        "setup" => setup::run(workspace),
        "test" => test::run(workspace, rest),
        "tidy" => tidy::run(workspace),
        "vm" => vm::run(workspace, rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        rustc if Path::new(rustc).file_name().is_some_and(|name| name == "rustc") => ebpf::rustc(arguments),
        other => bail!("unknown command {other}\n\n{HELP}"),
    }
}

/// The root of the repository: cargo tells where this package stands.
fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
