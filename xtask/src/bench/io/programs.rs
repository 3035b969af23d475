//! The programs that call, hook and sleep: C, from `xtask/fixtures/bench`; and `dd`.
//!
//! Refuses: pipes between programs. Each reads and writes what it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::children::Guarded;
use super::super::interrupt;
use super::super::machine::cpus;
use super::super::tools::stdout_of;
use super::super::workloads::{compile, first_numbers};

/// The calls that `io_calls` times, in its order.
pub const CALLS: [&str; 4] =
    ["getppid", "read /dev/zero, 1 byte", "write /dev/null, 1 byte", "pread, 512 bytes, cached"];

/// `dd bs=`.
pub const COPY_BLOCK_BYTES: u64 = 512;

/// Blocks of one `dd`: 128 MiB, so that what is written stays in memory and is not waited for.
const COPY_BLOCKS: u64 = 1 << 18;

/// The file that calls read.
const CALLED_FILE_BYTES: usize = 4096;

/// The executables and files.
pub struct IoPrograms {
    io_calls: PathBuf,
    empty_hooks: PathBuf,
    sleepers: PathBuf,
    called_file: PathBuf,
    directory: PathBuf,
}

/// One batch of each call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batch {
    /// Nanoseconds of a step that only computes: how fast the clock was.
    pub step_ns: f64,
    /// By [`CALLS`].
    pub calls_ns: [f64; CALLS.len()],
}

/// From where to where `dd` copies.
pub struct Copy {
    input: PathBuf,
    output: PathBuf,
}

impl IoPrograms {
    pub fn compile(fixtures: &Path, directory: &Path) -> Result<Self> {
        let build =
            |name: &str| compile(&fixtures.join(format!("{name}.c")), directory.join(name), &["-static"]);
        let called_file = directory.join("called");
        fs::write(&called_file, vec![b'x'; CALLED_FILE_BYTES])
            .with_context(|| format!("write {}", called_file.display()))?;
        Ok(Self {
            io_calls: build("io_calls")?,
            empty_hooks: build("empty_hooks")?,
            sleepers: build("sleepers")?,
            called_file,
            directory: directory.to_owned(),
        })
    }

    /// Times so many batches of each call, on the last CPU alone.
    pub fn call(&self, batches: usize) -> Result<Vec<Batch>> {
        let mut command = Command::new(&self.io_calls);
        command.args([(cpus() - 1).to_string(), batches.to_string()]).arg(&self.called_file);
        let said = stdout_of(&mut command)?;
        let batches: Vec<Batch> = said.lines().map_while(Batch::parse).collect();
        if batches.len() != said.lines().count() {
            bail!("io_calls said {:?}", said.lines().nth(batches.len()));
        }
        Ok(batches)
    }

    /// Hooks every system call with an empty program until it is dropped.
    pub fn hook_empty(&self) -> Result<Guarded> {
        let mut command = Command::new(&self.empty_hooks);
        let mut hooks = Guarded::start("empty_hooks", command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        hooks.lines(1)?;
        Ok(hooks)
    }

    /// Starts processes that sleep; they end with the guard, at once if it is terminated. Returns their ids.
    pub fn sleep(&self, count: usize) -> Result<(Guarded, Vec<u32>)> {
        let mut command = Command::new(&self.sleepers);
        command.arg(count.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut sleepers = Guarded::start("sleepers", &mut command)?;
        let said = sleepers.lines(count)?;
        let pids =
            said.iter().map(|line| line.trim().parse().with_context(|| format!("sleepers said {line:?}")));
        let pids = pids.collect::<Result<_>>()?;
        Ok((sleepers, pids))
    }

    /// A copy from a cached file to a file on the disk.
    pub fn copy_of_file(&self) -> Result<Copy> {
        let input = self.directory.join("copy_input");
        let bytes = COPY_BLOCKS * COPY_BLOCK_BYTES;
        if fs::metadata(&input).map_or(0, |metadata| metadata.len()) != bytes {
            fs::write(&input, vec![b'x'; bytes as usize])
                .with_context(|| format!("write {}", input.display()))?;
        }
        Ok(Copy { input, output: self.directory.join("copy_output") })
    }

    /// A copy that is nothing but system calls.
    pub fn copy_of_nothing(&self) -> Copy {
        Copy { input: PathBuf::from("/dev/zero"), output: PathBuf::from("/dev/null") }
    }
}

impl Batch {
    fn parse(line: &str) -> Option<Self> {
        let [step_ns, calls_ns @ ..] = first_numbers::<{ 1 + CALLS.len() }>(line)?;
        Some(Self { step_ns, calls_ns })
    }
}

impl Copy {
    /// Copies again and again for about this long; returns blocks per second.
    pub fn run(&self, duration: Duration) -> Result<f64> {
        let argument = |name: &str, path: &Path| format!("{name}={}", path.display());
        let start = Instant::now();
        let mut blocks = 0;
        while start.elapsed() < duration {
            interrupt::check()?;
            let mut dd = Command::new("dd");
            dd.args([argument("if", &self.input), argument("of", &self.output)]);
            dd.args([format!("bs={COPY_BLOCK_BYTES}"), format!("count={COPY_BLOCKS}")]);
            // The same pages are written each time: no blocks to allocate, and no more to write back.
            stdout_of(dd.args(["conv=notrunc", "status=none"]))?;
            blocks += COPY_BLOCKS;
        }
        Ok(blocks as f64 / start.elapsed().as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_five_numbers() {
        let expected = Batch { step_ns: 1.25, calls_ns: [80.0, 101.5, 99.0, 210.0] };
        assert_eq!(Batch::parse("1.2500 80.0 101.5 99.0 210.0\n"), Some(expected));
        assert_eq!(Batch::parse("1.25 80.0 101.5 99.0"), None);
        assert_eq!(Batch::parse("usage: io_calls"), None);
    }

    #[test]
    fn a_copy_of_nothing_has_a_speed() {
        let copy = Copy { input: PathBuf::from("/dev/null"), output: PathBuf::from("/dev/null") };
        assert!(copy.run(Duration::from_millis(1)).expect("dd runs") > 0.0);
        let missing = Copy { input: PathBuf::from("/nowhere/at/all"), output: PathBuf::from("/dev/null") };
        assert!(missing.run(Duration::from_millis(1)).is_err());
    }
}
