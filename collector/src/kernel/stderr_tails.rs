//! Fetches the last bytes that a dead process wrote to standard error from the kernel's map.
//!
//! Refuses: bytes of another process that has the id now; the start tells them apart.

use anyhow::Result;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use collector_common::crash::StderrTail;
use collector_common::limits::{STDERR_PROCESSES_MAX, place_of};

use super::map::{Plain, take_map};

/// Last words are written within this time before the end.
const LAST_WORDS_NS: u64 = 5_000_000_000;

/// The kernel's map.
pub struct StderrTails {
    map: Array<MapData, Plain<StderrTail>>,
    is_kept: bool,
    missed_ns: Option<u64>,
}

/// What a process wrote last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The last bytes, in the order of writing.
    pub bytes: Vec<u8>,
    /// Bytes that were written in all.
    pub written_bytes: u64,
}

impl StderrTails {
    /// Takes the map out of the object. `is_kept` is whether anything is written there.
    ///
    /// # Errors
    ///
    /// If it is not there or of another type: the object and the daemon do not belong together.
    pub fn take(ebpf: &mut Ebpf, is_kept: bool) -> Result<Self> {
        Ok(Self { map: Array::try_from(take_map(ebpf, "STDERR")?)?, is_kept, missed_ns: None })
    }

    /// Nobody saw what was written until then, `CLOCK_MONOTONIC`.
    pub fn missed_until(&mut self, now_ns: u64) {
        self.missed_ns = Some(now_ns);
    }

    /// Whether last words before that moment may have been missed that would have been kept.
    pub fn may_have_missed(&self, time_ns: u64) -> bool {
        self.is_kept
            && self.missed_ns.is_some_and(|missed_ns| time_ns.saturating_sub(missed_ns) < LAST_WORDS_NS)
    }

    /// A process's last bytes; `None` if it wrote nothing, or another process took its place.
    pub fn of(&self, tgid: u32, start_ns: u64) -> Option<Tail> {
        let Plain(tail) = self.map.get(&place_of(tgid, STDERR_PROCESSES_MAX), 0).ok()?;
        if tail.tgid != tgid || tail.start_ns != start_ns || tail.total_bytes == 0 {
            return None;
        }
        let (old, new) = tail.parts();
        Some(Tail { bytes: [old, new].concat(), written_bytes: tail.total_bytes })
    }
}
