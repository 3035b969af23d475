//! What a descriptor is: a file, a pipe, a socket of which protocol, an eventfd.
//!
//! Refuses: remembering ([`super::known`] does).

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use collector_common::io::Descriptor;
use collector_common::limits::OFFSET_UNKNOWN;

use super::socket;
use crate::path;
use crate::task::{self, Thread};

/// `task_struct.files`
#[unsafe(no_mangle)]
pub static TASK_FILES: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `files_struct.fdt`
#[unsafe(no_mangle)]
static FILES_FDT: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `fdtable.fd`
#[unsafe(no_mangle)]
static FDTABLE_FD: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `fdtable.max_fds`
#[unsafe(no_mangle)]
static FDTABLE_MAX_FDS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `file.f_inode`
#[unsafe(no_mangle)]
static FILE_F_INODE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `file.f_path`
#[unsafe(no_mangle)]
pub static FILE_F_PATH: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `inode.i_mode`
#[unsafe(no_mangle)]
static INODE_I_MODE: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `inode.i_flags`
#[unsafe(no_mangle)]
static INODE_I_FLAGS: Global<u32> = Global::new(OFFSET_UNKNOWN);
/// `inode.i_rdev`
#[unsafe(no_mangle)]
static INODE_I_RDEV: Global<u32> = Global::new(OFFSET_UNKNOWN);

/// A kernel pointer to a `struct file`.
pub type FilePointer = *const c_void;

/// `S_IFMT` and its values (include/uapi/linux/stat.h).
const KIND_MASK: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;
const REGULAR: u32 = 0o100_000;
const BLOCK: u32 = 0o060_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const PIPE: u32 = 0o010_000;

/// `S_PRIVATE`: anonymous inodes have it, whatever their mode says (include/linux/fs.h).
const PRIVATE: u32 = 512;

/// Bytes from `i_mode` on that are read at once: `i_flags` stands within on all kernels that we know.
const INODE_HEAD_BYTES: u32 = 16;

/// Major numbers of terminals (Documentation/admin-guide/devices.txt): virtual consoles, /dev/tty, Unix98 slaves.
const TERMINALS: [u32; 2] = [4, 5];
const UNIX98_TERMINALS: core::ops::RangeInclusive<u32> = 136..=143;

/// The open file of a descriptor of the running thread.
#[inline(always)]
pub fn file(thread: &Thread, descriptor: u32) -> Option<FilePointer> {
    let is_typed = thread.is_typed;
    let files = task::field::<*const c_void>(thread.task, TASK_FILES.load(), is_typed)?;
    let table = task::field::<*const c_void>(files, FILES_FDT.load(), is_typed)?;
    let descriptors_max = task::field::<u32>(table, FDTABLE_MAX_FDS.load(), is_typed)?;
    if descriptor >= descriptors_max {
        return None;
    }
    let descriptors = task::field::<*const c_void>(table, FDTABLE_FD.load(), is_typed)?;
    // A pointer to pointers has no type for the verifier.
    task::read::<FilePointer>(descriptors, descriptor.wrapping_mul(8)).filter(|file| !file.is_null())
}

/// The inode of an open file.
#[inline(always)]
pub fn inode(file: FilePointer) -> Option<*const c_void> {
    task::read(file, FILE_F_INODE.load())
}

/// The kind with a number; none for numbers that stand for nothing.
#[inline(always)]
pub fn from_number(number: u32) -> Descriptor {
    if number > Descriptor::Anonymous as u32 {
        return Descriptor::None;
    }
    // SAFETY: the kinds are numbered without a gap up to the one compared with.
    unsafe { core::mem::transmute::<u8, Descriptor>(number as u8) }
}

/// What an open file is.
#[inline(always)]
pub fn kind(file: FilePointer) -> Descriptor {
    kind_of(file).unwrap_or(Descriptor::None)
}

#[inline(always)]
fn kind_of(file: FilePointer) -> Option<Descriptor> {
    let inode = inode(file)?;
    let (mode, flags) = mode_and_flags(inode)?;
    Some(match mode & KIND_MASK {
        SOCKET => socket::kind(file),
        REGULAR | 0 if flags & PRIVATE != 0 || mode & KIND_MASK == 0 => anonymous(file),
        REGULAR => Descriptor::Regular,
        PIPE => Descriptor::Pipe,
        CHARACTER => {
            let major = task::read::<u32>(inode, INODE_I_RDEV.load())? >> 20;
            match TERMINALS.contains(&major) || UNIX98_TERMINALS.contains(&major) {
                true => Descriptor::Terminal,
                false => Descriptor::Character,
            }
        }
        DIRECTORY => Descriptor::Directory,
        BLOCK => Descriptor::Block,
        _ => Descriptor::None,
    })
}

/// One read instead of two: this is the path of every read and write.
#[inline(always)]
fn mode_and_flags(inode: *const c_void) -> Option<(u32, u32)> {
    let (mode_at, flags_at) = (INODE_I_MODE.load(), INODE_I_FLAGS.load());
    if mode_at == OFFSET_UNKNOWN {
        return None;
    }
    let mut head = [0u32; INODE_HEAD_BYTES as usize / 4];
    // SAFETY: `head` is writable for its size; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_kernel(head.as_mut_ptr().cast(), INODE_HEAD_BYTES, inode.byte_add(mode_at as usize))
    };
    if result != 0 {
        return None;
    }
    let flags = match flags_at.wrapping_sub(mode_at) {
        4 => head[1],
        8 => head[2],
        12 => head[3],
        _ => task::read::<u32>(inode, flags_at)?,
    };
    Some((head[0] & 0xffff, flags))
}

/// Anonymous inodes are told apart by the names that the kernel gives them.
#[inline(always)]
fn anonymous(file: FilePointer) -> Descriptor {
    let mut start = [0u8; 8];
    let name = path::place(file, FILE_F_PATH.load()).and_then(|place| path::name(&place));
    let Some(name) = name else { return Descriptor::Anonymous };
    // SAFETY: `start` is writable for its size; the helper checks the source.
    unsafe { bpf_probe_read_kernel_str(start.as_mut_ptr().cast(), start.len() as u32, name) };
    // Without the terminating zero: seven characters.
    match &start[..7] {
        b"[eventf" => Descriptor::Event,
        b"[timerf" => Descriptor::Timer,
        b"[eventp" => Descriptor::Epoll,
        _ => Descriptor::Anonymous,
    }
}
