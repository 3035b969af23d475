//! What a wait status says: the daemon's one place for `wait(2)`'s encoding.
//!
//! Refuses: stopped and continued processes; only ends come here.

/// The signal that ended it; `None` if it exited.
pub fn signal(status: u32) -> Option<u32> {
    let status = status as i32;
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status) as u32)
}

/// The exit code; meaningless if a signal ended it.
pub fn exit_code(status: u32) -> u32 {
    libc::WEXITSTATUS(status as i32) as u32
}

/// Whether a core was dumped.
pub fn is_core_dumped(status: u32) -> bool {
    libc::WCOREDUMP(status as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let check = |status, expected| {
            assert_eq!((signal(status), exit_code(status), is_core_dumped(status)), expected, "{status:#x}");
        };
        check(0, (None, 0, false));
        check(101 << 8, (None, 101, false));
        check(9, (Some(9), 0, false));
        check(11 | 0x80, (Some(11), 0, true));
    }
}
