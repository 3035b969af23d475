//! Where dumps lie: one bounded directory, shared by the agent and by handlers that the kernel starts.
//!
//! A dump is written under a temporary name whose length counts as taken from the start, and renamed when it is whole.
//! The oldest dumps make room for new ones. Refuses: more bytes or files than its limits, whatever the dumps are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::crash::record::DumpFile;

/// The smallest `file_bytes_max`.
pub(super) const FILE_BYTES_MIN: u64 = 1024 * 1024;

/// Room is made in steps of this many bytes.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// A temporary file of this age has no writer any more.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(10 * super::TAKE_SECONDS_MAX);

/// Entries of the directory that are looked at. More are not ours.
const ENTRIES_MAX: usize = 100_000;

const TEMPORARY: &str = ".temporary";
const TRUNCATED: &str = ".truncated";
const LOCK: &str = "lock";

/// What a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Minidump,
    Core,
}

impl Format {
    const ALL: [Self; 2] = [Self::Minidump, Self::Core];

    fn ending(self) -> &'static str {
        match self {
            Self::Minidump => ".dmp",
            Self::Core => ".core.zst",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Minidump => "minidump",
            Self::Core => "core+zstd",
        }
    }
}

/// Bounds of the directory.
#[derive(Clone, Debug)]
pub struct StoreLimits {
    /// The directory, which is made if it isn't there.
    pub directory: PathBuf,
    /// Of all dumps.
    pub bytes_max: u64,
    /// Of all dumps.
    pub files_max: usize,
    /// Of one dump; a longer one is truncated.
    pub file_bytes_max: u64,
}

/// The directory of dumps. A clone is another handle to the same one.
#[derive(Clone, Debug)]
pub struct Store {
    limits: StoreLimits,
    boot: String,
}

/// A dump that is being written. Dropped unfinished, it leaves nothing.
pub(super) struct Slot {
    store: Store,
    file: File,
    temporary: PathBuf,
    name: Name,
    position: u64,
    bytes: u64,
    reserved: u64,
}

/// `<boot>-<pid>-<start ticks>[.truncated].<ending>`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    boot: String,
    pid: u32,
    /// 0 if the process was gone before it could be asked.
    start_ticks: u64,
    is_truncated: bool,
    format: Format,
}

/// A file of ours in the directory.
struct Entry {
    path: PathBuf,
    /// `None` while it is written.
    name: Option<Name>,
    bytes: u64,
    modified: SystemTime,
}

impl Store {
    /// Opens the directory, and removes what a killed writer left in it.
    pub fn open(limits: StoreLimits) -> Result<Self> {
        let directory = limits.directory.display();
        if limits.file_bytes_max < FILE_BYTES_MIN
            || limits.bytes_max < limits.file_bytes_max
            || limits.files_max == 0
        {
            bail!(
                "the dumps of {directory} need a file_bytes_max of {FILE_BYTES_MIN} at least, a bytes_max not below it, \
                 and a files_max of 1 at least"
            );
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&limits.directory).with_context(|| {
            format!("can't make {directory} for dumps; choose a directory that can be written to")
        })?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("can't tell this boot from others")?;
        let store = Self { boot: boot.chars().take(8).collect(), limits };
        let _lock = store.lock()?;
        for entry in store.entries()? {
            let age = SystemTime::now().duration_since(entry.modified).unwrap_or_default();
            if entry.name.is_none() && age > TEMPORARY_AGE_MAX {
                remove(&entry.path)?;
            }
        }
        Ok(store)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.limits.directory
    }

    /// The dump of a process of this boot, if there is one.
    pub fn find(&self, pid: u32, start_ticks: u64) -> Option<DumpFile> {
        let entries = self.entries().ok()?;
        let of_process = |entry: &&Entry, ticks: u64| {
            let name = entry.name.as_ref();
            name.is_some_and(|name| name.boot == self.boot && name.pid == pid && name.start_ticks == ticks)
        };
        let exact = entries.iter().find(|entry| of_process(entry, start_ticks));
        // A dump without a start is of this process unless it is older: then an earlier one had the same pid.
        let started = started(start_ticks)?;
        let loose = || entries.iter().find(|entry| of_process(entry, 0) && entry.modified >= started);
        exact.or_else(loose).and_then(Entry::dump)
    }

    /// Starts a dump.
    pub(super) fn begin(&self, pid: u32, start_ticks: Option<u64>, format: Format) -> Result<Slot> {
        let start_ticks = start_ticks.unwrap_or_default();
        let name = Name { boot: self.boot.clone(), pid, start_ticks, is_truncated: false, format };
        let temporary = self.limits.directory.join(format!("{}{TEMPORARY}", name.text()));
        let _lock = self.lock()?;
        self.make_room(0, 1)?;
        remove(&temporary)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(|| format!("can't write {}", temporary.display()))?;
        Ok(Slot { store: self.clone(), file, temporary, name, position: 0, bytes: 0, reserved: 0 })
    }

    /// The file that writers in all processes lock. Held only while room is made.
    fn lock(&self) -> Result<File> {
        let path = self.limits.directory.join(LOCK);
        let lock = || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.lock()?;
            io::Result::Ok(file)
        };
        lock().with_context(|| format!("can't lock {}", path.display()))
    }

    /// Removes the oldest dumps until so many bytes and files more are within the limits.
    fn make_room(&self, bytes: u64, files: usize) -> Result<()> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.modified);
        let mut bytes_total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut files_total = entries.len();
        for entry in entries.iter().filter(|entry| entry.name.is_some()) {
            if bytes_total + bytes <= self.limits.bytes_max && files_total + files <= self.limits.files_max {
                return Ok(());
            }
            remove(&entry.path)?;
            bytes_total -= entry.bytes;
            files_total -= 1;
        }
        if bytes_total + bytes > self.limits.bytes_max || files_total + files > self.limits.files_max {
            bail!(
                "dumps that are being written fill {}; raise bytes_max or files_max",
                self.directory().display()
            );
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let read = || {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&self.limits.directory)?.take(ENTRIES_MAX) {
                let entry = entry?;
                let Ok(text) = entry.file_name().into_string() else { continue };
                let (name, is_temporary) = match text.strip_suffix(TEMPORARY) {
                    Some(rest) => (Name::parse(rest), true),
                    None => (Name::parse(&text), false),
                };
                // Another process may just have renamed or removed it.
                let (Some(name), Ok(metadata)) = (name, entry.metadata()) else { continue };
                if metadata.is_file() {
                    let name = (!is_temporary).then_some(name);
                    entries.push(Entry {
                        path: entry.path(),
                        name,
                        bytes: metadata.len(),
                        modified: metadata.modified()?,
                    });
                }
            }
            io::Result::Ok(entries)
        };
        read().with_context(|| format!("can't list {}", self.directory().display()))
    }
}

impl Entry {
    fn dump(&self) -> Option<DumpFile> {
        let name = self.name.as_ref()?;
        Some(DumpFile {
            format: name.format.name().to_owned(),
            path: self.path.to_str()?.to_owned(),
            bytes: self.bytes,
            is_truncated: name.is_truncated,
        })
    }
}

impl Name {
    fn text(&self) -> String {
        let truncated = if self.is_truncated { TRUNCATED } else { "" };
        format!("{}-{}-{}{truncated}{}", self.boot, self.pid, self.start_ticks, self.format.ending())
    }

    fn parse(text: &str) -> Option<Self> {
        let (rest, format) =
            Format::ALL.iter().find_map(|&format| Some((text.strip_suffix(format.ending())?, format)))?;
        let (rest, is_truncated) = match rest.strip_suffix(TRUNCATED) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let mut parts = rest.splitn(3, '-');
        let boot = parts.next().filter(|boot| !boot.is_empty())?.to_owned();
        let pid = parts.next()?.parse().ok()?;
        let start_ticks = parts.next()?.parse().ok()?;
        Some(Self { boot, pid, start_ticks, is_truncated, format })
    }
}

impl Slot {
    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bound of this file.
    pub(super) fn file_bytes_max(&self) -> u64 {
        self.store.limits.file_bytes_max
    }

    /// Gives the dump its name.
    pub(super) fn finish(mut self, is_truncated: bool) -> Result<DumpFile> {
        self.name.is_truncated = is_truncated;
        let path = self.store.limits.directory.join(self.name.text());
        let finish = || {
            self.file.set_len(self.bytes)?;
            fs::rename(&self.temporary, &path)
        };
        finish().with_context(|| format!("can't finish {}", path.display()))?;
        Ok(DumpFile {
            format: self.name.format.name().to_owned(),
            path: path.to_string_lossy().into_owned(),
            bytes: self.bytes,
            is_truncated,
        })
    }

    /// Makes room up to `end`. The file's length shows other writers what is taken; nothing is allocated yet.
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        let reserved = end.next_multiple_of(RESERVE_BYTES).min(self.file_bytes_max());
        let _lock = self.store.lock().map_err(io::Error::other)?;
        self.store.make_room(reserved - self.reserved, 0).map_err(io::Error::other)?;
        self.file.set_len(reserved)?;
        self.reserved = reserved;
        Ok(())
    }
}

impl Write for Slot {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let end = self.position.saturating_add(buffer.len() as u64);
        if end > self.file_bytes_max() {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if end > self.reserved {
            self.reserve(end)?;
        }
        let count = self.file.write(buffer)?;
        self.position += count as u64;
        self.bytes = self.bytes.max(self.position);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Slot {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // Not the file's own end: that is what is reserved.
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
        };
        let position = position.ok_or(ErrorKind::InvalidInput)?;
        self.position = self.file.seek(SeekFrom::Start(position))?;
        Ok(position)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // After `finish` there is no such file any more.
        if let Err(error) = remove(&self.temporary) {
            tracing::warn!("{error:#}");
        }
    }
}

/// Removes a file that may already be gone.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// When a process of this boot started, from the ticks of its `/proc/PID/stat`.
fn started(start_ticks: u64) -> Option<SystemTime> {
    let up = Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime)).ok()?;
    let start = Duration::from_millis(start_ticks.checked_mul(1000)? / procfs::ticks_per_second().max(1));
    SystemTime::now().checked_sub(up.checked_sub(start)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn store(directory: &Path, files_max: usize) -> Store {
        let directory = directory.to_owned();
        Store::open(StoreLimits { directory, bytes_max: 40 * MIB, files_max, file_bytes_max: 32 * MIB })
            .expect("a store")
    }

    fn write(store: &Store, pid: u32, bytes: u64) -> Result<DumpFile> {
        let mut slot = store.begin(pid, Some(7), Format::Core)?;
        io::copy(&mut io::repeat(1).take(bytes), &mut slot)?;
        slot.finish(pid == 3)
    }

    fn check(sizes: &[u64], files_max: usize, expected: &[u32]) {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), files_max);
        for (pid, &size) in (1..).zip(sizes) {
            write(&store, pid, size).expect("written");
            // Names are removed by age, and clocks tick slowly.
            std::thread::sleep(Duration::from_millis(15));
        }
        let kept: Vec<_> = (1..=9).filter(|&pid| store.find(pid, 7).is_some()).collect();
        assert_eq!(kept, expected, "{sizes:?}");
        let total: u64 = store.entries().expect("listed").iter().map(|entry| entry.bytes).sum();
        assert!(total <= 40 * MIB);
    }

    #[test]
    fn the_oldest_make_room() {
        check(&[MIB, MIB, MIB], 10, &[1, 2, 3]);
        check(&[MIB, MIB, MIB], 2, &[2, 3]);
        check(&[20 * MIB, 19 * MIB, 2 * MIB], 10, &[2, 3]);
        check(&[20 * MIB, 19 * MIB, 32 * MIB], 10, &[3]);
    }

    #[test]
    fn too_long_and_unfinished_leave_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), 10);
        let error = write(&store, 1, 33 * MIB).expect_err("too long");
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        assert_eq!(kind, Some(ErrorKind::FileTooLarge));
        assert_eq!(store.entries().expect("listed").len(), 0);
    }

    #[test]
    fn two_writers_share_the_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), 10);
        let mut one = store.begin(1, None, Format::Core).expect("a slot");
        let mut other = store.begin(2, None, Format::Minidump).expect("a slot");
        io::copy(&mut io::repeat(1).take(30 * MIB), &mut one).expect("fits");
        let error = io::copy(&mut io::repeat(1).take(30 * MIB), &mut other).expect_err("doesn't");
        assert!(error.to_string().contains("raise bytes_max"), "{error}");
        drop(other);
        one.finish(false).expect("finished");
        assert!(store.find(1, u64::from(u32::MAX)).is_none(), "a start in the future");
        let start =
            procfs::process::Process::myself().and_then(|process| process.stat()).expect("stat").starttime;
        assert!(store.find(1, start).is_some(), "found without its start");
    }

    #[test]
    fn the_mode_and_the_name() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(&directory.path().join("a/b"), 10);
        let file = write(&store, 3, 100).expect("written");
        assert!(file.is_truncated && file.path.ends_with("-3-7.truncated.core.zst"), "{file:?}");
        assert_eq!(store.find(3, 7), Some(file.clone()));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(Path::new(&file.path)), mode(store.directory())), (0o600, 0o700));
    }

    #[test]
    fn seeks_within_what_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), 10);
        let mut slot = store.begin(1, Some(7), Format::Minidump).expect("a slot");
        slot.write_all(b"abcdef").expect("written");
        assert_eq!(slot.seek(SeekFrom::End(-2)).expect("sought"), 4);
        slot.write_all(b"X").expect("written");
        slot.seek(SeekFrom::Start(0)).expect("sought");
        slot.write_all(b"Y").expect("written");
        let file = slot.finish(false).expect("finished");
        assert_eq!(fs::read(file.path).expect("read"), b"YbcdXf");
    }

    #[test]
    fn a_full_disk_is_an_error_without_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store(directory.path(), 10);
        let mut slot = store.begin(1, Some(7), Format::Core).expect("a slot");
        slot.file = OpenOptions::new().write(true).open("/dev/full").expect("opened");
        slot.reserved = MIB;
        let error = slot.write_all(b"abc").expect_err("full");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        drop(slot);
        assert_eq!(store.entries().expect("listed").len(), 0);
    }
}
