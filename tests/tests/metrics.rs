//! Metrics as their consumers get them: the kernel's files, a real Prometheus, a real VictoriaMetrics, promtool, OTLP.
//!
//! Refuses: our own reading of the formats where somebody else's is at hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use tests::agent::{Agent, STOP_MAX};
use tests::bundle::Bundle;
use tests::cgroup::{ContainerCgroup, Inside};
use tests::endpoint::{self, Page};
use tests::http;
use tests::metrics::{Point, points};
use tests::nginx::Nginx;
use tests::prometheus::{Login, Prometheus, Scrape, promtool_check};
use tests::promql::Sample;
use tests::receiver::{Behaviour, Protocol, Receiver};
use tests::tools;
use tests::victoria_metrics::{Naming, VictoriaMetrics};
use tests::workload::{FRAME_POINTERS, Program, utf8};

fn stop(agent: Agent) {
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

fn io_program() -> Program {
    Program::c("io.c", &[FRAME_POINTERS, &["-static", "-pthread"]].concat())
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env("LC_ALL", "C");
    command
}

/// Starts a program that holds memory and threads, and does nothing else.
fn hold(container: &ContainerCgroup, program: &Program, megabytes: u32, threads: u32) -> Inside {
    let (megabytes, threads) = (megabytes.to_string(), threads.to_string());
    let mut holder = container.enter(command(&[utf8(program.path()), "hold", &megabytes, &threads]));
    assert_eq!(holder.line(), "ready");
    holder
}

/// The numbers of a container's cgroups are those of the kernel's files.
#[test]
fn cgroups_as_the_kernel_has_them() {
    const LIMIT: f64 = 48.0 * 1_048_576.0;
    let program = io_program();
    let container = ContainerCgroup::make("ca01");
    assert!(container.is_v1("memory"), "on cgroup v2 this needs subtree_control");
    std::fs::write(container.file("memory", "memory.limit_in_bytes"), LIMIT.to_string()).expect("cgroup(7)");
    let holder = hold(&container, &program, 20, 3);
    // More page cache than the limit lets it have.
    let big = program.directory().join("big");
    let output = format!("of={}", utf8(&big));
    container.run(command(&["/usr/bin/dd", "if=/dev/zero", &output, "bs=1M", "count=64", "status=none"]));
    let file = |controller, name| container.number(controller, name);
    let (agent, endpoint) = endpoint::start(&[]);
    let mut page = endpoint.scrape_until("the container", |page| {
        !page.series("container_thread_number", &[container.label()]).is_empty()
    });
    for _ in 0..3 {
        let before = [file("memory", "memory.usage_in_bytes"), file("cpuacct", "cpuacct.usage")];
        page = endpoint.scrape();
        let after = [file("memory", "memory.usage_in_bytes"), file("cpuacct", "cpuacct.usage")];
        // Of names that cAdvisor has too, the endpoint has its series.
        let usage = page.value("container_memory_usage_bytes", &[("name", container.id())]);
        let (low, high) = (before[0].min(after[0]), before[0].max(after[0]));
        assert!((low..=high).contains(&usage), "{usage} bytes, {low} to {high} in the file");
        let name = [("name", container.id())];
        let cpu_s = page.value("container_cpu_usage_seconds_total", &name);
        assert!(
            (before[1]..=after[1]).contains(&(cpu_s * 1e9).round()),
            "{cpu_s} s, {before:?} to {after:?}"
        );
    }
    let own = [container.label()];
    let cache = page.value("container_memory_cache_bytes", &own);
    assert_eq!(cache, container.statistic(["total_cache", "file"]));
    let rss = page.value("container_memory_rss_bytes", &own);
    assert_eq!(rss, container.statistic(["total_rss", "anon"]));
    assert!(rss >= 20.0 * 1_048_576.0, "it holds 20 MiB: {rss}");
    let name = [("name", container.id())];
    let working_set = page.value("container_memory_working_set_bytes", &name);
    let inactive = container.statistic(["total_inactive_file", "inactive_file"]);
    assert_eq!(working_set, page.value("container_memory_usage_bytes", &name) - inactive);
    assert_eq!(page.value("container_spec_memory_limit_bytes", &name), LIMIT);
    let hits = page.value("container_memory_failcnt", &name);
    assert_eq!(hits, file("memory", "memory.failcnt"));
    assert!(hits > 0.0, "the limit was hit");
    assert_eq!(
        page.value("container_memory_max_usage_bytes", &name),
        file("memory", "memory.max_usage_in_bytes")
    );
    assert_eq!(page.value("container_thread_number", &own), file("pids", "pids.current"));
    assert_eq!(page.value("container_thread_number", &own), 3.0);
    assert_eq!(page.value("container_process_number", &own), 1.0);

    // Another container under the same path counts anew.
    let (id, started) = (container.id().to_owned(), page.value("container_start_time_seconds", &name));
    drop((holder, container));
    let page = endpoint.scrape();
    let left: Vec<&Sample> = page.series("container_memory_usage_bytes", &[("name", &id)]);
    assert!(left.is_empty(), "it is gone: {left:?}");
    std::thread::sleep(Duration::from_millis(1100));
    let again = ContainerCgroup::make("ca01");
    let _holder = hold(&again, &program, 1, 1);
    let page = endpoint.scrape_until("the new one", |page| {
        !page.series("container_start_time_seconds", &[("name", &id)]).is_empty()
    });
    assert!(page.value("container_start_time_seconds", &[("name", &id)]) >= started + 1.0);
    assert!(page.value("container_memory_usage_bytes", &[("name", &id)]) < 10e6);
    assert_eq!(page.value("container_memory_failcnt", &[("name", &id)]), 0.0);
    stop(agent);
}

/// Queries that are empty with the real exporters too: there are no series of these names.
const EMPTY: [&str; 2] = ["Dropped receive", "Dropped transmit"];

/// Queries whose answer must be in a range; all others must be there, and no less than zero.
const RANGES: [(&str, f64, f64); 6] = [
    ("same, sum_irate", 0.2, 0.7),
    ("cpuThrottling", 0.3, 1.0),
    ("node-mixin instance:node_cpu_utilisation:rate5m", 0.0, 1.0),
    ("node-mixin instance:node_memory_utilisation:ratio", 0.0, 1.0),
    ("memory gauge", 0.0, 100.0),
    ("memoryUtilisation (rule put in)", 0.0, 1.0),
];

/// The expressions of kubernetes-mixin and node-mixin (Apache-2.0), their variables and ranges put in.
fn mixin_queries() -> Vec<(String, String)> {
    let queries: Value = serde_json::from_str(include_str!("../workloads/mixin_queries.json")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let values = [
        ("$namespace", "shop"),
        ("$pod", "web-1"),
        ("$node", "node-1"),
        ("$instance", "node-1"),
        ("[5m]", "[10s]"),
    ];
    let put_in = |query: &Value| {
        let expression = text(&query["expression"]);
        (text(&query["name"]), values.iter().fold(expression, |text, (from, to)| text.replace(from, to)))
    };
    queries.as_array().expect("a list").iter().map(put_in).collect()
}

fn kubernetes_scrapes(target: SocketAddr) -> Vec<Scrape> {
    let labels = |more: &[(&str, &str)]| {
        let common = [("cluster", "test"), ("node", "node-1"), ("instance", "node-1")];
        common.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let mut kubelet = Scrape::new("kubelet", target);
    kubelet.labels = labels(&[("metrics_path", "/metrics/cadvisor")]);
    kubelet.keep = "container_.*|machine_.*".into();
    let mut node = Scrape::new("node-exporter", target);
    node.labels = labels(&[]);
    node.keep = "node_.*".into();
    vec![kubelet, node, Scrape::new("all", target)]
}

/// Dashboards and rules of Kubernetes work on what Prometheus scrapes, as text and as protobuf.
#[test]
fn prometheus_and_the_mixins() {
    let container = ContainerCgroup::make("9b01");
    let _bundle = Bundle::make(container.id(), ["shop", "web-1", "web"]);
    std::fs::write(container.file("cpu", "cpu.cfs_quota_us"), "50000").expect("cgroup(7)");
    let directory = TempDir::new_in("/var/tmp").expect("a temporary directory on a disk");
    container.account_io(directory.path());
    // A network of its own, direct I/O, and more processor time than it may have.
    let script = format!(
        "ip link add k0 type veth peer name k1; while :; do :; done & while :; do \
         /usr/bin/dd if=/dev/zero of={0}/f bs=64k count=4 oflag=direct status=none; \
         /usr/bin/dd if={0}/f of=/dev/zero bs=64k iflag=direct status=none; done",
        utf8(directory.path())
    );
    let words = ["/usr/bin/unshare", "-n", "/usr/bin/timeout", "60", "/bin/sh", "-c", &script];
    let _load = container.enter(command(&words));
    let (agent, endpoint) = endpoint::start(&[]);
    let _first = endpoint.scrape_of(&container);
    let scrapes = kubernetes_scrapes(endpoint.address());
    let text = Prometheus::start(&scrapes, false);
    let protobuf = Prometheus::start(&scrapes[2..], true);
    std::thread::sleep(Duration::from_secs(14));
    for prometheus in [&text, &protobuf] {
        assert_eq!(prometheus.scrape_errors(Duration::from_secs(5)), []);
        let up = prometheus.query("min_over_time(up[20s])");
        assert!(!up.is_empty() && up.iter().all(|job| job.value == 1.0), "{up:?}");
        let complaints: Vec<String> = prometheus
            .log()
            .lines()
            .filter(|line| line.contains("level=warn") || line.contains("level=error"))
            .map(str::to_owned)
            .collect();
        assert_eq!(complaints, Vec::<String>::new());
    }
    let histogram = r#"histogram_quantile(0.9, rate(syscall_io_duration_seconds{pod="web-1", syscall_operation="write"}[10s]))"#;
    let native = protobuf.query(histogram);
    assert!(native.iter().any(|series| series.value > 0.0 && series.value < 1.0), "native: {native:?}");
    let mut wrong = Vec::new();
    for (name, expression) in mixin_queries() {
        let answer = text.query(&expression);
        if answer.is_empty() != EMPTY.contains(&&*name) {
            wrong.push(format!("{name}: {} series\n    {expression}", answer.len()));
        }
        let range = RANGES.iter().find(|(ranged, _, _)| *ranged == name);
        let (low, high) = range.map_or((0.0, f64::MAX), |(_, low, high)| (*low, *high));
        // A cgroup without a quota has no periods, and none of none is no number.
        let bad =
            answer.iter().filter(|series| !(low..=high).contains(&series.value) && !series.value.is_nan());
        wrong.extend(
            bad.map(|series| format!("{name}: {} for {:?}\n    {expression}", series.value, series.labels)),
        );
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    let cpus =
        text.query(r#"count without (cpu, mode) (node_cpu_seconds_total{job="node-exporter",mode="idle"})"#);
    assert_eq!(cpus[0].value, std::thread::available_parallelism().expect("CPUs").get() as f64);
    stop(agent);
}

/// How the endpoint's labels are called where resources are kept as they came.
const OF_RESOURCES: [(&str, &str); 5] = [
    ("namespace", "k8s_namespace_name"),
    ("pod", "k8s_pod_name"),
    ("container", "k8s_container_name"),
    ("image", "container_image_name"),
    ("unit", "systemd_unit"),
];

/// Names of the endpoint that VictoriaMetrics makes otherwise. `promtool` wants no `_count` that is not a histogram's, and
/// VictoriaMetrics lets no `total` stand within a name.
const NAMED_OTHERWISE: [(&str, &str); 7] = [
    ("container_process_number", "container_process_count"),
    ("container_thread_number", "container_thread_count"),
    ("system_cpu_logical_number", "system_cpu_logical_count"),
    ("system_cpu_physical_number", "system_cpu_physical_count"),
    ("system_linux_psi_total_time_seconds_total", "system_linux_psi_time_seconds_total"),
    ("system_network_connection_number", "system_network_connection_count"),
    ("system_network_packet_number_total", "system_network_packet_count_total"),
];

/// What Prometheus says of its scrapes itself, and the resource, which stands on each series in VictoriaMetrics.
const OF_PROMETHEUS: [&str; 3] = ["up", "scrape_", "target_info"];

/// The values of one name by labels: those that the endpoint's series of this name have.
type Values = BTreeMap<Vec<String>, f64>;

/// What Prometheus has of the last scrape, and VictoriaMetrics of the same snapshot: by name, by labels. Without buckets, which
/// are by upper bound here and by range there: histograms stand with their sums and counts.
fn of_one_snapshot(
    prometheus: &Prometheus,
    victoria: &VictoriaMetrics,
) -> BTreeMap<String, (Values, Values)> {
    const COUNTER: &str = "kansoku_metrics_collections_total";
    // Scrapes and exports meet in one snapshot now and then.
    let deadline = Instant::now() + Duration::from_secs(90);
    let (scraped, sent, time_unix_ms) = loop {
        let scraped = prometheus.query(r#"{__name__!="",job="agent"}"#);
        let sent = victoria.export();
        let number =
            scraped.iter().find(|sample| sample.label("__name__") == COUNTER).map(|sample| sample.value);
        let counter = sent.iter().find(|series| series.labels["__name__"] == COUNTER);
        // A snapshot that was made for the scrape alone is not sent.
        let time = number.and_then(|number| counter?.time_of(number));
        if let Some(time) = time {
            let is_ours = |sample: &Sample| {
                let name = sample.label("__name__");
                !name.ends_with("_bucket") && !OF_PROMETHEUS.iter().any(|start| name.starts_with(start))
            };
            break (scraped.into_iter().filter(is_ours).collect::<Vec<_>>(), sent, time);
        }
        assert!(Instant::now() < deadline, "no snapshot came both ways");
        std::thread::sleep(Duration::from_millis(300));
    };
    let ours = ["__name__", "job", "instance", "metrics_path"];
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in &scraped {
        let names = sample.labels.keys().map(String::as_str).filter(|name| !ours.contains(name));
        labels.entry(sample.label("__name__")).or_default().extend(names);
    }
    let mut names: BTreeMap<String, (Values, Values)> = BTreeMap::new();
    for sample in &scraped {
        let name = sample.label("__name__");
        let key = labels[name].iter().map(|label| sample.label(label).to_owned()).collect();
        *names.entry(name.to_owned()).or_default().0.entry(key).or_default() += sample.value;
    }
    for series in &sent {
        let name = series.labels["__name__"].as_str();
        let name = NAMED_OTHERWISE.iter().find(|(_, theirs)| *theirs == name).map_or(name, |(ours, _)| ours);
        let value = series.at(time_unix_ms);
        let (Some(wanted), Some(value)) = (labels.get(name), value) else { continue };
        let key = wanted.iter().map(|label| {
            let renamed =
                OF_RESOURCES.iter().find(|(ours, _)| ours == label).map_or(*label, |(_, theirs)| theirs);
            series.labels.get(renamed).cloned().unwrap_or_default()
        });
        *names.entry(name.to_owned()).or_default().1.entry(key.collect()).or_default() += value;
    }
    names
}

/// Prometheus, which scrapes, and VictoriaMetrics, which is sent it, have the same numbers of the same snapshot: all names that
/// are on the endpoint.
#[test]
fn prometheus_and_victoria_metrics_agree() {
    let program = io_program();
    let container = ContainerCgroup::make("9b02");
    let victoria = VictoriaMetrics::start(Naming::Prometheus);
    let url = victoria.otlp_url();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT", "none"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "none"),
    ];
    let settings =
        ["metrics.interval_ms=1000", "prometheus.cadvisor=false", "prometheus.node_exporter=false"];
    let (agent, endpoint) = endpoint::start_with(&settings, &variables);
    let prometheus = Prometheus::start(&[Scrape::new("agent", endpoint.address())], false);
    container.run(command(&[utf8(program.path()), "kinds", utf8(program.directory())]));
    container.run(command(&["/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=4k", "count=100000"]));
    let _holder = hold(&container, &program, 8, 2);
    std::thread::sleep(Duration::from_secs(5));
    let names = of_one_snapshot(&prometheus, &victoria);
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (name, (scraped, sent)) in &names {
        compared += scraped.len();
        for key in scraped.keys().chain(sent.keys()).collect::<BTreeSet<_>>() {
            let (Some(a), Some(b)) = (scraped.get(key), sent.get(key)) else {
                let (a, b) = (scraped.get(key), sent.get(key));
                wrong.push(format!("{name} {key:?}: {a:?} scraped, {b:?} sent"));
                continue;
            };
            // VictoriaMetrics keeps decimal numbers that share an exponent: twelve digits are sure.
            if (a - b).abs() > a.abs() * 1e-11 {
                wrong.push(format!("{name} {key:?}: {a} scraped, {b} sent"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(names.len() > 60 && compared > 250, "{} names, {compared} series", names.len());
    println!("{} names, {compared} series are the same", names.len());
    stop(agent);
}

/// promtool has nothing against our own names, and against the others only what it has against the originals.
#[test]
fn promtool_reads_the_page() {
    let container = ContainerCgroup::make("9b03");
    let program = io_program();
    let check = |settings: &[&str]| {
        let (agent, endpoint) = endpoint::start(settings);
        container.run(command(&[utf8(program.path()), "kinds", utf8(program.directory())]));
        let page = endpoint.scrape_of(&container);
        stop(agent);
        promtool_check(&page.text)
    };
    assert_eq!(
        check(&["prometheus.cadvisor=false", "prometheus.node_exporter=false", "io.files=true"]),
        Ok(())
    );
    let complaints = check(&["prometheus.created=true"]).err().unwrap_or_default();
    let is_of_the_originals = |line: &str| {
        // What node_exporter and cAdvisor name as they do since before there was a linter.
        let name = line.split(' ').next().unwrap_or_default();
        line.trim().is_empty()
            || name.starts_with("node_")
            || name.starts_with("container_")
            || name.starts_with("machine_")
    };
    let ours: Vec<&str> = complaints.lines().filter(|line| !is_of_the_originals(line)).collect();
    assert_eq!(ours, Vec::<&str>::new());
}

/// A sample of an OpenMetrics page, as somebody else's reader gives it.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Prometheus's own Python client takes the OpenMetrics page; its exemplars name requests that have spans, each counter and
/// histogram says since when it counts, and a real Prometheus keeps the exemplars.
#[test]
fn open_metrics_with_exemplars_and_created() {
    const REQUESTS: usize = 20;
    let server = ContainerCgroup::make("0e01");
    let nginx = Nginx::start(1, 5000, &server.cgroups());
    let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
    let [url, wire] = receiver.variables();
    let settings = ["prometheus.created=true", "profile.window_ms=250", "metrics.interval_ms=1000"];
    let started = SystemTime::now();
    let (agent, endpoint) = endpoint::start_with(&settings, &[(&url.0, &url.1), (&wire.0, &wire.1)]);
    let prometheus = Prometheus::start(&[Scrape::new("agent", endpoint.address())], false);
    for _ in 0..REQUESTS {
        http::get(nginx.address(), "/file", &[]).expect("nginx answers").expect_success();
    }
    let name = "http_server_request_duration_seconds";
    endpoint.scrape_until("requests", |page| {
        page.sum(&format!("{name}_count"), &[server.label()]) >= REQUESTS as f64
    });
    std::thread::sleep(Duration::from_secs(2));
    let accept = [("accept", "application/openmetrics-text;version=1.0.0")];
    let answer = http::get(endpoint.address(), "/metrics", &accept).expect("it answers").expect_success();
    let content_type = answer.headers["content-type"].to_str().expect("a text").to_owned();
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.text().ends_with("\n# EOF\n"));
    let families = tools::open_metrics_by_python(&answer.text());
    let mut exemplars = Vec::new();
    let mut without_start = Vec::new();
    for family in families.as_array().expect("a list") {
        let (family_name, kind) = (text_of(&family["name"]), text_of(&family["type"]));
        let samples = family["samples"].as_array().expect("a list");
        let of = |suffix: &str| {
            let name = format!("{family_name}{suffix}");
            let found = samples.iter().filter(move |sample| sample["name"] == name.as_str());
            found.map(|sample| (sample["labels"].to_string(), sample["value"].as_f64().expect("a number")))
        };
        let counted: Vec<(String, f64)> = match kind.as_str() {
            "counter" => of("_total").collect(),
            "histogram" => of("_count").collect(),
            _ => continue,
        };
        let created: BTreeMap<String, f64> = of("_created").collect();
        without_start.extend(
            counted
                .iter()
                .filter(|(labels, _)| !created.contains_key(labels))
                .map(|(labels, _)| format!("{family_name}{labels}")),
        );
        let now = started.elapsed().expect("the clock goes on")
            + started.duration_since(UNIX_EPOCH).expect("after 1970");
        assert!(
            created.values().all(|since| (1.0..=now.as_secs_f64()).contains(since)),
            "{family_name}: {created:?}"
        );
        for sample in samples.iter().filter(|sample| !sample["exemplar"].is_null()) {
            let (exemplar, labels) = (&sample["exemplar"], &sample["labels"]);
            let le = text_of(&labels["le"]).parse::<f64>().expect("a bound");
            assert!(exemplar["value"].as_f64().expect("a number") <= le, "{sample}");
            exemplars.push((
                family_name.clone(),
                text_of(&labels["container_id"]),
                text_of(&exemplar["labels"]["trace_id"]),
            ));
        }
    }
    // A counter that began before anybody knows has none; those of ours all do.
    without_start.retain(|series| !series.starts_with("node_"));
    assert_eq!(without_start, Vec::<String>::new());
    let of_server: Vec<&String> = exemplars
        .iter()
        .filter(|(family, of, _)| family == name && of == server.id())
        .map(|(_, _, trace)| trace)
        .collect();
    assert!(!of_server.is_empty(), "{exemplars:?}");
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let spans: BTreeSet<String> = receiver.spans().iter().map(|span| hexadecimal(&span.trace_id)).collect();
    for (family, _, trace) in &exemplars {
        assert!(spans.contains(trace), "{family}: no span of {trace}");
    }
    let deadline = Instant::now() + Duration::from_secs(8);
    let expression = format!("{name}_bucket{{container_id=\"{}\"}}", server.id());
    loop {
        let kept = prometheus.exemplars(&expression);
        if kept.iter().any(|labels| labels.get("trace_id").is_some_and(|trace| spans.contains(trace))) {
            break;
        }
        assert!(Instant::now() < deadline, "Prometheus keeps no exemplar of {expression}: {kept:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(prometheus.scrape_errors(Duration::from_secs(5)), []);
    stop(agent);
}

/// A status for each way to log in.
#[track_caller]
fn check_login(address: SocketAddr, headers: &[(&str, &str)], expected: u16) {
    let answer = http::get(address, "/metrics", headers).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answer.status.as_u16(), expected, "{headers:?}");
}

#[test]
fn the_endpoint_is_guarded() {
    let directory = TempDir::new().expect("a temporary directory");
    let at = |name: &str| utf8(&directory.path().join(name)).to_owned();
    tools::write_file(&directory.path().join("password"), b"s3cret\n");
    tools::write_file(&directory.path().join("token"), b"t0ken\n");
    let (password, token) = (
        format!("prometheus.password_file={}", at("password")),
        format!("prometheus.bearer_token_file={}", at("token")),
    );
    let (agent, endpoint) = endpoint::start(&["prometheus.user=scraper", &password, &token]);
    check_login(endpoint.address(), &[], 401);
    check_login(endpoint.address(), &[("authorization", "Bearer wrong")], 401);
    check_login(endpoint.address(), &[("authorization", "Bearer t0ken")], 200);
    // scraper:s3cret and scraper:wrong
    check_login(endpoint.address(), &[("authorization", "Basic c2NyYXBlcjpzM2NyZXQ=")], 200);
    check_login(endpoint.address(), &[("authorization", "Basic c2NyYXBlcjp3cm9uZw==")], 401);
    let mut basic = Scrape::new("basic", endpoint.address());
    basic.login = Login::Basic("scraper".into(), "s3cret".into());
    let mut bearer = Scrape::new("bearer", endpoint.address());
    bearer.login = Login::Bearer("t0ken".into());
    let mut wrong = Scrape::new("wrong", endpoint.address());
    wrong.login = Login::Bearer("wrong".into());
    let prometheus = Prometheus::start(&[basic, bearer, wrong], false);
    let errors = prometheus.scrape_errors(Duration::from_secs(10));
    assert_eq!(errors.iter().map(|(job, _)| job.as_str()).collect::<Vec<_>>(), ["wrong"], "{errors:?}");
    stop(agent);
}

#[test]
fn the_endpoint_speaks_tls() {
    let directory = TempDir::new().expect("a temporary directory");
    let at = |name: &str| utf8(&directory.path().join(name)).to_owned();
    let words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        &at("key.pem"),
        "-out",
        &at("cert.pem"),
    ];
    tools::succeed(&mut command(&words));
    let (certificate, key) =
        (format!("prometheus.certificate={}", at("cert.pem")), format!("prometheus.key={}", at("key.pem")));
    let (agent, endpoint) = endpoint::start(&[&certificate, &key]);
    let url = format!("https://{}/metrics", endpoint.address());
    let curl = |words: &[&str]| {
        let output =
            command(&[&["curl", "-sS", "--max-time", "10"], words].concat()).output().expect("curl starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = curl(&["--cacert", &at("cert.pem"), &url]);
    assert_eq!(code, Some(0));
    assert!(Page::parse(text).sum("node_time_seconds", &[]) > 0.0);
    // Its certificate is nobody's that the system knows, and it speaks no plain HTTP.
    assert_eq!(curl(&[&url]).0, Some(60));
    assert_ne!(curl(&[&url.replace("https", "http")]).1.lines().count(), 1000);
    let plain = http::get(endpoint.address(), "/metrics", &[]);
    assert!(
        plain.is_err() || plain.is_ok_and(|answer| !answer.status.is_success()),
        "plain HTTP was answered"
    );
    stop(agent);
}

/// Clients that never read or never ask hold nobody up.
#[test]
fn slow_readers_hold_up_nobody() {
    let (mut agent, endpoint) = endpoint::start(&[]);
    let mut slow: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(endpoint.address()).expect("it listens")).collect();
    for (index, stream) in slow.iter_mut().enumerate() {
        let request: &[u8] =
            if index == 0 { b"GET /met" } else { b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n" };
        stream.write_all(request).expect("it reads");
    }
    for _ in 0..3 {
        let started = Instant::now();
        assert!(endpoint.scrape().sum("node_time_seconds", &[]) > 0.0);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    assert!(agent.is_running());
    stop(agent);
}

/// The points of a container's calls.
fn calls(receiver: &Receiver, container: &ContainerCgroup) -> Vec<Point> {
    let all = points(&receiver.metrics(), "syscall.io.operations");
    all.into_iter().filter(|point| point.attribute("container.id") == container.id()).collect()
}

fn series_of(point: &Point) -> String {
    ["syscall.operation", "syscall.descriptor", "error.type"].map(|key| point.attribute(key)).join(" ")
}

/// Deltas add up to what the endpoint has; after a restart it counts from its new start, and nothing twice.
#[test]
fn deltas_add_up_and_restarts_begin_anew() {
    let program = io_program();
    let container = ContainerCgroup::make("de17");
    let words = [utf8(program.path()), "kinds", utf8(program.directory())];
    let mut started = Vec::new();
    for temporality in ["delta", "cumulative"] {
        let receiver = Receiver::start(Protocol::Http, Behaviour::Accept);
        let [url, wire] = receiver.variables();
        let preference = format!("otlp.metrics.temporality={temporality}");
        let settings = ["metrics.interval_ms=500", &preference];
        let (agent, endpoint) = endpoint::start_with(&settings, &[(&url.0, &url.1), (&wire.0, &wire.1)]);
        for _ in 0..3 {
            container.run(command(&words));
            std::thread::sleep(Duration::from_millis(700));
        }
        let page = endpoint.scrape_of(&container);
        let labels = ["syscall_operation", "syscall_descriptor", "error_type"];
        let mut expected = BTreeMap::new();
        for sample in page.series("syscall_io_operations_total", &[container.label()]) {
            expected.insert(labels.map(|label| sample.label(label)).join(" "), sample.value);
        }
        assert_eq!(expected["write terminal "], 21.0, "three runs, and none of the agent before");
        stop(agent);
        let calls = calls(&receiver, &container);
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        let mut ends: BTreeMap<String, u64> = BTreeMap::new();
        for point in &calls {
            assert_eq!(point.is_delta, temporality == "delta");
            assert!(point.start_unix_ns > 0 && point.start_unix_ns < point.time_unix_ns);
            let sum = sums.entry(series_of(point)).or_default();
            *sum = if point.is_delta { *sum + point.value } else { point.value };
            if let Some(end) = ends.insert(series_of(point), point.time_unix_ns).filter(|_| point.is_delta) {
                assert_eq!(point.start_unix_ns, end, "deltas follow each other without a gap: {point:?}");
            }
        }
        assert_eq!(sums, expected, "{temporality}");
        started.push(calls.iter().map(|point| point.start_unix_ns).min().expect("it was counted"));
        assert_eq!(receiver.complaints(), Vec::<String>::new());
    }
    assert!(started[1] > started[0] + 1_000_000_000, "a new agent counts from its own start: {started:?}");
}

/// Serves a page for ever; an endless one until the client has enough.
fn serve(page: &'static str, is_endless: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let _head = stream.read(&mut [0; 4096]);
            let _closed = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nconnection: close\r\n\r\n",
            );
            let _closed = stream.write_all(page.as_bytes());
            let line = "endless{a=\"0123456789\"} 1\n".repeat(1000);
            while is_endless && stream.write_all(line.as_bytes()).is_ok() {}
        }
    });
    address
}

/// Pages of applications go on over OTLP, and a page without an end costs a bounded piece of memory.
#[test]
fn applications_are_scraped() {
    let good = serve(
        "# TYPE orders_total counter\norders_total{shop=\"a\"} 7\n# TYPE heat gauge\nheat 1.5\n",
        false,
    );
    let endless = serve("# TYPE endless gauge\n", true);
    let receiver = Receiver::start(Protocol::Grpc, Behaviour::Accept);
    let [url, wire] = receiver.variables();
    let targets = format!("scrape.targets=good=http://{good}/metrics,endless=http://{endless}/metrics");
    let settings = ["metrics.interval_ms=1000", "scrape.interval_ms=1000", &targets];
    let (agent, endpoint) = endpoint::start_with(&settings, &[(&url.0, &url.1), (&wire.0, &wire.1)]);
    std::thread::sleep(Duration::from_secs(6));
    let (_, most) = agent.resident_bytes();
    assert!(most < 300 << 20, "{most} bytes");
    let page = endpoint.scrape();
    assert_eq!(page.sum("orders_total", &[]), 0.0, "Prometheus can scrape it by itself");
    stop(agent);
    let requests = receiver.metrics();
    let orders = points(&requests, "orders_total");
    let last = orders.last().expect("it arrived");
    assert_eq!((last.value, last.attribute("shop"), &*last.scope), (7.0, "a", "kansoku/scrape"));
    assert_eq!(last.attribute("server.port"), good.port().to_string());
    assert_eq!(points(&requests, "heat").last().map(|point| point.value), Some(1.5));
    assert!(points(&requests, "endless").is_empty(), "half a page is no page");
    let up = points(&requests, "up");
    let of = |port: u16| up.iter().rev().find(|point| point.attribute("server.port") == port.to_string());
    assert_eq!(of(good.port()).map(|point| point.value), Some(1.0));
    assert_eq!(of(endless.port()).map(|point| point.value), Some(0.0));
}

/// Three hundred containers come and go under the eyes of two scrapers: every page is whole, every one is told.
#[test]
fn containers_come_and_go() {
    const CONTAINERS: u32 = 300;
    const ALIVE: usize = 120;
    let program = io_program();
    let (mut agent, endpoint) = endpoint::start(&[]);
    let address = endpoint.address();
    let is_over = AtomicBool::new(false);
    let path = utf8(program.path());
    let (seen, pages) = std::thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let (mut seen, mut pages) = (BTreeMap::new(), 0);
            loop {
                let was_over = is_over.load(Ordering::Relaxed);
                let answer = http::get(address, "/metrics", &[]).expect("it answers").expect_success();
                let page = Page::parse(answer.text());
                pages += 1;
                for sample in page.series("syscall_io_operations_total", &[("syscall_descriptor", "unix")]) {
                    if sample.label("container_id").starts_with("c0")
                        && sample.label("syscall_operation") == "write"
                    {
                        seen.insert(sample.label("container_id").to_owned(), sample.value);
                    }
                }
                if was_over {
                    return (seen, pages);
                }
                std::thread::sleep(Duration::from_millis(if is_over.load(Ordering::Relaxed) {
                    1000
                } else {
                    200
                }));
            }
        });
        let mut alive = VecDeque::new();
        for index in 0..CONTAINERS {
            let container = ContainerCgroup::make(&format!("c0{index:04}"));
            container.run(command(&[path, "reused"]));
            // What lives for less than 100 ms is gone before the agent looks; a busy machine needs some more, a fast one a pause.
            alive.push_back(container);
            std::thread::sleep(Duration::from_millis(5));
            if alive.len() > ALIVE {
                alive.pop_front();
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        is_over.store(true, Ordering::Relaxed);
        scraper.join().expect("every page is whole")
    });
    assert!(agent.is_running());
    assert!(pages > 5, "{pages} pages");
    let wrong: Vec<_> = seen.iter().filter(|(_, writes)| **writes != 10.0).collect();
    assert!(wrong.is_empty(), "half values: {wrong:?}");
    assert_eq!(seen.len(), CONTAINERS as usize, "containers that were seen");
    let (_, most) = agent.resident_bytes();
    assert!(most < 100 << 20, "{most} bytes");
    stop(agent);
}
