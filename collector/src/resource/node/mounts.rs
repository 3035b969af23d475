//! `/proc/1/mountinfo`: what is mounted where on the host (proc(5)), and what of it may be asked for its size.
//!
//! The `procfs` crate leaves escapes in paths and forgets the source `none`, so this parser is our own. Refuses: asking.

use std::collections::HashSet;

use super::root::Root;

/// Types of filesystems that node_exporter excludes by default (1.9: `--collector.filesystem.fs-types-exclude`).
const EXCLUDED: [&str; 25] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];
/// Types whose answer comes from another machine or program, which may never come.
const REMOTE: [&str; 22] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "fuse",
    "gfs2",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "panfs",
    "pvfs2",
    "smb2",
    "smb3",
    "smbfs",
];

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of the filesystem.
    pub(super) device_number: String,
    /// Where, seen from the host's root.
    pub(super) mountpoint: String,
    /// Type of the filesystem.
    pub(super) kind: String,
    /// What is mounted: `/dev/vda`, `tmpfs`.
    pub(super) source: String,
    pub(super) is_read_only: bool,
}

/// The mounts of the host that may be asked for their size without fear of waiting, each once.
pub(super) fn local(root: &Root) -> std::io::Result<Vec<Mount>> {
    Ok(of(&root.read_of_init("mountinfo")?))
}

fn of(text: &str) -> Vec<Mount> {
    let all: Vec<Mount> = text.lines().filter_map(parse).collect();
    let remote: Vec<&str> =
        all.iter().filter(|mount| is_remote(&mount.kind)).map(|mount| mount.mountpoint.as_str()).collect();
    let mut known = HashSet::new();
    let is_asked = |mount: &&Mount| {
        // The way to a mount below a dead one is as dead. The root itself is not: we came from there.
        let is_below = remote.iter().any(|dead| *dead != "/" && is_at_or_below(&mount.mountpoint, dead));
        let is_excluded = EXCLUDED.contains(&mount.kind.as_str()) || is_excluded_place(&mount.mountpoint);
        !is_excluded && !is_remote(&mount.kind) && !is_below
    };
    let labels = |mount: &Mount| (mount.mountpoint.clone(), mount.kind.clone(), mount.source.clone());
    all.iter().filter(is_asked).filter(|mount| known.insert(labels(mount))).cloned().collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (device_number, _root, mountpoint, options) =
        (mount.next()?, mount.next()?, mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let (kind, source, of_filesystem) = (filesystem.next()?, filesystem.next()?, filesystem.next()?);
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        device_number: device_number.to_owned(),
        mountpoint: unescape(mountpoint),
        kind: kind.to_owned(),
        source: unescape(source),
        is_read_only: is_read_only(options) || is_read_only(of_filesystem),
    })
    .filter(|mount| mount.mountpoint.starts_with('/'))
}

/// `\040` is a space: the kernel writes space, tab, newline, backslash and `#` so.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        match rest {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] if *first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                bytes = rest;
            }
            _ => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_remote(kind: &str) -> bool {
    REMOTE.contains(&kind) || kind.starts_with("fuse.")
}

/// `^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)`
fn is_excluded_place(mountpoint: &str) -> bool {
    let below = |place: &str| mountpoint.len() > place.len() + 1 && is_at_or_below(mountpoint, place);
    ["/dev", "/proc", "/sys"].iter().any(|place| is_at_or_below(mountpoint, place))
        || ["/run/credentials", "/var/lib/docker", "/var/lib/containers/storage"].into_iter().any(below)
}

fn is_at_or_below(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, mountpoints: &[&str]) {
        let found = of(text);
        let found: Vec<&str> = found.iter().map(|mount| mount.mountpoint.as_str()).collect();
        assert_eq!(found, mountpoints, "{text}");
    }

    #[test]
    fn parses() {
        let line =
            r"36 35 98:0 /mnt1 /mnt\0402\011\134 ro,noatime master:1 - ext4 /dev/a\040b rw,errors=continue";
        let expected = Mount {
            device_number: "98:0".into(),
            mountpoint: "/mnt 2\t\\".into(),
            kind: "ext4".into(),
            source: "/dev/a b".into(),
            is_read_only: true,
        };
        assert_eq!(parse(line), Some(expected));
        for broken in [
            "",
            "36 35 98:0 /mnt1",
            "36 35 98:0 /mnt1 /mnt2 rw - ext4",
            "1 2 3:4 / net:[1] rw - nsfs nsfs rw",
        ] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn chooses() {
        check("1 0 8:1 / / rw - ext4 /dev/a rw\n1 0 8:1 / / rw - ext4 /dev/a rw\n", &["/"]);
        check(
            "1 0 0:1 / /dev/shm rw - tmpfs tmpfs rw\n1 0 0:1 / /device rw - tmpfs tmpfs rw\n",
            &["/device"],
        );
        check(
            "1 0 0:1 / /run/credentials/x rw - tmpfs t rw\n1 0 0:1 / /var/lib/docker rw - xfs t rw\n",
            &["/var/lib/docker"],
        );
        check("1 0 0:1 / /a rw - overlay o rw\n1 0 0:1 / /b rw - fuseblk /dev/b rw\n", &["/b"]);
    }

    #[test]
    fn never_asks_what_may_hang() {
        check("1 0 0:1 / /nfs rw - nfs4 host:/x rw\n1 0 8:1 / /nfs/in rw - ext4 /dev/a rw\n", &[]);
        check("1 0 0:1 / /nfs rw - nfs4 host:/x rw\n1 0 8:1 / /nfs2 rw - ext4 /dev/a rw\n", &["/nfs2"]);
        check("1 0 0:1 / /s3 rw - fuse.s3fs s3fs rw\n", &[]);
        check("1 0 0:1 / / rw - nfs host:/root rw\n1 0 8:1 / /data rw - ext4 /dev/a rw\n", &["/data"]);
        check("1 0 0:1 / / rw - nfs host:/root rw\n1 0 8:1 / / rw - ext4 /dev/a rw\n", &["/"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text(text in "([0-9]{1,3}|:| - |ext4|nfs|/|\\\\|[ \n]|.){0,200}") {
            of(&text);
            unescape(&text);
        }
    }
}
