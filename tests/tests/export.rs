//! Backends that are down, slow or hostile, and the real OpenTelemetry Collector.
//!
//! Refuses: "it probably arrived". Samples at the receiver and counted losses must add up to what was sampled.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::crash::Death;
use tests::profile;
use tests::receiver::{Behaviour, Protocol, Receiver, free_address, variables};
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, Running, utf8};

/// The budget of the whole agent; the queue of 8 MiB is a part of it.
const RESIDENT_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// A backend that never answers is given five seconds at the stop; symbols of the last window come on top.
const HOSTILE_STOP_MAX: Duration = Duration::from_secs(9);

fn start(address: SocketAddr, protocol: Protocol, settings: &[&str]) -> Agent {
    let mut arguments = vec!["--set", "profile.window_ms=1000"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let [endpoint, wire] = variables(address, protocol);
    Agent::run(&arguments, &[(&endpoint.0, &endpoint.1), (&wire.0, &wire.1)])
}

/// Thirty seconds without a backend: with the normal queue nothing is lost, with a tiny one the rest is counted.
#[test]
fn down_for_thirty_seconds() {
    let spin = Program::c("spin.c", FRAME_POINTERS);
    let mixed = Program::c("mixed.c", FRAME_POINTERS);
    let _load = [spin.start(&["120"]), mixed.start(&["120"])];
    let retry = ["otlp.retry_initial_ms=200", "otlp.retry_delay_max_ms=1000"];
    let tiny_queue = [&retry[..], &["otlp.queue_bytes_max=65536"]].concat();
    let cases = [(Protocol::Grpc, &retry[..], false), (Protocol::Http, &tiny_queue[..], true)];
    let mut agents: Vec<_> = cases
        .iter()
        .map(|&(protocol, settings, is_tiny)| {
            let address = free_address();
            (protocol, address, is_tiny, start(address, protocol, settings))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(30));
    for (protocol, _, _, agent) in &mut agents {
        assert!(agent.is_running(), "{protocol:?}: ended while its backend was down:\n{}", agent.stderr());
        let (now, most) = agent.resident_bytes();
        println!("{protocol:?}: {} KiB resident, {} KiB at most", now / 1024, most / 1024);
        assert!(most < RESIDENT_BYTES_MAX, "{protocol:?}: {most} bytes resident");
    }
    let receivers: Vec<Receiver> = agents
        .iter()
        .map(|&(protocol, address, ..)| Receiver::start_at(address, protocol, Behaviour::Accept))
        .collect();
    std::thread::sleep(Duration::from_secs(5));
    for ((protocol, _, is_tiny, agent), receiver) in agents.into_iter().zip(receivers) {
        agent.terminate();
        let books = agent.finish(STOP_MAX).expect_code(0).books();
        books.expect_balance();
        let account = books.of("profile");
        println!("{protocol:?}: {account:#?}");
        let arrived = profile::total(&profile::of_requests(&receiver.profiles()));
        assert_eq!(account.exported, Some(arrived), "{protocol:?}: exported is what arrived");
        let lost: u64 = account.lost.values().sum();
        assert_eq!(account.seen, arrived + lost, "{protocol:?}: what was seen arrived or is counted");
        assert!(arrived > 0, "{protocol:?}: nothing arrived after the backend was back");
        assert_eq!(account.lost_as("export_queue_full") > 0, is_tiny, "{protocol:?}: {account:#?}");
        if !is_tiny {
            assert_eq!(lost, 0, "{protocol:?}: the queue had room for all: {account:#?}");
        }
        assert_eq!(receiver.complaints(), Vec::<String>::new());
    }
}

/// Each stops within seconds, with books that balance, and counts what never arrived under the right reason.
#[test]
fn hostile_backends() {
    let spin = Program::c("spin.c", FRAME_POINTERS);
    let _load = spin.start(&["120"]);
    let check = |protocol: Protocol| {
        let cases = [
            (None, Some("export_shutdown")),
            (Some(Behaviour::Hang), Some("export_shutdown")),
            (Some(Behaviour::TooMany), Some("export_shutdown")),
            (Some(Behaviour::Refuse), Some("export_refused")),
            // A 200 with a strange body was taken, as far as anyone can tell; bytes that are no gRPC were not.
            (Some(Behaviour::Garbage), (protocol == Protocol::Grpc).then_some("export_shutdown")),
        ];
        let agents: Vec<_> = cases
            .into_iter()
            .map(|(behaviour, expected)| {
                let address = free_address();
                let receiver = behaviour.map(|behaviour| Receiver::start_at(address, protocol, behaviour));
                (behaviour, expected, receiver, start(address, protocol, &["otlp.retry_initial_ms=100"]))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(4));
        for (behaviour, expected, receiver, agent) in agents {
            let what = format!("{protocol:?} {behaviour:?}");
            if let Some(receiver) = &receiver {
                receiver.wait_for_attempt(Duration::from_secs(5));
            }
            let (_, most) = agent.resident_bytes();
            assert!(most < RESIDENT_BYTES_MAX, "{what}: {most} bytes resident");
            agent.terminate();
            let stopping = Instant::now();
            let books = agent.finish(HOSTILE_STOP_MAX).expect_code(0).books();
            println!(
                "{what}: stopped in {:.1} s, {:?}",
                stopping.elapsed().as_secs_f64(),
                books.of("profile")
            );
            books.expect_balance();
            let account = books.of("profile");
            assert!(account.represented > 100, "{what}: {account:#?}");
            if let Some(reason) = expected {
                assert!(account.lost_as(reason) > 0, "{what}: nothing lost as {reason}: {account:#?}");
                assert_eq!(account.exported, Some(0), "{what}: {account:#?}");
            }
        }
    };
    check(Protocol::Grpc);
    check(Protocol::Http);
}

/// The reference receiver takes and understands both protocols.
#[test]
fn opentelemetry_collector() {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/bin/otelcol.xz");
    if !packed.exists() {
        println!("SKIPPED: the OpenTelemetry Collector is not at {}", packed.display());
        return;
    }
    let spin = Program::c("spin.c", FRAME_POINTERS);
    let _load = spin.start(&["120"]);
    let directory = TempDir::new().expect("a temporary directory");
    let (grpc, http) = (free_address(), free_address());
    let mut log = start_collector(&packed, directory.path(), grpc, http);
    let crash = Program::c("crash.c", FRAME_POINTERS);
    for (protocol, address) in [(Protocol::Grpc, grpc), (Protocol::Http, http)] {
        let spool = format!("crash.spool={}", utf8(&directory.path().join(protocol.name())));
        let agent = start(address, protocol, &[&spool]);
        let death = Death::of(&mut crash.command(&["segv"]));
        std::thread::sleep(Duration::from_secs(4));
        agent.terminate();
        let finished = agent.finish(STOP_MAX).expect_code(0);
        let books = finished.books();
        books.expect_balance();
        for signal in ["profile", "metric", "crash"] {
            let account = books.of(signal);
            let lost = account.lost.keys().filter(|reason| *reason != "healthy_exit").count();
            assert_eq!(lost, 0, "{protocol:?} {signal}: {account:#?}\n{}", finished.stderr);
            assert!(account.exported > Some(0), "{protocol:?} {signal}: {account:#?}");
        }
        let printed = log.next_part();
        expect_crash(&printed, death.pid);
        for expected in
            ["spin_seventy", "service.name: Str(spin)", "profile.frame.type", "kansoku.records.seen"]
        {
            assert!(printed.contains(expected), "{protocol:?}: the collector did not print {expected}");
        }
    }
}

/// The collector printed the log record of a crash, once, with what the conventions and what our own prefix say.
fn expect_crash(printed: &str, pid: u64) {
    assert_eq!(printed.matches("EventName: kansoku.crash").count(), 1, "one log record:\n{printed}");
    let mut records = printed.split("LogRecord #");
    let record = records.find(|text| text.contains("EventName: kansoku.crash")).unwrap_or_default();
    for expected in [
        "SeverityText: FATAL",
        "SeverityNumber: Fatal(21)",
        "Body: Str(SIGSEGV (SEGV_MAPERR) at 0x18, null page, in crash_here)",
        "exception.type: Str(SIGSEGV)",
        &format!("process.pid: Int({pid})"),
        "process.executable.name: Str(crash)",
        "kansoku.crash.kind: Str(crash)",
        "kansoku.crash.fault.address: Str(0x18)",
        "kansoku.crash.kernel_stack: Slice([",
        "kansoku.crash.mappings: Slice([",
        "kansoku.crash.thread_names: Slice([\"1 crash\"])",
    ] {
        assert!(record.contains(expected), "the collector did not print {expected}:\n{record}");
    }
}

/// A running collector and what it printed.
struct CollectorLog {
    _running: Running,
    path: std::path::PathBuf,
    read: usize,
}

impl CollectorLog {
    /// What was printed since the last call.
    fn next_part(&mut self) -> String {
        // The debug exporter writes at once; the file system needs no time either.
        let text = std::fs::read_to_string(&self.path).expect("the collector's log");
        let part = text[self.read..].to_owned();
        self.read = text.len();
        part
    }
}

fn start_collector(packed: &Path, directory: &Path, grpc: SocketAddr, http: SocketAddr) -> CollectorLog {
    let binary = directory.join("otelcol");
    tools::require("xz", "xz-utils");
    let unpack = format!("xz -dc {} > {1} && chmod 755 {1}", packed.display(), binary.display());
    tools::succeed(Command::new("sh").args(["-c", &unpack]));
    let config = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{grpc}'}}, http: {{endpoint: '{http}'}}}}}}}}\n\
         exporters: {{debug: {{verbosity: detailed}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n\
         \x20   metrics: {{receivers: [otlp], exporters: [debug]}}\n\
         \x20   logs: {{receivers: [otlp], exporters: [debug]}}\n\
         \x20   profiles: {{receivers: [otlp], exporters: [debug]}}\n"
    );
    let (config_path, path) = (directory.join("config.yaml"), directory.join("log"));
    tools::write_file(&config_path, config.as_bytes());
    let command = format!(
        "exec timeout 120 {} --config {} --feature-gates=service.profilesSupport > {} 2>&1",
        utf8(&binary),
        utf8(&config_path),
        utf8(&path)
    );
    let running = Running::start(Command::new("sh").args(["-c", &command]).stdin(Stdio::null()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(grpc).is_err() || TcpStream::connect(http).is_err() {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(Instant::now() < deadline, "the collector does not listen:\n{log}");
        std::thread::sleep(Duration::from_millis(100));
    }
    CollectorLog { _running: running, path, read: 0 }
}
