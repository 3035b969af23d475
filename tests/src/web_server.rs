//! An nginx that logs each request, with a place for each way to answer.
//!
//! Refuses: to be measured; the log is a `write` more for each request ([`crate::nginx`] has none).

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::daemon::{Daemon, Launch};
use crate::http;
use crate::receiver::free_address;
use crate::tools;
use crate::workload::utf8;

/// Bytes of `/file`, of the one that `/copied` and `/sent` answer, and of `/slow`.
const SMALL_BYTES: usize = 100;
const LARGE_BYTES: usize = 2_000_000;
const SLOW_BYTES: usize = 120_000;

/// A running nginx.
pub struct WebServer {
    address: SocketAddr,
    daemon: Daemon,
    directory: TempDir,
}

/// A line of the access log.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// Seconds from the first byte of the request to the last byte of the answer, cut to milliseconds.
    pub seconds: f64,
}

impl WebServer {
    /// Starts it and waits until it answers.
    pub fn start() -> Self {
        let program = tools::require("nginx", "nginx");
        let directory = TempDir::new().expect("a temporary directory");
        let address = free_address();
        let root = utf8(directory.path());
        for (name, bytes) in [("file", SMALL_BYTES), ("large", LARGE_BYTES), ("slow", SLOW_BYTES)] {
            tools::write_file(&directory.path().join(name), &vec![b'x'; bytes]);
        }
        tools::write_file(&directory.path().join("nginx.conf"), config(root, address).as_bytes());
        let log = directory.path().join("log");
        let launch = Launch::plain(&log);
        let config = format!("{root}/nginx.conf");
        let mut daemon = Daemon::start(&program, &["-p", root, "-e", "stderr", "-c", &config], launch);
        daemon.wait_until("nginx", || http::get(address, "/status", &[]).is_ok());
        Self { address, daemon, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path.
    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// So many requests that it answered, but those for `/status`. It logs after it answers.
    #[track_caller]
    pub fn log(&mut self, count: usize) -> Vec<Logged> {
        let path = self.directory.path().join("access.log");
        let text = || std::fs::read_to_string(&path).expect("nginx made it");
        self.daemon.wait_until("all that was asked", || text().lines().count() >= count);
        text().lines().map(Logged::parse).collect()
    }
}

impl Logged {
    /// What the test numbered the request by: the end of its target.
    pub fn number(&self) -> &str {
        self.target.find('?').and_then(|at| self.target.get(at..)).unwrap_or(&self.target)
    }

    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let [method, target, status, seconds] = words[..] else { panic!("no line of ours: {line}") };
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            status: status.parse().expect("nginx writes a status"),
            seconds: seconds.parse().expect("nginx writes seconds"),
        }
    }
}

/// The worker is root, because the directory is root's alone.
fn config(root: &str, address: SocketAddr) -> String {
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 8192;\npid {root}/nginx.pid;\n\
         error_log stderr;\nevents {{ worker_connections 4096; }}\n\
         http {{\n  log_format told '$request_method $request_uri $status $request_time';\n\
         access_log {root}/access.log told;\n  sendfile off;\n  keepalive_requests 1000000000;\n\
         client_max_body_size 100m;\n  client_body_temp_path {root}/body;\n  proxy_temp_path {root}/proxy;\n\
         fastcgi_temp_path {root}/fastcgi;\n  uwsgi_temp_path {root}/uwsgi;\n  scgi_temp_path {root}/scgi;\n\
         server {{\n    listen {address} backlog=4096;\n    root {root};\n\
         location = /status {{ stub_status; access_log off; }}\n\
         location = /empty {{ return 204; }}\n\
         location = /moved {{ return 301 /file; }}\n\
         location = /broken {{ return 500; }}\n\
         location = /taken {{ return 200 taken; }}\n\
         location = /upload {{ proxy_pass http://{address}/taken; }}\n\
         location = /packed {{ gzip on; gzip_min_length 1; gzip_types *; alias {root}/slow; }}\n\
         location = /copied {{ alias {root}/large; }}\n\
         location = /sent {{ sendfile on; alias {root}/large; }}\n\
         location = /slow {{ limit_rate 100k; alias {root}/slow; }}\n  }}\n}}\n"
    )
}
