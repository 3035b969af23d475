//! Gives back the pages of symbol files that stay mapped for the next window.
//!
//! They are clean and in the page cache: reading them again costs a minor fault, keeping them costs resident memory by
//! the size of what runs on the node (libLLVM alone: 14 MiB). Refuses: the agent's own program and libraries.

use std::collections::HashSet;
use std::path::PathBuf;

use procfs::process::{MMPermissions, MMapPath, Process};

/// Knows which mapped files are the agent's own.
pub struct MappedFiles {
    own: HashSet<PathBuf>,
}

impl Default for MappedFiles {
    /// Everything that is mapped now counts as the agent's own: call it before any symbol file is opened.
    fn default() -> Self {
        let own = regions().into_iter().map(|(path, ..)| path).collect();
        Self { own }
    }
}

impl MappedFiles {
    /// Drops the resident pages of all read-only mappings of files that are not the agent's own.
    pub fn release(&self) {
        for (path, start, end) in regions() {
            if self.own.contains(&path) {
                continue;
            }
            // SAFETY: the region is a read-only file mapping that was made after the start, so none of its pages was
            // written to: what is dropped here is read from the file again. A region that was unmapped meanwhile is an
            // error of the call, which changes nothing; only this thread maps files after the start.
            unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) };
        }
    }
}

/// Read-only file mappings of this process: path, start, end.
fn regions() -> Vec<(PathBuf, u64, u64)> {
    let maps = Process::myself().and_then(|own| own.maps()).map(|maps| maps.0).unwrap_or_default();
    let regions = maps.into_iter().filter_map(|region| {
        let is_read_only = region.perms.contains(MMPermissions::READ)
            && !region.perms.intersects(MMPermissions::WRITE | MMPermissions::EXECUTE);
        let MMapPath::Path(path) = region.pathname else { return None };
        is_read_only.then_some((path, region.address.0, region.address.1))
    });
    regions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_files_are_read_again() {
        let files = MappedFiles::default();
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, &[7; 4_096]).expect("written");
        let mapping = blazesym_like_mapping(file.as_file());
        assert_eq!(mapping[0], 7);
        files.release();
        assert_eq!(mapping[4_095], 7);
        assert!(files.own.iter().any(|path| path.to_string_lossy().contains("collector")), "{:?}", files.own);
    }

    fn blazesym_like_mapping(file: &std::fs::File) -> &'static [u8] {
        use std::os::fd::AsRawFd;
        // SAFETY: a fresh read-only mapping of one page that is never unmapped.
        unsafe {
            let flags = (libc::PROT_READ, libc::MAP_PRIVATE);
            let start = libc::mmap(std::ptr::null_mut(), 4_096, flags.0, flags.1, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            std::slice::from_raw_parts(start.cast(), 4_096)
        }
    }
}
