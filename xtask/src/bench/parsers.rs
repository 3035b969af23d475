//! What the parsers take for a message of each protocol, without the daemon: recorded connections, replayed.
//!
//! Refuses: to measure in this process, which is built for debugging; a program of its own is built in release.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::figures::Measured;
use super::report::table;
use super::setup::Bench;

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/bench/parsers/Cargo.toml");

pub fn measure(bench: &Bench) -> Result<Measured> {
    let target = bench.file("parsers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--manifest-path", MANIFEST, "--target-dir"])
        .arg(&target)
        .status()
        .context("start cargo")?;
    if !build.success() {
        bail!("the build of the parsers failed: {build}");
    }
    let seconds = bench.plan.parsers.as_secs_f64().to_string();
    let output = Command::new(target.join("release/parsers")).arg(seconds).output();
    let output = output.context("start the parsers")?;
    if !output.status.success() {
        bail!("the parsers ended with {}", output.status);
    }
    Ok(measured(&String::from_utf8_lossy(&output.stdout)))
}

/// From lines of a name, messages, nanoseconds and bytes.
fn measured(said: &str) -> Measured {
    let rows: Vec<Vec<String>> =
        said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    let summary = rows.iter().filter_map(|row| Some(format!("{}: {} ns", row.first()?, row.get(2)?)));
    Measured {
        summary: summary.collect::<Vec<_>>().join("; "),
        is_met: None,
        text: table(&["protocol", "messages", "ns of a message", "bytes of a message"], &rows),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_become_rows() {
        let measured = super::measured("http\t20\t640\t71\ndns\t10\t297\t55\n");
        assert_eq!(measured.summary, "http: 640 ns; dns: 297 ns");
        assert!(measured.text.contains("| dns | 10 | 297 | 55 |"), "{}", measured.text);
    }
}
