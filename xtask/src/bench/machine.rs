//! The machine that the figures hold for.
//!
//! Refuses: anything that changes between two runs on the same machine.

use std::fs;

use super::numbers::mib;
use super::tools::first_line;

/// What a reader needs to compare machines.
pub struct Machine {
    pub kernel: String,
    pub cpu_model: String,
    pub cpus: usize,
    pub memory_mib: String,
}

impl Machine {
    pub fn find() -> Self {
        Self {
            kernel: first_line("uname", &["-srm"]),
            cpu_model: field("/proc/cpuinfo", "model name"),
            cpus: cpus(),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .strip_suffix(" kB")
                .and_then(|kib| kib.trim().parse().ok())
                .map_or("unknown".to_owned(), mib),
        }
    }
}

/// The CPUs that workloads can use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get())
}

/// The first `name : value` of a file; some architectures name no CPU model.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = values.filter(|(key, _)| key.trim() == name);
    values.next().map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
}
