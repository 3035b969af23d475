//! Writes to standard output and standard error without a panic: a closed pipe or a full disk is no bug of ours.
//!
//! Refuses: formatting; callers hand over whole texts.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Writes what was asked for to standard output. A reader that closed the pipe has seen enough.
///
/// # Errors
///
/// If the text cannot be written, for example because the disk is full.
pub(super) fn print(text: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Tells the user something on standard error. Nothing depends on it, so a failure is ignored.
pub(super) fn tell(text: &str) {
    let mut output = std::io::stderr().lock();
    let _nobody_listens = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
