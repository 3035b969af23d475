//! Whose is it in Kubernetes: real pods of a real containerd, and an API server's stand-in that tells the rest.
//!
//! Each pod does one thing that no other does, so that what it did proves whose record it is. Refuses: one record on the
//! wrong pod, and two resources of one container that differ.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::api_server::{ApiServer, NODE};
use tests::cri::{Containerd, IMAGE, PodSpec};
use tests::daemon::{Daemon, Launch};
use tests::pods::{api_pod, container_of, spin_in, start, stop, uid, with_container};
use tests::receiver::{Behaviour, Protocol, Receiver, free_address};
use tests::resources::{self, Attributes, SIGNALS};
use tests::workload::{FRAME_POINTERS, Program, utf8};
use tests::{crash, http, metrics, profile, tools};

/// What a container's resource holds besides what is the host's and the container's id.
fn of_pod(attributes: &Attributes) -> Vec<(&str, &str)> {
    let is_ours = |key: &str| {
        key.starts_with("k8s.") || key.starts_with("service.") || key.starts_with("container.image.name")
    };
    let ours = attributes.iter().filter(|(key, _)| is_ours(key));
    ours.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What is expected of the container `c` of a pod that [`api_pod`] describes.
fn expected<'a>(
    pod: &'a str,
    deployment: &'a str,
    uid: &'a str,
    instance: &'a str,
    restarts: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let replica_set = pod.rsplit_once('-').map_or("", |(name, _)| name);
    vec![
        ("container.image.name", IMAGE),
        ("k8s.container.name", "c"),
        ("k8s.container.restart_count", restarts),
        ("k8s.deployment.name", deployment),
        ("k8s.namespace.name", "shop"),
        ("k8s.node.name", NODE),
        ("k8s.pod.label.tier", deployment),
        ("k8s.pod.name", pod),
        ("k8s.pod.uid", uid),
        ("k8s.replicaset.name", replica_set),
        ("service.instance.id", instance),
        ("service.name", deployment),
        ("service.namespace", "shop"),
    ]
}

#[test]
fn every_signal_names_its_pod() {
    let directory = TempDir::new().expect("a temporary directory");
    let (api, containerd) = (ApiServer::start(directory.path()), Containerd::start(directory.path()));
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let settings = [&api.setting(), &containerd.setting(), "kubernetes.labels=tier"];
    let agent = start(directory.path(), &receiver, &settings);

    let port = free_address().port().to_string();
    let serve = format!(
        "httpd -p {port} -h /www; while true; do wget -q -O /dev/null http://127.0.0.1:{port}/; sleep 0.05; done"
    );
    let write = "while true; do dd if=/dev/zero of=/tmp/x bs=512 count=1000 2>/dev/null; sleep 0.05; done";
    // One pod for each driver's way to name its cgroup, and two more.
    let pods = [
        ("spin", "while true; do :; done", "/kubepods/besteffort/pod{}"),
        ("write", write, "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_}.slice"),
        ("serve", &serve, "/kubepods/burstable/pod{}"),
        ("crash", "sleep 2; kill -SEGV $$", "/kubepods/besteffort/pod{}"),
        ("silent", "sleep 2; kill -SEGV $$", "/kubepods/besteffort/pod{}"),
    ];
    let mut made = BTreeMap::new();
    for (number, (name, script, cgroup)) in pods.into_iter().enumerate() {
        let uid = uid(number as u32 + 1);
        let cgroup = cgroup.replace("{}", &uid).replace("{_}", &uid.replace('-', "_"));
        let full_name = format!("{name}-7d9c5-x{number}");
        let mut pod = api_pod("shop", name, &format!("x{number}"), &uid);
        let annotations: &[(&str, &str)] =
            if name == "silent" { &[("kansoku.io/dump", "none")] } else { &[] };
        annotations.iter().for_each(|(key, value)| pod["metadata"]["annotations"][*key] = (*value).into());
        api.put(&pod);
        let spec = PodSpec {
            namespace: "shop",
            name: &full_name,
            uid: &uid,
            cgroup: &cgroup,
            labels: &[("tier", name)],
            annotations,
        };
        let sandbox = containerd.pod(&spec);
        let id = containerd.container(&sandbox, "c", 0, &["/bin/sh", "-c", script]);
        made.insert(name, (id, full_name, uid, sandbox));
    }
    // The crashed one is started anew, as the kubelet does, and crashes again.
    std::thread::sleep(Duration::from_secs(4));
    let second = containerd.container(&made["crash"].3, "c", 1, &["/bin/sh", "-c", "sleep 1; kill -SEGV $$"]);
    std::thread::sleep(Duration::from_secs(5));
    stop(agent);

    let found = resources::of_containers(&receiver);
    // Whatever there is of a container has the same resource on all signals.
    let check = |id: &str, name: &str, restarts: &str, wanted: &[&str], unwanted: &[&str]| {
        let (_, pod, uid, _) = &made[name];
        let instance = format!("shop.{pod}.c");
        for signal in SIGNALS {
            let of_signal = found.get(&(id.to_owned(), signal));
            assert!(of_signal.is_some() || !wanted.contains(&signal), "{name}: no {signal}");
            assert!(of_signal.is_none() || !unwanted.contains(&signal), "{name}: {signal}");
            let Some(of_signal) = of_signal else { continue };
            assert_eq!(of_signal, &found[&(id.to_owned(), "metrics")], "{name}: {signal} and metrics differ");
            assert_eq!(of_signal.len(), 1, "{name}: {signal}: {of_signal:#?}");
            let resource = of_signal.first().expect("one");
            assert_eq!(of_pod(resource), expected(pod, name, uid, &instance, restarts), "{signal}");
        }
    };
    check(&made["spin"].0, "spin", "0", &["metrics", "profiles"], &["logs", "traces"]);
    check(&made["write"].0, "write", "0", &["metrics", "profiles"], &["logs", "traces"]);
    check(&made["serve"].0, "serve", "0", &["metrics", "traces"], &["logs"]);
    check(&made["crash"].0, "crash", "0", &["metrics", "logs"], &["traces"]);
    check(&second, "crash", "1", &["metrics", "logs"], &["traces"]);
    // A pod may ask for no record of its crashes.
    check(&made["silent"].0, "silent", "0", &["metrics"], &["logs", "traces"]);
    // What each did is on nobody else.
    let requests = receiver.metrics();
    let written = metrics::points(&requests, "syscall.io.bytes").into_iter().filter(|point| {
        point.attribute("syscall.operation") == "write"
            && point.attribute("syscall.descriptor") == "file"
            && point.value > 1e6
    });
    let writers: Vec<String> = written
        .map(|point| point.attribute("service.name").to_owned())
        .filter(|name| made.contains_key(name.as_str()))
        .collect();
    assert!(!writers.is_empty() && writers.iter().all(|name| name == "write"), "{writers:?}");
    let stacks = profile::of_requests(&receiver.profiles());
    let of = |name: &str| {
        profile::total(stacks.iter().filter(|stack| stack.attribute("k8s.deployment.name") == Some(name)))
    };
    assert!(of("spin") > 300, "{} samples", of("spin"));
    assert!(of("silent") + of("crash") < 100);

    let records = records(&directory.path().join("crashes"));
    let of_crash: Vec<&Value> =
        records.iter().filter(|record| record["resource"]["service.name"] == "crash").collect();
    let restarts: Vec<&Value> = of_crash.iter().map(|record| &record["restart_count"]).collect();
    assert_eq!(restarts, [&json!(0), &json!(1)], "{records:#?}");
    assert!(records.iter().all(|record| record["resource"]["service.name"] != "silent"));
    let unnamed = metrics::total(&metrics::counter(&requests, "kansoku.names.records"), |series| {
        series.attribute("kansoku.name.outcome") == "unnamed"
    });
    assert_eq!(unnamed, 0, "records without their pod");
}

/// The crash records, oldest first.
fn records(spool: &Path) -> Vec<Value> {
    let spool = crash::Spool::at(spool);
    spool.records()
}

#[test]
fn a_server_that_misbehaves() {
    let directory = TempDir::new().expect("a temporary directory");
    let api = ApiServer::start(directory.path());
    let program = Program::c("spin.c", FRAME_POINTERS);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let agent = start(directory.path(), &receiver, &[&api.setting(), "kubernetes.cri_socket=none"]);
    let put = |number: u32, name: &str| {
        let id = container_of(number);
        api.put(&with_container(api_pod("shop", name, "x", &uid(number)), &id));
        id
    };
    let mut running = Vec::new();
    let mut run = |number: u32, id: &str| running.push(spin_in(&program, &uid(number), id, 20));

    // A watch that is cut in the middle of an event goes on.
    let first = put(101, "first");
    api.control(&json!({"cut": true}));
    run(101, &first);
    // One whose version is too old begins anew.
    api.control(&json!({"expire": true, "cut": true}));
    let second = put(102, "second");
    run(102, &second);
    // A server that refuses for a while costs names for that while; the watch comes back by itself.
    api.control(&json!({"refuse": 403, "cut": true}));
    std::thread::sleep(Duration::from_secs(1));
    api.control(&json!({"refuse": 0}));
    let third = put(103, "third");
    run(103, &third);
    // Another pod of the same name, and one on another node.
    let again = container_of(104);
    api.control(&json!({"delete": "shop/first-7d9c5-x"}));
    api.put(&with_container(api_pod("shop", "first", "x", &uid(104)), &again));
    run(104, &again);
    let mut foreign = with_container(api_pod("shop", "foreign", "x", &uid(105)), &container_of(105));
    foreign["spec"]["nodeName"] = "node-2".into();
    api.put(&foreign);
    std::thread::sleep(Duration::from_secs(9));
    stop(agent);
    assert!(api.count("watches") >= 3 && api.count("lists") >= 2);
    assert_eq!(api.count("unauthorized"), 0);

    let stacks = profile::of_requests(&receiver.profiles());
    for (id, number, service) in
        [(&first, 101, "first"), (&second, 102, "second"), (&third, 103, "third"), (&again, 104, "first")]
    {
        let own: Vec<_> = stacks.iter().filter(|stack| stack.attribute("container.id") == Some(id)).collect();
        assert!(profile::total(own.iter().copied()) > 50, "{service}");
        for stack in own {
            let found = (
                stack.attribute("service.name"),
                stack.attribute("k8s.pod.uid"),
                stack.attribute("k8s.container.restart_count"),
            );
            assert_eq!(found, (Some(service), Some(uid(number).as_str()), Some("4")));
        }
    }
}

#[test]
fn without_a_server_the_runtime_names_and_the_cache_remembers() {
    let directory = TempDir::new().expect("a temporary directory");
    let containerd = Containerd::start(directory.path());
    let pod = uid(201);
    let spec = PodSpec {
        namespace: "shop",
        name: "lonely-7d9c5-x",
        uid: &pod,
        cgroup: &format!("/kubepods/besteffort/pod{pod}"),
        labels: &[("pod-template-hash", "7d9c5")],
        annotations: &[("resource.opentelemetry.io/service.version", "2.1")],
    };
    let sandbox = containerd.pod(&spec);
    let id = containerd.container(&sandbox, "c", 3, &["/bin/sh", "-c", "while true; do :; done"]);
    let check = |settings: &[&str]| {
        let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
        let agent = start(directory.path(), &receiver, settings);
        std::thread::sleep(Duration::from_secs(3));
        stop(agent);
        let found = resources::of_containers(&receiver);
        let resource = found[&(id.clone(), "profiles")].first().expect("one");
        let get = |key: &str| resource.get(key).map_or("", String::as_str);
        let names = [
            "service.name",
            "service.version",
            "k8s.deployment.name",
            "k8s.container.restart_count",
            "k8s.pod.uid",
        ];
        assert_eq!(names.map(get), ["lonely", "2.1", "lonely", "3", &pod], "{settings:?}");
    };
    check(&[&containerd.setting()]);
    // A runtime that hangs costs nothing that was known before.
    let socket = directory.path().join("hanging.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    check(&[&format!("kubernetes.cri_socket={}", utf8(&socket))]);
    // A profile of one pod holds nothing else.
    let output = directory.path().join("pod.folded");
    let arguments = [
        "--pod",
        "shop/lonely-7d9c5-x",
        "--duration",
        "2s",
        "-o",
        utf8(&output),
        "--set",
        &containerd.setting(),
    ];
    Agent::profile(&arguments).finish(STOP_MAX).expect_code(0);
    let stacks = profile::of_folded(&std::fs::read_to_string(&output).expect("the profile"));
    assert!(
        profile::total(&stacks) > 100 && stacks.iter().all(|stack| stack.process == "busybox"),
        "{stacks:?}"
    );
}

/// A pod's network: a namespace of its own with one address, as a network plugin makes it.
struct PodNetwork;

impl PodNetwork {
    const NAME: &str = "kansoku-test-pod";
    const ADDRESS: &str = "198.18.0.2";

    fn make() -> Self {
        let network = Self;
        for line in [
            "netns add kansoku-test-pod",
            "link add kansoku-pod0 type veth peer name eth0 netns kansoku-test-pod",
            "address add 198.18.0.1/30 dev kansoku-pod0",
            "link set kansoku-pod0 up",
            "-netns kansoku-test-pod address add 198.18.0.2/30 dev eth0",
            "-netns kansoku-test-pod link set eth0 up",
        ] {
            tools::succeed(Command::new("ip").args(line.split(' ')));
        }
        network
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "delete", Self::NAME]).status();
    }
}

/// A pod's own metrics go out under the pod's name, as long as it is there and asks for it.
#[test]
fn pods_that_ask_are_scraped() {
    let directory = TempDir::new().expect("a temporary directory");
    let (api, _network) = (ApiServer::start(directory.path()), PodNetwork::make());
    tools::write_file(&directory.path().join("metrics.txt"), b"# TYPE till_sales gauge\ntill_sales 7\n");
    let log = directory.path().join("web.log");
    let launch = Launch::plain(&log);
    let serve =
        ["netns", "exec", PodNetwork::NAME, "python3", "-u", "-m", "http.server", "8000", "--directory"];
    let words: Vec<&str> = serve.into_iter().chain([utf8(directory.path())]).collect();
    let mut web = Daemon::start(&tools::require("ip", "iproute2"), &words, launch);
    let address = format!("{}:8000", PodNetwork::ADDRESS).parse().expect("an address");
    web.wait_until("the pod", || http::get(address, "/", &[]).is_ok());
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let settings =
        [&api.setting(), "kubernetes.cri_socket=none", "scrape.annotations=true", "scrape.interval_ms=1000"];
    let agent = start(directory.path(), &receiver, &settings);
    let mut pod = api_pod("shop", "till", "x", &uid(301));
    pod["metadata"]["annotations"] =
        json!({"prometheus.io/scrape": "true", "prometheus.io/path": "/metrics.txt"});
    pod["spec"]["containers"] = json!([{"name": "c", "ports": [{"containerPort": 8000}]}]);
    pod["status"] = json!({"phase": "Running", "podIP": PodNetwork::ADDRESS});
    api.put(&pod);
    std::thread::sleep(Duration::from_secs(5));
    let scrapes = || web.log().matches("GET /metrics").count();
    assert!(scrapes() >= 2, "{}", web.log());
    api.control(&json!({"delete": "shop/till-7d9c5-x"}));
    std::thread::sleep(Duration::from_secs(3));
    let before = scrapes();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(scrapes(), before, "a pod that is gone is not scraped");
    stop(agent);
    let points = metrics::points(&receiver.metrics(), "till_sales");
    let point = points.first().unwrap_or_else(|| panic!("nothing was forwarded"));
    let names = ["service.name", "k8s.pod.name", "k8s.deployment.name", "k8s.pod.uid", "k8s.container.name"];
    let pod = uid(301);
    assert_eq!(names.map(|name| point.attribute(name)), ["till", "till-7d9c5-x", "till", &pod, ""]);
    assert_eq!(point.value, 7.0);
}

/// Twenty pods a second, each there for a second: all are named, and in time.
#[test]
fn churn() {
    const PODS: u32 = 200;
    let directory = TempDir::new().expect("a temporary directory");
    let api = ApiServer::start(directory.path());
    let program = Program::c("spin.c", FRAME_POINTERS);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let agent = start(
        directory.path(),
        &receiver,
        &[&api.setting(), "kubernetes.cri_socket=none", "io.enabled=false"],
    );
    let begin = Instant::now();
    let mut running = std::collections::VecDeque::new();
    for number in 0..PODS {
        let id = container_of(1_000 + number);
        api.put(&with_container(api_pod("shop", "many", &number.to_string(), &uid(1_000 + number)), &id));
        running.push_back(spin_in(&program, &uid(1_000 + number), &id, 1));
        let due = begin + Duration::from_millis(u64::from(number + 1) * 50);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if running.len() > 20 {
            running.pop_front();
        }
    }
    drop(running);
    std::thread::sleep(Duration::from_secs(2));
    stop(agent);
    let requests = receiver.metrics();
    let records = metrics::counter(&requests, "kansoku.names.records");
    let count = |outcome: &str| {
        metrics::total(&records, |series| series.attribute("kansoku.name.outcome") == outcome)
    };
    let (named, unnamed) = (count("named"), count("unnamed"));
    println!("{named} records named, {unnamed} not");
    assert!(named > 500 && unnamed * 1_000 <= named, "{named} named, {unnamed} not");
    let delays = metrics::points(&requests, "kansoku.names.delay");
    let bound = delays.last().expect("the agent says how late it was").quantile_bound(0.99);
    println!("p99 of a pod's name after its first record: at most {bound} s");
    assert!(bound <= 1.0, "{bound} s");
    // Nothing of one is on another.
    for stack in profile::of_requests(&receiver.profiles()) {
        if let (Some(id), Some(pod)) = (stack.attribute("container.id"), stack.attribute("k8s.pod.name")) {
            let number =
                u32::from_str_radix(id.trim_start_matches('0'), 16).map_or(0, |number| number - 1_000);
            assert_eq!(pod, format!("many-7d9c5-{number}"));
        }
    }
}
