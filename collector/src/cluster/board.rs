//! What the API server told of the cluster, bounded.
//!
//! An object that finds no place is left out, which whoever brought it counts. Nothing of a kind is reported before all of it was told once: half
//! a list would look like a cluster that lost half its pods. Refuses: history.

use std::collections::HashMap;

use super::kinds::{KINDS, Kind, Observed};
use super::report::{Report, Words};
use crate::telemetry::Metric;

/// Objects of all kinds that are held. A pod with one container has some 45 series on the endpoint and 15 over OTLP, so this
/// is also about what the limit on series lets through (`telemetry/cardinality`).
pub const OBJECTS_MAX: usize = 10_000;

/// All objects, by kind.
#[derive(Default)]
pub struct Board {
    shelves: [Shelf; KINDS.len()],
}

#[derive(Default)]
struct Shelf {
    objects: HashMap<Key, (u32, Box<dyn Observed>)>,
    /// Which list of all objects is the latest.
    round: u32,
    is_complete: bool,
}

/// Namespace and name.
pub type Key = (Box<str>, Box<str>);

impl Board {
    /// All objects of a kind are told anew.
    pub fn begin(&mut self, kind: Kind) {
        let shelf = &mut self.shelves[kind as usize];
        shelf.round = shelf.round.wrapping_add(1);
    }

    /// They have been told: those that were not are gone.
    pub fn complete(&mut self, kind: Kind) {
        let shelf = &mut self.shelves[kind as usize];
        let now = shelf.round;
        shelf.objects.retain(|_, (round, _)| *round == now);
        shelf.objects.shrink_to_fit();
        shelf.is_complete = true;
    }

    /// An object is there, or changed. Whether it found a place.
    pub fn put(&mut self, kind: Kind, key: Key, object: Box<dyn Observed>) -> bool {
        let is_full = self.len() >= OBJECTS_MAX;
        let shelf = &mut self.shelves[kind as usize];
        if is_full && !shelf.objects.contains_key(&key) {
            return false;
        }
        shelf.objects.insert(key, (shelf.round, object));
        true
    }

    /// An object is gone.
    pub fn remove(&mut self, kind: Kind, key: &Key) {
        self.shelves[kind as usize].objects.remove(key);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.shelves = Default::default();
    }

    /// The metrics of all objects whose kinds are complete.
    pub fn metrics(&self, words: Words) -> Vec<Metric> {
        let mut report = Report::new(words);
        let complete = self.shelves.iter().filter(|shelf| shelf.is_complete);
        for (_, object) in complete.flat_map(|shelf| shelf.objects.values()) {
            object.report(&mut report);
        }
        report.finish()
    }

    /// How many objects of each kind are held.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, usize)> {
        KINDS.into_iter().zip(&self.shelves).map(|(kind, shelf)| (kind, shelf.objects.len()))
    }

    fn len(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.objects.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Owner, Point, Vocabulary};

    struct Named(&'static str);

    impl Observed for Named {
        fn report(&self, report: &mut Report) {
            report.object(&Default::default(), &[("name", self.0)], &[]).gauge("kube_named", "", &[], 1.0);
        }
    }

    fn key(name: &str) -> Key {
        ("".into(), name.into())
    }

    fn names(board: &Board) -> Vec<String> {
        let metrics = board.metrics(Words { kube_state: true, conventions: true });
        let name = |point: &Point| match &point.owner {
            Owner::Object(object) => object.labels[0].1.clone().into_owned(),
            other => panic!("{other:?}"),
        };
        let mut names: Vec<String> = metrics.iter().flat_map(|metric| &metric.points).map(name).collect();
        names.sort();
        assert!(metrics.iter().all(|metric| metric.vocabulary == Vocabulary::KubeState));
        names
    }

    #[test]
    fn a_kind_is_told_when_all_of_it_is_known() {
        let mut board = Board::default();
        board.begin(Kind::Pod);
        board.put(Kind::Pod, key("a"), Box::new(Named("a")));
        assert!(names(&board).is_empty());
        board.put(Kind::Pod, key("b"), Box::new(Named("b")));
        board.complete(Kind::Pod);
        assert_eq!(names(&board), ["a", "b"]);
        board.remove(Kind::Pod, &key("a"));
        board.put(Kind::Pod, key("c"), Box::new(Named("c")));
        assert_eq!(names(&board), ["b", "c"]);
        // Told anew: what is not told again is gone, but not before the end.
        board.begin(Kind::Pod);
        board.put(Kind::Pod, key("d"), Box::new(Named("d")));
        assert_eq!(names(&board), ["b", "c", "d"]);
        board.complete(Kind::Pod);
        assert_eq!(names(&board), ["d"]);
        board.clear();
        assert!(names(&board).is_empty());
    }

    #[test]
    fn what_finds_no_place() {
        let mut board = Board::default();
        board.begin(Kind::Node);
        let mut put = |kind, name: usize| board.put(kind, key(&name.to_string()), Box::new(Named("x")));
        assert!((0..OBJECTS_MAX).all(|name| put(Kind::Node, name)));
        assert!(!put(Kind::Node, OBJECTS_MAX) && !put(Kind::Pod, 0), "no place for another");
        assert!(put(Kind::Node, 0), "one that is there may change");
        assert_eq!(board.len(), OBJECTS_MAX);
    }
}
