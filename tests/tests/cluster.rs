//! What one elected agent tells of the whole cluster: an API server's stand-in, and several agents that do not share a thing
//! but its lease.
//!
//! Each agent has its own endpoint, and its own way to the server, which can be cut. Refuses: two agents that tell of the
//! cluster at one moment, whatever becomes of the leader.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::{self, Agent, STOP_MAX};
use tests::api_server::ApiServer;
use tests::bundle::Bundle;
use tests::cgroup::ContainerCgroup;
use tests::endpoint::{self, Endpoint, Page};
use tests::prometheus::{Prometheus, Scrape};
use tests::promql::Sample;
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::workload::utf8;
use tests::{http, metrics};

/// `cluster/election.rs`: how long a lease lasts, when a leader gives up, how long candidates wait at most.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const JITTER: Duration = Duration::from_secs(1);

/// A series that only the leader has.
const SIGN: &str = "kube_namespace_status_phase";

/// What of an agent is not needed here.
const LIGHT: [&str; 6] = [
    "io.enabled=false",
    "trace.enabled=false",
    "resource.node=false",
    "resource.containers=false",
    "kubernetes.cri_socket=none",
    "kubernetes.cluster=true",
];

/// The server with one namespace.
fn server(directory: &TempDir) -> ApiServer {
    let api = ApiServer::start(directory.path());
    let namespace = json!({"metadata": {"name": "shop"}, "spec": {}, "status": {"phase": "Active"}});
    api.put_at("/api/v1/namespaces", &namespace);
    api
}

/// An agent on a node, with its own way to the server.
struct Member {
    name: &'static str,
    agent: Agent,
    endpoint: Endpoint,
}

impl Member {
    fn start(api: &ApiServer, directory: &TempDir, name: &'static str, more: &[&str]) -> Self {
        let cache = format!("kubernetes.cache={}", utf8(&directory.path().join(format!("{name}.json"))));
        let own = [&*api.setting_as(name), &cache, &format!("kubernetes.node_name={name}")];
        let settings = [&LIGHT[..], &own, more].concat();
        let (agent, endpoint) = endpoint::start(&settings);
        Self { name, agent, endpoint }
    }

    /// Waits until it leads, and returns its page.
    #[track_caller]
    fn wait_until_leader(&self) -> Page {
        self.endpoint.scrape_until(&format!("{} leads", self.name), leads)
    }

    fn stop(self) {
        self.agent.terminate();
        self.agent.finish(STOP_MAX).expect_code(0);
    }
}

fn leads(page: &Page) -> bool {
    !page.series(SIGN, &[]).is_empty()
}

/// One look at an endpoint: whether it told of the cluster, and between which moments.
#[derive(Clone, Copy, Debug)]
struct Look {
    began: Instant,
    ended: Instant,
    tells: bool,
}

/// Looks at some endpoints again and again.
struct Looker {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Vec<Look>>>,
}

impl Looker {
    fn start(members: &[&Member]) -> Self {
        let addresses: Vec<SocketAddr> = members.iter().map(|member| member.endpoint.address()).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut looks = vec![Vec::new(); addresses.len()];
            while !over.load(Ordering::Relaxed) {
                for (address, looks) in addresses.iter().zip(&mut looks) {
                    let began = Instant::now();
                    // One that was killed does not answer.
                    let Ok(answer) = http::get(*address, "/metrics", &[]) else { continue };
                    let tells = answer.status.is_success() && answer.text().contains(SIGN);
                    looks.push(Look { began, ended: Instant::now(), tells });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            looks
        });
        Self { is_over, thread }
    }

    fn finish(self) -> Vec<Vec<Look>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the looker does not panic")
    }
}

/// The old leader told last before the new one told first; returns when each of them did, after a moment.
#[track_caller]
fn handed_over(looks: &[Vec<Look>], since: Instant) -> (Duration, Duration) {
    let [old, new] = looks else { panic!("two") };
    let last = old.iter().rfind(|look| look.tells).map_or(since, |look| look.began);
    let first = new.iter().find(|look| look.tells).expect("the new one tells").ended;
    assert!(last < first, "both told: the old one {:?} after the new one", last - first);
    let again = old.iter().find(|look| look.tells && look.began > first);
    assert!(again.is_none(), "the old one tells again");
    println!("{} and {} looks", old.len(), new.len());
    (last.saturating_duration_since(since), first - since)
}

/// The leader stops, is killed, and is cut off: another one goes on, and never both.
#[test]
fn one_leader_at_a_time() {
    let directory = TempDir::new().expect("a temporary directory");
    let api = server(&directory);
    let first = Member::start(&api, &directory, "node-a", &[]);
    let page = first.wait_until_leader();
    assert_eq!(page.value("kansoku_cluster_leader", &[]), 1.0);
    assert_eq!(page.value(SIGN, &[("namespace", "shop"), ("phase", "Active")]), 1.0);
    let second = Member::start(&api, &directory, "node-b", &[]);
    let page = second.endpoint.scrape();
    assert_eq!((page.value("kansoku_cluster_leader", &[]), leads(&page)), (0.0, false));

    // A clean stop gives the lease back.
    let looker = Looker::start(&[&first, &second]);
    std::thread::sleep(Duration::from_secs(1));
    let stopped = Instant::now();
    first.stop();
    let page = second.wait_until_leader();
    let (_, new) = handed_over(&looker.finish(), stopped);
    println!("after a clean stop the other one tells in {new:?}");
    assert!(new < JITTER + Duration::from_secs(4), "{new:?}");
    assert_eq!(page.value("kansoku_cluster_changes_total", &[("kansoku_cluster_change", "elected")]), 1.0);

    // One that is killed leaves the lease to its end.
    let third = Member::start(&api, &directory, "node-c", &[]);
    let looker = Looker::start(&[&second, &third]);
    std::thread::sleep(Duration::from_secs(1));
    let killed = Instant::now();
    second.agent.signal(Signal::KILL);
    std::thread::sleep(LEASE - Duration::from_secs(4));
    third.wait_until_leader();
    let (_, new) = handed_over(&looker.finish(), killed);
    println!("after a kill the other one tells in {new:?}");
    assert!(new <= LEASE + JITTER + Duration::from_secs(1), "{new:?}");

    // One that is cut off stops by itself, before another begins.
    let fourth = Member::start(&api, &directory, "node-d", &[]);
    let looker = Looker::start(&[&third, &fourth]);
    std::thread::sleep(Duration::from_secs(1));
    let cut = Instant::now();
    api.control(&json!({"partition": ["node-c"]}));
    std::thread::sleep(LEASE - Duration::from_secs(4));
    fourth.wait_until_leader();
    api.control(&json!({"partition": []}));
    // It comes back as a candidate.
    std::thread::sleep(Duration::from_secs(3));
    let (old, new) = handed_over(&looker.finish(), cut);
    println!("cut off, the leader tells for {old:?} more, the other one from {new:?}");
    assert!(old <= RENEW_DEADLINE + Duration::from_secs(1), "{old:?}");
    assert!(new <= LEASE + JITTER + Duration::from_secs(1), "{new:?}");
    let page = third.endpoint.scrape();
    assert_eq!(page.value("kansoku_cluster_changes_total", &[("kansoku_cluster_change", "lost")]), 1.0);
    assert!(page.value("kansoku_cluster_errors_total", &[("kansoku_cluster_request", "lease")]) > 0.0);
    assert!(third.agent.stderr().contains("the lease is lost"), "{}", third.agent.stderr());
    third.stop();
    fourth.stop();
}

/// A stopped process that goes on when its time is over does not tell once more.
#[test]
fn a_leader_that_was_frozen() {
    let directory = TempDir::new().expect("a temporary directory");
    let api = server(&directory);
    let frozen = Member::start(&api, &directory, "node-a", &[]);
    frozen.wait_until_leader();
    let other = Member::start(&api, &directory, "node-b", &[]);
    frozen.agent.signal(Signal::STOP);
    std::thread::sleep(LEASE);
    other.wait_until_leader();
    frozen.agent.signal(Signal::CONT);
    let looker = Looker::start(&[&frozen, &other]);
    std::thread::sleep(Duration::from_secs(3));
    let looks = looker.finish();
    assert!(looks[0].len() > 5 && looks[0].iter().all(|look| !look.tells), "{:?}", looks[0]);
    assert!(looks[1].iter().all(|look| look.tells));
    frozen.stop();
    other.stop();
}

/// Who may not elect says so, goes on with all else, and comes in once it may.
#[test]
fn a_server_that_forbids() {
    let directory = TempDir::new().expect("a temporary directory");
    let api = server(&directory);
    api.control(&json!({"forbid": ["/leases"]}));
    let member = Member::start(&api, &directory, "node-a", &[]);
    let errors = [("kansoku_cluster_request", "lease")];
    let page = member
        .endpoint
        .scrape_until("an error", |page| page.sum("kansoku_cluster_errors_total", &errors) > 0.0);
    assert_eq!((leads(&page), page.value("kansoku_cluster_leader", &[])), (false, 0.0));
    assert!(member.agent.stderr().contains("about the lease"), "{}", member.agent.stderr());
    let set = ["--set", &api.setting_as("node-a"), "--set", "kubernetes.cluster=true"];
    let checks = |is_good: bool| {
        let doctor = agent::run_to_end(&[&["doctor", "--json"], &set[..]].concat(), STOP_MAX);
        let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("a list").iter();
        let election =
            checks.into_iter().find(|check| check["name"] == "election").expect("it is looked at").clone();
        assert_eq!(election["ok"], is_good, "{election}");
    };
    checks(false);
    // Objects of one kind that may not be read cost that kind.
    api.control(&json!({"forbid": ["/nodes"]}));
    let deadline = Instant::now() + Duration::from_secs(40);
    while !leads(&member.endpoint.scrape()) {
        assert!(Instant::now() < deadline, "it comes in once it may:\n{}", member.agent.stderr());
    }
    let errors = [("kansoku_cluster_request", "watch")];
    member.endpoint.scrape_until("an error", |page| page.sum("kansoku_cluster_errors_total", &errors) > 0.0);
    checks(true);
    member.stop();
}

/// A pod as the API server has it.
fn pod(name: &str, uid: &str, owner: Option<(&str, &str)>, phase: &str) -> Value {
    let owners = owner.map(|(kind, name)| {
        json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "0", "controller": true}])
    });
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": owners.unwrap_or(json!([])), "labels": {"app": name, "other": "x"},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "example.org/web:1"}]},
        "status": {"phase": phase, "podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A small cluster in which something is wrong with most things.
fn fill(api: &ApiServer) {
    let mut web = pod("web-1", "u1", Some(("ReplicaSet", "web-7d9c5")), "Running");
    web["spec"]["containers"][0]["resources"] = json!({
        "requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"},
    });
    web["status"]["containerStatuses"] = json!([{
        "name": "web", "ready": true, "restartCount": 3, "state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}},
        "image": "example.org/web:1", "imageID": "example.org/web@sha256:00", "containerID": "containerd://00",
    }]);
    api.put(&web);
    let mut bare = pod("bare", "u2", None, "Running");
    bare["status"]["containerStatuses"] =
        json!([{"name": "web", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 7}]);
    api.put(&bare);
    api.put(&pod("db-0", "u3", Some(("StatefulSet", "db")), "Pending"));
    api.put(&pod("log-x", "u4", Some(("DaemonSet", "log")), "Running"));
    let mut waiting = pod("waiting", "u6", Some(("StatefulSet", "db")), "Pending");
    waiting["spec"]["nodeName"].take();
    waiting["status"]["podIP"].take();
    api.put(&waiting);
    api.put(&pod("mail-x", "u5", Some(("Job", "mail")), "Failed"));
    let put = |collection: &str, mut object: Value| {
        object["metadata"]["namespace"] = "shop".into();
        object["metadata"]["uid"] = "u9".into();
        api.put_at(collection, &object);
    };
    put(
        "/apis/apps/v1/deployments",
        json!({"metadata": {"name": "web", "generation": 3}, "spec": {"replicas": 2}, "status": {"replicas": 1,
            "availableReplicas": 1, "observedGeneration": 2}}),
    );
    put(
        "/apis/apps/v1/replicasets",
        json!({"metadata": {"name": "web-7d9c5", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment",
            "name": "web", "uid": "0", "controller": true}]}, "spec": {"replicas": 2}, "status": {"replicas": 1}}),
    );
    put(
        "/apis/apps/v1/statefulsets",
        json!({"metadata": {"name": "db", "generation": 1}, "spec": {"replicas": 1}, "status": {"replicas": 1,
            "currentRevision": "a", "updateRevision": "b", "observedGeneration": 1}}),
    );
    put(
        "/apis/apps/v1/daemonsets",
        json!({"metadata": {"name": "log"}, "spec": {}, "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 1}}),
    );
    put(
        "/apis/batch/v1/jobs",
        json!({"metadata": {"name": "mail"}, "spec": {"completions": 1}, "status": {"failed": 1,
            "conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}}),
    );
    put(
        "/apis/autoscaling/v2/horizontalpodautoscalers",
        json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
            "status": {"currentReplicas": 3, "desiredReplicas": 3}}),
    );
    put(
        "/api/v1/persistentvolumeclaims",
        json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound"}}),
    );
    put(
        "/api/v1/resourcequotas",
        json!({"metadata": {"name": "q"}, "spec": {}, "status": {"hard": {"requests.cpu": "2"}, "used": {"requests.cpu": "1"}}}),
    );
    api.put_at(
        "/api/v1/nodes",
        &json!({"metadata": {"name": "node-1", "uid": "n1"}, "spec": {}, "status": {"capacity": {"pods": "110", "cpu": "4"},
            "allocatable": {"cpu": "4", "memory": "8Gi"}, "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.33.0"}}}),
    );
}

/// A minute of work.
fn spin() -> Command {
    let mut command = Command::new("/usr/bin/timeout");
    command.args(["60", "/bin/sh", "-c", "while :; do :; done"]);
    command
}

/// The rules, alerts and dashboards of kubernetes-mixin that join on `kube_*` work on our series alone.
#[test]
fn the_mixin_joins_on_the_cluster() {
    let container = ContainerCgroup::make("9c01");
    let _bundle = Bundle::make(container.id(), ["shop", "web-1", "web"]);
    let _load = container.enter(spin());
    let directory = TempDir::new().expect("a temporary directory");
    let api = server(&directory);
    fill(&api);
    let settings = ["resource.containers=true", "kubernetes.labels=app"];
    let member = Member::start(&api, &directory, "node-1", &settings);
    let page = member.endpoint.scrape_until("the pod, of both sides", |page| {
        let of_pod = [("name", container.id()), ("pod", "web-1")];
        let names = ["kube_pod_info", "kube_node_info"];
        !page.series("container_cpu_usage_seconds_total", &of_pod).is_empty()
            && names.iter().all(|name| !page.series(name, &[]).is_empty())
    });
    let web = [("namespace", "shop"), ("pod", "web-1"), ("uid", "u1")];
    assert_eq!(
        page.value("kube_pod_labels", &[&web[..], &[("label_app", "web-1"), ("label_other", "")]].concat()),
        1.0
    );
    assert_eq!(page.value("kube_pod_container_status_restarts_total", &web), 3.0);
    tests::prometheus::promtool_check(&of_cluster(&page.text)).unwrap_or_else(|complaints| {
        // What the linter holds against kube-state-metrics itself: names that end in what it takes for units and types.
        let others: Vec<&str> = complaints.lines().filter(|line| !line.starts_with("kube_")).collect();
        assert!(others.is_empty(), "{complaints}");
    });

    let labels = |more: &[(&str, &str)]| -> Vec<(String, String)> {
        let common = [("cluster", "test"), ("instance", "node-1")];
        common.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut kubelet = Scrape::new("kubelet", member.endpoint.address());
    kubelet.labels = labels(&[("metrics_path", "/metrics/cadvisor")]);
    kubelet.keep = "container_.*|machine_.*".into();
    let mut state = Scrape::new("kube-state-metrics", member.endpoint.address());
    state.labels = labels(&[("node", "the-leaders-own")]);
    state.keep = "kube_.*".into();
    let prometheus = Prometheus::start(&[kubelet, state], false);
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(prometheus.scrape_errors(Duration::from_secs(5)), []);
    let queries: Value =
        serde_json::from_str(include_str!("../workloads/mixin_cluster_queries.json")).expect("JSON");
    let queries = queries.as_array().expect("a list");
    let wrong: Vec<String> = queries.iter().filter_map(|query| judge(&prometheus, query)).collect();
    assert_eq!(prometheus.query(r#"{__name__=~"kube_.*", node="the-leaders-own"}"#), []);
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), queries.len(), wrong.join("\n"));
    println!("{} queries answered as they should be", queries.len());
    // What changes is told, what goes is gone.
    let mut web = pod("web-1", "u1", None, "Succeeded");
    web["spec"]["nodeName"] = "node-2".into();
    api.put(&web);
    api.control(&json!({"delete": "shop/bare"}));
    member.endpoint.scrape_until("the news", |page| {
        page.sum("kube_pod_status_phase", &[("pod", "web-1"), ("phase", "Succeeded")]) == 1.0
            && page.series("kube_pod_info", &[("pod", "bare")]).is_empty()
    });
    member.stop();
}

/// What kube-state-metrics would have on its page.
fn of_cluster(page: &str) -> String {
    let is_ours =
        |line: &&str| line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").starts_with("kube_");
    page.lines().filter(is_ours).map(|line| format!("{line}\n")).collect()
}

/// What is wrong with the answer to a query.
fn judge(prometheus: &Prometheus, query: &Value) -> Option<String> {
    let expression =
        query["expression"].as_str().expect("a text").replace("[5m]", "[10s]").replace("[10m]", "[10s]");
    let answer = prometheus.query(&expression);
    let expected = &query["expected"];
    let has = |sample: &Sample| {
        let labels = expected["labels"].as_object().into_iter().flatten();
        labels.into_iter().all(|(name, value)| sample.label(name) == value)
            && expected["value"]
                .as_f64()
                .is_none_or(|value| (sample.value - value).abs() <= value.abs() * 1e-9)
    };
    let is_right =
        answer.len() as u64 == expected["series"].as_u64().expect("a number") && answer.iter().all(has);
    (!is_right).then(|| format!("{}: {answer:?}\n    {expression}", query["name"]))
}

/// Five thousand pods: all are told, and cost what the chart's values say.
#[test]
fn thousands_of_pods() {
    const PODS: usize = 5_000;
    let directory = TempDir::new().expect("a temporary directory");
    let api = server(&directory);
    let put = |number: usize| {
        let owner = format!("shop-{}", number / 10);
        let mut pod = pod(
            &format!("{owner}-{number}"),
            &format!("uid-{number}"),
            Some(("ReplicaSet", &owner)),
            "Running",
        );
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}});
        pod["status"]["containerStatuses"] = json!([{"name": "web", "ready": true, "restartCount": 1, "state": {"running": {}},
            "image": "example.org/web:1", "imageID": format!("example.org/web@sha256:{number:064}"),
            "containerID": format!("containerd://{number:064}")}]);
        api.put(&pod);
    };
    // One half is listed in pages, the other one comes while it is watched.
    (0..PODS / 2).for_each(put);
    let member = Member::start(&api, &directory, "node-a", &[]);
    let (before, _) = member.agent.resident_bytes();
    member.wait_until_leader();
    (PODS / 2..PODS).for_each(put);
    let page =
        member.endpoint.scrape_until("all pods", |page| page.series("kube_pod_info", &[]).len() == PODS);
    assert_eq!(page.sum("kansoku_cluster_objects", &[("kansoku_cluster_kind", "pods")]), PODS as f64);
    let (held, _) = member.agent.resident_bytes();
    std::thread::sleep(Duration::from_secs(2));
    let asked = Instant::now();
    let page = member.endpoint.scrape();
    let (took, bytes) = (asked.elapsed(), page.text.len());
    let (_, peak) = member.agent.resident_bytes();
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{PODS} pods: a scrape of {} MiB takes {took:?}; resident {} MiB before, {} MiB after, {} MiB at most",
        bytes >> 20,
        mib(before),
        mib(held),
        mib(peak)
    );
    assert!(peak - before < PODS as u64 * (30 << 10), "{} MiB", mib(peak - before));
    assert_eq!(page.sum("kansoku_cluster_objects_left_out_total", &[]), 0.0);
    member.stop();
}

/// Over OTLP: objects by the semantic conventions, and pages of the control plane, from the leader alone, and with nothing of
/// its host.
#[test]
fn over_otlp_from_the_leader_alone() {
    let directory = TempDir::new().expect("a temporary directory");
    let api = server(&directory);
    fill(&api);
    let receivers = [(); 2].map(|()| Receiver::start(Protocol::Grpc, Behaviour::Accept));
    // The follower's own endpoint stands for etcd, whose port is the only one without TLS.
    let etcd: SocketAddr = "127.0.0.1:2381".parse().expect("an address");
    let start = |name: &'static str, receiver: &Receiver, more: &[&str]| {
        let cache = format!("kubernetes.cache={}", utf8(&directory.path().join(format!("{name}.json"))));
        let own = [
            &*api.setting_as(name),
            &cache,
            &format!("kubernetes.node_name={name}"),
            "crash.enabled=false",
            "metrics.interval_ms=1000",
            "scrape.interval_ms=1000",
            "scrape.control_plane=true",
            "resource.attributes=k8s.cluster.name=test",
        ];
        let settings = LIGHT.iter().chain(&own).chain(more);
        let settings: Vec<&str> = settings.flat_map(|setting| ["--set", setting]).collect();
        let [endpoint, wire] = receiver.variables();
        Agent::run(&settings, &[(&endpoint.0, &endpoint.1), (&wire.0, &wire.1)])
    };
    let kubelet = format!("scrape.kubelet=http://{}/as/kubelet/metrics", api.address());
    let leader = start("node-a", &receivers[0], &["prometheus.listen=none", &kubelet]);
    std::thread::sleep(Duration::from_secs(3));
    let follower = start("node-b", &receivers[1], &[&format!("prometheus.listen={etcd}")]);
    let mut pod = pod("etcd-node-7", "u7", Some(("Node", "node-7")), "Running");
    pod["metadata"]["namespace"] = "kube-system".into();
    pod["metadata"]["labels"] = json!({"component": "etcd", "tier": "control-plane"});
    pod["spec"]["nodeName"] = "node-7".into();
    pod["status"]["podIP"] = "127.0.0.1".into();
    api.put(&pod);
    std::thread::sleep(Duration::from_secs(6));
    for agent in [leader, follower] {
        agent.terminate();
        agent.finish(STOP_MAX).expect_code(0);
    }
    let [told, untold] = receivers.map(|receiver| receiver.metrics());
    let last = |name: &str, has: &[(&str, &str)]| {
        let points = metrics::points(&told, name);
        let found =
            points.into_iter().rfind(|point| has.iter().all(|(key, value)| point.attribute(key) == *value));
        found.unwrap_or_else(|| panic!("no {name} with {has:?}"))
    };
    let phase =
        last("k8s.pod.status.phase", &[("k8s.pod.name", "web-1"), ("k8s.pod.status.phase", "Running")]);
    let resource: Vec<(&str, &str)> =
        phase.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let expected = [
        ("k8s.cluster.name", "test"),
        ("k8s.namespace.name", "shop"),
        ("k8s.node.name", "node-1"),
        ("k8s.pod.name", "web-1"),
        ("k8s.pod.uid", "u1"),
    ];
    assert_eq!((phase.value, resource), (1.0, expected.to_vec()));
    assert_eq!(phase.start_unix_ns, 1_767_225_600_000_000_000, "since the pod was made");
    assert_eq!(last("k8s.container.restart.count", &[("k8s.pod.name", "web-1")]).value, 3.0);
    assert_eq!(last("k8s.container.cpu.request.desired", &[]).value, 0.25);
    assert_eq!(last("k8s.deployment.pod.desired", &[("k8s.deployment.name", "web")]).value, 2.0);
    assert_eq!(last("k8s.node.condition.status", &[("k8s.node.condition.status", "true")]).value, 1.0);
    assert_eq!(last("kansoku.cluster.leader", &[]).value, 1.0);
    let server = last("apiserver_request_total", &[("service.name", "kube-apiserver")]);
    assert_eq!((server.value, server.attribute("host.name")), (5.0, ""));
    let etcd = last("up", &[("service.name", "etcd")]);
    let names = ["k8s.pod.name", "k8s.node.name", "server.port", "host.name"];
    assert_eq!(
        (etcd.value, names.map(|name| etcd.attribute(name))),
        (1.0, ["etcd-node-7", "node-7", "2381", ""])
    );
    // Each agent its own kubelet, with the host's attributes.
    let kubelet = last("apiserver_request_total", &[("service.name", "kubelet")]);
    assert!(!kubelet.attribute("host.name").is_empty());
    assert_eq!(kubelet.attribute("k8s.node.name"), "node-a");

    assert!(!metrics::points(&untold, "kansoku.cluster.leader").is_empty(), "the follower exports");
    // After the leader's clean stop the follower may have had its turn.
    for name in ["k8s.pod.status.phase", "apiserver_request_total"] {
        let ended = metrics::points(&told, name).last().map_or(0, |point| point.time_unix_ns);
        let doubles =
            metrics::points(&untold, name).iter().filter(|point| point.time_unix_ns <= ended).count();
        assert_eq!(doubles, 0, "{name} from both at once");
    }
    assert!(
        metrics::points(&told, "kube_pod_info").is_empty(),
        "kube-state-metrics' words are Prometheus' alone"
    );
}
