//! Reads what the kernel side knows of connections that go on.
//!
//! Refuses: whose they are.

use anyhow::Result;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use collector_common::flow::ConnectionState;

use super::map::{Plain, take_map};

/// The kernel's maps.
pub struct FlowMaps {
    streams: HashMap<MapData, u64, Plain<ConnectionState>>,
    datagrams: Array<MapData, Plain<ConnectionState>>,
}

impl FlowMaps {
    /// Takes the maps out of the object.
    ///
    /// # Errors
    ///
    /// If they are not there or of other types: the object and the daemon do not belong together.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            streams: HashMap::try_from(take_map(ebpf, "CONNECTIONS")?)?,
            datagrams: Array::try_from(take_map(ebpf, "DATAGRAM_SOCKETS")?)?,
        })
    }

    /// What the kernel side knows of a connection now; `None` if another one is there, or none.
    pub fn state(&self, key: u64, number: u64, is_datagram: bool) -> Option<ConnectionState> {
        let state = if is_datagram {
            self.datagrams.get(&u32::try_from(key).ok()?, 0).ok()?
        } else {
            self.streams.get(&key, 0).ok()?
        };
        (state.0.number == number).then_some(state.0)
    }
}
