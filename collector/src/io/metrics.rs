//! Series of I/O -> metrics with names, units and attributes.
//!
//! The conventions have no names for these: they are in the style of theirs, and the README has the list. Refuses:
//! counting.

use std::collections::HashMap;
use std::sync::Arc;

use collector_common::io::{
    BUCKET_OFFSET, Descriptor, Distribution, ErrorClass, Measure, Operation, Reclaim, TcpEvent, Wait,
};

use super::series::{Series, SeriesKey, add, measure, operations};
use crate::telemetry::{ExponentialHistogram, Metric, MetricKind, Owner, Point, Text, Value};

/// Attributes of a point.
type Attributes = Vec<(Text, Text)>;

/// Names the details of series.
pub struct Names<'a> {
    /// Whose a series is; `None` if that is not known any more.
    pub owner: &'a dyn Fn(&SeriesKey) -> Option<Owner>,
    /// The name of a process.
    pub process: &'a dyn Fn(u32) -> Option<Arc<str>>,
    /// The name of a block device (`dev_t`).
    pub device: &'a dyn Fn(u32) -> String,
}

/// The metrics of all series.
pub fn metrics<'a>(
    series: impl Iterator<Item = (&'a SeriesKey, &'a Series)>,
    names: &Names<'_>,
) -> Vec<Metric> {
    let mut families = Families::default();
    for (key, series) in series {
        let Some(owner) = (names.owner)(key) else { continue };
        match measure(key) {
            Some(Measure::Syscall) => families.add_calls(&SYSCALL, key, series, &owner, names),
            Some(Measure::Uring) => families.add_calls(&URING, key, series, &owner, names),
            Some(Measure::Block) => families.add_block(key, series, &owner, names),
            Some(Measure::RunQueue) => families.add_run_queue(key, series, &owner),
            Some(Measure::Reclaim) => {
                let scope = if key.label == Reclaim::Cgroup as u8 { "cgroup" } else { "node" };
                let attributes = vec![text("memory.reclaim.scope", scope)];
                families.histogram(RECLAIM, &owner, attributes, series);
            }
            Some(Measure::PageFault) => families.histogram(PAGE_FAULT, &owner, Vec::new(), series),
            Some(Measure::TcpConnect) => {
                families.histogram(TCP_CONNECT, &owner, with_error(Vec::new(), key.error), series);
            }
            Some(Measure::TcpRoundTrip) => families.histogram(TCP_ROUND_TRIP, &owner, Vec::new(), series),
            Some(Measure::TcpEvent) => families.add_tcp_event(key, series, &owner),
            None => {}
        }
    }
    families.into_metrics()
}

/// Name, unit and description of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name(&'static str, &'static str, &'static str);

/// The names of one way to do I/O.
struct Calls {
    duration: Name,
    operations: Name,
    bytes: Name,
}

const SYSCALL: Calls = Calls {
    duration: Name("syscall.io.duration", "s", "Time of system calls that do I/O, failed ones included."),
    operations: Name("syscall.io.operations", "{operation}", "System calls that do I/O."),
    bytes: Name("syscall.io.bytes", "By", "Bytes that system calls moved."),
};
const URING: Calls = Calls {
    duration: Name("io_uring.duration", "s", "Time of io_uring operations from submission to completion."),
    operations: Name("io_uring.operations", "{operation}", "Completed io_uring operations."),
    bytes: Name("io_uring.bytes", "By", "Bytes that io_uring operations moved."),
};
const BLOCK_DURATION: Name =
    Name("block.io.duration", "s", "Time of requests at block devices, from issue to completion.");
const BLOCK_BYTES: Name = Name("block.io.bytes", "By", "Bytes of requests to block devices.");
const RUN_QUEUE: Name = Name(
    "scheduler.wait.duration",
    "s",
    "Time that tasks waited for a CPU while they could run, throttling included.",
);
const SWITCHES: Name = Name("scheduler.context_switches", "{switch}", "Times that tasks were put on a CPU.");
const RECLAIM: Name = Name("memory.reclaim.duration", "s", "Time that tasks spent reclaiming memory.");
const PAGE_FAULT: Name =
    Name("memory.page_fault.duration", "s", "Time that tasks slept in page faults of their own code.");
const TCP_CONNECT: Name =
    Name("tcp.connect.duration", "s", "Time to open TCP connections, failed ones with error.type.");
const TCP_ROUND_TRIP: Name =
    Name("tcp.round_trip.duration", "s", "Smoothed round-trip times of TCP connections at their end.");
const TCP_RETRANSMITS: Name = Name("tcp.retransmits", "{segment}", "TCP segments that were sent again.");
const TCP_RESETS: Name = Name("tcp.resets", "{reset}", "TCP resets by direction.");
const TCP_ACCEPTED: Name = Name("tcp.connections.accepted", "{connection}", "TCP connections accepted.");
const TCP_BYTES: Name = Name("tcp.io", "By", "Bytes of TCP connections, counted at their end.");

/// Metrics that are being put together: points that differ in what a metric does not show add up.
#[derive(Default)]
struct Families {
    families: HashMap<&'static str, Family>,
    places: HashMap<(&'static str, OwnerId, Attributes), usize>,
}

struct Family {
    name: Name,
    kind: MetricKind,
    cells: Vec<Cell>,
}

/// An owner by its address, which is the same for all series of one collection: a thousand owners have texts to hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum OwnerId {
    Subject(usize),
    Endpoint(usize),
    Object(usize),
    Cgroup(usize),
    Host,
    Agent,
}

impl OwnerId {
    fn of(owner: &Owner) -> Self {
        match owner {
            Owner::Subject(subject) => Self::Subject(Arc::as_ptr(subject).addr()),
            Owner::Endpoint(endpoint) => Self::Endpoint(Arc::as_ptr(endpoint).addr()),
            Owner::Object(object) => Self::Object(Arc::as_ptr(object).addr()),
            Owner::Cgroup(cgroup) => Self::Cgroup(Arc::as_ptr(cgroup).addr()),
            Owner::Host => Self::Host,
            Owner::Agent => Self::Agent,
        }
    }
}

struct Cell {
    owner: Owner,
    attributes: Attributes,
    start_unix_ns: u64,
    counts: Distribution,
    number: u64,
}

impl Families {
    fn add_calls(
        &mut self,
        names: &Calls,
        key: &SeriesKey,
        series: &Series,
        owner: &Owner,
        details: &Names<'_>,
    ) {
        let mut attributes = vec![text("syscall.operation", operation(key.operation))];
        if let Some(kind) = descriptor(key.label) {
            attributes.push(text("syscall.descriptor", kind));
        }
        if key.detail != 0 {
            attributes.push((Text::from("process.pid"), Text::from(key.detail.to_string())));
            let name = (details.process)(key.detail).map(|name| Text::from(name.to_string()));
            attributes.extend(name.map(|name| (Text::from("process.executable.name"), name)));
        }
        self.histogram(names.duration, owner, attributes.clone(), series);
        if series.counts.bytes > 0 {
            self.number(names.bytes, owner, attributes.clone(), series, series.counts.bytes);
        }
        let count = operations(&series.counts);
        self.number(names.operations, owner, with_error(attributes, key.error), series, count);
    }

    fn add_block(&mut self, key: &SeriesKey, series: &Series, owner: &Owner, details: &Names<'_>) {
        let mut attributes = vec![text("block.operation", operation(key.operation))];
        // Flushes of some drivers belong to no partition.
        if key.detail != 0 {
            attributes.push((Text::from("system.device"), Text::from((details.device)(key.detail))));
        }
        if series.counts.bytes > 0 {
            self.number(BLOCK_BYTES, owner, attributes.clone(), series, series.counts.bytes);
        }
        self.histogram(BLOCK_DURATION, owner, with_error(attributes, key.error), series);
    }

    fn add_run_queue(&mut self, key: &SeriesKey, series: &Series, owner: &Owner) {
        let (reason, kind) = match key.label == Wait::Preempted as u8 {
            true => ("preempted", "involuntary"),
            false => ("woken", "voluntary"),
        };
        self.histogram(RUN_QUEUE, owner, vec![text("scheduler.wait.reason", reason)], series);
        let attributes = vec![text("process.context_switch.type", kind)];
        self.number(SWITCHES, owner, attributes, series, operations(&series.counts));
    }

    fn add_tcp_event(&mut self, key: &SeriesKey, series: &Series, owner: &Owner) {
        let count = operations(&series.counts);
        let direction = |direction| vec![text("network.io.direction", direction)];
        let is = |event: TcpEvent| key.label == event as u8;
        if is(TcpEvent::Retransmit) {
            self.number(TCP_RETRANSMITS, owner, Vec::new(), series, count);
        } else if is(TcpEvent::ResetReceived) {
            self.number(TCP_RESETS, owner, direction("receive"), series, count);
        } else if is(TcpEvent::ResetSent) {
            self.number(TCP_RESETS, owner, direction("transmit"), series, count);
        } else if is(TcpEvent::Accepted) {
            self.number(TCP_ACCEPTED, owner, Vec::new(), series, count);
        } else if is(TcpEvent::BytesSent) {
            self.number(TCP_BYTES, owner, direction("transmit"), series, series.counts.bytes);
        } else if is(TcpEvent::BytesReceived) {
            self.number(TCP_BYTES, owner, direction("receive"), series, series.counts.bytes);
        }
    }

    fn histogram(&mut self, name: Name, owner: &Owner, attributes: Attributes, series: &Series) {
        let cell = self.cell(name, MetricKind::Histogram, owner, attributes, series);
        add(&mut cell.counts, &series.counts);
    }

    fn number(&mut self, name: Name, owner: &Owner, attributes: Attributes, series: &Series, value: u64) {
        let cell = self.cell(name, MetricKind::Counter, owner, attributes, series);
        cell.number = cell.number.saturating_add(value);
    }

    fn cell(
        &mut self,
        name: Name,
        kind: MetricKind,
        owner: &Owner,
        attributes: Attributes,
        series: &Series,
    ) -> &mut Cell {
        let family = self.families.entry(name.0).or_insert_with(|| Family { name, kind, cells: Vec::new() });
        let cells = &mut family.cells;
        let key = (name.0, OwnerId::of(owner), attributes.clone());
        let place = *self.places.entry(key).or_insert(cells.len());
        if place == cells.len() {
            let (owner, start_unix_ns) = (owner.clone(), series.start_unix_ns);
            cells.push(Cell { owner, attributes, start_unix_ns, counts: Distribution::EMPTY, number: 0 });
        }
        let cell = &mut cells[place];
        cell.start_unix_ns = cell.start_unix_ns.min(series.start_unix_ns);
        cell
    }

    fn into_metrics(self) -> Vec<Metric> {
        let mut families: Vec<Family> = self.families.into_values().collect();
        families.sort_by_key(|family| family.name);
        let metrics = families.into_iter().map(|Family { name, kind, cells }| {
            let Name(name, unit, description) = name;
            let point = |cell: Cell| {
                let value = match kind {
                    MetricKind::Histogram => Value::Histogram(Box::new(histogram(&cell.counts))),
                    _ => Value::Number(cell.number as f64),
                };
                let Cell { owner, attributes, start_unix_ns, .. } = cell;
                Point { owner, attributes, start_unix_ns, value }
            };
            Metric::new(kind, name, unit, description).with(cells.into_iter().map(point).collect())
        });
        metrics.collect()
    }
}

/// The kernel's buckets are OpenTelemetry's at scale 0; empty ones at both ends are left out.
fn histogram(counts: &Distribution) -> ExponentialHistogram {
    let first = counts.buckets.iter().position(|&count| count > 0).unwrap_or(0);
    let end = counts.buckets.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    ExponentialHistogram {
        scale: 0,
        offset: BUCKET_OFFSET + first as i32,
        buckets: counts.buckets[first.min(end)..end].to_vec(),
        zero_count: 0,
        sum: counts.time_ns as f64 / 1e9,
        exemplars: Vec::new(),
    }
}

fn text(key: &'static str, value: &'static str) -> (Text, Text) {
    (Text::from(key), Text::from(value))
}

fn with_error(mut attributes: Attributes, error: u8) -> Attributes {
    attributes.extend(error_class(error).map(|class| text("error.type", class)));
    attributes
}

/// The name of an operation.
pub fn operation(number: u8) -> &'static str {
    const NAMES: [(Operation, &str); 18] = [
        (Operation::Read, "read"),
        (Operation::Write, "write"),
        (Operation::Open, "open"),
        (Operation::Close, "close"),
        (Operation::Stat, "stat"),
        (Operation::Sync, "sync"),
        (Operation::List, "list"),
        (Operation::Change, "change"),
        (Operation::Send, "send"),
        (Operation::Receive, "receive"),
        (Operation::Accept, "accept"),
        (Operation::Connect, "connect"),
        (Operation::Poll, "poll"),
        (Operation::Transfer, "transfer"),
        (Operation::Discard, "discard"),
        (Operation::Flush, "flush"),
        (Operation::Other, "other"),
        (Operation::CloseMany, "close"),
    ];
    NAMES.iter().find(|(operation, _)| *operation as u8 == number).map_or("other", |(_, name)| name)
}

/// The name of what a descriptor is; `None` where there is none.
pub fn descriptor(number: u8) -> Option<&'static str> {
    const NAMES: [(Descriptor, &str); 14] = [
        (Descriptor::Regular, "file"),
        (Descriptor::Directory, "directory"),
        (Descriptor::Character, "character_device"),
        (Descriptor::Terminal, "terminal"),
        (Descriptor::Block, "block_device"),
        (Descriptor::Pipe, "pipe"),
        (Descriptor::Tcp, "tcp"),
        (Descriptor::Udp, "udp"),
        (Descriptor::Unix, "unix"),
        (Descriptor::Socket, "socket"),
        (Descriptor::Event, "eventfd"),
        (Descriptor::Timer, "timerfd"),
        (Descriptor::Epoll, "epoll"),
        (Descriptor::Anonymous, "anonymous"),
    ];
    NAMES.iter().find(|(kind, _)| *kind as u8 == number).map(|(_, name)| *name)
}

/// The name of a class of errors; `None` for none.
pub fn error_class(number: u8) -> Option<&'static str> {
    const NAMES: [(ErrorClass, &str); 12] = [
        (ErrorClass::WouldBlock, "would_block"),
        (ErrorClass::Interrupted, "interrupted"),
        (ErrorClass::NotFound, "not_found"),
        (ErrorClass::Permission, "permission"),
        (ErrorClass::Connection, "connection"),
        (ErrorClass::Timeout, "timeout"),
        (ErrorClass::NoSpace, "no_space"),
        (ErrorClass::Exhausted, "exhausted"),
        (ErrorClass::Invalid, "invalid"),
        (ErrorClass::Device, "device"),
        (ErrorClass::Conflict, "conflict"),
        (ErrorClass::Other, "_OTHER"),
    ];
    NAMES.iter().find(|(class, _)| *class as u8 == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use collector_common::io::Key;

    use super::*;
    use crate::io::series::AllSeries;

    /// The kernel's counts; expects name, labels and value (operations for histograms) of all points.
    fn check(counts: &[(Key, Distribution)], expected: &[(&str, &str, f64)]) {
        let mut all = AllSeries::new(0);
        for (place, (key, counts)) in (1..).zip(counts) {
            all.take(place, key, counts, None);
        }
        let names = Names {
            owner: &|_| Some(Owner::Host),
            process: &|_| Some("nginx".into()),
            device: &|_| "vda".to_owned(),
        };
        let mut found: Vec<(String, String, f64)> = Vec::new();
        for metric in metrics(all.iter(), &names) {
            for point in &metric.points {
                let labels: Vec<String> =
                    point.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let value = match &point.value {
                    Value::Number(number) => *number,
                    Value::Histogram(histogram) => histogram.count() as f64,
                    other => panic!("unexpected {other:?}"),
                };
                found.push((metric.name.to_string(), labels.join(","), value));
            }
        }
        found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let found: Vec<_> =
            found.iter().map(|(name, labels, value)| (name.as_str(), labels.as_str(), *value)).collect();
        assert_eq!(found, expected);
    }

    fn key(measure: Measure, operation: Operation, label: u8, error: ErrorClass) -> Key {
        let (measure, operation, error) = (measure as u8, operation as u8, error as u8);
        let detail = u32::from(measure == Measure::Block as u8);
        Key { cgroup_id: 1, detail, measure, operation, label, error }
    }

    fn counts(bucket: usize, operations: u64, bytes: u64) -> Distribution {
        let mut counts = Distribution::EMPTY;
        counts.buckets[bucket] = operations;
        counts.bytes = bytes;
        counts
    }

    #[test]
    fn calls_by_operation_descriptor_and_error() {
        let file = Descriptor::Regular as u8;
        check(
            &[
                (key(Measure::Syscall, Operation::Read, file, ErrorClass::None), counts(3, 5, 100)),
                (key(Measure::Syscall, Operation::Read, file, ErrorClass::Device), counts(9, 2, 0)),
            ],
            &[
                ("syscall.io.bytes", "syscall.operation=read,syscall.descriptor=file", 100.0),
                ("syscall.io.duration", "syscall.operation=read,syscall.descriptor=file", 7.0),
                ("syscall.io.operations", "syscall.operation=read,syscall.descriptor=file", 5.0),
                (
                    "syscall.io.operations",
                    "syscall.operation=read,syscall.descriptor=file,error.type=device",
                    2.0,
                ),
            ],
        );
    }

    #[test]
    fn block_and_scheduler() {
        check(
            &[
                (key(Measure::Block, Operation::Write, 0, ErrorClass::None), counts(12, 4, 4096)),
                (
                    key(Measure::RunQueue, Operation::None, Wait::Preempted as u8, ErrorClass::None),
                    counts(1, 6, 0),
                ),
            ],
            &[
                ("block.io.bytes", "block.operation=write,system.device=vda", 4096.0),
                ("block.io.duration", "block.operation=write,system.device=vda", 4.0),
                ("scheduler.context_switches", "process.context_switch.type=involuntary", 6.0),
                ("scheduler.wait.duration", "scheduler.wait.reason=preempted", 6.0),
            ],
        );
    }

    #[test]
    fn buckets_keep_their_bounds() {
        let found = histogram(&counts(23, 2, 0));
        assert_eq!((found.offset, found.buckets.as_slice()), (0, [2].as_slice()));
        assert_eq!(found.upper_bound(0), 2.0);
        assert_eq!(histogram(&Distribution::EMPTY).count(), 0);
    }
}
