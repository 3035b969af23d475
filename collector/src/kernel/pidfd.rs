//! Who is at the other end of a Unix socket, from the kernel and not from what the peer says.
//!
//! `SO_PEERPIDFD` (Linux 6.5) gives a handle that cannot be reused, `PIDFD_GET_INFO` (6.13) says whose it is, and since
//! 6.16 whether it is dumping its core right now. Refuses: guesses from `/proc`, which a reused pid makes wrong.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};

// Masks of `pidfd_info.mask` in `include/uapi/linux/pidfd.h`. libc's own structure ends before the core dump's fields.
const PIDFD_INFO_PID: u64 = 1 << 0;
const PIDFD_INFO_CREDS: u64 = 1 << 1;
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
/// Asked for because otherwise the call fails for a process that its parent has already waited for.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
const PIDFD_INFO_COREDUMP: u64 = 1 << 4;
/// Linux 6.19.
const PIDFD_INFO_COREDUMP_SIGNAL: u64 = 1 << 6;

/// Of `pidfd_info.coredump_mask`: it did dump, in contrast to what it would do if it crashed.
const PIDFD_COREDUMPED: u32 = 1 << 0;

/// `struct pidfd_info` up to `PIDFD_INFO_SIZE_VER1`. A kernel that knows less fills less, and says so in `mask`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    tgid: u32,
    parent_pid: u32,
    /// Real, effective, saved and file system user and group, which nobody asks for.
    credentials: [u32; 8],
    exit_code: i32,
    coredump_mask: u32,
    coredump_signal: u32,
}

/// `PIDFD_INFO_SIZE_VER1`
const _: () = assert!(size_of::<PidfdInfo>() == 72);

/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`
const PIDFD_GET_INFO: libc::Ioctl = libc::_IOWR::<PidfdInfo>(0xff, 11);

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process (tgid), in our pid namespace.
    pub pid: u32,
    /// Its cgroup in the unified hierarchy.
    pub cgroup_id: Option<u64>,
    /// The signal that it dies of, from Linux 6.19 on, or when it is already gone.
    pub signal: Option<u32>,
    /// The kernel dumps its core. Only then is the connection the kernel's and not a program's.
    pub is_dumping: bool,
    /// Its parent has already waited for it: the pid may be another process's by now.
    pub is_gone: bool,
}

/// The peer of an accepted connection.
pub fn peer_of(connection: &UnixStream) -> Result<Peer> {
    let pid = pid_of(connection).context("the kernel doesn't say who connected")?;
    let info = pidfd_of(connection).and_then(|pidfd| info_of(&pidfd)).unwrap_or_default();
    let has = |bits: u64| info.mask & bits == bits;
    let is_gone = !has(PIDFD_INFO_PID);
    let pid = if is_gone { pid } else { info.tgid };
    if pid == 0 {
        bail!("the peer is outside our pid namespace; run the agent in that of the host (hostPID: true)");
    }
    let signal = if has(PIDFD_INFO_COREDUMP_SIGNAL) {
        Some(info.coredump_signal)
    } else if has(PIDFD_INFO_EXIT) {
        u32::try_from(info.exit_code & 0x7f).ok().filter(|&signal| signal != 0)
    } else {
        None
    };
    Ok(Peer {
        pid,
        cgroup_id: has(PIDFD_INFO_CGROUPID).then_some(info.cgroup_id),
        signal,
        is_dumping: has(PIDFD_INFO_COREDUMP) && info.coredump_mask & PIDFD_COREDUMPED != 0,
        is_gone,
    })
}

/// The pid at the time of `connect(2)`. It may be another process by now.
fn pid_of(connection: &UnixStream) -> io::Result<u32> {
    // SAFETY: `struct ucred` is what the kernel writes for this option, and any bits are one.
    let credentials: libc::ucred = unsafe { option(connection, libc::SO_PEERCRED) }?;
    u32::try_from(credentials.pid).map_err(io::Error::other)
}

fn pidfd_of(connection: &UnixStream) -> io::Result<File> {
    // SAFETY: a descriptor is what the kernel writes for this option.
    let descriptor: RawFd = unsafe { option(connection, libc::SO_PEERPIDFD) }?;
    // SAFETY: the call opened this descriptor for us, and nobody else has it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

fn info_of(pidfd: &File) -> io::Result<PidfdInfo> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_PID
            | PIDFD_INFO_CREDS
            | PIDFD_INFO_CGROUPID
            | PIDFD_INFO_EXIT
            | PIDFD_INFO_COREDUMP
            | PIDFD_INFO_COREDUMP_SIGNAL,
        ..PidfdInfo::default()
    };
    // SAFETY: the request's number carries the size of this structure, of which the kernel writes no more.
    let outcome = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if outcome == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// # Safety
/// `Value` is what the kernel writes for the option, and every pattern of bits is a valid one.
unsafe fn option<Value>(connection: &UnixStream, name: libc::c_int) -> io::Result<Value> {
    let mut value = MaybeUninit::<Value>::uninit();
    let size = libc::socklen_t::try_from(size_of::<Value>()).map_err(io::Error::other)?;
    let mut length = size;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the place.
    let outcome = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if length != size {
        return Err(io::Error::other("an answer of another size than the kernel's headers say"));
    }
    // SAFETY: the kernel has written the whole value, and the caller vouches for its bits.
    Ok(unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_not_dumping() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets");
        let peer = peer_of(&ours).expect("a peer");
        assert_eq!(peer.pid, std::process::id());
        assert!(!peer.is_dumping && !peer.is_gone && peer.signal.is_none());
    }
}
