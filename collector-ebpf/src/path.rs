//! Paths of files: the names from the innermost one up to a root.
//!
//! Read in the kernel, because the daemon comes when the file or its process is gone. Refuses: more names than there is
//! room for; the caller is told that the beginning is missing.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use collector_common::limits::OFFSET_UNKNOWN;

use crate::task;

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

/// Mounts that are stepped over on the way up, beside the names.
const MOUNTS_MAX: usize = 4;

/// A place in the tree of files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    mount: *const c_void,
    entry: *const c_void,
}

/// The place that a `struct path` in a struct holds.
#[inline(always)]
pub fn place(structure: *const c_void, offset: u32) -> Option<Place> {
    if offset == OFFSET_UNKNOWN {
        return None;
    }
    let path = structure.wrapping_byte_add(offset as usize);
    Some(Place { mount: task::read(path, PATH_MNT.load())?, entry: task::read(path, PATH_DENTRY.load())? })
}

/// The kernel's text of a place's innermost name.
#[inline(always)]
pub fn name(place: &Place) -> Option<*const c_void> {
    task::read(place.entry, DENTRY_D_NAME.load().wrapping_add(QSTR_NAME.load()))
}

/// Copies the names of a place, the innermost first, up to `root` (or the root of all mounts). Returns whether the last one
/// stands below the root. How many there are is in `copied`, which starts at zero: a number in memory is none that the
/// verifier knows, so that it does not follow each number of names on its own.
///
/// # Safety
///
/// `names` and `copied` must be writable.
#[inline(always)]
pub unsafe fn copy<const BYTES: usize, const NAMES: usize>(
    mut place: Place,
    root: Option<Place>,
    names: *mut [[u8; BYTES]; NAMES],
    copied: *mut u32,
) -> Option<bool> {
    for _ in 0..NAMES + MOUNTS_MAX {
        if Some(place) == root {
            return Some(true);
        }
        let mount_root = task::read::<*const c_void>(place.mount, VFSMOUNT_MNT_ROOT.load())?;
        if place.entry == mount_root {
            let mount = place.mount.wrapping_byte_sub(MOUNT_MNT.load() as usize);
            let parent = task::read::<*const c_void>(mount, MOUNT_MNT_PARENT.load())?;
            if parent == mount {
                return Some(true);
            }
            place.entry = task::read::<*const c_void>(mount, MOUNT_MNT_MOUNTPOINT.load())?;
            place.mount = parent.wrapping_byte_add(MOUNT_MNT.load() as usize);
            continue;
        }
        let name = name(&place)?;
        // SAFETY: `position` is below the number of names; the helper checks the source and ends the text with a zero.
        unsafe {
            let position = copied.read_volatile() as usize;
            if position >= NAMES {
                break;
            }
            let destination = names.cast::<[u8; BYTES]>().add(position);
            bpf_probe_read_kernel_str(destination.cast(), BYTES as u32, name);
            copied.write_volatile(position as u32 + 1);
        }
        place.entry = task::read::<*const c_void>(place.entry, DENTRY_D_PARENT.load())?;
    }
    Some(false)
}
