//! I/O as the programs themselves, strace and the kernel's own books tell it, against what the agent says of it.
//!
//! Every workload runs in a container's cgroups, so its counts stand apart from all else on the machine. Refuses:
//! tolerance where a number is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::cgroup::{ContainerCgroup, Inside};
use tests::endpoint::{self, Page};
use tests::metrics::points;
use tests::nginx::Nginx;
use tests::postgres::{Bench, Postgres};
use tests::receiver::{Behaviour, Protocol, Receiver, free_address};
use tests::strace::{self, Calls};
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, utf8};

const OPERATIONS: &str = "syscall_io_operations_total";
const BYTES: &str = "syscall_io_bytes_total";
const OPERATION: &str = "syscall_operation";
const DESCRIPTOR: &str = "syscall_descriptor";

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LC_ALL", "C");
    command
}

/// The workloads' own calls, and no loader's.
fn io_program() -> Program {
    Program::c("io.c", &[FRAME_POINTERS, &["-static"]].concat())
}

fn sums<const N: usize>(expected: [(&str, f64); N]) -> BTreeMap<String, f64> {
    expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What a program must do in a container for its counts to be these.
#[track_caller]
fn check(
    page: &Page,
    container: &ContainerCgroup,
    name: &str,
    labels: &[&str],
    expected: BTreeMap<String, f64>,
) {
    let found = page.by(name, &[container.label()], labels);
    let found: BTreeMap<_, _> = found.into_iter().filter(|(key, _)| expected.contains_key(key)).collect();
    assert_eq!(found, expected, "{name} by {labels:?}");
}

/// Stops the agent, whose counts must all have found room.
fn stop(agent: Agent, page: &Page) {
    assert_eq!(page.value("kansoku_io_overflow_total", &[]), 0.0);
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

/// dd does what strace says of another run of it, and moves what it says itself.
#[test]
fn dd_as_strace_tells() {
    let directory = TempDir::new().expect("a temporary directory");
    let (input, output) = (directory.path().join("in"), directory.path().join("out"));
    tools::write_file(&input, &vec![b'x'; 300 * 4096 + 7]);
    let [from, to] = [format!("if={}", utf8(&input)), format!("of={}", utf8(&output))];
    let zeros = ["/usr/bin/dd", "if=/dev/zero", &to, "bs=4096", "count=1000", "status=none", "conv=fsync"];
    let copy = ["/usr/bin/dd", &from, "of=/dev/null", "bs=4096", "status=none"];
    let (agent, endpoint) = endpoint::start(&[]);
    let mut of_loader = None;
    for (words, id, bytes) in [
        (&zeros[..], "dd01", [("read character_device", 4_096_000.0), ("write file", 4_096_000.0)]),
        (&copy[..], "dd02", [("write character_device", 1_228_807.0), ("read file", 1_228_807.0)]),
    ] {
        let truth = strace::counts(words, directory.path());
        let container = ContainerCgroup::make(id);
        container.run(command(words));
        let page = endpoint.scrape_of(&container);
        check(&page, &container, OPERATIONS, &[OPERATION], truth);
        let mut expected = sums(bytes);
        // Before dd there is the loader, which reads the heads of libraries: all that the first one reads of files.
        let read = page.sum(BYTES, &[container.label(), (OPERATION, "read"), (DESCRIPTOR, "file")]);
        let of_loader = *of_loader.get_or_insert(read);
        *expected.entry("read file".to_owned()).or_default() += of_loader;
        check(&page, &container, BYTES, &[OPERATION, DESCRIPTOR], expected);
        let counts = page.sum("syscall_io_duration_seconds_count", &[container.label()]);
        assert_eq!(counts, page.sum(OPERATIONS, &[container.label()]), "times and operations");
    }
    stop(agent, &endpoint.scrape());
}

/// fio's report of a job: what it did itself, and how long it took.
struct Fio {
    reads: f64,
    read_bytes: f64,
    writes: f64,
    written_bytes: f64,
    syncs: f64,
    /// The middle read took this long, seconds.
    read_middle_s: f64,
    /// The report's own length.
    report_bytes: f64,
}

/// Runs a job on a file of 4 MiB in a container.
fn fio(container: &ContainerCgroup, file: &Path, job: &[&str]) -> Fio {
    let program = tools::require("fio", "fio");
    let report = file.with_extension("json");
    let filename = format!("--filename={}", utf8(file));
    let common = ["--name=t", &filename, "--bs=4k", "--size=4M", "--invalidate=0"];
    let layout = [&[utf8(&program)], &common[..], &["--rw=read", "--create_only=1"]].concat();
    tools::succeed(&mut command(&layout));
    let output = format!("--output={}", utf8(&report));
    container
        .run(command(&[&[utf8(&program)], &common[..], job, &["--output-format=json", &output]].concat()));
    let text = std::fs::read_to_string(&report).expect("fio wrote its report");
    let json: Value = serde_json::from_str(&text[text.find('{').expect("JSON")..]).expect("JSON");
    let job = &json["jobs"][0];
    assert_eq!(job["error"], 0, "{text}");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{text}"));
    Fio {
        reads: number(&job["read"]["total_ios"]),
        read_bytes: number(&job["read"]["io_bytes"]),
        writes: number(&job["write"]["total_ios"]),
        written_bytes: number(&job["write"]["io_bytes"]),
        syncs: number(&job["sync"]["total_ios"]),
        read_middle_s: job["read"]["clat_ns"]["percentile"]["50.000000"].as_f64().unwrap_or(0.0) / 1e9,
        report_bytes: text.len() as f64,
    }
}

/// What fio counts is counted: as calls, by the file, in io_uring, and at the device.
#[test]
fn fio_to_the_byte() {
    let directory = TempDir::new_in("/var/tmp").expect("a temporary directory on a disk");
    let file = directory.path().join("data");
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let [url, wire] = receiver.variables();
    let settings = ["io.files=true", "metrics.interval_ms=1000"];
    let (agent, endpoint) = endpoint::start_with(&settings, &[(&url.0, &url.1), (&wire.0, &wire.1)]);

    let mixed = ContainerCgroup::make("f101");
    let found = fio(&mixed, &file, &["--ioengine=psync", "--rw=randrw", "--fsync=64"]);
    let page = endpoint.scrape_of(&mixed);
    let of_file = |direction| [mixed.label(), ("file_path", utf8(&file)), ("disk_io_direction", direction)];
    let file_operations = |direction| page.sum("file_io_operations_total", &of_file(direction));
    let file_bytes = |direction| page.sum("file_io_bytes_total", &of_file(direction));
    assert_eq!((file_operations("read"), file_operations("write")), (found.reads, found.writes));
    assert_eq!((file_bytes("read"), file_bytes("write")), (found.read_bytes, found.written_bytes));
    let syncs = page.sum(OPERATIONS, &[mixed.label(), (OPERATION, "sync")]);
    assert!(found.syncs > 5.0);
    assert_eq!(syncs, found.syncs);
    let written = page.sum(BYTES, &[mixed.label(), (OPERATION, "write"), (DESCRIPTOR, "file")]);
    assert_eq!(written, found.written_bytes + found.report_bytes, "the job and its report");

    let ring = ContainerCgroup::make("f102");
    let found = fio(&ring, &file, &["--ioengine=io_uring", "--direct=1", "--rw=randrw", "--iodepth=4"]);
    let page = endpoint.scrape_of(&ring);
    let of = |operation| [ring.label(), (OPERATION, operation), (DESCRIPTOR, "file")];
    for (operation, count, bytes) in
        [("read", found.reads, found.read_bytes), ("write", found.writes, found.written_bytes)]
    {
        assert!(count > 0.0);
        assert_eq!(page.sum("io_uring_operations_total", &of(operation)), count, "{operation}");
        assert_eq!(page.sum("io_uring_bytes_total", &of(operation)), bytes, "{operation}");
        let device = page.sum("block_io_bytes_total", &[ring.label(), ("block_operation", operation)]);
        assert!(device >= bytes && device <= bytes + 1e6, "{operation}: {device} at the device, not {bytes}");
    }

    let timed = ContainerCgroup::make("f103");
    let found = fio(&timed, &file, &["--ioengine=psync", "--direct=1", "--rw=randread"]);
    let deadline = Instant::now() + Duration::from_secs(5);
    let histogram = loop {
        let all = points(&receiver.metrics(), "syscall.io.duration");
        let own = all.into_iter().rev().find(|point| {
            point.attribute("container.id") == timed.id()
                && point.attribute("syscall.operation") == "read"
                && point.attribute("syscall.descriptor") == "file"
                && point.value >= found.reads
        });
        if let Some(point) = own {
            break point;
        }
        assert!(Instant::now() < deadline, "no histogram of {} reads arrived", found.reads);
        std::thread::sleep(Duration::from_millis(100));
    };
    let (bound, told) = (histogram.quantile_bound(0.5), found.read_middle_s);
    assert!(told <= bound * 2.0 && told >= bound / 4.0, "fio's median is {told}, ours at most {bound}");
    assert_eq!(receiver.complaints(), Vec::<String>::new());
    stop(agent, &page);
}

/// A path that is another file each time is one series, with all that was written to it.
#[test]
fn files_that_are_replaced() {
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("replaced");
    let container = ContainerCgroup::make("f104");
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let [url, wire] = receiver.variables();
    let settings = ["io.files=true", "metrics.interval_ms=500"];
    let (agent, endpoint) = endpoint::start_with(&settings, &[(&url.0, &url.1), (&wire.0, &wire.1)]);
    let write = "/usr/bin/dd if=/dev/zero of=$0.new bs=1k count=5 status=none; /usr/bin/mv $0.new $0";
    let script = format!("for i in 1 2 3 4; do {write}; done");
    container.run(command(&["/bin/sh", "-c", &script, utf8(&file)]));
    let page = endpoint.scrape_of(&container);
    let written = [container.label(), ("disk_io_direction", "write")];
    let by_path = page.by("file_io_bytes_total", &written, &["file_path"]);
    let path = format!("{}.new", utf8(&file));
    assert_eq!(by_path.get(&path), Some(&20_480.0), "{by_path:?}");
    stop(agent, &page);
    for request in receiver.metrics() {
        let mut told = BTreeSet::new();
        for point in points(&[request], "file.io.bytes") {
            assert!(told.insert((point.resource.clone(), point.attributes.clone())), "twice: {point:?}");
        }
    }
}

/// Reads that wait 20 ms each are in the bucket of 20 ms, each of them and nothing else.
#[test]
fn waiting_is_measured() {
    let program = io_program();
    let container = ContainerCgroup::make("1a01");
    let (agent, endpoint) = endpoint::start(&[]);
    container.run(command(&[utf8(program.path()), "waits", "25", "20"]));
    let page = endpoint.scrape_of(&container);
    let of = |le| [container.label(), (OPERATION, "read"), (DESCRIPTOR, "pipe"), ("le", le)];
    let below = |le| page.value("syscall_io_duration_seconds_bucket", &of(le));
    assert_eq!((below("0.015625"), below("0.0625"), below("+Inf")), (0.0, 25.0, 25.0));
    let sum = page.sum("syscall_io_duration_seconds_sum", &of("")[..3]);
    assert!((0.5..0.8).contains(&sum), "25 reads of 20 ms take {sum} s");
    stop(agent, &page);
}

/// A hundred answers of nginx: requests and bytes on both ends are what curl says.
#[test]
fn nginx_and_curl() {
    let (server, client) = (ContainerCgroup::make("e501"), ContainerCgroup::make("e502"));
    let nginx = Nginx::start(1, 5000, &server.cgroups());
    let (agent, endpoint) = endpoint::start(&[]);
    let before = endpoint.scrape();
    let url = format!("http://{}/file?[1-100]", nginx.address());
    let written = "%{size_request} %{size_header} %{size_download}\n";
    let curl = utf8(&tools::require("curl", "curl")).to_owned();
    let said = client.run(command(&[&curl, "-s", "-o", "/dev/null", "-w", written, &url]));
    let lines: Vec<Vec<f64>> = said
        .lines()
        .map(|line| line.split(' ').map(|number| number.parse().expect("curl counts")).collect())
        .collect();
    assert_eq!(lines.len(), 100, "{said}");
    let requested: f64 = lines.iter().map(|line| line[0]).sum();
    let answered: f64 = lines.iter().map(|line| line[1] + line[2]).sum();
    let page = endpoint.scrape_of(&client);
    let grown = |container: &ContainerCgroup, name: &str, operation| {
        let of = [container.label(), (OPERATION, operation), (DESCRIPTOR, "tcp"), ("error_type", "")];
        page.grown(&before, name, &of)
    };
    assert_eq!(grown(&server, OPERATIONS, "accept"), 1.0);
    assert_eq!(grown(&server, OPERATIONS, "write"), 100.0);
    assert_eq!(grown(&server, BYTES, "write"), answered);
    assert_eq!(grown(&server, BYTES, "receive"), requested);
    // One for each request, and one for the end.
    assert_eq!(grown(&server, OPERATIONS, "receive"), 101.0);
    assert_eq!(grown(&client, OPERATIONS, "send"), 100.0);
    assert_eq!(grown(&client, BYTES, "send"), requested);
    assert_eq!(grown(&client, BYTES, "receive"), answered);
    let files = [server.label(), (OPERATION, "read"), (DESCRIPTOR, "file")];
    assert_eq!(page.grown(&before, BYTES, &files), 500_000.0, "a read of the file for each");
    assert_eq!(page.grown(&before, "tcp_connections_accepted_total", &[server.label()]), 1.0);
    stop(agent, &page);
}

/// What PostgreSQL sends is what pgbench receives, to the byte, and the other way round.
#[test]
fn postgres_and_pgbench() {
    let (server, client) = (ContainerCgroup::make("d801"), ContainerCgroup::make("d802"));
    let postgres = Postgres::start(&server.cgroups());
    postgres.prepare_bench(1);
    let (agent, endpoint) = endpoint::start(&[]);
    let bench = Bench::parse(&client.run(postgres.bench_over_tcp(2, 500)));
    assert_eq!((bench.transactions, bench.failed), (1000, 0));
    let bytes = |page: &Page, container: &ContainerCgroup, operations: [&str; 2]| -> f64 {
        let of = |operation| [container.label(), (OPERATION, operation), (DESCRIPTOR, "tcp")];
        operations.iter().map(|operation| page.sum(BYTES, &of(operation))).sum()
    };
    let (out, into) = (["write", "send"], ["read", "receive"]);
    // The server reads the farewell after the client is gone.
    let page = endpoint.scrape_until("all that was sent", |page| {
        let sent = bytes(page, &client, out);
        sent > 0.0 && bytes(page, &server, into) >= sent
    });
    assert!(bytes(&page, &client, out) > 1000.0 * 40.0, "a statement has some bytes");
    assert_eq!(bytes(&page, &server, into), bytes(&page, &client, out), "client to server");
    assert_eq!(bytes(&page, &server, out), bytes(&page, &client, into), "server to client");
    // A transaction is one message each way.
    let sent = |container: &ContainerCgroup| {
        page.sum(OPERATIONS, &[container.label(), (OPERATION, "send"), (DESCRIPTOR, "tcp")])
    };
    assert!((1000.0..1020.0).contains(&sent(&client)), "{}", sent(&client));
    assert!((1000.0..1020.0).contains(&sent(&server)), "{}", sent(&server));
    // Two clients, and pgbench's own connection before them.
    assert_eq!(page.sum("tcp_connections_accepted_total", &[server.label()]), 3.0);
    assert_eq!(page.sum("tcp_connect_duration_seconds_count", &[client.label()]), 3.0);
    stop(agent, &page);
}

/// All calls of a traced server in its container, from its `execve` to its end, and the bytes they moved, are what strace saw.
#[track_caller]
fn check_life(page: &Page, container: &ContainerCgroup, told: &Calls) {
    let own = [container.label()];
    assert_eq!(page.by(OPERATIONS, &own, &[OPERATION, "error_type"]), told.operations);
    assert_eq!(page.by(BYTES, &own, &[OPERATION]), told.bytes);
    let of_files = [container.label(), (DESCRIPTOR, "file")];
    assert_eq!(page.by(BYTES, &of_files, &[OPERATION]), told.file_bytes);
}

/// PostgreSQL under pgbench: each call of all its processes, each byte.
#[test]
fn postgres_as_strace_tells() {
    let (server, client) = (ContainerCgroup::make("d803"), ContainerCgroup::make("d804"));
    let (agent, endpoint) = endpoint::start(&[]);
    let postgres = Postgres::start_traced(&server.cgroups());
    postgres.prepare_bench(1);
    let bench = Bench::parse(&client.run(postgres.bench_over_tcp(2, 300)));
    assert_eq!((bench.transactions, bench.failed), (600, 0));
    let told = postgres.calls();
    assert!(told.operations["receive"] >= 600.0 && told.operations["send"] >= 600.0, "{told:?}");
    let page = endpoint.scrape_of(&server);
    check_life(&page, &server, &told);
    stop(agent, &page);
}

/// nginx under wrk: each call of its master and its workers, each byte.
#[test]
fn nginx_as_strace_tells() {
    let (server, client) = (ContainerCgroup::make("e503"), ContainerCgroup::make("e504"));
    let (agent, endpoint) = endpoint::start(&[]);
    let nginx = Nginx::start_traced(2, 5000, &server.cgroups());
    let load = nginx.load(8, 2, &client.cgroups());
    assert!(load.requests > 100 && load.bad_answers + load.socket_errors == 0, "{load:?}");
    let told = nginx.calls();
    assert!(told.file_bytes["read"] >= load.requests as f64 * 5000.0, "{told:?}");
    let page = endpoint.scrape_of(&server);
    check_life(&page, &server, &told);
    stop(agent, &page);
}

#[test]
fn errors_by_class() {
    let program = io_program();
    let container = ContainerCgroup::make("ee01");
    let (agent, endpoint) = endpoint::start(&[]);
    let port = free_address().port().to_string();
    container.run(command(&[utf8(program.path()), "errors", &port, utf8(program.directory())]));
    let page = endpoint.scrape_of(&container);
    let expected = sums([
        ("open  not_found", 100.0),
        ("connect tcp connection", 10.0),
        ("write pipe connection", 5.0),
        ("read pipe would_block", 6.0),
        ("read  invalid", 3.0),
        ("change  conflict", 4.0),
        ("write character_device no_space", 2.0),
    ]);
    let failed = page.by(OPERATIONS, &[container.label()], &[OPERATION, DESCRIPTOR, "error_type"]);
    let failed: BTreeMap<_, _> = failed.into_iter().filter(|(key, _)| key.split(' ').count() == 3).collect();
    assert_eq!(failed, expected);
    let connects = page.by("tcp_connect_duration_seconds_count", &[container.label()], &["error_type"]);
    assert_eq!(connects, sums([("connection", 10.0)]));
    let resets = page.by("tcp_resets_total", &[container.label()], &["network_io_direction"]);
    assert_eq!(resets, sums([("receive", 10.0)]));
    stop(agent, &page);
}

/// Every kind of descriptor by its name, and a number that changes hands is what it is now.
#[test]
fn descriptors_by_kind() {
    let program = io_program();
    let (path, directory) = (utf8(program.path()), utf8(program.directory()));
    let (kinds, reuse) = (ContainerCgroup::make("de01"), ContainerCgroup::make("de02"));
    let (agent, endpoint) = endpoint::start(&[]);
    kinds.run(command(&[path, "kinds", directory]));
    reuse.run(command(&[path, "reuse", directory]));
    let page = endpoint.scrape_of(&reuse);
    let writes = [
        ("eventfd", 56.0),
        ("file", 7.0),
        ("pipe", 14.0),
        ("unix", 21.0),
        ("udp", 28.0),
        ("tcp", 35.0),
        ("character_device", 42.0),
        ("terminal", 49.0),
    ];
    let of_writes = [kinds.label(), (OPERATION, "write")];
    assert_eq!(page.by(BYTES, &of_writes, &[DESCRIPTOR]), sums(writes));
    assert_eq!(page.by(OPERATIONS, &of_writes, &[DESCRIPTOR]), sums(writes.map(|(kind, _)| (kind, 7.0))));
    let reads = page.by(OPERATIONS, &[kinds.label(), (OPERATION, "read")], &[DESCRIPTOR]);
    assert_eq!(reads, sums([("timerfd", 7.0), ("anonymous", 7.0)]));
    let rest = [("poll", 7.0), ("list directory", 2.0), ("accept tcp", 1.0), ("connect tcp", 1.0)];
    check(&page, &kinds, OPERATIONS, &[OPERATION, DESCRIPTOR], sums(rest));

    let expected = [
        ("file", 5.0 + 8.0 + 9.0),
        ("pipe", 6.0 + 7.0),
        ("unix", 4.0 + 10.0),
        ("character_device", 3.0),
        ("tcp", 2.0),
    ];
    let found = page.by(OPERATIONS, &[reuse.label(), (OPERATION, "write")], &[DESCRIPTOR]);
    assert_eq!(found, sums(expected));
    stop(agent, &page);
}

/// A connect that nobody answers and a slow sync leave an event each, with what they were about.
#[test]
fn slow_operations_are_told() {
    let program = io_program();
    let container = ContainerCgroup::make("5101");
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let [url, wire] = receiver.variables();
    let (agent, endpoint) = endpoint::start_with(&["io.slow_ms=2"], &[(&url.0, &url.1), (&wire.0, &wire.1)]);
    let port = container.run(command(&[utf8(program.path()), "unanswered", "1500"])).trim().to_owned();
    let file = program.directory().join("synced");
    let output = format!("of={}", utf8(&file));
    container.run(command(&["/usr/bin/dd", "if=/dev/zero", &output, "bs=1M", "count=64", "conv=fsync"]));
    let page = endpoint.scrape_of(&container);
    let connects = page.by("tcp_connect_duration_seconds_count", &[container.label()], &["error_type"]);
    assert_eq!(connects, sums([("", 1.0), ("_OTHER", 1.0)]));
    let seconds =
        page.sum("tcp_connect_duration_seconds_sum", &[container.label(), ("error_type", "_OTHER")]);
    assert!((1.5..1.7).contains(&seconds), "{seconds} s");
    // After a second it asks again.
    assert_eq!(page.sum("tcp_retransmits_total", &[container.label()]), 1.0);
    stop(agent, &page);

    let records = slow_records(&receiver, container.id());
    let connect = records.iter().find(|record| record["syscall.operation"] == "connect");
    let connect = connect.unwrap_or_else(|| panic!("no slow connect: {records:#?}"));
    assert_eq!(connect["network.peer.address"], "127.0.0.1");
    assert_eq!(connect["network.peer.port"], port);
    assert_eq!(connect["error.type"], "would_block");
    assert_eq!(connect["process.executable.name"], "io");
    // The C library's `connect` has no frame, so its caller is not seen, only who called that.
    let stack: Vec<&str> = connect["code.stacktrace"].split_whitespace().collect();
    let is_connect = stack.iter().any(|function| function.ends_with("connect"));
    assert!(is_connect && stack.contains(&"main"), "{connect:#?}");
    let duration: f64 = connect["kansoku.io.duration"].parse().expect("seconds");
    assert!((1.5..1.7).contains(&duration), "{duration} s");
    let sync = records.iter().find(|record| record["syscall.operation"] == "sync");
    let sync = sync.unwrap_or_else(|| panic!("no slow sync: {records:#?}"));
    assert_eq!((&*sync["file.path"], &*sync["process.executable.name"]), (utf8(&file), "dd"));
}

/// The attributes of the events of a container.
fn slow_records(receiver: &Receiver, container_id: &str) -> Vec<BTreeMap<String, String>> {
    use opentelemetry_proto::tonic::common::v1::KeyValue;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let texts = |attributes: &[KeyValue]| -> BTreeMap<String, String> {
        let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::DoubleValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
    };
    let logs = receiver.logs();
    let resources = logs.iter().flat_map(|request| &request.resource_logs).filter(|logs| {
        let attributes = logs.resource.as_ref().map(|resource| texts(&resource.attributes));
        attributes.is_some_and(|found| found.get("container.id").is_some_and(|id| id == container_id))
    });
    let records = resources.flat_map(|logs| &logs.scope_logs).flat_map(|scope| &scope.log_records);
    records
        .filter(|record| record.event_name == "kansoku.io.slow")
        .map(|record| texts(&record.attributes))
        .collect()
}

/// Two that want one CPU: they wait as long and are interrupted as often as the kernel's own books say.
#[test]
fn waiting_for_a_cpu() {
    let program = Program::c("spin.c", &[FRAME_POINTERS, &["-static"]].concat());
    let containers = [ContainerCgroup::make("5c01"), ContainerCgroup::make("5c02")];
    let (agent, endpoint) = endpoint::start(&[]);
    let words = ["/usr/bin/taskset", "-c", "0", utf8(program.path()), "30"];
    let spins: Vec<Inside> = containers.iter().map(|container| container.enter(command(&words))).collect();
    let told = |spin: &Inside| {
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", spin.pid())).expect("it runs");
        let waited_ns: f64 =
            read("schedstat").split(' ').nth(1).and_then(|text| text.parse().ok()).expect("proc(5)");
        let status = read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
        (waited_ns / 1e9, line.and_then(|text| text.trim().parse::<f64>().ok()).expect("proc(5)"))
    };
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<(f64, f64)> = spins.iter().map(told).collect();
    let page_before = endpoint.scrape_of(&containers[1]);
    std::thread::sleep(Duration::from_secs(3));
    let after: Vec<(f64, f64)> = spins.iter().map(told).collect();
    let page = endpoint.scrape();
    for (container, (before, after)) in containers.iter().zip(before.iter().zip(&after)) {
        let waited = page.grown(&page_before, "scheduler_wait_duration_seconds_sum", &[container.label()]);
        let of = [container.label(), ("process_context_switch_type", "involuntary")];
        let switches = page.grown(&page_before, "scheduler_context_switches_total", &of);
        let (waited_told, switches_told) = (after.0 - before.0, after.1 - before.1);
        assert!(waited_told > 0.9, "half of three seconds, or more where others run: {waited_told}");
        assert!((waited / waited_told - 1.0).abs() < 0.1, "waited {waited} s, the kernel says {waited_told}");
        assert!(
            switches > 0.0 && (switches / switches_told - 1.0).abs() < 0.1,
            "{switches}, not {switches_told}"
        );
    }
    stop(agent, &page);
}

/// Connections between two containers: opened, accepted, reset and their bytes.
#[test]
fn tcp_between_containers() {
    const CALLS: f64 = 20.0;
    const RESETS: f64 = 8.0;
    const BYTES_EACH: f64 = 1000.0;
    let program = io_program();
    let (server, client) = (ContainerCgroup::make("7c01"), ContainerCgroup::make("7c02"));
    let (agent, endpoint) = endpoint::start(&[]);
    let path = utf8(program.path());
    let mut serving = server.enter(command(&[path, "serve", "20", "1000"]));
    let port = serving.line();
    client.run(command(&[path, "call", &port, "20", "8", "1000"]));
    serving.output();
    let page = endpoint.scrape_of(&client);
    let of = |container: &ContainerCgroup, name| page.sum(name, &[container.label()]);
    assert_eq!(of(&server, "tcp_connections_accepted_total"), CALLS);
    assert_eq!(of(&client, "tcp_connections_accepted_total"), 0.0);
    let opened = page.by("tcp_connect_duration_seconds_count", &[client.label()], &["error_type"]);
    assert_eq!(opened, sums([("", CALLS)]));
    let seconds = of(&client, "tcp_connect_duration_seconds_sum");
    assert!(seconds > 0.0 && seconds < CALLS * 0.05, "{seconds} s for {CALLS} connects on the loopback");
    let directions = ["network_io_direction"];
    assert_eq!(page.by("tcp_resets_total", &[client.label()], &directions), sums([("transmit", RESETS)]));
    assert_eq!(page.by("tcp_resets_total", &[server.label()], &directions), sums([("receive", RESETS)]));
    assert_eq!(of(&client, "tcp_retransmits_total"), 0.0);
    for container in [&server, &client] {
        assert_eq!(of(container, "tcp_round_trip_duration_seconds_count"), CALLS);
        for direction in ["transmit", "receive"] {
            let bytes =
                page.sum("tcp_io_bytes_total", &[container.label(), ("network_io_direction", direction)]);
            // The peer's end counts as a byte that was received.
            let ends = if direction == "receive" { CALLS } else { 0.0 };
            let at_least = CALLS * BYTES_EACH;
            assert!((at_least..=at_least + ends).contains(&bytes), "{direction}: {bytes}");
        }
    }
    stop(agent, &page);
}

/// Direct I/O goes to the device on the account of who did it, to the byte as the kernel's block controller has it.
#[test]
fn block_devices_by_container() {
    const BYTES_WRITTEN: f64 = 16.0 * 1_048_576.0;
    let directory = TempDir::new_in("/var/tmp").expect("a temporary directory on a disk");
    let file = directory.path().join("direct");
    let (from, to) = (format!("if={}", utf8(&file)), format!("of={}", utf8(&file)));
    let container = ContainerCgroup::make("b101");
    container.account_io(directory.path());
    let (agent, endpoint) = endpoint::start(&[]);
    let write = ["/usr/bin/dd", "if=/dev/zero", &to, "bs=1M", "count=16", "oflag=direct", "status=none"];
    let read = ["/usr/bin/dd", &from, "of=/dev/null", "bs=1M", "iflag=direct", "status=none"];
    container.run(command(&write));
    container.run(command(&read));
    let page = endpoint.scrape_of(&container);
    let [read_bytes, written_bytes] = container.blkio("blkio.throttle.io_service_bytes");
    for (operation, told) in [("write", written_bytes), ("read", read_bytes)] {
        let of = [container.label(), ("block_operation", operation)];
        assert!(told >= BYTES_WRITTEN, "{operation}: {told}");
        assert_eq!(page.sum("block_io_bytes_total", &of), told, "{operation}");
        assert!(page.sum("block_io_duration_seconds_count", &of) >= 1.0);
        let seconds = page.sum("block_io_duration_seconds_sum", &of);
        assert!(seconds > 0.0 && seconds < 10.0, "{operation}: {seconds} s");
    }
    stop(agent, &page);
}
