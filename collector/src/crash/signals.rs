//! Names of signals and of their codes, as the kernel's headers have them on x86_64 and aarch64.
//!
//! Refuses: the numbers of other architectures (MIPS, SPARC and Alpha differ).

/// The name of a signal, such as `SIGSEGV`; real-time signals as `SIGRTMIN+3`.
pub fn name(signal: u32) -> String {
    const NAMES: [&str; 32] = [
        "SIG0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match NAMES.get(signal as usize) {
        Some(name) => (*name).to_owned(),
        None => format!("SIGRTMIN+{}", signal - 32),
    }
}

/// The name of a signal's code (`include/uapi/asm-generic/siginfo.h`).
pub fn code_name(signal: u32, code: i32) -> String {
    let of_any = match code {
        0 => "SI_USER",
        0x80 => "SI_KERNEL",
        -1 => "SI_QUEUE",
        -2 => "SI_TIMER",
        -3 => "SI_MESGQ",
        -4 => "SI_ASYNCIO",
        -5 => "SI_SIGIO",
        -6 => "SI_TKILL",
        _ => "",
    };
    if !of_any.is_empty() {
        return of_any.to_owned();
    }
    let names: &[&str] = match signal {
        4 => &[
            "ILL_ILLOPC",
            "ILL_ILLOPN",
            "ILL_ILLADR",
            "ILL_ILLTRP",
            "ILL_PRVOPC",
            "ILL_PRVREG",
            "ILL_COPROC",
            "ILL_BADSTK",
        ],
        5 => &["TRAP_BRKPT", "TRAP_TRACE", "TRAP_BRANCH", "TRAP_HWBKPT", "TRAP_UNK", "TRAP_PERF"],
        7 => &["BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"],
        8 => &[
            "FPE_INTDIV",
            "FPE_INTOVF",
            "FPE_FLTDIV",
            "FPE_FLTOVF",
            "FPE_FLTUND",
            "FPE_FLTRES",
            "FPE_FLTINV",
            "FPE_FLTSUB",
        ],
        11 => &[
            "SEGV_MAPERR",
            "SEGV_ACCERR",
            "SEGV_BNDERR",
            "SEGV_PKUERR",
            "SEGV_ACCADI",
            "SEGV_ADIDERR",
            "SEGV_ADIPERR",
            "SEGV_MTEAERR",
            "SEGV_MTESERR",
            "SEGV_CPERR",
        ],
        31 => &["SYS_SECCOMP", "SYS_USER_DISPATCH"],
        _ => &[],
    };
    let index = usize::try_from(i64::from(code) - 1).unwrap_or(usize::MAX);
    names.get(index).map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

/// Whether a signal's siginfo holds the address of a fault.
pub fn has_address(signal: u32, code: i32) -> bool {
    code > 0 && code != 0x80 && matches!(signal, 4 | 5 | 7 | 8 | 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(signal: u32, code: i32, expected: &str, expected_code: &str) {
        assert_eq!((name(signal).as_str(), code_name(signal, code).as_str()), (expected, expected_code));
    }

    #[test]
    fn names() {
        check(11, 1, "SIGSEGV", "SEGV_MAPERR");
        check(11, 2, "SIGSEGV", "SEGV_ACCERR");
        check(11, 0x80, "SIGSEGV", "SI_KERNEL");
        check(6, -6, "SIGABRT", "SI_TKILL");
        check(7, 2, "SIGBUS", "BUS_ADRERR");
        check(8, 1, "SIGFPE", "FPE_INTDIV");
        check(31, 1, "SIGSYS", "SYS_SECCOMP");
        check(9, 0, "SIGKILL", "SI_USER");
        check(35, 7, "SIGRTMIN+3", "7");
        check(11, i32::MIN, "SIGSEGV", "-2147483648");
        check(11, i32::MAX, "SIGSEGV", "2147483647");
    }
}
