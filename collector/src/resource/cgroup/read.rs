//! Reads what one cgroup uses, from each hierarchy that has it.
//!
//! A file that is not there (a cgroup that just went, a controller that is off) leaves its numbers absent. Limits,
//! peaks and counts of processes change slowly or cost much, and are read when asked for only. Refuses: sums over
//! children of its own, for the kernel's numbers include them (but `cgroup.procs`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::directory::Buffers;
use super::hierarchy::{Hierarchies, Hierarchy, Version};
use super::hot::{Hot, Sums};
use super::parse::{self, IoUnit};
use super::usage::{CgroupUsage, CpuUsage, MemoryUsage, PressureUsage};

/// Cgroups below one whose processes are looked for.
const DESCENDANTS_MAX: usize = 64;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Processor time and memory.
    Changing,
    /// Pressure, I/O, threads and OOM kills, too.
    Most,
    /// Limits, peaks, rare events and processes, too.
    All,
}

/// Where a cgroup is found.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The hierarchies that it may be in.
    pub hierarchies: &'a Hierarchies,
    /// Its path there.
    pub path: &'a str,
    /// What of it is kept open.
    pub hot: Option<&'a Hot>,
}

/// Reads a cgroup into `usage`, where slow numbers of before stay if they are not in `scope`; `sums` is what is known of it
/// already. Whether any hierarchy has the cgroup.
pub fn read(
    place: Place<'_>,
    scope: Scope,
    sums: Option<Sums>,
    buffers: &mut Buffers,
    usage: &mut CgroupUsage,
) -> bool {
    let before = (usage.cpu, usage.memory);
    forget(usage, scope);
    let Place { hierarchies, path, hot } = place;
    let mut is_there = false;
    for (number, hierarchy) in hierarchies.by_reading() {
        let is_wanted = scope >= Scope::Most
            || hierarchy.has_cpu_time
            || hierarchy.has_memory
            || (hierarchy.has_cpu && usage.cpu.limit_cores().is_some());
        if !is_wanted {
            continue;
        }
        let directory = hot.and_then(|hot| hot.directory(number));
        let mut cgroup =
            Cgroup { hierarchy, path, directory, scope, sums, before: &before, buffers, is_there: false };
        match hierarchy.version {
            Version::V1 => cgroup.read_v1(hierarchy, usage),
            Version::V2 => cgroup.read_v2(hierarchy, usage),
        }
        is_there |= cgroup.is_there;
    }
    if scope == Scope::All {
        usage.tasks.processes = processes(hierarchies, path, buffers);
    }
    // A cgroup may stand only in hierarchies that this reading had no use for, or without a file that it wanted.
    is_there || hierarchies.all().iter().any(|hierarchy| hierarchy.open_cgroup(path).is_some())
}

/// The processes of the cgroup and of those below it, in the first hierarchy that has it.
fn processes(hierarchies: &Hierarchies, path: &str, buffers: &mut Buffers) -> Option<u64> {
    hierarchies.all().iter().find_map(|hierarchy| {
        let mut processes = None;
        each_procs(hierarchy, path, buffers, |text| {
            *processes.get_or_insert(0) += parse::count_lines(text);
            false
        });
        processes
    })
}

/// A process of the cgroup or of one below it.
pub fn first_process(hierarchies: &Hierarchies, path: &str, buffers: &mut Buffers) -> Option<u32> {
    let mut found = None;
    for hierarchy in hierarchies.all() {
        each_procs(hierarchy, path, buffers, |text| {
            found = parse::first_pid(text);
            found.is_some()
        });
        if found.is_some() {
            break;
        }
    }
    found
}

/// Calls `visit` with the `cgroup.procs` of the cgroup, then of those below, until it says that it has enough.
fn each_procs(
    hierarchy: &Hierarchy,
    path: &str,
    buffers: &mut Buffers,
    mut visit: impl FnMut(&[u8]) -> bool,
) {
    let mut waiting: Vec<OwnedFd> = hierarchy.open_cgroup(path).into_iter().collect();
    let mut next = 0;
    while let Some(directory) = waiting.get(next) {
        next += 1;
        if buffers.read(directory.as_fd(), c"cgroup.procs").is_some_and(&mut visit) {
            return;
        }
        // Most have no children, which the number of links tells without a look at forty files.
        if rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_nlink == 2) || path == "/" {
            continue;
        }
        let mut below = Vec::new();
        buffers.subdirectories(directory.as_fd(), |name| {
            if next + below.len() < DESCENDANTS_MAX {
                below.push(name.to_owned());
            }
        });
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
        let open = |name| rustix::fs::openat(&waiting[next - 1], name, flags, rustix::fs::Mode::empty()).ok();
        let mut opened: Vec<OwnedFd> = below.into_iter().filter_map(open).collect();
        waiting.append(&mut opened);
    }
}

/// Makes absent what is about to be read.
fn forget(usage: &mut CgroupUsage, scope: Scope) {
    if scope == Scope::All {
        *usage = CgroupUsage { io: usage.io.take(), ..CgroupUsage::default() };
    }
    let (cpu, memory) = (usage.cpu, usage.memory);
    usage.cpu = CpuUsage {
        quota_us: cpu.quota_us,
        period_us: cpu.period_us,
        shares: cpu.shares,
        ..CpuUsage::default()
    };
    usage.memory = MemoryUsage {
        peak_bytes: memory.peak_bytes,
        limit_bytes: memory.limit_bytes,
        reservation_bytes: memory.reservation_bytes,
        high_bytes: memory.high_bytes,
        limit_hits: memory.limit_hits,
        kernel_bytes: memory.kernel_bytes,
        sock_bytes: memory.sock_bytes,
        ..MemoryUsage::default()
    };
    if scope < Scope::Most {
        usage.memory.oom_events = memory.oom_events;
        usage.memory.oom_kills = memory.oom_kills;
        return;
    }
    usage.tasks.threads = None;
    usage.pressure = PressureUsage::default();
    // The room of the list is kept.
    if let Some(io) = &mut usage.io {
        io.clear();
    }
}

struct Cgroup<'a> {
    hierarchy: &'a Hierarchy,
    path: &'a str,
    /// Its directory, if that is open.
    directory: Option<BorrowedFd<'a>>,
    scope: Scope,
    /// What the files said that are kept open.
    sums: Option<Sums>,
    /// What was read before: most containers rest between two readings, and sums that did not change spare the files with
    /// their parts. Without processor time no page is faulted in, so that the counts of faults rest too.
    before: &'a (CpuUsage, MemoryUsage),
    buffers: &'a mut Buffers,
    /// Whether any file was there.
    is_there: bool,
}

impl Cgroup<'_> {
    fn text(&mut self, name: &std::ffi::CStr) -> Option<&[u8]> {
        let text = match self.directory {
            Some(directory) => self.buffers.read(directory, name),
            None => self.buffers.read_below(self.hierarchy.root(), self.path, name),
        };
        self.is_there |= text.is_some();
        text
    }

    /// Whether a sum is what it was, and its parts need not be read.
    fn rests(&self, now: Option<u64>, before: Option<u64>) -> bool {
        self.scope == Scope::Changing && now.is_some() && now == before
    }

    fn number(&mut self, name: &std::ffi::CStr) -> Option<u64> {
        self.text(name).and_then(parse::number)
    }

    fn read_v1(&mut self, hierarchy: &Hierarchy, usage: &mut CgroupUsage) {
        if hierarchy.has_cpu_time {
            usage.cpu.total_ns = self.sums.map(|sums| sums.cpu_ns).or_else(|| self.number(c"cpuacct.usage"));
            if self.rests(usage.cpu.total_ns, self.before.0.total_ns) {
                usage.cpu.user_ns = self.before.0.user_ns;
                usage.cpu.system_ns = self.before.0.system_ns;
            } else if let Some(text) = self.text(c"cpuacct.stat") {
                parse::cpuacct_stat(text, procfs::ticks_per_second(), &mut usage.cpu);
            }
        }
        if hierarchy.has_cpu {
            self.cpu_v1(&mut usage.cpu);
        }
        if hierarchy.has_memory {
            let is_idle = self.rests(usage.cpu.total_ns, self.before.0.total_ns);
            self.memory_v1(&mut usage.memory, is_idle);
        }
        if hierarchy.has_pids && self.scope >= Scope::Most {
            self.tasks(usage);
        }
        if hierarchy.has_io && self.scope >= Scope::Most {
            let files = [
                (c"blkio.throttle.io_service_bytes_recursive", IoUnit::Bytes),
                (c"blkio.throttle.io_serviced_recursive", IoUnit::Operations),
            ];
            for (file, unit) in files {
                if let Some(text) = self.text(file) {
                    parse::blkio(text, unit, usage.io.get_or_insert_default());
                }
            }
        }
    }

    fn cpu_v1(&mut self, cpu: &mut CpuUsage) {
        if self.scope == Scope::All {
            cpu.quota_us = self.text(c"cpu.cfs_quota_us").and_then(parse::limit);
            cpu.period_us = self.number(c"cpu.cfs_period_us");
            cpu.shares = self.number(c"cpu.shares");
        }
        // Without a quota there are no periods to count.
        if cpu.quota_us.is_some_and(|quota| quota.at().is_some())
            && let Some(text) = self.text(c"cpu.stat")
        {
            parse::cpu_stat(text, false, cpu);
        }
    }

    fn memory_v1(&mut self, memory: &mut MemoryUsage, is_idle: bool) {
        let known = self.sums.map(|sums| sums.memory_bytes);
        memory.usage_bytes = known.or_else(|| self.number(c"memory.usage_in_bytes"));
        if is_idle && self.rests(memory.usage_bytes, self.before.1.usage_bytes) {
            *memory = self.before.1;
        } else if let Some(text) = self.text(c"memory.stat") {
            parse::memory_stat_v1(text, memory);
        }
        if self.scope >= Scope::Most
            && let Some(text) = self.text(c"memory.oom_control")
        {
            parse::memory_events(text, memory);
        }
        if self.scope == Scope::All {
            memory.limit_bytes = self.text(c"memory.limit_in_bytes").and_then(parse::limit);
            let soft = self.text(c"memory.soft_limit_in_bytes").and_then(parse::limit);
            memory.reservation_bytes = soft.and_then(|soft| soft.at());
            memory.peak_bytes = self.number(c"memory.max_usage_in_bytes");
            memory.limit_hits = self.number(c"memory.failcnt");
            memory.kernel_bytes = self.number(c"memory.kmem.usage_in_bytes");
            memory.sock_bytes = self.number(c"memory.kmem.tcp.usage_in_bytes");
        }
    }

    fn read_v2(&mut self, hierarchy: &Hierarchy, usage: &mut CgroupUsage) {
        if (hierarchy.has_cpu || hierarchy.has_cpu_time)
            && let Some(text) = self.text(c"cpu.stat")
        {
            parse::cpu_stat(text, hierarchy.has_cpu_time, &mut usage.cpu);
        }
        if hierarchy.has_cpu && self.scope == Scope::All {
            if let Some(text) = self.text(c"cpu.max") {
                parse::cpu_max(text, &mut usage.cpu);
            }
            usage.cpu.shares = self.number(c"cpu.weight").and_then(parse::shares_of_weight);
        }
        if hierarchy.has_memory {
            let is_idle = self.rests(usage.cpu.total_ns, self.before.0.total_ns);
            self.memory_v2(&mut usage.memory, is_idle);
        }
        if hierarchy.has_pids && self.scope >= Scope::Most {
            self.tasks(usage);
        }
        if hierarchy.has_io
            && self.scope >= Scope::Most
            && let Some(text) = self.text(c"io.stat")
        {
            parse::io_stat(text, usage.io.get_or_insert_default());
        }
        if hierarchy.has_pressure && self.scope >= Scope::Most {
            let pressure = &mut usage.pressure;
            pressure.cpu = self.text(c"cpu.pressure").map(parse::pressure).unwrap_or_default();
            pressure.memory = self.text(c"memory.pressure").map(parse::pressure).unwrap_or_default();
            pressure.io = self.text(c"io.pressure").map(parse::pressure).unwrap_or_default();
        }
    }

    fn memory_v2(&mut self, memory: &mut MemoryUsage, is_idle: bool) {
        let known = self.sums.map(|sums| sums.memory_bytes);
        memory.usage_bytes = known.or_else(|| self.number(c"memory.current"));
        if is_idle && self.rests(memory.usage_bytes, self.before.1.usage_bytes) {
            *memory = self.before.1;
            return;
        }
        memory.swap_bytes = self.number(c"memory.swap.current");
        if let Some(text) = self.text(c"memory.stat") {
            parse::memory_stat_v2(text, memory);
        }
        // It holds `limit_hits` too, which a reading of less must not lose.
        if self.scope >= Scope::Most
            && let Some(text) = self.text(c"memory.events")
        {
            parse::memory_events(text, memory);
        }
        if self.scope == Scope::All {
            memory.limit_bytes = self.text(c"memory.max").and_then(parse::limit);
            memory.high_bytes = self.text(c"memory.high").and_then(parse::limit);
            let low = self.text(c"memory.low").and_then(parse::limit);
            memory.reservation_bytes = low.and_then(|low| low.at());
            memory.peak_bytes = self.number(c"memory.peak");
        }
    }

    fn tasks(&mut self, usage: &mut CgroupUsage) {
        usage.tasks.threads = self.number(c"pids.current");
        if self.scope == Scope::All {
            usage.tasks.threads_limit = self.text(c"pids.max").and_then(parse::limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::cgroup::usage::Limit;
    use std::path::Path;

    fn write(place: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = place.join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("writable");
            std::fs::write(path, text).expect("writable");
        }
    }

    fn usage(hierarchies: &Hierarchies, scope: Scope, usage: &mut CgroupUsage) -> bool {
        // The same by paths, and from open directories where there are some.
        let hot = Hot::open(hierarchies, "/pod/c1");
        let mut by_directory = usage.clone();
        let mut place = Place { hierarchies, path: "/pod/c1", hot: hot.as_ref() };
        let is_there = read(place, scope, None, &mut Buffers::default(), &mut by_directory);
        place.hot = None;
        assert_eq!(read(place, scope, None, &mut Buffers::default(), usage), is_there);
        assert_eq!(*usage, by_directory);
        is_there
    }

    #[test]
    fn v1() {
        let place = tempfile::tempdir().expect("a directory");
        write(
            place.path(),
            &[
                ("cpu,cpuacct/pod/c1/cpuacct.usage", "5000\n"),
                ("cpu,cpuacct/pod/c1/cpuacct.stat", "user 3\nsystem 1\n"),
                ("cpu,cpuacct/pod/c1/cpu.cfs_quota_us", "50000\n"),
                ("cpu,cpuacct/pod/c1/cpu.cfs_period_us", "100000\n"),
                ("cpu,cpuacct/pod/c1/cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 9\n"),
                ("memory/pod/c1/memory.usage_in_bytes", "1000\n"),
                ("memory/pod/c1/memory.stat", "rss 1\ntotal_rss 600\ntotal_inactive_file 300\npgfault 7\n"),
                ("memory/pod/c1/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/pod/c1/memory.failcnt", "garbage\n"),
                ("memory/pod/c1/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("memory/pod/c1/cgroup.procs", ""),
                ("memory/pod/c1/init/cgroup.procs", "12\n13\n"),
                ("blkio/pod/c1/blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\nTotal 10\n"),
            ],
        );
        let at = |name: &str| place.path().join(name);
        let (cpu, memory, blkio) = (at("cpu,cpuacct"), at("memory"), at("blkio"));
        let hierarchies = Hierarchies::at(
            &[(&["cpu", "cpuacct"], &cpu), (&["memory"], &memory), (&["blkio"], &blkio)],
            None,
        );
        let hierarchies = hierarchies.expect("there");
        let mut found = CgroupUsage::default();
        assert!(usage(&hierarchies, Scope::All, &mut found));
        assert_eq!((found.cpu.total_ns, found.cpu.limit_cores()), (Some(5000), Some(0.5)));
        assert_eq!((found.cpu.user_ns, found.cpu.throttled_ns), (Some(30_000_000), Some(9)));
        let memory = found.memory;
        assert_eq!((memory.rss_bytes, memory.working_set_bytes()), (Some(600), Some(700)));
        assert_eq!((memory.limit_bytes, memory.limit_hits), (Some(Limit::Unlimited), None));
        assert_eq!((memory.oom_kills, memory.own_faults, memory.available_bytes()), (Some(3), Some(7), None));
        assert_eq!((found.tasks.processes, found.tasks.threads), (Some(2), None));
        assert_eq!(found.io.as_ref().map(|io| io[0].read_bytes), Some(Some(10)));
        assert_eq!(found.pressure, PressureUsage::default());
        assert_eq!(first_process(&hierarchies, "/pod/c1", &mut Buffers::default()), Some(12));

        // A file that vanished: absent, not the number of before, and not zero. Limits stay.
        std::fs::remove_file(place.path().join("memory/pod/c1/memory.usage_in_bytes")).expect("there");
        assert!(usage(&hierarchies, Scope::Changing, &mut found));
        assert_eq!((found.memory.usage_bytes, found.memory.working_set_bytes()), (None, None));
        assert_eq!((found.memory.limit_bytes, found.tasks.processes), (Some(Limit::Unlimited), Some(2)));
        for hierarchy in ["cpu,cpuacct", "memory", "blkio"] {
            std::fs::remove_dir_all(place.path().join(hierarchy).join("pod/c1")).expect("there");
        }
        assert!(!usage(&hierarchies, Scope::Changing, &mut found));
    }

    #[test]
    fn v2() {
        let place = tempfile::tempdir().expect("a directory");
        write(
            place.path(),
            &[
                ("cgroup.controllers", "cpu io memory pids\n"),
                ("pod/c1/cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 1\n"),
                ("pod/c1/cpu.max", "max 100000\n"),
                ("pod/c1/cpu.weight", "100\n"),
                ("pod/c1/memory.current", "1000\n"),
                ("pod/c1/memory.max", "4000\n"),
                ("pod/c1/memory.high", "max\n"),
                ("pod/c1/memory.stat", "anon 5\nfile 6\ninactive_file 2000\nkernel 9\nsock 1\n"),
                ("pod/c1/memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n"),
                ("pod/c1/pids.current", "7\n"),
                ("pod/c1/pids.max", "max\n"),
                ("pod/c1/io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
                ("pod/c1/memory.pressure", "some avg10=0.00 total=5\nfull avg10=0.00 total=2\n"),
                ("pod/c1/cgroup.procs", "0\n"),
            ],
        );
        let hierarchies = Hierarchies::at(&[], Some(place.path())).expect("there");
        let mut found = CgroupUsage::default();
        assert!(usage(&hierarchies, Scope::All, &mut found));
        assert_eq!((found.cpu.total_ns, found.cpu.periods), (Some(10_000), Some(1)));
        assert_eq!((found.cpu.limit_cores(), found.cpu.shares), (None, Some(2597)));
        let memory = found.memory;
        assert_eq!((memory.working_set_bytes(), memory.available_bytes()), (Some(0), Some(4000)));
        assert_eq!((memory.limit_hits, memory.oom_events, memory.oom_kills), (Some(4), Some(2), Some(1)));
        assert_eq!((memory.high_bytes, memory.peak_bytes), (Some(Limit::Unlimited), None));
        assert_eq!((found.tasks.threads, found.tasks.threads_limit), (Some(7), Some(Limit::Unlimited)));
        assert_eq!((found.pressure.memory.some_us, found.pressure.cpu.some_us), (Some(5), None));
        assert_eq!(first_process(&hierarchies, "/pod/c1", &mut Buffers::default()), None);
    }

    #[test]
    fn hybrid_takes_times_of_v1_and_pressure_of_v2() {
        let place = tempfile::tempdir().expect("a directory");
        write(
            place.path(),
            &[
                ("cpuacct/pod/c1/cpuacct.usage", "77\n"),
                ("unified/pod/c1/cpu.stat", "usage_usec 0\nuser_usec 0\n"),
                ("unified/pod/c1/io.pressure", "some avg10=0.00 total=6\n"),
            ],
        );
        let (cpuacct, unified) = (place.path().join("cpuacct"), place.path().join("unified"));
        let hierarchies = Hierarchies::at(&[(&["cpuacct"], &cpuacct)], Some(&unified)).expect("there");
        let mut found = CgroupUsage::default();
        assert!(usage(&hierarchies, Scope::All, &mut found));
        assert_eq!((found.cpu.total_ns, found.cpu.user_ns), (Some(77), None));
        assert_eq!((found.pressure.io.some_us, found.memory.usage_bytes, &found.io), (Some(6), None, &None));
        std::fs::remove_dir_all(cpuacct.join("pod")).expect("there");
        assert!(usage(&hierarchies, Scope::Changing, &mut found), "there is the other hierarchy");
        assert_eq!((found.cpu.total_ns, found.pressure.io.some_us), (None, Some(6)));
        assert!(usage(&hierarchies, Scope::All, &mut found));
        assert_eq!(found.cpu.total_ns, None, "absent in one hierarchy");
    }
}
