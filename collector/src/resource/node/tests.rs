//! The whole collection: of fixture trees, of garbage, and of the machine that runs the tests.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::*;
use crate::telemetry::{Owner, Point, Value, Vocabulary};

const S: u64 = 1_000_000_000;
const BOOT_S: u64 = 1_700_000_000;
const NOW: u64 = (BOOT_S + 1000) * S;

/// A host of two CPUs (one of three is offline), two disks and two interfaces: each file, the areas that are lost
/// without it, and its text.
const HOST: &[(&str, &str, &str)] = &[
    (
        "proc/stat",
        "cpu stat",
        "cpu  11 2 3 4 5 6 7 8 9 10\ncpu0 100 200 300 400 500 600 700 800 900 1000\ncpu2 1 1 1 1 1 1 1 1 0 0\n\
         intr 22 1\nctxt 33\nbtime 1700000000\nprocesses 44\nprocs_running 2\nprocs_blocked 1\n",
    ),
    ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "", "0\n"),
    ("sys/devices/system/cpu/cpu0/topology/core_id", "", "0\n"),
    ("sys/devices/system/cpu/cpu2/topology/physical_package_id", "", "0\n"),
    ("sys/devices/system/cpu/cpu2/topology/core_id", "", "0\n"),
    ("proc/loadavg", "loadavg", "1.42 1.73 1.41 1/105 29661\n"),
    (
        "proc/meminfo",
        "meminfo",
        "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nBuffers: 50 kB\nCached: 250 kB\n\
         Active(anon): 7 kB\nHugePages_Total: 3\nSReclaimable: 20 kB\nSUnreclaim: 10 kB\nSlab: 30 kB\n\
         SwapTotal: 80 kB\nSwapFree: 60 kB\nNewInLinux9: 5 kB\n",
    ),
    (
        "proc/vmstat",
        "vmstat",
        "nr_free_pages 1\npgpgin 10\npgpgout 11\npswpin 12\npswpout 13\npgfault 100\npgmajfault 30\noom_kill 2\n",
    ),
    (
        "proc/diskstats",
        "diskstats",
        " 8 0 sda 1 2 3 4 5 6 7 8 9 1000 11 12 13 14 15 16 17\n 8 1 sda1 1 2 3 4 5 6 7 8 9 10 11\n\
         7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n 253 0 dm-0 1 2 3 4 5 6 7 8 9 10 11\n",
    ),
    (
        "proc/1/net/dev",
        "",
        "Inter-| Receive | Transmit\n face |bytes|bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
         \x20   lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
    ),
    // What the agent's own namespace has must not be taken when the host's is there.
    ("proc/self/net/dev", "", "1\n2\n wrong0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"),
    ("sys/class/net/eth0/operstate", "", "up\n"),
    ("sys/class/net/eth0/flags", "", "0x1003\n"),
    ("sys/class/net/eth0/mtu", "", "1500\n"),
    ("sys/class/net/eth0/speed", "", "1000\n"),
    ("sys/class/net/eth0/carrier_changes", "", "3\n"),
    ("sys/class/net/eth0/address", "", "02:00:00:00:00:01\n"),
    ("sys/class/net/lo/operstate", "", "unknown\n"),
    ("sys/class/net/lo/speed", "", "-1\n"),
    ("proc/1/net/netstat", "netstat", "TcpExt: ListenDrops TW\nTcpExt: 4 5\n"),
    ("proc/1/net/snmp", "netstat", "Tcp: MaxConn CurrEstab\nTcp: -1 7\n"),
    ("proc/1/net/snmp6", "", "Ip6InOctets 12\n"),
    ("proc/1/net/sockstat", "sockstat", "sockets: used 15\nTCP: inuse 1 orphan 0 tw 6 alloc 1 mem 2\n"),
    ("proc/1/net/sockstat6", "", "TCP6: inuse 9\n"),
    (
        "proc/1/mountinfo",
        "filesystem",
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n2 1 0:9 / /gone ro - tmpfs tmpfs rw\n\
         3 1 0:7 / /nfs rw - nfs4 host:/ rw\n4 1 0:3 / /proc rw - proc proc rw\n",
    ),
    (
        "proc/pressure/cpu",
        "",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 total=0\n",
    ),
    ("proc/pressure/memory", "", "some avg10=0.00 total=1000000\nfull avg10=0.00 total=500000\n"),
    ("proc/pressure/io", "", "some avg10=0.00 total=3000000\nfull avg10=0.00 total=2000000\n"),
    ("proc/schedstat", "schedstat", "version 15\ncpu0 0 0 0 0 0 0 2000000000 1000000000 5\n"),
    ("proc/sys/fs/file-nr", "filefd", "1024\t0\t4096\n"),
    ("proc/sys/kernel/hostname", "uname", "node-1\n"),
    ("proc/sys/kernel/osrelease", "uname", "6.18.0\n"),
    ("proc/sys/kernel/ostype", "uname", "Linux\n"),
    ("proc/sys/kernel/version", "uname", "#1 SMP\n"),
    ("proc/uptime", "time", "1000.25 1.00\n"),
    ("proc/sys/kernel/random/entropy_avail", "entropy", "256\n"),
    ("proc/sys/kernel/random/poolsize", "entropy", "256\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "conntrack", "17\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "conntrack", "262144\n"),
];

fn write(root: &Path, file: &str, text: impl AsRef<[u8]>) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn host() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, _, text) in HOST {
        write(folder.path(), file, text);
    }
    folder
}

/// `name{label="value",...}` of each series with its value and start.
fn series(metrics: &[Metric]) -> Vec<(String, f64, u64)> {
    let of = |metric: &Metric, point: &Point| {
        let labels: Vec<String> =
            point.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let Value::Number(value) = point.value else { panic!("{}", metric.name) };
        (format!("{}{{{}}}", metric.name, labels.join(",")), value, point.start_unix_ns)
    };
    metrics.iter().flat_map(|metric| metric.points.iter().map(move |point| of(metric, point))).collect()
}

fn value(metrics: &[Metric], name: &str) -> f64 {
    find(metrics, name).unwrap_or_else(|| panic!("no {name}")).1
}

fn find(metrics: &[Metric], name: &str) -> Option<(String, f64, u64)> {
    series(metrics).into_iter().find(|(found, _, _)| found == name)
}

fn success(metrics: &[Metric], area: &str) -> f64 {
    value(metrics, &format!("node_scrape_collector_success{{collector={area}}}"))
}

/// What holds for every collection of every host.
fn check_form(metrics: &[Metric], now: u64) {
    let mut names = std::collections::HashSet::new();
    let mut all = std::collections::HashSet::new();
    for metric in metrics {
        assert!(names.insert((metric.name.clone(), metric.vocabulary)), "twice: {}", metric.name);
        let is_node = metric.vocabulary == Vocabulary::NodeExporter;
        assert!(metric.name.starts_with(if is_node { "node_" } else { "system." }), "{}", metric.name);
        assert!(!metric.points.is_empty(), "empty: {}", metric.name);
        assert_eq!(
            metric.name.ends_with("_total"),
            is_node && metric.kind == MetricKind::Counter,
            "{}",
            metric.name
        );
        let has_start = matches!(metric.kind, MetricKind::Counter | MetricKind::UpDownCounter);
        for point in &metric.points {
            assert_eq!(point.owner, Owner::Host);
            assert_eq!(point.start_unix_ns > 0, has_start, "{}", metric.name);
            assert!(point.start_unix_ns <= now, "{} starts in the future", metric.name);
            let Value::Number(value) = point.value else { panic!("{}", metric.name) };
            assert!(value.is_finite() && value >= 0.0, "{} {value}", metric.name);
        }
    }
    for (name, _, _) in series(metrics) {
        assert!(all.insert(name.clone()), "twice: {name}");
    }
}

#[test]
fn a_host() {
    let folder = host();
    let mut node = NodeResources::new(folder.path().to_path_buf());
    let metrics = node.collect(NOW);
    check_form(&metrics, NOW);
    let problems: Vec<_> = node.problems().iter().map(|(area, error)| format!("{area}: {error:#}")).collect();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(node.cut, 0);
    for (name, expected) in [
        ("node_cpu_seconds_total{cpu=0,mode=user}", 1.0),
        ("node_cpu_seconds_total{cpu=0,mode=softirq}", 7.0),
        ("node_cpu_seconds_total{cpu=2,mode=idle}", 0.01),
        ("node_cpu_guest_seconds_total{cpu=0,mode=nice}", 10.0),
        ("system.cpu.time{cpu.logical_number=0,cpu.mode=interrupt}", 13.0),
        ("system.cpu.logical.count{}", 2.0),
        ("system.cpu.physical.count{}", 1.0),
        ("node_boot_time_seconds{}", BOOT_S as f64),
        ("node_context_switches_total{}", 33.0),
        ("node_forks_total{}", 44.0),
        ("node_intr_total{}", 22.0),
        ("node_procs_running{}", 2.0),
        ("node_procs_blocked{}", 1.0),
        ("system.process.created{}", 44.0),
        ("node_load1{}", 1.42),
        ("node_load15{}", 1.41),
        ("system.cpu.load_average.5m{}", 1.73),
        ("node_memory_MemTotal_bytes{}", 1_024_000.0),
        ("node_memory_Active_anon_bytes{}", 7168.0),
        ("node_memory_HugePages_Total{}", 3.0),
        ("node_memory_NewInLinux9_bytes{}", 5120.0),
        ("system.memory.usage{system.memory.state=used}", 614_400.0),
        ("system.memory.utilization{system.memory.state=used}", 0.6),
        ("system.memory.linux.available{}", 409_600.0),
        ("system.memory.linux.slab.usage{system.memory.linux.slab.state=unreclaimable}", 10_240.0),
        ("system.paging.usage{system.paging.state=used}", 20_480.0),
        ("node_vmstat_pgmajfault{}", 30.0),
        ("node_vmstat_oom_kill{}", 2.0),
        ("system.paging.faults{system.paging.fault.type=minor}", 70.0),
        ("system.paging.operations{system.paging.fault.type=major,system.paging.direction=out}", 13.0),
        ("node_disk_read_bytes_total{device=sda}", 1536.0),
        ("node_disk_io_time_seconds_total{device=sda}", 1.0),
        ("node_disk_io_time_weighted_seconds_total{device=sda}", 0.011),
        ("node_disk_io_now{device=sda}", 9.0),
        ("node_disk_flush_requests_total{device=sda}", 16.0),
        ("node_disk_info{device=dm-0,major=253,minor=0}", 1.0),
        ("system.disk.io{system.device=dm-0,disk.io.direction=write}", 3584.0),
        ("node_network_receive_drop_total{device=eth0}", 4.0),
        ("node_network_transmit_carrier_total{device=eth0}", 15.0),
        ("system.network.io{network.interface.name=eth0,network.io.direction=transmit}", 9.0),
        ("node_network_up{device=eth0}", 1.0),
        ("node_network_up{device=lo}", 0.0),
        ("node_network_mtu_bytes{device=eth0}", 1500.0),
        ("node_network_speed_bytes{device=eth0}", 125e6),
        ("node_network_flags{device=eth0}", 4099.0),
        ("node_network_carrier_changes_total{device=eth0}", 3.0),
        (
            "node_network_info{device=eth0,address=02:00:00:00:00:01,adminstate=up,broadcast=,duplex=,ifalias=,\
             operstate=up}",
            1.0,
        ),
        ("node_netstat_Tcp_CurrEstab{}", 7.0),
        ("node_netstat_TcpExt_ListenDrops{}", 4.0),
        ("node_netstat_Ip6_InOctets{}", 12.0),
        ("node_sockstat_sockets_used{}", 15.0),
        ("node_sockstat_TCP_mem_bytes{}", 2.0 * procfs::page_size() as f64),
        ("node_sockstat_TCP6_inuse{}", 9.0),
        ("system.network.connection.count{network.connection.state=time_wait,network.transport=tcp}", 6.0),
        ("node_filesystem_readonly{device=/dev/sda1,fstype=ext4,mountpoint=/}", 0.0),
        ("node_filesystem_device_error{device=/dev/sda1,fstype=ext4,mountpoint=/}", 0.0),
        ("node_filesystem_mount_info{device=/dev/sda1,major=8,minor=1,mountpoint=/}", 1.0),
        ("node_pressure_cpu_waiting_seconds_total{}", 2.5),
        ("node_pressure_memory_stalled_seconds_total{}", 0.5),
        ("node_pressure_io_stalled_seconds_total{}", 2.0),
        ("system.linux.psi.total_time{system.psi.resource=io,system.psi.stall_type=some}", 3.0),
        ("node_schedstat_running_seconds_total{cpu=0}", 2.0),
        ("node_schedstat_timeslices_total{cpu=0}", 5.0),
        ("node_filefd_allocated{}", 1024.0),
        ("node_filefd_maximum{}", 4096.0),
        ("node_time_seconds{}", (BOOT_S + 1000) as f64),
        ("system.uptime{}", 1000.25),
        ("node_entropy_available_bits{}", 256.0),
        ("node_nf_conntrack_entries{}", 17.0),
        ("node_nf_conntrack_entries_limit{}", 262_144.0),
    ] {
        let found = value(&metrics, name);
        assert!((found - expected).abs() < 1e-9 * expected.max(1.0), "{name}: {found}, not {expected}");
    }
    for missing in [
        "node_disk_read_bytes_total{device=sda1}",
        "node_disk_read_bytes_total{device=loop0}",
        "node_disk_flush_requests_total{device=dm-0}",
        "node_network_receive_bytes_total{device=wrong0}",
        "node_network_speed_bytes{device=lo}",
        "node_filesystem_device_error{device=host:/,fstype=nfs4,mountpoint=/nfs}",
    ] {
        assert_eq!(find(&metrics, missing), None);
    }
    assert!(series(&metrics).iter().any(|(name, one, _)| {
        *one == 1.0 && name.starts_with("node_filesystem_device_error{device=tmpfs,device_error=")
    }));
    assert!(series(&metrics).iter().all(|(_, _, start)| [0, BOOT_S * S].contains(start)));
}

/// The fixture's fields are numbered.
#[test]
fn no_field_is_another() {
    let folder = host();
    let metrics = NodeResources::new(folder.path().to_path_buf()).collect(NOW);
    let network = "receive_bytes receive_packets receive_errs receive_drop receive_fifo receive_frame receive_compressed \
                   receive_multicast transmit_bytes transmit_packets transmit_errs transmit_drop transmit_fifo \
                   transmit_colls transmit_carrier transmit_compressed";
    for (field, name) in network.split(' ').enumerate() {
        let name = format!("node_network_{name}_total{{device=eth0}}");
        assert_eq!(value(&metrics, &name), field as f64 + 1.0, "{name}");
    }
    let disk = [
        ("reads_completed_total", 1.0),
        ("reads_merged_total", 2.0),
        ("read_bytes_total", 3.0 * 512.0),
        ("read_time_seconds_total", 0.004),
        ("writes_completed_total", 5.0),
        ("writes_merged_total", 6.0),
        ("written_bytes_total", 7.0 * 512.0),
        ("write_time_seconds_total", 0.008),
        ("io_now", 9.0),
        ("io_time_seconds_total", 1.0),
        ("io_time_weighted_seconds_total", 0.011),
        ("discards_completed_total", 12.0),
        ("discards_merged_total", 13.0),
        ("discarded_sectors_total", 14.0),
        ("discard_time_seconds_total", 0.015),
        ("flush_requests_total", 16.0),
        ("flush_requests_time_seconds_total", 0.017),
    ];
    for (name, expected) in disk {
        let name = format!("node_disk_{name}{{device=sda}}");
        assert!((value(&metrics, &name) - expected).abs() < 1e-9, "{name}");
    }
    let modes = "user nice system idle iowait irq softirq steal";
    for (field, mode) in modes.split(' ').enumerate() {
        let name = format!("node_cpu_seconds_total{{cpu=0,mode={mode}}}");
        assert_eq!(value(&metrics, &name), field as f64 + 1.0, "{name}");
    }
}

#[test]
fn the_states_of_a_filesystem_are_its_size() {
    let folder = host();
    let metrics = NodeResources::new(folder.path().to_path_buf()).collect(NOW);
    let sum = |prefix: &str| {
        let of = series(&metrics).into_iter().filter(|(name, _, _)| name.starts_with(prefix));
        of.map(|(_, value, _)| value).sum::<f64>()
    };
    assert!(sum("system.filesystem.limit{") > 0.0);
    assert_eq!(sum("system.filesystem.usage{"), sum("system.filesystem.limit{"));
    assert!((sum("system.filesystem.utilization{") - 1.0).abs() < 1e-9);
}

#[test]
fn counters_that_go_back_begin_anew() {
    let folder = host();
    let mut node = NodeResources::new(folder.path().to_path_buf());
    node.collect(NOW);
    write(folder.path(), "proc/diskstats", " 8 0 sda 1 2 0 4 5 6 7 8 9 1000 11 12 13 14 15 16 17\n");
    let metrics = node.collect(NOW + 10 * S);
    check_form(&metrics, NOW + 10 * S);
    let start = |name: &str| find(&metrics, name).unwrap().2;
    assert_eq!(start("node_disk_reads_completed_total{device=sda}"), NOW);
    assert_eq!(start("system.disk.io{system.device=sda,disk.io.direction=write}"), NOW);
    assert_eq!(start("node_network_receive_bytes_total{device=eth0}"), BOOT_S * S);
}

#[test]
fn idle_time_that_falls_a_little_stays() {
    let folder = host();
    let mut node = NodeResources::new(folder.path().to_path_buf());
    node.collect(NOW);
    let fallen = HOST[0].2.replace("300 400", "300 399");
    write(folder.path(), "proc/stat", fallen);
    let found = find(&node.collect(NOW + S), "node_cpu_seconds_total{cpu=0,mode=idle}").unwrap();
    assert_eq!((found.1, found.2), (4.0, BOOT_S * S));
    write(folder.path(), "proc/stat", HOST[0].2.replace("300 400", "300 10"));
    let found = find(&node.collect(NOW + 2 * S), "node_cpu_seconds_total{cpu=0,mode=idle}").unwrap();
    assert_eq!((found.1, found.2), (0.1, NOW + S));
}

#[test]
fn the_clock_is_set() {
    let folder = host();
    let mut node = NodeResources::new(folder.path().to_path_buf());
    for (now_s, boot_s) in [(1000, 0), (4610, 3600), (500, 0), (0, 7200)] {
        let now = (BOOT_S + now_s) * S;
        let boot = format!("btime {}", BOOT_S + boot_s);
        write(folder.path(), "proc/stat", HOST[0].2.replace("btime 1700000000", &boot));
        check_form(&node.collect(now), now);
    }
}

#[test]
fn each_file_alone_missing_or_broken() {
    let folder = host();
    for (file, lost, whole) in HOST {
        fs::remove_file(folder.path().join(file)).unwrap();
        let mut node = NodeResources::new(folder.path().to_path_buf());
        let metrics = node.collect(NOW);
        check_form(&metrics, NOW);
        let mut failed: Vec<&str> = node.problems().iter().map(|(area, _)| *area).collect();
        failed.sort_unstable();
        assert_eq!(failed.join(" "), *lost, "{file}");
        for area in failed {
            assert_eq!(success(&metrics, area), 0.0);
        }
        for broken in [&b""[..], b"\0\xff\xfe garbage \n\n : = - 1", &whole.as_bytes()[..whole.len() / 2]] {
            write(folder.path(), file, broken);
            let now = NOW + S;
            check_form(&NodeResources::new(folder.path().to_path_buf()).collect(now), now);
        }
        write(folder.path(), file, whole);
    }
}

#[test]
fn nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeResources::new(folder.path().to_path_buf());
    let mut metrics = node.collect(NOW);
    // The clock is asked for by a system call.
    assert_eq!(success(&metrics, "timex"), 1.0);
    metrics.retain(|metric| !metric.name.starts_with("node_timex_"));
    assert_eq!(metrics.len(), 1);
    let failed = metrics[0].points.iter().filter(|point| point.value == Value::Number(0.0)).count();
    // Besides, a host without arrays of disks is complete.
    assert_eq!(success(&metrics, "mdadm"), 1.0);
    assert_eq!((failed, metrics[0].points.len()), (node.problems().len(), failed + 2));
}

#[test]
fn too_many() {
    let folder = host();
    let disks: String = (0..300).map(|disk| format!(" 8 0 dm-{disk} 1 2 3 4 5 6 7 8 9 10 11\n")).collect();
    write(folder.path(), "proc/diskstats", disks);
    let cpus: String = (0..1030).map(|cpu| format!("cpu{cpu} 1 1 1 1 1 1 1 1 0 0\n")).collect();
    write(folder.path(), "proc/stat", format!("{cpus}btime 1700000000\n"));
    let mut node = NodeResources::new(folder.path().to_path_buf());
    let metrics = node.collect(NOW);
    let count = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().points.len();
    assert_eq!(count("node_disk_io_now"), 256);
    assert_eq!(count("node_cpu_seconds_total"), 1024 * 8);
    assert_eq!(node.cut, 44 + 6);
}

fn here() -> (NodeResources, Vec<Metric>, u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut node = NodeResources::new("/".into());
    let metrics = node.collect(now);
    (node, metrics, now)
}

#[test]
fn this_machine_has_what_dashboards_ask_for() {
    let (node, metrics, now) = here();
    check_form(&metrics, now);
    assert_eq!(node.cut, 0);
    for name in [
        "node_boot_time_seconds",
        "node_timex_sync_status",
        "node_timex_maxerror_seconds",
        "node_context_switches_total",
        "node_cpu_seconds_total",
        "node_disk_io_time_seconds_total",
        "node_disk_io_time_weighted_seconds_total",
        "node_disk_read_bytes_total",
        "node_disk_written_bytes_total",
        "node_filefd_allocated",
        "node_filesystem_avail_bytes",
        "node_filesystem_device_error",
        "node_filesystem_files",
        "node_filesystem_files_free",
        "node_filesystem_free_bytes",
        "node_filesystem_readonly",
        "node_filesystem_size_bytes",
        "node_load1",
        "node_load15",
        "node_load5",
        "node_memory_Buffers_bytes",
        "node_memory_Cached_bytes",
        "node_memory_MemAvailable_bytes",
        "node_memory_MemFree_bytes",
        "node_memory_MemTotal_bytes",
        "node_memory_Slab_bytes",
        "node_memory_SwapTotal_bytes",
        "node_netstat_Tcp_CurrEstab",
        "node_network_info",
        "node_network_receive_bytes_total",
        "node_network_receive_drop_total",
        "node_network_receive_errs_total",
        "node_network_receive_packets_total",
        "node_network_transmit_bytes_total",
        "node_network_transmit_drop_total",
        "node_network_transmit_errs_total",
        "node_network_up",
        "node_scrape_collector_success",
        "node_sockstat_TCP_tw",
        "node_time_seconds",
        "node_uname_info",
        "node_vmstat_pgmajfault",
        "node_vmstat_pgpgin",
    ] {
        let is_there =
            |metric: &&Metric| metric.name == name && metric.vocabulary == Vocabulary::NodeExporter;
        assert!(metrics.iter().any(|metric| is_there(&metric)), "no {name}");
    }
}

/// The values are those of the files, read before and after.
#[test]
fn this_machine_agrees_with_its_files() {
    let number = |file: &str, key: &str, column: usize| {
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(key)).unwrap();
        line.split_ascii_whitespace().nth(column).unwrap().parse::<f64>().unwrap()
    };
    let rows: [(&str, &str, usize, f64, &str); 6] = [
        ("/proc/stat", "ctxt", 1, 1.0, "node_context_switches_total{}"),
        ("/proc/stat", "processes", 1, 1.0, "node_forks_total{}"),
        ("/proc/stat", "cpu0", 1, 0.01, "node_cpu_seconds_total{cpu=0,mode=user}"),
        ("/proc/vmstat", "pgfault", 1, 1.0, "node_vmstat_pgfault{}"),
        ("/proc/meminfo", "MemTotal:", 1, 1024.0, "node_memory_MemTotal_bytes{}"),
        ("/proc/net/dev", "lo:", 1, 1.0, "node_network_receive_bytes_total{device=lo}"),
    ];
    let read = || rows.map(|(file, key, column, scale, _)| number(file, key, column) * scale);
    let before = read();
    let (_, metrics, _) = here();
    let after = read();
    for ((before, after), (_, _, _, _, name)) in before.iter().zip(after).zip(rows) {
        let found = value(&metrics, name);
        assert!(before - 1e-6 <= found && found <= after + 1e-6, "{name}: {before} {found} {after}");
    }
    let root = rustix::fs::statvfs("/").unwrap();
    let size = root.f_blocks as f64 * root.f_frsize as f64;
    let of_root = |(name, _, _): &(String, f64, u64)| {
        name.starts_with("node_filesystem_size_bytes{") && name.ends_with(",mountpoint=/}")
    };
    assert!(series(&metrics).iter().filter(|series| of_root(series)).any(|(_, value, _)| *value == size));
}

/// CPU time of one collection after the first, microseconds.
fn cost_us(node: &mut NodeResources, now: u64) -> u64 {
    const ROUNDS: u64 = 20;
    let cpu_ns = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as u64 * S + time.tv_nsec as u64
    };
    let begin = cpu_ns();
    for round in 1..=ROUNDS {
        node.collect(now + round * 10 * S);
    }
    (cpu_ns() - begin) / ROUNDS / 1000
}

#[test]
fn one_collection_is_cheap() {
    let (mut node, metrics, now) = here();
    let points: usize = metrics.iter().map(|metric| metric.points.len()).sum();
    let one_us = cost_us(&mut node, now);
    println!("{points} series, {one_us} us CPU");
    // Ten times the target, because tests are not optimised and share the machine.
    assert!(one_us < 20_000, "{one_us} us");
}

/// What a host with 128 CPUs and 300 interfaces costs; printed, because it depends on the machine.
#[test]
fn a_big_host() {
    let folder = host();
    let cpus: String =
        (0..128).map(|cpu| format!("cpu{cpu} 1234567 1 34567 9876543 1 1 1 1 0 0\n")).collect();
    write(folder.path(), "proc/stat", format!("{cpus}{}", HOST[0].2.split_once("0 0\n").unwrap().1));
    let line = |interface: usize| format!(" veth{interface}: 1234567 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    write(folder.path(), "proc/1/net/dev", format!("1\n2\n{}", (0..300).map(line).collect::<String>()));
    for interface in 0..300 {
        for (file, text) in
            [("operstate", "up"), ("carrier_changes", "2"), ("mtu", "1500"), ("flags", "0x1003")]
        {
            write(folder.path(), &format!("sys/class/net/veth{interface}/{file}"), text);
        }
    }
    let mut node = NodeResources::new(folder.path().to_path_buf());
    let points: usize = node.collect(NOW).iter().map(|metric| metric.points.len()).sum();
    assert!(points > 128 * 17 + 300 * 24, "{points}");
    assert_eq!(node.cut, 0);
    println!("{points} series, {} us CPU", cost_us(&mut node, NOW));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    #[test]
    fn any_bytes_in_any_file(
        file in 0..HOST.len(),
        from in 0.0..1.0f64,
        junk in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
    ) {
        let folder = host();
        let (file, _, whole) = HOST[file];
        let kept = (whole.len() as f64 * from) as usize;
        write(folder.path(), file, [&whole.as_bytes()[..kept], &junk].concat());
        let metrics = NodeResources::new(folder.path().to_path_buf()).collect(NOW);
        assert!(series(&metrics).iter().all(|(_, _, start)| *start <= NOW));
        let names: std::collections::HashSet<_> = metrics.iter().map(|metric| &metric.name).collect();
        assert_eq!(names.len(), metrics.len());
    }
}
