//! Readings in the words of cAdvisor, as the kubelet shows them on `/metrics/cadvisor`.
//!
//! Source: cAdvisor docs/storage/prometheus.md. The labels `id`, `name`, `image`, `namespace`, `pod` and `container` are
//! left out where they are empty. Refuses: families that dashboards do not use, such as sectors and sockets.

use std::sync::Arc;

use super::{Family, Label, Machine, Reading, counter, float, gauge, seconds_of_ns, seconds_of_us};
use crate::resource::cgroup::CgroupKey;
use crate::resource::cgroup::device::DeviceNames;
use crate::resource::cgroup::start::Group;
use crate::resource::cgroup::usage::{DeviceIo, InterfaceUsage, Limit};
use crate::telemetry::{LabelledCgroup, Metric, MetricKind, Owner, Point, Text, Vocabulary};

const FAMILIES: [Family; 35] = [
    counter(
        "container_cpu_user_seconds_total",
        "s",
        "Cumulative user cpu time consumed in seconds.",
        Group::Cpu,
        |reading| seconds_of_ns(reading.usage.cpu.user_ns),
    ),
    counter(
        "container_cpu_system_seconds_total",
        "s",
        "Cumulative system cpu time consumed in seconds.",
        Group::Cpu,
        |reading| seconds_of_ns(reading.usage.cpu.system_ns),
    ),
    counter(
        "container_cpu_cfs_periods_total",
        "1",
        "Number of elapsed enforcement period intervals.",
        Group::Cpu,
        |reading| float(reading.usage.cpu.periods.filter(|_| has_quota(reading))),
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "1",
        "Number of throttled period intervals.",
        Group::Cpu,
        |reading| float(reading.usage.cpu.throttled_periods.filter(|_| has_quota(reading))),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "s",
        "Total time duration the container has been throttled.",
        Group::Cpu,
        |reading| seconds_of_ns(reading.usage.cpu.throttled_ns.filter(|_| has_quota(reading))),
    ),
    gauge("container_spec_cpu_quota", "us", "CPU quota of the container.", |reading| {
        float(reading.usage.cpu.quota_us.and_then(Limit::at))
    }),
    gauge("container_spec_cpu_period", "us", "CPU period of the container.", |reading| {
        float(reading.usage.cpu.period_us)
    }),
    gauge("container_spec_cpu_shares", "1", "CPU share of the container.", |reading| {
        float(reading.usage.cpu.shares)
    }),
    gauge(
        "container_memory_usage_bytes",
        "By",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |reading| float(reading.usage.memory.usage_bytes),
    ),
    gauge("container_memory_working_set_bytes", "By", "Current working set in bytes.", |reading| {
        float(reading.usage.memory.working_set_bytes())
    }),
    gauge("container_memory_rss", "By", "Size of RSS in bytes.", |reading| {
        float(reading.usage.memory.rss_bytes)
    }),
    gauge("container_memory_cache", "By", "Number of bytes of page cache memory.", |reading| {
        float(reading.usage.memory.cache_bytes)
    }),
    gauge("container_memory_mapped_file", "By", "Size of memory mapped files in bytes.", |reading| {
        float(reading.usage.memory.mapped_bytes)
    }),
    gauge("container_memory_swap", "By", "Container swap usage in bytes.", |reading| {
        float(reading.usage.memory.swap_bytes)
    }),
    gauge("container_memory_kernel_usage", "By", "Size of kernel memory allocated in bytes.", |reading| {
        float(reading.usage.memory.kernel_bytes)
    }),
    counter(
        "container_memory_failcnt",
        "1",
        "Number of memory usage hits limits",
        Group::Memory,
        |reading| float(reading.usage.memory.limit_hits),
    ),
    gauge("container_memory_max_usage_bytes", "By", "Maximum memory usage recorded in bytes", |reading| {
        float(reading.usage.memory.peak_bytes)
    }),
    gauge("container_spec_memory_limit_bytes", "By", "Memory limit for the container.", |reading| {
        unlimited_is_zero(reading.usage.memory.limit_bytes)
    }),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "By",
        "Memory reservation limit for the container.",
        |reading| {
            reading.usage.memory.limit_bytes?;
            Some(reading.usage.memory.reservation_bytes.unwrap_or(0) as f64)
        },
    ),
    counter(
        "container_oom_events_total",
        "1",
        "Count of out of memory events observed for the container",
        Group::Memory,
        |reading| float(reading.usage.memory.oom_kills),
    ),
    gauge("container_processes", "1", "Number of processes running inside the container.", |reading| {
        float(reading.usage.tasks.processes)
    }),
    gauge("container_threads", "1", "Number of threads running inside the container", |reading| {
        float(reading.usage.tasks.threads)
    }),
    gauge(
        "container_threads_max",
        "1",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |reading| unlimited_is_zero(reading.usage.tasks.threads_limit),
    ),
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "s",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        Group::Pressure,
        |reading| seconds_of_us(reading.usage.pressure.cpu.some_us),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "s",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        Group::Pressure,
        |reading| seconds_of_us(reading.usage.pressure.cpu.full_us),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "s",
        "Total time duration tasks in the container have waited due to memory congestion.",
        Group::Pressure,
        |reading| seconds_of_us(reading.usage.pressure.memory.some_us),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "s",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        Group::Pressure,
        |reading| seconds_of_us(reading.usage.pressure.memory.full_us),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "s",
        "Total time duration tasks in the container have waited due to IO congestion.",
        Group::Pressure,
        |reading| seconds_of_us(reading.usage.pressure.io.some_us),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "s",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        Group::Pressure,
        |reading| seconds_of_us(reading.usage.pressure.io.full_us),
    ),
    gauge("container_last_seen", "s", "Last time a container was seen by the exporter", |reading| {
        Some((reading.time_unix_ns / 1_000_000_000) as f64)
    }),
    gauge(
        "container_start_time_seconds",
        "s",
        "Start time of the container since unix epoch in seconds.",
        |reading| Some((reading.start_unix_ns / 1_000_000_000) as f64),
    ),
    // The four of file systems and the total of processor time have one more label each.
    counter(
        "container_cpu_usage_seconds_total",
        "s",
        "Cumulative cpu time consumed in seconds.",
        Group::Cpu,
        |reading| seconds_of_ns(reading.usage.cpu.total_ns),
    ),
    gauge(
        "container_fs_limit_bytes",
        "By",
        "Number of bytes that can be consumed by the container on this filesystem.",
        |reading| float(reading.filesystem.map(|filesystem| filesystem.capacity_bytes)),
    ),
    gauge(
        "container_fs_usage_bytes",
        "By",
        "Number of bytes that are consumed by the container on this filesystem.",
        |reading| float(reading.filesystem.and_then(|filesystem| filesystem.layer_bytes)),
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "By",
        "Current total inactive file in bytes.",
        |reading| float(reading.usage.memory.inactive_file_bytes),
    ),
];

/// A number of a device: name, description, the number.
type OfDevice = (&'static str, &'static str, &'static str, fn(&DeviceIo) -> Option<u64>);

const DEVICES: [OfDevice; 4] = [
    ("container_fs_reads_bytes_total", "By", "Cumulative count of bytes read", |io| io.read_bytes),
    ("container_fs_writes_bytes_total", "By", "Cumulative count of bytes written", |io| io.written_bytes),
    ("container_fs_reads_total", "1", "Cumulative count of reads completed", |io| io.reads),
    ("container_fs_writes_total", "1", "Cumulative count of writes completed", |io| io.writes),
];

/// A number of an interface.
type OfInterface = (&'static str, &'static str, &'static str, fn(&InterfaceUsage) -> u64);

const INTERFACES: [OfInterface; 8] = [
    ("container_network_receive_bytes_total", "By", "Cumulative count of bytes received", |of| {
        of.received.bytes
    }),
    ("container_network_receive_packets_total", "1", "Cumulative count of packets received", |of| {
        of.received.packets
    }),
    (
        "container_network_receive_packets_dropped_total",
        "1",
        "Cumulative count of packets dropped while receiving",
        |of| of.received.dropped,
    ),
    (
        "container_network_receive_errors_total",
        "1",
        "Cumulative count of errors encountered while receiving",
        |of| of.received.errors,
    ),
    ("container_network_transmit_bytes_total", "By", "Cumulative count of bytes transmitted", |of| {
        of.sent.bytes
    }),
    ("container_network_transmit_packets_total", "1", "Cumulative count of packets transmitted", |of| {
        of.sent.packets
    }),
    (
        "container_network_transmit_packets_dropped_total",
        "1",
        "Cumulative count of packets dropped while transmitting",
        |of| of.sent.dropped,
    ),
    (
        "container_network_transmit_errors_total",
        "1",
        "Cumulative count of errors encountered while transmitting",
        |of| of.sent.errors,
    ),
];

/// The metrics of all cgroups, and of the machine.
pub fn metrics(readings: &[Reading<'_>], names: &DeviceNames, machine: Machine) -> Vec<Metric> {
    let owned: Vec<(&Reading<'_>, Owner)> =
        readings.iter().map(|reading| (reading, owner(reading, labels(reading)))).collect();
    let family_metric = |of: &Family| of.metric(Vocabulary::Cadvisor, &owned, label(of.name));
    let mut metrics: Vec<Metric> = FAMILIES.iter().filter_map(family_metric).collect();
    metrics.extend(memory_failures(&owned));
    metrics.extend(DEVICES.iter().filter_map(|of| device_metric(of, &owned, names)));
    let in_namespaces = in_namespaces(readings);
    metrics.extend(INTERFACES.iter().filter_map(|of| interface_metric(of, &in_namespaces)));
    let machines = [
        ("machine_cpu_cores", "1", "Number of logical CPU cores.", machine.cpu_cores),
        ("machine_memory_bytes", "By", "Amount of memory installed on the machine.", machine.memory_bytes),
    ];
    for (name, unit, about, value) in machines {
        let point = float(value).map(|value| Point::number(Owner::Host, Vec::new(), 0, value));
        metrics.extend(family(MetricKind::Gauge, name, unit, about, point.into_iter().collect()));
    }
    metrics
}

fn owner(reading: &Reading<'_>, labels: Vec<(Text, Text)>) -> Owner {
    Owner::Cgroup(Arc::new(LabelledCgroup { owner: reading.owner(), labels }))
}

/// The label that the series of a family have beside those of their cgroup.
fn label(family: &str) -> Option<Label> {
    match family {
        "container_cpu_usage_seconds_total" => Some(|_| Some(("cpu".into(), "total".into()))),
        "container_fs_limit_bytes" | "container_fs_usage_bytes" => {
            Some(|reading| Some(("device".into(), reading.filesystem?.source.clone().into())))
        }
        _ => None,
    }
}

/// The labels of a cgroup, in the order of their names.
fn labels(reading: &Reading<'_>) -> Vec<(Text, Text)> {
    let pod = reading.subject.and_then(|subject| subject.pod());
    let is_container = matches!(reading.key, CgroupKey::Container(_));
    let is_pods = is_container || matches!(reading.key, CgroupKey::PodLevel(_));
    let of_container = pod.filter(|_| is_container);
    let of_pod = pod.filter(|_| is_pods);
    let name = match reading.key {
        CgroupKey::Container(id) => id.as_ref(),
        _ => "",
    };
    let labels: [(&'static str, &str); 6] = [
        ("container", of_container.map_or("", |pod| &pod.container)),
        ("id", reading.path),
        ("image", of_container.and_then(|pod| pod.image.as_deref()).unwrap_or("")),
        ("name", name),
        ("namespace", of_pod.map_or("", |pod| &pod.namespace)),
        ("pod", of_pod.map_or("", |pod| &pod.name)),
    ];
    let filled = labels.into_iter().filter(|(_, value)| !value.is_empty());
    filled.map(|(name, value)| (name.into(), value.to_owned().into())).collect()
}

fn has_quota(reading: &Reading<'_>) -> bool {
    reading.usage.cpu.quota_us.is_some_and(|quota| quota.at().is_some())
}

fn unlimited_is_zero(limit: Option<Limit>) -> Option<f64> {
    limit.map(|limit| limit.at().unwrap_or(0) as f64)
}

fn family(
    kind: MetricKind,
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    points: Vec<Point>,
) -> Option<Metric> {
    let mut metric = Metric::new(kind, name, unit, about).with(points);
    metric.vocabulary = Vocabulary::Cadvisor;
    (!metric.points.is_empty()).then_some(metric)
}

fn memory_failures(readings: &[(&Reading<'_>, Owner)]) -> Option<Metric> {
    let mut points = Vec::with_capacity(readings.len() * 4);
    for (reading, owner) in readings {
        let memory = reading.usage.memory;
        // v2 has no numbers without children, and cAdvisor shows the same ones twice.
        let values = [
            ("pgfault", "container", memory.own_faults.or(memory.faults)),
            ("pgmajfault", "container", memory.own_major_faults.or(memory.major_faults)),
            ("pgfault", "hierarchy", memory.faults),
            ("pgmajfault", "hierarchy", memory.major_faults),
        ];
        for (kind, scope, value) in values {
            let Some(value) = float(value) else { continue };
            let attributes = vec![("failure_type".into(), kind.into()), ("scope".into(), scope.into())];
            points.push(Point::number(owner.clone(), attributes, reading.starts.of(Group::Memory), value));
        }
    }
    let about = "Cumulative count of memory allocation failures.";
    family(MetricKind::Counter, "container_memory_failures_total", "1", about, points)
}

fn device_metric(
    (name, unit, about, value): &OfDevice,
    readings: &[(&Reading<'_>, Owner)],
    names: &DeviceNames,
) -> Option<Metric> {
    let mut points = Vec::new();
    for (reading, owner) in readings {
        for io in reading.usage.io.iter().flatten() {
            let Some(value) = float(value(io)) else { continue };
            let attributes = vec![("device".into(), format!("/dev/{}", names.name(io.device)).into())];
            points.push(Point::number(owner.clone(), attributes, reading.starts.of(Group::Io), value));
        }
    }
    family(MetricKind::Counter, name, unit, about, points)
}

/// cAdvisor shows a namespace once, as the pod's: without the container.
fn in_namespaces<'a>(readings: &'a [Reading<'a>]) -> Vec<(&'a Reading<'a>, Owner)> {
    let shown = readings.iter().filter(|reading| reading.is_first_in_namespace);
    let owned = |reading: &'a Reading<'a>| {
        let mut labels = labels(reading);
        labels.retain(|(name, _)| name != "container");
        (reading, owner(reading, labels))
    };
    shown.filter(|reading| !reading.interfaces().0.is_empty()).map(owned).collect()
}

fn interface_metric(
    (name, unit, about, value): &OfInterface,
    readings: &[(&Reading<'_>, Owner)],
) -> Option<Metric> {
    let mut points = Vec::new();
    for (reading, owner) in readings {
        let (interfaces, start_unix_ns) = reading.interfaces();
        for interface in interfaces {
            let attributes = vec![("interface".into(), interface.name.clone().into())];
            points.push(Point::number(owner.clone(), attributes, start_unix_ns, value(interface) as f64));
        }
    }
    family(MetricKind::Counter, name, unit, about, points)
}
