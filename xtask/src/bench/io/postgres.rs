//! PostgreSQL with a cluster of its own in a temporary directory, and `pgbench` that works it.
//!
//! Refuses: the machine's clusters, and to wait for the disk: without that a transaction is its system calls, which is
//! harder for the agent and less noisy. It refuses root by itself, so it runs as a user without rights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::procfs;
use super::super::setup::Bench;
use super::super::tools::{find, stdout_of};
use super::server::{self, Server};

/// Clients of `pgbench`, all of one thread.
pub const CLIENTS: usize = 4;

/// A hundred thousand accounts each.
pub const SCALE: usize = 10;

/// Where Debian's packages keep each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Users without rights; the first that exists is taken.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// What `pgbench` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transactions {
    /// One row by its key.
    ReadOnly,
    /// Its mixture of updates, like TPC-B.
    Mixture,
}

/// A running PostgreSQL with the tables of `pgbench`.
pub struct Postgres {
    server: Server,
}

impl Postgres {
    pub fn start(bench: &Bench) -> Result<Self> {
        let user = user(&procfs::read("/etc/passwd")?).context("no user without rights")?;
        let directory = server::directory()?;
        stdout_of(Command::new("chown").arg(user).arg(directory.path()))?;
        let data = directory.path().join("data");
        let mut initialize = server::command(program("initdb")?.as_os_str(), Some(user));
        initialize.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        stdout_of(initialize.arg(&data).current_dir("/"))?;

        let mut command = server::command(program("postgres")?.as_os_str(), Some(user));
        command.arg("-D").arg(&data).current_dir("/");
        let sockets = format!("unix_socket_directories={}", directory.path().display());
        for setting in [sockets.as_str(), "listen_addresses=", "fsync=off", "autovacuum=off"] {
            command.args(["-c", setting]);
        }
        let ready = program("pg_isready")?;
        let sockets = directory.path().to_owned();
        let is_ready = || stdout_of(Command::new(&ready).args(["-q", "-h"]).arg(&sockets)).is_ok();
        let server = Server::start(bench, "postgres", &mut command, directory, is_ready)?;
        let postgres = Self { server };
        stdout_of(postgres.pgbench()?.args(["-i", "-q", "-s", &SCALE.to_string(), "postgres"]))?;
        Ok(postgres)
    }

    /// Runs transactions for so long, in whole seconds; returns how many per second.
    pub fn run(&self, transactions: Transactions, duration: Duration) -> Result<f64> {
        let mut pgbench = self.pgbench()?;
        let seconds = duration.as_secs().max(1).to_string();
        pgbench.args(["-n", "-c", &CLIENTS.to_string(), "-T", &seconds]);
        if transactions == Transactions::ReadOnly {
            pgbench.arg("-S");
        }
        let said = stdout_of(pgbench.arg("postgres"))?;
        parse_speed(&said).with_context(|| format!("pgbench said {said:?}"))
    }

    fn pgbench(&self) -> Result<Command> {
        let mut command = Command::new(program("pgbench")?);
        command.args(["-U", "postgres", "-h"]).arg(self.server.directory());
        Ok(command)
    }
}

/// What `pgbench` says at its end. Before version 14 it says two speeds, the one without connecting last.
fn parse_speed(said: &str) -> Option<f64> {
    let line = said.lines().filter_map(|line| line.strip_prefix("tps = ")).next_back()?;
    line.split(' ').next()?.parse().ok().filter(|speed| *speed > 0.0)
}

/// The program of the newest version that is installed, or the one on the path.
fn program(name: &str) -> Result<PathBuf> {
    let installed = fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path());
    let newest =
        installed.filter(|path| path.join("bin").join(name).exists()).max_by_key(|path| version(path));
    let found = newest.map(|path| path.join("bin").join(name)).or_else(|| find(name));
    found.with_context(|| format!("no {name} (apt-get install postgresql)"))
}

fn version(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The user that PostgreSQL runs as, from `/etc/passwd`.
fn user(passwd: &str) -> Option<&'static str> {
    let is_known = |user: &&str| passwd.lines().any(|line| line.split(':').next() == Some(*user));
    USERS.into_iter().find(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_says() {
        let new = "latency average = 0.052 ms\ntps = 19120.45 (without initial connection time)\n";
        assert_eq!(parse_speed(new), Some(19120.45));
        let old = "tps = 90.1 (including connections establishing)\ntps = 95.2 (excluding connections establishing)\n";
        assert_eq!(parse_speed(old), Some(95.2));
        assert_eq!(parse_speed("tps = 0.000000 (without initial connection time)\n"), None);
        assert_eq!(parse_speed("pgbench: error: aborted\n"), None);
    }

    #[test]
    fn a_user_without_rights() {
        let nobody = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        assert_eq!(user(nobody), Some("nobody"));
        assert_eq!(user(&format!("{nobody}postgres:x:1:1::/:/bin/false\n")), Some("postgres"));
        assert_eq!(user("root:x:0:0::/root:/bin/sh\npostgresql:x:1:1::/:/bin/sh\n"), None);
    }

    #[test]
    fn versions_are_numbers() {
        assert!(version(Path::new("/x/9")) < version(Path::new("/x/15")));
        assert_eq!(version(Path::new("/x/common")), None);
    }
}
