//! The on-CPU profile of real programs, in every form in which it comes out.
//!
//! Refuses: to trust one encoder by its own decoder: pprof is read by Go's tool, OTLP by the published Python package
//! and by tonic's generated services.

use std::process::Command;
use std::time::Duration;

use tests::agent::{Agent, STOP_MAX};
use tests::profile::{self, Stack};
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, Running, source, utf8};

/// The truth about spin.c.
const SHARES: [(&str, f64); 3] = [("spin_seventy", 70.0), ("spin_twenty", 20.0), ("spin_ten", 10.0)];

/// Percentage points that a share may be off.
const TOLERANCE: f64 = 3.0;

/// Samples below which shares say too little.
const SAMPLES_MIN: u64 = 400;

const FREQUENCY_HZ: f64 = 97.0;

/// Shares of the three functions among the samples of spin, and their number by the processor time that spin had:
/// other programs may take some of its time, the sampler may not. The time is measured around the agent's whole
/// life, so that there is up to a third less of samples.
#[track_caller]
fn check_shares(form: &str, stacks: &[Stack], cpu_seconds: f64) {
    let own = profile::of_process(stacks, "spin");
    let total = profile::total(&own);
    let expected = cpu_seconds * FREQUENCY_HZ;
    println!("{form}: {total} samples of spin in {cpu_seconds:.1} s of its time");
    assert!(total >= SAMPLES_MIN, "{form}: {total} samples of spin");
    assert!(
        total as f64 <= expected * 1.05 + 5.0,
        "{form}: {total} samples of spin are more than {expected:.0}"
    );
    assert!(
        total as f64 >= expected * 0.66,
        "{form}: {total} samples of spin are far less than {expected:.0}"
    );
    for (function, expected) in SHARES {
        let found = profile::total(own.iter().filter(|stack| stack.has(function)));
        let share = found as f64 * 100.0 / total as f64;
        println!("{form}: {function} {share:.1} % of {total}");
        assert!(
            (share - expected).abs() <= TOLERANCE,
            "{form}: {function} has {share:.1} %, not {expected} %: {:?}",
            profile::leaves(&own)
        );
    }
    let rooted = own.iter().filter(|stack| stack.has("main") && stack.has("spin_round"));
    let rooted = profile::total(rooted);
    assert!(rooted * 100 >= total * 95, "{form}: only {rooted} of {total} stacks reach main");
}

#[test]
fn shares_at_receivers() {
    let program = Program::c("spin.c", FRAME_POINTERS);
    let check = |protocol: Protocol, compression: &str| {
        let spin = program.start(&["120"]);
        let start = spin.cpu_seconds();
        let receiver = Receiver::start(protocol, Behaviour::Accept);
        let [endpoint, wire] = receiver.variables();
        let agent = Agent::run(
            &["--duration", "12s", "--set", "profile.window_ms=1000"],
            &[
                (&endpoint.0, &endpoint.1),
                (&wire.0, &wire.1),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ],
        );
        let finished = agent.finish(Duration::from_secs(12) + STOP_MAX).expect_code(0);
        let cpu_seconds = spin.cpu_seconds() - start;
        assert_eq!(receiver.complaints(), Vec::<String>::new(), "{protocol:?}");
        let requests = receiver.profiles();
        assert!(requests.len() >= 8, "{protocol:?}: {} requests in 12 windows", requests.len());
        let stacks = profile::of_requests(&requests);
        for stack in &stacks {
            let environment = stack.attribute("deployment.environment.name");
            assert_eq!(environment, Some("test"), "{protocol:?}: {:?}", stack.resource);
            assert!(stack.attribute("host.name").is_some(), "{protocol:?}: {:?}", stack.resource);
        }
        let books = finished.books();
        books.expect_balance();
        let exported = books.of("profile").exported;
        assert_eq!(exported, Some(profile::total(&stacks)), "{protocol:?}: exported is what arrived");
        assert!(!receiver.metrics().is_empty(), "{protocol:?}: the agent's own metrics arrive");
        check_shares(&format!("OTLP by {protocol:?}"), &stacks, cpu_seconds);
    };
    check(Protocol::Grpc, "gzip");
    check(Protocol::Http, "none");
}

#[test]
fn shares_in_files() {
    let program = Program::c("spin.c", FRAME_POINTERS);
    let spin = program.start(&["120"]);
    let file = |name: &str| program.directory().join(name);
    let paths = ["a.pb.gz", "a.folded", "a.otlp", "a.svg", "a.html"].map(file);
    let start = spin.cpu_seconds();
    // All at once: agents must not disturb each other either.
    let agents: Vec<Agent> =
        paths.iter().map(|path| Agent::profile(&["--duration", "10s", "-o", utf8(path)])).collect();
    for agent in agents {
        let finished = agent.finish(Duration::from_secs(10) + STOP_MAX).expect_code(0);
        assert!(finished.stderr.contains("none lost"), "{}", finished.stderr);
    }
    let cpu_seconds = spin.cpu_seconds() - start;
    let [pprof, folded, otlp, svg, html] = &paths;
    check_shares("pprof by Go", &profile::of_pprof_text(&tools::pprof_raw(pprof)), cpu_seconds);
    let text = std::fs::read_to_string(folded).expect("the folded file");
    check_shares("folded", &profile::of_folded(&text), cpu_seconds);
    let bytes = std::fs::read(otlp).expect("the OTLP file");
    check_shares("OTLP file", &profile::of_otlp_file(&bytes), cpu_seconds);
    check_shares("OTLP file by Python", &of_python(&tools::otlp_by_python(otlp)), cpu_seconds);
    for drawing in [svg, html] {
        check_drawing(&std::fs::read_to_string(drawing).expect("the drawing"));
    }
    tools::succeed(
        Command::new("python3")
            .args(["-c", "import sys, xml.dom.minidom as d; d.parse(sys.argv[1])"])
            .arg(svg),
    );
}

/// Frames of a flame graph carry their function and share in a title: `spin_seventy (681 samples, 67.9%)`.
fn check_drawing(text: &str) {
    let share = |function: &str| {
        let title = text.split("<title>").find(|title| title.starts_with(&format!("{function} (")));
        let title = title.unwrap_or_else(|| panic!("{function} is not drawn"));
        let percent = title.split('%').next().and_then(|head| head.rsplit([' ', '(']).next());
        percent.and_then(|percent| percent.parse::<f64>().ok()).expect("a share in the title")
    };
    let whole = share("spin");
    for (function, expected) in SHARES {
        let found = share(function) * 100.0 / whole;
        assert!((found - expected).abs() <= TOLERANCE, "{function} is drawn with {found:.1} % of spin");
    }
    assert!(!text.contains("src=\"http") && !text.contains("href=\"http"), "a drawing is complete in itself");
}

fn of_python(samples: &serde_json::Value) -> Vec<Stack> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let stack = |sample: &serde_json::Value| Stack {
        process: text(&sample["process"]),
        thread: text(&sample["thread"]),
        frames: sample["frames"]
            .as_array()
            .expect("frames")
            .iter()
            .map(|name| profile::Frame { name: text(name), ..profile::Frame::default() })
            .collect(),
        count: sample["value"].as_u64().expect("a value") / sample["period"].as_u64().expect("a period"),
        ..Stack::default()
    };
    samples.as_array().expect("a list of samples").iter().map(stack).collect()
}

/// A copy loop in the kernel: its stacks go from the program's `read` and `write` into kernel functions.
#[test]
fn kernel_stacks() {
    let _copy = Running::start(Command::new("timeout").args([
        "60",
        "dd",
        "if=/dev/urandom",
        "of=/dev/null",
        "bs=64k",
    ]));
    let finished = Agent::profile(&["--duration", "4s", "-o", "-"]).finish(STOP_MAX).expect_code(0);
    let stacks = profile::of_folded(&finished.stdout_text());
    let own = profile::of_process(&stacks, "dd");
    let total = profile::total(&own);
    assert!(total > 100, "{total} samples of dd");
    let in_kernel = own.iter().filter(|stack| stack.frames.last().is_some_and(|leaf| leaf.is_kernel));
    let in_kernel = profile::total(in_kernel);
    assert!(in_kernel * 100 >= total * 90, "{in_kernel} of {total} samples of dd end in the kernel");
    for function in ["vfs_read", "do_syscall_64"] {
        profile::expect_frames(&stacks, "dd", total * 80 / 100, function, |frame| {
            frame.is_kernel && frame.name == function
        });
    }
    // Kernel frames come after the user frames that called them, never between.
    for stack in &own {
        let first_kernel = stack.frames.iter().position(|frame| frame.is_kernel);
        let after = first_kernel.map_or(&[][..], |first| &stack.frames[first..]);
        assert!(after.iter().all(|frame| frame.is_kernel), "{stack:?}");
    }
    let named = own.iter().flat_map(|stack| &stack.frames).filter(|frame| frame.is_kernel);
    let unnamed: Vec<_> = named.filter(|frame| frame.name.contains("+0x")).collect();
    assert!(unnamed.is_empty(), "kernel frames without a name: {unnamed:?}");
}

/// Programs of five languages at once. At least 50 samples each: a fifth of what they get on two CPUs.
#[test]
fn languages() {
    const MIN: u64 = 50;
    let rust = Program::rust("tower.rs");
    let go = Program::go("carousel.go");
    let python = source("busy.py");
    let node = source("busy.js");
    let interpreter =
        tools::output_of("python3", &["-c", "import os, sys; print(os.path.realpath(sys.executable))"]);
    let interpreter = interpreter.trim();
    let programs = [
        rust.start(&["60"]),
        go.start(&["60"]),
        Running::start(Command::new(interpreter).args([utf8(&python), "60"])),
        Running::start(Command::new("node").args([utf8(&node), "60"])),
    ];
    let path = rust.directory().join("languages.otlp");
    let agent = Agent::profile(&["--duration", "8s", "-o", utf8(&path)]);
    agent.finish(STOP_MAX + STOP_MAX).expect_code(0);
    let mut stacks = profile::of_otlp_file(&std::fs::read(&path).expect("the OTLP file"));
    stacks.retain(|stack| programs.iter().any(|program| program.pid() == stack.pid));
    profile::expect_frames(&stacks, "tower", MIN, "tower::orbit::Climber::climb, demangled", |frame| {
        frame.name.contains("tower::orbit::Climber") && frame.name.contains("climb")
    });
    profile::expect_frames(&stacks, "tower", MIN, "tower::main", |frame| frame.name == "tower::main");
    profile::expect_frames(&stacks, "carousel", MIN, "main.turnCarousel", |f| f.name == "main.turnCarousel");
    // turnCarousel is a leaf without a frame, so its caller is skipped; the walk must still reach the runtime.
    profile::expect_frames(&stacks, "carousel", MIN, "runtime.main", |frame| frame.name == "runtime.main");
    let python_name = interpreter.rsplit('/').next().expect("a file name");
    profile::expect_frames(&stacks, python_name, MIN, "functions of the interpreter", |frame| {
        frame.name.starts_with("_Py") || frame.name.starts_with("Py")
    });
    profile::expect_frames(&stacks, python_name, 10, "the interpreter's loop", |frame| {
        frame.name.starts_with("_PyEval_EvalFrameDefault")
    });
    // V8's code has no file and, without a perf map, no name: it is kept by its address, beside the runtime's frames.
    profile::expect_frames(&stacks, "node", MIN, "JIT code kept by its address", |frame| {
        frame.name.starts_with("[anon]+0x")
    });
}
