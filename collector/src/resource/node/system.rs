//! The small files of a host: open files, its name, time, entropy, tracked connections.
//!
//! Each is an area of its own, so that one that is missing takes no other along. Refuses: settings.

use anyhow::{Context, Result};

use super::Reading;
use super::family::{node, node_gauge, point};
use crate::telemetry::{Metric, MetricKind, Text};

const NS_PER_S: f64 = 1e9;

/// `/proc/sys/fs/file-nr`: open files of the whole host.
pub(super) fn open_files(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/sys/fs/file-nr")?;
    let mut words = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let allocated = words.next().flatten().context("broken")?;
    let maximum = words.nth(1).flatten().context("broken")?;
    Ok(vec![
        node_gauge("node_filefd_allocated", "", "File descriptor statistics: allocated.", allocated as f64),
        node_gauge("node_filefd_maximum", "", "File descriptor statistics: maximum.", maximum as f64),
    ])
}

/// The host's name and kernel, from `/proc/sys/kernel`: uname(2) would give those of our container.
pub(super) fn name(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let own = rustix::system::uname();
    let line = |file: &str| {
        let text = reading.root.read(format!("proc/sys/kernel/{file}"));
        text.map(|text| Text::from(text.trim().to_owned()))
    };
    let release = line("osrelease")?;
    let labels = [
        ("domainname", line("domainname").unwrap_or(Text::from("(none)"))),
        // The kernel has no file for the machine before 6.1, and it is the same for all.
        ("machine", Text::from(own.machine().to_string_lossy().into_owned())),
        ("nodename", line("hostname")?),
        ("release", release),
        ("sysname", line("ostype")?),
        ("version", line("version")?),
    ];
    let description = "Labeled system information as provided by the uname system call.";
    let metric = node(MetricKind::Gauge, "node_uname_info", "", description);
    Ok(vec![metric.with(vec![point(0, labels, 1.0)])])
}

/// The time of this collection, and how long the host runs.
pub(super) fn time(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let text = reading.root.read("proc/uptime")?;
    let uptime_s = text.split_ascii_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    let uptime_s = uptime_s.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).context("broken")?;
    let uptime =
        Metric::new(MetricKind::Gauge, "system.uptime", "s", "The time the system has been running.");
    let now_s = reading.now_unix_ns as f64 / NS_PER_S;
    Ok(vec![
        node_gauge("node_time_seconds", "s", "System time in seconds since epoch (1970).", now_s),
        uptime.with(vec![point(0, [], uptime_s)]),
    ])
}

/// What the kernel holds of randomness; 256 of 256 always since Linux 5.18.
pub(super) fn entropy(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let number = |file: &str| {
        reading
            .root
            .number(format!("proc/sys/kernel/random/{file}"))
            .map(|bits| bits as f64)
            .context("broken")
    };
    Ok(vec![
        node_gauge(
            "node_entropy_available_bits",
            "bit",
            "Bits of available entropy.",
            number("entropy_avail")?,
        ),
        node_gauge("node_entropy_pool_size_bits", "bit", "Bits of entropy pool.", number("poolsize")?),
    ])
}

/// Connections that netfilter tracks. Without its module there are no such files.
pub(super) fn tracked_connections(reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let number = |file: &str| {
        let text = reading.root.read(format!("proc/sys/net/netfilter/{file}"))?;
        anyhow::Ok(text.trim().parse::<u64>().context("broken")? as f64)
    };
    let entries = "Number of currently allocated flow entries for connection tracking.";
    let limit = "Maximum size of connection tracking table.";
    Ok(vec![
        node_gauge("node_nf_conntrack_entries", "", entries, number("nf_conntrack_count")?),
        node_gauge("node_nf_conntrack_entries_limit", "", limit, number("nf_conntrack_max")?),
    ])
}
