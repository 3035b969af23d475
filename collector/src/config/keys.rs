//! The table of configuration keys: path, environment variable, type, default, and what it is for.
//!
//! Refuses: logic. A new key is one line here and one use in `Config::new`.

/// A configuration key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Path in the file, such as `profile.frequency_hz`.
    pub path: String,
    /// Environment variable.
    pub variable: String,
    /// What values it takes.
    pub kind: Kind,
    /// The default, as it would stand in the file.
    pub default: &'static str,
    /// What it is for.
    pub help: String,
    /// Whether its values must not be printed.
    pub is_secret: bool,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number between two bounds.
    Integer(u64, u64),
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Names and values; in the environment `name=value,name=value`.
    Table,
}

const PROTOCOLS: Kind = Kind::Choice(&["http/protobuf", "grpc"]);
const COMPRESSIONS: Kind = Kind::Choice(&["none", "gzip", "zstd"]);

/// Signals with their own OTLP keys.
const SIGNALS: [&str; 4] = ["profiles", "metrics", "logs", "traces"];

/// All keys, in the order in which they are printed.
pub fn keys() -> Vec<Key> {
    let mut keys = vec![
        key(
            "profile.frequency_hz",
            Kind::Integer(1, 10_000),
            "97",
            "Samples per second and CPU. Odd, so that it never runs in step with timers.",
        ),
        key(
            "profile.window_ms",
            Kind::Integer(100, 3_600_000),
            "5000",
            "Length of a window: samples are aggregated and exported once per window.",
        ),
        key(
            "profile.sample_ring_bytes",
            Kind::Integer(0, 1 << 30),
            "0",
            "Bytes of the ring between kernel and agent, a power of two. 0: by CPUs and frequency.",
        ),
        key(
            "symbols.lines",
            Kind::Flag,
            "false",
            "Source lines and inlined functions from DWARF. Costs memory by the size of debug information.",
        ),
        key(
            "symbols.cache_bytes_max",
            Kind::Integer(1 << 16, 1 << 34),
            "8388608",
            "Bytes of function names that are remembered.",
        ),
        key("crash.enabled", Kind::Flag, "true", "Make records of abnormal deaths."),
        key(
            "crash.spool",
            Kind::Text,
            "/var/lib/kansoku/crashes",
            "Directory of crash records, one JSON file each. They outlive the agent and are exported once.",
        ),
        key(
            "crash.spool_bytes_max",
            Kind::Integer(1 << 18, 1 << 40),
            "67108864",
            "Bytes of crash records that are kept; the oldest go first.",
        ),
        key("crash.spool_files_max", Kind::Integer(1, 100_000), "1000", "Crash records that are kept."),
        key(
            "crash.exits",
            Kind::Choice(&["main", "all", "none"]),
            "main",
            "Which non-zero exits make a crash record. main: those of main processes of containers and services, and \
             those with a runtime's last words on standard error. All are counted.",
        ),
        key(
            "crash.records_per_minute",
            Kind::Integer(1, 10_000),
            "10",
            "Records of deaths of one kind in a minute. The rest is counted in the next record of the kind.",
        ),
        key(
            "crash.redact",
            Kind::Table,
            "{}",
            "Names and regular expressions of what must not leave in command lines and standard error, beside what \
             looks like credentials.",
        ),
        key(
            "crash.stderr",
            Kind::Flag,
            "true",
            "Keep the last 8 KiB that each process writes to standard error, for its crash record. Costs about 100 ns \
             on every system call of the node.",
        ),
        key(
            "dump.pattern",
            Kind::Choice(&["off", "auto", "socket", "pipe"]),
            "off",
            "Whether dumps are taken, and how: by the kernel's coredump socket (6.16), or by a program that the kernel \
             starts. Anything but off takes core_pattern over while the agent runs, if a policy asks for dumps.",
        ),
        key(
            "dump.default",
            Kind::Choice(&["none", "record", "minidump", "core"]),
            "record",
            "What is kept of a death: nothing, the crash record, a minidump beside it, or the whole core.",
        ),
        key(
            "dump.policies",
            Kind::Table,
            "{}",
            "Other than the default, by service:GLOB, container:ID-PREFIX, unit:GLOB, namespace:GLOB or \
             pod:NAMESPACE/NAME.",
        ),
        key(
            "dump.annotation_max",
            Kind::Choice(&["none", "record", "minidump", "core"]),
            "record",
            "The most that a pod may ask for itself with the annotation kansoku.io/dump, or kansoku.io/dump.CONTAINER. none: \
             its annotations count for nothing.",
        ),
        key("dump.directory", Kind::Text, "/var/lib/kansoku/dumps", "Directory of dumps."),
        key(
            "dump.bytes_max",
            Kind::Integer(1 << 20, 1 << 50),
            "1073741824",
            "Bytes of all dumps; the oldest go first.",
        ),
        key("dump.files_max", Kind::Integer(1, 100_000), "50", "Dumps that are kept."),
        key(
            "dump.file_bytes_max",
            Kind::Integer(1 << 20, 1 << 50),
            "536870912",
            "Bytes of one core, compressed. What is longer is cut, and said so.",
        ),
        key("dump.minidump_bytes_max", Kind::Integer(1 << 16, 1 << 30), "8388608", "Bytes of one minidump."),
        key(
            "dump.redact_memory",
            Kind::Flag,
            "false",
            "Replace everything in minidumps that is no address: stacks unwind, and no data of the process leaves.",
        ),
        key("dump.socket", Kind::Text, "/run/kansoku/core.sock", "The socket that the kernel dumps into."),
        key(
            "io.enabled",
            Kind::Flag,
            "true",
            "Count I/O by container in the kernel: system calls, block devices, TCP, reclaim. Costs about 0.2 us on every \
             system call that does I/O, and less on the others.",
        ),
        key(
            "io.by_process",
            Kind::Flag,
            "false",
            "Tell processes apart within a container. Many more series.",
        ),
        key(
            "io.slow_ms",
            Kind::Integer(0, 3_600_000),
            "500",
            "Operations on files, and connects, that take longer leave an event with path or peer and stack. 0: none.",
        ),
        key(
            "io.files",
            Kind::Flag,
            "false",
            "Count I/O by file, and export the busiest files of each container.",
        ),
        key(
            "io.scheduler",
            Kind::Flag,
            "true",
            "Measure how long tasks wait for a CPU. Costs about 0.1 us on each context switch.",
        ),
        key(
            "budget.syscalls_percent",
            Kind::Text,
            "1.0",
            "Share of any CPU's time that the hooks on system calls may cost, for I/O and for standard error. Above it they \
             are there a part of the time, and each call that is counted stands for several: kansoku.syscalls.* say so. 0: no \
             limit.",
        ),
        key(
            "trace.enabled",
            Kind::Flag,
            "true",
            "Make spans and request metrics of what is said over connections.",
        ),
        otel(
            "trace.sample_ratio",
            "OTEL_TRACES_SAMPLER_ARG",
            Kind::Text,
            "1.0",
            "Share of the traces that are kept, where no caller decided before. Errors and slow spans always are, \
             metrics have them all.",
        ),
        key(
            "trace.spans_per_second_max",
            Kind::Integer(0, 1_000_000),
            "1000",
            "Spans of one service in a second; errors and slow ones have as many again. The rest is counted.",
        ),
        key(
            "trace.exchanges_per_second_max",
            Kind::Integer(0, 1_000_000_000),
            "0",
            "Exchanges on the node that are looked at in a second. Above it a share is left out in the kernel, the same at \
             both ends of a connection, and counted; twenty of these cost one that is looked at, down to a tenth. 0: 2500 \
             for each CPU.",
        ),
        key(
            "trace.slow_ms",
            Kind::Integer(1, 3_600_000),
            "1000",
            "Spans that take longer are kept whatever the ratio.",
        ),
        otel(
            "metrics.interval_ms",
            "OTEL_METRIC_EXPORT_INTERVAL",
            Kind::Integer(100, 3_600_000),
            "15000",
            "Time between two exports of metrics. Scrapes of the endpoint get numbers of their own moment.",
        ),
        key(
            "metrics.series_per_owner_max",
            Kind::Integer(1, 1_000_000),
            "2000",
            "Series of one metric and one container. More are folded into one with otel.metric.overflow.",
        ),
        key(
            "metrics.series_max",
            Kind::Integer(1, 10_000_000),
            "100000",
            "Series of one metric on the node. More are folded likewise.",
        ),
        key(
            "metrics.limits",
            Kind::Table,
            "{}",
            "Other limits than metrics.series_per_owner_max, by name of the metric: * is any text.",
        ),
        key(
            "prometheus.listen",
            Kind::Text,
            "127.0.0.1:9464",
            "Where /metrics is: an address and a port, several with commas, or none.",
        ),
        key(
            "prometheus.cadvisor",
            Kind::Flag,
            "true",
            "Have cAdvisor's container_* on the endpoint too, for existing dashboards and rules.",
        ),
        key(
            "prometheus.node_exporter",
            Kind::Flag,
            "true",
            "Have node_exporter's node_* on the endpoint too, for existing dashboards and rules.",
        ),
        key(
            "prometheus.created",
            Kind::Flag,
            "false",
            "Write _created series in OpenMetrics: when counters began. They double the series of most servers.",
        ),
        key(
            "prometheus.certificate",
            Kind::Text,
            "",
            "The endpoint's TLS certificate, a PEM file. Empty: no TLS.",
        ),
        key("prometheus.key", Kind::Text, "", "The key of that certificate, a PEM file."),
        key(
            "prometheus.client_certificate",
            Kind::Text,
            "",
            "CA certificates, a PEM file: who scrapes must have a certificate of theirs.",
        ),
        key("prometheus.user", Kind::Text, "", "User name for HTTP basic authentication."),
        key("prometheus.password_file", Kind::Text, "", "A file with that user's password."),
        key(
            "prometheus.bearer_token_file",
            Kind::Text,
            "",
            "A file with a bearer token that may scrape. Read again when it changes.",
        ),
        key(
            "scrape.targets",
            Kind::Table,
            "{}",
            "Prometheus pages of applications to forward over OTLP: names and URLs.",
        ),
        key(
            "scrape.annotations",
            Kind::Flag,
            "false",
            "Scrape this node's pods too that ask for it: prometheus.io/scrape, port, path, scheme and param_*. Needs the API \
             server.",
        ),
        key(
            "scrape.interval_ms",
            Kind::Integer(1_000, 3_600_000),
            "60000",
            "Time between two scrapes of such a page.",
        ),
        key("scrape.certificate", Kind::Text, "", "CA certificates for pages over TLS, a PEM file."),
        key(
            "scrape.control_plane",
            Kind::Flag,
            "false",
            "Forward the metrics of API servers, scheduler, controller manager and etcd over OTLP: those whose pods are in \
             kube-system, by one elected agent. Needs the API server.",
        ),
        key(
            "scrape.cluster_targets",
            Kind::Table,
            "{}",
            "Prometheus pages that the elected agent alone forwards over OTLP: names and URLs.",
        ),
        key(
            "scrape.kubelet",
            Kind::Text,
            "",
            "URL of this node's kubelet, such as https://10.0.0.7:10250/metrics or https://[fd00::7]:10250/metrics, to forward its \
             metrics over OTLP. Asked with the service account's token.",
        ),
        key(
            "scrape.cluster_verify",
            Kind::Flag,
            "true",
            "Whether the control plane and the kubelet must have certificates of the cluster's authority. kubeadm's kubelets, \
             schedulers and controller managers have none.",
        ),
        key(
            "kubernetes.cri_socket",
            Kind::Text,
            "auto",
            "The container runtime's socket, which names the pods of containers: a path, none, or auto: where the usual \
             distributions have it.",
        ),
        key(
            "kubernetes.api",
            Kind::Choice(&["auto", "off"]),
            "auto",
            "Watch this node's pods at the API server, for labels, annotations and workloads. auto: where the agent is a pod, \
             or a kubeconfig is named.",
        ),
        key("kubernetes.kubeconfig", Kind::Text, "", "A kubeconfig, for an agent that is no pod."),
        key(
            "kubernetes.node_name",
            Kind::Text,
            "",
            "This node's name in Kubernetes; also k8s.node.name. Empty: the host's name, where pods are watched.",
        ),
        key(
            "kubernetes.cluster",
            Kind::Flag,
            "false",
            "Tell of the whole cluster's objects: kube_* of kube-state-metrics on the endpoint, k8s.* over OTLP. All agents \
             that have it on elect one by a Lease. Needs the API server.",
        ),
        key("kubernetes.lease", Kind::Text, "kansoku", "Name of that Lease, in the agent's namespace."),
        key(
            "kubernetes.labels",
            Kind::Text,
            "",
            "Labels of pods that become k8s.pod.label.*, and those of kube_pod_labels: names with commas between them, * is any \
             text.",
        ),
        key(
            "kubernetes.annotations",
            Kind::Text,
            "",
            "Annotations of pods that become k8s.pod.annotation.*, likewise.",
        ),
        key(
            "kubernetes.service_labels",
            Kind::Flag,
            "true",
            "Let the labels app.kubernetes.io/instance, name and version name the service and its version.",
        ),
        key(
            "kubernetes.peers",
            Kind::Flag,
            "false",
            "Watch the addresses of the cluster's pods and Services too, so that spans and the service map name peers on other \
             nodes.",
        ),
        key(
            "kubernetes.node_network",
            Kind::Text,
            "auto",
            "The node's network namespace, whose connection tracking says which pod is behind the IP of a Service, asked with \
             kubernetes.peers. auto: that of process 1, or the own one where that may not be looked at; none; or a path. Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN or the node's \
             network (hostNetwork).",
        ),
        key(
            "kubernetes.cache",
            Kind::Text,
            "/var/lib/kansoku/names.json",
            "File of the pods of containers, for the next start of the agent. Empty: none.",
        ),
        key("kernel.btf", Kind::Text, "/sys/kernel/btf/vmlinux", "The kernel's type information."),
        key(
            "kernel.log_level",
            Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]),
            "off",
            "Diagnostics of the eBPF programs, written to the agent's log.",
        ),
        key(
            "local.flame_graph",
            Kind::Text,
            "/run/kansoku/flamegraph.html",
            "Where the flame graph goes when there is no backend. .html or .svg.",
        ),
        key(
            "log.level",
            Kind::Text,
            "info",
            "Level of the agent's own log, or a filter such as info,collector::symbolize=debug.",
        ),
        key(
            "log.otlp_endpoint",
            Kind::Text,
            "",
            "Base URL for the agent's own spans and logs over OTLP/HTTP. Empty: standard error only.",
        ),
        otel(
            "resource.attributes",
            "OTEL_RESOURCE_ATTRIBUTES",
            Kind::Table,
            "{}",
            "Attributes that are added to every resource.",
        ),
        key("resource.node", Kind::Flag, "true", "Read what the node uses: system.* and node_*."),
        key(
            "resource.containers",
            Kind::Flag,
            "true",
            "Read what containers and services use: container.* and container_*.",
        ),
        key(
            "resource.layers",
            Kind::Flag,
            "false",
            "Add up the files that containers wrote to their own layer, some at a time.",
        ),
        key(
            "resource.root",
            Kind::Text,
            "/",
            "Where the /proc and /sys of the node's own metrics are, for an agent in a container.",
        ),
    ];
    keys.extend(otlp_keys());
    for signal in SIGNALS {
        keys.extend(signal_keys(signal));
        if signal == "metrics" {
            keys.push(temporality());
        }
    }
    keys
}

fn temporality() -> Key {
    otel(
        "otlp.metrics.temporality",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        Kind::Choice(&["cumulative", "delta", "lowmemory"]),
        "cumulative",
        "Whether counters and histograms go out as sums since their start or since the export before.",
    )
}

fn otlp_keys() -> Vec<Key> {
    let general = |name: &str, kind, default, help: &str| {
        otel(&format!("otlp.{name}"), &variable("", name), kind, default, help)
    };
    vec![
        general(
            "endpoint",
            Kind::Text,
            "",
            "Base URL of the backend. Empty: no backend, the local view is shown.",
        ),
        general("protocol", PROTOCOLS, "http/protobuf", "Protocol of the backend."),
        secret(general("headers", Kind::Table, "{}", "Headers that are sent with every request.")),
        general("timeout_ms", Kind::Integer(1, 600_000), "10000", "Time for one attempt to export."),
        general("compression", COMPRESSIONS, "none", "Compression of requests."),
        general(
            "certificate",
            Kind::Text,
            "",
            "File with the CA certificates of the backend, PEM. Empty: those of the system.",
        ),
        general("client_certificate", Kind::Text, "", "File with the client's certificate, PEM, for mTLS."),
        general("client_key", Kind::Text, "", "File with the client's private key, PEM, for mTLS."),
        general("insecure", Kind::Flag, "false", "No TLS for a gRPC endpoint without a scheme."),
        key(
            "otlp.queue_bytes_max",
            Kind::Integer(1 << 10, 1 << 34),
            "8388608",
            "Bytes that wait for the backend, all signals together. Above it the oldest batch is dropped, counted.",
        ),
        key(
            "otlp.retry_initial_ms",
            Kind::Integer(1, 600_000),
            "1000",
            "First delay before a retry; it doubles, with jitter.",
        ),
        key("otlp.retry_delay_max_ms", Kind::Integer(1, 3_600_000), "30000", "Longest delay before a retry."),
        key(
            "otlp.retry_elapsed_max_ms",
            Kind::Integer(1, 86_400_000),
            "300000",
            "Time after which a batch is given up, counted.",
        ),
    ]
}

/// A signal's own keys; empty or 0 means: as the general key says.
fn signal_keys(signal: &'static str) -> Vec<Key> {
    let own = |name: &str, kind, default, help: &str| {
        otel(
            &format!("otlp.{signal}.{name}"),
            &variable(signal, name),
            kind,
            default,
            &format!("{help} Only {signal}."),
        )
    };
    const PROTOCOLS: Kind = Kind::Choice(&["", "http/protobuf", "grpc"]);
    const COMPRESSIONS: Kind = Kind::Choice(&["", "none", "gzip", "zstd"]);
    vec![
        own("endpoint", Kind::Text, "", "URL of the backend, used as it is; `none` switches the signal off."),
        own("protocol", PROTOCOLS, "", "Protocol of the backend."),
        secret(own("headers", Kind::Table, "{}", "Headers, added to the general ones.")),
        own("timeout_ms", Kind::Integer(0, 600_000), "0", "Time for one attempt to export."),
        own("compression", COMPRESSIONS, "", "Compression of requests."),
        own("certificate", Kind::Text, "", "File with the CA certificates, PEM."),
        own("client_certificate", Kind::Text, "", "File with the client's certificate, PEM."),
        own("client_key", Kind::Text, "", "File with the client's private key, PEM."),
    ]
}

/// The standard variable of an OTLP exporter key: OTLP exporter specification. Timeouts have no unit in their name.
fn variable(signal: &str, name: &str) -> String {
    let name = name.trim_end_matches("_ms").to_ascii_uppercase();
    match signal {
        "" => format!("OTEL_EXPORTER_OTLP_{name}"),
        signal => format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.to_ascii_uppercase()),
    }
}

fn key(path: &str, kind: Kind, default: &'static str, help: &str) -> Key {
    let variable = format!("KANSOKU_{}", path.replace('.', "_").to_ascii_uppercase());
    otel(path, &variable, kind, default, help)
}

fn otel(path: &str, variable: &str, kind: Kind, default: &'static str, help: &str) -> Key {
    Key {
        path: path.to_owned(),
        variable: variable.to_owned(),
        kind,
        default,
        help: help.to_owned(),
        is_secret: false,
    }
}

fn secret(key: Key) -> Key {
    Key { is_secret: true, ..key }
}
