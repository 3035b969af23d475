//! Redis without persistence, and redis-benchmark that asks for one key, one request at a time on each connection.
//!
//! Refuses: the machine's configuration and data.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::setup::Bench;
use super::super::tools::{find, stdout_of};
use super::server::{self, Server};

/// Connections of redis-benchmark: its default.
pub const CONNECTIONS: usize = 50;

/// It ends by a number, not by a time: about this many a second.
const REQUESTS_PER_S: f64 = 100_000.0;

/// A running Redis.
pub struct Redis {
    address: SocketAddr,
    _server: Server,
}

impl Redis {
    pub fn start(bench: &Bench) -> Result<Self> {
        for program in ["redis-server", "redis-benchmark"] {
            find(program).with_context(|| format!("no {program} (apt-get install redis)"))?;
        }
        let directory = server::directory()?;
        let address = server::free_address()?;
        let mut command = server::command("redis-server".as_ref(), None);
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]).current_dir(directory.path());
        let is_ready = || TcpStream::connect(address).is_ok();
        let server = Server::start(bench, "redis-server", &mut command, directory, is_ready)?;
        Ok(Self { address, _server: server })
    }

    /// Asks for about so long; returns requests per second.
    pub fn run(&self, duration: Duration) -> Result<f64> {
        let mut benchmark = Command::new("redis-benchmark");
        let requests = (REQUESTS_PER_S * duration.as_secs_f64()) as u64;
        benchmark.args(["-p", &self.address.port().to_string(), "-c", &CONNECTIONS.to_string()]);
        benchmark.args(["-P", "1", "-t", "get", "-n", &requests.to_string(), "--csv"]);
        parse_speed(&stdout_of(&mut benchmark)?)
    }
}

/// The second column of the line about GET.
fn parse_speed(said: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("\"GET\","));
    let speed = line.and_then(|line| line.split(',').next()?.trim_matches('"').parse::<f64>().ok());
    speed.filter(|speed| *speed > 0.0).with_context(|| format!("redis-benchmark said {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_benchmark_says() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\"\n\"GET\",\"93457.94\",\"0.281\"\n";
        assert_eq!(parse_speed(said).ok(), Some(93457.94));
        assert!(parse_speed("\"GET\",\"0.00\",\"0\"\n").is_err());
        assert!(parse_speed("Could not connect to Redis\n").is_err());
    }
}
