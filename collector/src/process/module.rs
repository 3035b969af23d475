//! Files that are mapped as code, each once, however many processes map it.
//!
//! A module is known by its build id wherever one can be had, so that the same library in two containers is one.
//! Refuses: keeping files open. An open file can hold up the unmount of a container.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use blazesym::helper::read_elf_build_id;
use quick_cache::unsync::Cache;

use super::maps::Place;
use crate::kernel::FileId;

/// Modules in the table before those that no process maps any more are swept.
const MODULES_SWEEP: usize = 8_192;

/// Inodes whose build id is remembered.
const INODES_MAX: usize = 16_384;

/// Number of a module, unique in this run of the agent.
pub type ModuleId = u64;

/// A file that is mapped as code.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Its number.
    pub id: ModuleId,
    /// Its path, as the first process that mapped it sees it.
    pub path: Arc<str>,
    /// What identifies it.
    pub file: FileId,
    /// Where it was first seen mapped: a way to reach the file even if it was deleted.
    pub witness: Witness,
}

/// A place where a module was seen mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// First address of the mapping.
    pub start: u64,
    /// End of the mapping.
    pub end: u64,
}

impl Module {
    /// The build id in lower-case hexadecimal.
    pub fn build_id(&self) -> Option<String> {
        match self.file {
            FileId::BuildId(build_id) => Some(build_id.iter().map(|byte| format!("{byte:02x}")).collect()),
            FileId::Inode { .. } => None,
        }
    }

    /// The file's name without its directories.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// All modules.
pub struct Modules {
    modules: HashMap<(FileId, Arc<str>), Arc<Module>>,
    build_ids: Cache<FileId, Option<[u8; 20]>>,
    last_id: ModuleId,
}

impl Default for Modules {
    fn default() -> Self {
        Self { modules: HashMap::new(), build_ids: Cache::new(INODES_MAX), last_id: 0 }
    }
}

impl Modules {
    /// What a mapping of code is, by its path and file.
    pub fn place(&mut self, path: &str, file: FileId, offset: u64, witness: Witness) -> Place {
        if path == "[vdso]" {
            return Place::Vdso { offset: 0 };
        }
        let is_file = path.starts_with('/') && !ANONYMOUS.iter().any(|prefix| path.starts_with(prefix));
        if !is_file {
            return Place::Anonymous;
        }
        let file = self.with_build_id(file, path, witness);
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        Place::File { module: self.module(path, file, witness), offset }
    }

    /// Forgets modules that nobody uses, once there are many.
    pub fn sweep(&mut self) {
        if self.modules.len() >= MODULES_SWEEP {
            self.modules.retain(|_, module| Arc::strong_count(module) > 1);
        }
    }

    fn module(&mut self, path: &str, file: FileId, witness: Witness) -> Arc<Module> {
        let path: Arc<str> = path.into();
        let module = self.modules.entry((file, Arc::clone(&path))).or_insert_with(|| {
            self.last_id += 1;
            Arc::new(Module { id: self.last_id, path, file, witness })
        });
        Arc::clone(module)
    }

    /// Reads the build id of a file that the kernel did not give one for; once per inode.
    fn with_build_id(&mut self, file: FileId, path: &str, witness: Witness) -> FileId {
        if matches!(file, FileId::BuildId(_)) {
            return file;
        }
        if let Some(known) = self.build_ids.get(&file) {
            return known.map_or(file, FileId::BuildId);
        }
        let candidates = [
            format!("/proc/{}/map_files/{:x}-{:x}", witness.tgid, witness.start, witness.end),
            format!("/proc/{}/root{path}", witness.tgid),
        ];
        // A process that is gone is not an answer for the inode: the next one that maps it is asked again.
        let is_file = |path: &&String| std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        // The host's file of this path may be the one, and stays when the process is gone.
        let is_same = std::fs::metadata(path).is_ok_and(|metadata| {
            metadata.is_file() && matches!(file, FileId::Inode { inode, .. } if metadata.ino() == inode)
        });
        let of_host = is_same.then_some(path).into_iter();
        let of_process = candidates.iter().filter(is_file).map(String::as_str);
        let found = of_process.chain(of_host).find_map(|path| read_elf_build_id(path).ok());
        let Some(result) = found else { return file };
        let build_id = result.as_deref().and_then(padded);
        self.build_ids.insert(file, build_id);
        build_id.map_or(file, FileId::BuildId)
    }
}

/// Labels of mappings that have a path but hold code made by a runtime, or none.
const ANONYMOUS: [&str; 4] = ["//anon", "/memfd:doublemapper", "/dev/zero", "/SYSV"];

/// Build ids are 20 bytes, or fewer with some linkers.
fn padded(build_id: &[u8]) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    bytes.get_mut(..build_id.len())?.copy_from_slice(build_id);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WITNESS: Witness = Witness { tgid: u32::MAX, start: 0, end: 0 };

    fn check(path: &str, expected: &str) {
        let place = Modules::default().place(path, FileId::BuildId([7; 20]), 64, NO_WITNESS);
        let text = match place {
            Place::File { module, offset } => format!("{} {} +{offset}", module.path, module.file_name()),
            Place::Vdso { .. } => "vdso".to_owned(),
            Place::Anonymous => "anonymous".to_owned(),
        };
        assert_eq!(text, expected, "{path}");
    }

    #[test]
    fn kinds_of_mappings() {
        check("/usr/lib/libc.so.6", "/usr/lib/libc.so.6 libc.so.6 +64");
        check("/opt/app (deleted)", "/opt/app app +64");
        check("[vdso]", "vdso");
        check("//anon", "anonymous");
        check("/memfd:doublemapper (deleted)", "anonymous");
        check("[stack]", "anonymous");
        check("", "anonymous");
    }

    #[test]
    fn one_module_for_many_processes() {
        let mut modules = Modules::default();
        let first = modules.module("/lib/a", FileId::BuildId([1; 20]), NO_WITNESS);
        let same = modules.module("/lib/a", FileId::BuildId([1; 20]), NO_WITNESS);
        let rebuilt = modules.module("/lib/a", FileId::BuildId([2; 20]), NO_WITNESS);
        assert_eq!(first.id, same.id);
        assert_ne!(first.id, rebuilt.id);
    }
}
