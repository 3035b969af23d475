//! Which series of a metric have a place: those seen first, until they vanish.
//!
//! A series that vanished keeps its place for some snapshots, so that a scrape that fails once does not shuffle them, but
//! gives it up as soon as a new one needs it. Refuses: values.

use std::collections::HashMap;

use crate::telemetry::increments::ABSENT_TURNS_MAX;
use crate::telemetry::{ByFingerprint, Fingerprint, Increments};

/// A series with its owner.
#[derive(Clone, Copy, Debug)]
pub struct Id {
    /// Whose it is.
    pub owner: Fingerprint,
    /// Which it is.
    pub series: Fingerprint,
}

/// Where a point goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It stays.
    Own,
    /// To its owner's overflow series: the owner has too many.
    OfOwner,
    /// To the host's: all owners together have too many.
    OfHost,
}

/// The series of a metric that have a place.
#[derive(Debug)]
pub struct SeriesSet {
    series: ByFingerprint<Place>,
    per_owner: ByFingerprint<usize>,
    per_owner_max: usize,
    series_max: usize,
}

#[derive(Debug)]
struct Place {
    owner: Fingerprint,
    turn: u64,
}

impl SeriesSet {
    /// Nobody has a place yet. An owner gets one at least, which bounds the overflow series by `series_max`.
    pub fn new(per_owner_max: usize, series_max: usize) -> Self {
        let (series, per_owner) = (HashMap::default(), HashMap::default());
        Self { series, per_owner, per_owner_max: per_owner_max.max(1), series_max }
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Where each of the points of a snapshot goes. `room` is how many series may be new over all metrics.
    pub fn admit(&mut self, ids: &[Id], folded: &Increments, turn: u64, room: &mut usize) -> Vec<Target> {
        let mut present = 0;
        let mut refresh = |id: &Id| match self.series.get_mut(&id.series) {
            Some(place) => {
                present += usize::from(place.turn != turn);
                place.turn = turn;
                true
            }
            None => false,
        };
        let known: Vec<bool> = ids.iter().map(&mut refresh).collect();
        if present < self.series.len() {
            self.sweep(turn, ABSENT_TURNS_MAX);
        }
        let mut is_swept = false;
        let mut target = |(id, is_known): (&Id, bool)| {
            // The second point of a new series has its place by now.
            if is_known || self.series.contains_key(&id.series) {
                return Target::Own;
            }
            if folded.knows(id.series) {
                return self.overflow_of(id.owner);
            }
            if !self.has_place(id.owner, *room) && !is_swept {
                *room += self.sweep(turn, 0);
                is_swept = true;
            }
            if !self.has_place(id.owner, *room) {
                return self.overflow_of(id.owner);
            }
            *room -= 1;
            *self.per_owner.entry(id.owner).or_default() += 1;
            self.series.insert(id.series, Place { owner: id.owner, turn });
            Target::Own
        };
        ids.iter().zip(known).map(&mut target).collect()
    }

    fn taken_by(&self, owner: Fingerprint) -> usize {
        self.per_owner.get(&owner).copied().unwrap_or_default()
    }

    fn has_place(&self, owner: Fingerprint, room: usize) -> bool {
        room > 0 && self.series.len() < self.series_max && self.taken_by(owner) < self.per_owner_max
    }

    fn overflow_of(&self, owner: Fingerprint) -> Target {
        if self.taken_by(owner) >= self.per_owner_max { Target::OfOwner } else { Target::OfHost }
    }

    /// Takes the place of who is absent for more than some turns. Returns how many that were.
    fn sweep(&mut self, turn: u64, absent_turns_max: u64) -> usize {
        let before = self.series.len();
        let per_owner = &mut self.per_owner;
        self.series.retain(|_, place| {
            let stays = place.turn + absent_turns_max >= turn;
            if !stays && let Some(taken) = per_owner.get_mut(&place.owner) {
                *taken -= 1;
            }
            stays
        });
        let freed = before - self.series.len();
        if freed > 0 {
            per_owner.retain(|_, taken| *taken > 0);
        }
        freed
    }
}
