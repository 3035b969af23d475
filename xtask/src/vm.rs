//! `cargo xtask vm [--agent PATH] [KERNEL...]`: runs the agent on other kernels, each emulated by qemu.
//!
//! This file reads the arguments and keeps the order of work; the parts below each do one step. Everything is
//! written under `target/vm`. It refuses to judge a kernel by qemu's exit code alone: only the guest's own
//! result lines count.

use std::fs;
use std::path::{self, Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::kernels::{Kernel, KernelImage};
use self::report::Row;

pub mod apt;
mod guest;
mod host;
mod initramfs;
mod kernels;
mod payload;
mod qemu;
mod report;
mod verdict;

/// Boots every kernel named in `arguments` (all four when none is named) and fails if one of them failed.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    let request = Request::parse(arguments)?;
    // apt and cpio run in directories of their own, where a relative path would lead elsewhere.
    let vm_dir = path::absolute(workspace.join("target/vm")).context("find target/vm")?;
    fs::create_dir_all(&vm_dir).with_context(|| format!("create {}", vm_dir.display()))?;

    host::install_missing_packages()?;
    let images = request
        .kernels
        .iter()
        .map(|kernel| kernels::fetch(*kernel, &vm_dir))
        .collect::<Result<Vec<KernelImage>>>()?;
    let agent = match request.agent {
        Some(path) => path,
        None => payload::build_agent(workspace, &vm_dir)?,
    };
    let workloads = ["spin", "crash"].map(|name| payload::build_workload(&vm_dir, name));
    let workloads = workloads.into_iter().collect::<Result<Vec<_>>>()?;
    let initramfs = guest::build_initramfs(&vm_dir, &agent, &workloads)?;

    let mut rows = Vec::new();
    for image in &images {
        rows.push(boot_and_judge(image, &initramfs, &vm_dir)?);
    }
    print!("{}", report::table(&rows));
    let failed = rows.iter().filter(|row| row.failure.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} kernels failed; the table above names each log", rows.len());
    }
    Ok(())
}

/// How often a kernel is booted whose emulator stands still.
const BOOTS_MAX: u32 = 3;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    kernels: Vec<Kernel>,
    /// An agent that exists already; without it the agent is built.
    agent: Option<PathBuf>,
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut request = Request { kernels: Vec::new(), agent: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--agent" {
                let path = rest.next().context("--agent needs the path of a kansoku binary")?;
                request.agent = Some(PathBuf::from(path));
            } else {
                let kernel = Kernel::from_name(argument).with_context(|| {
                    format!(
                        "unknown kernel `{argument}`; usage: cargo xtask vm [--agent PATH] [{}]",
                        Kernel::names()
                    )
                })?;
                request.kernels.push(kernel);
            }
        }
        if request.kernels.is_empty() {
            request.kernels = Kernel::ALL.to_vec();
        }
        Ok(request)
    }
}

fn boot_and_judge(image: &KernelImage, initramfs: &Path, vm_dir: &Path) -> Result<Row> {
    let kernel = image.kernel;
    eprintln!("vm: boot {} ({})", kernel.name(), image.package);
    let log = vm_dir.join(format!("{}.log", kernel.name()));
    let mut boots = 1;
    let (boot, serial) = loop {
        let boot = qemu::boot(&image.vmlinuz, initramfs, &log)?;
        let serial =
            fs::read(&log).with_context(|| format!("read the serial output in {}", log.display()))?;
        let serial = String::from_utf8_lossy(&serial).into_owned();
        if boots >= BOOTS_MAX || !verdict::stood_on_nop(&serial) {
            break (boot, serial);
        }
        eprintln!("vm: the emulator stood still on a NOP; boot {} again", kernel.name());
        boots += 1;
    };
    let transcript = verdict::Transcript::read(&serial);
    let failure = verdict::judge(kernel.release_prefix(), guest::CHECKS, &transcript, &boot.ending).err();
    if failure.is_some() {
        println!("{}", verdict::evidence(&serial, guest::CHECKS, &transcript));
    }
    Ok(Row {
        kernel: kernel.name(),
        release: transcript.release.unwrap_or("-").to_owned(),
        seconds: boot.duration.as_secs_f64(),
        checks: report::checks_cell(guest::CHECKS, &transcript),
        failure,
        log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Request> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Request::parse(&arguments)
    }

    #[test]
    fn no_argument_means_every_kernel() {
        let request = parse(&[]).expect("an empty command line is valid");
        assert_eq!(request.kernels, Kernel::ALL);
        assert_eq!(request.agent, None);
    }

    #[test]
    fn kernels_and_agent_are_taken_in_any_order() {
        let request = parse(&["6.1", "--agent", "a/kansoku", "newest"]).expect("a valid command line");
        assert_eq!(request.kernels, [Kernel::V6_1, Kernel::Newest]);
        assert_eq!(request.agent, Some(PathBuf::from("a/kansoku")));
    }

    #[test]
    fn unknown_kernels_and_a_bare_agent_flag_are_refused() {
        assert!(
            parse(&["4.19"]).expect_err("4.19 is not offered").to_string().contains("5.10|6.1|6.12|newest")
        );
        assert!(parse(&["--agent"]).is_err());
    }
}
