//! An API server at its worst: the agent goes on, says what is wrong, and names pods again as soon as it can.
//!
//! Refuses: waiting without a bound. Each fault has the time within which it must be over.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::Agent;
use tests::api_server::{ApiServer, NODE};
use tests::certificates::Authority;
use tests::cgroup::Cgroup;
use tests::pods::{api_pod, container_of, spin_in, start, stop, uid, with_container};
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::workload::{FRAME_POINTERS, Program, Running};
use tests::{metrics, profile, profile::Stack};

/// The longest pause between two tries of the agent's client, and what it takes besides.
const BACKOFF_MAX: Duration = Duration::from_secs(35);

/// A token is read again after this time.
const TOKEN_MAX: Duration = Duration::from_secs(60);

/// A node with an agent that only the API server tells of pods.
struct Node {
    api: ApiServer,
    receiver: Receiver,
    program: Program,
    running: Vec<(Running, Cgroup)>,
}

impl Node {
    fn new(api: ApiServer) -> Self {
        let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
        Self { api, receiver, program: Program::c("spin.c", FRAME_POINTERS), running: Vec::new() }
    }

    fn agent(&self, directory: &Path, settings: &[&str]) -> Agent {
        start(directory, &self.receiver, &[&["kubernetes.cri_socket=none"], settings].concat())
    }

    /// A pod of a Deployment that spins for two minutes, or until the end of the test.
    fn run(&mut self, number: u32, name: &str) {
        self.run_changed(number, name, |_| {});
    }

    fn run_changed(&mut self, number: u32, name: &str, change: impl FnOnce(&mut Value)) {
        let id = container_of(number);
        let mut pod = with_container(api_pod("shop", name, "x", &uid(number)), &id);
        change(&mut pod);
        self.api.put(&pod);
        self.running.push(spin_in(&self.program, &uid(number), &id, 120));
    }

    /// Whether a container's samples have its pod's name.
    fn is_named(&self, number: u32, service: &str) -> bool {
        let id = container_of(number);
        let stacks = profile::of_requests(&self.receiver.profiles());
        let mut own = stacks.iter().filter(|stack| stack.attribute("container.id") == Some(&id));
        own.any(|stack| stack.attribute("service.name") == Some(service))
    }

    /// Waits until they do.
    fn expect_named(&self, number: u32, service: &str, time_max: Duration) {
        let begin = Instant::now();
        while !self.is_named(number, service) {
            assert!(begin.elapsed() < time_max, "{service} has no name after {time_max:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("{service}: named after {:.1} s", begin.elapsed().as_secs_f64());
    }
}

#[test]
fn a_token_that_is_rotated_is_read_again() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut node = Node::new(ApiServer::start(directory.path()));
    let agent = node.agent(directory.path(), &[&node.api.setting()]);
    node.run(1, "before");
    node.expect_named(1, "before", Duration::from_secs(10));
    node.api.rotate_token("second");
    node.api.control(&json!({"cut": true}));
    node.run(2, "after");
    node.expect_named(2, "after", TOKEN_MAX + BACKOFF_MAX);
    assert!(node.api.count("unauthorized") > 0, "the first token was good for something");
    stop(agent);
}

#[test]
fn refusals_slowness_and_garbage_pass() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut node = Node::new(ApiServer::start(directory.path()));
    let agent = node.agent(directory.path(), &[&node.api.setting()]);
    for (number, name, fault, pardon) in [
        (11, "unauthorized", json!({"refuse": 401, "cut": true}), json!({"refuse": 0})),
        (12, "forbidden", json!({"refuse": 403, "cut": true}), json!({"refuse": 0})),
        (13, "throttled", json!({"refuse": 429, "retry_after": 1, "cut": true}), json!({"refuse": 0})),
        (14, "overloaded", json!({"refuse": 503, "cut": true}), json!({"refuse": 0})),
        (15, "expired", json!({"expire": true, "cut": true}), json!({})),
        // No UTF-8, no JSON, no event.
        (16, "garbled", json!({"garbage": "7b22fffe22c328ed0a", "cut": true}), json!({})),
        (17, "slow", json!({"delay_s": 3, "cut": true}), json!({})),
    ] {
        node.api.control(&fault);
        node.run(number, name);
        std::thread::sleep(Duration::from_millis(1_500));
        node.api.control(&pardon);
        node.expect_named(number, name, BACKOFF_MAX);
    }
    stop(agent);
}

#[test]
fn a_certificate_that_is_not_valid_is_said_and_asked_again() {
    let directory = TempDir::new().expect("a temporary directory");
    let authority = Authority::make(directory.path());
    let (certificate, key) = authority.server_files();
    authority.issue("20200101000000Z", "20200102000000Z");
    let (api, address) = ApiServer::start_with_tls(directory.path(), &certificate, &key);
    let setting = api.setting_by_tls(address, &authority.certificate());
    let mut node = Node::new(api);
    let agent = node.agent(directory.path(), &[&setting]);
    node.run(21, "till");
    let agent = agent.wait_for("expired", Duration::from_secs(10));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!node.is_named(21, "till"));
    // A clock that is behind: what the server shows is not valid yet.
    authority.issue("20990101000000Z", "20990102000000Z");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!node.is_named(21, "till"));
    authority.issue("20200101000000Z", "20990102000000Z");
    node.expect_named(21, "till", BACKOFF_MAX);
    stop(agent);
    let errors = metrics::counter(&node.receiver.metrics(), "kansoku.names.errors");
    let by_api = metrics::total(&errors, |series| series.attribute("kansoku.name.source") == "api");
    assert!(by_api > 0, "{errors:?}");
}

#[test]
fn hostile_metadata_is_bounded_and_harms_nobody() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut node = Node::new(ApiServer::start(directory.path()));
    let settings = [&node.api.setting(), "kubernetes.labels=*", "kubernetes.annotations=*"];
    let agent = node.agent(directory.path(), &settings);
    let control = "a\u{0}\u{1b}[31m\r\n\u{202e}\u{fffd}\u{10ffff}";
    node.run_changed(31, "control", |pod| {
        pod["metadata"]["labels"]["colour"] = control.into();
        pod["metadata"]["labels"][control] = "key".into();
        // The server's clock and ours need not agree.
        pod["metadata"]["creationTimestamp"] = "2099-01-01T00:00:00Z".into();
        pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
    });
    node.run_changed(32, "huge", |pod| {
        let many = (0..20_000).map(|number| (format!("example.org/{number}"), "x".repeat(50).into()));
        pod["metadata"]["annotations"] = Value::Object(many.collect());
        pod["metadata"]["annotations"]["huge"] = "y".repeat(1 << 20).into();
    });
    node.run(33, "neighbour");
    for (number, name) in [(31, "control"), (32, "huge"), (33, "neighbour")] {
        node.expect_named(number, name, Duration::from_secs(15));
    }
    stop(agent);
    for stack in profile::of_requests(&node.receiver.profiles()) {
        let chosen = |(key, value): (&String, &String)| {
            assert!(value.len() <= 256, "{key} has {} bytes", value.len());
            key.starts_with("k8s.pod.annotation.") || key.starts_with("k8s.pod.label.")
        };
        let count = stack.resource.iter().filter(|pair| chosen(*pair)).count();
        assert!(count <= 64, "{count} attributes");
        if stack.attribute("service.name") == Some("control") {
            assert_eq!(stack.attribute("k8s.pod.label.colour"), Some(control));
        }
    }
}

#[test]
fn without_a_service_account_the_agent_goes_on() {
    let directory = TempDir::new().expect("a temporary directory");
    let arguments = ["--set", "prometheus.listen=none", "--set", "kubernetes.cache="];
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let [endpoint, wire] = receiver.variables();
    let spool = directory.path().join("crashes");
    let variables = [
        (endpoint.0.as_str(), endpoint.1.as_str()),
        (wire.0.as_str(), wire.1.as_str()),
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", "1"),
        ("KANSOKU_CRASH_SPOOL", spool.to_str().expect("UTF-8")),
    ];
    let agent = Agent::run(&arguments, &variables);
    stop(agent.wait_for("service account cannot be read", Duration::from_secs(5)));
}

/// 5,000 pods of this node in a minute, of which some do something: none of those is lost, and no memory grows without end.
#[test]
fn five_thousand_pods_in_a_minute() {
    const BATCHES: u32 = 600;
    const BATCH: u32 = 9;
    const SEEN_EVERY: u32 = 6;
    let directory = TempDir::new().expect("a temporary directory");
    let api = ApiServer::start(directory.path());
    let program = Program::c("spin.c", FRAME_POINTERS);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let settings =
        [&api.setting(), "kubernetes.cri_socket=none", "kubernetes.peers=true", "io.enabled=false"];
    let agent = start(directory.path(), &receiver, &settings);
    let template = json!({
        "metadata": {
            "namespace": "shop", "name": "many-7d9c5-{n}", "uid": "{uid}", "labels": {"pod-template-hash": "7d9c5"},
            "annotations": {"example.org/config": "x".repeat(1_000)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "many-7d9c5", "uid": "0",
                "controller": true}],
        },
        "spec": {"nodeName": NODE},
        "status": {"phase": "Running", "podIP": "{ip}", "containerStatuses": [{
            "name": "c", "containerID": "containerd://{hex64}", "image": "shop:1", "restartCount": 0,
        }]},
    });
    std::thread::sleep(Duration::from_secs(2));
    let (before_bytes, _) = agent.resident_bytes();
    let begin = Instant::now();
    let mut seen = std::collections::VecDeque::new();
    for batch in 0..BATCHES {
        let first = 100_000 + batch * BATCH;
        api.control(&json!({"put": template, "copies": [first, first + BATCH - 1]}));
        if batch % SEEN_EVERY == 0 {
            let uid = format!("{first:08x}-0000-4000-8000-0000000000ff");
            seen.push_back((first, spin_in(&program, &uid, &container_of(first), 1)));
        }
        // Each is there for five seconds.
        if let Some(old) = batch.checked_sub(50) {
            let first = 100_000 + old * BATCH;
            api.control(&json!({"delete": "shop/many-7d9c5-{n}", "copies": [first, first + BATCH - 1]}));
        }
        let due = begin + Duration::from_millis(u64::from(batch + 1) * 100);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if seen.len() > 20 {
            seen.pop_front();
        }
    }
    let took = begin.elapsed();
    drop(seen);
    std::thread::sleep(Duration::from_secs(3));
    let (after_bytes, peak_bytes) = agent.resident_bytes();
    let log = stop(agent).stderr;
    let mib = |bytes: u64| bytes >> 20;
    let pods = BATCHES * BATCH;
    println!(
        "{pods} pods in {:.1} s; resident {} MiB before, {} after, {} at most",
        took.as_secs_f64(),
        mib(before_bytes),
        mib(after_bytes),
        mib(peak_bytes)
    );
    assert!(took < Duration::from_secs(66), "the stand-in was too slow: {took:?}");
    assert!(peak_bytes < before_bytes + (48 << 20), "memory grew to {} MiB", mib(peak_bytes));
    let stacks = profile::of_requests(&receiver.profiles());
    let named: std::collections::BTreeSet<String> = stacks
        .iter()
        .filter_map(|stack| {
            let (id, pod) = (stack.attribute("container.id")?, stack.attribute("k8s.pod.name")?);
            let number = u32::from_str_radix(id.trim_start_matches('0'), 16).ok()?;
            assert_eq!(pod, format!("many-7d9c5-{number}"), "another pod's name");
            Some(pod.to_owned())
        })
        .collect();
    assert_eq!(named.len() as u32, BATCHES / SEEN_EVERY, "pods that did something have names");
    let records = metrics::counter(&receiver.metrics(), "kansoku.names.records");
    let unnamed = metrics::total(&records, |series| series.attribute("kansoku.name.outcome") == "unnamed");
    let without_name = |stack: &&Stack| {
        stack.attribute("container.id").is_some() && stack.attribute("k8s.pod.name").is_none()
    };
    let nameless: Vec<&Stack> = stacks.iter().filter(without_name).collect();
    assert_eq!(unnamed, 0, "{records:?}\n{nameless:#?}\n{log}");
}
