//! A hundred thousand connections at one time: the agent's memory stays bounded, and what it cannot follow is counted.
//!
//! Refuses: how fast they are, which `flow` asks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::receiver::Protocol;
use tests::traced::Traced;

/// Pairs of processes, and the connections of each: a process may have 20,000 descriptors here.
const PAIRS: u64 = 6;
const EACH: u64 = 16_700;

/// What they may cost the agent: its tables of connections, and the spans that wait.
const GROWTH_BYTES_MAX: u64 = 288 << 20;

#[test]
fn a_hundred_thousand_connections() {
    let traced = Traced::start(Protocol::Grpc, &[]);
    let (before, _) = traced.resident_bytes();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads/crowd.py");
    let mut crowd = Command::new("python3")
        .arg(script)
        .args([PAIRS.to_string(), EACH.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut answered = String::new();
    let output = crowd.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut answered).expect("it is text");
    let (opened, _) = traced.resident_bytes();
    drop(crowd.stdin.take());
    assert!(crowd.wait().expect("it ends").success());
    assert_eq!(answered.trim().parse(), Ok(PAIRS * EACH), "all are open at once, and answered");
    let (after, peak) = traced.resident_bytes();
    let told = traced.stop();
    let spans = told.spans.iter().filter(|span| span.target() == "/item/1").count() as u64;
    let sum = |signal: &str| told.books.of(signal).lost.values().sum::<u64>();
    let mebibytes = |bytes: u64| bytes / (1 << 20);
    println!(
        "{} connections: {spans} spans of {}; spans lost {:?}, flow {:?}; resident {} MiB before, {} with all open, {} after, {} at \
         the peak",
        PAIRS * EACH,
        2 * PAIRS * EACH,
        told.books.of("span").lost,
        told.books.of("flow").lost,
        mebibytes(before),
        mebibytes(opened),
        mebibytes(after),
        mebibytes(peak)
    );
    assert!(spans > 0, "those that have room are told");
    assert!(told.books.of("flow").lost.contains_key("connections_full"), "more than there is room for");
    assert!(spans + sum("span") + sum("flow") >= 2 * PAIRS * EACH, "what is missing is counted");
    assert!(peak.saturating_sub(before) <= GROWTH_BYTES_MAX, "{before} bytes, then {peak}");
}
