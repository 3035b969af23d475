//! Whose the cgroups of the block controller are, where it has a hierarchy of its own (v1): their ids are not those of
//! the unified one.
//!
//! Refuses: machines with a unified block controller; there the ids are the same.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::identity::{CgroupName, Key};

/// Directories that one walk looks at.
const DIRECTORIES_MAX: usize = 20_000;

/// The block controller's cgroups.
pub struct BlockCgroups {
    mount: Option<PathBuf>,
    owners: HashMap<u64, Option<Key>>,
    is_walked: bool,
}

impl BlockCgroups {
    /// Finds the v1 hierarchy of the block controller.
    pub fn find() -> Self {
        let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo());
        let mounts = mounts.map(|mounts| mounts.0).unwrap_or_default();
        let mount = mounts
            .into_iter()
            .find(|mount| mount.fs_type == "cgroup" && mount.super_options.contains_key("blkio"));
        Self { mount: mount.map(|mount| mount.mount_point), owners: HashMap::new(), is_walked: false }
    }

    /// Whether the controller has ids of its own.
    pub fn is_apart(&self) -> bool {
        self.mount.is_some()
    }

    /// A reading begins: the hierarchy may be walked once.
    pub fn begin(&mut self) {
        self.is_walked = false;
    }

    /// Whose a cgroup is.
    pub fn owner_of(&mut self, cgroup_id: u64) -> Option<Key> {
        if cgroup_id > 1 && !self.owners.contains_key(&cgroup_id) && !self.is_walked {
            self.walk();
        }
        self.owners.get(&cgroup_id).cloned().flatten()
    }

    /// Walks the hierarchy anew.
    pub fn refresh(&mut self) {
        self.walk();
    }

    /// Whether a cgroup was there at the last walk.
    pub fn is_there(&self, cgroup_id: u64) -> bool {
        cgroup_id <= 1 || self.owners.contains_key(&cgroup_id)
    }

    fn walk(&mut self) {
        self.is_walked = true;
        let Some(mount) = &self.mount else { return };
        self.owners = walk(mount);
    }
}

/// The owner of each directory below a mount, by inode number. One with two links has no directories below it (inode(7)), and
/// a cgroup's directory has forty files to read past.
fn walk(mount: &Path) -> HashMap<u64, Option<Key>> {
    let mut owners = HashMap::new();
    let mut waiting = vec![mount.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || owners.len() >= DIRECTORIES_MAX {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            let below = path.strip_prefix(mount).unwrap_or(&path).to_string_lossy().into_owned();
            let name = CgroupName::parse(&format!("/{below}"));
            owners.insert(metadata.ino(), name.key());
            if metadata.nlink() != 2 {
                waiting.push(path);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_by_inode() {
        let mount = tempfile::tempdir().expect("a temporary directory");
        let id = "a".repeat(64);
        for path in [format!("kubepods/pod1/{id}/inner"), "system.slice/nginx.service".to_owned()] {
            std::fs::create_dir_all(mount.path().join(path)).expect("writable");
        }
        let inode = |path: &str| crate::kernel::cgroup_id_of(&mount.path().join(path)).expect("there");
        let owners = walk(mount.path());
        let container = Some(Key::Container(id.clone()));
        assert_eq!(owners[&inode(&format!("kubepods/pod1/{id}"))], container);
        assert_eq!(owners[&inode(&format!("kubepods/pod1/{id}/inner"))], container);
        assert_eq!(owners[&inode("kubepods")], None);
        let unit = Some(Key::Unit("nginx.service".to_owned()));
        assert_eq!(owners[&inode("system.slice/nginx.service")], unit);
    }
}
