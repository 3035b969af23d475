//! A real dnsmasq with a few records, which logs each question.
//!
//! Refuses: to ask anybody else; what it does not know does not exist.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::{Daemon, Launch};
use crate::tools;

/// A name with both kinds of addresses.
pub const NAME: &str = "shelf.kansoku.test";
/// Its addresses.
pub const ADDRESSES: [&str; 2] = ["10.20.30.40", "fd00::1234"];

/// A running dnsmasq.
pub struct Dnsmasq {
    address: SocketAddr,
    daemon: Daemon,
    directory: TempDir,
}

impl Dnsmasq {
    /// Starts it at an address and waits until it answers there.
    pub fn start(address: SocketAddr) -> Self {
        let program = tools::require("dnsmasq", "dnsmasq-base");
        tools::require("dig", "bind9-dnsutils");
        let directory = TempDir::new().expect("a temporary directory");
        let resolver = format!("nameserver {}\n", address.ip());
        tools::write_file(&directory.path().join("resolv.conf"), resolver.as_bytes());
        let log = directory.path().join("log");
        let launch = Launch::plain(&log);
        let (host, port) =
            (format!("--listen-address={}", address.ip()), format!("--port={}", address.port()));
        let record = format!("--host-record={NAME},{}", ADDRESSES.join(","));
        let arguments = [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--log-facility=-",
            "--log-queries",
            "--user=root",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
            "--local=/test/",
            &host,
            &port,
            &record,
        ];
        let mut daemon = Daemon::start(&program, &arguments, launch);
        let is_answered = || dig(address, &["ready.test", "A"]).contains("status: NXDOMAIN");
        daemon.wait_until("dnsmasq", is_answered);
        Self { address, daemon, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A `resolv.conf` that leads here; the resolver of libc knows port 53 alone.
    pub fn resolver_file(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// Questions that it was asked until now, as `A name`.
    pub fn questions(&self) -> Vec<String> {
        let log = self.daemon.log();
        let of_line = |line: &str| {
            let (_, rest) = line.split_once(": query[")?;
            let (kind, rest) = rest.split_once("] ")?;
            Some(format!("{kind} {}", rest.split(' ').next()?))
        };
        log.lines().filter_map(of_line).collect()
    }
}

/// Asks with dig, once, and returns what it says.
pub fn dig(address: SocketAddr, words: &[&str]) -> String {
    let mut command = Command::new("dig");
    let (port, server) = (address.port().to_string(), format!("@{}", address.ip()));
    command.args(["+tries=1", "+time=5", "-p", &port, &server]).args(words);
    String::from_utf8_lossy(&command.output().expect("dig starts").stdout).into_owned()
}
