//! Collections over pretended trees, and one over this machine.

use std::path::Path;

use super::*;
use crate::identity::{Choice, Container, Facts, LatePod, Pod};
use crate::telemetry::{Owner, Text, Value, Vocabulary};

fn write(place: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = place.join(path);
        std::fs::create_dir_all(path.parent().expect("below")).expect("writable");
        std::fs::write(path, text).expect("writable");
    }
}

fn classify(path: &str) -> Option<CgroupKey> {
    let name = path.rsplit('/').next()?;
    match (path, name.as_bytes().first()) {
        ("/", _) => Some(CgroupKey::Root),
        (_, Some(b'c')) => Some(CgroupKey::Container(name.into())),
        (_, Some(b'p')) => Some(CgroupKey::PodLevel(name.into())),
        _ if name.ends_with(".service") => Some(CgroupKey::Unit(name.into())),
        _ => None,
    }
}

fn subject(_: &str, key: &CgroupKey) -> Option<Arc<Subject>> {
    let (container, unit) = match key {
        CgroupKey::Root => return None,
        CgroupKey::PodLevel(_) => (None, None),
        CgroupKey::Container(id) => (Some(Container { id: id.to_string(), runtime: None }), None),
        CgroupKey::Unit(name) => (None, Some(name.to_string())),
    };
    // The first container of a pod is its sandbox, which has no name.
    let name = container.as_ref().filter(|container| container.id != "c0").map_or("", |_| "main");
    let pod = Pod::of(&Facts::of_pod("shop", "cart-1", "u", name), &Choice::default());
    let pod = if unit.is_none() { LatePod::known(pod) } else { LatePod::default() };
    Some(Arc::new(Subject { container, unit, pod, revision: 1, ..Subject::named("cart") }))
}

/// The series of a metric: labels and attributes as text, start, value.
fn series(metrics: &[Metric], name: &str) -> Vec<(String, u64, f64)> {
    let points = metrics.iter().filter(|metric| metric.name == name).flat_map(|metric| &metric.points);
    let text = |point: &crate::telemetry::Point| {
        let labels: &[(Text, Text)] = match &point.owner {
            Owner::Cgroup(cgroup) => &cgroup.labels,
            _ => &[],
        };
        let all = labels.iter().chain(&point.attributes);
        all.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    };
    points
        .map(|point| match &point.value {
            Value::Number(value) => (text(point), point.start_unix_ns, *value),
            other => panic!("no number: {other:?}"),
        })
        .collect()
}

fn tree(place: &Path) -> ContainerResources {
    write(
        place,
        &[
            ("cgroup.controllers", "cpu memory pids io\n"),
            ("cpu.stat", "usage_usec 9000000\n"),
            ("pod/cpu.stat", "usage_usec 5000000\n"),
            ("pod/c0/cpu.stat", "usage_usec 1000000\n"),
            ("pod/c1/cpu.stat", "usage_usec 4000000\nuser_usec 3000000\nsystem_usec 1000000\n"),
            ("pod/c1/memory.current", "1000\n"),
            ("pod/c1/memory.max", "max\n"),
            ("pod/c1/io.stat", "4000:7 rbytes=5 wbytes=6 rios=1 wios=2\n"),
            ("pod/c1/init/cpu.stat", "usage_usec 4000000\n"),
            ("system.slice/x.service/cpu.stat", "usage_usec 2000000\n"),
        ],
    );
    let hierarchies = Hierarchies::at(&[], Some(place)).expect("there");
    ContainerResources::new(hierarchies, Options::default(), classify)
}

const LATER: u64 = 4_000_000_000_000_000_000;

#[test]
fn names_and_labels() {
    let place = tempfile::tempdir().expect("a directory");
    let metrics = tree(place.path()).collect(LATER, true, subject);
    let labels: Vec<(String, f64)> = series(&metrics, "container_cpu_usage_seconds_total")
        .into_iter()
        .map(|(labels, _, value)| (labels, value))
        .collect();
    let pod = "namespace=shop,pod=cart-1,cpu=total";
    let expected = [
        ("id=/,cpu=total".to_owned(), 9.0),
        (format!("id=/pod,{pod}"), 5.0),
        (format!("id=/pod/c0,name=c0,{pod}"), 1.0),
        (format!("container=main,id=/pod/c1,name=c1,{pod}"), 4.0),
        ("id=/system.slice/x.service,cpu=total".to_owned(), 2.0),
    ];
    assert_eq!(labels, expected);
    let times = series(&metrics, "container.cpu.time");
    let times: Vec<(&str, f64)> = times.iter().map(|(labels, _, value)| (labels.as_str(), *value)).collect();
    assert_eq!(times, [("", 1.0), ("cpu.mode=user", 3.0), ("cpu.mode=system", 1.0), ("", 2.0)]);
    let limits = series(&metrics, "container_spec_memory_limit_bytes");
    assert_eq!(limits.last().map(|(_, _, value)| *value), Some(0.0), "unlimited, as cAdvisor shows it");
    let reads = series(&metrics, "container_fs_reads_bytes_total");
    assert!(reads[0].0.ends_with("pod=cart-1,device=/dev/4000:7"), "{reads:?}");
    assert_eq!(series(&metrics, "container.disk.io").len(), 2);
    assert_eq!(series(&metrics, "machine_memory_bytes").len(), 1);
    let mut names: Vec<_> = metrics.iter().map(|metric| (metric.name.clone(), metric.vocabulary)).collect();
    names.sort_by_key(|(name, _)| name.clone());
    assert!(names.windows(2).all(|two| two[0] != two[1]), "no two of the same name");
    for metric in metrics.iter().filter(|metric| metric.vocabulary == Vocabulary::OpenTelemetry) {
        assert!(
            metric.points.iter().all(|point| matches!(point.owner, Owner::Subject(_))),
            "{}",
            metric.name
        );
    }
}

#[test]
fn resets_and_ends() {
    let place = tempfile::tempdir().expect("a directory");
    let mut all = tree(place.path());
    let start = |metrics: &[Metric]| series(metrics, "container_cpu_usage_seconds_total")[3].1;
    let first = all.collect(LATER, true, subject);
    assert!(start(&first) > 0 && start(&first) <= LATER);
    assert!(series(&first, "container.cpu.usage").is_empty(), "no reading before");
    write(place.path(), &[("pod/c1/cpu.stat", "usage_usec 6000000\n")]);
    let second = all.collect(LATER + 1_000_000_000, true, subject);
    assert_eq!(start(&second), start(&first));
    assert_eq!(series(&second, "container.cpu.usage")[1].2, 2.0);
    write(place.path(), &[("pod/c1/cpu.stat", "usage_usec 1000000\n")]);
    let third = all.collect(LATER + 2_000_000_000, true, subject);
    assert_eq!(start(&third), LATER + 1_000_000_000, "since the reading before");
    // A number that vanished is absent, the others stay.
    std::fs::remove_file(place.path().join("pod/c1/cpu.stat")).expect("there");
    let fourth = all.collect(LATER + 3_000_000_000, true, subject);
    assert_eq!(series(&fourth, "container_cpu_usage_seconds_total").len(), 4);
    assert_eq!(series(&fourth, "container.memory.usage").len(), 1);
    std::fs::remove_dir_all(place.path().join("pod/c1")).expect("there");
    let fifth = all.collect(LATER + 4_000_000_000, true, subject);
    assert!(series(&fifth, "container.memory.usage").is_empty());
    assert_eq!(all.entries.len(), 4);
}

#[test]
fn this_machine_equals_its_files() {
    let hierarchies = Hierarchies::find().expect("some hierarchy");
    let memory = hierarchies.all().iter().find(|one| one.has_memory && one.version == hierarchy::Version::V1);
    let limit =
        memory.and_then(|one| std::fs::read_to_string(one.mount.join("memory.max_usage_in_bytes")).ok());
    let mut all = ContainerResources::new(hierarchies, Options::default(), |path| {
        (path == "/").then_some(CgroupKey::Root)
    });
    let metrics = all.collect(LATER, true, subject);
    let used = series(&metrics, "container_cpu_usage_seconds_total");
    assert!(used.len() == 1 && used[0].2 > 0.0);
    if let Some(peak) = limit.and_then(|text| text.trim().parse::<f64>().ok()) {
        let found = series(&metrics, "container_memory_max_usage_bytes")[0].2;
        assert!(found >= peak && found < peak * 1.2 + 1e8, "{found} {peak}");
    }
}
