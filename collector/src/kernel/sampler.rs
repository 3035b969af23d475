//! The perf events that drive the on-CPU sampler, one for each online CPU.
//!
//! Hardware cycles where the machine counts them (no wake-ups of idle CPUs), else the software CPU clock. Refuses:
//! CPUs that are offline, and a mix of both sources.

use std::io;
use std::os::fd::RawFd;

use perf_event::events::{Hardware, Software};
use perf_event::{Builder, Counter};

use super::hook::Hook;

/// Bounds of the sample ring, all CPUs together.
const RING_BYTES_MIN: u64 = 256 * 1024;
const RING_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The ring holds the samples of this long, at half the largest size: five turns of the pipeline.
const RING_HOLDS_MS: u64 = 500;

/// Half of a sample with two stacks of 127 frames.
const SAMPLE_BYTES_TYPICAL: u64 = 1_024;

/// What makes the CPU take a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleSource {
    /// `PERF_COUNT_HW_CPU_CYCLES`
    Cycles,
    /// `PERF_COUNT_SW_CPU_CLOCK`
    CpuClock,
}

impl SampleSource {
    /// The name in perf's vocabulary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cycles => "cycles",
            Self::CpuClock => "cpu-clock",
        }
    }
}

/// Bytes of the sample ring: a power of two that holds half a second of samples of all CPUs.
pub fn sample_ring_bytes(cpus: usize, frequency_hz: u32) -> u32 {
    let samples = cpus.max(1) as u64 * u64::from(frequency_hz) * RING_HOLDS_MS / 1_000;
    let bytes = (samples * SAMPLE_BYTES_TYPICAL).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
    u32::try_from(bytes.next_power_of_two()).unwrap_or(RING_BYTES_MAX as u32)
}

/// The open events.
pub struct CpuSampler {
    events: Vec<(u32, Counter)>,
    source: SampleSource,
    frequency_hz: u32,
    program: RawFd,
}

impl CpuSampler {
    /// Opens an event on each CPU and attaches the program; `None` if the kernel refuses, which the hook explains.
    pub fn attach(program: RawFd, cpus: &[u32], frequency_hz: u32, hook: &mut Hook) -> Option<Self> {
        let open_all = |source: SampleSource| {
            let mut sampler = Self { events: Vec::new(), source, frequency_hz, program };
            for &cpu in cpus {
                match sampler.open(cpu) {
                    Err(error) if !is_offline(&error) => return Err(error),
                    _ => {}
                }
            }
            if sampler.events.is_empty() {
                return Err(io::Error::other("no CPU is online"));
            }
            Ok(sampler)
        };
        hook.attempt("perf_event hardware cycles", || open_all(SampleSource::Cycles))
            .or_else(|| hook.attempt("perf_event software CPU clock", || open_all(SampleSource::CpuClock)))
    }

    /// What drives the samples.
    pub fn source(&self) -> SampleSource {
        self.source
    }

    /// Follows the CPUs that are online now; returns those that could not be opened.
    ///
    /// An event of a CPU that went offline is dead for good: it is dropped here and opened anew when the CPU is back.
    pub fn set_cpus(&mut self, cpus: &[u32]) -> Vec<(u32, io::Error)> {
        self.events.retain(|(cpu, _)| cpus.contains(cpu));
        let new = cpus.iter().filter(|&&cpu| self.events.iter().all(|&(known, _)| known != cpu));
        let new: Vec<u32> = new.copied().collect();
        let failed = new.into_iter().filter_map(|cpu| self.open(cpu).err().map(|error| (cpu, error)));
        failed.filter(|(_, error)| !is_offline(error)).collect()
    }

    fn open(&mut self, cpu: u32) -> io::Result<()> {
        let mut builder = match self.source {
            SampleSource::Cycles => Builder::new(Hardware::CPU_CYCLES),
            SampleSource::CpuClock => Builder::new(Software::CPU_CLOCK),
        };
        let mut event = builder
            .any_pid()
            .one_cpu(cpu as usize)
            .include_kernel()
            .exclude_idle(true)
            .sample_frequency(u64::from(self.frequency_hz))
            .build()?;
        event.set_bpf(self.program)?;
        event.enable()?;
        self.events.push((cpu, event));
        Ok(())
    }
}

/// Whether a CPU went offline since it was listed: perf_event_open(2) says ENODEV then. It is tried again later.
pub fn is_offline(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cpus: usize, frequency_hz: u32, expected_kib: u32) {
        assert_eq!(
            sample_ring_bytes(cpus, frequency_hz),
            expected_kib * 1024,
            "{cpus} CPUs at {frequency_hz} Hz"
        );
    }

    #[test]
    fn ring_bytes_by_cpus_and_frequency() {
        check(0, 97, 256);
        check(2, 97, 256);
        check(2, 997, 1_024);
        check(64, 97, 4_096);
        check(256, 97, 16_384);
        check(256, 997, 65_536);
        check(4_096, 10_000, 65_536);
    }
}
