//! Reads what the kernel side knows of connections that go on.
//!
//! Refuses: whose they are.

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, Pod};
use collector_common::flow::ConnectionState;

/// The maps' value. A type of our own, because a foreign trait cannot be given to a foreign type.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain(ConnectionState);

// SAFETY: it is plain data without padding (zerocopy checks it), valid for any bytes.
unsafe impl Pod for Plain {}

/// The kernel's maps.
pub struct FlowMaps {
    streams: HashMap<MapData, u64, Plain>,
    datagrams: Array<MapData, Plain>,
}

impl FlowMaps {
    /// Takes the maps out of the object.
    ///
    /// # Errors
    ///
    /// If they are not there or of other types: the object and the daemon do not belong together.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("the eBPF object has no map {name}: rebuild it (cargo xtask ebpf)"))
        };
        Ok(Self {
            streams: HashMap::try_from(map("CONNECTIONS")?)?,
            datagrams: Array::try_from(map("DATAGRAM_SOCKETS")?)?,
        })
    }

    /// Bytes sent and received over a connection until now; `None` if another one is there, or none.
    pub fn moved(&self, key: u64, number: u64, is_datagram: bool) -> Option<[u64; 2]> {
        let state = if is_datagram {
            self.datagrams.get(&u32::try_from(key).ok()?, 0).ok()?
        } else {
            self.streams.get(&key, 0).ok()?
        };
        (state.0.number == number).then_some(state.0.moved)
    }
}
