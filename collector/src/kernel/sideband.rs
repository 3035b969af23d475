//! Executable mappings as they are made, from the perf side-band (`PERF_RECORD_MMAP2`), with build ids where the
//! kernel gives them (5.12), so that a process that lives for milliseconds can still be symbolized.
//!
//! Refuses: data mappings, and silence about lost records (`PERF_RECORD_LOST` is counted).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use perf_event::data::Record as PerfRecord;
use perf_event::events::Software;
use perf_event::{Builder, Clock, SampleFlag, Sampler};

use super::hook::Hook;
use super::inbox::Inbox;
use super::sampler::is_offline;
use crate::loss::{Ledger, LossReason, Signal};

/// All rings of the side-band together, where the minimum per CPU allows it.
const RINGS_BYTES_MAX: usize = 8 * 1024 * 1024;
const RING_BYTES_MIN: usize = 32 * 1024;
const RING_BYTES_MAX: usize = 128 * 1024;

/// Records taken from one CPU's ring in one turn; the rest waits in the ring.
const RECORDS_PER_TURN_MAX: usize = 8_192;

/// `PERF_RECORD_MISC_COMM_EXEC` of `include/uapi/linux/perf_event.h`.
const MISC_COMM_EXEC: u16 = 1 << 13;

/// What the side-band tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SidebandEvent {
    /// A process maps code.
    Mapping(MappingEvent),
    /// A process dropped its old image in `execve`. It comes before the mappings of the new image, which the
    /// `sched_process_exec` tracepoint does not.
    NewImage {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        time_ns: u64,
        /// Process id in the initial PID namespace.
        tgid: u32,
    },
}

impl SidebandEvent {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Mapping(mapping) => mapping.time_ns,
            Self::NewImage { time_ns, .. } => *time_ns,
        }
    }
}

/// A mapping of code that a process made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingEvent {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// First address.
    pub start: u64,
    /// Length, bytes.
    pub length: u64,
    /// Where in the file the mapping starts, bytes.
    pub file_offset: u64,
    /// Path as the process sees it, or a label such as `[vdso]` or `//anon`.
    pub path: String,
    /// What identifies the file.
    pub file: FileId,
}

/// What identifies a mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileId {
    /// The GNU build id, zero-padded to 20 bytes.
    BuildId([u8; 20]),
    /// Device and inode of a file whose build id is not known.
    Inode {
        /// Major device number.
        major: u32,
        /// Minor device number.
        minor: u32,
        /// Inode number.
        inode: u64,
    },
}

/// Bytes of each CPU's side-band ring on a machine with so many CPUs.
pub fn sideband_ring_bytes(cpus: usize) -> usize {
    let share = (RINGS_BYTES_MAX / cpus.max(1)).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
    1 << share.ilog2()
}

/// The rings of all CPUs.
pub struct Sideband {
    rings: Vec<(u32, Sampler)>,
    ring_bytes: usize,
    with_build_ids: bool,
}

impl Sideband {
    /// Opens a ring on each CPU; `None` if the kernel refuses, which the hook explains.
    pub fn open(cpus: &[u32], hook: &mut Hook) -> Option<Self> {
        let ring_bytes = sideband_ring_bytes(cpus.len());
        let open_all = |with_build_ids: bool| {
            cpus.iter()
                .map(|&cpu| open_ring(cpu, ring_bytes, with_build_ids).map(|ring| (cpu, ring)))
                .filter(|ring| !ring.as_ref().is_err_and(is_offline))
                .collect::<Result<Vec<_>, _>>()
                .map(|rings| Self { rings, ring_bytes, with_build_ids })
        };
        hook.attempt("perf mmap2 side-band with build ids", || open_all(true))
            .or_else(|| hook.attempt("perf mmap2 side-band", || open_all(false)))
    }

    /// Follows the CPUs that are online now.
    pub fn set_cpus(&mut self, cpus: &[u32]) {
        self.rings.retain(|(cpu, _)| cpus.contains(cpu));
        for &cpu in cpus {
            if self.rings.iter().all(|&(known, _)| known != cpu)
                && let Ok(ring) = open_ring(cpu, self.ring_bytes, self.with_build_ids)
            {
                self.rings.push((cpu, ring));
            }
        }
    }

    /// Moves what arrived to the inbox.
    pub fn drain(&mut self, inbox: &mut Inbox, ledger: &Ledger) {
        for (_, ring) in &mut self.rings {
            for _ in 0..RECORDS_PER_TURN_MAX {
                let Some(record) = ring.next_record() else { break };
                take(&record, inbox, ledger);
            }
        }
    }
}

fn open_ring(cpu: u32, ring_bytes: usize, with_build_ids: bool) -> std::io::Result<Sampler> {
    let mut ring = Builder::new(Software::DUMMY)
        .any_pid()
        .one_cpu(cpu as usize)
        .include_kernel()
        .include_hv()
        .mmap(true)
        .mmap2(true)
        .comm(true)
        .comm_exec(true)
        .build_id(with_build_ids)
        .sample(SampleFlag::TID)
        .sample(SampleFlag::TIME)
        .sample_id_all(true)
        .clockid(Clock::MONOTONIC)
        .build()?
        .sampled(ring_bytes)?;
    ring.enable()?;
    Ok(ring)
}

fn take(record: &perf_event::Record<'_>, inbox: &mut Inbox, ledger: &Ledger) {
    let time_ns = sample_time_ns(&record.to_contiguous());
    match (record.parse_record(), time_ns) {
        (Ok(PerfRecord::Mmap2(mapping)), Some(time_ns)) => {
            ledger.seen(Signal::Mapping, 1);
            inbox.push_sideband(SidebandEvent::Mapping(mapping_event(&mapping, time_ns)), ledger);
        }
        (Ok(PerfRecord::Comm(comm)), Some(time_ns)) if record.misc() & MISC_COMM_EXEC != 0 => {
            ledger.seen(Signal::Mapping, 1);
            inbox.push_sideband(SidebandEvent::NewImage { time_ns, tgid: comm.pid }, ledger);
        }
        (Ok(PerfRecord::Lost(lost)), _) => {
            ledger.seen(Signal::Mapping, lost.lost);
            ledger.lost(Signal::Mapping, LossReason::SidebandLost, lost.lost);
        }
        (Ok(_), Some(_)) => {}
        (Err(_), _) | (_, None) => {
            ledger.seen(Signal::Mapping, 1);
            ledger.lost(Signal::Mapping, LossReason::Malformed, 1);
        }
    }
}

/// With `sample_id_all` and `TID | TIME` every record ends in (pid, tid, time): perf_event_open(2).
fn sample_time_ns(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk::<8>().map(|time| u64::from_ne_bytes(*time))
}

fn mapping_event(mapping: &perf_event::data::Mmap2<'_>, time_ns: u64) -> MappingEvent {
    let file = match mapping.build_id() {
        Some(id) => {
            let mut build_id = [0; 20];
            build_id[..id.len()].copy_from_slice(id);
            FileId::BuildId(build_id)
        }
        None => FileId::Inode {
            major: mapping.maj().unwrap_or(0),
            minor: mapping.min().unwrap_or(0),
            inode: mapping.ino().unwrap_or(0),
        },
    };
    let path: &OsStr = mapping.filename_os();
    let path = path.as_bytes().split(|&byte| byte == 0).next().unwrap_or_default();
    MappingEvent {
        time_ns,
        tgid: mapping.pid,
        start: mapping.addr,
        length: mapping.len,
        file_offset: mapping.pgoff,
        path: String::from_utf8_lossy(path).into_owned(),
        file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cpus: usize, expected_bytes: usize) {
        assert_eq!(sideband_ring_bytes(cpus), expected_bytes, "{cpus} CPUs");
    }

    #[test]
    fn ring_bytes_by_cpus() {
        check(0, 128 * 1024);
        check(2, 128 * 1024);
        check(64, 128 * 1024);
        check(96, 64 * 1024);
        check(256, 32 * 1024);
        check(4096, 32 * 1024);
    }
}
