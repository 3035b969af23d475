//! What `/proc` says about a process and the machine: pure readers over its text formats.
//!
//! Refuses: writing, and judging what was read.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// Processor time of a process, all its threads, those that ended too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    pub user: u64,
    pub system: u64,
}

/// Memory of a process in KiB, by the names of `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident_kib: u64,
    pub resident_peak_kib: u64,
    pub anonymous_kib: u64,
    pub file_kib: u64,
    pub shared_kib: u64,
}

/// A thread's name and the time it was on a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTime {
    pub name: String,
    pub on_cpu_ns: u64,
}

/// Processor time of the whole machine in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineTicks {
    pub busy: u64,
    pub stolen: u64,
    pub total: u64,
}

pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

pub fn cpu_ticks(pid: u32) -> Result<CpuTicks> {
    let path = format!("/proc/{pid}/stat");
    parse_cpu_ticks(&read(&path)?).with_context(|| format!("unknown format of {path}"))
}

/// The name of the command may hold spaces and brackets: fields are counted from its last bracket.
fn parse_cpu_ticks(text: &str) -> Option<CpuTicks> {
    let (_, fields) = text.rsplit_once(')')?;
    // Fields 14 and 15 of proc(5); the state, field 3, is the first here.
    let mut fields = fields.split_whitespace().skip(14 - 3);
    Some(CpuTicks { user: fields.next()?.parse().ok()?, system: fields.next()?.parse().ok()? })
}

pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    parse_memory(&read(&path)?).with_context(|| format!("unknown format of {path}"))
}

fn parse_memory(text: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    Some(Memory {
        resident_kib: kib("VmRSS")?,
        resident_peak_kib: kib("VmHWM")?,
        anonymous_kib: kib("RssAnon")?,
        file_kib: kib("RssFile")?,
        shared_kib: kib("RssShmem")?,
    })
}

/// What is resident, by what is mapped, in KiB, the largest first. Unnamed memory has an empty name.
pub fn mappings(pid: u32) -> Result<Vec<(String, u64)>> {
    Ok(parse_mappings(&read(&format!("/proc/{pid}/smaps"))?))
}

fn parse_mappings(text: &str) -> Vec<(String, u64)> {
    let mut resident_kib = BTreeMap::<String, u64>::new();
    let mut name = String::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some(first) = fields.next() else { continue };
        // A mapping starts with its addresses; its name is the sixth field and may hold spaces.
        if !first.ends_with(':') {
            name = fields.skip(4).collect::<Vec<_>>().join(" ");
        } else if first == "Rss:" {
            let kib: u64 = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
            *resident_kib.entry(name.clone()).or_default() += kib;
        }
    }
    let mut mappings: Vec<(String, u64)> = resident_kib.into_iter().collect();
    mappings.sort_by_key(|&(_, kib)| std::cmp::Reverse(kib));
    mappings
}

/// The threads that live now, by id. A thread that ends meanwhile is left out.
pub fn threads(pid: u32) -> Result<BTreeMap<u32, ThreadTime>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let thread = |id: u32| {
        let name = fs::read_to_string(format!("{path}/{id}/comm")).ok()?;
        let times = fs::read_to_string(format!("{path}/{id}/schedstat")).ok()?;
        let on_cpu_ns = times.split_whitespace().next()?.parse().ok()?;
        Some((id, ThreadTime { name: name.trim_end().to_owned(), on_cpu_ns }))
    };
    Ok(ids.filter_map(thread).collect())
}

pub fn machine_ticks() -> Result<MachineTicks> {
    parse_machine_ticks(&read("/proc/stat")?).context("unknown format of /proc/stat")
}

/// user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user already.
fn parse_machine_ticks(text: &str) -> Option<MachineTicks> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let &[user, nice, system, idle, waiting, interrupt, soft_interrupt, stolen] = ticks.as_slice() else {
        return None;
    };
    let busy = user + nice + system + interrupt + soft_interrupt;
    Some(MachineTicks { busy, stolen, total: busy + stolen + idle + waiting })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 31 12 0 0 20 0 5 0 99 1 2";
        assert_eq!(parse_cpu_ticks(text), Some(CpuTicks { user: 31, system: 12 }));
        assert_eq!(parse_cpu_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        let text = "Name:\tx\nVmHWM:\t   30 kB\nVmRSS:\t   20 kB\nRssAnon:\t   10 kB\nRssFile:\t    9 kB\nRssShmem:\t 1 kB\n";
        let expected =
            Memory { resident_kib: 20, resident_peak_kib: 30, anonymous_kib: 10, file_kib: 9, shared_kib: 1 };
        assert_eq!(parse_memory(text), Some(expected));
        assert_eq!(parse_memory("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn mappings_are_summed_by_name() {
        let text = "7f00-7f10 r--p 00000000 08:01 9    /lib/a b.so\nRss:       8 kB\nVmFlags: rd mr\n\
            7f10-7f20 r-xp 00010000 08:01 9    /lib/a b.so\nRss:       4 kB\n7f30-7f40 rw-p 00000000 00:00 0 \nRss: 40 kB\n";
        assert_eq!(parse_mappings(text), [(String::new(), 40), ("/lib/a b.so".to_owned(), 12)]);
    }

    #[test]
    fn machine_time_leaves_the_guest_out() {
        let text = "cpu  10 1 5 100 4 2 3 7 50 50\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_machine_ticks(text), Some(MachineTicks { busy: 21, stolen: 7, total: 132 }));
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(memory(pid).expect("the memory of this process").resident_kib > 0);
        assert!(cpu_ticks(pid).is_ok());
        assert!(threads(pid).expect("the threads of this process").contains_key(&pid));
    }
}
