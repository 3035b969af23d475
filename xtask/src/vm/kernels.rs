//! Debian's kernels: which package holds the newest of a series, and its unpacked copy under
//! `target/vm/kernels`.
//!
//! A kernel that is unpacked already is never looked up again; delete its directory to get a newer one. It
//! refuses kernels with debug symbols or for other flavours than `cloud-amd64`, whose drivers are enough for
//! qemu.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Archive, PrivateApt, Suite};
use super::host::stdout_of;

/// Written last into a kernel's directory, so that its presence means that the rest is whole.
const PACKAGE_NOTE: &str = "package";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    V5_10,
    V6_1,
    V6_12,
    Newest,
}

impl Kernel {
    pub const ALL: [Kernel; 4] = [Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::Newest];

    pub fn name(self) -> &'static str {
        match self {
            Kernel::V5_10 => "5.10",
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
            Kernel::Newest => "newest",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.name() == name)
    }

    /// All names as usage text.
    pub fn names() -> String {
        Self::ALL.map(Kernel::name).join("|")
    }

    /// How the release that `uname -r` prints in the guest begins; empty where any will do.
    pub fn release_prefix(self) -> &'static str {
        match self {
            Kernel::V5_10 => "5.10.",
            Kernel::V6_1 => "6.1.",
            Kernel::V6_12 => "6.12.",
            Kernel::Newest => "",
        }
    }

    fn suites(self) -> &'static [Suite] {
        const fn main(name: &'static str) -> Suite {
            Suite { archive: Archive::Main, name }
        }
        const fn security(name: &'static str) -> Suite {
            Suite { archive: Archive::Security, name }
        }
        match self {
            Kernel::V5_10 => const { &[security("bullseye-security")] },
            Kernel::V6_1 => const { &[main("bookworm"), security("bookworm-security")] },
            Kernel::V6_12 => const { &[main("trixie"), security("trixie-security")] },
            Kernel::Newest => const { &[main("sid")] },
        }
    }

    /// Matches every package that may hold this kernel, and the ones beside it that [`PackageRank`] drops.
    fn package_pattern(self) -> String {
        let series = self.release_prefix().replace('.', "\\.");
        format!("^linux-(image|binary)-(unsigned-)?{series}[0-9].*-cloud-amd64")
    }
}

/// A kernel that is ready to boot.
pub struct KernelImage {
    pub kernel: Kernel,
    pub package: String,
    pub vmlinuz: PathBuf,
}

/// Returns `kernel` from the cache, or downloads and unpacks it.
pub fn fetch(kernel: Kernel, vm_dir: &Path) -> Result<KernelImage> {
    let unpacked = vm_dir.join("kernels").join(kernel.name());
    let note = unpacked.join(PACKAGE_NOTE);
    if !note.exists() {
        download_and_unpack(kernel, vm_dir, &unpacked)
            .with_context(|| format!("fetch Debian's kernel {}", kernel.name()))?;
    }
    let package = fs::read_to_string(&note).with_context(|| format!("read {}", note.display()))?;
    let vmlinuz = find_vmlinuz(&unpacked)?.with_context(|| {
        format!(
            "{package} holds no vmlinuz: Debian renamed its packages, or delete {} and retry",
            unpacked.display()
        )
    })?;
    Ok(KernelImage { kernel, package, vmlinuz })
}

fn download_and_unpack(kernel: Kernel, vm_dir: &Path, unpacked: &Path) -> Result<()> {
    eprintln!("vm: fetch kernel {}", kernel.name());
    let apt = PrivateApt::open(&vm_dir.join("apt").join(kernel.name()), kernel.suites())?;
    let pattern = kernel.package_pattern();
    let package = newest_package(&apt.search(&pattern)?).with_context(|| {
        format!(
            "no package matches {pattern}: Debian may have renamed its kernels, or the mirror lacks the suite"
        )
    })?;

    let staging = vm_dir.join("kernels").join(format!("{}.partial", kernel.name()));
    for dir in [&staging, unpacked] {
        remove_dir_if_present(dir)?;
    }
    let deb_dir = staging.join("deb");
    fs::create_dir_all(&deb_dir).with_context(|| format!("create {}", deb_dir.display()))?;
    apt.download(&package, &deb_dir)?;
    for deb in entries(&deb_dir)? {
        stdout_of(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&staging))?;
    }
    fs::remove_dir_all(&deb_dir).with_context(|| format!("remove {}", deb_dir.display()))?;
    fs::write(staging.join(PACKAGE_NOTE), package).context("note the package's name")?;
    fs::rename(&staging, unpacked).with_context(|| format!("move the kernel to {}", unpacked.display()))
}

/// Orders packages by kernel version, then by how likely each holds the image itself.
///
/// `linux-binary` comes first because `linux-image` of the same version is empty where both exist; signed
/// images come before unsigned ones because they are what Debian boots.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PackageRank {
    version: Vec<u64>,
    is_signed: bool,
    is_binary: bool,
}

impl PackageRank {
    /// `None` for packages that hold no bootable image, such as debug symbols.
    fn of(package: &str) -> Option<Self> {
        let stem = package.strip_suffix("-unsigned").unwrap_or(package);
        let stem = stem.strip_suffix("-cloud-amd64")?;
        let version = stem.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        Some(PackageRank {
            version: numbers_in(version),
            is_signed: !package.contains("unsigned"),
            is_binary: package.starts_with("linux-binary-"),
        })
    }
}

fn newest_package(packages: &[String]) -> Option<String> {
    let ranked = packages.iter().filter_map(|package| Some((PackageRank::of(package)?, package)));
    ranked.max().map(|(_, package)| package.clone())
}

/// The runs of digits in a version: `6.12.115+deb13.1` is newer than `6.12.115+deb13` and older than
/// `6.12.116`.
fn numbers_in(version: &str) -> Vec<u64> {
    version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Older packages keep the image in `boot`, newer ones beside the modules.
fn find_vmlinuz(unpacked: &Path) -> Result<Option<PathBuf>> {
    let mut dirs = vec![unpacked.join("boot")];
    for modules in ["lib/modules", "usr/lib/modules"] {
        let modules = unpacked.join(modules);
        if modules.is_dir() {
            dirs.extend(entries(&modules)?);
        }
    }
    for dir in dirs.iter().filter(|dir| dir.is_dir()) {
        let is_image = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("vmlinuz"))
        };
        if let Some(image) = entries(dir)?.into_iter().find(is_image) {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    listing.map(|entry| Ok(entry.with_context(|| format!("list {}", dir.display()))?.path())).collect()
}

fn remove_dir_if_present(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(packages: &[&str]) -> Option<String> {
        newest_package(&packages.iter().map(|package| (*package).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn versions_compare_as_numbers() {
        let found = newest(&[
            "linux-image-6.12.9+deb13-cloud-amd64",
            "linux-image-6.12.115+deb13.1-cloud-amd64",
            "linux-image-6.12.115+deb13-cloud-amd64",
        ]);
        assert_eq!(found.as_deref(), Some("linux-image-6.12.115+deb13.1-cloud-amd64"));
    }

    #[test]
    fn the_image_itself_wins_over_its_neighbours() {
        let found = newest(&[
            "linux-binary-unsigned-7.2.13+deb14-cloud-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64-dbg",
        ]);
        assert_eq!(found.as_deref(), Some("linux-binary-7.2.13+deb14-cloud-amd64"));
        let found =
            newest(&["linux-image-5.10.0-46-cloud-amd64-unsigned", "linux-image-5.10.0-46-cloud-amd64"]);
        assert_eq!(found.as_deref(), Some("linux-image-5.10.0-46-cloud-amd64"));
    }

    #[test]
    fn debug_symbols_alone_are_no_kernel() {
        assert_eq!(newest(&["linux-image-7.2.13+deb14-cloud-amd64-dbg"]), None);
    }

    #[test]
    fn kernel_names_are_read_back() {
        for kernel in Kernel::ALL {
            assert_eq!(Kernel::from_name(kernel.name()), Some(kernel));
        }
    }
}
