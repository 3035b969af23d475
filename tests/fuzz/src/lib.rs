//! What the fuzz targets share: the parsers as they are in the daemon, and a connection that drives one with any bytes.
//!
//! Refuses: the crate of the daemon, of which only these files are needed and which takes minutes to build.

pub mod connection;
pub mod memory;
pub mod pieces;

/// The folder of that name in the daemon. Its parsers name themselves `crate::flow::protocol`.
#[path = "../../../collector/src/flow"]
pub mod flow {
    pub mod protocol;
}
