//! nginx with one worker and one small file, and `wrk` that asks for it as fast as it comes.
//!
//! Refuses: the machine's configuration, and answers that are no success.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::super::setup::Bench;
use super::super::tools::{find, stdout_of};
use super::server::{self, Server};

/// Connections of `wrk`, which has one thread.
pub const CONNECTIONS: usize = 32;

pub const FILE_BYTES: usize = 1024;

/// A running nginx.
pub struct Nginx {
    address: SocketAddr,
    _server: Server,
}

impl Nginx {
    pub fn start(bench: &Bench) -> Result<Self> {
        for program in ["nginx", "wrk"] {
            find(program).with_context(|| format!("no {program} (apt-get install {program})"))?;
        }
        let directory = server::directory()?;
        let address = server::free_address()?;
        let root = directory.path().to_str().context("the temporary directory is not UTF-8")?;
        let configuration = directory.path().join("nginx.conf");
        fs::write(&configuration, configuration_of(root, address)).context("write nginx.conf")?;
        fs::write(directory.path().join("file"), vec![b'x'; FILE_BYTES])
            .context("write what nginx serves")?;
        let mut command = server::command("nginx".as_ref(), None);
        command.args(["-p", root, "-e", "stderr", "-c"]).arg(&configuration);
        let is_ready = || TcpStream::connect(address).is_ok();
        let server = Server::start(bench, "nginx", &mut command, directory, is_ready)?;
        Ok(Self { address, _server: server })
    }

    /// Where it listens, for a GET of `/file`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for the file for so long, in whole seconds; returns requests per second.
    pub fn run(&self, duration: Duration) -> Result<f64> {
        parse_speed(&self.wrk(duration)?)
    }

    /// Likewise; returns the time that 99 of 100 requests did not exceed, microseconds.
    pub fn run_for_p99_us(&self, duration: Duration) -> Result<f64> {
        parse_p99_us(&self.wrk(duration)?)
    }

    fn wrk(&self, duration: Duration) -> Result<String> {
        let mut wrk = Command::new("wrk");
        wrk.arg("--latency");
        wrk.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
        wrk.args([
            format!("--duration={}s", duration.as_secs().max(1)),
            format!("http://{}/file", self.address),
        ]);
        stdout_of(&mut wrk)
    }
}

/// What follows a key in what `wrk` says at its end.
fn after<'a>(said: &'a str, key: &str) -> Option<&'a str> {
    said.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim)
}

fn parse_speed(said: &str) -> Result<f64> {
    for errors in ["Socket errors:", "Non-2xx or 3xx responses:"] {
        if let Some(counts) = after(said, errors) {
            bail!("wrk: {errors} {counts}");
        }
    }
    let speed = after(said, "Requests/sec:").and_then(|speed| speed.parse::<f64>().ok());
    let speed = speed.filter(|speed| *speed > 0.0);
    speed.with_context(|| format!("wrk said {said:?}"))
}

/// Such as `812.00us` or `1.25ms`.
fn parse_p99_us(said: &str) -> Result<f64> {
    parse_speed(said)?;
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let time = after(said, "99%").and_then(|time| {
        units.iter().find_map(|(unit, us)| Some(time.strip_suffix(unit)?.parse::<f64>().ok()? * us))
    });
    time.with_context(|| format!("wrk said {said:?}"))
}

/// The worker is root, because the directory is root's alone.
fn configuration_of(root: &str, address: SocketAddr) -> String {
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {root}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n\
         client_body_temp_path {root}/body;\n  proxy_temp_path {root}/proxy;\n  fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi;\n  scgi_temp_path {root}/scgi;\n\
         server {{ listen {address}; root {root}; }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: &str, expected: Option<f64>) {
        assert_eq!(parse_speed(said).ok(), expected, "{said}");
    }

    #[test]
    fn the_latency_that_wrk_says() {
        for (time, expected) in
            [("812.00us", Some(812.0)), ("1.25ms", Some(1250.0)), ("2.00s", Some(2e6)), ("x", None)]
        {
            let said = format!(
                "  Latency Distribution\n     50%  300.00us\n     99%    {time}\nRequests/sec: 1.0\n"
            );
            assert_eq!(parse_p99_us(&said).ok(), expected, "{time}");
        }
    }

    #[test]
    fn what_wrk_says() {
        check(
            "  4711 requests in 3.01s, 5.60MB read\nRequests/sec:   1565.12\nTransfer/sec: 1MB\n",
            Some(1565.12),
        );
        check("  Socket errors: connect 1, read 2, write 0, timeout 3\nRequests/sec: 10.0\n", None);
        check("  Non-2xx or 3xx responses: 2\nRequests/sec: 10.0\n", None);
        check("Requests/sec: 0.00\n", None);
        check("unable to connect\n", None);
    }
}
