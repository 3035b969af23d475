//! The path of a cgroup in the unified hierarchy, from its id.
//!
//! A cgroup's id is the number in its kernfs file handle, so `open_by_handle_at(2)` leads from the id to the
//! directory without a walk. Needs CAP_DAC_READ_SEARCH. Refuses: the v1 hierarchies, which have no ids.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `FILEID_KERNFS` of `include/linux/exportfs.h`.
const FILE_ID_KERNFS: libc::c_int = 0xfe;

/// The layout of `struct file_handle` with eight bytes of handle.
#[repr(C)]
struct FileHandle {
    handle_bytes: libc::c_uint,
    handle_type: libc::c_int,
    cgroup_id: [u8; 8],
}

/// The mounted unified hierarchy.
pub struct CgroupMount {
    directory: File,
    path: PathBuf,
}

impl CgroupMount {
    /// Finds the cgroup2 mount; `None` where there is none (pure v1).
    pub fn find() -> Option<Self> {
        let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2")?;
        let directory = File::open(&mount.mount_point).ok()?;
        Some(Self { directory, path: mount.mount_point })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a cgroup below the mount, starting with `/`; `None` if it is gone or may not be opened.
    pub fn path_of(&self, cgroup_id: u64) -> Option<String> {
        let mut handle =
            FileHandle { handle_bytes: 8, handle_type: FILE_ID_KERNFS, cgroup_id: cgroup_id.to_ne_bytes() };
        // SAFETY: the handle has the layout of `struct file_handle` followed by the eight bytes that it announces.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.directory.as_raw_fd(),
                &raw mut handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        let descriptor = i32::try_from(descriptor).ok().filter(|&descriptor| descriptor >= 0)?;
        // SAFETY: the call gave us this descriptor, and nobody else has it.
        let directory = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
        let below = path.strip_prefix(&self.path).ok()?.to_str()?;
        Some(format!("/{below}"))
    }
}

/// The id of a cgroup directory: its inode number.
pub fn cgroup_id_of(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_this_machine() {
        let Some(mount) = CgroupMount::find() else { return };
        let id = cgroup_id_of(mount.path()).expect("the mount exists");
        assert_eq!(mount.path_of(id).as_deref(), Some("/"));
        assert_eq!(mount.path_of(u64::MAX), None);
    }
}
