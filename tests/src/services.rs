//! Services that call each other: a script of the workloads for each, on a port of its own.
//!
//! Refuses: to know what they say; the scripts do.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;

use crate::daemon::{Daemon, Launch};
use crate::receiver::free_address;
use crate::tools;
use crate::workload::{Program, utf8};

/// A running service.
pub struct Service {
    address: SocketAddr,
    daemon: Daemon,
    _directory: TempDir,
}

impl Service {
    /// Starts a script of the workloads; these ports are its further arguments.
    pub fn script(interpreter: &str, script: &str, ports: &[u16]) -> Self {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        Self::script_with(interpreter, script, &ports)
    }

    /// Starts a script of the workloads with these arguments behind its port.
    pub fn script_with(interpreter: &str, script: &str, more: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads").join(script);
        let address = free_address();
        let (path, port) = (path.display().to_string(), address.port().to_string());
        let arguments = [&[&*path, &*port], more].concat();
        Self::start(interpreter, interpreter, address, &arguments)
    }

    /// Starts a compiled program; these ports are its further arguments.
    pub fn program(program: &Program, ports: &[u16]) -> Self {
        Self::binary(program.path(), ports)
    }

    /// Starts a program that is there; these ports are its further arguments.
    pub fn binary(path: &Path, ports: &[u16]) -> Self {
        let address = free_address();
        let mut arguments = vec![address.port().to_string()];
        arguments.extend(ports.iter().map(ToString::to_string));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start_at(path, address, &arguments)
    }

    /// Starts a Redis that keeps nothing.
    pub fn redis() -> Self {
        let address = free_address();
        let port = address.port().to_string();
        Self::start("redis-server", "redis-server", address, &["--port", &port, "--save", ""])
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn start(program: &str, package: &str, address: SocketAddr, arguments: &[&str]) -> Self {
        Self::start_at(&tools::require(program, package), address, arguments)
    }

    fn start_at(program: &Path, address: SocketAddr, arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let launch = Launch::plain(&log);
        let mut daemon = Daemon::start(program, arguments, launch);
        daemon.wait_until(utf8(program), || TcpStream::connect(address).is_ok());
        Self { address, daemon, _directory: directory }
    }
}
