//! Finds the cgroups that somebody asks about: containers, services, pods, the root.
//!
//! Directories of cgroups change their times only by chance (kernfs keeps them in the cached inode), so a walk looks at
//! the number of links, and reads only directories that have children. What a path is, is asked once in its life.
//! Refuses: symbolic links, and more than [`CGROUPS_MAX`] cgroups.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::CgroupKey;
use super::directory::Buffers;
use super::hierarchy::{Hierarchies, Hierarchy};

/// Cgroups that are known at once, asked for or not; more are counted and left out.
pub const CGROUPS_MAX: usize = 10_000;

/// Levels below the root that are walked.
const DEPTH_MAX: usize = 32;

/// The first hierarchy is walked each time, the others when it has changed, and each time of so many: services of
/// hybrid machines may have a cgroup in some only.
const ALL_EVERY: u64 = 10;

/// A cgroup that was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose it is.
    pub key: CgroupKey,
    /// Its directory; another one under the same path is another cgroup.
    pub inode: u64,
    /// When its directory was made as far as is known, nanoseconds since the epoch: a bound from above, for kernfs
    /// makes the time anew when the inode falls out of the cache.
    pub made_unix_ns: u64,
}

/// What is known of all cgroups.
#[derive(Default)]
pub struct Walk {
    nodes: HashMap<Arc<str>, Node>,
    found: BTreeMap<Arc<str>, Found>,
    walks: u64,
    left_out: u64,
}

/// Asks what a path is.
pub type Classify = dyn FnMut(&str) -> Option<CgroupKey> + Send;

struct Node {
    /// What it is itself.
    key: Option<CgroupKey>,
    /// The hierarchies that have it, a bit each.
    hierarchies: u32,
    /// In the hierarchy that had it first.
    inode: u64,
    first: usize,
    made_unix_ns: u64,
    /// Whether the cgroup above is of the same key, so that its numbers include this one.
    is_nested: bool,
}

impl Walk {
    /// Walks, and gives what was found, ordered by path.
    pub fn walk(
        &mut self,
        hierarchies: &Hierarchies,
        buffers: &mut Buffers,
        classify: &mut Classify,
    ) -> &BTreeMap<Arc<str>, Found> {
        let is_all = self.walks.is_multiple_of(ALL_EVERY);
        self.walks += 1;
        let mut changed = false;
        for (index, hierarchy) in hierarchies.all().iter().enumerate() {
            if index == 0 || is_all || changed {
                self.left_out = if index == 0 { 0 } else { self.left_out };
                changed |= self.walk_one(index, hierarchy, buffers, classify);
            }
        }
        if changed {
            self.find();
        }
        &self.found
    }

    /// Cgroups that the last walk left out for [`CGROUPS_MAX`]; one that stands in several hierarchies may count in each.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether those that the last walk left out have room now: others went.
    pub fn has_room_again(&self) -> bool {
        self.left_out > 0 && self.nodes.len() < CGROUPS_MAX
    }

    /// Whether a cgroup came or went.
    fn walk_one(
        &mut self,
        index: usize,
        hierarchy: &Hierarchy,
        buffers: &mut Buffers,
        classify: &mut Classify,
    ) -> bool {
        let bit = 1u32 << index;
        let had = self.count(bit);
        self.nodes.values_mut().for_each(|node| node.hierarchies &= !bit);
        let mut changed = false;
        // Directories still to be read: path without "/" at the end, depth, and the key above.
        let mut waiting: Vec<(String, usize, Option<CgroupKey>)> = Vec::new();
        let (path, above) = (String::new(), None);
        let Some(root) = hierarchy.open_cgroup("/") else { return false };
        let Some(stat) = Stat::of(&root, c".") else { return false };
        changed |= self.note("/", &above, index, &stat, classify);
        waiting.push((path, 0, self.key_below("/", above)));
        let mut names: Vec<CString> = Vec::new();
        while let Some((mut path, depth, above)) = waiting.pop() {
            let Some(directory) = hierarchy.open_cgroup(&path) else { continue };
            names.clear();
            buffers.subdirectories(directory.as_fd(), |name| match names.len() < CGROUPS_MAX {
                true => names.push(name.to_owned()),
                false => self.left_out += 1,
            });
            for name in &names {
                let (Ok(text), Some(stat)) = (name.to_str(), Stat::of(&directory, name)) else { continue };
                let length = path.len();
                path.push('/');
                path.push_str(text);
                changed |= self.note(&path, &above, index, &stat, classify);
                if stat.may_have_children && depth < DEPTH_MAX && self.nodes.contains_key(path.as_str()) {
                    waiting.push((path.clone(), depth + 1, self.key_below(&path, above.clone())));
                }
                path.truncate(length);
            }
        }
        // One that went from here may stand in the next hierarchy still: that is looked at then, too.
        let has_lost_some = self.count(bit) < had;
        self.nodes.retain(|_, node| node.hierarchies != 0);
        changed || has_lost_some
    }

    /// How many cgroups stand in a hierarchy.
    fn count(&self, bit: u32) -> usize {
        self.nodes.values().filter(|node| node.hierarchies & bit != 0).count()
    }

    /// Remembers a cgroup. Whether it is new.
    fn note(
        &mut self,
        path: &str,
        above: &Option<CgroupKey>,
        index: usize,
        stat: &Stat,
        classify: &mut Classify,
    ) -> bool {
        if let Some(node) = self.nodes.get_mut(path) {
            node.hierarchies |= 1 << index;
            let is_same = node.first != index || node.inode == stat.inode;
            if !is_same {
                (node.inode, node.made_unix_ns) = (stat.inode, stat.made_unix_ns);
            }
            node.made_unix_ns = node.made_unix_ns.min(stat.made_unix_ns);
            return !is_same;
        }
        if self.nodes.len() >= CGROUPS_MAX {
            self.left_out += 1;
            return false;
        }
        let key = classify(path);
        let is_nested = key.is_some() && key == *above;
        let (inode, made_unix_ns) = (stat.inode, stat.made_unix_ns);
        let node = Node { key, hierarchies: 1 << index, inode, first: index, made_unix_ns, is_nested };
        self.nodes.insert(path.into(), node);
        true
    }

    /// The key that children compare theirs with: a cgroup without one passes on that of above.
    fn key_below(&self, path: &str, above: Option<CgroupKey>) -> Option<CgroupKey> {
        self.nodes.get(path).and_then(|node| node.key.clone()).or(above)
    }

    fn find(&mut self) {
        let asked = self.nodes.iter().filter(|(_, node)| !node.is_nested);
        self.found = asked
            .filter_map(|(path, node)| {
                let (key, inode, made_unix_ns) = (node.key.clone()?, node.inode, node.made_unix_ns);
                Some((path.clone(), Found { key, inode, made_unix_ns }))
            })
            .collect();
    }
}

/// What a walk wants to know of a directory.
struct Stat {
    inode: u64,
    made_unix_ns: u64,
    may_have_children: bool,
}

impl Stat {
    fn of(directory: &impl AsFd, name: &std::ffi::CStr) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::CTIME;
        let stat = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let seconds = u64::try_from(stat.stx_ctime.tv_sec).unwrap_or(0);
        Some(Self {
            inode: stat.stx_ino,
            made_unix_ns: seconds.saturating_mul(1_000_000_000) + u64::from(stat.stx_ctime.tv_nsec),
            // Its name above, its own ".", and one ".." for each child; file systems that do not count have 1.
            may_have_children: stat.stx_nlink != 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The first letter of a name tells: `c…` a container, `u…` a service, `p…` a pod; others pass on.
    fn classify(path: &str) -> Option<CgroupKey> {
        if path == "/" {
            return Some(CgroupKey::Root);
        }
        path.rsplit('/').find_map(|name| match name.as_bytes().first() {
            Some(b'c') => Some(CgroupKey::Container(name.into())),
            Some(b'u') => Some(CgroupKey::Unit(name.into())),
            Some(b'p') => Some(CgroupKey::PodLevel(name.into())),
            _ => None,
        })
    }

    fn make(place: &Path, paths: &[&str]) {
        for path in paths {
            std::fs::create_dir_all(place.join(path)).expect("writable");
        }
    }

    #[test]
    fn the_topmost_of_each_key_over_all_hierarchies() {
        let place = tempfile::tempdir().expect("a directory");
        make(
            place.path(),
            &["memory/pod/c1/init", "memory/pod/c1/docker/c2", "memory/x/y", "v2/u1/sub", "v2/pod/c1"],
        );
        std::os::unix::fs::symlink(place.path(), place.path().join("memory/c9")).expect("writable");
        let (memory, v2) = (place.path().join("memory"), place.path().join("v2"));
        let hierarchies = Hierarchies::at(&[(&["memory"], &memory)], Some(&v2)).expect("there");
        let (mut walk, mut buffers) = (Walk::default(), Buffers::default());
        let mut asked = 0;
        let mut check = |expected: &[&str]| {
            let mut classify = move |path: &str| {
                asked += 1;
                assert!(asked < 100, "a path is asked about once: {path}");
                classify(path)
            };
            let found = walk.walk(&hierarchies, &mut buffers, &mut classify);
            assert_eq!(found.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), expected);
        };
        check(&["/", "/pod", "/pod/c1", "/pod/c1/docker/c2", "/u1"]);
        for _ in 0..30 {
            check(&["/", "/pod", "/pod/c1", "/pod/c1/docker/c2", "/u1"]);
        }
        // A new one brings what stands in the other hierarchy with it.
        make(place.path(), &["memory/c3", "v2/c4"]);
        check(&["/", "/c3", "/c4", "/pod", "/pod/c1", "/pod/c1/docker/c2", "/u1"]);
        std::fs::remove_dir(place.path().join("memory/c3")).expect("empty");
        std::fs::remove_dir_all(place.path().join("memory/pod/c1/docker")).expect("there");
        check(&["/", "/c4", "/pod", "/pod/c1", "/u1"]);
    }

    /// A container stands in all hierarchies, and goes from all at once.
    #[test]
    fn who_went_from_all_hierarchies_is_gone_at_the_next_walk() {
        let place = tempfile::tempdir().expect("a directory");
        make(place.path(), &["memory/c1", "v2/c1", "memory/c2", "v2/c2"]);
        let (memory, v2) = (place.path().join("memory"), place.path().join("v2"));
        let hierarchies = Hierarchies::at(&[(&["memory"], &memory)], Some(&v2)).expect("there");
        let (mut walk, mut buffers) = (Walk::default(), Buffers::default());
        for _ in 0..3 {
            assert_eq!(walk.walk(&hierarchies, &mut buffers, &mut classify).len(), 3, "with the root");
        }
        for hierarchy in [&memory, &v2] {
            std::fs::remove_dir(hierarchy.join("c1")).expect("empty");
        }
        assert_eq!(walk.walk(&hierarchies, &mut buffers, &mut classify).len(), 2);
    }

    #[test]
    fn too_many_are_counted() {
        let place = tempfile::tempdir().expect("a directory");
        for index in 0..CGROUPS_MAX + 5 {
            std::fs::create_dir(place.path().join(format!("c{index}"))).expect("writable");
        }
        let hierarchies = Hierarchies::at(&[], Some(place.path())).expect("there");
        let (mut walk, mut buffers) = (Walk::default(), Buffers::default());
        for _ in 0..2 {
            let found = walk.walk(&hierarchies, &mut buffers, &mut classify).len();
            assert_eq!(found, CGROUPS_MAX);
            assert_eq!((walk.left_out(), walk.has_room_again()), (6, false), "with the root");
        }
        for index in 0..CGROUPS_MAX / 2 {
            std::fs::remove_dir(place.path().join(format!("c{index}"))).expect("empty");
        }
        walk.walk(&hierarchies, &mut buffers, &mut classify);
        assert!(walk.has_room_again());
        let found = walk.walk(&hierarchies, &mut buffers, &mut classify).len();
        assert_eq!((found, walk.left_out()), (CGROUPS_MAX / 2 + 6, 0));
    }

    #[test]
    fn another_directory_under_the_same_path() {
        let place = tempfile::tempdir().expect("a directory");
        make(place.path(), &["c1"]);
        let hierarchies = Hierarchies::at(&[], Some(place.path())).expect("there");
        let (mut walk, mut buffers) = (Walk::default(), Buffers::default());
        let first = walk.walk(&hierarchies, &mut buffers, &mut classify)["/c1"].inode;
        std::fs::rename(place.path().join("c1"), place.path().join("other")).expect("there");
        make(place.path(), &["c1"]);
        let second = walk.walk(&hierarchies, &mut buffers, &mut classify)["/c1"].inode;
        assert_ne!(first, second);
    }
}
