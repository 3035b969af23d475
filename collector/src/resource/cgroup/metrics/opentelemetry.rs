//! Readings in the words of the OpenTelemetry semantic conventions for containers.
//!
//! Source: semantic conventions, "Container metrics" and "K8s metrics" (limits). Where they are silent the names follow
//! those of `system.*`. Services have the same names: their resource tells them apart. Refuses: the root and pods, which
//! the host's metrics and sums over containers tell.

use super::{Family, Reading, counter, float, gauge, seconds_of_ns, seconds_of_us, sum};
use crate::resource::cgroup::CgroupKey;
use crate::resource::cgroup::device::DeviceNames;
use crate::resource::cgroup::start::Group;
use crate::resource::cgroup::usage::{Limit, Traffic};
use crate::telemetry::{Metric, MetricKind, Owner, Point, Text, Vocabulary};

const FAMILIES: [Family; 27] = [
    gauge("container.uptime", "s", "The time the container has been running.", |reading| {
        Some(reading.time_unix_ns.saturating_sub(reading.start_unix_ns) as f64 / 1e9)
    }),
    gauge("container.cpu.usage", "{cpu}", "Processors in use since the last reading.", |reading| {
        reading.cpu_cores
    }),
    counter(
        "container.cpu.throttling.periods",
        "{period}",
        "Enforcement periods of the quota.",
        Group::Cpu,
        |reading| float(reading.usage.cpu.periods),
    ),
    counter(
        "container.cpu.throttling.throttled_periods",
        "{period}",
        "Periods in which the quota ran out.",
        Group::Cpu,
        |reading| float(reading.usage.cpu.throttled_periods),
    ),
    counter("container.cpu.throttling.time", "s", "Time stopped by the quota.", Group::Cpu, |reading| {
        seconds_of_ns(reading.usage.cpu.throttled_ns)
    }),
    sum("container.cpu.limit", "{cpu}", "The limit of processors, without Kubernetes.", |reading| {
        reading.usage.cpu.limit_cores().filter(|_| !is_pods(reading))
    }),
    sum("k8s.container.cpu.limit.current", "{cpu}", "Maximum CPU limit currently configured.", |reading| {
        reading.usage.cpu.limit_cores().filter(|_| is_pods(reading))
    }),
    sum("container.memory.usage", "By", "Memory usage of the container.", |reading| {
        float(reading.usage.memory.usage_bytes)
    }),
    sum("container.memory.working_set", "By", "Container memory working set.", |reading| {
        float(reading.usage.memory.working_set_bytes())
    }),
    sum("container.memory.rss", "By", "Container memory RSS.", |reading| {
        float(reading.usage.memory.rss_bytes)
    }),
    sum("container.memory.available", "By", "Container memory available below its limit.", |reading| {
        float(reading.usage.memory.available_bytes())
    }),
    sum("container.memory.cache", "By", "Page cache.", |reading| float(reading.usage.memory.cache_bytes)),
    sum("container.memory.swap", "By", "Memory in swap.", |reading| float(reading.usage.memory.swap_bytes)),
    sum("container.memory.kernel", "By", "Memory of the kernel.", |reading| {
        float(reading.usage.memory.kernel_bytes)
    }),
    sum("container.memory.sock", "By", "Buffers of sockets.", |reading| {
        float(reading.usage.memory.sock_bytes)
    }),
    gauge("container.memory.peak", "By", "The largest usage so far.", |reading| {
        float(reading.usage.memory.peak_bytes)
    }),
    sum("container.memory.limit", "By", "The limit of memory, without Kubernetes.", |reading| {
        memory_limit(reading).filter(|_| !is_pods(reading))
    }),
    sum(
        "k8s.container.memory.limit.current",
        "By",
        "Maximum memory limit currently configured.",
        |reading| memory_limit(reading).filter(|_| is_pods(reading)),
    ),
    sum("container.memory.limit.high", "By", "Usage above which allocations are slowed.", |reading| {
        float(reading.usage.memory.high_bytes.and_then(Limit::at))
    }),
    counter(
        "container.memory.limit.hits",
        "{hit}",
        "How often the limit was hit.",
        Group::Memory,
        |reading| float(reading.usage.memory.limit_hits),
    ),
    counter("container.memory.oom.events", "{event}", "Calls of the OOM killer.", Group::Memory, |reading| {
        float(reading.usage.memory.oom_events)
    }),
    counter(
        "container.memory.oom.kills",
        "{kill}",
        "Processes that the OOM killer ended.",
        Group::Memory,
        |reading| float(reading.usage.memory.oom_kills),
    ),
    sum("container.thread.count", "{thread}", "Threads.", |reading| float(reading.usage.tasks.threads)),
    sum("container.process.count", "{process}", "Processes.", |reading| float(reading.usage.tasks.processes)),
    sum("container.filesystem.available", "By", "Container filesystem available bytes.", |reading| {
        float(reading.filesystem.map(|filesystem| filesystem.available_bytes))
    }),
    sum("container.filesystem.capacity", "By", "Container filesystem capacity.", |reading| {
        float(reading.filesystem.map(|filesystem| filesystem.capacity_bytes))
    }),
    sum("container.filesystem.usage", "By", "What the container wrote to its filesystem.", |reading| {
        float(reading.filesystem.and_then(|filesystem| filesystem.layer_bytes))
    }),
];

/// The metrics of containers and services.
pub fn metrics(readings: &[Reading<'_>], names: &DeviceNames) -> Vec<Metric> {
    let is_ours = |reading: &&Reading<'_>| {
        let is_owned = matches!(reading.key, CgroupKey::Container(_) | CgroupKey::Unit(_));
        is_owned && reading.is_first && reading.subject.is_some()
    };
    let ours = || readings.iter().filter(is_ours);
    let owned: Vec<(&Reading<'_>, Owner)> = ours().map(|reading| (reading, reading.owner())).collect();
    let with = |kind, name: &'static str, unit: &'static str, about: &'static str, points: Vec<Point>| {
        (!points.is_empty()).then(|| Metric::new(kind, name, unit, about).with(points))
    };
    let counter = |name, unit, about, points| with(MetricKind::Counter, name, unit, about, points);
    let families =
        FAMILIES.iter().filter_map(|family| family.metric(Vocabulary::OpenTelemetry, &owned, None));
    let network = |value: fn(&Traffic) -> u64| ours().flat_map(|reading| network(reading, value)).collect();
    let disk = |is_bytes| ours().flat_map(|reading| disk(reading, names, is_bytes)).collect();
    let more = [
        counter("container.cpu.time", "s", "Total CPU time consumed.", ours().flat_map(cpu_time).collect()),
        counter("container.paging.faults", "{fault}", "Page faults.", ours().flat_map(faults).collect()),
        counter(
            "container.pressure.stall.time",
            "s",
            "Time lost to waiting.",
            ours().flat_map(pressure).collect(),
        ),
        counter("container.disk.io", "By", "Disk bytes for the container.", disk(true)),
        counter("container.disk.operations", "{operation}", "Disk operations.", disk(false)),
        counter("container.network.io", "By", "Network bytes for the container.", network(|of| of.bytes)),
        counter("container.network.packet.count", "{packet}", "Network packets.", network(|of| of.packets)),
        counter("container.network.packet.dropped", "{packet}", "Packets dropped.", network(|of| of.dropped)),
        counter("container.network.errors", "{error}", "Network errors.", network(|of| of.errors)),
    ];
    families.chain(more.into_iter().flatten()).collect()
}

fn is_pods(reading: &Reading<'_>) -> bool {
    reading.subject.is_some_and(|subject| subject.pod().is_some())
}

fn memory_limit(reading: &Reading<'_>) -> Option<f64> {
    float(reading.usage.memory.limit_bytes.and_then(Limit::at))
}

fn attribute(name: &'static str, value: impl Into<Text>) -> (Text, Text) {
    (Text::Borrowed(name), value.into())
}

/// By mode where both are known, for a sum over modes must be the whole; else the whole.
fn cpu_time(reading: &Reading<'_>) -> Vec<Point> {
    let (cpu, start) = (reading.usage.cpu, reading.starts.of(Group::Cpu));
    let point = |attributes, value| Point::number(reading.owner(), attributes, start, value);
    match (seconds_of_ns(cpu.user_ns), seconds_of_ns(cpu.system_ns), seconds_of_ns(cpu.total_ns)) {
        (Some(user), Some(system), _) => vec![
            point(vec![attribute("cpu.mode", "user")], user),
            point(vec![attribute("cpu.mode", "system")], system),
        ],
        (_, _, Some(total)) => vec![point(Vec::new(), total)],
        _ => Vec::new(),
    }
}

fn faults(reading: &Reading<'_>) -> Vec<Point> {
    let memory = reading.usage.memory;
    let (Some(all), Some(major)) = (memory.faults, memory.major_faults) else { return Vec::new() };
    let point = |kind: &'static str, value: u64| {
        let attributes = vec![attribute("system.paging.fault.type", kind)];
        Point::number(reading.owner(), attributes, reading.starts.of(Group::Memory), value as f64)
    };
    vec![point("minor", all.saturating_sub(major)), point("major", major)]
}

fn pressure(reading: &Reading<'_>) -> Vec<Point> {
    let pressure = reading.usage.pressure;
    let resources = [("cpu", pressure.cpu), ("memory", pressure.memory), ("io", pressure.io)];
    let values = resources.iter().flat_map(|(resource, pressure)| {
        [(*resource, "some", pressure.some_us), (*resource, "full", pressure.full_us)]
    });
    let point = |(resource, share, value): (&'static str, &'static str, Option<u64>)| {
        let attributes = vec![
            attribute("container.pressure.resource", resource),
            attribute("container.pressure.share", share),
        ];
        let start = reading.starts.of(Group::Pressure);
        Some(Point::number(reading.owner(), attributes, start, seconds_of_us(value)?))
    };
    values.filter_map(point).collect()
}

fn disk(reading: &Reading<'_>, names: &DeviceNames, is_bytes: bool) -> Vec<Point> {
    let mut points = Vec::new();
    for io in reading.usage.io.iter().flatten() {
        let values = match is_bytes {
            true => [("read", io.read_bytes), ("write", io.written_bytes)],
            false => [("read", io.reads), ("write", io.writes)],
        };
        for (direction, value) in values {
            let Some(value) = float(value) else { continue };
            let device = attribute("system.device", names.name(io.device));
            let attributes = vec![attribute("disk.io.direction", direction), device];
            points.push(Point::number(reading.owner(), attributes, reading.starts.of(Group::Io), value));
        }
    }
    points
}

fn network(reading: &Reading<'_>, value: fn(&Traffic) -> u64) -> Vec<Point> {
    let (interfaces, start) = reading.interfaces();
    let mut points = Vec::with_capacity(interfaces.len() * 2);
    for interface in interfaces {
        for (direction, traffic) in [("receive", &interface.received), ("transmit", &interface.sent)] {
            let name = attribute("network.interface.name", interface.name.clone());
            let attributes = vec![attribute("network.io.direction", direction), name];
            points.push(Point::number(reading.owner(), attributes, start, value(traffic) as f64));
        }
    }
    points
}
