//! The tools of this machine: whether they are there, installing the missing ones, and running them.
//!
//! It refuses to install anything but the packages listed here, and runs no command through a shell.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// How many bytes of a failed command's error output are quoted.
const QUOTED_BYTES_MAX: usize = 2000;

const PACKAGES: &[Package] = &[
    Package { name: "qemu-system-x86", is_present: || find_tool("qemu-system-x86_64").is_some() },
    Package {
        name: "busybox-static",
        is_present: || find_tool("busybox").is_some_and(|path| is_static_elf(&path)),
    },
    Package { name: "cpio", is_present: || find_tool("cpio").is_some() },
    Package { name: "debian-archive-keyring", is_present: || Path::new(DEBIAN_KEYRING).exists() },
];

/// Debian's archive keys, which sign every suite that kernels come from.
pub const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

struct Package {
    name: &'static str,
    is_present: fn() -> bool,
}

pub fn install_missing_packages() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|package| !(package.is_present)()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("vm: install {}", missing.join(" "));
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "--no-install-recommends"]).args(&missing);
        stdout_of(command.env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The first try fails where the package lists are absent or stale, as in a fresh container image.
    if install().is_err() {
        let advice = || format!("install these packages by hand (as root): {}", missing.join(" "));
        stdout_of(Command::new("apt-get").arg("update")).with_context(advice)?;
        install().with_context(advice)?;
    }
    Ok(())
}

/// Runs `command` to its end and returns its standard output; a failure quotes the error output.
pub fn stdout_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {program}: is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let start = said.len().saturating_sub(QUOTED_BYTES_MAX);
        let tail = &said[said.ceil_char_boundary(start)..];
        bail!("{command:?} ended with {}:\n{}", output.status, tail.trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first executable search path entry called `name`.
pub fn find_tool(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = Path::new(name.as_ref());
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Whether `path` is an ELF file that asks for no dynamic loader.
pub fn is_static_elf(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| has_no_interpreter(&bytes) == Some(true))
}

/// Walks the program headers of a 64-bit little-endian ELF file; `None` when it is not one.
fn has_no_interpreter(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    const CLASS_64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    let u16_at = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));

    if !bytes.starts_with(CLASS_64_LITTLE_ENDIAN) {
        return None;
    }
    let table = usize::try_from(u64_at(32)?).ok()?;
    let entry_bytes = usize::from(u16_at(54)?);
    for index in 0..usize::from(u16_at(56)?) {
        let kind = u32_at(table.checked_add(index.checked_mul(entry_bytes)?)?)?;
        if kind == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_binary_needs_a_loader_and_text_is_no_elf() {
        let dynamic = std::fs::read(env::current_exe().expect("own path")).expect("read own binary");
        assert_eq!(has_no_interpreter(&dynamic), Some(cfg!(target_feature = "crt-static")));
        assert_eq!(has_no_interpreter(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn a_truncated_header_is_no_elf() {
        assert_eq!(has_no_interpreter(b"\x7fELF\x02\x01"), None);
    }

    #[test]
    fn a_failed_command_quotes_what_it_said() {
        let error = stdout_of(Command::new("ls").arg("/absent/file")).expect_err("the file is absent");
        assert!(error.to_string().contains("/absent/file"), "{error}");
    }
}
