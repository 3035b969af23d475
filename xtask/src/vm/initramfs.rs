//! An initramfs: a directory that is filled file by file and packed into one uncompressed cpio archive.
//!
//! It knows nothing of what the guest does. It refuses compression, which the emulated processor would pay
//! for.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::host::{find_tool, stdout_of};

const EXECUTABLE: u32 = 0o755;

/// An image in the making.
pub struct Image {
    root: PathBuf,
}

impl Image {
    /// Starts over in `root` with busybox, a link for each of its commands, and the empty directories `dirs`.
    pub fn with_busybox(root: &Path, dirs: &[&str]) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
        }
        let image = Image { root: root.to_owned() };
        for dir in dirs {
            image.make_dir(dir)?;
        }
        let busybox =
            find_tool("busybox").context("busybox is not installed: apt-get install busybox-static")?;
        image.add(&busybox, "bin/busybox")?;
        for command in
            stdout_of(Command::new(&busybox).arg("--list"))?.lines().filter(|name| *name != "busybox")
        {
            let link = image.root.join("bin").join(command);
            symlink("busybox", &link).with_context(|| format!("link {}", link.display()))?;
        }
        Ok(image)
    }

    /// Copies a program of this machine to `guest_path` (relative to the guest's root).
    pub fn add(&self, host_path: &Path, guest_path: &str) -> Result<()> {
        let target = self.parent_made(guest_path)?;
        fs::copy(host_path, &target)
            .with_context(|| format!("copy {} into the image", host_path.display()))?;
        make_executable(&target)
    }

    /// Writes `text` as a script at `guest_path`.
    pub fn add_script(&self, guest_path: &str, text: &str) -> Result<()> {
        let target = self.parent_made(guest_path)?;
        fs::write(&target, text).with_context(|| format!("write {}", target.display()))?;
        make_executable(&target)
    }

    /// Packs everything added so far into `archive`.
    pub fn pack(&self, archive: &Path) -> Result<()> {
        let mut names = Vec::new();
        collect_names(&self.root, Path::new("."), &mut names)?;
        let output = File::create(archive).with_context(|| format!("create {}", archive.display()))?;
        let mut cpio = Command::new("cpio")
            .args(["--create", "--format=newc", "--owner=0:0", "--null", "--quiet"])
            .current_dir(&self.root)
            .stdin(Stdio::piped())
            .stdout(output)
            .spawn()
            .context("start cpio (apt-get install cpio)")?;
        let mut list = cpio.stdin.take().context("cpio takes its list on standard input")?;
        for name in names {
            list.write_all(name.as_os_str().as_encoded_bytes()).context("name a file to cpio")?;
            list.write_all(b"\0").context("name a file to cpio")?;
        }
        drop(list);
        let status = cpio.wait().context("wait for cpio")?;
        if !status.success() {
            bail!("cpio could not pack {} ({status}): is the disk full?", archive.display());
        }
        Ok(())
    }

    fn make_dir(&self, guest_path: &str) -> Result<()> {
        let dir = self.root.join(guest_path);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))
    }

    fn parent_made(&self, guest_path: &str) -> Result<PathBuf> {
        debug_assert!(!guest_path.starts_with('/'), "an absolute path would leave the image");
        if let Some((dir, _)) = guest_path.rsplit_once('/') {
            self.make_dir(dir)?;
        }
        Ok(self.root.join(guest_path))
    }
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(EXECUTABLE))
        .with_context(|| format!("make {} executable", path.display()))
}

/// Lists directories before what they hold, as the kernel needs it.
fn collect_names(root: &Path, dir: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    names.push(dir.to_owned());
    let host_dir = root.join(dir);
    for entry in fs::read_dir(&host_dir).with_context(|| format!("list {}", host_dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", host_dir.display()))?;
        let name = dir.join(entry.file_name());
        if entry.file_type().with_context(|| format!("look at {}", name.display()))?.is_dir() {
            collect_names(root, &name, names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}
