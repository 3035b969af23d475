//! Files that are read again when they changed: tokens, certificates, keys.
//!
//! A file counts as changed when its inode, size or time did, so that the renames of Kubernetes secrets are seen.
//! Refuses: files larger than [`FILE_BYTES_MAX`].

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The largest file that is read.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files that are read together.
#[derive(Debug)]
pub struct WatchedFiles {
    paths: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl WatchedFiles {
    /// Files that all count as changed at first.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, stamps: Vec::new() }
    }

    /// Whether one changed since the last call.
    pub fn changed(&mut self) -> bool {
        let stamps: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        let changed = stamps != self.stamps;
        self.stamps = stamps;
        changed
    }
}

/// The content of the file. Errors name it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        content.len() as u64 <= FILE_BYTES_MAX,
        "{} is larger than {FILE_BYTES_MAX} bytes",
        path.display()
    );
    Ok(content)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some(Stamp { device: metadata.dev(), inode: metadata.ino(), bytes: metadata.size(), changed })
}
