//! Survives files that shrink while they are mapped.
//!
//! Symbol files are mapped, and they belong to others: a container may truncate one under us. Reading a page past the
//! new end raises SIGBUS, whose default is death. Here the page is replaced by zeros, and the reader finds a broken file
//! instead. Refuses: any other cause of the signal; hardware errors keep their default.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

static PAGES_REPLACED: AtomicU64 = AtomicU64::new(0);
static PAGE_BYTES: AtomicU64 = AtomicU64::new(4_096);

/// Installs the handler for the whole process.
///
/// # Errors
///
/// If the kernel refuses the handler.
pub fn survive_truncated_files() -> Result<()> {
    PAGE_BYTES.store(procfs::page_size(), Ordering::Relaxed);
    // SAFETY: an all-zero sigaction is valid; the handler only makes system calls and touches atomics, both of which are
    // allowed in a signal handler.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut())
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot handle SIGBUS");
    }
    Ok(())
}

/// Pages of mapped files that were gone when they were read.
pub fn pages_replaced() -> u64 {
    PAGES_REPLACED.load(Ordering::Relaxed)
}

extern "C" fn handle(signal: libc::c_int, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let page_bytes = PAGE_BYTES.load(Ordering::Relaxed) as usize;
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo. The page is one of a file mapping that we only read, so
    // nothing that Rust may write lies in it.
    unsafe {
        let is_gone = (*information).si_code == libc::BUS_ADRERR;
        let page = ((*information).si_addr() as usize) & !(page_bytes - 1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        if is_gone
            && libc::mmap(page as *mut libc::c_void, page_bytes, libc::PROT_READ, flags, -1, 0)
                != libc::MAP_FAILED
        {
            PAGES_REPLACED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Back to the default: the instruction runs again and the process ends as it would have.
        libc::signal(signal, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_truncated_file_reads_as_zeros() {
        survive_truncated_files().expect("the handler");
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8_192).expect("two pages");
        // SAFETY: a fresh mapping of two pages, read within its bounds.
        let mapping = unsafe {
            libc::mmap(std::ptr::null_mut(), 8_192, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(mapping, libc::MAP_FAILED);
        file.set_len(0).expect("truncated");
        let before = pages_replaced();
        // SAFETY: as above; the page is gone, which the handler mends.
        let byte = unsafe { mapping.cast::<u8>().add(5_000).read_volatile() };
        assert_eq!((byte, pages_replaced() - before), (0, 1));
    }
}
