//! The two files of a cgroup that tell whether it did anything since it was looked at: its processor time and its memory.
//!
//! Kept open, because opening costs four times the reading; an open file of a cgroup holds up nothing of its container, and
//! says so when the cgroup is gone. So are its directories in all hierarchies: from there the other files are opened
//! without the four directories above. Refuses: more open files than [`files_max`]; what comes later is opened each time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, pread};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::hierarchy::{Hierarchies, Version};
use super::parse;
use super::usage::{CgroupUsage, CpuUsage};

/// Files that are kept open, and directories: on v1 of 2,340 cgroups with two and five of these, so of 1,170 containers and their
/// pods. The kernel keeps some 4 KiB for each file, and a few hundred bytes for a directory.
const FILES_MAX: usize = 16_384;

/// Descriptors that everything else of the agent may need: connections, maps, files of symbols. Of few a quarter is taken
/// nevertheless.
const DESCRIPTORS_LEFT: u64 = 4_096;

/// Bytes of one of these files; `cpu.stat` of v2 has about 300.
const FILE_BYTES_MAX: usize = 1_024;

/// How many files may be kept open, of the descriptors that this process may have, which are made as many as the system
/// allows.
pub fn files_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let has_raised = setrlimit(Resource::Nofile, raised).is_ok();
    let descriptors = if has_raised { limit.maximum } else { limit.current };
    descriptors.map_or(FILES_MAX, files_of)
}

/// How many files may be kept open of so many descriptors.
fn files_of(descriptors: u64) -> usize {
    let most = descriptors.saturating_sub(DESCRIPTORS_LEFT).max(descriptors / 4);
    usize::try_from(most).unwrap_or(FILES_MAX).min(FILES_MAX)
}

/// The files of one cgroup.
pub struct Hot {
    cpu: OwnedFd,
    /// Whether the file with the processor time is `cpu.stat`, which has more than that.
    has_cpu_stat: bool,
    memory: OwnedFd,
    /// By the number of their hierarchy.
    directories: Vec<(usize, OwnedFd)>,
}

/// The sums that the files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Processor time, nanoseconds.
    pub cpu_ns: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// What the files said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was used since.
    Rests,
    /// Something was: the sums now, if they could be read.
    Changed(Option<Sums>),
    /// The cgroup is gone.
    Gone,
}

impl Hot {
    /// Opens the files; `None` where a hierarchy does not have them.
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Option<Self> {
        let mut cpu = None;
        let mut memory = None;
        let mut directories = Vec::with_capacity(hierarchies.all().len());
        for (number, hierarchy) in hierarchies.all().iter().enumerate() {
            let Some(directory) = hierarchy.open_cgroup(path) else { continue };
            let open =
                |name| openat(directory.as_fd(), name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
            let is_v2 = hierarchy.version == Version::V2;
            if hierarchy.has_cpu_time && cpu.is_none() {
                cpu = open(if is_v2 { "cpu.stat" } else { "cpuacct.usage" }).map(|file| (file, is_v2));
            }
            if hierarchy.has_memory && memory.is_none() {
                memory = open(if is_v2 { "memory.current" } else { "memory.usage_in_bytes" });
            }
            directories.push((number, directory));
        }
        let (cpu, has_cpu_stat) = cpu?;
        Some(Self { cpu, has_cpu_stat, memory: memory?, directories })
    }

    /// How many files and directories are open.
    pub fn files(&self) -> usize {
        2 + self.directories.len()
    }

    /// The directory in a hierarchy, if it is kept open.
    pub fn directory(&self, hierarchy: usize) -> Option<BorrowedFd<'_>> {
        let found = self.directories.iter().find(|(number, _)| *number == hierarchy);
        found.map(|(_, directory)| directory.as_fd())
    }

    /// Whether anything was used since `usage` was read.
    pub fn state(&self, usage: &CgroupUsage) -> State {
        let mut bytes = [0; FILE_BYTES_MAX];
        let cpu_ns = match read(&self.cpu, &mut bytes) {
            Err(Errno::NODEV) => return State::Gone,
            Err(_) => return State::Changed(None),
            Ok(text) if self.has_cpu_stat => {
                let mut cpu = CpuUsage::default();
                parse::cpu_stat(text, true, &mut cpu);
                cpu.total_ns
            }
            Ok(text) => parse::number(text),
        };
        let memory_bytes = match read(&self.memory, &mut bytes) {
            Err(Errno::NODEV) => return State::Gone,
            text => text.ok().and_then(parse::number),
        };
        let (Some(cpu_ns), Some(memory_bytes)) = (cpu_ns, memory_bytes) else { return State::Changed(None) };
        let is_as_before =
            usage.cpu.total_ns == Some(cpu_ns) && usage.memory.usage_bytes == Some(memory_bytes);
        if is_as_before { State::Rests } else { State::Changed(Some(Sums { cpu_ns, memory_bytes })) }
    }
}

fn read<'a>(file: &OwnedFd, bytes: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let length = pread(file, &mut *bytes, 0)?;
    Ok(&bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn check(place: &Path, hot: &Hot, cpu: &str, memory: &str, expected: State) {
        std::fs::write(place.join("cpuacct/c/cpuacct.usage"), cpu).expect("writable");
        std::fs::write(place.join("memory/c/memory.usage_in_bytes"), memory).expect("writable");
        let mut usage = CgroupUsage::default();
        usage.cpu.total_ns = Some(50);
        usage.memory.usage_bytes = Some(70);
        assert_eq!(hot.state(&usage), expected, "{cpu} {memory}");
    }

    #[test]
    fn other_files_have_room() {
        let found = [1024, 4096, 6000, 20_000, 1 << 20].map(files_of);
        assert_eq!(found, [256, 1024, 1904, 15_904, FILES_MAX]);
    }

    #[test]
    fn what_rests_and_what_does_not() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        for (directory, file) in [("cpuacct/c", "cpuacct.usage"), ("memory/c", "memory.usage_in_bytes")] {
            std::fs::create_dir_all(at(directory)).expect("writable");
            std::fs::write(at(directory).join(file), "0\n").expect("writable");
        }
        let (cpuacct, memory) = (at("cpuacct"), at("memory"));
        let hierarchies = Hierarchies::at(&[(&["cpuacct"], &cpuacct), (&["memory"], &memory)], None);
        let hierarchies = hierarchies.expect("two directories");
        assert!(Hot::open(&hierarchies, "/none").is_none());
        let hot = Hot::open(&hierarchies, "/c").expect("both files");
        assert!(hot.directory(0).is_some() && hot.directory(1).is_some() && hot.directory(2).is_none());
        check(place.path(), &hot, "50\n", "70\n", State::Rests);
        let changed = |cpu_ns, memory_bytes| State::Changed(Some(Sums { cpu_ns, memory_bytes }));
        check(place.path(), &hot, "51\n", "70\n", changed(51, 70));
        check(place.path(), &hot, "50\n", "71\n", changed(50, 71));
        check(place.path(), &hot, "garbage", "70\n", State::Changed(None));
    }
}
