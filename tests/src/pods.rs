//! Pods as the API server has them, and the agent that is to know them.
//!
//! Refuses: a runtime; `cri` has a real one.

use std::path::Path;

use serde_json::{Value, json};

use crate::agent::{Agent, Finished, STOP_MAX};
use crate::api_server::NODE;
use crate::cgroup::Cgroup;
use crate::cri::IMAGE;
use crate::receiver::Receiver;
use crate::workload::{Program, Running, utf8};

/// A pod's uid, unlike those of other tests.
pub fn uid(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-00000000c0de")
}

/// A pod as the API server has it, owned by a Deployment's ReplicaSet.
pub fn api_pod(namespace: &str, deployment: &str, suffix: &str, uid: &str) -> Value {
    json!({
        "metadata": {
            "namespace": namespace,
            "name": format!("{deployment}-7d9c5-{suffix}"),
            "uid": uid,
            "labels": {"pod-template-hash": "7d9c5", "tier": deployment},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-7d9c5"),
                "uid": "0", "controller": true,
            }],
        },
        "spec": {"nodeName": NODE},
        "status": {},
    })
}

/// The agent with a backend and short intervals.
pub fn start(directory: &Path, receiver: &Receiver, settings: &[&str]) -> Agent {
    start_on(NODE, directory, receiver, settings)
}

/// Likewise, on a node of another name.
pub fn start_on(node: &str, directory: &Path, receiver: &Receiver, settings: &[&str]) -> Agent {
    let cache = format!("kubernetes.cache={}", utf8(&directory.join("names.json")));
    let spool = format!("crash.spool={}", utf8(&directory.join("crashes")));
    let node = format!("kubernetes.node_name={node}");
    let own = [
        &cache,
        &spool,
        &node,
        "profile.window_ms=1000",
        "metrics.interval_ms=1000",
        "prometheus.listen=none",
    ];
    let settings: Vec<&str> = own.iter().copied().chain(settings.iter().copied()).collect();
    let arguments: Vec<&str> = settings.into_iter().flat_map(|setting| ["--set", setting]).collect();
    let [endpoint, wire] = receiver.variables();
    Agent::run(&arguments, &[(&endpoint.0, &endpoint.1), (&wire.0, &wire.1)])
}

/// Stops it; its books must balance.
pub fn stop(agent: Agent) -> Finished {
    agent.terminate();
    let finished = agent.finish(STOP_MAX).expect_code(0);
    finished.books().expect_balance();
    finished
}

/// The id of a container that no runtime knows.
pub fn container_of(number: u32) -> String {
    format!("{number:064x}")
}

/// A pod that only the API server knows, as where the runtime's socket cannot be reached, with a container `c`.
pub fn with_container(mut pod: Value, id: &str) -> Value {
    pod["status"] = json!({"containerStatuses": [{
        "name": "c", "containerID": format!("containerd://{id}"), "image": IMAGE, "restartCount": 4,
    }]});
    pod
}

/// Runs a program in a pod's cgroup for some seconds. The cgroup goes after the program: it is busy as long as that runs.
pub fn spin_in(program: &Program, uid: &str, id: &str, seconds: u32) -> (Running, Cgroup) {
    let cgroup = Cgroup::make(&format!("kubepods/besteffort/pod{uid}/{id}"));
    (cgroup.start(program, &[&seconds.to_string()]), cgroup)
}
