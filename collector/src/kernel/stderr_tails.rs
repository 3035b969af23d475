//! Fetches the last bytes that a dead process wrote to standard error from the kernel's map.
//!
//! Refuses: bytes of another process that has the id now; the start tells them apart.

use anyhow::Result;
use aya::Pod;
use aya::maps::{Array, Map, MapData};
use collector_common::crash::StderrTail;
use collector_common::limits::{STDERR_PROCESSES_MAX, place_of};

/// Last words are written within this time before the end.
const LAST_WORDS_NS: u64 = 5_000_000_000;

/// The map's value. A type of our own, because a foreign trait cannot be given to a foreign type.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(StderrTail);

// SAFETY: the record is plain data without padding (zerocopy checks it), valid for any bytes.
unsafe impl Pod for Value {}

/// The kernel's map.
pub struct StderrTails {
    map: Array<MapData, Value>,
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
    /// Takes the map.
    ///
    /// # Errors
    ///
    /// If the object's map is of another type: the object and the daemon do not belong together.
    pub fn new(map: Map) -> Result<Self> {
        Ok(Self { map: Array::try_from(map)?, missed_ns: None })
    }

    /// Nobody saw what was written until then, `CLOCK_MONOTONIC`.
    pub fn missed_until(&mut self, now_ns: u64) {
        self.missed_ns = Some(now_ns);
    }

    /// Whether last words before that moment may have been missed.
    pub fn may_have_missed(&self, time_ns: u64) -> bool {
        self.missed_ns.is_some_and(|missed_ns| time_ns.saturating_sub(missed_ns) < LAST_WORDS_NS)
    }

    /// A process's last bytes; `None` if it wrote nothing, or another process took its place.
    pub fn of(&self, tgid: u32, start_ns: u64) -> Option<Tail> {
        let Value(tail) = self.map.get(&place_of(tgid, STDERR_PROCESSES_MAX), 0).ok()?;
        if tail.tgid != tgid || tail.start_ns != start_ns || tail.total_bytes == 0 {
            return None;
        }
        let (old, new) = tail.parts();
        Some(Tail { bytes: [old, new].concat(), written_bytes: tail.total_bytes })
    }
}
