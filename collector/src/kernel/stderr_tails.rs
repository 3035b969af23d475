//! Fetches the last bytes that a dead process wrote to standard error from the kernel's map.
//!
//! Refuses: bytes of another process that has the id now; the start tells them apart.

use anyhow::Result;
use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use collector_common::crash::StderrTail;

/// The map's value. A type of our own, because a foreign trait cannot be given to a foreign type.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(StderrTail);

// SAFETY: the record is plain data without padding (zerocopy checks it), valid for any bytes.
unsafe impl Pod for Value {}

/// The kernel's map.
pub struct StderrTails {
    map: HashMap<MapData, u32, Value>,
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
        Ok(Self { map: HashMap::try_from(map)? })
    }

    /// Takes a process's last bytes out of the map; `None` if it wrote nothing, or not lately.
    pub fn take(&mut self, tgid: u32, start_ns: u64) -> Option<Tail> {
        let Value(tail) = self.map.get(&tgid, 0).ok()?;
        if tail.start_ns != start_ns || tail.written_bytes == 0 {
            return None;
        }
        // A failure leaves it to the map, which forgets the least recent.
        let _gone_already = self.map.remove(&tgid);
        let (old, new) = tail.parts();
        Some(Tail { bytes: [old, new].concat(), written_bytes: tail.written_bytes })
    }
}
