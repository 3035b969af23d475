//! The books under a load that the agent cannot keep up with: much is lost, and every record of it is accounted for.
//!
//! Refuses: a calm stop. The signal comes while both CPUs are busy and processes come and go.

use std::process::Command;
use std::time::Duration;

use tests::agent::{Agent, STOP_MAX};
use tests::ledger::Books;
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::workload::{FRAME_POINTERS, Program, Running};

/// A storm of processes, bounded in time.
fn storm() -> Running {
    Running::start(Command::new("timeout").args(["60", "sh", "-c", "while :; do /bin/true; done"]))
}

/// Runs the agent under load, ends it by SIGTERM in the middle, and returns its books.
fn books_under_load(settings: &[&str], receiver: Option<&Receiver>) -> Books {
    let spin = Program::c("spin.c", FRAME_POINTERS);
    let mixed = Program::c("mixed.c", FRAME_POINTERS);
    let _load = [spin.start(&["60"]), mixed.start(&["60"]), storm()];
    let flame_graph = format!("local.flame_graph={}/flame.html", spin.directory().display());
    let mut arguments = vec!["--set", &flame_graph];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let variables = receiver.map(Receiver::variables).unwrap_or_default();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let agent = Agent::run(&arguments, &variables);
    std::thread::sleep(Duration::from_secs(5));
    agent.terminate();
    let books = agent.finish(STOP_MAX).expect_code(0).books();
    println!("{settings:?}: {books:#?}");
    books.expect_balance();
    books
}

#[test]
fn a_tiny_ring() {
    let books = books_under_load(
        &["profile.sample_ring_bytes=4096", "profile.frequency_hz=9973", "profile.window_ms=500"],
        None,
    );
    let profile = books.of("profile");
    assert!(profile.lost_as("ring_full") > 0, "nothing was lost: {profile:#?}");
    assert!(profile.represented > 0, "everything was lost: {profile:#?}");
    assert!(profile.seen > 20_000, "the sampler did not run at its rate: {profile:#?}");
}

#[test]
fn a_tiny_ring_with_a_backend() {
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let books = books_under_load(
        &["profile.sample_ring_bytes=4096", "profile.frequency_hz=9973", "profile.window_ms=500"],
        Some(&receiver),
    );
    let profile = books.of("profile");
    assert!(profile.lost_as("ring_full") > 0, "nothing was lost: {profile:#?}");
    let arrived = tests::profile::total(&tests::profile::of_requests(&receiver.profiles()));
    assert_eq!(profile.exported, Some(arrived), "exported is what arrived");
}

/// The same load at the normal rate: no sample is lost. Of the storm's processes and mappings a busy machine may lose
/// some, counted, but not one in a hundred.
#[test]
fn the_normal_rings() {
    let books = books_under_load(&["profile.window_ms=1000"], None);
    assert!(books.of("profile").lost.is_empty(), "{:#?}", books.of("profile"));
    for (signal, account) in &books.accounts {
        // A plain exit of anybody on this machine ends there by rule.
        let is_by_rule = |reason: &str| reason == "healthy_exit";
        let lost: u64 =
            account.lost.iter().filter(|(reason, _)| !is_by_rule(reason)).map(|(_, lost)| lost).sum();
        assert!(lost * 100 <= account.seen, "{signal}: {account:#?}");
    }
    assert!(books.of("process").seen > 100, "the storm was not seen: {:#?}", books.of("process"));
}
