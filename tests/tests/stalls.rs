//! What makes containers wait, and for how long: quotas, page faults, reclaim, disks, as the kernel's own books have it.
//!
//! Refuses: tolerance where the kernel has a number.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::cgroup::{ContainerCgroup, keyed};
use tests::endpoint;
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, utf8};

const MIB: usize = 1 << 20;

/// Readings of a file until the kernel accounts a possible time.
const READINGS_MAX: usize = 3;

fn stop(agent: Agent) {
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LC_ALL", "C");
    command
}

fn io_program() -> Program {
    Program::c("io.c", &[FRAME_POINTERS, &["-static", "-pthread"]].concat())
}

/// A file of this many bytes, on a disk and not in memory.
fn file_on_disk(directory: &TempDir, bytes: usize) -> PathBuf {
    let path = directory.path().join("data");
    tools::write_file(&path, &vec![b'x'; bytes]);
    let file = std::fs::File::open(&path).expect("it was written");
    file.sync_all().expect("a disk");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a page cache");
    path
}

/// The totals of a `*.pressure` file in seconds: `some` and `full`.
fn pressure(container: &ContainerCgroup, resource: &str) -> [f64; 2] {
    // Of hierarchies that no controller has, it is the unified one that has pressure.
    let text = container.text("pressure", &format!("{resource}.pressure"));
    ["some", "full"].map(|share| {
        let line = text.lines().find(|line| line.starts_with(share)).expect("PSI");
        let total_us = line.rsplit_once("total=").and_then(|(_, total)| total.parse::<f64>().ok());
        total_us.expect("PSI") / 1e6
    })
}

/// A container that has waited for everything and rests: each number is that of its file.
#[test]
fn what_has_waited_is_in_the_files() {
    let program = io_program();
    let directory = TempDir::new_in("/var/tmp").expect("a temporary directory on a disk");
    let data = file_on_disk(&directory, 24 * MIB);
    let container = ContainerCgroup::make("57a1");
    assert!(
        container.is_v1("cpu") && container.is_v1("memory") && container.is_v1("blkio"),
        "the hybrid layout"
    );
    container.account_io(directory.path());
    container.set("cpu", "cpu.cfs_quota_us", "20000");
    container.set("memory", "memory.limit_in_bytes", &(12 * MIB).to_string());
    let spin = Program::c("spin.c", FRAME_POINTERS);
    container.run(command(&[utf8(spin.path()), "1"]));
    let (from, to) = (format!("if={}", utf8(&data)), format!("of={}/out", utf8(directory.path())));
    container.run(command(&[
        "/usr/bin/dd",
        &from,
        &to,
        "bs=64k",
        "iflag=direct",
        "oflag=direct",
        "status=none",
    ]));
    container.run(command(&[utf8(program.path()), "faults", utf8(&data)]));
    let mut holder = container.enter(command(&[utf8(program.path()), "hold", "1", "1"]));
    assert_eq!(holder.line(), "ready");

    let (agent, endpoint) = endpoint::start(&[]);
    let page = endpoint.scrape_until("the container", |page| {
        !page.series("container_thread_number", &[container.label()]).is_empty()
    });
    let own = [container.label()];
    let cpu = container.text("cpu", "cpu.stat");
    for (name, cadvisor, key, scale) in [
        ("container_cpu_throttling_periods_total", "container_cpu_cfs_periods_total", "nr_periods", 1.0),
        (
            "container_cpu_throttling_throttled_periods_total",
            "container_cpu_cfs_throttled_periods_total",
            "nr_throttled",
            1.0,
        ),
        (
            "container_cpu_throttling_time_seconds_total",
            "container_cpu_cfs_throttled_seconds_total",
            "throttled_time",
            1e9,
        ),
    ] {
        let told = keyed(&cpu, key) / scale;
        assert!(told > 0.0, "{key}: {cpu}");
        assert_eq!(page.value(name, &own), told, "{name}");
        assert_eq!(page.value(cadvisor, &[("name", container.id())]), told, "{cadvisor}");
    }
    let major = container.statistic(["total_pgmajfault", "pgmajfault"]);
    let all = container.statistic(["total_pgfault", "pgfault"]);
    assert!(major >= (24 * MIB / 4096) as f64, "each page was read from the disk: {major}");
    let faults = page.by("container_paging_faults_total", &own, &["system_paging_fault_type"]);
    assert_eq!(faults, BTreeMap::from([("major".to_owned(), major), ("minor".to_owned(), all - major)]));
    for resource in ["cpu", "memory", "io"] {
        let [some, full] = pressure(&container, resource);
        let of = |share| {
            let labels = [
                container.label(),
                ("container_pressure_resource", resource),
                ("container_pressure_share", share),
            ];
            page.value("container_pressure_stall_time_seconds_total", &labels)
        };
        assert_eq!((of("some"), of("full")), (some, full), "{resource}");
        let name = [("name", container.id())];
        let cadvisor =
            |kind: &str| page.value(&format!("container_pressure_{resource}_{kind}_seconds_total"), &name);
        assert_eq!((cadvisor("waiting"), cadvisor("stalled")), (some, full), "{resource}");
        assert!(some > 0.0, "{resource}");
    }
    for (name, cadvisor, file) in [
        (
            "container_disk_io_bytes_total",
            ["container_fs_reads_bytes_total", "container_fs_writes_bytes_total"],
            "blkio.throttle.io_service_bytes_recursive",
        ),
        (
            "container_disk_operations_total",
            ["container_fs_reads_total", "container_fs_writes_total"],
            "blkio.throttle.io_serviced_recursive",
        ),
    ] {
        let told = container.blkio(file);
        let by = page.by(name, &own, &["disk_io_direction"]);
        assert_eq!((by["read"], by["write"]), (told[0], told[1]), "{name}");
        let sums = cadvisor.map(|name| page.sum(name, &[("name", container.id())]));
        assert_eq!(sums, told, "{cadvisor:?}");
        assert!(told[0] > 0.0 && told[1] > 0.0, "{file}: {told:?}");
    }
    stop(agent);
}

/// A `perf stat` of one process: what of these events happened to it.
struct PerfStat {
    child: Child,
    log: PathBuf,
    _directory: TempDir,
}

impl PerfStat {
    /// Attaches to a process that is held.
    fn attach(pid: u32, events: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let log = directory.path().join("log");
        let mut perf = Command::new(tools::require("perf", "linux-perf"));
        perf.args(["stat", "-x", ",", "-o", utf8(&log), "-e", &events.join(","), "-p", &pid.to_string()]);
        let child = perf.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("perf starts");
        let perf = Self { child, log, _directory: directory };
        let files = format!("/proc/{}/fd", perf.child.id());
        let counters = || {
            let links = std::fs::read_dir(&files).into_iter().flatten().flatten();
            let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
            targets.filter(|target| target.to_string_lossy().contains("[perf_event]")).count()
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while counters() < events.len() {
            assert!(Instant::now() < deadline, "perf does not attach");
            std::thread::sleep(Duration::from_millis(5));
        }
        perf
    }

    /// The counts, once the process has ended, in the order of the events.
    fn counts(mut self) -> Vec<f64> {
        assert!(self.child.wait().expect("our child").success());
        let text = std::fs::read_to_string(&self.log).expect("perf wrote it");
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split(',').next().unwrap_or_default().parse().expect("perf counts")).collect()
    }
}

/// A limit that a file's pages do not fit in: as often as perf counts, the writer has to make room by itself.
#[test]
fn reclaim_as_perf_counts() {
    let directory = TempDir::new_in("/var/tmp").expect("a temporary directory on a disk");
    let data = file_on_disk(&directory, 96 * MIB);
    let container = ContainerCgroup::make("57a2");
    container.set("memory", "memory.limit_in_bytes", &(16 * MIB).to_string());
    let (agent, endpoint) = endpoint::start(&[]);
    let from = format!("if={}", utf8(&data));
    let reader = container.hold(command(&["/usr/bin/dd", &from, "of=/dev/null", "bs=64k", "status=none"]));
    let events = ["vmscan:mm_vmscan_memcg_reclaim_begin", "vmscan:mm_vmscan_direct_reclaim_begin"];
    let perf = PerfStat::attach(reader.pid(), &events);
    let started = Instant::now();
    reader.let_go();
    reader.output();
    let ran_s = started.elapsed().as_secs_f64();
    let [of_cgroup, of_node] = perf.counts()[..] else { panic!("two counts") };
    assert!(of_cgroup > 50.0, "{of_cgroup} times");
    let page = endpoint.scrape_of(&container);
    let own = [container.label()];
    let counted = page.by("memory_reclaim_duration_seconds_count", &own, &["memory_reclaim_scope"]);
    let told = BTreeMap::from([("cgroup".to_owned(), of_cgroup), ("node".to_owned(), of_node)]);
    assert_eq!(counted, told.into_iter().filter(|(_, count)| *count > 0.0).collect());
    // Pressure is of the same order, but an average over CPUs by what they had to do, and without the waits for a CPU.
    let seconds = page.sum("memory_reclaim_duration_seconds_sum", &own);
    let [some, _] = pressure(&container, "memory");
    println!("reclaim {seconds} s, pressure {some} s");
    assert!(
        some > 0.0 && seconds > some * 0.3 && seconds < ran_s,
        "{seconds} s of {ran_s} s, pressure {some} s"
    );
    stop(agent);
}

/// The kernel's accounting of delays, which is off by default; as it was before, when the handle goes.
struct DelayAccounting {
    before: String,
}

impl DelayAccounting {
    const SWITCH: &str = "/proc/sys/kernel/task_delayacct";

    fn on() -> Self {
        let before = std::fs::read_to_string(Self::SWITCH).expect("CONFIG_TASK_DELAY_ACCT");
        std::fs::write(Self::SWITCH, "1").expect("root may");
        Self { before }
    }
}

impl Drop for DelayAccounting {
    fn drop(&mut self) {
        let _as_it_was = std::fs::write(Self::SWITCH, &self.before);
    }
}

/// What a program is said to have waited for its pages.
struct Faults {
    /// Major faults, as perf counts them.
    major: f64,
    /// Seconds, as the kernel accounts them.
    told: f64,
    /// Faults that slept, and their seconds, as the agent says.
    count: f64,
    seconds: f64,
    /// How long the program ran, seconds.
    passed: f64,
}

/// A program reads a file of which each page takes a fault.
fn read_by_faults(pages: usize) -> Faults {
    let program = io_program();
    let directory = TempDir::new_in("/var/tmp").expect("a temporary directory on a disk");
    let data = file_on_disk(&directory, pages * 4096);
    let container = ContainerCgroup::make("57a4");
    let (agent, endpoint) = endpoint::start(&[]);
    let reader = container.hold(command(&[utf8(program.path()), "faults", utf8(&data)]));
    let perf = PerfStat::attach(reader.pid(), &["major-faults"]);
    let started = Instant::now();
    reader.let_go();
    let stat = reader.output();
    let passed = started.elapsed().as_secs_f64();
    let major = perf.counts()[0];
    // proc(5): delayacct_blkio_ticks is the 42nd field, the third one comes after the name.
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("proc(5)").1.split(' ').collect();
    let told = fields[42 - 3].parse::<f64>().expect("ticks") / 100.0;
    let page = endpoint.scrape_of(&container);
    let count = page.value("memory_page_fault_duration_seconds_count", &[container.label()]);
    let seconds = page.value("memory_page_fault_duration_seconds_sum", &[container.label()]);
    println!("{count} of {major} faults slept {seconds} s, the kernel accounts {told} s of {passed} s");
    stop(agent);
    Faults { major, told, count, seconds, passed }
}

/// A file of which each page is read by a fault: all of them are in the histogram, with the time that the kernel accounts.
#[test]
fn page_faults_as_the_kernel_accounts_them() {
    const PAGES: usize = 32 * MIB / 4096;
    let _accounting = DelayAccounting::on();
    // Accounting that is switched on while a task sleeps gives it a sleep since the machine's start: that is read again.
    let faults = (0..READINGS_MAX).map(|_| read_by_faults(PAGES)).find(|faults| faults.told <= faults.passed);
    let Faults { major, told, count, seconds, .. } =
        faults.expect("a time that is no longer than the program's");
    assert!(major >= PAGES as f64, "{major} major faults");
    // A page may be there before its reader would sleep.
    assert!((major * 0.95..=major).contains(&count), "{count} sleeps in {major} faults");
    assert!((seconds - told).abs() <= 0.02 + told * 0.05, "{seconds} s, the kernel says {told} s");
}

/// Two processes of one container, apart: each has what it did itself.
#[test]
fn processes_apart() {
    let container = ContainerCgroup::make("57a3");
    let (agent, endpoint) = endpoint::start(&["io.by_process=true"]);
    let words = |count| ["/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1k", "status=none", count];
    let mut told = BTreeMap::new();
    for (count, blocks) in [("count=300", 300.0), ("count=500", 500.0)] {
        let process = container.enter(command(&words(count)));
        told.insert(format!("{} dd", process.pid()), blocks);
        process.output();
    }
    let page = endpoint.scrape_of(&container);
    let labels = ["process_pid", "process_executable_name"];
    for operation in ["read", "write"] {
        let of =
            [container.label(), ("syscall_operation", operation), ("syscall_descriptor", "character_device")];
        assert_eq!(page.by("syscall_io_operations_total", &of, &labels), told, "{operation}");
        let bytes = told.iter().map(|(process, blocks)| (process.clone(), blocks * 1024.0)).collect();
        assert_eq!(page.by("syscall_io_bytes_total", &of, &labels), bytes, "{operation}");
        assert_eq!(page.by("syscall_io_duration_seconds_count", &of, &labels), told, "{operation}");
    }
    stop(agent);
}
