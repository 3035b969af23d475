//! PostgreSQL over TCP.

#![no_main]

use fuzz::connection::run;
use fuzz::flow::protocol::{Protocol, Transport};
use fuzz::pieces::Pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| run(Protocol::Postgres, Transport::Tcp, Pieces::new(input)));
