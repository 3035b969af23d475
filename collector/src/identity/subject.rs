//! Whose telemetry a record is, as one [`Subject`] whose attributes are the same on all signals.
//!
//! Refuses: guesses. What is not known is not said.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use super::{Container, LatePod, Pod};

/// An attribute of a resource.
pub type Attribute = (Cow<'static, str>, String);

/// Whose telemetry a record is. The pod comes later than the rest and fills in what it knows for all who hold the subject.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The service by what the node itself knows: the unit or the executable. See [`Subject::service_name`].
    pub own_name: String,
    /// The container, if it is one.
    pub container: Option<Container>,
    /// The systemd service, if it is one and not a container.
    pub unit: Option<String>,
    /// The container's pod.
    pub pod: LatePod,
    /// Grows when a container's main process executes another program and so names the service anew.
    pub revision: u32,
}

/// What makes a subject one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The container's id.
    Container(String),
    /// The systemd service.
    Unit(String),
    /// The executable.
    Executable(String),
}

impl Subject {
    /// Somebody who is only known by name.
    pub fn named(own_name: &str) -> Self {
        Self { own_name: own_name.to_owned(), ..Self::default() }
    }

    /// `service.name`: as the pod says, else the unit or the executable.
    pub fn service_name(&self) -> &str {
        self.pod().and_then(|pod| pod.service_name.as_deref()).unwrap_or(&self.own_name)
    }

    /// The container's pod, as soon as it is known.
    pub fn pod(&self) -> Option<&Pod> {
        self.pod.get()
    }

    /// What makes it one: two subjects with the same key are the same, under an older and a newer name.
    pub fn key(&self) -> Key {
        match (&self.container, &self.unit) {
            (Some(container), _) => Key::Container(container.id.clone()),
            (None, Some(unit)) => Key::Unit(unit.clone()),
            (None, None) => Key::Executable(self.own_name.clone()),
        }
    }

    /// Resource attributes by the OpenTelemetry semantic conventions, without those of the host.
    pub fn attributes(&self) -> Vec<Attribute> {
        let mut attributes: Vec<Attribute> = vec![("service.name".into(), self.service_name().to_owned())];
        if let Some(container) = &self.container {
            attributes.push(("container.id".into(), container.id.clone()));
            if let Some(runtime) = container.runtime {
                attributes.push(("container.runtime.name".into(), runtime.name().to_owned()));
            }
        }
        if let Some(pod) = self.pod() {
            attributes
                .extend(pod.attributes.iter().map(|(key, value)| (Cow::Owned(key.clone()), value.clone())));
        }
        if let Some(unit) = &self.unit {
            attributes.push(("kansoku.systemd.unit".into(), unit.clone()));
        }
        attributes
    }
}

/// By what makes it one and how it is named by the node: what its pod adds later must not move it in a table.
impl PartialEq for Subject {
    fn eq(&self, other: &Self) -> bool {
        self.own_name == other.own_name
            && self.container == other.container
            && self.unit == other.unit
            && self.revision == other.revision
    }
}

impl Eq for Subject {}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.own_name, &self.container, &self.unit, self.revision).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Facts;

    #[test]
    fn a_pod_that_comes_later_is_on_all_who_hold_the_subject() {
        let container = Some(Container { id: "a".repeat(64), runtime: None });
        let pod = LatePod::awaited(u64::MAX);
        let subject = Subject { container, pod: pod.clone(), ..Subject::named("nginx") };
        let older = Subject { revision: 7, ..subject.clone() };
        assert_eq!((subject.service_name(), subject.pod.is_awaited(0)), ("nginx", true));
        pod.tell(Pod::of(&Facts::of_pod("shop", "web-1", "12-34", "web"), &Default::default()));
        for subject in [&subject, &older] {
            assert_eq!(subject.service_name(), "web");
            assert!(!subject.pod.is_awaited(0));
            assert!(subject.attributes().contains(&("k8s.pod.name".into(), "web-1".to_owned())));
        }
    }
}
