//! Reads processes from `/proc`: those that ran before the agent, and those whose events were lost.
//!
//! A process that is gone, or one that may not be read, is `None`: both are normal.

use std::io::Read;
use std::sync::Arc;

use collector_common::event::Task;
use collector_common::limits::COMM_BYTES;
use procfs::process::{MMPermissions, MMapPath};

use super::maps::CodeMap;
use super::module::{Modules, Witness};
use crate::kernel::FileId;

/// `PF_KTHREAD` of `include/linux/sched.h`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Bytes of arguments that are kept of one process.
const ARGUMENT_BYTES_MAX: u64 = 4_096;

/// Ids of the processes that run now.
pub fn running() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process as a record would describe it, and its start in ticks since boot. The cgroup id stays 0.
pub fn task(tgid: u32) -> Option<(Task, u64)> {
    let stat = process(tgid)?.stat().ok()?;
    let mut comm = [0; COMM_BYTES];
    let name = stat.comm.as_bytes();
    let length = name.len().min(COMM_BYTES - 1);
    comm[..length].copy_from_slice(&name[..length]);
    Some((Task { tgid, tid: tgid, start_ns: 0, cgroup_id: 0, comm }, stat.starttime))
}

/// Whether a process is a kernel thread.
pub fn is_kernel_thread(tgid: u32) -> bool {
    process(tgid).and_then(|process| process.stat().ok()).is_some_and(|stat| stat.flags & KERNEL_THREAD != 0)
}

/// Whether a process is the first one of a PID namespace other than the initial one.
pub fn is_main(tgid: u32) -> bool {
    let ids = process(tgid).and_then(|process| process.status().ok()?.nspid);
    ids.is_some_and(|ids| ids.len() > 1 && ids.last() == Some(&1))
}

/// Path of a process's executable, as the process sees it.
pub fn executable(tgid: u32) -> Option<String> {
    process(tgid)?.exe().ok()?.to_str().map(str::to_owned)
}

/// The arguments of a process, each ended by a zero.
pub fn arguments(tgid: u32) -> Option<Arc<[u8]>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(format!("/proc/{tgid}/cmdline")).ok()?;
    file.take(ARGUMENT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

/// The code of a process; `None` as well for one that has given up its memory, whose maps read as empty: what was known of
/// it stays true for its last records.
pub fn code_map(tgid: u32, modules: &mut Modules) -> Option<CodeMap> {
    let mut code = CodeMap::default();
    let regions = process(tgid)?.maps().ok()?;
    if regions.0.is_empty() {
        return None;
    }
    for region in regions {
        if !region.perms.contains(MMPermissions::EXECUTE) {
            continue;
        }
        let (start, end) = region.address;
        let (major, minor) = (region.dev.0 as u32, region.dev.1 as u32);
        let file = FileId::Inode { major, minor, inode: region.inode };
        let path = label(&region.pathname);
        code.insert(start, end, modules.place(&path, file, region.offset, Witness { tgid, start, end }));
    }
    Some(code)
}

fn process(tgid: u32) -> Option<procfs::process::Process> {
    procfs::process::Process::new(i32::try_from(tgid).ok()?).ok()
}

fn label(path: &MMapPath) -> String {
    match path {
        MMapPath::Path(path) => path.to_string_lossy().into_owned(),
        MMapPath::Vdso => "[vdso]".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::maps::Place;
    use super::*;

    #[test]
    fn this_process() {
        let tgid = std::process::id();
        assert!(running().contains(&tgid));
        let (task, start_ticks) = task(tgid).expect("this process runs");
        assert!(task.tgid == tgid && start_ticks > 0);
        let code = code_map(tgid, &mut Modules::default()).expect("this process has maps");
        let address = this_process as fn() as usize as u64;
        assert!(matches!(code.place(address), Some(Place::File { .. })), "{code:?}");
        assert!(!is_kernel_thread(tgid));
    }

    #[test]
    fn a_process_that_ended_and_is_not_waited_for() {
        let mut child = std::process::Command::new("true").spawn().expect("coreutils are there");
        let tgid = child.id();
        let is_zombie = || process(tgid).and_then(|it| it.stat().ok()).is_some_and(|stat| stat.state == 'Z');
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert!(code_map(tgid, &mut Modules::default()).is_none());
        child.wait().expect("the child is ours");
    }

    #[test]
    fn a_process_that_is_gone() {
        assert!(task(u32::MAX).is_none() && code_map(u32::MAX, &mut Modules::default()).is_none());
    }
}
