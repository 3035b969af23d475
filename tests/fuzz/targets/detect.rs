//! Any protocol: what the first bytes are taken for decides which parser gets the rest.

#![no_main]

use fuzz::connection::run_detected;
use fuzz::pieces::Pieces;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| run_detected(Pieces::new(input)));
