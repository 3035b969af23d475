//! Takes the core of a dying process from the kernel and keeps it, as a minidump or whole.
//!
//! The process is held by the kernel until the last byte is read or the stream is closed. So a core that is not wanted,
//! or no more, is not drained: it is closed, which lets the process go at once. Refuses: reading longer than
//! [`TAKE_SECONDS_MAX`], and what a dump means: that is `minidump`'s.

mod elf_core;
mod extent;
pub mod handler;
mod minidump;
pub mod pattern;
pub mod policy;
#[cfg(test)]
mod real_cores;
pub mod service;
pub mod socket;
mod store;
mod stream;

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use minidump::MinidumpLimits;
pub use policy::{DumpKind, Glob, Policies};
pub use store::{Store, StoreLimits};

use crate::clock::unix_ns;
use crate::crash::record::DumpFile;
use crate::dump::minidump::MinidumpExtras;
use crate::dump::store::{Format, Slot};
use crate::dump::stream::Stream;

/// How long a dying process is held, from the moment we saw it, including its wait for others.
pub const TAKE_SECONDS_MAX: u64 = 30;

/// Threads whose names are read while a process is held.
const THREAD_NAMES_MAX: usize = 1_000;

/// Read and compressed at once, bytes.
const CHUNK_BYTES: usize = 128 * 1024;

/// zstd's window of 2^20 bytes: 2 MiB of memory for a core of any size, and any reader opens it.
const WINDOW_LOG: u32 = 20;

/// Levels that keep up with the kernel.
const LEVEL_MIN: i32 = 1;
const LEVEL_MAX: i32 = 3;

/// What the compressor may still hold back: a block, its output buffer and the frame's end, bytes.
const COMPRESSOR_BYTES_MAX: u64 = 512 * 1024;
const _: () = assert!(COMPRESSOR_BYTES_MAX < store::FILE_BYTES_MIN);

/// How dumps are taken.
#[derive(Clone, Debug)]
pub struct DumpOptions {
    /// zstd's level of a whole core; from 1 to 3.
    pub compression_level: i32,
    /// How long a process is held; at most [`TAKE_SECONDS_MAX`].
    pub take_max: Duration,
    /// Bounds of a minidump.
    pub minidump: MinidumpLimits,
    /// Set when the agent stops: the dump that is being taken ends where it is.
    pub stopping: Arc<AtomicBool>,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self {
            compression_level: LEVEL_MIN,
            take_max: Duration::from_secs(TAKE_SECONDS_MAX),
            minidump: MinidumpLimits::default(),
            stopping: Arc::default(),
        }
    }
}

/// A process whose core the kernel writes.
#[derive(Clone, Copy, Debug)]
pub struct Dying {
    /// The process (tgid).
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`; `None` if it was already gone, as it may be when its core fits into the socket.
    pub start_ticks: Option<u64>,
    /// When we first saw it. Its time runs from here.
    pub seen: Instant,
}

impl Dying {
    /// A process that has just connected. To be called at once, for it may soon be gone.
    pub fn now(pid: u32) -> Self {
        let stat =
            i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok()?.stat().ok());
        Self { start_ticks: stat.map(|stat| stat.starttime), ..Self::gone(pid) }
    }

    /// A process that its parent has already waited for. Its pid may be another's, so `/proc` isn't asked.
    pub fn gone(pid: u32) -> Self {
        Self { pid, start_ticks: None, seen: Instant::now() }
    }
}

/// Takes a core and lets the process go; `None` if `kind` asks for no dump.
pub fn take(
    core: impl Read + AsFd,
    process: Dying,
    kind: DumpKind,
    options: &DumpOptions,
    store: &mut Store,
) -> Result<Option<DumpFile>> {
    let format = match kind {
        DumpKind::None | DumpKind::Record => return Ok(None),
        DumpKind::Minidump => Format::Minidump,
        DumpKind::Core => Format::Core,
    };
    let take_max = options.take_max.min(Duration::from_secs(TAKE_SECONDS_MAX));
    let mut stream = Stream::new(core, process.seen + take_max, &options.stopping);
    let mut slot = store.begin(process.pid, process.start_ticks, format)?;
    let (is_full, is_whole_wanted) = match format {
        Format::Minidump => minidump::write(&mut stream, &mut slot, &options.minidump, &extras(process.pid))
            // It stops reading behind the last byte it wants: what is left unread is no loss.
            .map(|summary| (summary.truncated || summary.core_ended_early, false)),
        Format::Core => {
            compress(&mut stream, &mut slot, options.compression_level).map(|is_full| (is_full, true))
        }
    }
    .map_err(|error| explain(error, store))
    .with_context(|| format!("the core of process {} is not kept", process.pid))?;
    if stream.bytes_read() == 0 {
        bail!("process {} sent no core: it was killed while it dumped, or the agent stops", process.pid);
    }
    let is_truncated = is_full || is_whole_wanted && stream.is_short();
    drop(stream);
    slot.finish(is_truncated).map_err(|error| explain(error, store)).map(Some)
}

/// What `/proc` adds while the kernel holds the process: names of threads by their ids in its own PID namespace.
fn extras(pid: u32) -> MinidumpExtras {
    let process = i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok());
    let tasks = process.iter().filter_map(|process| process.tasks().ok()).flatten().flatten();
    let name = |task: procfs::process::Task| {
        let status = task.status().ok()?;
        let own_id = status.nspid.as_ref().and_then(|ids| ids.last().copied()).unwrap_or(status.pid);
        Some((u32::try_from(own_id).ok()?, status.name))
    };
    MinidumpExtras {
        thread_names: tasks.take(THREAD_NAMES_MAX).filter_map(name).collect(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        time_s: (unix_ns() / 1_000_000_000) as u32,
        ..MinidumpExtras::default()
    }
}

/// Compresses the stream; `true` if the file was full before the core's end.
fn compress(stream: &mut Stream<impl Read + AsFd>, slot: &mut Slot, level: i32) -> Result<bool> {
    let bytes_max = slot.file_bytes_max();
    let mut encoder = zstd::Encoder::new(slot, level.clamp(LEVEL_MIN, LEVEL_MAX))?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.include_checksum(true)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let is_full = loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break false;
        }
        std::io::Write::write_all(&mut encoder, &chunk[..count])?;
        if encoder.get_ref().bytes() + COMPRESSOR_BYTES_MAX > bytes_max {
            break true;
        }
    };
    encoder.finish()?;
    Ok(is_full)
}

/// Says what to do about a full disk.
fn explain(error: anyhow::Error, store: &Store) -> anyhow::Error {
    let kind = error.chain().find_map(|cause| Some(cause.downcast_ref::<std::io::Error>()?.kind()));
    let directory = store.directory().display();
    match kind {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => error.context(format!(
            "the disk of {directory} is full; make room there, lower the dumps' bytes_max or move their directory"
        )),
        Some(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
            error.context(format!("{directory} can't be written to; let the agent write there or move the directory"))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::*;

    fn store(directory: &Path, file_bytes_max: u64) -> Store {
        Store::open(StoreLimits {
            directory: directory.to_owned(),
            bytes_max: 64 << 20,
            files_max: 10,
            file_bytes_max,
        })
        .expect("a store")
    }

    /// A core whose last segment ends at `extent`, of which only `sent` bytes come; the rest is noise.
    fn core(directory: &Path, extent: u64, sent: u64) -> File {
        let path = directory.join("core");
        let mut bytes = noise(usize::try_from(sent).expect("small"));
        let header = extent::tests::core(&[(0x1000, 0), (0x1000, extent - 0x1000)]);
        let head = header.len().min(bytes.len());
        bytes[..head].copy_from_slice(&header[..head]);
        std::fs::write(&path, bytes).expect("written");
        File::open(path).expect("opened")
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn check(kind: DumpKind, extent: u64, sent: u64, file_bytes_max: u64, expected: Option<(&str, bool)>) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory.path().join("dumps"), file_bytes_max);
        let core = core(directory.path(), extent, sent);
        let taken = take(core, Dying::now(std::process::id()), kind, &DumpOptions::default(), &mut store);
        let taken = taken.expect("taken");
        let shape = taken.as_ref().map(|file| (file.format.as_str(), file.is_truncated));
        assert_eq!(shape, expected, "{kind:?} {extent} {sent}");
        if let Some(file) = taken {
            assert!(file.bytes <= file_bytes_max);
            let stat = procfs::process::Process::myself().and_then(|process| process.stat()).expect("stat");
            assert_eq!(store.find(std::process::id(), stat.starttime), Some(file.clone()));
            if kind == DumpKind::Core {
                let file = File::open(&file.path).expect("kept");
                let plain = zstd::decode_all(file).expect("a whole frame");
                let source = std::fs::read(directory.path().join("core")).expect("the source");
                assert!(source.starts_with(&plain));
            }
        }
    }

    #[test]
    fn kinds_and_lengths() {
        const MIB: u64 = 1 << 20;
        check(DumpKind::None, 2 * MIB, 2 * MIB, 8 * MIB, None);
        check(DumpKind::Record, 2 * MIB, 2 * MIB, 8 * MIB, None);
        check(DumpKind::Core, 2 * MIB, 2 * MIB, 8 * MIB, Some(("core+zstd", false)));
        check(DumpKind::Core, 2 * MIB, MIB, 8 * MIB, Some(("core+zstd", true)));
        check(DumpKind::Core, 12 * MIB, 12 * MIB, 4 * MIB, Some(("core+zstd", true)));
    }

    #[test]
    fn minidumps_of_whole_and_cut_cores() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(&directory.path().join("dumps"), 8 << 20);
        let whole = elf_core::sample::Sample::default().bytes();
        let mut check = |length: usize, expected: bool| {
            let path = directory.path().join("core");
            std::fs::write(&path, &whole[..length]).expect("written");
            let core = File::open(path).expect("opened");
            let process = Dying::now(std::process::id());
            let taken = take(core, process, DumpKind::Minidump, &DumpOptions::default(), &mut store);
            let file = taken.expect("taken").expect("kept");
            assert_eq!((file.format.as_str(), file.is_truncated), ("minidump", expected), "{length}");
        };
        check(whole.len(), false);
        check(whole.len() - 0x1800, true);
    }

    #[test]
    fn a_writer_that_stalls_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 8 << 20);
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        theirs.write_all(&[7; 100]).expect("sent");
        let options = DumpOptions { take_max: Duration::from_millis(200), ..DumpOptions::default() };
        let start = Instant::now();
        let file =
            take(ours, Dying::now(1), DumpKind::Core, &options, &mut store).expect("taken").expect("a file");
        assert!(file.is_truncated && start.elapsed() < Duration::from_secs(2));
        assert!(theirs.write_all(&[7; 100]).is_err(), "the stream is closed");
    }

    #[test]
    fn an_empty_core_leaves_no_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = store(directory.path(), 8 << 20);
        let empty = File::open("/dev/null").expect("opened");
        let outcome = take(empty, Dying::now(1), DumpKind::Core, &DumpOptions::default(), &mut store);
        assert!(outcome.is_err_and(|error| error.to_string().contains("sent no core")));
        let left = std::fs::read_dir(directory.path()).expect("listed").flatten();
        assert_eq!(left.filter(|entry| entry.file_name() != "lock").count(), 0);
    }

    #[test]
    fn sparse_file_as_core_compresses() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("core");
        let file = File::create_new(&path).expect("created");
        let header = extent::tests::core(&[(0x1000, (32 << 20) - 0x1000)]);
        file.write_all_at(&header, 0).expect("written");
        file.set_len(32 << 20).expect("sized");
        let mut store = store(&directory.path().join("dumps"), 2 << 20);
        let core = File::open(&path).expect("opened");
        let taken = take(core, Dying::now(1), DumpKind::Core, &DumpOptions::default(), &mut store);
        let taken = taken.expect("taken").expect("a file");
        assert!(!taken.is_truncated && taken.bytes < 100_000, "{taken:?}");
    }
}
