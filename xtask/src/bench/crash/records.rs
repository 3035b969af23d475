//! Crash records as the agent's spool holds them, as far as the figures need them.
//!
//! Refuses: records of other programs than the bench's own; this machine may have deaths of its own.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::programs::CRASHER;

/// Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub died_ns: u64,
    /// Other deaths that the record stands for.
    pub suppressed: u64,
    /// When its content was written: `mtime`.
    pub written_ns: u64,
    /// When it was complete under its name: `ctime`, which the rename sets after the content is on the disk.
    pub placed_ns: u64,
}

/// The records of our crashes. Without a spool there are none.
pub fn read(spool: &Path) -> Result<Vec<Record>> {
    let entries = match fs::read_dir(spool) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", spool.display()))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", spool.display()))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // It may have been renamed since: then the next look finds it.
        let (Ok(text), Ok(metadata)) = (fs::read_to_string(&path), fs::metadata(&path)) else { continue };
        records.extend(parse(&text).map(|(died_ns, suppressed)| Record {
            died_ns,
            suppressed,
            written_ns: time_ns(metadata.mtime(), metadata.mtime_nsec()),
            placed_ns: placed_ns(&metadata),
        }));
    }
    Ok(records)
}

/// Deaths that the records tell of.
pub fn deaths(records: &[Record]) -> u64 {
    records.iter().map(|record| 1 + record.suppressed).sum()
}

fn placed_ns(metadata: &Metadata) -> u64 {
    time_ns(metadata.ctime(), metadata.ctime_nsec())
}

fn time_ns(seconds: i64, nanoseconds: i64) -> u64 {
    (seconds * 1_000_000_000 + nanoseconds) as u64
}

/// The time of death and the deaths that were suppressed; `None` for what is no record of our crashes.
fn parse(text: &str) -> Option<(u64, u64)> {
    let record: Value = serde_json::from_str(text).ok()?;
    let is_ours = record["process"]["executable_name"] == CRASHER && record["kind"] == "crash";
    let died_ns = record["time_unix_ns"].as_u64()?;
    is_ours.then(|| (died_ns, record["suppressed"].as_u64().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(u64, u64)>) {
        assert_eq!(parse(text), expected, "{text}");
    }

    #[test]
    fn only_records_of_our_crashes_count() {
        let record = |executable: &str, kind: &str| {
            format!(
                r#"{{"time_unix_ns":7,"suppressed":3,"kind":"{kind}","process":{{"executable_name":"{executable}"}}}}"#
            )
        };
        check(&record(CRASHER, "crash"), Some((7, 3)));
        check(&record(CRASHER, "kill"), None);
        check(&record("other", "crash"), None);
        check("{", None);
        check("{}", None);
    }

    #[test]
    fn a_record_stands_for_itself_and_for_others() {
        let record = |suppressed| Record { died_ns: 0, suppressed, written_ns: 0, placed_ns: 0 };
        assert_eq!(deaths(&[record(0), record(98)]), 100);
        assert_eq!(deaths(&[]), 0);
        assert_eq!(time_ns(2, 5), 2_000_000_005);
    }
}
