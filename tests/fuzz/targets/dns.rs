//! DNS, over TCP or, if the first byte is odd, over UDP.

#![no_main]

use fuzz::connection::run;
use fuzz::flow::protocol::{Protocol, Transport};
use fuzz::pieces::Pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut pieces = Pieces::new(input);
    let transport = if pieces.byte() & 1 == 1 { Transport::Udp } else { Transport::Tcp };
    run(Protocol::Dns, transport, pieces);
});
