//! What numbers mean: system calls and io_uring's operations by what they do, errors by class.
//!
//! Refuses: calls that are no I/O. A call that is missing here is not counted.

use collector_common::io::{Call, ErrorClass, Operation};
use collector_common::limits::{CALLS_MAX, ERRORS_MAX};

const PLAIN: Call = Call {
    operation: Operation::None,
    has_descriptor: false,
    returns_bytes: false,
    path_argument: 0,
    waits: false,
    closes: false,
};

/// The words of the table of system calls.
pub fn syscalls() -> impl Iterator<Item = (u32, u32)> {
    let every = every_processor().chain(this_processor());
    every.filter_map(|(number, call)| {
        let number = u32::try_from(number).ok().filter(|&number| number < CALLS_MAX)?;
        Some((number, call.pack()))
    })
}

/// The words of the table of errors.
pub fn errors() -> impl Iterator<Item = (u32, u32)> {
    (1..ERRORS_MAX).map(|number| (number, class_of(number as i32) as u32))
}

fn every_processor() -> impl Iterator<Item = (libc::c_long, Call)> {
    let moves_bytes = |operation| Call { operation, has_descriptor: true, returns_bytes: true, ..PLAIN };
    let by_descriptor = |operation| Call { operation, has_descriptor: true, ..PLAIN };
    // A path in the second argument, behind a directory's descriptor.
    let by_path_at = |operation| Call { operation, path_argument: 2, ..PLAIN };
    let by_path = |operation| Call { operation, path_argument: 1, ..PLAIN };
    let waiting = |operation| Call { operation, waits: true, ..PLAIN };
    let groups: [(Call, &[libc::c_long]); 21] = [
        (
            moves_bytes(Operation::Read),
            &[libc::SYS_read, libc::SYS_readv, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2],
        ),
        (
            moves_bytes(Operation::Write),
            &[libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2],
        ),
        (by_path_at(Operation::Open), &[libc::SYS_openat, libc::SYS_openat2]),
        (Call { operation: Operation::Close, closes: true, ..PLAIN }, &[libc::SYS_close]),
        (Call { operation: Operation::CloseMany, closes: true, ..PLAIN }, &[SYS_CLOSE_RANGE]),
        // No I/O, but the second argument names another file from now on.
        (Call { closes: true, ..PLAIN }, &[libc::SYS_dup3]),
        (by_descriptor(Operation::Stat), &[libc::SYS_fstat, libc::SYS_fstatfs]),
        (by_path(Operation::Stat), &[libc::SYS_statfs]),
        (
            by_path_at(Operation::Stat),
            &[
                libc::SYS_newfstatat,
                libc::SYS_statx,
                libc::SYS_faccessat,
                SYS_FACCESSAT2,
                libc::SYS_readlinkat,
            ],
        ),
        (
            by_descriptor(Operation::Sync),
            &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_syncfs],
        ),
        (Call { operation: Operation::Sync, ..PLAIN }, &[libc::SYS_sync, libc::SYS_msync]),
        (by_descriptor(Operation::List), &[libc::SYS_getdents64]),
        (
            by_descriptor(Operation::Change),
            &[libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fchmod, libc::SYS_fchown],
        ),
        (by_path(Operation::Change), &[libc::SYS_truncate, libc::SYS_symlinkat]),
        (
            by_path_at(Operation::Change),
            &[
                libc::SYS_renameat,
                libc::SYS_renameat2,
                libc::SYS_unlinkat,
                libc::SYS_mkdirat,
                libc::SYS_mknodat,
                libc::SYS_linkat,
                libc::SYS_fchmodat,
                libc::SYS_fchownat,
                libc::SYS_utimensat,
            ],
        ),
        (moves_bytes(Operation::Send), &[libc::SYS_sendto, libc::SYS_sendmsg]),
        (by_descriptor(Operation::Send), &[libc::SYS_sendmmsg]),
        (Call { waits: true, ..moves_bytes(Operation::Receive) }, &[libc::SYS_recvfrom, libc::SYS_recvmsg]),
        (Call { waits: true, ..by_descriptor(Operation::Receive) }, &[libc::SYS_recvmmsg]),
        (Call { waits: true, ..by_descriptor(Operation::Accept) }, &[libc::SYS_accept, libc::SYS_accept4]),
        (by_descriptor(Operation::Connect), &[libc::SYS_connect]),
    ];
    let waits: [(Call, &[libc::c_long]); 3] = [
        (
            waiting(Operation::Poll),
            &[libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_epoll_pwait, SYS_EPOLL_PWAIT2],
        ),
        // The first argument is the descriptor that is written to, for `splice` the one that is read.
        (moves_bytes(Operation::Transfer), &[libc::SYS_sendfile, libc::SYS_vmsplice]),
        (
            Call { waits: true, ..moves_bytes(Operation::Transfer) },
            &[libc::SYS_splice, libc::SYS_tee, libc::SYS_copy_file_range],
        ),
    ];
    let pairs =
        |(call, numbers): (Call, &'static [libc::c_long])| numbers.iter().map(move |&number| (number, call));
    groups.into_iter().chain(waits).flat_map(pairs)
}

/// Younger than the C library's table; the same on all processors (include/uapi/asm-generic/unistd.h).
const SYS_CLOSE_RANGE: libc::c_long = 436;
const SYS_FACCESSAT2: libc::c_long = 439;
const SYS_EPOLL_PWAIT2: libc::c_long = 441;

/// Calls that newer processors do not have any more.
#[cfg(target_arch = "x86_64")]
fn this_processor() -> impl Iterator<Item = (libc::c_long, Call)> {
    let by_path = |operation| Call { operation, path_argument: 1, ..PLAIN };
    let by_descriptor = |operation| Call { operation, has_descriptor: true, ..PLAIN };
    let waiting = Call { operation: Operation::Poll, waits: true, ..PLAIN };
    [
        (libc::SYS_open, by_path(Operation::Open)),
        (libc::SYS_creat, by_path(Operation::Open)),
        (libc::SYS_stat, by_path(Operation::Stat)),
        (libc::SYS_lstat, by_path(Operation::Stat)),
        (libc::SYS_access, by_path(Operation::Stat)),
        (libc::SYS_readlink, by_path(Operation::Stat)),
        (libc::SYS_dup2, Call { closes: true, ..PLAIN }),
        (libc::SYS_getdents, by_descriptor(Operation::List)),
        (libc::SYS_rename, by_path(Operation::Change)),
        (libc::SYS_unlink, by_path(Operation::Change)),
        (libc::SYS_mkdir, by_path(Operation::Change)),
        (libc::SYS_rmdir, by_path(Operation::Change)),
        (libc::SYS_link, by_path(Operation::Change)),
        (libc::SYS_symlink, by_path(Operation::Change)),
        (libc::SYS_chmod, by_path(Operation::Change)),
        (libc::SYS_chown, by_path(Operation::Change)),
        (libc::SYS_lchown, by_path(Operation::Change)),
        (libc::SYS_mknod, by_path(Operation::Change)),
        (libc::SYS_poll, waiting),
        (libc::SYS_select, waiting),
        (libc::SYS_epoll_wait, waiting),
    ]
    .into_iter()
}

/// Calls that newer processors do not have any more: none.
#[cfg(not(target_arch = "x86_64"))]
fn this_processor() -> impl Iterator<Item = (libc::c_long, Call)> {
    std::iter::empty()
}

/// The words of the table of io_uring's operations (`enum io_uring_op`, include/uapi/linux/io_uring.h).
pub fn uring() -> impl Iterator<Item = (u32, u32)> {
    let moves_bytes = |operation| Call { operation, has_descriptor: true, returns_bytes: true, ..PLAIN };
    let by_descriptor = |operation| Call { operation, has_descriptor: true, ..PLAIN };
    let other = |operation| Call { operation, ..PLAIN };
    [
        (1, moves_bytes(Operation::Read)),
        (2, moves_bytes(Operation::Write)),
        (3, by_descriptor(Operation::Sync)),
        (4, moves_bytes(Operation::Read)),
        (5, moves_bytes(Operation::Write)),
        (6, other(Operation::Poll)),
        (8, by_descriptor(Operation::Sync)),
        (9, moves_bytes(Operation::Send)),
        (10, moves_bytes(Operation::Receive)),
        (13, by_descriptor(Operation::Accept)),
        (16, by_descriptor(Operation::Connect)),
        (17, by_descriptor(Operation::Change)),
        (18, other(Operation::Open)),
        (19, other(Operation::Close)),
        (21, other(Operation::Stat)),
        (22, moves_bytes(Operation::Read)),
        (23, moves_bytes(Operation::Write)),
        (26, moves_bytes(Operation::Send)),
        (27, moves_bytes(Operation::Receive)),
        (28, other(Operation::Open)),
        (30, moves_bytes(Operation::Transfer)),
        (33, moves_bytes(Operation::Transfer)),
        (35, other(Operation::Change)),
        (36, other(Operation::Change)),
        (37, other(Operation::Change)),
        (38, other(Operation::Change)),
        (39, other(Operation::Change)),
        (47, moves_bytes(Operation::Send)),
        (48, moves_bytes(Operation::Send)),
        (49, moves_bytes(Operation::Read)),
        (58, moves_bytes(Operation::Read)),
        (59, moves_bytes(Operation::Write)),
        (60, moves_bytes(Operation::Read)),
        (61, moves_bytes(Operation::Write)),
    ]
    .into_iter()
    .map(|(number, call)| (number, call.pack()))
}

/// The class of an error number (include/uapi/asm-generic/errno.h, and include/linux/errno.h for those above 511).
pub fn class_of(number: i32) -> ErrorClass {
    match number {
        libc::EAGAIN | libc::EINPROGRESS | libc::EALREADY => ErrorClass::WouldBlock,
        libc::EINTR | 512..=516 => ErrorClass::Interrupted,
        libc::ENOENT | libc::ENOTDIR | libc::ENXIO | libc::ENODEV => ErrorClass::NotFound,
        libc::EACCES | libc::EPERM | libc::EROFS => ErrorClass::Permission,
        libc::ECONNRESET
        | libc::EPIPE
        | libc::ECONNREFUSED
        | libc::ECONNABORTED
        | libc::ENOTCONN
        | libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::ENETDOWN
        | libc::EHOSTDOWN
        | libc::ESHUTDOWN
        | libc::EADDRINUSE
        | libc::EADDRNOTAVAIL => ErrorClass::Connection,
        libc::ETIMEDOUT | libc::ETIME => ErrorClass::Timeout,
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => ErrorClass::NoSpace,
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => ErrorClass::Exhausted,
        libc::EINVAL
        | libc::EBADF
        | libc::EFAULT
        | libc::ENOTSOCK
        | libc::EISDIR
        | libc::ENOTTY
        | libc::ESPIPE
        | libc::ENAMETOOLONG
        | libc::ELOOP
        | libc::ENOSYS
        | libc::EOPNOTSUPP
        | libc::EDESTADDRREQ
        | libc::EMSGSIZE
        | libc::EISCONN => ErrorClass::Invalid,
        libc::EIO | libc::EUCLEAN | libc::ENODATA | libc::EREMOTEIO => ErrorClass::Device,
        libc::EEXIST | libc::ENOTEMPTY | libc::EBUSY | libc::ETXTBSY | libc::EXDEV => ErrorClass::Conflict,
        _ => ErrorClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: libc::c_long, expected: Option<Operation>) {
        let word = syscalls().find(|&(found, _)| libc::c_long::from(found) == number);
        assert_eq!(
            word.map(|(_, word)| Call::operation_of(word)),
            expected.map(|operation| operation as u8),
            "system call {number}"
        );
    }

    #[test]
    fn calls_by_what_they_do() {
        check(libc::SYS_pwritev2, Some(Operation::Write));
        check(libc::SYS_openat2, Some(Operation::Open));
        check(libc::SYS_recvmmsg, Some(Operation::Receive));
        check(libc::SYS_getppid, None);
        check(libc::SYS_futex, None);
    }

    #[test]
    fn no_call_stands_twice() {
        let mut numbers: Vec<u32> = syscalls().map(|(number, _)| number).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
