//! An HTTP service in Python: threads, and an answer of some kilobytes that is put together for each request.
//!
//! Refuses: a framework, which not every machine has.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};

use super::super::io::server::{self, Server};
use super::super::setup::Bench;
use super::super::tools::find;

const SOURCE: &str = include_str!("service.py");

/// The running service.
pub struct Service {
    address: SocketAddr,
    _server: Server,
}

impl Service {
    pub fn start(bench: &Bench) -> Result<Self> {
        let python = find("python3").context("no python3 (apt-get install python3)")?;
        let directory = server::directory()?;
        let address = server::free_address()?;
        let source = directory.path().join("service.py");
        fs::write(&source, SOURCE).context("write the service")?;
        let mut command = server::command(python.as_os_str(), None);
        command.arg(&source).arg(address.port().to_string());
        let is_ready = || TcpStream::connect(address).is_ok();
        Ok(Self { address, _server: Server::start(bench, "the service", &mut command, directory, is_ready)? })
    }

    /// Where it listens, for a GET of anything.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
