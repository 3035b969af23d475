//! Traffic of the network namespace that a cgroup's processes are in.
//!
//! Source: proc(5), namespaces(7). Containers of one pod share a namespace, so it is read once in a collection. Refuses:
//! the host's namespace, for its traffic is not the container's, and connections.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::CWD;

use super::directory::Buffers;
use super::parse;
use super::usage::InterfaceUsage;
use crate::kernel::node_network;

/// Namespaces that are known at once; those beyond are not reported.
pub const NAMESPACES_MAX: usize = 10_000;

/// Interfaces of the host that belong to containers, or to the machine itself: cAdvisor leaves them out of "/".
const VIRTUAL_PREFIXES: [&str; 5] = ["lo", "veth", "docker", "cbr", "nerdctl"];

/// Traffic of one namespace at this collection.
#[derive(Clone, Debug)]
pub struct NamespaceUsage {
    /// Its interfaces but the loopback.
    pub interfaces: Arc<[InterfaceUsage]>,
    /// Since when it counts, as far as is known, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    collection: u64,
}

/// The namespaces of containers.
pub struct Namespaces {
    host_inode: Option<u64>,
    all: HashMap<u64, NamespaceUsage>,
    collection: u64,
}

impl Default for Namespaces {
    fn default() -> Self {
        let host_inode = node_network().and_then(|path| Some(std::fs::metadata(path).ok()?.ino()));
        Self { host_inode, all: HashMap::new(), collection: 0 }
    }
}

impl Namespaces {
    /// Begins a collection, and forgets namespaces that the last one did not meet.
    pub fn begin(&mut self) {
        let last = self.collection;
        self.all.retain(|_, namespace| namespace.collection >= last);
        self.collection += 1;
    }

    /// Whether this is the host's. If nobody can tell what the host's is, all are.
    pub fn is_host(&self, inode: u64) -> bool {
        self.host_inode.is_none_or(|host| host == inode)
    }

    /// The traffic of the namespace `inode`, seen through the process `pid` that is in it and began at `start_unix_ns`.
    pub fn traffic(
        &mut self,
        inode: u64,
        pid: u32,
        start_unix_ns: u64,
        buffers: &mut Buffers,
    ) -> Option<&NamespaceUsage> {
        let collection = self.collection;
        let known = self.all.get(&inode);
        if known.is_none_or(|known| known.collection != collection) {
            if known.is_none() && self.all.len() >= NAMESPACES_MAX {
                return None;
            }
            let interfaces = net_dev(Path::new(&format!("/proc/{pid}/net/dev")), buffers)?;
            // Counters that went back, or an interface that is new under its name, begin anew; so does the rest with it.
            let fallback = known.map(|known| match went_back(&known.interfaces, &interfaces) {
                true => start_unix_ns.max(known.start_unix_ns),
                false => known.start_unix_ns,
            });
            let start_unix_ns = fallback.unwrap_or(start_unix_ns);
            let usage = NamespaceUsage { interfaces: interfaces.into(), start_unix_ns, collection };
            self.all.insert(inode, usage);
        }
        let namespace = self.all.get_mut(&inode)?;
        // The oldest container of a pod, mostly its sandbox, began with the namespace.
        namespace.start_unix_ns = namespace.start_unix_ns.min(start_unix_ns);
        Some(namespace)
    }
}

/// The network namespace of a process; `None` if it is gone.
pub fn namespace_of(pid: u32) -> Option<u64> {
    let name = rustix::fs::readlink(format!("/proc/{pid}/ns/net"), Vec::new()).ok()?;
    // `net:[4026531840]`
    let digits = name.to_bytes().strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    parse::number(digits)
}

/// The machine's interfaces but those of containers.
pub fn host_traffic(buffers: &mut Buffers) -> Vec<InterfaceUsage> {
    let paths = ["/proc/1/net/dev", "/proc/self/net/dev"];
    let mut found = paths.iter().find_map(|path| net_dev(Path::new(path), buffers)).unwrap_or_default();
    found.retain(|interface| !VIRTUAL_PREFIXES.iter().any(|prefix| interface.name.starts_with(prefix)));
    found
}

fn net_dev(path: &Path, buffers: &mut Buffers) -> Option<Vec<InterfaceUsage>> {
    buffers.read(CWD.as_fd(), path).map(parse::net_dev)
}

fn went_back(before: &[InterfaceUsage], now: &[InterfaceUsage]) -> bool {
    now.iter().any(|interface| {
        before.iter().find(|other| other.name == interface.name).is_some_and(|before| {
            interface.received.bytes < before.received.bytes || interface.sent.bytes < before.sent.bytes
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_namespace() {
        let own = namespace_of(std::process::id()).expect("alive");
        let mut namespaces = Namespaces::default();
        assert!(namespaces.is_host(own), "tests run in the host's");
        assert!(!namespaces.is_host(own + 1));
        assert_eq!(namespace_of(u32::MAX), None);
        namespaces.begin();
        let mut buffers = Buffers::default();
        let found = namespaces.traffic(own, std::process::id(), 900, &mut buffers).expect("alive").clone();
        assert!(found.interfaces.iter().all(|interface| interface.name != "lo"));
        let older = namespaces.traffic(own, u32::MAX, 700, &mut buffers).expect("read already");
        assert_eq!(older.start_unix_ns, 700);
        namespaces.begin();
        assert_eq!(
            namespaces.traffic(own, std::process::id(), 900, &mut buffers).map(|n| n.start_unix_ns),
            Some(700)
        );
        namespaces.begin();
        namespaces.begin();
        assert!(namespaces.all.is_empty());
    }

    #[test]
    fn counters_that_went_back() {
        let interface = |name: &str, bytes: u64| {
            let received = super::super::usage::Traffic { bytes, ..Default::default() };
            InterfaceUsage { name: name.to_owned(), received, ..InterfaceUsage::default() }
        };
        let check = |before: &[InterfaceUsage], now: &[InterfaceUsage], expected: bool| {
            assert_eq!(went_back(before, now), expected, "{before:?} {now:?}");
        };
        check(&[interface("eth0", 5)], &[interface("eth0", 5)], false);
        check(&[interface("eth0", 5)], &[interface("eth0", 4)], true);
        check(&[interface("eth0", 5)], &[interface("eth1", 4)], false);
    }
}
