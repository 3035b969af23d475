//! Boots one kernel under qemu's emulation, with its serial output in a file and a limit on its time.
//!
//! It refuses hardware acceleration, so that every machine runs the same way, and gives the guest no disk and
//! no network.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A guest that runs longer is stopped and fails. It leaves room for several checks that each reach their own
/// limit.
pub const KERNEL_SECONDS_MAX: u64 = 600;

const POLL: Duration = Duration::from_millis(50);

const KERNEL_COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=5 rdinit=/init";

/// How a boot came to its end.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// qemu left by itself: the guest powered off, or it panicked and was not restarted.
    Left,
    /// qemu reported an error of its own.
    Refused(ExitStatus),
    TimedOut,
}

pub struct Boot {
    pub ending: Ending,
    pub duration: Duration,
}

/// Runs the guest to its end and leaves everything it printed, and qemu's own complaints, in `log`.
pub fn boot(vmlinuz: &Path, initramfs: &Path, log: &Path) -> Result<Boot> {
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = output.try_clone().with_context(|| format!("share {}", log.display()))?;
    let started = Instant::now();
    let child = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", KERNEL_COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .context("start qemu-system-x86_64 (apt-get install qemu-system-x86)")?;
    let ending = Guest(child).wait_until(started + Duration::from_secs(KERNEL_SECONDS_MAX))?;
    Ok(Boot { ending, duration: started.elapsed() })
}

/// A running qemu that does not outlive its owner.
struct Guest(Child);

impl Guest {
    fn wait_until(mut self, deadline: Instant) -> Result<Ending> {
        loop {
            match self.0.try_wait().context("wait for qemu")? {
                Some(status) if status.success() => return Ok(Ending::Left),
                Some(status) => return Ok(Ending::Refused(status)),
                None if Instant::now() >= deadline => return Ok(Ending::TimedOut),
                None => thread::sleep(POLL),
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only where qemu has ended already, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
