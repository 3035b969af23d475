//! What programs ask of the kernel, as strace tells it: call by call, with what came of it.
//!
//! Refuses: calls that are no I/O, and the agent's own table of them. The names stand here once more, so that a wrong
//! entry there shows.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tools;
use crate::workload::utf8;

/// How long strace may take to attach, or to end after the last traced process.
const WAIT_MAX: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// The operation that a system call is; `None` if it is no I/O.
pub fn operation(call: &str) -> Option<&'static str> {
    Some(match call {
        "read" | "readv" | "pread64" | "preadv" | "preadv2" => "read",
        "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => "write",
        "open" | "openat" | "openat2" | "creat" => "open",
        "close" | "close_range" => "close",
        "fstat" | "newfstatat" | "stat" | "lstat" | "statx" | "access" | "faccessat" | "faccessat2"
        | "readlink" | "readlinkat" | "statfs" | "fstatfs" => "stat",
        "fsync" | "fdatasync" | "sync" | "syncfs" | "msync" | "sync_file_range" => "sync",
        "ftruncate" | "truncate" | "fallocate" | "unlink" | "unlinkat" | "rename" | "renameat"
        | "renameat2" | "mkdir" | "mkdirat" | "rmdir" | "link" | "linkat" | "symlink" | "symlinkat"
        | "chmod" | "fchmod" | "fchmodat" | "chown" | "lchown" | "fchown" | "fchownat" | "mknod"
        | "mknodat" | "utimensat" => "change",
        "getdents64" | "getdents" => "list",
        "sendto" | "sendmsg" | "sendmmsg" => "send",
        "recvfrom" | "recvmsg" | "recvmmsg" => "receive",
        "accept" | "accept4" => "accept",
        "connect" => "connect",
        "poll" | "ppoll" | "select" | "pselect6" | "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => "poll",
        "sendfile" | "splice" | "tee" | "vmsplice" | "copy_file_range" => "transfer",
        _ => return None,
    })
}

/// The class of an error, by its name.
fn class(error: &str) -> &'static str {
    match error {
        "EAGAIN" | "EINPROGRESS" | "EALREADY" => "would_block",
        "EINTR" | "ERESTARTSYS" | "ERESTARTNOINTR" | "ERESTARTNOHAND" | "ERESTART_RESTARTBLOCK" => {
            "interrupted"
        }
        "ENOENT" | "ENOTDIR" | "ENXIO" | "ENODEV" => "not_found",
        "EACCES" | "EPERM" | "EROFS" => "permission",
        "ECONNRESET" | "EPIPE" | "ECONNREFUSED" | "ENOTCONN" => "connection",
        "EINVAL" | "EBADF" | "ENOTTY" | "ENOSYS" | "EISDIR" | "ESPIPE" | "EOPNOTSUPP" => "invalid",
        "EEXIST" | "ENOTEMPTY" | "EBUSY" => "conflict",
        _ => panic!("add {error} here"),
    }
}

/// Calls by operation, as a run of a command under `strace -c` has them by name.
pub fn counts(words: &[&str], directory: &Path) -> BTreeMap<String, f64> {
    let table = directory.join("strace");
    let mut traced = Command::new(tools::require("strace", "strace"));
    traced.args(["-f", "-c", "-U", "name,calls", "-o", utf8(&table)]).args(words).env("LC_ALL", "C");
    tools::succeed(&mut traced);
    let mut sums = BTreeMap::new();
    for line in std::fs::read_to_string(table).expect("strace wrote it").lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [name, calls] = words[..]
            && let (Some(operation), Ok(calls)) = (operation(name), calls.parse::<f64>())
        {
            *sums.entry(operation.to_owned()).or_default() += calls;
        }
    }
    sums
}

/// What a process and its children did in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls {
    /// Calls by operation and class of error, which a call without one has not: `read`, `open not_found`.
    pub operations: BTreeMap<String, f64>,
    /// What they returned as bytes, by operation.
    pub bytes: BTreeMap<String, f64>,
    /// Likewise, of regular files alone.
    pub file_bytes: BTreeMap<String, f64>,
}

/// A strace that follows a process and all that it starts.
pub struct Strace {
    child: Child,
    log: PathBuf,
    _directory: TempDir,
}

impl Strace {
    /// Attaches to a process, which may be stopped.
    pub fn attach(pid: u32) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let mut command = Command::new(tools::require("strace", "strace"));
        command.args(["-f", "-q", "-yy", "-s", "0", "-o", utf8(&log), "-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("strace starts");
        let strace = Self { child, log, _directory: directory };
        let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let tracer = format!("TracerPid:\t{}\n", strace.child.id());
        let deadline = Instant::now() + WAIT_MAX;
        while !status().contains(&tracer) {
            assert!(Instant::now() < deadline, "strace does not attach");
            std::thread::sleep(POLL);
        }
        strace
    }

    /// What they did, once all of them have ended.
    pub fn finish(mut self) -> Calls {
        let deadline = Instant::now() + WAIT_MAX;
        while matches!(self.child.try_wait(), Ok(None)) {
            assert!(Instant::now() < deadline, "somebody whom strace follows does not end");
            std::thread::sleep(POLL);
        }
        read(&String::from_utf8_lossy(&std::fs::read(&self.log).expect("strace wrote it")))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It lets go of whom it follows. It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Reads a log of `strace -f -yy -s 0`.
fn read(log: &str) -> Calls {
    let mut calls = Calls::default();
    let mut unfinished: HashMap<&str, (&str, bool)> = HashMap::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let resumed = rest.strip_prefix("<... ");
        let begun = match resumed {
            Some(_) => unfinished.remove(thread),
            None => rest.split_once('(').map(|(call, arguments)| (call, is_file(arguments))),
        };
        let Some((call, is_file)) = begun else { continue };
        if resumed.is_none() && rest.ends_with("<unfinished ...>") {
            unfinished.insert(thread, (call, is_file));
            continue;
        }
        let Some(operation) = operation(call) else { continue };
        // The last one: there may be others in the arguments.
        let Some((_, result)) = rest.rsplit_once(" = ") else { continue };
        let mut words = result.split(' ');
        let (value, error) = (words.next().unwrap_or_default(), words.next());
        let failed = value == "?" || value == "-1";
        let key = match error.filter(|_| failed) {
            Some(error) => format!("{operation} {}", class(error)),
            None if failed => panic!("no end of a call: {line}"),
            None => operation.to_owned(),
        };
        *calls.operations.entry(key).or_default() += 1.0;
        let moves_bytes = ["read", "write", "send", "receive", "transfer"].contains(&operation);
        let value = value.split('<').next().and_then(|value| value.parse::<f64>().ok());
        if let Some(bytes) = value.filter(|&bytes| moves_bytes && bytes > 0.0) {
            *calls.bytes.entry(operation.to_owned()).or_default() += bytes;
            if is_file {
                *calls.file_bytes.entry(operation.to_owned()).or_default() += bytes;
            }
        }
    }
    assert!(unfinished.is_empty(), "calls without an end: {unfinished:?}");
    calls
}

/// Whether the first argument is a descriptor with a path that is no device: `3</etc/passwd>, ...`.
fn is_file(arguments: &str) -> bool {
    let descriptor = arguments.split_once('<').filter(|(number, _)| number.parse::<u32>().is_ok());
    let Some((_, rest)) = descriptor else { return false };
    let end = rest.find([',', ')']).unwrap_or(rest.len());
    rest.starts_with('/') && !rest[..end].contains("<char ")
}

#[cfg(test)]
mod tests {
    use super::{Calls, read};

    fn check(log: &str, operations: &[(&str, f64)], bytes: &[(&str, f64)], file_bytes: &[(&str, f64)]) {
        let map =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        let expected = Calls { operations: map(operations), bytes: map(bytes), file_bytes: map(file_bytes) };
        assert_eq!(read(log), expected, "{log}");
    }

    #[test]
    fn lines_of_a_log() {
        check("7 read(3</a b>, \"\"..., 8) = 5\n", &[("read", 1.0)], &[("read", 5.0)], &[("read", 5.0)]);
        check(
            "7  recvfrom(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, 0x7f, 8, 0, NULL, NULL) = -1 EAGAIN (Resource)\n\
             7 openat(AT_FDCWD</>, \"/x\", O_RDONLY) = 4</x>\n7 getpid() = 7\n7 +++ exited with 0 +++\n",
            &[("receive would_block", 1.0), ("open", 1.0)],
            &[],
            &[],
        );
        check(
            "7 write(1</dev/null<char 1:3>>,  <unfinished ...>\n8 epoll_wait(4<anon_inode:[eventpoll]>,  <unfinished ...>\n\
             7 <... write resumed>\"\"..., 3) = 3\n8 <... epoll_wait resumed>[], 1, -1) = -1 EINTR (Interrupted)\n",
            &[("poll interrupted", 1.0), ("write", 1.0)],
            &[("write", 3.0)],
            &[],
        );
    }
}
