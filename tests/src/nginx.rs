//! A real nginx, with workers of a known number and one static file, and `wrk` to ask for it.
//!
//! Refuses: the machine's configuration. What it writes goes to a directory of its own.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::cgroup::{Cgroup, entering};
use crate::daemon::{Daemon, Launch};
use crate::http;
use crate::receiver::free_address;
use crate::strace::Calls;
use crate::tools;
use crate::workload::utf8;

/// A running nginx.
pub struct Nginx {
    address: SocketAddr,
    daemon: Daemon,
    _directory: TempDir,
}

/// What nginx counted in all (`stub_status`), the requests for these numbers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Requests.
    pub requests: u64,
}

/// What `wrk` says at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests that were answered.
    pub requests: u64,
    /// Seconds it ran, rounded to hundredths.
    pub seconds: f64,
    /// Answers that were no success.
    pub bad_answers: u64,
    /// Errors of connecting, reading and writing, and answers that took too long.
    pub socket_errors: u64,
}

impl Nginx {
    /// Serves a file of this many bytes as `/file`, in these cgroups.
    pub fn start(workers: u32, file_bytes: usize, cgroups: &[&Cgroup]) -> Self {
        Self::launch(workers, file_bytes, cgroups, false)
    }

    /// Likewise, followed by strace from first to last.
    pub fn start_traced(workers: u32, file_bytes: usize, cgroups: &[&Cgroup]) -> Self {
        Self::launch(workers, file_bytes, cgroups, true)
    }

    fn launch(workers: u32, file_bytes: usize, cgroups: &[&Cgroup], is_traced: bool) -> Self {
        let program = tools::require("nginx", "nginx");
        let directory = TempDir::new().expect("a temporary directory");
        let address = free_address();
        let root = utf8(directory.path());
        tools::write_file(&directory.path().join("file"), &vec![b'x'; file_bytes]);
        tools::write_file(&directory.path().join("nginx.conf"), config(root, address, workers).as_bytes());
        let log = directory.path().join("log");
        let launch = Launch { cgroups, is_traced, ..Launch::plain(&log) };
        let config = format!("{root}/nginx.conf");
        let mut daemon = Daemon::start(&program, &["-p", root, "-e", "stderr", "-c", &config], launch);
        daemon.wait_until("nginx", || {
            http::get(address, "/file", &[]).is_ok_and(|answer| answer.body.len() == file_bytes)
        });
        Self { address, daemon, _directory: directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; returns what all its processes did, if it was traced.
    pub fn calls(self) -> Calls {
        self.daemon.calls()
    }

    /// The process id of the master.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// What it counted until now.
    pub fn served(&self) -> Served {
        let answer = http::get(self.address, "/status", &[]).expect("nginx answers").expect_success();
        // The third line: ` accepts handled requests`, as numbers.
        let text = answer.text();
        let numbers: Vec<u64> =
            text.lines().nth(2).unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
        let [accepted, _handled, requests] = numbers[..] else { panic!("no status of nginx: {text}") };
        Served { accepted, requests }
    }

    /// Asks for the file as fast as it comes, by so many connections of one thread, from these cgroups.
    pub fn load(&self, connections: u32, seconds: u32, cgroups: &[&Cgroup]) -> Load {
        let program = tools::require("wrk", "wrk");
        let mut command: Command = entering(cgroups);
        command.arg(program).args(["--threads", "1", "--connections", &connections.to_string()]);
        command.args(["--duration", &format!("{seconds}s"), &format!("http://{}/file", self.address)]);
        Load::parse(&String::from_utf8_lossy(&tools::succeed(&mut command).stdout))
    }
}

impl Load {
    fn parse(said: &str) -> Self {
        let after = |key: &str| said.lines().find_map(|line| line.trim().strip_prefix(key));
        let number = |text: &str| text.trim().parse::<u64>().expect("wrk counts");
        let summary = said.lines().find_map(|line| line.trim().split_once(" requests in "));
        let (requests, rest) = summary.unwrap_or_else(|| panic!("no summary of wrk: {said}"));
        let seconds = rest.split(',').next().map_or(f64::NAN, seconds);
        let errors = after("Socket errors: ").unwrap_or_default().split(',');
        let errors = errors.filter_map(|word| word.rsplit(' ').next()).filter(|word| !word.is_empty());
        Self {
            requests: number(requests),
            seconds,
            bad_answers: after("Non-2xx or 3xx responses: ").map_or(0, number),
            socket_errors: errors.map(number).sum(),
        }
    }
}

/// wrk prints `980.00us`, `3.01s`, `1.05m`.
fn seconds(text: &str) -> f64 {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = units.iter().find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, scale)));
    let (number, scale) = unit.unwrap_or_else(|| panic!("no time: {text:?}"));
    number.parse::<f64>().unwrap_or_else(|_| panic!("no time: {text:?}")) * scale
}

/// The workers are root, because the directory is root's alone. A log line for each request would be a `write` more.
fn config(root: &str, address: SocketAddr, workers: u32) -> String {
    format!(
        "daemon off;\nuser root;\nworker_processes {workers};\npid {root}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n  access_log off;\n  sendfile off;\n  keepalive_requests 1000000000;\n\
         client_body_temp_path {root}/body;\n  proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi;\n  uwsgi_temp_path {root}/uwsgi;\n  scgi_temp_path {root}/scgi;\n\
         server {{\n    listen {address};\n    root {root};\n    location = /status {{ stub_status; }}\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::Load;

    fn check(said: &str, requests: u64, seconds: f64, bad_answers: u64, socket_errors: u64) {
        assert_eq!(Load::parse(said), Load { requests, seconds, bad_answers, socket_errors });
    }

    #[test]
    fn what_wrk_says() {
        check("  4711 requests in 3.01s, 5.60MB read\nRequests/sec: 1565.1\n", 4711, 3.01, 0, 0);
        check(
            "  2 requests in 1.00m, 1KB read\n  Socket errors: connect 1, read 2, write 0, timeout 3\n  \
             Non-2xx or 3xx responses: 2\n",
            2,
            60.0,
            2,
            6,
        );
    }
}
