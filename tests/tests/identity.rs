//! Whose sample is it: programs in cgroups named as container runtimes and systemd name them, and in a real container.
//!
//! Every tenant runs the same binary in a function of its own, so the function proves whose sample it was. Refuses:
//! one sample on the wrong container: the count of those must be zero.

use std::time::Duration;

use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::cgroup::Cgroup;
use tests::container::Container;
use tests::profile::{self, Stack};
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::workload::{FRAME_POINTERS, Program, utf8};

const ALPHA: &str = "a1a1a1a1b2b2b2b2c3c3c3c3d4d4d4d4e5e5e5e5f6f6f6f6a7a7a7a7b8b8b8b8";
const BETA: &str = "b1b1b1b1b2b2b2b2c3c3c3c3d4d4d4d4e5e5e5e5f6f6f6f6a7a7a7a7b8b8b8b8";
const INSIDE: &str = "c1c1c1c1b2b2b2b2c3c3c3c3d4d4d4d4e5e5e5e5f6f6f6f6a7a7a7a7b8b8b8b8";

/// Samples below which a tenant was not really seen.
const SAMPLES_MIN: u64 = 60;

/// Three cgroups: containerd under systemd, Docker under cgroupfs, and a systemd service.
fn cgroups() -> [Cgroup; 3] {
    [
        Cgroup::make(&format!(
            "kansoku-test.slice/kubepods-burstable-pod1.slice/cri-containerd-{ALPHA}.scope"
        )),
        Cgroup::make(&format!("kansoku-test.docker/docker/{BETA}")),
        Cgroup::make("kansoku-test.slice/kansoku-demo.service"),
    ]
}

/// A resource's identity, as far as this test knows it.
fn owner(stack: &Stack) -> (Option<&str>, Option<&str>, Option<&str>) {
    (
        stack.attribute("container.id"),
        stack.attribute("container.runtime.name"),
        stack.attribute("kansoku.systemd.unit"),
    )
}

#[test]
fn every_sample_has_the_right_owner() {
    let program = Program::c("tenant.c", FRAME_POINTERS);
    let [alpha, beta, gamma] = cgroups();
    // One tenant runs before the agent, the others start under its eyes.
    let _early = alpha.start(&program, &["alpha", "60"]);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let [endpoint, wire] = receiver.variables();
    let agent =
        Agent::run(&["--set", "profile.window_ms=1000"], &[(&endpoint.0, &endpoint.1), (&wire.0, &wire.1)]);
    let _late = [beta.start(&program, &["beta", "60"]), gamma.start(&program, &["gamma", "60"])];
    std::thread::sleep(Duration::from_secs(6));
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0).books().expect_balance();

    let requests = receiver.profiles();
    let stacks = profile::of_requests(&requests);
    let check = |function: &str, expected: (Option<&str>, Option<&str>, Option<&str>), service: &str| {
        let own: Vec<&Stack> = stacks.iter().filter(|stack| stack.has(function)).collect();
        let total = profile::total(own.iter().copied());
        assert!(total >= SAMPLES_MIN, "{function}: {total} samples");
        for stack in own {
            assert_eq!(owner(stack), expected, "{function} on {:?}", stack.resource);
            assert_eq!(stack.attribute("service.name"), Some(service), "{function}");
        }
        let claimed = stacks.iter().filter(|stack| owner(stack) == expected && stack.process == "tenant");
        let foreign: Vec<_> = claimed
            .flat_map(|stack| &stack.frames)
            .filter(|frame| frame.name.starts_with("tenant_") && frame.name != function)
            .collect();
        assert!(foreign.is_empty(), "on the resource of {function}: {foreign:?}");
    };
    check("tenant_alpha", (Some(ALPHA), Some("containerd"), None), "tenant");
    check("tenant_beta", (Some(BETA), Some("docker"), None), "tenant");
    check("tenant_gamma", (None, None, Some("kansoku-demo.service")), "kansoku-demo");
    for request in &requests {
        let resources = profile::resources(request);
        let of_alpha = resources.iter().filter(|r| r.get("container.id").is_some_and(|id| id == ALPHA));
        assert!(of_alpha.count() <= 1, "two resources of one container in a request: {resources:?}");
    }
}

#[test]
fn a_profile_of_one_target_holds_nothing_else() {
    let program = Program::c("tenant.c", FRAME_POINTERS);
    let [alpha, beta, _gamma] = cgroups();
    let tenants = [alpha.start(&program, &["alpha", "60"]), beta.start(&program, &["beta", "60"])];
    let pid = tenants[1].pid().to_string();
    let below = beta.below();
    let check = |target: &[&str], expected: &str| {
        let arguments = [target, &["--duration", "3s", "-o", "-"]].concat();
        let finished = Agent::profile(&arguments).finish(STOP_MAX).expect_code(0);
        let stacks = profile::of_folded(&finished.stdout_text());
        let total = profile::total(&stacks);
        let own = profile::total(stacks.iter().filter(|stack| stack.has(expected)));
        assert!(own >= SAMPLES_MIN, "{target:?}: {own} samples in {expected}");
        // The rest is the program's own start and kernel work, not another process.
        assert!(stacks.iter().all(|stack| stack.process == "tenant"), "{target:?}: {stacks:?}");
        let foreign = stacks.iter().flat_map(|stack| &stack.frames);
        let foreign = foreign.filter(|frame| frame.name.starts_with("tenant_") && frame.name != expected);
        assert_eq!(foreign.count(), 0, "{target:?}");
        assert!(own * 100 >= total * 95, "{target:?}: {own} of {total} samples in {expected}");
    };
    check(&["--container", ALPHA], "tenant_alpha");
    check(&["--container", &BETA[..12]], "tenant_beta");
    check(&["--container", &BETA[..12].to_uppercase()], "tenant_beta");
    check(&["--cgroup", utf8(alpha.path())], "tenant_alpha");
    check(&["--cgroup", &below], "tenant_beta");
    check(&["--pid", &pid], "tenant_beta");
}

/// A container made by runc: the binary has a path inside the container's root only, and still gets its names.
#[test]
fn runc_container() {
    let program = Program::c("spin.c", &[FRAME_POINTERS, &["-static"]].concat());
    let directory = TempDir::new().expect("a temporary directory");
    let mut container =
        Container::prepare(directory.path(), program.path(), &["/opt/inner-program", "60"], INSIDE);
    container.start();
    let check = |target: &[&str]| {
        let path = directory.path().join("inside.otlp");
        let arguments = [target, &["--duration", "4s", "-o", utf8(&path)]].concat();
        Agent::profile(&arguments).finish(STOP_MAX).expect_code(0);
        let stacks = profile::of_otlp_file(&std::fs::read(&path).expect("the OTLP file"));
        let inside: Vec<Stack> =
            stacks.into_iter().filter(|stack| stack.attribute("container.id") == Some(INSIDE)).collect();
        profile::expect_frames(&inside, "inner-program", SAMPLES_MIN, "spin_seventy", |frame| {
            frame.name == "spin_seventy"
        });
        // The runtime's own start-up runs in the container's cgroup too, and must not give the service its name.
        for stack in &inside {
            assert_eq!(
                stack.attribute("service.name"),
                Some("inner-program"),
                "{target:?}: {:?}",
                stack.resource
            );
        }
        let total = profile::total(&inside);
        let named = profile::total(inside.iter().filter(|stack| stack.has("spin_round")));
        assert!(named * 100 >= total * 90, "{target:?}: {named} of {total} stacks have names");
    };
    check(&[]);
    check(&["--container", &INSIDE[..10]]);
    drop(container);
}
