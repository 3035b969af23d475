//! Where the host's /proc, /sys and mounts are: `/`, or the place where a container has the host's root.
//!
//! Refuses: what the files mean. Every read is bounded; a bigger file is an error, never half a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The biggest file that is read, bytes. `/proc/stat` of a host with thousands of interrupts is under 1 MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is read at once, bytes. Without it the standard library begins with 32 bytes, and most files here are bigger.
const READ_BYTES: usize = 16 << 10;

/// The host's root directory.
pub(super) struct Root {
    root: PathBuf,
}

impl Root {
    /// The host's files below `root`.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where the file `path` of the host is for us: `proc/stat`, `/var/lib`.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of `path`. Bytes that are not UTF-8 are replaced: the names of devices and mounts are bytes.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        File::open(self.path(path))?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|broken| String::from_utf8_lossy(broken.as_bytes()).into_owned()))
    }

    /// The text of `file` of the first process, or of ourselves: `/proc/net` and `/proc/mounts` are those of the
    /// reader's namespaces, and an agent in a container has others than the host.
    pub(super) fn read_of_init(&self, file: &str) -> io::Result<String> {
        self.read(format!("proc/1/{file}")).or_else(|_| self.read(format!("proc/self/{file}")))
    }

    /// The one number in `path`, decimal or `0x` hexadecimal; none if it is not there or is none.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        number(self.read(path).ok()?.trim())
    }
}

/// A decimal or `0x` hexadecimal number.
pub(super) fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, expected) in
            [("12", Some(12)), ("-1", Some(-1)), ("0x1003", Some(4099)), ("", None), ("x", None)]
        {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn bounds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("big"), vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        std::fs::write(folder.path().join("bytes"), b"a\xffb").unwrap();
        let root = Root::new(folder.path().to_path_buf());
        assert_eq!(root.read("big").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(root.read("/bytes").unwrap(), "a\u{fffd}b");
        assert_eq!(root.read("none").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
