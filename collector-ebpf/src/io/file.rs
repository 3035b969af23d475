//! I/O by file, where it is asked for: bytes, operations and time of each file that a cgroup reads or writes.
//!
//! Refuses: files beyond the map's room; the daemon empties it on its tick.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use collector_common::io::{Descriptor, FileCounts, FileKey, Operation};
use collector_common::limits::{FILES_MAX, OFFSET_UNKNOWN};

use super::descriptor::{self, FilePointer};
use crate::task::{self, Thread};
use crate::{atomic, path};

/// 1 if files are told apart.
#[unsafe(no_mangle)]
static WATCH_FILES: Global<u32> = Global::new(0);
/// `inode.i_ino`
#[unsafe(no_mangle)]
static INODE_I_INO: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `inode.i_sb`
#[unsafe(no_mangle)]
static INODE_I_SB: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `super_block.s_dev`
#[unsafe(no_mangle)]
static SUPER_S_DEV: Global<u32> = Global::new(OFFSET_UNKNOWN);

#[map]
static FILES: HashMap<FileKey, FileCounts> = HashMap::with_max_entries(FILES_MAX, 0);

/// Where a new file's path is put together.
#[map]
static NEW_FILE: PerCpuArray<FileCounts> = PerCpuArray::with_max_entries(1, 0);

/// Operations on files that found no room or whose path could not be read, by CPU.
#[map]
static FILES_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Whether an operation on such a descriptor is counted by file.
#[inline(always)]
pub fn is_wanted(operation: u8, kind: Descriptor) -> bool {
    WATCH_FILES.load() == 1
        && kind as u8 == Descriptor::Regular as u8
        && (operation == Operation::Read as u8 || operation == Operation::Write as u8)
}

/// What an operation adds to a file's counts.
pub struct Grown {
    /// How many operations it stands for.
    pub operations: u64,
    /// Bytes that it moved.
    pub bytes: u64,
    /// How long it took; 0 if that is not known.
    pub time_ns: u64,
}

/// Counts a read or write.
#[inline(always)]
pub fn count(thread: &Thread, cgroup_id: u64, number: u32, operation: u8, grown: &Grown) {
    let file = descriptor::file(thread, number);
    let counts = file.and_then(|file| key(cgroup_id, file).and_then(|key| of(&key, file)));
    let Some(counts) = counts else { return lost() };
    let direction = usize::from(operation == Operation::Write as u8);
    // SAFETY: the look-up gave a valid pointer to a value of the map, and the direction is 0 or 1.
    unsafe {
        let slot = |counts: *mut [u64; 2]| counts.cast::<u64>().add(direction);
        atomic::add(slot(&raw mut (*counts).bytes), grown.bytes.wrapping_mul(grown.operations));
        atomic::add(slot(&raw mut (*counts).operations), grown.operations);
        atomic::add(slot(&raw mut (*counts).time_ns), grown.time_ns.wrapping_mul(grown.operations));
    }
}

#[inline(always)]
fn key(cgroup_id: u64, file: FilePointer) -> Option<FileKey> {
    let inode = descriptor::inode(file)?;
    let super_block = task::read::<*const c_void>(inode, INODE_I_SB.load())?;
    let device = u64::from(task::read::<u32>(super_block, SUPER_S_DEV.load())?);
    Some(FileKey { cgroup_id, inode: task::read(inode, INODE_I_INO.load())?, device })
}

#[inline(always)]
fn of(key: &FileKey, file: FilePointer) -> Option<*mut FileCounts> {
    if let Some(counts) = FILES.get_ptr_mut(key) {
        return Some(counts);
    }
    let new = NEW_FILE.get_ptr_mut(0)?;
    // SAFETY: the look-up gave a valid pointer to this CPU's value.
    unsafe {
        (&raw mut (*new).bytes).write([0; 2]);
        (&raw mut (*new).operations).write([0; 2]);
        (&raw mut (*new).time_ns).write([0; 2]);
        let place = path::place(file, descriptor::FILE_F_PATH.load())?;
        (&raw mut (*new).path_names).write_volatile(0);
        let is_whole = path::copy(place, None, &raw mut (*new).path, &raw mut (*new).path_names)?;
        (&raw mut (*new).is_path_whole).write(u32::from(is_whole));
        // Somebody else may have been faster, or there is no room: the look-up tells.
        let _race = FILES.insert(key, &*new, u64::from(BPF_NOEXIST));
    }
    FILES.get_ptr_mut(key)
}

#[inline(always)]
fn lost() {
    if let Some(slot) = FILES_LOST.get_ptr_mut(0) {
        // SAFETY: the look-up gave a valid pointer to this CPU's value.
        unsafe { atomic::add(slot, 1) };
    }
}
