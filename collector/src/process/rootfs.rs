//! Where the files of a container lie on the host, for when its processes and its mounts are gone.
//!
//! Overlay mounts name their layers, which stay until the container is removed; any other root is a directory of a host
//! file system. Refuses: trust. Whoever opens a file there compares its build id or inode.

use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

/// Directories of one root: the layers of an image, the upper one first.
const DIRECTORIES_MAX: usize = 64;

/// Directories on the host that make up the root of a process, the most likely first; empty if it has the host's own.
pub fn host_directories(tgid: u32) -> Vec<PathBuf> {
    let Some(root) = root_mount(tgid) else { return Vec::new() };
    let layers = layers(&root);
    if layers.is_empty() { beneath(&root, &host_mounts()).into_iter().collect() } else { layers }
}

fn root_mount(tgid: u32) -> Option<MountInfo> {
    let mounts = Process::new(i32::try_from(tgid).ok()?).ok()?.mountinfo().ok()?;
    // The last one on a mount point covers the others.
    mounts.into_iter().rfind(|mount| mount.mount_point == Path::new("/"))
}

fn host_mounts() -> Vec<MountInfo> {
    let mounts = |process: Process| process.mountinfo().map(|mounts| mounts.0);
    let host = Process::new(1).and_then(mounts);
    host.or_else(|_| Process::myself().and_then(mounts)).unwrap_or_default()
}

/// The layers of an overlay: `upperdir`, then `lowerdir` from the top down.
fn layers(root: &MountInfo) -> Vec<PathBuf> {
    let option = |name: &str| root.super_options.get(name).cloned().flatten();
    let upper = option("upperdir");
    let lower = option("lowerdir");
    let lower = lower.iter().flat_map(|list| list.split(':')).filter(|path| path.starts_with('/'));
    upper.iter().map(String::as_str).chain(lower).take(DIRECTORIES_MAX).map(PathBuf::from).collect()
}

/// The directory on the host that is the root of a mount, if it is not the host's own root.
fn beneath(root: &MountInfo, host: &[MountInfo]) -> Option<PathBuf> {
    let own = Path::new(&root.root);
    let same_files = host.iter().filter(|mount| mount.majmin == root.majmin);
    let found = same_files.filter_map(|mount| {
        let rest = own.strip_prefix(&mount.root).ok()?;
        Some(mount.mount_point.join(rest))
    });
    found.max_by_key(|path| path.as_os_str().len()).filter(|path| path != Path::new("/"))
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;
    use procfs::process::MountInfos;

    use super::*;

    fn mounts(text: &str) -> Vec<MountInfo> {
        MountInfos::from_read(text.as_bytes()).expect("mountinfo").0
    }

    fn check(root: &str, host: &str, expected: &[&str]) {
        let root = mounts(root).pop().expect("one mount");
        let layers = layers(&root);
        let found =
            if layers.is_empty() { beneath(&root, &mounts(host)).into_iter().collect() } else { layers };
        assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{root:?}");
    }

    #[test]
    fn roots() {
        let host = "20 1 254:0 / / rw - ext4 /dev/vda rw\n30 20 254:16 /data /srv rw - ext4 /dev/vdb rw\n";
        check("50 40 254:0 /tmp/x/rootfs / rw - ext4 /dev/vda rw\n", host, &["/tmp/x/rootfs"]);
        check("50 40 254:16 /data/c/rootfs / rw - ext4 /dev/vdb rw\n", host, &["/srv/c/rootfs"]);
        check("50 40 254:0 / / rw - ext4 /dev/vda rw\n", host, &[]);
        check("50 40 0:77 / / rw - tmpfs none rw\n", host, &[]);
        let overlay =
            "50 40 0:55 / / rw - overlay overlay rw,lowerdir=/l/2/fs:/l/1/fs,upperdir=/u/fs,workdir=/w\n";
        check(overlay, host, &["/u/fs", "/l/2/fs", "/l/1/fs"]);
    }

    #[test]
    fn this_process_and_a_gone_one() {
        assert!(host_directories(u32::MAX).is_empty());
        host_directories(std::process::id());
    }
}
