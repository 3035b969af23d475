//! Metrics where things go wrong: ten thousand cgroups, a clock that steps, pages of applications that are no pages.
//!
//! Refuses: half answers. What is left out is counted, and what is there is right.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::cgroup::{self, ContainerCgroup};
use tests::endpoint::{self, Page};
use tests::http;
use tests::metrics::{Point, points};
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::tools;
use tests::workload::utf8;

fn stop(agent: Agent) {
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LC_ALL", "C");
    command
}

/// Containers in the hierarchies that the agent reads first, made and removed by the thousand.
struct Thousands {
    parents: Vec<PathBuf>,
    count: usize,
}

impl Thousands {
    fn make(count: usize) -> Self {
        let memory = PathBuf::from("/sys/fs/cgroup/memory");
        let mounts = [cgroup::mount(), memory].into_iter().filter(|mount| mount.exists());
        let parents: Vec<PathBuf> = mounts.map(|mount| mount.join("kansoku-thousands.kubepods")).collect();
        for parent in &parents {
            std::fs::create_dir(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
            for index in 0..count {
                std::fs::create_dir(parent.join(Self::id(index))).expect("a cgroup");
            }
        }
        Self { parents, count }
    }

    fn id(index: usize) -> String {
        format!("77{index:062x}")
    }

    /// A process lives in each of them for a moment; the agent knows of containers by their processes.
    fn visit(&self) {
        let unified = self.parents[0].display();
        let script = format!(
            "for cgroup in {unified}/77*; do echo 0 > $cgroup/cgroup.procs; /bin/true; done; echo 0 > {}/cgroup.procs",
            cgroup::mount().display()
        );
        tools::succeed(&mut command(&["/bin/sh", "-c", &script]));
    }
}

impl Drop for Thousands {
    fn drop(&mut self) {
        for parent in &self.parents {
            for index in 0..self.count {
                let _gone = std::fs::remove_dir(parent.join(Self::id(index)));
            }
            let _gone = std::fs::remove_dir(parent);
        }
    }
}

/// More cgroups than are known at once: the page is whole and bounded, who is left out is counted, and a collection does not
/// take for ever.
#[test]
fn ten_thousand_cgroups() {
    const CGROUPS: usize = 10_050;
    let (mut agent, endpoint) = endpoint::start(&[]);
    let thousands = Thousands::make(CGROUPS);
    thousands.visit();
    std::thread::sleep(Duration::from_secs(2));
    let page = |what: &str| {
        let started = Instant::now();
        let answer = http::get(endpoint.address(), "/metrics", &[]).expect("it answers").expect_success();
        let page = Page::parse(answer.text());
        println!("{what}: {} bytes, {} series in {:?}", page.text.len(), page.count(), started.elapsed());
        std::thread::sleep(Duration::from_secs(1));
        page
    };
    let first = page("first");
    let second = page("second");
    let told = second
        .names()
        .filter(|name| name.starts_with("container_"))
        .flat_map(|name| second.series(name, &[]));
    let told: BTreeSet<&str> =
        told.map(|sample| sample.label("name")).filter(|id| id.starts_with("77")).collect();
    let left_out = second.value("kansoku_cgroups_left_out", &[]);
    println!("{} containers told, {left_out} cgroups left out", told.len());
    assert!(left_out >= 50.0, "{left_out} left out");
    assert!(told.len() > 5_000, "{} containers on the page", told.len());
    assert!(second.count() <= 1_000_000, "{} series", second.count());
    let time_s = |page: &Page| page.value("kansoku_metrics_collection_time_seconds_total", &[]);
    let third = page("third");
    let one_s = time_s(&third) - time_s(&second);
    println!("a collection takes {one_s} s, the first took {} s", time_s(&second) - time_s(&first));
    assert!(one_s < 5.0, "{one_s} s for a collection");
    let (now, most) = agent.resident_bytes();
    println!("{} MiB resident, {} MiB at most", now >> 20, most >> 20);
    assert!(agent.is_running());
    drop(thousands);
    std::thread::sleep(Duration::from_secs(1));
    // Who is gone is noticed by one collection, and the next one looks at all anew.
    let after = endpoint
        .scrape_until("no cgroup too many", |page| page.value("kansoku_cgroups_left_out", &[]) == 0.0);
    let left = after
        .series("container_memory_usage_bytes", &[])
        .iter()
        .filter(|sample| sample.label("name").starts_with("77"))
        .count();
    assert_eq!(left, 0, "they are gone");
    stop(agent);
}

/// The wall clock jumps an hour back and two hours ahead: sums go on, no series begins after it ends, and no delta is negative.
#[test]
fn the_clock_steps() {
    const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    tools::require("faketime", "faketime");
    let directory = TempDir::new().expect("a temporary directory");
    let clock = directory.path().join("clock");
    // Written to another file first: it is read at each look at the clock.
    let set = |offset: &str| {
        let next = directory.path().join("next");
        tools::write_file(&next, format!("{offset}\n").as_bytes());
        std::fs::rename(&next, &clock).expect("a file");
    };
    set("+0");
    for temporality in ["cumulative", "delta"] {
        let container = ContainerCgroup::make("c10c");
        let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
        let [url, wire] = receiver.variables();
        let variables = [
            (&*url.0, &*url.1),
            (&*wire.0, &*wire.1),
            ("LD_PRELOAD", FAKETIME),
            ("FAKETIME_TIMESTAMP_FILE", utf8(&clock)),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        let preference = format!("otlp.metrics.temporality={temporality}");
        let settings = ["metrics.interval_ms=500", &preference];
        let (agent, endpoint) = endpoint::start_with(&settings, &variables);
        let steps = ["+0", "-1h", "+1h", "+0"];
        for offset in steps {
            set(offset);
            container.run(command(&[
                "/usr/bin/dd",
                "if=/dev/zero",
                "of=/dev/null",
                "bs=1k",
                "count=100",
                "status=none",
            ]));
            std::thread::sleep(Duration::from_millis(1500));
        }
        let of =
            [container.label(), ("syscall_operation", "write"), ("syscall_descriptor", "character_device")];
        let writes = 100.0 * steps.len() as f64;
        let page = endpoint
            .scrape_until("all writes", |page| page.sum("syscall_io_operations_total", &of) >= writes);
        assert_eq!(page.sum("syscall_io_operations_total", &of), writes);
        stop(agent);
        let requests = receiver.metrics();
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        let mut hours = BTreeSet::new();
        let mut check = |point: &Point| {
            assert!(point.value >= 0.0, "{point:?}");
            assert!(point.start_unix_ns <= point.time_unix_ns, "it begins after its end: {point:?}");
            hours.insert(point.time_unix_ns / 3_000_000_000_000);
        };
        for name in [
            "syscall.io.operations",
            "container.cpu.time",
            "system.cpu.time",
            "container.paging.faults",
            "scheduler.wait.duration",
        ] {
            points(&requests, name).iter().for_each(&mut check);
        }
        for point in points(&requests, "syscall.io.operations") {
            let is_ours = point.attribute("container.id") == container.id();
            if is_ours
                && point.attribute("syscall.operation") == "write"
                && point.attribute("syscall.descriptor") == "character_device"
            {
                let sum = sums.entry(point.attribute("error.type").to_owned()).or_default();
                *sum = if point.is_delta { *sum + point.value } else { point.value };
            }
        }
        assert_eq!(sums, BTreeMap::from([(String::new(), writes)]), "{temporality}");
        assert!(hours.len() >= 3, "the agent saw the clock step: {hours:?}");
        assert_eq!(receiver.complaints(), Vec::<String>::new());
    }
}

/// Answers each client in some way.
fn serve(answer: fn(&mut TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            std::thread::spawn(move || {
                let _head = stream.read(&mut [0; 4096]);
                answer(&mut stream);
            });
        }
    });
    address
}

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n\r\n";

/// A page that is sent as far as the client wants it.
fn say(stream: &mut TcpStream, parts: &[&[u8]]) {
    for part in parts {
        let _closed = stream.write_all(part);
    }
}

/// Targets that lie, hang and flood cost their own `up`, a bounded piece of memory, and nothing of the others.
#[test]
fn hostile_pages() {
    let hostile: [(&str, SocketAddr, f64); 7] = [
        ("silent", serve(|_| std::thread::sleep(Duration::from_secs(60))), 0.0),
        (
            "slow",
            serve(|stream| {
                say(stream, &[HEAD, b"# TYPE slow gauge\n"]);
                for _ in 0..60 {
                    say(stream, &[b"slow"]);
                    std::thread::sleep(Duration::from_secs(1));
                }
            }),
            0.0,
        ),
        (
            "one_line",
            serve(|stream| {
                say(stream, &[HEAD]);
                let part = [b'a'; 65_536];
                while stream.write_all(&part).is_ok() {}
            }),
            0.0,
        ),
        (
            "no_http",
            serve(|stream| {
                say(stream, &[b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP at all\r\n"])
            }),
            0.0,
        ),
        (
            "refusing",
            serve(|stream| {
                say(stream, &[b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n"])
            }),
            0.0,
        ),
        (
            "half",
            serve(|stream| {
                say(stream, &[b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: 1000\r\n\r\nhalf 1\n"])
            }),
            0.0,
        ),
        // Good lines of a bad page count, the rest is lost by the line.
        (
            "garbage",
            serve(|stream| {
                say(stream, &[HEAD, b"good_of_garbage 3\n\xff\xfe{{{ 1\n\0\0\0\nname{a=\"} 1\n{} 2\nx 1e999999999999\nx{a=\"1\",a=\"2\"} NaNa\n"])
            }),
            1.0,
        ),
    ];
    let good = serve(|stream| say(stream, &[HEAD, b"# TYPE orders_total counter\norders_total 7\n"]));
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let [url, wire] = receiver.variables();
    let all = hostile.iter().map(|(name, address, _)| (*name, address)).chain([("good", &good)]);
    let targets: Vec<String> =
        all.map(|(name, address)| format!("{name}=http://{address}/metrics")).collect();
    let targets = format!("scrape.targets={}", targets.join(","));
    let settings = ["metrics.interval_ms=1000", "scrape.interval_ms=1000", &targets];
    let (mut agent, _endpoint) = endpoint::start_with(&settings, &[(&url.0, &url.1), (&wire.0, &wire.1)]);
    std::thread::sleep(Duration::from_secs(8));
    let (_, most) = agent.resident_bytes();
    println!("{} MiB at most", most >> 20);
    assert!(most < 300 << 20, "{most} bytes");
    assert!(agent.is_running());
    stop(agent);
    let requests = receiver.metrics();
    let up = points(&requests, "up");
    let of = |address: &SocketAddr| {
        let port = address.port().to_string();
        up.iter()
            .filter(|point| point.attribute("server.port") == port)
            .map(|point| point.value)
            .collect::<Vec<_>>()
    };
    for (name, address, expected) in &hostile {
        let values = of(address);
        assert!(!values.is_empty() && values.iter().all(|value| value == expected), "{name}: {values:?}");
    }
    let values = of(&good);
    assert!(
        values.len() >= 5 && values.iter().all(|value| *value == 1.0),
        "the good one waits for nobody: {values:?}"
    );
    assert_eq!(points(&requests, "orders_total").last().map(|point| point.value), Some(7.0));
    assert_eq!(points(&requests, "good_of_garbage").last().map(|point| point.value), Some(3.0));
    assert!(points(&requests, "half").is_empty(), "half a page is no page");
    assert_eq!(receiver.complaints(), Vec::<String>::new());
}
