//! Services' names and attributes by what the sources said, as data.

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn facts(name: &str, owner: Option<(&str, &str)>, labels: &[(&str, &str)]) -> Facts {
    Facts {
        owner: owner.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
        labels: map(labels),
        has_metadata: true,
        ..Facts::of_pod("shop", name, "12-34", "web")
    }
}

#[test]
fn the_first_name_that_is_there() {
    let check = |facts: &Facts, expected: &str| {
        let pod = Pod::of(facts, &Choice::default());
        assert_eq!(pod.service_name.as_deref(), Some(expected), "{facts:?}");
    };
    const HASH: (&str, &str) = ("pod-template-hash", "7d9c");
    check(&Facts::of_pod("shop", "cart-7d9c-x2", "12", "web"), "web");
    check(&facts("solo", None, &[]), "solo");
    check(&facts("cart-7d9c-x2", Some(("ReplicaSet", "cart-7d9c")), &[HASH]), "cart");
    check(&facts("cart-7d9c-x2", Some(("ReplicaSet", "cart-7d9c")), &[]), "cart-7d9c");
    check(&facts("cart-7d9c-x2", None, &[HASH]), "cart");
    check(&facts("cart-8888-x2", None, &[HASH]), "cart-8888-x2");
    check(&facts("db-0", None, &[("statefulset.kubernetes.io/pod-name", "db-0")]), "db");
    check(&facts("log-x2y3z", None, &[("pod-template-generation", "1")]), "log");
    check(&facts("tidy-28900000-abcde", Some(("Job", "tidy-28900000")), &[]), "tidy");
    check(&facts("once-abcde", Some(("Job", "once")), &[]), "once");
    check(&facts("once-abcde", None, &[("job-name", "once")]), "once");
    check(&facts("kube-proxy-node-1", Some(("Node", "node-1")), &[]), "kube-proxy-node-1");
    let labels = [HASH, ("app.kubernetes.io/name", "cart"), ("app.kubernetes.io/instance", "cart-eu")];
    check(&facts("cart-7d9c-x2", None, &labels), "cart-eu");
    check(&facts("cart-7d9c-x2", None, &labels[..2]), "cart");
    let annotated = Facts {
        annotations: map(&[("resource.opentelemetry.io/service.name", "basket")]),
        ..facts("cart-7d9c-x2", None, &labels)
    };
    check(&annotated, "basket");
}

#[test]
fn attributes_by_choice() {
    let facts = Facts {
        image: Some("shop:1".to_owned()),
        image_id: Some("sha256:00".to_owned()),
        restart_count: Some(3),
        annotations: map(&[
            ("resource.opentelemetry.io/team", "red"),
            ("secret/token", "x"),
            ("note/a", "b"),
        ]),
        ..facts(
            "cart-7d9c-x2",
            Some(("ReplicaSet", "cart-7d9c")),
            &[("pod-template-hash", "7d9c"), ("tier", "front")],
        )
    };
    let choice = Choice {
        labels: vec![Glob::parse("tier").expect("valid")],
        annotations: vec![Glob::parse("note/*").expect("valid")],
        ..Choice::default()
    };
    let pod = Pod::of(&facts, &choice);
    let pairs: Vec<(&str, &str)> =
        pod.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "cart-7d9c-x2"),
            ("k8s.pod.uid", "12-34"),
            ("k8s.container.name", "web"),
            ("k8s.replicaset.name", "cart-7d9c"),
            ("k8s.deployment.name", "cart"),
            ("container.image.name", "shop:1"),
            ("container.image.id", "sha256:00"),
            ("k8s.container.restart_count", "3"),
            ("service.namespace", "shop"),
            ("service.instance.id", "shop.cart-7d9c-x2.web"),
            ("team", "red"),
            ("k8s.pod.label.tier", "front"),
            ("k8s.pod.annotation.note/a", "b"),
        ]
    );
}

#[test]
fn hostile_labels_are_bounded() {
    let many: BTreeMap<String, String> =
        (0..10_000).map(|number| (format!("l{number}"), "ü".repeat(1_000))).collect();
    let facts = Facts { labels: many, ..facts("solo", None, &[]) };
    let choice = Choice { labels: vec![Glob::parse("*").expect("valid")], ..Choice::default() };
    let pod = Pod::of(&facts, &choice);
    assert!(pod.attributes.len() <= CHOSEN_MAX + 16);
    assert!(pod.attributes.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX));
}

#[test]
fn a_dump_by_annotation() {
    let check = |annotations: &[(&str, &str)], expected: Option<&str>| {
        let facts = Facts { annotations: map(annotations), ..facts("solo", None, &[]) };
        assert_eq!(Pod::of(&facts, &Choice::default()).dump.as_deref(), expected, "{annotations:?}");
    };
    check(&[], None);
    check(&[("kansoku.io/dump", "minidump")], Some("minidump"));
    check(&[("kansoku.io/dump", "core"), ("kansoku.io/dump.web", "none")], Some("none"));
    check(&[("kansoku.io/dump.other", "core")], None);
}

#[test]
fn sources_complete_each_other() {
    let mut facts = Facts::of_pod("shop", "cart-1", "12", "web");
    facts.add(Facts {
        image: Some("shop:1".to_owned()),
        restart_count: Some(2),
        ..Facts::of_pod("x", "y", "z", "w")
    });
    facts.add(Facts {
        image: Some("other".to_owned()),
        labels: map(&[("a", "b")]),
        has_metadata: true,
        ..Facts::default()
    });
    facts.add(Facts { labels: map(&[("c", "d")]), has_metadata: true, ..Facts::default() });
    assert_eq!(
        (facts.name.as_str(), facts.restart_count, facts.image.as_deref()),
        ("cart-1", Some(2), Some("shop:1"))
    );
    assert_eq!(facts.labels, map(&[("a", "b")]));
}
