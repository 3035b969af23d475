//! The kernel's run-time statistics of BPF programs, read from `/proc/PID/fdinfo` of the process that holds them.
//!
//! Refuses: programs by name (`fdinfo` has none); they are told apart by their type or by the tracepoint they hook.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

/// `BPF_PROG_TYPE_PERF_EVENT` of `include/uapi/linux/bpf.h`.
const PERF_EVENT: u64 = 7;

/// `BPF_PROG_TYPE_TRACEPOINT`.
const TRACEPOINT: u64 = 5;

const STATISTICS_SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Keeps the kernel's statistics on; dropping it restores what was there before.
pub struct Statistics {
    before: String,
}

impl Statistics {
    pub fn switch_on() -> Result<Self> {
        let before =
            fs::read_to_string(STATISTICS_SWITCH).with_context(|| format!("read {STATISTICS_SWITCH}"))?;
        fs::write(STATISTICS_SWITCH, "1")
            .with_context(|| format!("write {STATISTICS_SWITCH}: run as root"))?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATISTICS_SWITCH, &self.before) {
            eprintln!("bench: cannot restore {STATISTICS_SWITCH} to {}: {error}", self.before.trim());
        }
    }
}

/// Runs of one program while statistics were on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramRuns {
    pub kind: u64,
    pub run_time_ns: u64,
    pub runs: u64,
}

impl ProgramRuns {
    /// What came between an earlier reading and this one.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            kind: self.kind,
            run_time_ns: self.run_time_ns.saturating_sub(earlier.run_time_ns),
            runs: self.runs.saturating_sub(earlier.runs),
        }
    }

    pub fn ns_per_run(self) -> Result<f64> {
        if self.runs == 0 {
            bail!("the program did not run: nothing was sampled");
        }
        Ok(self.run_time_ns as f64 / self.runs as f64)
    }
}

/// What a process holds of BPF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Programs by id.
    pub programs: BTreeMap<u64, ProgramRuns>,
    /// Kernel memory of maps by id, in bytes.
    maps: BTreeMap<u64, u64>,
    /// Ids of programs by the raw tracepoint that they hook.
    hooks: BTreeMap<String, u64>,
}

impl Held {
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/fdinfo");
        let mut held = Self::default();
        for entry in fs::read_dir(&path).with_context(|| format!("list {path}"))? {
            // A descriptor may be closed meanwhile.
            let text = entry.ok().and_then(|entry| fs::read_to_string(entry.path()).ok());
            held.add(&text.unwrap_or_default());
        }
        Ok(held)
    }

    /// Several descriptors may lead to the same program or map.
    fn add(&mut self, text: &str) {
        let word = |name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(":\t")?.trim()))
        };
        let field = |name: &str| -> Option<u64> { word(name)?.parse().ok() };
        if let (Some(kind), Some(id)) = (field("prog_type"), field("prog_id")) {
            let (run_time_ns, runs) = (field("run_time_ns").unwrap_or(0), field("run_cnt").unwrap_or(0));
            self.programs.insert(id, ProgramRuns { kind, run_time_ns, runs });
        } else if let (Some(id), Some(bytes)) = (field("map_id"), field("memlock")) {
            self.maps.insert(id, bytes);
        } else if let (Some(tracepoint), Some(id)) = (word("tp_name"), field("prog_id")) {
            self.hooks.insert(tracepoint.to_owned(), id);
        }
    }

    /// The program that runs at each sample.
    pub fn sampler(&self) -> Result<ProgramRuns> {
        let samplers: Vec<ProgramRuns> =
            self.programs.values().copied().filter(|program| program.kind == PERF_EVENT).collect();
        match samplers.as_slice() {
            [sampler] => Ok(*sampler),
            _ => bail!("expected one perf_event program, found {}", samplers.len()),
        }
    }

    /// The program that hooks a raw tracepoint; `None` if none does.
    pub fn at_tracepoint(&self, tracepoint: &str) -> Option<ProgramRuns> {
        self.programs.get(self.hooks.get(tracepoint)?).copied()
    }

    /// Every raw tracepoint that is hooked, and its program.
    pub fn tracepoints(&self) -> impl Iterator<Item = (&str, ProgramRuns)> {
        self.hooks.iter().filter_map(|(name, id)| Some((name.as_str(), *self.programs.get(id)?)))
    }

    /// Programs of plain tracepoints, which is what bpftrace's are.
    pub fn tracepoint_programs(&self) -> usize {
        self.programs.values().filter(|program| program.kind == TRACEPOINT).count()
    }

    pub fn map_kib(&self) -> u64 {
        self.maps.values().sum::<u64>() / 1024
    }

    /// Kernel time of all programs since an earlier reading.
    pub fn run_time_ns_since(&self, earlier: &Self) -> u64 {
        let since = |(id, program): (&u64, &ProgramRuns)| {
            program.since(earlier.programs.get(id).copied().unwrap_or_default()).run_time_ns
        };
        self.programs.iter().map(since).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLER: &str = "pos:\t0\nflags:\t02000002\nprog_type:\t7\nprog_jited:\t1\nprog_tag:\t30f64ef219993313\n\
        memlock:\t4096\nprog_id:\t150\nrun_time_ns:\t12000\nrun_cnt:\t4\n";
    const LINK: &str = "link_type:\traw_tracepoint\nlink_id:\t109\nprog_tag:\t68a055e58b9080ab\nprog_id:\t150\n\
        tp_name:\tsys_enter\n";
    const MAP: &str =
        "map_type:\t27\nkey_size:\t0\nvalue_size:\t0\nmax_entries:\t262144\nmemlock:\t274744\nmap_id:\t9\n";

    #[test]
    fn programs_and_maps_count_once_and_links_do_not_count() {
        let mut held = Held::default();
        for text in [SAMPLER, LINK, MAP, SAMPLER, MAP, "pos:\t0\nflags:\t02\n"] {
            held.add(text);
        }
        assert_eq!(held.programs.len(), 1);
        assert_eq!(held.map_kib(), 274_744 / 1024);
        let sampler = held.sampler().expect("there is one sampler");
        assert_eq!(sampler.ns_per_run().expect("it ran"), 3000.0);
        assert_eq!(held.run_time_ns_since(&Held::default()), 12_000);
        assert_eq!(held.run_time_ns_since(&held), 0);
        assert_eq!(held.at_tracepoint("sys_enter").map(|program| program.runs), Some(4));
        assert_eq!(held.at_tracepoint("sys_exit"), None);
        assert_eq!(held.tracepoint_programs(), 0);
    }

    #[test]
    fn a_sampler_that_is_absent_or_never_ran_has_no_figure() {
        assert!(Held::default().sampler().is_err());
        assert!(ProgramRuns::default().ns_per_run().is_err());
    }
}
