//! What all figures share: the agent's binary, the compiled workloads, where logs go, and how long to measure.
//!
//! Refuses: running anything; figures do.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::crash::CrashPrograms;
use super::io::IoPrograms;
use super::plan::Plan;
use super::workloads::Workloads;

/// An empty configuration: a file that this machine happens to have must not change the figures.
const EMPTY_CONFIG: &str = "{}\n";

/// A bench that is ready to measure.
pub struct Bench {
    pub agent: PathBuf,
    pub config: PathBuf,
    pub workloads: Workloads,
    pub crash_programs: CrashPrograms,
    pub io_programs: IoPrograms,
    pub plan: Plan,
    /// The parts of figures that are measured; all, if none is named.
    pub parts: Vec<String>,
    directory: PathBuf,
}

impl Bench {
    pub fn prepare(
        agent: PathBuf,
        fixtures: &Path,
        directory: &Path,
        plan: Plan,
        parts: Vec<String>,
    ) -> Result<Self> {
        let config = directory.join("empty.yaml");
        fs::write(&config, EMPTY_CONFIG).with_context(|| format!("write {}", config.display()))?;
        for log in [AGENT_LOG, PEER_LOG, SERVER_LOG] {
            let path = directory.join(log);
            fs::write(&path, "").with_context(|| format!("empty {}", path.display()))?;
        }
        let workloads = Workloads::compile(fixtures, directory)?;
        let crash_programs = CrashPrograms::compile(fixtures, directory)?;
        let io_programs = IoPrograms::compile(fixtures, directory)?;
        let directory = directory.to_owned();
        Ok(Self { agent, config, workloads, crash_programs, io_programs, plan, parts, directory })
    }

    /// Where the agent keeps its crash records: not where those of this machine are.
    pub fn spool(&self) -> PathBuf {
        self.directory.join("crashes")
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A log of this run, opened at its end.
    pub fn log(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        Ok((path, file))
    }
}

/// What the agent says, all its runs one after the other.
pub const AGENT_LOG: &str = "agent.log";

/// What bpftrace says.
pub const PEER_LOG: &str = "bpftrace.log";

/// What the servers say that are measured with and without the agent.
pub const SERVER_LOG: &str = "servers.log";
