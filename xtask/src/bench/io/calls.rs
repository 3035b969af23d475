//! What a system call costs more beside the agent, above the floor: an empty program at both ends of every call.
//!
//! Refuses: to compare clocks. This machine's jumps by a fifth from one second to the next; batches at less than full
//! speed are left out, and what is subtracted was measured in the same round.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::agent::{Agent, FREQUENCY_HZ};
use super::super::figures::Measured;
use super::super::interrupt;
use super::super::numbers::{Spread, percentile};
use super::super::report::table;
use super::super::setup::Bench;
use super::programs::{Batch, CALLS};
use super::{NO_BUDGET, NO_IO, NO_SCHEDULER, NO_STDERR};

pub const TARGET_NS_MAX: f64 = 100.0;

/// Turns' worth of batches that find out how fast the clock can be.
const CALIBRATION_TURNS: usize = 4;

/// A turn is repeated this often to meet the clock at full speed.
const ATTEMPTS_MAX: usize = 6;

/// A turn counts if at least one batch of this many was at full speed.
const FULL_SPEED_ONE_OF: usize = 5;

/// How much longer than the fastest a step may take at full speed. The slower clock is by a fifth slower.
const FULL_SPEED_FACTOR_MAX: f64 = 1.05;

/// Nanoseconds of each call.
type CallsNs = [f64; CALLS.len()];

/// Who observes the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Observer {
    Nobody,
    Floor,
    Io,
    Defaults,
    NoIo,
}

/// The floor beside each agent, and nobody at both ends. Reversed it is of the same shape.
const TURNS: [Observer; 9] = [
    Observer::Nobody,
    Observer::Floor,
    Observer::Io,
    Observer::Floor,
    Observer::Defaults,
    Observer::Floor,
    Observer::NoIo,
    Observer::Floor,
    Observer::Nobody,
];

/// The agents, and how the report calls them.
const AGENTS: [(Observer, &str); 3] =
    [(Observer::Io, "I/O alone"), (Observer::Defaults, "defaults"), (Observer::NoIo, "without I/O")];

pub fn target() -> String {
    format!("<= {TARGET_NS_MAX} ns above the floor")
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    let clock = Clock::calibrate(bench)?;
    let mut rounds = Rounds::default();
    for round in 0..bench.plan.io_call_rounds {
        eprintln!("bench: round {} of {}", round + 1, bench.plan.io_call_rounds);
        let mut order = TURNS;
        if round % 2 == 1 {
            order.reverse();
        }
        let turns = order.map(|observer| clock.turn(bench, observer).map(|turn| (observer, turn)));
        rounds.add(&turns.into_iter().collect::<Result<Vec<_>>>()?);
    }
    rounds.measured(bench)
}

impl Observer {
    /// `None` without an agent.
    fn settings(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Nobody | Self::Floor => None,
            Self::Io => Some(&[NO_BUDGET, NO_STDERR, NO_SCHEDULER]),
            Self::Defaults => Some(&[NO_BUDGET]),
            Self::NoIo => Some(&[NO_IO, NO_STDERR]),
        }
    }
}

/// The clock at full speed.
struct Clock {
    step_ns_max: f64,
}

impl Clock {
    fn calibrate(bench: &Bench) -> Result<Self> {
        let mut steps_ns = Vec::new();
        for _ in 0..CALIBRATION_TURNS {
            interrupt::pause(Duration::from_secs(1))?;
            let batches = bench.io_programs.call(bench.plan.io_call_batches)?;
            steps_ns.extend(batches.iter().map(|batch| batch.step_ns));
        }
        // Not the least of all: one lucky step would leave everything else out.
        Ok(Self { step_ns_max: FULL_SPEED_FACTOR_MAX * percentile(&steps_ns, 5) })
    }

    /// One turn under an observer; `None` if the clock stayed slow.
    fn turn(&self, bench: &Bench, observer: Observer) -> Result<Option<CallsNs>> {
        let Some(settings) = observer.settings() else {
            let _hooks = match observer {
                Observer::Floor => Some(bench.io_programs.hook_empty()?),
                _ => None,
            };
            return self.call(bench);
        };
        let mut agent = Agent::start_with(bench, FREQUENCY_HZ, settings)?;
        agent.run_for(bench.plan.settle)?;
        let turn = self.call(bench)?;
        agent.stop(bench)?;
        Ok(turn)
    }

    fn call(&self, bench: &Bench) -> Result<Option<CallsNs>> {
        for _ in 0..ATTEMPTS_MAX {
            interrupt::check()?;
            let turn = self.medians(&bench.io_programs.call(bench.plan.io_call_batches)?);
            if turn.is_some() {
                return Ok(turn);
            }
        }
        Ok(None)
    }

    /// Medians of the batches at full speed; `None` if those are too few.
    fn medians(&self, batches: &[Batch]) -> Option<CallsNs> {
        let fast: Vec<&Batch> = batches.iter().filter(|batch| batch.step_ns <= self.step_ns_max).collect();
        if fast.len() * FULL_SPEED_ONE_OF < batches.len() {
            return None;
        }
        let mut medians = CallsNs::default();
        for (call, median) in medians.iter_mut().enumerate() {
            let calls_ns: Vec<f64> = fast.iter().map(|batch| batch.calls_ns[call]).collect();
            *median = Spread::of(&calls_ns)?.median;
        }
        Some(medians)
    }
}

/// What the rounds gave, by call and then by round.
#[derive(Default)]
struct Rounds {
    nobody_ns: [Vec<f64>; CALLS.len()],
    /// Above nobody.
    floor_ns: [Vec<f64>; CALLS.len()],
    /// Above the floor, by [`AGENTS`].
    agents_ns: [[Vec<f64>; CALLS.len()]; AGENTS.len()],
    /// Turns without the clock at full speed.
    slow_turns: usize,
}

impl Rounds {
    fn add(&mut self, round: &[(Observer, Option<CallsNs>)]) {
        self.slow_turns += round.iter().filter(|(_, turn)| turn.is_none()).count();
        // Nobody stands at the ends, each beside a floor; an agent between two floors.
        for pair in round.windows(2) {
            let (Some(nobody), Some(floor)) = (of(pair, Observer::Nobody), of(pair, Observer::Floor)) else {
                continue;
            };
            for call in 0..CALLS.len() {
                self.nobody_ns[call].push(nobody[call]);
                self.floor_ns[call].push(floor[call] - nobody[call]);
            }
        }
        for three in round.windows(3) {
            let &[(Observer::Floor, Some(before)), (observer, Some(with)), (Observer::Floor, Some(after))] =
                three
            else {
                continue;
            };
            let agents = AGENTS.iter().zip(&mut self.agents_ns);
            for (_, above_ns) in agents.filter(|((agent, _), _)| *agent == observer) {
                for (call, above_ns) in above_ns.iter_mut().enumerate() {
                    above_ns.push(with[call] - (before[call] + after[call]) / 2.0);
                }
            }
        }
    }

    /// The most that an agent adds to a read or a write: every call but the first, which does no I/O.
    fn worst_ns(&self, agent: usize) -> Result<f64> {
        let medians = self.agents_ns[agent].iter().skip(1).map(|above_ns| Some(Spread::of(above_ns)?.median));
        let medians = medians.collect::<Option<Vec<f64>>>();
        let medians =
            medians.with_context(|| format!("the clock was never at full speed: {}", AGENTS[agent].1))?;
        Ok(percentile(&medians, 100))
    }

    fn measured(&self, bench: &Bench) -> Result<Measured> {
        let [io_ns, defaults_ns, no_io_ns] = [self.worst_ns(0)?, self.worst_ns(1)?, self.worst_ns(2)?];
        let text = format!(
            "Nanoseconds per call on one CPU at its full clock speed: medians over {} rounds of what a round's turn was \
             above the turns beside it, least and most in brackets; a turn is the median of {} batches. The floor is an \
             empty BPF program at `sys_enter` and `sys_exit`, above nobody; the agents are above the floor. I/O alone, \
             which has the target for reads and writes: `{NO_STDERR} {NO_SCHEDULER}`; without I/O: `{NO_IO} {NO_STDERR}`. \
             Turns left out, because the clock stayed slow: {}.\n\n{}",
            bench.plan.io_call_rounds,
            bench.plan.io_call_batches,
            self.slow_turns,
            self.table()?,
        );
        Ok(Measured {
            summary: format!(
                "a read or a write at most {io_ns:+.0} ns above the floor (defaults {defaults_ns:+.0}, without I/O \
                 {no_io_ns:+.0})"
            ),
            is_met: Some(io_ns <= TARGET_NS_MAX),
            text,
        })
    }

    fn table(&self) -> Result<String> {
        let header: Vec<&str> =
            ["call", "nobody", "floor"].into_iter().chain(AGENTS.iter().map(|(_, name)| *name)).collect();
        let mut rows = Vec::new();
        for (call, name) in CALLS.iter().enumerate() {
            let columns = [&self.nobody_ns, &self.floor_ns].into_iter().chain(&self.agents_ns);
            let cell = |of_calls: &[Vec<f64>; CALLS.len()]| Some(Spread::of(&of_calls[call])?.text(0));
            let cells = columns.map(cell).collect::<Option<Vec<_>>>();
            let cells = cells.context("the clock was never at full speed")?;
            rows.push(std::iter::once((*name).to_owned()).chain(cells).collect());
        }
        Ok(table(&header, &rows))
    }
}

/// The turn of an observer among neighbours.
fn of(turns: &[(Observer, Option<CallsNs>)], wanted: Observer) -> Option<CallsNs> {
    turns.iter().find(|(observer, _)| *observer == wanted)?.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(step_ns: f64, call_ns: f64) -> Batch {
        Batch { step_ns, calls_ns: [call_ns; CALLS.len()] }
    }

    #[test]
    fn only_batches_at_full_speed_count() {
        let clock = Clock { step_ns_max: 1.05 };
        let check = |batches: &[Batch], expected: Option<f64>| {
            assert_eq!(clock.medians(batches).map(|medians| medians[3]), expected);
        };
        check(&[batch(1.0, 100.0), batch(1.2, 500.0), batch(1.05, 104.0)], Some(102.0));
        check(&[batch(1.2, 500.0); 3], None);
        check(&[[batch(1.2, 500.0); 5].as_slice(), &[batch(1.0, 100.0)]].concat(), None);
        check(&[], None);
    }

    fn round(ns: [f64; TURNS.len()]) -> Vec<(Observer, Option<CallsNs>)> {
        TURNS.into_iter().zip(ns).map(|(observer, ns)| (observer, Some([ns; CALLS.len()]))).collect()
    }

    #[test]
    fn agents_are_above_the_floors_beside_them_in_either_order() {
        let mut turns = round([100.0, 180.0, 270.0, 200.0, 300.0, 200.0, 210.0, 220.0, 110.0]);
        for _ in 0..2 {
            let mut rounds = Rounds::default();
            rounds.add(&turns);
            assert_eq!(rounds.agents_ns.each_ref().map(|agent| agent[1].clone()), [[80.0], [100.0], [0.0]]);
            let mut floor_ns = rounds.floor_ns[0].clone();
            floor_ns.sort_by(f64::total_cmp);
            assert_eq!(floor_ns, [80.0, 110.0]);
            turns.reverse();
        }
    }

    #[test]
    fn a_slow_turn_takes_its_neighbours_along_and_nobody_else() {
        let mut turns = round([100.0; TURNS.len()]);
        turns[3].1 = None;
        let mut rounds = Rounds::default();
        rounds.add(&turns);
        assert_eq!(rounds.agents_ns.each_ref().map(|agent| agent[0].len()), [0, 0, 1]);
        assert_eq!(rounds.slow_turns, 1);
        assert!(rounds.worst_ns(0).is_err());
        assert_eq!(rounds.worst_ns(2).expect("one round"), 0.0);
    }

    #[test]
    fn the_order_is_the_same_in_reverse() {
        let mut reversed = TURNS.map(|observer| observer.settings().is_some());
        reversed.reverse();
        assert_eq!(reversed, TURNS.map(|observer| observer.settings().is_some()));
    }
}
