//! Containers of a pod: what they ask for, and in which state they are.
//!
//! Refuses: init and ephemeral containers; dashboards that exist join on the others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use super::super::quantity::Quantities;
use super::super::report::{Report, Series, seconds, truth};
use super::pod::Pod;
use super::{resource, text};

/// A container as the pod's author wants it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    name: String,
    image: String,
    resources: Resources,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Quantities,
    limits: Quantities,
}

/// A container as the kubelet has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    name: String,
    image: String,
    #[serde(rename = "imageID")]
    image_id: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    ready: bool,
    restart_count: u32,
    state: State,
    last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<Running>,
    waiting: Option<Reason>,
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Running {
    started_at: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    reason: String,
    exit_code: i32,
    started_at: Option<Time>,
}

/// The states of OpenTelemetry's `k8s.container.status.state`.
const STATES: [&str; 3] = ["waiting", "running", "terminated"];

/// Adds the series of a pod's containers: what is wanted of each, and what is of it, if the kubelet has told.
pub(super) fn report(pod: &Pod, report: &mut Report) {
    let statuses = &pod.status.container_statuses;
    for container in &pod.spec.containers {
        let mut series = begin(pod, &container.name, report);
        asked(&mut series, container, text(&pod.spec.node_name));
        if let Some(status) = statuses.iter().find(|status| status.name == container.name) {
            state(&mut series, status, &container.image);
        }
    }
}

fn begin<'a>(pod: &Pod, name: &str, report: &'a mut Report) -> Series<'a> {
    let meta = &pod.metadata;
    let (namespace, pod_name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
    report.object(
        meta,
        &[("namespace", namespace), ("pod", pod_name), ("uid", uid), ("container", name)],
        &[
            ("k8s.namespace.name", namespace),
            ("k8s.pod.name", pod_name),
            ("k8s.pod.uid", uid),
            ("k8s.node.name", text(&pod.spec.node_name)),
            ("k8s.container.name", name),
        ],
    )
}

fn asked(series: &mut Series<'_>, container: &Container, node: &str) {
    let Resources { requests, limits } = &container.resources;
    let families = [
        ("kube_pod_container_resource_requests", "What a container asks for.", requests),
        ("kube_pod_container_resource_limits", "What a container may use at most.", limits),
    ];
    for (name, help, quantities) in families {
        for (of, amount) in quantities.iter() {
            let (resource, unit) = resource(of);
            series.gauge(name, help, &[("node", node), ("resource", &resource), ("unit", unit)], amount);
        }
    }
    let (cpu, bytes) = ("{cpu}", "By");
    series.sum(
        [
            "k8s.container.cpu.request.desired",
            cpu,
            "CPU resource requested as defined by the container spec.",
        ],
        &[],
        requests.get("cpu"),
    );
    series.sum(
        [
            "k8s.container.cpu.limit.desired",
            cpu,
            "Maximum CPU resource limit as defined by the container spec.",
        ],
        &[],
        limits.get("cpu"),
    );
    series.sum(
        [
            "k8s.container.memory.request.desired",
            bytes,
            "Memory resource requested as defined by the container spec.",
        ],
        &[],
        requests.get("memory"),
    );
    series.sum(
        [
            "k8s.container.memory.limit.desired",
            bytes,
            "Maximum memory resource limit as defined by the container spec.",
        ],
        &[],
        limits.get("memory"),
    );
}

fn state(series: &mut Series<'_>, status: &ContainerStatus, image_spec: &str) {
    let ContainerStatus { state, last_state, .. } = status;
    let info = [
        ("image_spec", image_spec),
        ("image", &status.image),
        ("image_id", &status.image_id),
        ("container_id", text(&status.container_id)),
    ];
    series.gauge("kube_pod_container_info", "A container of a pod.", &info, 1.0);
    let restarts = f64::from(status.restart_count);
    series.counter(
        "kube_pod_container_status_restarts_total",
        "How often a container was started anew.",
        &[],
        restarts,
    );
    let mut is = |name, help, value: bool| series.gauge(name, help, &[], truth(value));
    is("kube_pod_container_status_ready", "Whether a container passes its readiness probe.", status.ready);
    is("kube_pod_container_status_running", "Whether a container runs.", state.running.is_some());
    is("kube_pod_container_status_waiting", "Whether a container waits to run.", state.waiting.is_some());
    is("kube_pod_container_status_terminated", "Whether a container has ended.", state.terminated.is_some());
    let mut why = |name, help, reason: Option<&String>| {
        let reason = reason.map_or("", String::as_str);
        series.gauge(name, help, &[("reason", reason)], Some(1.0).filter(|_| !reason.is_empty()));
    };
    let waiting = state.waiting.as_ref().map(|waiting| &waiting.reason);
    let ended = state.terminated.as_ref().map(|end| &end.reason);
    let before = last_state.terminated.as_ref();
    why("kube_pod_container_status_waiting_reason", "Why a container waits.", waiting);
    why("kube_pod_container_status_terminated_reason", "Why a container has ended.", ended);
    why(
        "kube_pod_container_status_last_terminated_reason",
        "Why a container ended before it was started anew.",
        before.map(|end| &end.reason),
    );
    series.gauge(
        "kube_pod_container_status_last_terminated_exitcode",
        "With which code a container ended before it was started anew.",
        &[],
        before.map(|end| f64::from(end.exit_code)),
    );
    let started = state.running.as_ref().and_then(|running| running.started_at.as_ref());
    let started = started.or(state.terminated.as_ref().and_then(|end| end.started_at.as_ref()));
    series.gauge(
        "kube_pod_container_state_started",
        "When a container was started.",
        &[],
        started.map(seconds),
    );

    let current = match state {
        State { running: Some(_), .. } => "running",
        State { terminated: Some(_), .. } => "terminated",
        _ => "waiting",
    };
    for known in STATES {
        series.sum(
            ["k8s.container.status.state", "{container}", "Containers that are in a given state."],
            &[("k8s.container.status.state", known)],
            truth(known == current),
        );
    }
    for reason in [waiting, ended].into_iter().flatten().filter(|reason| !reason.is_empty()) {
        series.sum(
            [
                "k8s.container.status.reason",
                "{container}",
                "Containers that are in a state for a given reason.",
            ],
            &[("k8s.container.status.reason", reason)],
            1.0,
        );
    }
    series.sum(
        ["k8s.container.restart.count", "{restart}", "How often the container was started anew."],
        &[],
        restarts,
    );
    series.sum(
        ["k8s.container.ready", "{container}", "Whether the container is marked as ready."],
        &[],
        truth(status.ready),
    );
}
