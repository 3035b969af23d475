//! A real PostgreSQL: a cluster of its own in a temporary directory, and `pgbench` to work it.
//!
//! Refuses: the machine's clusters and passwords; every local user is trusted on this socket and port. It refuses root
//! by itself, so it runs as a user without rights.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::cgroup::{Cgroup, entering};
use crate::daemon::{Daemon, Launch, Stop, User};
use crate::receiver::free_address;
use crate::strace::Calls;
use crate::tools;
use crate::workload::utf8;

/// Where Debian's packages keep each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What is run of them.
const PROGRAMS: [&str; 5] = ["initdb", "postgres", "pg_isready", "psql", "pgbench"];

/// Users without rights, the first that exists is taken.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A running PostgreSQL.
pub struct Postgres {
    programs: PathBuf,
    address: SocketAddr,
    daemon: Daemon,
    directory: TempDir,
}

/// What `pgbench` says at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bench {
    /// Transactions that were committed.
    pub transactions: u64,
    /// Transactions that failed.
    pub failed: u64,
    /// The mean time of one, in milliseconds.
    pub latency_mean_ms: f64,
}

impl Postgres {
    /// Makes a cluster and starts it, in these cgroups.
    pub fn start(cgroups: &[&Cgroup]) -> Self {
        Self::launch(cgroups, false)
    }

    /// Likewise, followed by strace from first to last.
    pub fn start_traced(cgroups: &[&Cgroup]) -> Self {
        Self::launch(cgroups, true)
    }

    fn launch(cgroups: &[&Cgroup], is_traced: bool) -> Self {
        let programs = programs();
        let directory = TempDir::new().expect("a temporary directory");
        let user = User::first_known(&USERS).expect("a user without rights");
        let owned = format!("{}:{}", user.uid, user.gid);
        tools::succeed(Command::new("chown").arg(owned).arg(directory.path()));
        let data = directory.path().join("data");
        initialize(&programs, user, &data);
        let address = free_address();
        let port = format!("port={}", address.port());
        let sockets = format!("unix_socket_directories={}", utf8(directory.path()));
        // Without JIT, vacuum or a wait for the disk, a transaction is its messages.
        let mut arguments = vec!["-D", utf8(&data)];
        for setting in
            [&port, &sockets, "listen_addresses=127.0.0.1", "jit=off", "fsync=off", "autovacuum=off"]
        {
            arguments.extend(["-c", setting]);
        }
        let log = directory.path().join("log");
        let launch = Launch { stop: Stop::Int, user: Some(user), cgroups, is_traced, log: &log };
        let mut daemon = Daemon::start(&programs.join("postgres"), &arguments, launch);
        let mut is_ready = Command::new(programs.join("pg_isready"));
        is_ready.args(["-q", "-h", utf8(directory.path()), "-p", &address.port().to_string()]);
        let is_ready = std::cell::RefCell::new(is_ready);
        daemon
            .wait_until("PostgreSQL", || is_ready.borrow_mut().status().is_ok_and(|status| status.success()));
        Self { programs, address, daemon, directory }
    }

    /// Where it listens, beside its socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of its socket, `.s.PGSQL.<port>`.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends it; returns what all its processes did, if it was traced.
    pub fn calls(self) -> Calls {
        self.daemon.calls()
    }

    /// The process id of the postmaster. Every connection is a process of its own below it.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The rows of a statement, a line each, columns parted by `|`.
    pub fn sql(&self, statement: &str) -> String {
        let arguments = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement];
        let output = tools::succeed(self.client("psql", &[]).args(arguments));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes pgbench's tables: a hundred thousand accounts for each unit of scale.
    pub fn prepare_bench(&self, scale: u32) {
        tools::succeed(self.client("pgbench", &[]).args(["-i", "-q", "-s", &scale.to_string()]));
    }

    /// Runs so many transactions of each client, reads only or pgbench's mixture, over the socket, from these cgroups.
    pub fn bench(
        &self,
        clients: u32,
        transactions_each: u32,
        is_read_only: bool,
        cgroups: &[&Cgroup],
    ) -> Bench {
        let mut command = self.client("pgbench", cgroups);
        command.args(["-n", "-c", &clients.to_string(), "-t", &transactions_each.to_string()]);
        if is_read_only {
            command.arg("-S");
        }
        Bench::parse(&String::from_utf8_lossy(&tools::succeed(&mut command).stdout))
    }

    /// The command that runs so many transactions of each client, reads only, over TCP.
    pub fn bench_over_tcp(&self, clients: u32, transactions_each: u32) -> Command {
        let mut command = self.client_over_tcp("pgbench");
        command.args(["-n", "-S", "-c", &clients.to_string(), "-t", &transactions_each.to_string()]);
        command
    }

    /// A client of the database, over TCP.
    pub fn client_over_tcp(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.address.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("LC_ALL", "C");
        command
    }

    fn client(&self, program: &str, cgroups: &[&Cgroup]) -> Command {
        let mut command = entering(cgroups);
        command.arg(self.programs.join(program));
        command.env("PGHOST", self.socket_directory()).env("PGPORT", self.address.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }
}

impl Bench {
    /// Reads what it said.
    pub fn parse(said: &str) -> Self {
        let after = |key: &str| said.lines().find_map(|line| line.strip_prefix(key));
        // `number of transactions actually processed: 200/200`, `number of failed transactions: 0 (0.000%)`.
        let count = |text: &str| {
            let digits = text.split(|byte: char| !byte.is_ascii_digit()).next().unwrap_or_default();
            digits.parse::<u64>().unwrap_or_else(|_| panic!("no count {text:?} in {said}"))
        };
        let found = |key: &str| after(key).unwrap_or_else(|| panic!("no {key:?} in {said}"));
        let mean = found("latency average = ").trim_end_matches(" ms");
        Self {
            transactions: count(found("number of transactions actually processed: ")),
            // PostgreSQL 14 and older do not tell.
            failed: after("number of failed transactions: ").map_or(0, count),
            latency_mean_ms: mean.parse().unwrap_or_else(|_| panic!("no time {mean:?}")),
        }
    }
}

/// The programs of the newest version that is installed; or those on the path, where `cargo xtask setup` unpacked them.
fn programs() -> PathBuf {
    let version = |programs: &PathBuf| {
        let name = programs.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        name.and_then(|name| name.parse::<u32>().ok())
    };
    let installed = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    directories.sort_by_key(|programs| std::cmp::Reverse(version(programs)));
    directories.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let is_whole = |programs: &PathBuf| PROGRAMS.iter().all(|name| programs.join(name).exists());
    directories.into_iter().find(is_whole).expect("PostgreSQL is missing: `cargo xtask setup`")
}

fn initialize(programs: &Path, user: User, data: &Path) {
    let mut command = Command::new("setpriv");
    command.args(user.setpriv_arguments()).arg("--").arg(programs.join("initdb")).arg("-D").arg(data);
    command.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    tools::succeed(&mut command);
}

#[cfg(test)]
mod tests {
    use super::Bench;

    #[test]
    fn what_pgbench_says() {
        let said = "transaction type: <builtin: select only>\nnumber of transactions per client: 100\n\
                    number of transactions actually processed: 200/200\n\
                    number of failed transactions: 3 (1.500%)\nlatency average = 0.052 ms\n\
                    initial connection time = 3.2 ms\ntps = 19120.45 (without initial connection time)\n";
        assert_eq!(Bench::parse(said), Bench { transactions: 200, failed: 3, latency_mean_ms: 0.052 });
    }
}
