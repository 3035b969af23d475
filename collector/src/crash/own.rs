//! The agent's own life: a file in the spool while it runs, so that the next start knows when it did not stop by itself.
//!
//! Refuses: to take over from an agent that still runs, and to call a reboot of the node a crash.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::record::{CrashRecord, Kind, ProcessInfo, SCHEMA, Stderr};
use super::redact::Redactor;
use super::{fingerprint, spool, summary};
use crate::clock::unix_ns;

const FILE: &str = "agent.running";
const PANIC_FILE: &str = "agent.panic";

/// Bytes of a panic's message that are kept.
const PANIC_BYTES_MAX: usize = 4_096;

/// How often the sign of life is renewed.
const SIGN_OF_LIFE_S: u64 = 5;

/// Where a panic is noted. A panic hook has no other state than this.
static PANIC_PATH: OnceLock<Mutex<PathBuf>> = OnceLock::new();

/// What stands in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Life {
    pid: u32,
    start_ticks: u64,
    boot_id: String,
    started_unix_ns: u64,
    last_seen_unix_ns: u64,
    version: String,
}

/// The life of this agent.
pub struct OwnLife {
    path: PathBuf,
    life: Life,
    renewed: Instant,
}

/// The agent that uses a spool's directory now, if another one does.
pub fn running(directory: &Path) -> Option<u32> {
    read(&directory.join(FILE)).filter(|life| is_running(life, &boot_id())).map(|life| life.pid)
}

/// What was found at the start.
pub enum Before {
    /// The last agent stopped by itself, or there was none, or the node was started anew.
    Stopped,
    /// The last agent ended without a stop.
    Ended(Box<CrashRecord>),
    /// Another agent uses this spool now.
    Running {
        /// Its process id.
        pid: u32,
    },
}

impl OwnLife {
    /// Starts the life of this process in a spool's directory; `None` while another agent lives there.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn begin(directory: &Path, redactor: &Redactor) -> Result<(Option<Self>, Before)> {
        let path = directory.join(FILE);
        let boot_id = boot_id();
        let before = match read(&path) {
            Some(life) if is_running(&life, &boot_id) => {
                return Ok((None, Before::Running { pid: life.pid }));
            }
            Some(life) if life.boot_id == boot_id => {
                Before::Ended(Box::new(record(&life, directory, redactor)))
            }
            _ => Before::Stopped,
        };
        let pid = std::process::id();
        let life = Life {
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            boot_id,
            started_unix_ns: unix_ns(),
            last_seen_unix_ns: unix_ns(),
            version: crate::export::VERSION.to_owned(),
        };
        let own = Self { path, life, renewed: Instant::now() };
        own.write().context("cannot note in the spool that the agent runs")?;
        note_panics(directory);
        Ok((Some(own), before))
    }

    /// Renews the sign of life now and then: it tells when the agent was seen last.
    pub fn renew(&mut self) {
        if self.renewed.elapsed().as_secs() >= SIGN_OF_LIFE_S {
            self.renewed = Instant::now();
            self.life.last_seen_unix_ns = unix_ns();
            if let Err(error) = self.write() {
                tracing::debug!(error = format!("{error:#}"), "cannot renew the sign of life");
            }
        }
    }

    /// Ends it by a stop. A life that ends otherwise is found by the next start, and so is one with a panic in it.
    pub fn end(self) {
        if self.path.with_file_name(PANIC_FILE).exists() {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "the next start will take this stop for a crash");
        }
    }

    fn write(&self) -> Result<()> {
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self.life)?)?;
        std::fs::rename(&new, &self.path)?;
        Ok(())
    }
}

fn read(path: &Path) -> Option<Life> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn is_running(life: &Life, boot_id: &str) -> bool {
    let is_me = life.pid == std::process::id();
    !is_me && life.boot_id == boot_id && start_ticks(life.pid) == Some(life.start_ticks)
}

fn record(life: &Life, directory: &Path, redactor: &Redactor) -> CrashRecord {
    let panic_path = directory.join(PANIC_FILE);
    // What the agent worked on may stand in its last words.
    let panic = std::fs::read(&panic_path).ok().map(|bytes| redactor.text(&String::from_utf8_lossy(&bytes)));
    // It belongs to this record only.
    let _not_there = std::fs::remove_file(&panic_path);
    let mut record = CrashRecord {
        schema: SCHEMA,
        id: spool::id(life.last_seen_unix_ns, life.pid),
        time_unix_ns: life.last_seen_unix_ns,
        start_unix_ns: Some(life.started_unix_ns),
        kind: Kind::Agent,
        resource: [
            ("service.name".to_owned(), "kansoku".to_owned()),
            ("service.version".to_owned(), life.version.clone()),
        ]
        .into(),
        process: ProcessInfo {
            pid: life.pid,
            executable_name: "kansoku".to_owned(),
            ..ProcessInfo::default()
        },
        stderr: panic.map(|text| Stderr { written_bytes: text.len() as u64, text, is_truncated: false }),
        incomplete: vec![
            "time: the last sign of life; the end came up to some seconds later".to_owned(),
            "signal, stack: an agent cannot watch its own end; see the kernel's log".to_owned(),
        ],
        ..CrashRecord::default()
    };
    record.summary = summary::of(&record);
    let last_words = record.stderr.as_ref().map(|stderr| stderr.text.as_str());
    record.fingerprint = fingerprint::fingerprint(Kind::Agent, "kansoku", "", &[], last_words);
    record
}

/// Keeps a panic's message for the next start, and lets the usual message come too.
fn note_panics(directory: &Path) {
    let path = directory.join(PANIC_FILE);
    let is_first = PANIC_PATH.set(Mutex::new(path.clone())).is_ok();
    if !is_first {
        if let Some(known) = PANIC_PATH.get() {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = path;
        }
        return;
    }
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |information| {
        let mut text = information.to_string();
        text.truncate(text.floor_char_boundary(PANIC_BYTES_MAX));
        if let Some(Ok(path)) = PANIC_PATH.get().map(Mutex::try_lock)
            && let Ok(mut file) = std::fs::File::create(&*path)
        {
            // The usual message follows whatever becomes of this one.
            let _disk_full = file.write_all(text.as_bytes());
        }
        usual(information);
    }));
}

fn start_ticks(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    (stat.state != 'Z').then_some(stat.starttime)
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor() -> Redactor {
        Redactor::new(&std::collections::BTreeMap::new()).expect("no patterns")
    }

    /// A spool with the life of an agent in it that is gone, changed by `change`; expects whether the next start tells.
    fn check(change: impl Fn(&mut Life), expected: &str) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut life = Life {
            pid: u32::MAX >> 1,
            start_ticks: 7,
            boot_id: boot_id(),
            started_unix_ns: 1,
            last_seen_unix_ns: 2,
            version: "0".to_owned(),
        };
        change(&mut life);
        std::fs::write(directory.path().join(FILE), serde_json::to_vec(&life).expect("JSON"))
            .expect("writable");
        let (own, before) = OwnLife::begin(directory.path(), &redactor()).expect("writable");
        let found = match before {
            Before::Stopped => "stopped",
            Before::Ended(_) => "ended",
            Before::Running { .. } => "running",
        };
        assert_eq!((found, own.is_some()), (expected, expected != "running"), "{life:?}");
    }

    #[test]
    fn what_was_before() {
        let parent = std::os::unix::process::parent_id();
        check(|_| {}, "ended");
        check(|life| life.boot_id = "another boot".to_owned(), "stopped");
        check(
            |life| (life.pid, life.start_ticks) = (parent, start_ticks(parent).expect("it runs")),
            "running",
        );
        check(|life| (life.pid, life.start_ticks) = (parent, 1), "ended");
    }

    #[test]
    fn a_stop_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (own, _) = OwnLife::begin(directory.path(), &redactor()).expect("writable");
        own.expect("nobody else").end();
        assert!(matches!(OwnLife::begin(directory.path(), &redactor()), Ok((Some(_), Before::Stopped))));
    }
}
