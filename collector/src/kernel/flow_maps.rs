//! Reads what the kernel side knows of connections that go on.
//!
//! Refuses: whose they are.

use anyhow::Result;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use collector_common::flow::{ConnectionState, StreamPlace};
use collector_common::limits::{STREAM_PLACES_MAX, place_of_address};

use super::map::{Plain, take_map};

/// The kernel's maps.
pub struct FlowMaps {
    places: Array<MapData, Plain<StreamPlace>>,
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
            places: Array::try_from(take_map(ebpf, "STREAM_PLACES")?)?,
            streams: HashMap::try_from(take_map(ebpf, "CONNECTIONS")?)?,
            datagrams: Array::try_from(take_map(ebpf, "DATAGRAM_SOCKETS")?)?,
        })
    }

    /// What the kernel side knows of a connection now; `None` if another one is there, or none.
    pub fn state(&self, key: u64, number: u64, is_datagram: bool) -> Option<ConnectionState> {
        if is_datagram {
            let state = self.datagrams.get(&u32::try_from(key).ok()?, 0).ok()?.0;
            return (state.number == number).then_some(state);
        }
        // A place that was given up keeps everything but the address.
        let is_it = |state: &ConnectionState| state.sock == key && state.number == number;
        let place = place_of_address(key, STREAM_PLACES_MAX);
        let at_place = self.places.get(&place, 0).ok().map(|place| place.0.connection);
        at_place.filter(is_it).or_else(|| self.streams.get(&key, 0).ok().map(|state| state.0).filter(is_it))
    }
}
