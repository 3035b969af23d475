//! Crash records on disk: one JSON file each, in one directory, bounded in bytes and files.
//!
//! Refuses: index files, foreign files, and symlinks. What the directory holds is the state: a file that is
//! named otherwise is never read, counted or removed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use super::record::{CrashRecord, SCHEMA};

/// A record that is larger is shortened; a file that is larger is not read.
pub const RECORD_BYTES_MAX: usize = 256 << 10;

/// Ids that an error names when a prefix fits several.
const IDS_NAMED_MAX: usize = 8;

/// Digits of a process id at most.
const PID_DIGITS_MAX: usize = 10;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Write permission for the group or for everybody.
const WRITABLE_BY_OTHERS: u32 = 0o022;

const PENDING: &str = ".pending.json";
const EXPORTED: &str = ".json";
const BAD: &str = ".bad";
const TEMPORARY: &str = ".tmp";

/// How large the directory may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all files. At least [`RECORD_BYTES_MAX`], so that any one record fits.
    pub bytes_max: u64,
    /// Files, at least one.
    pub files_max: usize,
}

/// The writer's side. There is one per directory.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    limits: SpoolLimits,
    /// Pending records that were removed and that no [`Stored`] has told of yet.
    pending_lost: Vec<String>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it is.
    pub path: PathBuf,
    /// Ids of pending records that had to go since the last [`Stored`], also for a store that failed: lost.
    pub pending_lost: Vec<String>,
    /// Whether parts of it were left out; the file says which.
    pub is_shortened: bool,
}

/// A record in the directory, as a reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the file holds.
    pub record: CrashRecord,
    /// Whether it is still to be exported.
    pub is_pending: bool,
    /// The file, at the time it was read.
    pub path: PathBuf,
}

/// In the order in which files go when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Temporary,
    Bad,
    Exported,
    Pending,
}

/// A file of ours.
struct Found {
    state: State,
    id: String,
    path: PathBuf,
    bytes: u64,
}

/// Why there is no record.
enum Unreadable {
    /// Renamed or removed since the directory was read.
    Gone,
    /// It will never be readable.
    Bad(String),
    /// It may be readable another time.
    Failed(io::Error),
}

/// The unique name of a death, in the order of time: `20261122T180102.123456Z-4242`.
pub fn id(time_unix_ns: u64, pid: u32) -> String {
    let time = humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_nanos(time_unix_ns));
    format!("{}-{pid}", time.to_string().replace(['-', ':'], ""))
}

/// All records, oldest first. For another process than the writer: files may come and go meanwhile, and those
/// that hold no record are left out (the writer sets them aside and says so).
///
/// # Errors
///
/// If the directory or a file in it cannot be read, which is mostly a matter of permission.
pub fn list(directory: &Path) -> Result<Vec<Entry>> {
    let ids: BTreeSet<String> = records(directory)?.map(|found| found.id).collect();
    let mut entries = Vec::with_capacity(ids.len());
    for id in &ids {
        match entry(directory, id) {
            Ok(entry) => entries.push(entry),
            Err(Unreadable::Gone | Unreadable::Bad(_)) => {}
            Err(Unreadable::Failed(error)) => return Err(unreadable(directory, error)),
        }
    }
    Ok(entries)
}

/// The record whose id is, or is the only one that begins with, `id_prefix`.
///
/// # Errors
///
/// If no record or more than one fits, or if it cannot be read.
pub fn find(directory: &Path, id_prefix: &str) -> Result<Entry> {
    let mut ids: Vec<String> = records(directory)?.map(|found| found.id).collect();
    ids.sort();
    ids.dedup();
    if ids.iter().any(|id| id == id_prefix) {
        ids = vec![id_prefix.to_owned()];
    }
    ids.retain(|id| id.starts_with(id_prefix));
    let [id] = ids.as_slice() else {
        if ids.is_empty() {
            bail!("no crash in {} has an id that begins with {id_prefix:?}", directory.display());
        }
        let named = ids.iter().take(IDS_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        let more = if ids.len() > IDS_NAMED_MAX { ", …" } else { "" };
        bail!("{} crashes have ids that begin with {id_prefix:?}: {named}{more}; give more of it", ids.len());
    };
    entry(directory, id).map_err(|reason| match reason {
        Unreadable::Gone => anyhow!("crash {id} was removed just now to make room"),
        Unreadable::Bad(why) => anyhow!("the file of crash {id} in {} is bad: {why}", directory.display()),
        Unreadable::Failed(error) => unreadable(directory, error),
    })
}

impl Spool {
    /// Creates the directory if need be and removes what interrupted writes left.
    ///
    /// # Errors
    ///
    /// If the limits leave no room for one record, or if the directory cannot be created, cannot be read, or can
    /// be written by others.
    pub fn open(directory: &Path, limits: SpoolLimits) -> Result<Self> {
        ensure!(limits.files_max >= 1, "the crash spool may hold no file at all: allow one or more");
        ensure!(
            limits.bytes_max >= RECORD_BYTES_MAX as u64,
            "the crash spool may hold {} bytes, but one record can take {RECORD_BYTES_MAX}: allow more",
            limits.bytes_max
        );
        let shown = directory.display();
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .with_context(|| format!("cannot create the crash directory {shown}"))?;
        let metadata = fs::metadata(directory).with_context(|| format!("cannot read {shown}"))?;
        ensure!(
            metadata.permissions().mode() & WRITABLE_BY_OTHERS == 0,
            "others may write to the crash directory {shown}: chmod 700 it, or choose one of its own"
        );
        for found in scan(directory)?.into_iter().filter(|found| found.state == State::Temporary) {
            remove(&found.path).with_context(|| format!("cannot remove {}", found.path.display()))?;
        }
        Ok(Self { directory: directory.to_owned(), limits, pending_lost: Vec::new() })
    }

    /// Writes a record, pending if it is still to be exported, and removes the oldest ones if room is needed:
    /// exported ones before pending ones. It is there completely or not at all. A record with an id that is
    /// already there replaces it.
    ///
    /// # Errors
    ///
    /// If the id is not one of [`id`], if the record is too large even without its mappings and stderr, or if it
    /// cannot be written, for example because the disk is full.
    pub fn store(&mut self, record: &CrashRecord, is_pending: bool) -> Result<Stored> {
        ensure!(is_id(&record.id), "{:?} is not the id of a crash", record.id);
        let (bytes, is_shortened) = encode(record)?;
        self.make_room(&record.id, bytes.len() as u64)?;
        let [path, other] = self.paths(&record.id, is_pending);
        self.write(&record.id, &path, &bytes).map_err(|error| self.not_written(&record.id, error))?;
        remove(&other).with_context(|| format!("cannot remove {}", other.display()))?;
        Ok(Stored { path, pending_lost: std::mem::take(&mut self.pending_lost), is_shortened })
    }

    /// Notes that a record was exported. One that is not there, or was exported before, is none of its business.
    ///
    /// # Errors
    ///
    /// If the file cannot be renamed; it stays pending and will be exported once more.
    pub fn mark_exported(&mut self, id: &str) -> Result<()> {
        if !is_id(id) {
            return Ok(());
        }
        let [pending, exported] = self.paths(id, true);
        match fs::rename(&pending, exported) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot rename {}", pending.display()))
            }
            _ => Ok(()),
        }
    }

    /// The records that are still to be exported, oldest first. A file that holds none is set aside as
    /// `<name>.bad`, with a warning.
    pub fn pending(&self) -> Vec<CrashRecord> {
        let mut found = match scan(&self.directory) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("no crash records are exported: {error:#}");
                return Vec::new();
            }
        };
        found.retain(|file| file.state == State::Pending);
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found
            .iter()
            .filter_map(|file| read(&file.path, &file.id).map_err(|why| set_aside(file, why)).ok())
            .collect()
    }

    /// A record that is still to be exported; `None` if it is not there or holds none.
    pub fn get(&self, id: &str) -> Option<CrashRecord> {
        let [pending, _] = self.paths(id, true);
        is_id(id).then(|| read(&pending, id).ok()).flatten()
    }

    /// The file of a record in this state, and the one in the other.
    fn paths(&self, id: &str, is_pending: bool) -> [PathBuf; 2] {
        [is_pending, !is_pending].map(|is_pending| path(&self.directory, id, is_pending))
    }

    fn make_room(&mut self, id: &str, bytes: u64) -> Result<()> {
        let mut files = scan(&self.directory)?;
        // A record of the same id is replaced, and a temporary file is gone or about to be overwritten.
        files.retain(|file| file.id != id && file.state != State::Temporary);
        files.sort_by(|one, other| (one.state, &one.id).cmp(&(other.state, &other.id)));
        let mut bytes_kept: u64 = files.iter().map(|file| file.bytes).sum();
        let mut files_kept = files.len();
        for file in files {
            if files_kept < self.limits.files_max && bytes_kept.saturating_add(bytes) <= self.limits.bytes_max
            {
                break;
            }
            let is_removed = remove(&file.path)
                .with_context(|| format!("cannot remove {} to make room", file.path.display()))?;
            if is_removed && file.state == State::Pending {
                self.pending_lost.push(file.id);
            }
            bytes_kept -= file.bytes;
            files_kept -= 1;
        }
        Ok(())
    }

    fn write(&self, id: &str, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.directory.join(format!("{id}{TEMPORARY}"));
        let write = || {
            remove(&temporary)?;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
            // The mode above passes through the umask.
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        let result = write();
        if result.is_err() {
            let _gone_at_the_next_start = remove(&temporary);
        } else {
            // The record is complete. Without this, only a power cut in the next seconds could hide it.
            let _best_effort = File::open(&self.directory).and_then(|directory| directory.sync_all());
        }
        result
    }

    fn not_written(&self, id: &str, error: io::Error) -> anyhow::Error {
        let directory = self.directory.display();
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!(
                    "; the disk is full: free space or give the crash directory {directory} a disk with more"
                )
            }
            ErrorKind::NotFound => {
                format!("; was the crash directory {directory} removed? restart the agent")
            }
            _ => String::new(),
        };
        anyhow!(error).context(format!("cannot write crash {id} to {directory}{advice}"))
    }
}

/// The record as JSON, and whether something was left out to keep the bound.
fn encode(record: &CrashRecord) -> Result<(Vec<u8>, bool)> {
    let as_json =
        |record: &CrashRecord| serde_json::to_vec(record).context("cannot turn the crash into JSON");
    let mut bytes = as_json(record)?;
    if bytes.len() <= RECORD_BYTES_MAX {
        return Ok((bytes, false));
    }
    let too_large = format!("left out: the record was larger than {} KiB", RECORD_BYTES_MAX >> 10);
    let mut shorter = record.clone();
    if !shorter.mappings.is_empty() {
        shorter.mappings.clear();
        shorter.incomplete.push(format!("mappings: {too_large}"));
        bytes = as_json(&shorter)?;
    }
    if bytes.len() > RECORD_BYTES_MAX
        && let Some(stderr) = shorter.stderr.as_mut().filter(|stderr| !stderr.text.is_empty())
    {
        stderr.text.clear();
        stderr.is_truncated = true;
        shorter.incomplete.push(format!("stderr: {too_large}"));
        bytes = as_json(&shorter)?;
    }
    ensure!(
        bytes.len() <= RECORD_BYTES_MAX,
        "crash {} takes {} bytes without its mappings and stderr, and at most {RECORD_BYTES_MAX} are kept",
        record.id,
        bytes.len()
    );
    Ok((bytes, true))
}

/// The record in this file.
fn read(path: &Path, id: &str) -> Result<CrashRecord, Unreadable> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let bad = |why: &str| Unreadable::Bad(why.to_owned());
    // Looked at before it is opened, because to open a device can have effects, and again afterwards.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(bad("not a regular file"));
    }
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(bad("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Unreadable::Bad(format!("larger than {RECORD_BYTES_MAX} bytes")));
    }
    let bad_json = |error: serde_json::Error| Unreadable::Bad(format!("not a crash record: {error}"));
    let schema = serde_json::from_slice::<Version>(&bytes).map_err(bad_json)?.schema;
    if schema > SCHEMA {
        return Err(Unreadable::Bad(format!("layout {schema} of a newer Kansoku: this one knows {SCHEMA}")));
    }
    let record: CrashRecord = serde_json::from_slice(&bytes).map_err(bad_json)?;
    // It could never be marked as exported.
    if record.id != id {
        return Err(bad("the record has another id than its file"));
    }
    Ok(record)
}

/// The record with this id, pending or, as it may have been exported just now, not.
fn entry(directory: &Path, id: &str) -> Result<Entry, Unreadable> {
    let one = |is_pending| {
        let path = path(directory, id, is_pending);
        read(&path, id).map(|record| Entry { record, is_pending, path })
    };
    match one(true) {
        Err(Unreadable::Gone) => one(false),
        result => result,
    }
}

fn set_aside(file: &Found, reason: Unreadable) {
    let shown = file.path.display();
    match reason {
        Unreadable::Gone => {}
        Unreadable::Failed(error) => tracing::warn!("cannot read {shown}: {error}"),
        Unreadable::Bad(why) => {
            let mut aside = file.path.clone().into_os_string();
            aside.push(BAD);
            match fs::rename(&file.path, &aside) {
                Ok(()) => tracing::warn!("{shown} is set aside as {BAD} and not exported: {why}"),
                Err(error) => {
                    tracing::warn!("{shown} is not exported: {why}; and cannot be set aside: {error}")
                }
            }
        }
    }
}

/// The files of ours. Directories are left alone.
fn scan(directory: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| unreadable(directory, error))? {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        let name = entry.file_name();
        let Some((id, state)) = name.to_str().and_then(parse) else { continue };
        match entry.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(directory, error)),
            Ok(metadata) if metadata.is_dir() && state == State::Bad => {}
            Ok(metadata) => {
                found.push(Found { state, id: id.to_owned(), path: entry.path(), bytes: metadata.len() });
            }
        }
    }
    Ok(found)
}

fn records(directory: &Path) -> Result<impl Iterator<Item = Found>> {
    let found = scan(directory)?.into_iter();
    Ok(found.filter(|file| matches!(file.state, State::Pending | State::Exported)))
}

fn unreadable(directory: &Path, error: io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::NotFound => "; has the agent run here with crash reports?",
        ErrorKind::PermissionDenied => "; run as root or as the agent's user",
        _ => "",
    };
    anyhow!(error).context(format!("cannot read the crash directory {}{advice}", directory.display()))
}

fn path(directory: &Path, id: &str, is_pending: bool) -> PathBuf {
    directory.join(format!("{id}{}", if is_pending { PENDING } else { EXPORTED }))
}

/// Whether there was something to remove.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a file is, by its name; `None` for a foreign one.
fn parse(name: &str) -> Option<(&str, State)> {
    let (name, is_bad) = match name.strip_suffix(BAD) {
        Some(name) => (name, true),
        None => (name, false),
    };
    // The longer suffix first.
    let suffixes = [(PENDING, State::Pending), (EXPORTED, State::Exported), (TEMPORARY, State::Temporary)];
    let (id, state) =
        suffixes.into_iter().find_map(|(suffix, state)| Some((name.strip_suffix(suffix)?, state)))?;
    is_id(id).then_some((id, if is_bad { State::Bad } else { state }))
}

/// Whether this is an id of [`id`]. Only such a name becomes part of a path.
fn is_id(text: &str) -> bool {
    const SHAPE: &[u8] = b"00000000T000000.000000Z-";
    let Some((time, pid)) = text.as_bytes().split_at_checked(SHAPE.len()) else { return false };
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape };
    time.iter().zip(SHAPE).all(fits)
        && (1..=PID_DIGITS_MAX).contains(&pid.len())
        && pid.iter().all(u8::is_ascii_digit)
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::Gone,
            // It became a symlink or a socket since it was looked at.
            Some(libc::ELOOP | libc::ENXIO) => Self::Bad("not a regular file".to_owned()),
            _ => Self::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::record::{CodeMapping, Stderr};

    const ROOMY: SpoolLimits = SpoolLimits { bytes_max: 64 << 20, files_max: 1_000 };

    fn record(number: u64) -> CrashRecord {
        CrashRecord { schema: SCHEMA, id: id(number * 1_000, 1), ..CrashRecord::default() }
    }

    fn open(limits: SpoolLimits) -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&directory.path().join("crashes"), limits).unwrap();
        (directory, spool)
    }

    /// Files by number and state: `3p` is pending, `3e` exported, `3b` bad, `3t` temporary.
    fn state(directory: &Path) -> String {
        let mut found = scan(directory).unwrap();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        let letter = |file: &Found| match file.state {
            State::Temporary => 't',
            State::Bad => 'b',
            State::Exported => 'e',
            State::Pending => 'p',
        };
        let number = |file: &Found| (0..100).find(|&number| record(number).id == file.id).unwrap();
        found.iter().map(|file| format!("{}{}", number(file), letter(file))).collect::<Vec<_>>().join(" ")
    }

    /// Steps in the letters of [`state`]: each stores, but `3x` marks as exported.
    fn check(files_max: usize, steps: &str, expected: &str, expected_lost: u64) {
        let (_guard, mut spool) = open(SpoolLimits { files_max, ..ROOMY });
        let mut lost = 0;
        for step in steps.split(' ') {
            let (number, letter) = step.split_at(step.len() - 1);
            let record = record(number.parse().unwrap());
            match letter {
                "x" => spool.mark_exported(&record.id).unwrap(),
                _ => lost += spool.store(&record, letter == "p").unwrap().pending_lost.len() as u64,
            }
        }
        assert_eq!((state(&spool.directory).as_str(), lost), (expected, expected_lost), "{steps}");
    }

    #[test]
    fn the_oldest_go_first_and_pending_ones_last() {
        check(9, "1p 2e 3p", "1p 2e 3p", 0);
        check(9, "1p 2p 1x", "1e 2p", 0);
        check(9, "1p 1x 1x 2x 3x", "1e", 0);
        // The same id again replaces, in whichever state.
        check(9, "1p 1p 1e", "1e", 0);
        check(9, "1e 1p", "1p", 0);
        check(1, "1p 1p 1e", "1e", 0);
        // Room.
        check(2, "1e 2e 3e", "2e 3e", 0);
        check(2, "1p 2e 3p", "1p 3p", 0);
        check(2, "1p 2p 3p", "2p 3p", 1);
        check(2, "2p 1p 3p 4p", "3p 4p", 2);
        check(1, "1p 2p 3e 4e", "4e", 2);
    }

    #[test]
    fn bytes_are_bounded() {
        let (_guard, mut spool) = open(SpoolLimits { bytes_max: RECORD_BYTES_MAX as u64, ..ROOMY });
        for number in 0..50 {
            let mut record = record(number);
            record.summary = "x".repeat(40_000);
            spool.store(&record, true).unwrap();
            let bytes: u64 = scan(&spool.directory).unwrap().iter().map(|file| file.bytes).sum();
            assert!(bytes <= spool.limits.bytes_max, "{bytes}");
        }
        assert_eq!(spool.pending().len(), 6);
    }

    #[test]
    fn records_survive_and_modes_are_tight() {
        let (_guard, mut spool) = open(ROOMY);
        let mut record = record(7);
        record.summary = "null \u{0} quote \" snow ☃".to_owned();
        let stored = spool.store(&record, true).unwrap();
        assert_eq!((stored.pending_lost, stored.is_shortened), (Vec::new(), false));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&spool.directory), mode(&stored.path)), (DIRECTORY_MODE, FILE_MODE));
        assert_eq!(spool.pending(), [record.clone()]);
        let spool = Spool::open(&spool.directory, ROOMY).unwrap();
        assert_eq!(spool.pending(), [record]);
    }

    /// A record with so many mappings and bytes of stderr, summary and what is left of them.
    fn check_shortened(
        mappings: usize,
        stderr: usize,
        summary: usize,
        expected: Option<(usize, usize, usize)>,
    ) {
        let (_guard, mut spool) = open(ROOMY);
        let mut record = record(1);
        record.mappings = vec![CodeMapping { path: "m".repeat(1_000), ..CodeMapping::default() }; mappings];
        record.stderr = Some(Stderr { text: "s".repeat(stderr), ..Stderr::default() });
        record.summary = "x".repeat(summary);
        let stored = spool.store(&record, true);
        let found = spool.pending().pop();
        let found = found.map(|record| {
            (record.mappings.len(), record.stderr.unwrap().text.len(), record.incomplete.len())
        });
        assert_eq!(found, expected);
        assert_eq!(
            stored.map(|stored| stored.is_shortened).ok(),
            expected.map(|(_, _, incomplete)| incomplete > 0)
        );
        assert!(!state(&spool.directory).contains('t'));
    }

    #[test]
    fn large_records_are_shortened() {
        const LARGE: usize = 300_000;
        check_shortened(10, 10, 10, Some((10, 10, 0)));
        check_shortened(300, 10, 10, Some((0, 10, 1)));
        check_shortened(100, 200_000, 10, Some((0, 200_000, 1)));
        check_shortened(300, LARGE, 10, Some((0, 0, 2)));
        check_shortened(0, LARGE, 10, Some((0, 0, 1)));
        check_shortened(300, LARGE, LARGE, None);
    }

    #[test]
    fn ids() {
        assert_eq!(id(1_795_370_462_123_456_789, 4242), "20261122T180102.123456Z-4242");
        assert_eq!(id(0, 0), "19700101T000000.000000Z-0");
        for id in [id(u64::MAX, u32::MAX), id(951_782_400_000_000_000, 1)] {
            assert!(is_id(&id), "{id}");
        }
        for no_id in
            ["", "x", "../../etc/passwd", "20261122T180102.123456Z-", "20261122T180102.123456Z-1/2", "☃"]
        {
            assert!(!is_id(no_id), "{no_id}");
            let (_guard, mut spool) = open(ROOMY);
            assert!(spool.store(&CrashRecord { id: no_id.to_owned(), ..record(1) }, true).is_err());
            assert!(spool.mark_exported(no_id).is_ok());
        }
    }

    /// A pending file with this content.
    fn check_bad(make: impl Fn(&Path)) {
        let (guard, mut spool) = open(ROOMY);
        let path = spool.paths(&record(1).id, true)[0].clone();
        spool.store(&record(2), true).unwrap();
        make(&path);
        assert_eq!(list(&spool.directory).unwrap().len(), 1);
        find(&spool.directory, &record(1).id).unwrap_err();
        assert_eq!(spool.pending(), [record(2)]);
        assert!(fs::symlink_metadata(&path).is_err());
        assert!(fs::symlink_metadata(format!("{}{BAD}", path.display())).is_ok());
        // It goes before all others, and it does not count as lost: that was told when it was set aside.
        spool.limits.files_max = 2;
        let stored = spool.store(&record(3), true).unwrap();
        assert!(stored.pending_lost.is_empty());
        assert_eq!(list(&spool.directory).unwrap().len(), 2);
        drop(guard);
    }

    #[test]
    fn bad_files_are_set_aside() {
        for text in ["", "{", "[1]", "{\"schema\":99}", "{\"schema\":1}", "\u{0}", &"[".repeat(100_000)] {
            check_bad(|path| fs::write(path, text).unwrap());
        }
        check_bad(|path| fs::write(path, [0xff; 16]).unwrap());
        check_bad(|path| fs::write(path, " ".repeat(RECORD_BYTES_MAX + 1)).unwrap());
        check_bad(|path| fs::write(path, serde_json::to_vec(&record(9)).unwrap()).unwrap());
        check_bad(|path| fs::create_dir(path).unwrap());
        check_bad(|path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap());
        check_bad(|path| std::os::unix::fs::symlink("nowhere", path).unwrap());
        check_bad(|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
        // A symlink to what would be a good record.
        check_bad(|path| {
            let good = path.with_file_name("good");
            fs::write(&good, serde_json::to_vec(&record(1)).unwrap()).unwrap();
            std::os::unix::fs::symlink(good, path).unwrap();
        });
    }

    #[test]
    fn foreign_and_temporary_files() {
        let (_guard, mut spool) = open(SpoolLimits { files_max: 1, ..ROOMY });
        let foreign = ["README", "x.json", "x.pending.json", "x.tmp", ".json", "1.core"];
        for name in foreign {
            fs::write(spool.directory.join(name), "x").unwrap();
        }
        fs::write(spool.directory.join(format!("{}{TEMPORARY}", record(1).id)), "{").unwrap();
        assert_eq!(state(&spool.directory), "1t");
        assert!(list(&spool.directory).unwrap().is_empty());
        let spool_again = Spool::open(&spool.directory, spool.limits).unwrap();
        assert_eq!(state(&spool_again.directory), "");
        spool.store(&record(2), true).unwrap();
        spool.store(&record(3), true).unwrap();
        assert_eq!(state(&spool.directory), "3p");
        assert!(foreign.iter().all(|name| spool.directory.join(name).exists()));
    }

    #[test]
    fn what_cannot_be_opened() {
        let guard = tempfile::tempdir().unwrap();
        let file = guard.path().join("file");
        fs::write(&file, "x").unwrap();
        Spool::open(&file, ROOMY).unwrap_err();
        Spool::open(guard.path(), SpoolLimits { files_max: 0, ..ROOMY }).unwrap_err();
        Spool::open(guard.path(), SpoolLimits { bytes_max: 1_000, ..ROOMY }).unwrap_err();
        list(&guard.path().join("nothing")).unwrap_err();
        fs::set_permissions(guard.path(), Permissions::from_mode(0o777)).unwrap();
        Spool::open(guard.path(), ROOMY).unwrap_err();
    }

    #[test]
    fn what_is_lost_is_told_after_a_failure() {
        let (_guard, mut spool) = open(SpoolLimits { files_max: 1, ..ROOMY });
        spool.store(&record(1), true).unwrap();
        // A directory in the way of the temporary file.
        let in_the_way = spool.directory.join(format!("{}{TEMPORARY}", record(2).id));
        fs::create_dir(&in_the_way).unwrap();
        spool.store(&record(2), true).unwrap_err();
        fs::remove_dir(&in_the_way).unwrap();
        assert_eq!(state(&spool.directory), "");
        assert_eq!(spool.store(&record(2), true).unwrap().pending_lost.len(), 1);
        assert_eq!(spool.store(&record(2), true).unwrap().pending_lost.len(), 0);
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let (_guard, spool) = open(ROOMY);
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = full.write_all(b"x").unwrap_err();
        let shown = format!("{:#}", spool.not_written("x", error));
        assert!(shown.contains("free space"), "{shown}");
    }

    fn check_find(prefix: &str, expected: Result<u64, &str>) {
        let (_guard, mut spool) = open(ROOMY);
        for number in 1..=12 {
            spool
                .store(&CrashRecord { id: id(number * 1_000_000_000, 42), ..record(1) }, number == 3)
                .unwrap();
        }
        spool.store(&CrashRecord { id: id(3_000_000_000, 421), ..record(1) }, false).unwrap();
        match (find(&spool.directory, prefix), expected) {
            (Ok(entry), Ok(number)) => {
                assert_eq!(entry.record.id, id(number * 1_000_000_000, 42));
                assert_eq!(entry.is_pending, number == 3);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{prefix}: {found:?} {expected:?}"),
        }
    }

    #[test]
    fn finds_by_prefix() {
        check_find("19700101T000004", Ok(4));
        check_find("19700101T000003.000000Z-42", Ok(3));
        check_find("19700101T000003", Err("19700101T000003.000000Z-42, 19700101T000003.000000Z-421;"));
        check_find("197", Err("13 crashes"));
        check_find("197", Err(", …;"));
        check_find("2", Err("no crash"));
        check_find("../x", Err("no crash"));
    }

    #[test]
    fn readers_bear_a_busy_writer() {
        let (_guard, mut spool) = open(SpoolLimits { files_max: 4, ..ROOMY });
        let directory = spool.directory.clone();
        let writer = std::thread::spawn(move || {
            for number in 0..300 {
                let record = record(number);
                spool.store(&record, true).unwrap();
                spool.mark_exported(&record.id).unwrap();
            }
        });
        while !writer.is_finished() {
            let entries = list(&directory).unwrap();
            assert!(entries.is_sorted_by_key(|entry| entry.record.id.clone()));
        }
        writer.join().unwrap();
        assert_eq!(list(&directory).unwrap().len(), 4);
    }

    proptest::proptest! {
        #[test]
        fn any_name_and_any_content(name in ".{0,60}", bytes in proptest::collection::vec(0u8.., 0..200)) {
            parse(&name);
            parse(&format!("{name}{PENDING}{BAD}"));
            let directory = tempfile::tempdir().unwrap();
            let path = path(directory.path(), &record(1).id, true);
            fs::write(&path, bytes).unwrap();
            let _any = read(&path, &record(1).id).map_err(|_| ());
        }
    }
}
