//! Which series is which, in sixteen bytes instead of all its texts.
//!
//! The same series has the same fingerprint as long as one [`SeriesHasher`] lives. The order of attributes counts: a
//! source keeps it. Refuses: fingerprints that leave the process; their keys are random, so that whoever chooses label
//! values cannot make two series one.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use fnv::FnvBuildHasher;

use super::{Metric, Owner, Point};

/// Stands for a series, an owner or a metric. Among a million, two are the same with a chance of 10^-27; among a thousand
/// series of one owner in one metric, of 10^-14.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(u128);

/// A table by fingerprint.
pub type ByFingerprint<T> = HashMap<Fingerprint, T, BuildHasherDefault<RandomAlready>>;

/// Hashes a fingerprint, which is random already, by taking half of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomAlready(u64);

impl Hasher for RandomAlready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "nothing but fingerprints: {bytes:?}");
    }
}

/// Makes fingerprints: two keyed 64-bit hashes.
#[derive(Debug, Default)]
pub struct SeriesHasher {
    first: RandomState,
    second: RandomState,
}

impl SeriesHasher {
    /// The fingerprint of a metric: its name and vocabulary.
    pub fn metric(&self, metric: &Metric) -> Fingerprint {
        self.of(&(&metric.name, metric.vocabulary))
    }

    /// The fingerprint of an owner, which stays when a subject gets another name. Hashes its texts: [`OwnerFingerprints`] does so once for a snapshot.
    pub fn owner(&self, owner: &Owner) -> Fingerprint {
        match owner {
            Owner::Subject(subject) => self.of(&subject.key()),
            Owner::Endpoint(endpoint) => self.of(&(self.owner(&endpoint.owner), &endpoint.attributes)),
            Owner::Agent | Owner::Host | Owner::Object(_) | Owner::Cgroup(_) => self.of(owner),
        }
    }

    /// The fingerprint of a series.
    pub fn series(&self, metric: Fingerprint, owner: Fingerprint, point: &Point) -> Fingerprint {
        // Both are random: together they are so, too, and most series have no more.
        let whose = Fingerprint(metric.0.rotate_left(1) ^ owner.0);
        if point.attributes.is_empty() {
            return whose;
        }
        // Half a fingerprint is enough to tell the few hundred series of one owner in one metric apart.
        let attributes = u128::from(self.first.hash_one(&point.attributes));
        Fingerprint(whose.0 ^ (attributes << 64 | attributes))
    }

    /// Begins the fingerprint of something that has several parts.
    pub fn start(&self, value: &impl Hash) -> Parts {
        let mut parts = Parts { first: self.first.build_hasher(), second: self.second.build_hasher() };
        parts.add(value);
        parts
    }

    fn of(&self, value: &impl Hash) -> Fingerprint {
        let (high, low) = (self.first.hash_one(value), self.second.hash_one(value));
        Fingerprint((u128::from(high) << 64) | u128::from(low))
    }
}

/// A fingerprint in the making.
#[derive(Debug)]
pub struct Parts {
    first: DefaultHasher,
    second: DefaultHasher,
}

impl Parts {
    /// Adds a part.
    pub fn add(&mut self, value: &impl Hash) {
        value.hash(&mut self.first);
        value.hash(&mut self.second);
    }

    /// The fingerprint.
    pub fn finish(self) -> Fingerprint {
        Fingerprint((u128::from(self.first.finish()) << 64) | u128::from(self.second.finish()))
    }
}

/// The fingerprints of the owners in one snapshot. Remembers them by address, so it must not outlive the snapshot.
#[derive(Debug)]
pub struct OwnerFingerprints<'a> {
    hasher: &'a SeriesHasher,
    by_address: HashMap<usize, Fingerprint, FnvBuildHasher>,
}

impl<'a> OwnerFingerprints<'a> {
    /// None known yet.
    pub fn new(hasher: &'a SeriesHasher) -> Self {
        Self { hasher, by_address: HashMap::default() }
    }

    /// The fingerprint of an owner.
    pub fn of(&mut self, owner: &Owner) -> Fingerprint {
        match owner {
            Owner::Agent | Owner::Host | Owner::Endpoint(_) => self.hasher.owner(owner),
            Owner::Subject(subject) => self.at(Arc::as_ptr(subject) as usize, owner),
            Owner::Object(object) => self.at(Arc::as_ptr(object) as usize, owner),
            Owner::Cgroup(cgroup) => self.at(Arc::as_ptr(cgroup) as usize, owner),
        }
    }

    fn at(&mut self, address: usize, owner: &Owner) -> Fingerprint {
        *self.by_address.entry(address).or_insert_with(|| self.hasher.owner(owner))
    }
}
