//! When the counters of the host began: at boot, or when the thing they count was plugged in anew.
//!
//! A counter that goes back began anew between the last reading and this one; its start is then the last reading, so
//! that no start is before a value of the series that it ends. Refuses: what is counted.

use std::collections::HashMap;

use fnv::FnvBuildHasher;

/// A boot time that moved less than this is the kernel's rounding or a clock that is being slewed, nanoseconds:
/// `btime` is the wall clock minus the uptime, in whole seconds.
const CLOCK_STEP_MIN_NS: u64 = 5_000_000_000;
/// The most things whose values are remembered; beyond it those that were not there this time are forgotten.
const THINGS_MAX: usize = 8192;

/// The starts of all counters of the host.
#[derive(Default)]
pub(super) struct Starts {
    now_unix_ns: u64,
    previous_unix_ns: Option<u64>,
    boot_unix_ns: Option<u64>,
    /// The first reading: the start of counters when the boot time is unknown.
    first_unix_ns: Option<u64>,
    collections: u64,
    areas: HashMap<&'static str, Area, FnvBuildHasher>,
}

/// The things of an area: all disks.
struct Area {
    /// The collection it was first read in; what was there then may be as old as the host.
    since: u64,
    things: HashMap<Box<str>, Thing, FnvBuildHasher>,
}

/// What has counters: a CPU, a disk, an interface.
struct Thing {
    values: Box<[u64]>,
    /// None: since boot.
    restarted_unix_ns: Option<u64>,
    seen: u64,
}

impl Starts {
    /// A new collection at `now_unix_ns`, on a host that says it booted at `boot_unix_ns`.
    pub(super) fn begin(&mut self, now_unix_ns: u64, boot_unix_ns: Option<u64>) {
        if self.collections > 0 {
            self.previous_unix_ns = Some(self.now_unix_ns);
        }
        self.collections += 1;
        self.now_unix_ns = now_unix_ns;
        self.first_unix_ns.get_or_insert(now_unix_ns);
        match (self.boot_unix_ns, boot_unix_ns) {
            (Some(held), Some(read)) if read.abs_diff(held) >= CLOCK_STEP_MIN_NS => self.step(held, read),
            (None, Some(read)) => self.boot_unix_ns = Some(read),
            _ => {}
        }
        self.forget();
    }

    /// When counters since boot began, nanoseconds since the epoch; never in the future.
    pub(super) fn boot(&self) -> u64 {
        self.boot_unix_ns.or(self.first_unix_ns).unwrap_or(0).min(self.now_unix_ns)
    }

    /// When the counters of `thing` began, given their `values`, always as many and in the same order.
    ///
    /// A value that went back by `slack` or less is put back to what it was: the kernel's times of idle CPUs do that.
    pub(super) fn of(&mut self, area: &'static str, thing: &str, values: &mut [u64], slack: u64) -> u64 {
        let (boot, now, seen) = (self.boot(), self.now_unix_ns, self.collections);
        let since_previous = self.previous_unix_ns.or(Some(now));
        let area = self.areas.entry(area).or_insert_with(|| Area { since: seen, things: HashMap::default() });
        let Some(held) = area.things.get_mut(thing) else {
            let restarted_unix_ns = if area.since == seen { None } else { since_previous };
            area.things.insert(thing.into(), Thing { values: (&*values).into(), restarted_unix_ns, seen });
            return restarted_unix_ns.unwrap_or(boot).min(now);
        };
        let fell = |(old, new): (&u64, &u64)| old.saturating_sub(*new) > slack;
        if held.values.len() != values.len() || held.values.iter().zip(&*values).any(fell) {
            held.restarted_unix_ns = since_previous;
            held.values = (&*values).into();
        } else {
            for (old, new) in held.values.iter_mut().zip(values) {
                *new = (*new).max(*old);
                *old = *new;
            }
        }
        held.seen = seen;
        held.restarted_unix_ns.unwrap_or(boot).min(now)
    }

    /// The wall clock was set: everything that was remembered in its time moves with it.
    fn step(&mut self, held: u64, read: u64) {
        let moved = |at: u64| {
            if read >= held { at.saturating_add(read - held) } else { at.saturating_sub(held - read) }
        };
        self.boot_unix_ns = Some(read);
        self.previous_unix_ns = self.previous_unix_ns.map(moved);
        for thing in self.areas.values_mut().flat_map(|area| area.things.values_mut()) {
            thing.restarted_unix_ns = thing.restarted_unix_ns.map(moved);
        }
    }

    /// Things that were there in the last collection are kept even beyond the bound.
    fn forget(&mut self) {
        if self.areas.values().map(|area| area.things.len()).sum::<usize>() > THINGS_MAX {
            let last = self.collections.saturating_sub(1);
            self.areas.values_mut().for_each(|area| area.things.retain(|_, thing| thing.seen >= last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Readings of one thing: (now s, btime s, value), each with the start s and the value that are expected.
    fn check(readings: &[(u64, Option<u64>, u64, u64, u64)]) {
        let mut starts = Starts::default();
        for (row, (now, boot, value, start, held)) in readings.iter().enumerate() {
            starts.begin(now * S, boot.map(|boot| boot * S));
            let mut values = [*value];
            assert_eq!(starts.of("disk", "sda", &mut values, 3), start * S, "start of row {row}");
            assert_eq!(values, [*held], "value of row {row}");
        }
    }

    #[test]
    fn since_boot_until_it_goes_back() {
        check(&[(100, Some(10), 50, 10, 50), (110, Some(10), 60, 10, 60), (120, Some(10), 5, 110, 5)]);
        check(&[(100, Some(10), 50, 10, 50), (110, Some(10), 5, 100, 5), (120, Some(10), 9, 100, 9)]);
    }

    #[test]
    fn little_steps_back_are_held() {
        check(&[(100, Some(10), 50, 10, 50), (110, Some(10), 47, 10, 50), (120, Some(10), 46, 110, 46)]);
    }

    #[test]
    fn the_boot_time_that_wavers_is_held() {
        check(&[(100, Some(10), 1, 10, 1), (110, Some(11), 2, 10, 2), (120, Some(9), 3, 10, 3)]);
    }

    #[test]
    fn clock_steps() {
        // Forward by an hour, and back by an hour: starts move along.
        check(&[(100, Some(10), 9, 10, 9), (110, Some(10), 1, 100, 1), (3720, Some(3610), 2, 3700, 2)]);
        check(&[(5000, Some(4000), 9, 4000, 9), (1410, Some(400), 10, 400, 10)]);
        // A clock before the boot time does not give a start in the future.
        check(&[(100, Some(10), 9, 10, 9), (5, Some(10), 10, 5, 10), (0, None, 11, 0, 11)]);
    }

    #[test]
    fn plugged_in_later() {
        let mut starts = Starts::default();
        starts.begin(100 * S, Some(10 * S));
        assert_eq!(starts.of("disk", "sda", &mut [7], 0), 10 * S);
        starts.begin(110 * S, Some(10 * S));
        assert_eq!(starts.of("disk", "sdb", &mut [7], 0), 100 * S);
        assert_eq!(starts.of("interface", "eth0", &mut [7], 0), 10 * S);
        // sda was not there for a while, and is another one now.
        starts.begin(120 * S, Some(10 * S));
        assert_eq!(starts.of("disk", "sda", &mut [6], 0), 110 * S);
        // The clock was set back too little to be a step.
        starts.begin(118 * S, Some(8 * S));
        assert_eq!(starts.of("disk", "sdc", &mut [6], 0), 118 * S);
    }

    #[test]
    fn forgets_what_is_gone() {
        let mut starts = Starts::default();
        for round in 0..4 {
            starts.begin((100 + round) * S, Some(10 * S));
            for thing in 0..THINGS_MAX / 2 {
                starts.of("interface", &format!("veth{round}-{thing}"), &mut [1], 0);
            }
        }
        starts.begin(200 * S, Some(10 * S));
        let held: usize = starts.areas.values().map(|area| area.things.len()).sum();
        assert!(held <= THINGS_MAX, "{held}");
    }

    #[test]
    fn without_a_boot_time() {
        check(&[(100, None, 9, 100, 9), (110, None, 10, 100, 10), (120, Some(10), 11, 10, 11)]);
    }
}
