//! `kansoku core-handler PID NAMESPACE_PID SIGNAL TIME`: what the kernel starts for every core where it can't connect.
//!
//! Runs as root and alone, with the core as its standard input. Refuses: to write to standard output, which for the
//! kernel's helpers may be anything, and more than [`CONCURRENT_MAX`] of its kind at once.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::crash::record::DumpFile;
use crate::dump::socket::CONCURRENT_MAX;
use crate::dump::{DumpKind, DumpOptions, Dying, Store, take};

/// How long a handler waits for others, which is part of the time that the process is held.
const WAIT_MAX: Duration = Duration::from_secs(super::TAKE_SECONDS_MAX / 2);

/// How often it looks whether another one has ended.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// Length of a line in the kernel's log.
const COMPLAINT_BYTES_MAX: usize = 512;

/// What the kernel says about the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// `%P`: the process in the host's pid namespace.
    pub pid: u32,
    /// `%p`: the process in its own pid namespace, as it is in the core.
    pub namespace_pid: u32,
    /// `%s`
    pub signal: u32,
    /// `%t`, seconds since the epoch.
    pub time_unix: u64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The dump is kept.
    Written(DumpFile),
    /// The process shall have none.
    RefusedByPolicy,
    /// Too many others for too long.
    Busy,
}

impl Arguments {
    /// From the command line.
    pub fn parse(words: &[String]) -> Result<Self> {
        let [pid, namespace_pid, signal, time_unix] = words else {
            bail!(
                "core-handler takes PID NAMESPACE_PID SIGNAL TIME; the kernel calls it, through core_pattern"
            );
        };
        let number = |name: &str, word: &str| {
            word.parse::<u64>()
                .with_context(|| format!("{name} of core-handler is {word:?} and not a number"))
        };
        let small = |name: &str, word: &str| {
            u32::try_from(number(name, word)?).with_context(|| format!("{name} of core-handler is too large"))
        };
        Ok(Self {
            pid: small("PID", pid)?,
            namespace_pid: small("NAMESPACE_PID", namespace_pid)?,
            signal: small("SIGNAL", signal)?,
            time_unix: number("TIME", time_unix)?,
        })
    }
}

/// Takes the core on standard input. `decide` gets the process and its cgroup's id.
pub fn run(
    arguments: &Arguments,
    decide: &dyn Fn(u32, Option<u64>) -> DumpKind,
    options: &DumpOptions,
    store: &mut Store,
) -> Result<Ending> {
    // First, while the process is certainly there.
    let process = Dying::now(arguments.pid);
    let kind = decide(process.pid, cgroup_id_of(process.pid));
    if !kind.needs_core() {
        return Ok(Ending::RefusedByPolicy);
    }
    let Some(_turn) = wait_for_turn(store.directory(), process.seen + WAIT_MAX)? else {
        return Ok(Ending::Busy);
    };
    let core = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("there is no standard input to read a core from")?;
    match take(File::from(core), process, kind, options, store)? {
        Some(file) => Ok(Ending::Written(file)),
        None => Ok(Ending::RefusedByPolicy),
    }
}

/// The exit code: 0 as asked for, 1 failed, 3 busy. 2 is that of a wrong command line.
pub fn exit_code(ending: &Result<Ending>) -> ExitCode {
    match ending {
        Ok(Ending::Written(_) | Ending::RefusedByPolicy) => ExitCode::SUCCESS,
        Ok(Ending::Busy) => ExitCode::from(3),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says in the kernel's log why there is no dump: nobody reads the standard error of a helper.
pub fn complain(arguments: &Arguments, ending: &Result<Ending>) {
    let why = match ending {
        Ok(Ending::Written(_) | Ending::RefusedByPolicy) => return,
        Ok(Ending::Busy) => format!("{CONCURRENT_MAX} other cores are being taken"),
        Err(error) => format!("{error:#}"),
    };
    let mut line = format!("<4>kansoku: no dump of process {}: {}", arguments.pid, why.replace('\n', " "));
    line.truncate(line.floor_char_boundary(COMPLAINT_BYTES_MAX));
    // If this can't be written either, there is nobody left to tell.
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        log.write_all(line.as_bytes()).unwrap_or_default();
    }
}

/// One of the locks that bound the handlers, held until it is dropped; `None` if all were taken until the deadline.
fn wait_for_turn(directory: &Path, deadline: Instant) -> Result<Option<File>> {
    loop {
        for index in 0..CONCURRENT_MAX {
            let path = directory.join(format!("handler-{index}.lock"));
            let lock = || {
                let file =
                    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
                match file.try_lock() {
                    Ok(()) => Ok(Some(file)),
                    Err(TryLockError::WouldBlock) => Ok(None),
                    Err(TryLockError::Error(error)) => Err(error),
                }
            };
            let file = lock().with_context(|| format!("can't lock {}", path.display()))?;
            if file.is_some() {
                return Ok(file);
            }
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(WAIT_STEP);
    }
}

/// The id of a process's cgroup in the unified hierarchy: the inode of its directory.
fn cgroup_id_of(pid: u32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let cgroups = process.cgroups().ok()?;
    let cgroup = cgroups.into_iter().find(|cgroup| cgroup.hierarchy == 0)?;
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    let mount = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2")?;
    let directory = mount.mount_point.join(cgroup.pathname.trim_start_matches('/'));
    std::fs::metadata(directory).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: Option<Arguments>) {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(Arguments::parse(&words).ok(), expected);
    }

    #[test]
    fn arguments() {
        let expected = Arguments { pid: 4242, namespace_pid: 7, signal: 11, time_unix: 1_795_000_000 };
        check(&["4242", "7", "11", "1795000000"], Some(expected));
        check(&["4242", "7", "11"], None);
        check(&["4242", "7", "eleven", "1"], None);
        check(&["42424242424242", "7", "11", "1"], None);
        check(&["-1", "7", "11", "1"], None);
    }

    #[test]
    fn turns_are_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let turn = || wait_for_turn(directory.path(), Instant::now()).expect("locks");
        let turns: Vec<_> = (0..CONCURRENT_MAX).map(|_| turn().expect("free")).collect();
        assert!(turn().is_none());
        drop(turns);
        assert!(turn().is_some());
    }

    #[test]
    fn our_own_cgroup() {
        if procfs::process::Process::myself().and_then(|process| process.cgroups()).is_ok() {
            assert!(cgroup_id_of(std::process::id()).is_some_and(|id| id > 0));
        }
    }
}
