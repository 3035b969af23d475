//! The current directory of a process that ends: its names from the innermost up to the process's root.
//!
//! Read in the kernel, because `/proc/PID/cwd` is gone when the daemon hears of the end. Refuses: paths deeper than
//! [`CWD_NAMES_MAX`]; the record says that the beginning is missing.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use collector_common::crash::DeathRecord;
use collector_common::limits::{CWD_NAME_BYTES, CWD_NAMES_MAX, OFFSET_UNKNOWN};

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
/// `path.mnt`
#[unsafe(no_mangle)]
static PATH_MNT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `path.dentry`
#[unsafe(no_mangle)]
static PATH_DENTRY: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `vfsmount.mnt_root`
#[unsafe(no_mangle)]
static VFSMOUNT_MNT_ROOT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mount.mnt`
#[unsafe(no_mangle)]
static MOUNT_MNT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mount.mnt_parent`
#[unsafe(no_mangle)]
static MOUNT_MNT_PARENT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `mount.mnt_mountpoint`
#[unsafe(no_mangle)]
static MOUNT_MNT_MOUNTPOINT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `dentry.d_name`
#[unsafe(no_mangle)]
static DENTRY_D_NAME: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `qstr.name`
#[unsafe(no_mangle)]
static QSTR_NAME: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `dentry.d_parent`
#[unsafe(no_mangle)]
static DENTRY_D_PARENT: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// Mounts that are stepped over on the way up.
const STEPS_MAX: usize = CWD_NAMES_MAX + 4;

/// A place in the tree of files.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    mount: *const c_void,
    entry: *const c_void,
}

/// Copies the names.
///
/// # Safety
///
/// `record` must be writable.
#[inline(always)]
pub unsafe fn copy(task: TaskPointer, record: *mut DeathRecord) {
    // SAFETY: given by the caller.
    let (names, is_whole) = unsafe { walk(task, record) }.unwrap_or((0, false));
    // SAFETY: each write is to a field of the caller's record.
    unsafe {
        (&raw mut (*record).cwd_names).write(names);
        (&raw mut (*record).is_cwd_whole).write(u32::from(is_whole));
    }
}

#[inline(always)]
unsafe fn walk(task: TaskPointer, record: *mut DeathRecord) -> Option<(u32, bool)> {
    let fs = task::read::<*const c_void>(task, TASK_FS.load())?;
    let root = place(fs, FS_ROOT.load())?;
    let mut place = place(fs, FS_PWD.load())?;
    let mut names = 0usize;
    for _ in 0..STEPS_MAX {
        if place == root {
            return Some((names as u32, true));
        }
        let mount_root = task::read::<*const c_void>(place.mount, VFSMOUNT_MNT_ROOT.load())?;
        if place.entry == mount_root {
            let mount = place.mount.wrapping_byte_sub(MOUNT_MNT.load() as usize);
            let parent = task::read::<*const c_void>(mount, MOUNT_MNT_PARENT.load())?;
            if parent == mount {
                return Some((names as u32, true));
            }
            place.entry = task::read::<*const c_void>(mount, MOUNT_MNT_MOUNTPOINT.load())?;
            place.mount = parent.wrapping_byte_add(MOUNT_MNT.load() as usize);
            continue;
        }
        if names >= CWD_NAMES_MAX {
            break;
        }
        let name = DENTRY_D_NAME.load().wrapping_add(QSTR_NAME.load());
        let name = task::read::<*const c_void>(place.entry, name)?;
        // SAFETY: `names` is below the number of names; the helper checks the source and ends the text with a zero.
        unsafe {
            let destination = (&raw mut (*record).cwd).cast::<[u8; CWD_NAME_BYTES]>().add(names);
            bpf_probe_read_kernel_str(destination.cast(), CWD_NAME_BYTES as u32, name);
        }
        names += 1;
        place.entry = task::read::<*const c_void>(place.entry, DENTRY_D_PARENT.load())?;
    }
    Some((names as u32, false))
}

#[inline(always)]
fn place(fs: *const c_void, offset: u32) -> Option<Place> {
    if offset == OFFSET_UNKNOWN {
        return None;
    }
    let path = fs.wrapping_byte_add(offset as usize);
    Some(Place { mount: task::read(path, PATH_MNT.load())?, entry: task::read(path, PATH_DENTRY.load())? })
}
