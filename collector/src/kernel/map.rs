//! Maps of the object: taken by their names, with values that both sides lay out alike.
//!
//! Refuses: what is in them; each has a module of its own.

use anyhow::{Context, Result};
use aya::maps::Map;
use aya::{Ebpf, Pod};
use collector_common::crash::StderrTail;
use collector_common::flow::{ConnectionState, StreamPlace};
use collector_common::io::{Distribution, FileCounts, FileKey, Key, Watch};

/// A key or value. A type of our own, because a foreign trait cannot be given to a foreign type.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: these are plain data without padding (zerocopy checks it), valid for any bytes.
unsafe impl Pod for Plain<Key> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Distribution> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FileKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<FileCounts> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Watch> {}
// SAFETY: as above.
unsafe impl Pod for Plain<ConnectionState> {}
// SAFETY: as above.
unsafe impl Pod for Plain<StreamPlace> {}
// SAFETY: as above.
unsafe impl Pod for Plain<StderrTail> {}

/// Takes a map out of the object.
///
/// # Errors
///
/// If it has no such map: it and the daemon do not belong together.
pub fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the eBPF object has no map {name}: rebuild it (cargo xtask ebpf)"))
}
