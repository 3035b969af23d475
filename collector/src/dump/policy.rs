//! Which process gets which dump: a default, rules by container, pod, service, unit and namespace, and what a pod asks for.
//!
//! A dump holds a process's secrets and much of the disk, so the owner of the node decides: the rules about a container or a
//! pod stand above what it asks for, and there is a most that may be asked for. Refuses: names and values that it doesn't
//! know, with the nearest one that it does.

use anyhow::{Context, Result, bail};

/// Rules of one table.
const RULES_MAX: usize = 256;

/// Length of a glob.
const GLOB_BYTES_MAX: usize = 256;

/// Stars of a glob.
const STARS_MAX: usize = 8;

/// Rules of a smaller rank are about the pod or the container itself, and stand above what it asks for.
const WISH_RANK: u8 = 2;

/// A word is meant if it is this similar, by Jaro-Winkler.
const SIMILAR: f64 = 0.7;

/// What is kept of a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DumpKind {
    /// Nothing, not even the crash record.
    None,
    /// The crash record without a dump.
    Record,
    /// The record and a minidump: threads, registers, stacks.
    Minidump,
    /// The record and the whole core.
    Core,
}

impl DumpKind {
    const WORDS: [(&str, Self); 4] =
        [("none", Self::None), ("record", Self::Record), ("minidump", Self::Minidump), ("core", Self::Core)];

    /// From its word in the configuration.
    pub fn parse(text: &str) -> Result<Self> {
        match Self::WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, kind)) => Ok(*kind),
            None => bail!("{text:?} is no kind of dump{}", nearest(text, Self::WORDS.map(|(word, _)| word))),
        }
    }

    /// Whether the core has to be read for it.
    pub fn needs_core(self) -> bool {
        matches!(self, Self::Minidump | Self::Core)
    }
}

/// The default and the rules, the most specific first.
#[derive(Clone, Debug, PartialEq)]
pub struct Policies {
    default: DumpKind,
    /// The most that a pod may ask for.
    annotation_max: DumpKind,
    rules: Vec<(Selector, DumpKind)>,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq)]
enum Selector {
    /// By the start of `container.id`.
    Container(String),
    /// By `k8s.namespace.name` and `k8s.pod.name`.
    Pod(Glob, Glob),
    /// By `service.name`.
    Service(Glob),
    /// By `kansoku.systemd.unit`.
    Unit(Glob),
    /// By `k8s.namespace.name`.
    Namespace(Glob),
}

/// A text in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob(String);

impl Policies {
    /// From a table of `service:checkout*` to `minidump`.
    pub fn parse<'a>(default: &str, rules: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let default = DumpKind::parse(default)?;
        let mut parsed: Vec<(Selector, DumpKind)> = Vec::new();
        for (name, value) in rules {
            let parse = || anyhow::Ok((Selector::parse(name)?, DumpKind::parse(value)?));
            let (selector, kind) = parse().with_context(|| format!("in the rule {name:?} of the dumps"))?;
            if parsed.iter().any(|(other, _)| *other == selector) {
                bail!("the rule {name:?} of the dumps is there twice; keep one");
            }
            if parsed.len() == RULES_MAX {
                bail!("more than {RULES_MAX} rules of dumps; use globs or a namespace: rule");
            }
            parsed.push((selector, kind));
        }
        // Of the same rank, the one with more letters is about fewer processes.
        parsed.sort_by_key(|(selector, _)| (selector.rank(), std::cmp::Reverse(selector.letters())));
        Ok(Self { default, annotation_max: DumpKind::None, rules: parsed })
    }

    /// With pods that may ask for dumps of their own processes, up to this kind; `None`: they may not.
    #[must_use]
    pub fn with_annotations(self, annotation_max: DumpKind) -> Self {
        Self { annotation_max, ..self }
    }

    /// What is kept of a process, whose resource attributes `subject` gives by their OpenTelemetry names, and whose pod asks
    /// for `wish`.
    pub fn decide(&self, subject: &dyn Fn(&str) -> Option<String>, wish: Option<&str>) -> DumpKind {
        let rule = self.rules.iter().find(|(selector, _)| selector.matches(subject));
        if let Some((selector, kind)) = rule
            && selector.rank() < WISH_RANK
        {
            return *kind;
        }
        // What is no kind of dump is no wish: the pod's owner cannot be told here.
        let wish = wish.and_then(|wish| DumpKind::parse(wish.trim()).ok());
        match wish.filter(|_| self.annotation_max > DumpKind::None) {
            Some(wish) => wish.min(self.annotation_max),
            None => rule.map_or(self.default, |(_, kind)| *kind),
        }
    }

    /// Whether any process may get a dump, so that `core_pattern` is needed at all.
    pub fn needs_cores(&self) -> bool {
        self.default.needs_core()
            || self.annotation_max.needs_core()
            || self.rules.iter().any(|(_, kind)| kind.needs_core())
    }
}

impl Selector {
    const WORDS: [&str; 5] = ["container", "pod", "service", "unit", "namespace"];

    fn parse(name: &str) -> Result<Self> {
        let Some((word, value)) = name.split_once(':') else {
            bail!("{name:?} is not of the form service:NAME; write one of {}", Self::WORDS.join(":, ") + ":");
        };
        match word {
            "container" => {
                if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    bail!("{value:?} is not the start of a container's id, which has hexadecimal digits");
                }
                Ok(Self::Container(value.to_ascii_lowercase()))
            }
            "pod" => {
                let Some((namespace, pod)) = value.split_once('/').filter(|(_, pod)| !pod.contains('/'))
                else {
                    bail!(
                        "{value:?} is not of the form NAMESPACE/NAME; write pod:*/{value} for all namespaces"
                    );
                };
                Ok(Self::Pod(Glob::parse(namespace)?, Glob::parse(pod)?))
            }
            "service" => Glob::parse(value).map(Self::Service),
            "unit" => Glob::parse(value).map(Self::Unit),
            "namespace" => Glob::parse(value).map(Self::Namespace),
            _ => bail!("{word:?} is nothing that a rule can be about{}", nearest(word, Self::WORDS)),
        }
    }

    fn matches(&self, subject: &dyn Fn(&str) -> Option<String>) -> bool {
        let is = |name: &str, glob: &Glob| subject(name).is_some_and(|value| glob.matches(&value));
        match self {
            Self::Container(prefix) => subject("container.id").is_some_and(|id| id.starts_with(prefix)),
            Self::Pod(namespace, pod) => is("k8s.namespace.name", namespace) && is("k8s.pod.name", pod),
            Self::Service(glob) => is("service.name", glob),
            Self::Unit(glob) => is("kansoku.systemd.unit", glob),
            Self::Namespace(glob) => is("k8s.namespace.name", glob),
        }
    }

    /// The more specific, the smaller.
    fn rank(&self) -> u8 {
        match self {
            Self::Container(_) => 0,
            Self::Pod(..) => 1,
            Self::Service(_) | Self::Unit(_) => 2,
            Self::Namespace(_) => 3,
        }
    }

    fn letters(&self) -> usize {
        match self {
            Self::Container(prefix) => prefix.len(),
            Self::Pod(namespace, pod) => namespace.letters() + pod.letters(),
            Self::Service(glob) | Self::Unit(glob) | Self::Namespace(glob) => glob.letters(),
        }
    }
}

impl Glob {
    /// From its text.
    ///
    /// # Errors
    ///
    /// If it is empty, too long or has too many stars.
    pub fn parse(text: &str) -> Result<Self> {
        let stars = text.matches('*').count();
        if text.is_empty() || text.len() > GLOB_BYTES_MAX || stars > STARS_MAX {
            bail!(
                "{text:?} must have 1 to {GLOB_BYTES_MAX} bytes and at most {STARS_MAX} stars; * matches anything"
            );
        }
        Ok(Self(text.to_owned()))
    }

    fn letters(&self) -> usize {
        self.0.bytes().filter(|&byte| byte != b'*').count()
    }

    /// Each piece between stars is taken where it is found first, which leaves the most to those after it.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == text };
        let Some(mut text) = text.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*') {
            match text.find(piece) {
                Some(at) => text = &text[at + piece.len()..],
                None => return false,
            }
        }
        text.ends_with(last)
    }
}

fn nearest<const COUNT: usize>(text: &str, words: [&str; COUNT]) -> String {
    let similarity = |word: &&str| strsim::jaro_winkler(word, text);
    match words.iter().copied().max_by(|one, other| similarity(one).total_cmp(&similarity(other))) {
        Some(word) if similarity(&word) >= SIMILAR => format!("; did you mean {word}?"),
        _ => format!("; write one of {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [(&str, &str); 7] = [
        ("service:*", "record"),
        ("service:checkout*", "core"),
        ("unit:postgres*.service", "none"),
        ("container:4Fe2", "minidump"),
        ("namespace:kube-*", "none"),
        ("pod:shop/api-*", "minidump"),
        ("pod:*/noisy-*-x", "none"),
    ];

    fn check(rules: &[(&str, &str)], subject: &[(&str, &str)], expected: DumpKind) {
        let policies = Policies::parse("minidump", rules.iter().copied()).expect("valid");
        let attribute = |name: &str| {
            let found = subject.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(policies.decide(&attribute, None), expected, "{subject:?}");
    }

    #[test]
    fn the_most_specific_rule() {
        const NAMESPACE: &str = "k8s.namespace.name";
        const POD: &str = "k8s.pod.name";
        check(&RULES, &[], DumpKind::Minidump);
        check(&RULES, &[("service.name", "checkout-2")], DumpKind::Core);
        check(&RULES, &[("service.name", "cart")], DumpKind::Record);
        check(&RULES, &[("service.name", "checkout"), ("container.id", "4fe2a0")], DumpKind::Minidump);
        check(&RULES, &[("service.name", "checkout"), ("container.id", "4fe")], DumpKind::Core);
        check(
            &RULES,
            &[("service.name", "p"), ("kansoku.systemd.unit", "postgresql@1.service")],
            DumpKind::None,
        );
        check(&RULES, &[("service.name", "x"), (NAMESPACE, "kube-system")], DumpKind::Record);
        check(&RULES, &[(NAMESPACE, "kube-system")], DumpKind::None);
        check(
            &RULES,
            &[("service.name", "checkout"), (NAMESPACE, "shop"), (POD, "api-1")],
            DumpKind::Minidump,
        );
        check(&RULES, &[("service.name", "checkout"), (NAMESPACE, "shop"), (POD, "web")], DumpKind::Core);
        check(&RULES, &[("service.name", "y"), (NAMESPACE, "a"), (POD, "noisy-b-x")], DumpKind::None);
        check(&[], &[("service.name", "checkout")], DumpKind::Minidump);
    }

    #[test]
    fn what_a_pod_asks_for() {
        use DumpKind::{Core, Minidump, None as Nothing, Record};
        let check = |max: DumpKind, rule: &str, wish: &str, expected: DumpKind| {
            let policies =
                Policies::parse("record", [(rule, "record")]).expect("valid").with_annotations(max);
            let attribute = |name: &str| match name {
                "k8s.pod.name" => Some("cart-1".to_owned()),
                "k8s.namespace.name" => Some("shop".to_owned()),
                _ => None,
            };
            assert_eq!(policies.decide(&attribute, Some(wish)), expected, "{max:?} {rule} {wish}");
        };
        check(Minidump, "service:other", "minidump", Minidump);
        check(Minidump, "namespace:shop", "minidump", Minidump);
        check(Minidump, "service:other", " core ", Minidump);
        check(Core, "service:other", "core", Core);
        check(Record, "service:other", "core", Record);
        check(Minidump, "service:other", "none", Nothing);
        check(Nothing, "service:other", "minidump", Record);
        check(Minidump, "pod:shop/cart-*", "minidump", Record);
        check(Minidump, "service:other", "everything", Record);
    }

    #[test]
    fn globs() {
        let check = |glob: &str, text: &str, expected: bool| {
            assert_eq!(Glob::parse(glob).expect("valid").matches(text), expected, "{glob} {text}");
        };
        check("a", "a", true);
        check("a", "ab", false);
        check("*", "", true);
        check("a*", "a", true);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("*b*", "abc", true);
        check("*b*", "ac", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("*ab*ab*", "abab", true);
        check("*ab*ab*", "aba", false);
        check("ü*", "über", true);
        check("***", "x", true);
    }

    #[test]
    fn errors_name_the_nearest_word() {
        let check = |default: &str, name: &str, value: &str, expected: &str| {
            let error = Policies::parse(default, [(name, value)]).expect_err(name);
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        };
        check("mini", "service:a", "core", "did you mean minidump?");
        check("core", "service:a", "cores", "did you mean core?");
        check("core", "service:a", "zzz", "write one of none, record, minidump, core");
        check("core", "servce:a", "core", "did you mean service?");
        check("core", "a", "core", "container:, pod:");
        check("core", "container:xyz", "core", "hexadecimal");
        check("core", "pod:a", "core", "pod:*/a");
        check("core", "service:", "core", "1 to 256 bytes");
        check("core", "service:*********", "core", "at most 8 stars");
        let twice = Policies::parse("core", [("unit:a", "core"), ("unit:a", "none")]);
        assert!(twice.is_err_and(|error| error.to_string().contains("twice")));
    }

    #[test]
    fn needs() {
        let check = |default: &str, rules: &[(&str, &str)], expected: bool| {
            let policies = Policies::parse(default, rules.iter().copied()).expect("valid");
            assert_eq!(policies.needs_cores(), expected);
        };
        check("record", &[], false);
        check("record", &[("unit:a", "none")], false);
        check("record", &[("unit:a", "core")], true);
        check("minidump", &[], true);
    }
}
