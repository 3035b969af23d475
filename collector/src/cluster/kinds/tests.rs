//! Objects as the API server sends them, and what is told of each.

use super::super::report::Words;
use super::*;
use crate::telemetry::{Metric, Owner, Point, Value, Vocabulary};

/// `name{label=value,...} value`, of one vocabulary.
fn lines(metrics: &[Metric], vocabulary: Vocabulary) -> Vec<String> {
    let line = |metric: &Metric, point: &Point| {
        let Owner::Object(object) = &point.owner else { panic!("an object") };
        let common = object.labels.iter().filter(|_| vocabulary == Vocabulary::KubeState);
        let labels = common.chain(&point.attributes).filter(|(_, value)| !value.is_empty());
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        let Value::Number(value) = point.value else { panic!("a number") };
        format!("{}{{{}}} {value}", metric.name, labels.join(","))
    };
    let of = metrics.iter().filter(|metric| metric.vocabulary == vocabulary);
    let mut lines: Vec<String> =
        of.flat_map(|metric| metric.points.iter().map(move |point| line(metric, point))).collect();
    lines.sort();
    lines
}

fn told<K: Listed>(json: &str) -> Vec<Metric> {
    let mut object: K = serde_json::from_str(json).expect("an object");
    object.slim(&[Glob::parse("app*").expect("a glob")]);
    let mut report = Report::new(Words { kube_state: true, conventions: true });
    object.report(&mut report);
    report.finish()
}

/// All these lines are there, of whichever vocabulary.
#[track_caller]
fn check<K: Listed>(json: &str, expected: &[&str]) {
    let metrics = told::<K>(json);
    let mut found = lines(&metrics, Vocabulary::KubeState);
    found.extend(lines(&metrics, Vocabulary::Cluster));
    for line in expected {
        assert!(found.iter().any(|known| known == line), "no {line} in\n{}", found.join("\n"));
    }
}

const POD: &str = r#"{"metadata":{"name":"cart-7d9c-x2","namespace":"shop","uid":"12-34","creationTimestamp":"2024-01-01T00:00:00Z",
    "labels":{"app.kubernetes.io/name":"cart","secret":"s"},"managedFields":[{"manager":"kubelet"}],
    "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"cart-7d9c","uid":"9","controller":true}]},
    "spec":{"nodeName":"n1","restartPolicy":"Always","containers":[{"name":"web","image":"shop:1","resources":
    {"requests":{"cpu":"250m","memory":"1Gi"},"limits":{"nvidia.com/gpu":"1"}}}]},
    "status":{"phase":"Running","podIP":"10.0.0.9","hostIP":"192.0.2.1","startTime":"2024-01-01T00:00:01Z",
    "conditions":[{"type":"Ready","status":"False"},{"type":"PodScheduled","status":"True"}],
    "containerStatuses":[{"name":"web","containerID":"containerd://aa","image":"shop:1","imageID":"shop@sha256:00",
    "ready":false,"restartCount":2,"state":{"waiting":{"reason":"CrashLoopBackOff"}},
    "lastState":{"terminated":{"containerID":"containerd://bb","reason":"OOMKilled","exitCode":137}}}]}}"#;

#[test]
fn a_pod() {
    check::<Pod>(
        POD,
        &[
            "kube_pod_info{namespace=shop,pod=cart-7d9c-x2,uid=12-34,host_ip=192.0.2.1,pod_ip=10.0.0.9,node=n1,\
             created_by_kind=ReplicaSet,created_by_name=cart-7d9c,host_network=false} 1",
            "kube_pod_owner{namespace=shop,pod=cart-7d9c-x2,uid=12-34,owner_kind=ReplicaSet,owner_name=cart-7d9c,owner_is_controller=true} 1",
            "kube_pod_labels{namespace=shop,pod=cart-7d9c-x2,uid=12-34,label_app_kubernetes_io_name=cart} 1",
            "kube_pod_status_phase{namespace=shop,pod=cart-7d9c-x2,uid=12-34,phase=Running} 1",
            "kube_pod_status_phase{namespace=shop,pod=cart-7d9c-x2,uid=12-34,phase=Pending} 0",
            "kube_pod_status_ready{namespace=shop,pod=cart-7d9c-x2,uid=12-34,condition=true} 0",
            "kube_pod_status_ready{namespace=shop,pod=cart-7d9c-x2,uid=12-34,condition=false} 1",
            "kube_pod_status_ready{namespace=shop,pod=cart-7d9c-x2,uid=12-34,condition=unknown} 0",
            "kube_pod_created{namespace=shop,pod=cart-7d9c-x2,uid=12-34} 1704067200",
            "kube_pod_start_time{namespace=shop,pod=cart-7d9c-x2,uid=12-34} 1704067201",
            "k8s.pod.status.phase{k8s.pod.status.phase=Running} 1",
        ],
    );
}

#[test]
fn its_containers() {
    check::<Pod>(
        POD,
        &[
            "kube_pod_container_info{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web,image_spec=shop:1,image=shop:1,\
             image_id=shop@sha256:00,container_id=containerd://aa} 1",
            "kube_pod_container_resource_requests{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web,node=n1,resource=cpu,unit=core} 0.25",
            "kube_pod_container_resource_requests{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web,node=n1,resource=memory,unit=byte} 1073741824",
            "kube_pod_container_resource_limits{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web,node=n1,resource=nvidia_com_gpu,unit=integer} 1",
            "kube_pod_container_status_ready{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web} 0",
            "kube_pod_container_status_running{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web} 0",
            "kube_pod_container_status_waiting{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web} 1",
            "kube_pod_container_status_waiting_reason{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web,reason=CrashLoopBackOff} 1",
            "kube_pod_container_status_last_terminated_reason{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web,reason=OOMKilled} 1",
            "kube_pod_container_status_last_terminated_exitcode{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web} 137",
            "kube_pod_container_status_restarts_total{namespace=shop,pod=cart-7d9c-x2,uid=12-34,container=web} 2",
            "k8s.container.cpu.request.desired{} 0.25",
            "k8s.container.restart.count{} 2",
            "k8s.container.status.state{k8s.container.status.state=waiting} 1",
            "k8s.container.status.reason{k8s.container.status.reason=CrashLoopBackOff} 1",
        ],
    );
}

/// Series do not depend on who tells them: counters begin with the object, and nothing of a host is in the resource.
#[test]
fn the_same_from_every_leader() {
    let metrics = told::<Pod>(POD);
    let restarts = metrics.iter().find(|metric| metric.name == "kube_pod_container_status_restarts_total");
    assert_eq!(restarts.expect("a counter").points[0].start_unix_ns, 1_704_067_200_000_000_000);
    let count = metrics.iter().find(|metric| metric.name == "k8s.container.restart.count").expect("a sum");
    let Owner::Object(object) = &count.points[0].owner else { panic!("an object") };
    let resource: Vec<(&str, &str)> =
        object.attributes.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
    let expected = [
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "cart-7d9c-x2"),
        ("k8s.pod.uid", "12-34"),
        ("k8s.node.name", "n1"),
        ("k8s.container.name", "web"),
    ];
    assert_eq!(resource, expected);
}

#[test]
fn a_node() {
    check::<Node>(
        r#"{"metadata":{"name":"n1","labels":{"node-role.kubernetes.io/control-plane":""}},
            "spec":{"podCIDR":"10.1.0.0/24","unschedulable":true,"taints":[{"key":"a","effect":"NoSchedule"}]},
            "status":{"capacity":{"cpu":"4","pods":"110"},"allocatable":{"memory":"8Gi","ephemeral-storage":"1k"},
            "conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"192.0.2.1"}],
            "nodeInfo":{"kernelVersion":"6.1","kubeletVersion":"v1.33"}}}"#,
        &[
            "kube_node_info{node=n1,kernel_version=6.1,kubelet_version=v1.33,pod_cidr=10.1.0.0/24,internal_ip=192.0.2.1} 1",
            "kube_node_role{node=n1,role=control-plane} 1",
            "kube_node_spec_unschedulable{node=n1} 1",
            "kube_node_spec_taint{node=n1,key=a,effect=NoSchedule} 1",
            "kube_node_status_condition{node=n1,condition=Ready,status=true} 1",
            "kube_node_status_condition{node=n1,condition=Ready,status=unknown} 0",
            "kube_node_status_capacity{node=n1,resource=cpu,unit=core} 4",
            "kube_node_status_capacity{node=n1,resource=pods,unit=integer} 110",
            "kube_node_status_allocatable{node=n1,resource=ephemeral_storage,unit=byte} 1000",
            "k8s.node.condition.status{k8s.node.condition.type=Ready,k8s.node.condition.status=true} 1",
            "k8s.node.memory.allocatable{} 8589934592",
        ],
    );
}

#[test]
fn workloads() {
    check::<Deployment>(
        r#"{"metadata":{"name":"cart","namespace":"shop","generation":3},"spec":{"replicas":2},"status":{"replicas":2,
            "availableReplicas":1,"unavailableReplicas":1,"observedGeneration":2,
            "conditions":[{"type":"Available","status":"False","reason":"MinimumReplicasUnavailable"}]}}"#,
        &[
            "kube_deployment_spec_replicas{namespace=shop,deployment=cart} 2",
            "kube_deployment_status_replicas_available{namespace=shop,deployment=cart} 1",
            "kube_deployment_status_observed_generation{namespace=shop,deployment=cart} 2",
            "kube_deployment_metadata_generation{namespace=shop,deployment=cart} 3",
            "kube_deployment_status_condition{namespace=shop,deployment=cart,reason=MinimumReplicasUnavailable,condition=Available,status=false} 1",
            "k8s.deployment.pod.desired{} 2",
            "k8s.deployment.pod.available{} 1",
        ],
    );
    check::<ReplicaSet>(
        r#"{"metadata":{"name":"cart-7d9c","namespace":"shop"},"spec":{"replicas":2},"status":{"replicas":2}}"#,
        &["kube_replicaset_owner{namespace=shop,replicaset=cart-7d9c} 1", "k8s.replicaset.pod.available{} 0"],
    );
    check::<StatefulSet>(
        r#"{"metadata":{"name":"db","namespace":"shop"},"spec":{"replicas":3},"status":{"replicas":3,"readyReplicas":2,
            "currentRevision":"a","updateRevision":"b"}}"#,
        &[
            "kube_statefulset_replicas{namespace=shop,statefulset=db} 3",
            "kube_statefulset_status_replicas_ready{namespace=shop,statefulset=db} 2",
            "kube_statefulset_status_update_revision{namespace=shop,statefulset=db,revision=b} 1",
            "k8s.statefulset.pod.ready{} 2",
        ],
    );
    check::<DaemonSet>(
        r#"{"metadata":{"name":"log","namespace":"shop"},"status":{"desiredNumberScheduled":5,"numberReady":4}}"#,
        &[
            "kube_daemonset_status_desired_number_scheduled{namespace=shop,daemonset=log} 5",
            "k8s.daemonset.node.ready{} 4",
        ],
    );
    check::<Autoscaler>(
        r#"{"metadata":{"name":"cart","namespace":"shop"},"spec":{"maxReplicas":9,"scaleTargetRef":{"kind":"Deployment","name":"cart"}},
            "status":{"currentReplicas":2,"desiredReplicas":3,"currentMetrics":null}}"#,
        &[
            "kube_horizontalpodautoscaler_info{namespace=shop,horizontalpodautoscaler=cart,scaletargetref_kind=Deployment,scaletargetref_name=cart} 1",
            "kube_horizontalpodautoscaler_spec_min_replicas{namespace=shop,horizontalpodautoscaler=cart} 1",
            "k8s.hpa.pod.desired{} 3",
        ],
    );
}

#[test]
fn jobs() {
    check::<Job>(
        r#"{"metadata":{"name":"mail","namespace":"shop","ownerReferences":[{"apiVersion":"batch/v1","kind":"CronJob","name":"m","uid":"1"}]},
            "spec":{"completions":1},"status":{"failed":2,"startTime":"2024-01-01T00:00:00Z",
            "conditions":[{"type":"Failed","status":"True","reason":"BackoffLimitExceeded"}]}}"#,
        &[
            "kube_job_owner{namespace=shop,job_name=mail,owner_kind=CronJob,owner_name=m,owner_is_controller=false} 1",
            "kube_job_failed{namespace=shop,job_name=mail,condition=true} 1",
            "kube_job_status_failed{namespace=shop,job_name=mail,reason=BackoffLimitExceeded} 1",
            "kube_job_status_start_time{namespace=shop,job_name=mail} 1704067200",
            "k8s.job.pod.failed{} 2",
        ],
    );
    check::<Job>(
        r#"{"metadata":{"name":"mail","namespace":"shop"},"status":{"failed":2}}"#,
        &["kube_job_status_failed{namespace=shop,job_name=mail} 2"],
    );
    check::<CronJob>(
        r#"{"metadata":{"name":"mail","namespace":"shop"},"spec":{"schedule":"@daily"},"status":{"active":[{"name":"x"}]}}"#,
        &[
            "kube_cronjob_info{namespace=shop,cronjob=mail,schedule=@daily} 1",
            "kube_cronjob_status_active{namespace=shop,cronjob=mail} 1",
            "k8s.cronjob.job.active{} 1",
        ],
    );
}

#[test]
fn the_rest() {
    check::<Namespace>(
        r#"{"metadata":{"name":"shop"},"status":{"phase":"Active"}}"#,
        &[
            "kube_namespace_status_phase{namespace=shop,phase=Active} 1",
            "k8s.namespace.phase{k8s.namespace.phase=active} 1",
        ],
    );
    check::<Claim>(
        r#"{"metadata":{"name":"d","namespace":"shop"},"spec":{"accessModes":["ReadWriteOnce"],"volumeName":"v","resources":
            {"requests":{"storage":"1Gi"}}},"status":{"phase":"Bound"}}"#,
        &[
            "kube_persistentvolumeclaim_info{namespace=shop,persistentvolumeclaim=d,volumename=v} 1",
            "kube_persistentvolumeclaim_status_phase{namespace=shop,persistentvolumeclaim=d,phase=Bound} 1",
            "kube_persistentvolumeclaim_access_mode{namespace=shop,persistentvolumeclaim=d,access_mode=ReadWriteOnce} 1",
            "kube_persistentvolumeclaim_resource_requests_storage_bytes{namespace=shop,persistentvolumeclaim=d} 1073741824",
        ],
    );
    check::<Quota>(
        r#"{"metadata":{"name":"q","namespace":"shop"},"status":{"hard":{"requests.cpu":"2"},"used":{"requests.cpu":"500m"}}}"#,
        &["kube_resourcequota{namespace=shop,resourcequota=q,resource=requests.cpu,type=used} 0.5"],
    );
}

/// Whatever a server leaves out, no object costs its kind.
#[test]
fn empty_objects() {
    told::<Pod>("{}");
    told::<Node>("{}");
    told::<Namespace>("{}");
    told::<Deployment>("{}");
    told::<ReplicaSet>("{}");
    told::<StatefulSet>("{}");
    told::<DaemonSet>("{}");
    told::<Job>("{}");
    told::<CronJob>("{}");
    told::<Autoscaler>("{}");
    told::<Claim>("{}");
    told::<Quota>("{}");
    check::<Pod>(r#"{"metadata":{"creationTimestamp":null},"spec":{},"status":{}}"#, &[]);
}

#[test]
fn kinds_are_in_their_order() {
    for (position, kind) in KINDS.into_iter().enumerate() {
        assert_eq!(kind as usize, position);
    }
}

#[test]
fn a_pod_is_held_without_room_to_spare() {
    let json = r#"{"metadata":{"name":"a","ownerReferences":[
        {"apiVersion":"apps/v1","kind":"ReplicaSet","name":"b","uid":"12","controller":true,"blockOwnerDeletion":true}]},
        "spec":{"containers":[{"name":"c"}]},"status":{"containerStatuses":[{"name":"c"}]}}"#;
    let mut pod: Pod = serde_json::from_str(json).expect("a pod");
    let room = |pod: &Pod| (pod.spec.containers.capacity(), pod.status.container_statuses.capacity());
    assert_ne!(room(&pod), (1, 1));
    pod.slim(&[]);
    assert_eq!(room(&pod), (1, 1));
    let owners = pod.metadata.owner_references.expect("one");
    let [owner] = &owners[..] else { panic!("{owners:?}") };
    assert_eq!(
        (owners.capacity(), &*owner.kind, &*owner.name, owner.controller),
        (1, "ReplicaSet", "b", Some(true))
    );
    assert!(owner.uid.is_empty() && owner.api_version.is_empty() && owner.block_owner_deletion.is_none());
}
