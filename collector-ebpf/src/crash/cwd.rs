//! The current directory of a process that ends: its names from the innermost up to the process's root.
//!
//! Read in the kernel, because `/proc/PID/cwd` is gone when the daemon hears of the end. Refuses: deeper paths than the
//! record has room for; it says that the beginning is missing.

use core::ffi::c_void;

use aya_ebpf::Global;
use collector_common::crash::DeathRecord;
use collector_common::limits::OFFSET_UNKNOWN;

use crate::path;
use crate::task::{self, TaskPointer};

/// `task_struct.fs`
#[unsafe(no_mangle)]
static TASK_FS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `fs_struct.pwd`
#[unsafe(no_mangle)]
static FS_PWD: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `fs_struct.root`
#[unsafe(no_mangle)]
static FS_ROOT: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// Copies the names.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
pub unsafe fn copy(task: TaskPointer, record: *mut DeathRecord) {
    // SAFETY: given by the caller; each write is to a field of its record.
    unsafe {
        (&raw mut (*record).cwd_names).write_volatile(0);
        let is_whole = walk(task, record).unwrap_or(false);
        (&raw mut (*record).is_cwd_whole).write(u32::from(is_whole));
    }
}

#[inline(always)]
unsafe fn walk(task: TaskPointer, record: *mut DeathRecord) -> Option<bool> {
    let fs = task::read::<*const c_void>(task, TASK_FS.load())?;
    let root = path::place(fs, FS_ROOT.load())?;
    let directory = path::place(fs, FS_PWD.load())?;
    // SAFETY: given by the caller.
    unsafe { path::copy(directory, Some(root), &raw mut (*record).cwd, &raw mut (*record).cwd_names) }
}
