//! `/proc/stat`: processes, interrupts, and the times of each CPU (proc(5); `fs/proc/stat.c`).
//!
//! Refuses: the host's sum over CPUs, which a backend can do itself. The `procfs` crate counts CPUs instead of reading
//! their numbers, which is wrong once one is offline; so this parser is our own.

use anyhow::{Context, Result};

use super::Reading;
use super::family::{node_counter, node_gauge, point};
use crate::telemetry::{Metric, MetricKind};

/// The modes of a CPU's time in `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
pub(super) const MODES: usize = 10;

/// What `/proc/stat` says. Counters are those since boot.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stat {
    /// Number of the CPU with its times by mode, in ticks.
    pub(super) cpus: Vec<(u32, [u64; MODES])>,
    /// Boot, seconds since the epoch.
    pub(super) boot_s: Option<u64>,
    pub(super) context_switches: Option<u64>,
    pub(super) forks: Option<u64>,
    pub(super) interrupts: Option<u64>,
    pub(super) running: Option<u64>,
    pub(super) blocked: Option<u64>,
}

impl Stat {
    /// Parses the text of `/proc/stat`. A line that is not understood is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut stat = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(key) = words.next() else { continue };
            if let Some(number) = key.strip_prefix("cpu") {
                if let Ok(number) = number.parse() {
                    stat.cpus.extend(times(words).map(|times| (number, times)));
                }
                continue;
            }
            let mut value = || words.next().and_then(|word| word.parse().ok());
            match key {
                "intr" => stat.interrupts = value(),
                "ctxt" => stat.context_switches = value(),
                "btime" => stat.boot_s = value().filter(|boot| *boot > 0),
                "processes" => stat.forks = value(),
                "procs_running" => stat.running = value(),
                "procs_blocked" => stat.blocked = value(),
                _ => {}
            }
        }
        stat
    }
}

/// The times of a CPU; none if it has too few for a kernel of this century (`steal` came with 2.6.11) or one is broken.
fn times<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<[u64; MODES]> {
    let mut times = [0; MODES];
    for (mode, time) in times.iter_mut().enumerate() {
        match words.next() {
            Some(word) => *time = word.parse().ok()?,
            None if mode >= 8 => break,
            None => return None,
        }
    }
    Some(times)
}

/// Processes, context switches and interrupts.
pub(super) fn metrics(stat: &Stat, reading: &mut Reading<'_>) -> Result<Vec<Metric>> {
    let boot_s = stat.boot_s.context("no btime")?;
    let [switches, forks, interrupts] = [stat.context_switches, stat.forks, stat.interrupts]
        .map(|counter| counter.context("a counter is missing or broken"));
    let mut values = [switches?, forks?, interrupts?];
    let start = reading.starts.of("stat", "", &mut values, 0);
    let [switches, forks, interrupts] = values.map(|value| value as f64);
    let created = Metric::new(
        MetricKind::Counter,
        "system.process.created",
        "{process}",
        "Processes created since boot.",
    );
    let mut metrics = vec![
        node_gauge("node_boot_time_seconds", "s", "Node boot time, in unixtime.", boot_s as f64),
        node_counter("node_context_switches_total", "", "Total number of context switches.", start, switches),
        node_counter("node_forks_total", "", "Total number of forks.", start, forks),
        node_counter("node_intr_total", "", "Total number of interrupts serviced.", start, interrupts),
        created.with(vec![point(start, [], forks)]),
    ];
    if let Some(running) = stat.running {
        let description = "Number of processes in runnable state.";
        metrics.push(node_gauge("node_procs_running", "", description, running as f64));
    }
    if let Some(blocked) = stat.blocked {
        let description = "Number of processes blocked waiting for I/O to complete.";
        metrics.push(node_gauge("node_procs_blocked", "", description, blocked as f64));
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Stat) {
        assert_eq!(&Stat::parse(text), expected, "{text}");
    }

    #[test]
    fn parses() {
        let whole = Stat {
            cpus: vec![(0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), (3, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0])],
            boot_s: Some(1_795_357_856),
            context_switches: Some(33),
            forks: Some(44),
            interrupts: Some(22),
            running: Some(2),
            blocked: Some(0),
        };
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu3 1 1 1 1 1 1 1 1\nintr 22 1 2 3\nctxt 33\n\
                    btime 1795357856\nprocesses 44\nprocs_running 2\nprocs_blocked 0\nsoftirq 1 2 3\n";
        check(text, &whole);
        check("", &Stat::default());
        check("cpu0 1 2 3\ncpu1 1 2 x 4 5 6 7 8\ncpux 1\nctxt -1\nbtime 0\nintr\n", &Stat::default());
    }

    proptest::proptest! {
        #[test]
        fn any_text(text in "(cpu|ctxt|btime|intr|[0-9 \n]|.){0,200}") {
            Stat::parse(&text);
        }
    }
}
