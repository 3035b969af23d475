//! Reads small files and lists subdirectories below an open directory, with buffers that live on.
//!
//! Refuses: symbolic links, and files beyond [`FILE_BYTES_MAX`].

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use rustix::path::Arg;

/// The largest file that is read; the rest of a larger one is left out.
pub const FILE_BYTES_MAX: usize = 256 * 1024;

/// A file of the kernel that is shorter than this came whole: `seq_file` stops at whole lines of at least a page.
const WHOLE_BYTES: usize = 2048;

/// Bytes of directory entries that are taken at once.
const ENTRIES_BYTES: usize = 32 * 1024;

/// The buffers.
pub struct Buffers {
    file: Vec<u8>,
    path: Vec<u8>,
    entries: Vec<MaybeUninit<u8>>,
}

impl Default for Buffers {
    fn default() -> Self {
        let entries = vec![MaybeUninit::uninit(); ENTRIES_BYTES];
        Self { file: vec![0; FILE_BYTES_MAX], path: Vec::new(), entries }
    }
}

impl Buffers {
    /// The text of a file; `None` if it is not there or cannot be read.
    pub fn read(&mut self, directory: BorrowedFd<'_>, name: impl Arg) -> Option<&[u8]> {
        read(directory, name, &mut self.file)
    }

    /// The text of a file in a directory below another, such as `/system.slice`: by its whole path, for to open each
    /// directory first costs as much as its file.
    pub fn read_below(&mut self, top: BorrowedFd<'_>, directory: &str, name: &CStr) -> Option<&[u8]> {
        let below = directory.trim_start_matches('/');
        self.path.clear();
        self.path.extend_from_slice(below.as_bytes());
        if !below.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes_with_nul());
        let path = CStr::from_bytes_with_nul(&self.path).ok()?;
        read(top, path, &mut self.file)
    }

    /// Calls `visit` with the name of each subdirectory.
    pub fn subdirectories(&mut self, directory: BorrowedFd<'_>, mut visit: impl FnMut(&CStr)) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(opened) = openat(directory, c".", flags, Mode::empty()) else { return };
        let mut entries = RawDir::new(opened, &mut self.entries);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                visit(name);
            }
        }
    }
}

fn read<'a>(directory: BorrowedFd<'_>, name: impl Arg, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest).ok()? {
            0 => break,
            count => length += count,
        }
        if length < WHOLE_BYTES {
            break;
        }
    }
    bytes.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn files_and_directories() {
        let place = tempfile::tempdir().expect("a directory");
        let inside = |name: &str| place.path().join(name);
        std::fs::write(inside("short"), "12\n").expect("writable");
        std::fs::write(inside("long"), vec![b'x'; FILE_BYTES_MAX + 5]).expect("writable");
        std::fs::create_dir(inside("one")).expect("writable");
        std::os::unix::fs::symlink(inside("one"), inside("link")).expect("writable");
        std::os::unix::fs::symlink(inside("short"), inside("file-link")).expect("writable");
        let directory = std::fs::File::open(place.path()).expect("there");
        let mut buffers = Buffers::default();
        assert_eq!(buffers.read(directory.as_fd(), c"short"), Some(b"12\n".as_slice()));
        assert_eq!(buffers.read(directory.as_fd(), c"long").map(<[u8]>::len), Some(FILE_BYTES_MAX));
        assert_eq!(buffers.read(directory.as_fd(), c"file-link"), None);
        assert_eq!(buffers.read(directory.as_fd(), c"gone"), None);
        std::fs::write(inside("one/below"), "13\n").expect("writable");
        assert_eq!(buffers.read_below(directory.as_fd(), "/one", c"below"), Some(b"13\n".as_slice()));
        assert_eq!(buffers.read_below(directory.as_fd(), "/", c"short"), Some(b"12\n".as_slice()));
        assert_eq!(buffers.read_below(directory.as_fd(), "/two", c"below"), None);
        let mut names = Vec::new();
        buffers.subdirectories(directory.as_fd(), |name| names.push(name.to_owned()));
        assert_eq!(names, [c"one".to_owned()]);
    }
}
