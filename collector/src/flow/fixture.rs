//! A connection's first record, for the tests of this signal.

use collector_common::event::{Head, Task};
use collector_common::flow::{Ends, OpenRecord, Role};

/// `IPPROTO_TCP`
const TCP: u16 = 6;

/// A TCP connection from `127.127.127.127` to itself over these ports, the own one first.
pub fn opened(connection: u64, ports: [u16; 2], role: Role) -> OpenRecord {
    OpenRecord {
        head: Head { kind: 0, record_bytes: 0, time_ns: 1 },
        task: Task { tgid: 1, tid: 1, start_ns: 0, cgroup_id: 0, comm: [0; 16] },
        connection,
        ends: Ends { addresses: [[127; 16]; 2], ports, family: 2, protocol: TCP },
        role: role as u32,
        padding: 0,
        sequence: 0,
        key: 0,
    }
}
