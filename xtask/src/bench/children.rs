//! Child processes under a guard: whatever happens, they end with the bench, each by its own id.
//!
//! Refuses: ending anything that this run did not start.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::interrupt::pause;

const POLL: Duration = Duration::from_millis(20);

/// A running child; dropping it kills it.
pub struct Guarded {
    child: Child,
    name: &'static str,
}

impl Guarded {
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, name })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the child has ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().with_context(|| format!("look at {}", self.name))? {
            bail!("{} ended by itself: {status}", self.name);
        }
        Ok(())
    }

    /// Waits for the first lines that the child prints; one that prints more later has no reader.
    pub fn lines(&mut self, count: usize) -> Result<Vec<String>> {
        let output = self.child.stdout.take();
        let output = output.with_context(|| format!("{}: its output is not piped", self.name))?;
        let lines = BufReader::new(output).lines().take(count).collect::<Result<Vec<_>, _>>();
        let lines = lines.with_context(|| format!("read what {} said", self.name))?;
        if lines.len() != count {
            bail!("{} said {} lines of {count} and ended", self.name, lines.len());
        }
        Ok(lines)
    }

    /// Waits until the child has done its work; returns what it printed, a few lines at most.
    pub fn finish(mut self) -> Result<String> {
        let status = loop {
            if let Some(status) = self.child.try_wait().with_context(|| format!("wait for {}", self.name))? {
                break status;
            }
            pause(POLL)?;
        };
        if !status.success() {
            bail!("{} failed: {status}", self.name);
        }
        let mut said = String::new();
        if let Some(mut output) = self.child.stdout.take() {
            output.read_to_string(&mut said).with_context(|| format!("read what {} said", self.name))?;
        }
        Ok(said)
    }

    /// Asks the child to end, and waits for it.
    pub fn terminate(mut self, time_max: Duration) -> Result<ExitStatus> {
        self.check_running()?;
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .with_context(|| format!("stop {}", self.name))?;
        let end = Instant::now() + time_max;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().with_context(|| format!("wait for {}", self.name))? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        bail!("{} did not end within {} s of SIGTERM", self.name, time_max.as_secs());
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only for a child that has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_its_guard() {
        let child = Guarded::start("sleep", Command::new("sleep").arg("60")).expect("sleep starts");
        let pid = child.pid();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn the_first_lines_come_whole_or_not_at_all() {
        let say = |text: &str| {
            let mut command = Command::new("printf");
            Guarded::start("printf", command.arg(text).stdout(std::process::Stdio::piped()))
                .expect("it starts")
        };
        assert_eq!(say("1\n2\n").lines(2).expect("two lines"), ["1", "2"]);
        assert!(say("1\n").lines(2).is_err());
    }

    #[test]
    fn a_child_that_ended_by_itself_is_noticed() {
        let mut child = Guarded::start("true", &mut Command::new("true")).expect("true starts");
        let end = Instant::now() + Duration::from_secs(10);
        while child.check_running().is_ok() && Instant::now() < end {
            thread::sleep(POLL);
        }
        assert!(child.check_running().is_err());
    }
}
