//! The figures: their names, what each measures, and what it must reach.
//!
//! Refuses: measuring; each figure has a file.

use anyhow::Result;

use super::setup::Bench;
use super::{agent_cpu, crash, growth, io, kernel_time, memory, names, parsers, throughput, traces};

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    KernelTime,
    AgentCpu,
    Memory,
    Throughput,
    Growth,
    Crash,
    Io,
    Names,
    Traces,
    Parsers,
}

/// What a figure found.
pub struct Measured {
    /// In a few words, for the summary.
    pub summary: String,
    /// `None` where there is nothing to reach, or nothing to compare with.
    pub is_met: Option<bool>,
    /// The section's text in Markdown.
    pub text: String,
}

impl Figure {
    pub const ALL: [Self; 10] = [
        Self::KernelTime,
        Self::AgentCpu,
        Self::Memory,
        Self::Throughput,
        Self::Growth,
        Self::Crash,
        Self::Io,
        Self::Names,
        Self::Traces,
        Self::Parsers,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::KernelTime => "kernel-time",
            Self::AgentCpu => "agent-cpu",
            Self::Memory => "memory",
            Self::Throughput => "throughput",
            Self::Growth => "growth",
            Self::Crash => "crash",
            Self::Io => "io",
            Self::Names => "names",
            Self::Traces => "traces",
            Self::Parsers => "parsers",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::KernelTime => "Kernel time per sample",
            Self::AgentCpu => "The agent's processor time",
            Self::Memory => "The agent's memory",
            Self::Throughput => "Throughput of the observed programs",
            Self::Growth => "Growth by processes and frequency",
            Self::Crash => "Crashes",
            Self::Io => "I/O and many containers",
            Self::Names => "Names of Kubernetes",
            Self::Traces => "Spans",
            Self::Parsers => "Parsers of protocols",
        }
    }

    pub fn target(self) -> String {
        match self {
            Self::KernelTime => "not above bpftrace's (ratio <= 1)".to_owned(),
            Self::AgentCpu => format!("<= {} % of one CPU", agent_cpu::TARGET_PERCENT_MAX),
            Self::Memory => format!("<= {} MiB resident", memory::TARGET_MIB_MAX),
            Self::Throughput => format!("ratio >= {}", throughput::TARGET_RATIO_MIN),
            Self::Growth => "none".to_owned(),
            Self::Crash => crash::target(),
            Self::Io => io::target(),
            Self::Names => names::target(),
            Self::Traces => traces::target(),
            Self::Parsers => "none".to_owned(),
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.name() == name)
    }

    pub fn names() -> String {
        Self::ALL.map(Self::name).join("|")
    }

    pub fn measure(self, bench: &Bench) -> Result<Measured> {
        match self {
            Self::KernelTime => kernel_time::measure(bench),
            Self::AgentCpu => agent_cpu::measure(bench),
            Self::Memory => memory::measure(bench),
            Self::Throughput => throughput::measure(bench),
            Self::Growth => growth::measure(bench),
            Self::Crash => crash::measure(bench),
            Self::Io => io::measure(bench),
            Self::Names => names::measure(bench),
            Self::Traces => traces::measure(bench),
            Self::Parsers => parsers::measure(bench),
        }
    }
}
