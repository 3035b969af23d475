//! The labels of a series: whose it is, then its attributes.
//!
//! A name is made legal once, and an owner's labels are written once, however many series carry them. Refuses: two
//! series with the same labels in one family; labels without a value, which Prometheus takes for absent, but for those of
//! kube-state-metrics: there they keep a scraper from putting the target's own in their place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use fnv::FnvHashMap;

use super::{names, numbers};
use crate::identity::Subject;
use crate::telemetry::{ClusterObject, LabelledCgroup, Owner, Point, Text, Vocabulary};

/// The labels that say whose a series is. An attribute by one of these names becomes `exported_...` on every series
/// of a subject, as Prometheus itself does with a target's labels.
pub const OWNER_LABELS: [&str; 7] =
    ["namespace", "pod", "container", "image", "container_id", "service_name", "unit"];
/// The label of a histogram's buckets. An attribute by this name becomes `exported_le`.
pub const BUCKET_LABEL: &str = "le";
/// Attributes of one series that are read; those behind are left out.
const ATTRIBUTES_MAX: usize = 64;

/// Reads labels within one encoding of one snapshot.
pub struct Labels<'a> {
    names: Names<'a>,
    owners: FnvHashMap<usize, OwnerLabels<'a>>,
    nobody: OwnerLabels<'a>,
    attributes: Vec<Label<'a>>,
    seen: FnvHashMap<u64, (&'a Point, Vocabulary)>,
    hasher: RandomState,
}

/// The labels of one series.
pub struct SeriesLabels<'l, 'a> {
    names: &'l Names<'a>,
    owner: &'l OwnerLabels<'a>,
    attributes: &'l [Label<'a>],
}

#[derive(Clone, PartialEq)]
struct Label<'a> {
    name: u32,
    key: &'a str,
    value: Cow<'a, str>,
}

#[derive(Default)]
struct OwnerLabels<'a> {
    labels: Vec<(u32, &'a str)>,
    text: String,
    hash: u64,
}

impl<'a> Labels<'a> {
    /// For one encoding.
    pub fn new() -> Self {
        Self {
            names: Names::new(),
            owners: FnvHashMap::default(),
            nobody: OwnerLabels::default(),
            attributes: Vec::new(),
            seen: FnvHashMap::default(),
            hasher: RandomState::new(),
        }
    }

    /// From here on another family's series are read.
    pub fn start_family(&mut self) {
        self.seen.clear();
    }

    /// The labels of `point`; nothing if the family has a series with the same.
    pub fn read(&mut self, point: &'a Point, vocabulary: Vocabulary) -> Option<SeriesLabels<'_, 'a>> {
        let mut hash = self.fill(point, vocabulary);
        while let Some((earlier, known)) = self.seen.get(&hash).copied() {
            let mine = self.sorted(point, vocabulary);
            if mine == self.sorted(earlier, known) {
                return None;
            }
            self.fill(point, vocabulary);
            hash = hash.wrapping_add(1);
        }
        self.seen.insert(hash, (point, vocabulary));
        let owner = whom(point, vocabulary).and_then(|whom| self.owners.get(&whom.address()));
        let owner = owner.unwrap_or(&self.nobody);
        Some(SeriesLabels { names: &self.names, owner, attributes: &self.attributes })
    }

    /// The labels of `attributes` alone.
    pub fn of_attributes(&mut self, attributes: &'a [(Text, Text)]) -> SeriesLabels<'_, 'a> {
        self.fill_attributes(attributes, false, false);
        SeriesLabels { names: &self.names, owner: &self.nobody, attributes: &self.attributes }
    }

    /// Reads the labels of `point`, and returns a hash of them whatever their order.
    fn fill(&mut self, point: &'a Point, vocabulary: Vocabulary) -> u64 {
        let whom = whom(point, vocabulary);
        let is_subject = matches!(whom, Some(Whom::Subject(_)));
        self.fill_attributes(&point.attributes, is_subject, vocabulary == Vocabulary::KubeState);
        let mut hash = whom.map_or(0, |whom| self.owner_hash(whom));
        for label in &self.attributes {
            hash = hash.wrapping_add(self.hasher.hash_one((label.name, &*label.value)));
        }
        hash
    }

    fn fill_attributes(&mut self, attributes: &'a [(Text, Text)], is_subject: bool, keeps_empty: bool) {
        self.attributes.clear();
        let mut is_doubled = false;
        for (position, (key, value)) in attributes.iter().take(ATTRIBUTES_MAX).enumerate() {
            if value.is_empty() && !keeps_empty {
                continue;
            }
            let name = self.names.name(position, key, is_subject);
            is_doubled |= self.attributes.iter().any(|label| label.name == name);
            self.attributes.push(Label { name, key, value: Cow::Borrowed(&**value) });
        }
        if is_doubled {
            // The specification: values of names that become one are joined by `;`, in the order of the keys.
            self.attributes.sort_by(|one, other| (one.name, one.key).cmp(&(other.name, other.key)));
            self.attributes.dedup_by(|next, kept| {
                let is_same = next.name == kept.name;
                if is_same {
                    kept.value = Cow::Owned(format!("{};{}", kept.value, next.value));
                }
                is_same
            });
        }
    }

    fn owner_hash(&mut self, whom: Whom<'a>) -> u64 {
        let (names, hasher) = (&mut self.names, &self.hasher);
        self.owners.entry(whom.address()).or_insert_with(|| OwnerLabels::of(whom, names, hasher)).hash
    }

    fn sorted(&mut self, point: &'a Point, vocabulary: Vocabulary) -> Vec<(u32, Cow<'a, str>)> {
        self.fill(point, vocabulary);
        let owner = whom(point, vocabulary).and_then(|whom| self.owners.get(&whom.address()));
        let owner = owner.into_iter().flat_map(|owner| &owner.labels);
        let mut all: Vec<_> = owner.map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        all.extend(self.attributes.iter().map(|label| (label.name, label.value.clone())));
        all.sort();
        all
    }
}

impl SeriesLabels<'_, '_> {
    /// Names and values, in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let owner = self.owner.labels.iter().map(|(name, value)| (self.names.text(*name), *value));
        owner.chain(self.attributes.iter().map(|label| (self.names.text(label.name), &*label.value)))
    }

    /// Adds `name="value",` for each label.
    pub fn write(&self, out: &mut String) {
        out.push_str(&self.owner.text);
        for label in self.attributes {
            write_pair(out, self.names.text(label.name), &label.value);
        }
    }
}

/// Adds `name="value",`.
pub fn write_pair(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    numbers::label_value(out, value);
    out.push_str("\",");
}

/// Whom the labels name.
#[derive(Clone, Copy)]
enum Whom<'a> {
    Subject(&'a Subject),
    Object(&'a ClusterObject),
    Cgroup(&'a LabelledCgroup),
}

/// Metrics of node_exporter carry all they have in their attributes.
fn whom(point: &Point, vocabulary: Vocabulary) -> Option<Whom<'_>> {
    match (&point.owner, vocabulary) {
        (Owner::Subject(subject), Vocabulary::OpenTelemetry) => Some(Whom::Subject(subject)),
        (Owner::Object(object), Vocabulary::KubeState) => Some(Whom::Object(object)),
        (Owner::Cgroup(cgroup), Vocabulary::Cadvisor) => Some(Whom::Cgroup(cgroup)),
        _ => None,
    }
}

impl Whom<'_> {
    /// What tells it from others within one snapshot.
    fn address(&self) -> usize {
        match self {
            Self::Subject(subject) => std::ptr::from_ref(*subject) as usize,
            Self::Object(object) => std::ptr::from_ref(*object) as usize,
            Self::Cgroup(cgroup) => std::ptr::from_ref(*cgroup) as usize,
        }
    }
}

impl<'a> OwnerLabels<'a> {
    fn of(whom: Whom<'a>, names: &mut Names<'a>, hasher: &RandomState) -> Self {
        let mut owner = Self::default();
        let mut add = |label: &str, value: &'a str| {
            let name = names.of_label(label.to_owned());
            owner.labels.push((name, value));
            owner.hash = owner.hash.wrapping_add(hasher.hash_one((name, value)));
            write_pair(&mut owner.text, label, value);
        };
        match whom {
            Whom::Subject(subject) => labels_of(subject).for_each(|(label, value)| add(label, value)),
            Whom::Object(object) => object.labels.iter().for_each(|(label, value)| add(label, value)),
            Whom::Cgroup(cgroup) => cgroup.labels.iter().for_each(|(label, value)| add(label, value)),
        }
        owner
    }
}

/// The labels of a subject that have a value.
fn labels_of(subject: &Subject) -> impl Iterator<Item = (&'static str, &str)> {
    let pod = subject.pod();
    let values = [
        pod.map(|pod| pod.namespace.as_str()),
        pod.map(|pod| pod.name.as_str()),
        pod.map(|pod| pod.container.as_str()),
        pod.and_then(|pod| pod.image.as_deref()),
        subject.container.as_ref().map(|container| container.id.as_str()),
        Some(subject.service_name()),
        subject.unit.as_deref(),
    ];
    let pairs = OWNER_LABELS.into_iter().zip(values);
    pairs.filter_map(|(label, value)| Some((label, value.filter(|value| !value.is_empty())?)))
}

/// Label names by number: equal numbers, equal names.
struct Names<'a> {
    labels: Vec<LabelName>,
    by_key: HashMap<&'a str, u32>,
    by_label: HashMap<String, u32>,
    /// The last key at each position: neighbours of a family have the same keys in the same order.
    recent: Vec<(&'a str, u32)>,
}

struct LabelName {
    text: String,
    /// The name on series of subjects, and on all series.
    of_subjects: u32,
    of_all: u32,
}

impl<'a> Names<'a> {
    fn new() -> Self {
        Self {
            labels: Vec::new(),
            by_key: HashMap::new(),
            by_label: HashMap::new(),
            recent: vec![("", u32::MAX); ATTRIBUTES_MAX],
        }
    }

    fn text(&self, name: u32) -> &str {
        self.labels.get(name as usize).map_or("", |label| &label.text)
    }

    /// The number of the label that the attribute `key` becomes.
    fn name(&mut self, position: usize, key: &'a str, is_subject: bool) -> u32 {
        let name = match self.recent.get(position) {
            Some((recent, name)) if *recent == key && *name != u32::MAX => *name,
            _ => self.of_key(key),
        };
        if let Some(recent) = self.recent.get_mut(position) {
            *recent = (key, name);
        }
        let label = self.labels.get(name as usize);
        label.map_or(name, |label| if is_subject { label.of_subjects } else { label.of_all })
    }

    fn of_key(&mut self, key: &'a str) -> u32 {
        if let Some(name) = self.by_key.get(key) {
            return *name;
        }
        let name = self.of_label(names::label(key));
        self.by_key.insert(key, name);
        name
    }

    fn of_label(&mut self, text: String) -> u32 {
        if let Some(name) = self.by_label.get(&text) {
            return *name;
        }
        let is_owner = OWNER_LABELS.contains(&text.as_str());
        let is_bucket = text == BUCKET_LABEL;
        let exported = (is_owner || is_bucket).then(|| self.of_label(format!("exported_{text}")));
        let name = self.labels.len() as u32;
        let of_subjects = exported.unwrap_or(name);
        let of_all = exported.filter(|_| is_bucket).unwrap_or(name);
        self.by_label.insert(text.clone(), name);
        self.labels.push(LabelName { text, of_subjects, of_all });
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Choice, Container, Facts, LatePod, Pod};
    use std::sync::Arc;

    fn subject() -> Owner {
        let facts = Facts::of_pod("default", "shop-1", "u", "web");
        Owner::Subject(Arc::new(Subject {
            container: Some(Container { id: "c0ffee".to_owned(), runtime: None }),
            pod: LatePod::known(Pod::of(&facts, &Choice::default())),
            ..Subject::named("shop")
        }))
    }

    const SHOP: &str =
        r#"namespace="default",pod="shop-1",container="web",container_id="c0ffee",service_name="web","#;

    fn point(owner: Owner, attributes: &[(&'static str, &'static str)]) -> Point {
        let attributes = attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Point::number(owner, attributes, 0, 0.0)
    }

    fn check(
        owner: Owner,
        vocabulary: Vocabulary,
        attributes: &[(&'static str, &'static str)],
        expected: &str,
    ) {
        let point = point(owner, attributes);
        let mut labels = Labels::new();
        let mut out = String::new();
        labels.read(&point, vocabulary).unwrap().write(&mut out);
        assert_eq!(out, expected);
    }

    #[test]
    fn owners_and_attributes() {
        use Vocabulary::{Cadvisor, OpenTelemetry};
        check(Owner::Host, OpenTelemetry, &[("cpu.mode", "user"), ("x", "")], r#"cpu_mode="user","#);
        check(subject(), OpenTelemetry, &[("a", "1")], &format!("{SHOP}a=\"1\","));
        check(subject(), Cadvisor, &[("pod", "p"), ("id", "/")], r#"pod="p",id="/","#);
        let labels = vec![("id".into(), "/a\"b".into()), ("pod".into(), "p".into())];
        let cgroup = Owner::Cgroup(Arc::new(LabelledCgroup { owner: subject(), labels }));
        check(cgroup.clone(), Cadvisor, &[("cpu", "total")], r#"id="/a\"b",pod="p",cpu="total","#);
        check(cgroup, OpenTelemetry, &[("cpu", "total")], r#"cpu="total","#);
        check(subject(), OpenTelemetry, &[("unit", "u")], &format!("{SHOP}exported_unit=\"u\","));
        check(Owner::Agent, OpenTelemetry, &[("unit", "u")], r#"unit="u","#);
        check(Owner::Host, OpenTelemetry, &[("le", "u")], r#"exported_le="u","#);
        check(Owner::Host, OpenTelemetry, &[("a.b", "2"), ("a-b", "1")], r#"a_b="1;2","#);
        check(
            subject(),
            OpenTelemetry,
            &[("pod", "2"), ("exported_pod", "1")],
            &format!("{SHOP}exported_pod=\"1;2\","),
        );
    }

    #[test]
    fn objects_keep_labels_without_a_value() {
        let labels = vec![("pod".into(), "shop-1".into()), ("node".into(), "".into())];
        let object = Arc::new(ClusterObject { labels, ..ClusterObject::default() });
        let check =
            |vocabulary, expected| check(Owner::Object(object.clone()), vocabulary, &[("a", "")], expected);
        check(Vocabulary::KubeState, r#"pod="shop-1",node="",a="","#);
        check(Vocabulary::OpenTelemetry, "");
    }

    #[test]
    fn equal_labels_are_one_series() {
        let points = [
            point(Owner::Host, &[("a", "1"), ("b", "2")]),
            point(Owner::Host, &[("b", "2"), ("a", "1"), ("c", "")]),
            point(Owner::Host, &[("b", "1"), ("a", "2")]),
            point(Owner::Agent, &[("a", "1"), ("b", "2")]),
            point(subject(), &[]),
            point(subject(), &[]),
        ];
        let mut labels = Labels::new();
        let mut read = |at: usize| labels.read(&points[at], Vocabulary::OpenTelemetry).is_some();
        let found: Vec<bool> = (0..points.len()).map(&mut read).collect();
        assert_eq!(found, [true, false, true, false, true, false]);
        labels.start_family();
        assert!(labels.read(&points[1], Vocabulary::OpenTelemetry).is_some());
    }
}
