//! Size and room of the file system that a container's root is on, and where its writable layer stands.
//!
//! Looks at the kind of the file system before it asks it anything, for a network file system whose server is gone does
//! not answer. Source: proc(5) on `mountinfo`. Refuses: every kind that is not known to be local.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{CWD, statvfs};

use super::directory::Buffers;
use super::usage::FilesystemUsage;

/// Kinds that answer without a network.
const LOCAL_KINDS: [&[u8]; 14] = [
    b"overlay",
    b"ext4",
    b"xfs",
    b"btrfs",
    b"tmpfs",
    b"zfs",
    b"f2fs",
    b"ext3",
    b"ext2",
    b"rootfs",
    b"ramfs",
    b"squashfs",
    b"erofs",
    b"bcachefs",
];

/// What `mountinfo` says of a process's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootMount {
    /// Whether it answers without a network.
    pub is_local: bool,
    /// Where it is mounted from.
    pub source: String,
    /// The writable layer of an overlay, in the mount namespace of the runtime.
    pub upper: Option<PathBuf>,
}

/// The root file system of a process, and its writable layer; `None` if the process is gone or its root is not local.
pub fn of_process(pid: u32, buffers: &mut Buffers) -> Option<(FilesystemUsage, Option<PathBuf>)> {
    let text = buffers.read(CWD.as_fd(), format!("/proc/{pid}/mountinfo"))?;
    let mount = root_mount(text).filter(|mount| mount.is_local)?;
    let stat = statvfs(format!("/proc/{pid}/root")).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let usage = FilesystemUsage {
        source: mount.source,
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        layer_bytes: None,
    };
    Some((usage, mount.upper))
}

/// The last mount at "/": it lies on top.
pub fn root_mount(text: &[u8]) -> Option<RootMount> {
    text.split(|&byte| byte == b'\n').filter_map(mount_at_root).next_back()
}

fn mount_at_root(line: &[u8]) -> Option<RootMount> {
    let mut words = line.split(|&byte| byte == b' ');
    words.nth(4).filter(|point| *point == b"/")?;
    // Optional fields, up to a dash.
    words.find(|word| *word == b"-")?;
    let (kind, source, options) = (words.next()?, words.next()?, words.next().unwrap_or_default());
    let upper = options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(b"upperdir="));
    Some(RootMount {
        is_local: LOCAL_KINDS.contains(&kind),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
        upper: upper.map(|upper| PathBuf::from(OsString::from_vec(unescape(upper)))),
    })
}

/// Undoes `\040` and the like.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0u32, |value, digit| {
                matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
            })
        };
        match (first, tail.get(..3).and_then(octal).and_then(|value| u8::try_from(value).ok())) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(bool, &str, Option<&str>)>) {
        let found = root_mount(text.as_bytes());
        let found = found.as_ref().map(|mount| {
            (mount.is_local, mount.source.as_str(), mount.upper.as_ref().and_then(|upper| upper.to_str()))
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn roots() {
        check("", None);
        check("1 0 8:1 / /x rw - ext4 /dev/vda1 rw\n", None);
        check("1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n", Some((true, "/dev/vda1", None)));
        check(
            "1 0 0:9 / / rw - nfs4 server:/export rw,addr=1.2.3.4\n",
            Some((false, "server:/export", None)),
        );
        check("1 0 0:9 / / rw - fuse.sshfs a rw\n", Some((false, "a", None)));
        let overlay = "7 1 0:50 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/a\\040b/diff,workdir=/w\n";
        check(overlay, Some((true, "overlay", Some("/a b/diff"))));
        check(&format!("1 0 8:1 / / rw - nfs4 s rw\n{overlay}"), Some((true, "overlay", Some("/a b/diff"))));
        check("1 0 8:1 / / rw", None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = (root_mount(&text), unescape(&text));
        }

        #[test]
        fn any_line(options in "[a-z\\\\0-9,=/ ]{0,60}") {
            let found = root_mount(format!("1 0 8:1 / / rw - ext4 {options}").as_bytes());
            let _ = (found, unescape(options.as_bytes()));
        }
    }

    #[test]
    fn own_root() {
        let mut buffers = Buffers::default();
        if let Some((usage, _)) = of_process(std::process::id(), &mut buffers) {
            assert!(usage.capacity_bytes >= usage.available_bytes && usage.capacity_bytes > 0);
        }
        assert!(of_process(u32::MAX, &mut buffers).is_none());
    }
}
