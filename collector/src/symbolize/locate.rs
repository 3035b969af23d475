//! A path under which the daemon can open a module: a container's own file, a deleted file, or the host's.
//!
//! Whatever is found must be the same file, by build id or inode. Refuses: a file of the same name but another
//! build. A wrong name is worse than none.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blazesym::helper::read_elf_build_id;

use crate::identity::Subject;
use crate::kernel::FileId;
use crate::process::{Module, ModuleId};
use crate::profile::{Frame, Stack};

/// Processes that are tried for one module.
const PROCESSES_TRIED_MAX: usize = 4;

/// The host's files, from within a container that sees the host's processes.
const HOST_ROOT: &str = "/proc/1/root";

/// Processes that may hold a module: those that ran in it, and others of the same subject.
#[derive(Default)]
pub struct Peers {
    by_module: HashMap<ModuleId, Vec<u32>>,
    by_subject: HashMap<Arc<Subject>, Vec<u32>>,
    subject_of: HashMap<ModuleId, Arc<Subject>>,
    roots: Arc<[PathBuf]>,
}

impl Peers {
    /// Collects them from a window's stacks.
    pub fn of(stacks: &[Stack]) -> Self {
        let mut peers = Self::default();
        for stack in stacks {
            add(peers.by_subject.entry(Arc::clone(&stack.subject)).or_default(), stack.process.pid);
            for frame in &stack.frames {
                if let Frame::File { module, .. } = frame {
                    add(peers.by_module.entry(module.id).or_default(), stack.process.pid);
                    peers.subject_of.entry(module.id).or_insert_with(|| Arc::clone(&stack.subject));
                }
            }
        }
        peers
    }

    /// Adds the directories on the host that make up a container's root.
    pub fn with_root(self, roots: &Arc<[PathBuf]>) -> Self {
        Self { roots: Arc::clone(roots), ..self }
    }

    fn of_module(&self, module: ModuleId) -> impl Iterator<Item = u32> {
        let own = self.by_module.get(&module);
        let others = self.subject_of.get(&module).and_then(|subject| self.by_subject.get(subject));
        own.into_iter().chain(others).flatten().copied()
    }
}

/// A path that leads to the module's file; `None` if no way leads there any more.
pub fn locate(module: &Module, peers: &Peers) -> Option<PathBuf> {
    candidates(module, peers).into_iter().find(|path| is_same_file(path, module.file))
}

fn candidates(module: &Module, peers: &Peers) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    for pid in peers.of_module(module.id) {
        candidates.push(PathBuf::from(format!("/proc/{pid}/root{}", module.path)));
    }
    let witness = module.witness;
    candidates.push(format!("/proc/{}/map_files/{:x}-{:x}", witness.tgid, witness.start, witness.end).into());
    candidates.push(format!("/proc/{}/root{}", witness.tgid, module.path).into());
    // The agent may run in a container itself: the host's files are those of its first process.
    let below = module.path.trim_start_matches('/');
    candidates.extend(peers.roots.iter().map(|root| root.join(below)));
    let in_host = |root: &PathBuf| Some(Path::new(HOST_ROOT).join(root.strip_prefix("/").ok()?).join(below));
    candidates.extend(peers.roots.iter().filter_map(in_host));
    candidates.push(PathBuf::from(&*module.path));
    candidates
}

fn is_same_file(path: &Path, file: FileId) -> bool {
    // Opening a pipe that a container put in the file's place would wait for ever.
    let Some(metadata) = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file) else {
        return false;
    };
    match file {
        FileId::BuildId(expected) => {
            let Ok(Some(found)) = read_elf_build_id(path) else { return false };
            let (same, rest) = expected.split_at(found.len().min(expected.len()));
            same == &*found && rest.iter().all(|&byte| byte == 0)
        }
        // The device is not compared: overlay and btrfs mounts show another one in stat(2) than in maps.
        FileId::Inode { inode, .. } => metadata.ino() == inode,
    }
}

fn add(pids: &mut Vec<u32>, pid: u32) {
    if pids.len() < PROCESSES_TRIED_MAX && !pids.contains(&pid) {
        pids.push(pid);
    }
}
