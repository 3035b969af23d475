//! When system calls are watched, so that watching them costs the node no more than it may.
//!
//! As long as the node can afford it, always. Else time is cut into cycles of a second, and calls are counted in a part of each, at
//! a place that changes from cycle to cycle so that no period of the node's work hides; what is seen there stands for all
//! time since the part before. How long the parts are follows the load of the cycles before, not what is being seen, or busy
//! moments would be cut short and count too little. What the watching takes from a CPU is no time in which anything was seen:
//! a busy program does less meanwhile. Refuses: attaching, and clocks.

use super::trial::Cost;

/// Length of a cycle.
const CYCLE_NS: u64 = 1_000_000_000;

/// Parts of a cycle: calls are counted for a whole number of them. As long as a turn of the pipeline, which decides.
const PARTS: u64 = 10;
const PART_NS: u64 = CYCLE_NS / PARTS;

/// Of what was not spent, so much is kept for later; of what was spent too much, so much is made up for. Seconds of the budget.
const SAVED_MAX_S: f64 = 1.0;
const OWED_MAX_S: f64 = 5.0;

/// How much of the budget the returns alone may take in the time in which I/O is not counted.
const RETURNS_SHARE_MAX: f64 = 0.5;

/// Between the calls of real programs our code and data leave the caches: `dd` on files pays 285 ns where a loop pays 217. The
/// budget is planned with that; how much less a program does meanwhile is not, for who does so much less is such a loop.
const COLD_FACTOR: f64 = 1.3;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// No system call.
    Nothing,
    /// Returns: what programs write to standard error, and that threads ask event queues.
    Returns,
    /// Both ends of all calls.
    Everything,
}

/// What one system call costs more while it is watched, nanoseconds of its CPU, if it is one of many in a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// While returns are watched.
    pub returns_ns: f64,
    /// While everything is watched.
    pub everything_ns: f64,
    /// Share that watching everything takes from a loop that does nothing else: from no program does it take more.
    pub share_max: f64,
}

/// How long what was watched, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchedTime {
    ns: [u64; 3],
}

impl WatchedTime {
    /// For how long no more and no less than this was watched, nanoseconds.
    pub fn of(self, watched: Watched) -> u64 {
        self.ns[watched as usize]
    }
}

/// The plan, and what it follows from.
#[derive(Debug)]
pub struct Duty {
    /// What may be spent, nanoseconds a second; none for no limit.
    budget_ns: Option<f64>,
    costs: Costs,
    /// What there is to watch when everything is, and when it is too much.
    most: Watched,
    rest: Watched,
    saved_ns: f64,
    turn_ns: u64,
    watched: Watched,
    plan: Plan,
    /// Places the parts. Always the same, so that a test is.
    places: fastrand::Rng,
    /// Calls of the busiest CPU, and for how long they were watched, since the plan was made.
    seen: u64,
    seen_ns: u64,
    calls_per_s: f64,
    cpus: Vec<Cpu>,
    time: WatchedTime,
}

/// What the counted calls of a CPU stand for.
#[derive(Clone, Debug)]
struct Cpu {
    /// How many calls each does.
    weight: u32,
    /// Time that none stands for yet.
    owed_ns: f64,
    /// Share of its time that the watching took when it was last watched.
    taken: f64,
}

/// A cycle: calls are counted in `parts` of it.
#[derive(Debug)]
struct Plan {
    start_ns: u64,
    from_ns: u64,
    parts: u64,
    /// What is watched in the rest.
    rest: Watched,
    /// When counting began.
    entered_ns: Option<u64>,
}

impl Duty {
    /// Watches `most` as long as that costs at most `budget_ns` nanoseconds a second, and at least tries to go on with `rest`
    /// beyond that; `None` for no limit.
    pub fn new(budget_ns: Option<f64>, costs: Costs, most: Watched, rest: Watched, now_ns: u64) -> Self {
        Self {
            budget_ns,
            costs,
            most,
            rest,
            saved_ns: budget_ns.unwrap_or(0.0) * SAVED_MAX_S,
            turn_ns: now_ns,
            watched: most,
            plan: Plan { start_ns: now_ns, from_ns: now_ns, parts: PARTS, rest, entered_ns: Some(now_ns) },
            places: fastrand::Rng::with_seed(0),
            seen: 0,
            seen_ns: 0,
            calls_per_s: 0.0,
            cpus: Vec::new(),
            time: WatchedTime::default(),
        }
    }

    /// What to watch from now on. `calls` were seen on each CPU since the last turn.
    pub fn turn(&mut self, now_ns: u64, calls: &[u64]) -> Watched {
        self.cpus.resize(calls.len(), Cpu { weight: 1, owed_ns: 0.0, taken: 0.0 });
        self.account(now_ns, calls);
        let Some(budget_ns) = self.budget_ns else { return self.most };
        let is_over = now_ns.saturating_sub(self.plan.start_ns) >= CYCLE_NS && !self.is_counting(now_ns);
        let part_s = PART_NS as f64 / 1e9;
        if is_over || (self.saved_ns < -budget_ns * part_s && self.plan.parts == PARTS) {
            self.plan(now_ns, budget_ns);
        }
        if self.plan.entered_ns.is_none() && self.plan.parts > 0 && now_ns >= self.plan.from_ns {
            self.plan.entered_ns = Some(now_ns);
            let counted_ns = (self.plan.parts * PART_NS) as f64;
            self.cpus.iter_mut().for_each(|cpu| cpu.enter(counted_ns));
        }
        self.watched = if self.is_counting(now_ns) { self.most } else { self.plan.rest };
        self.watched
    }

    /// What is watched now.
    pub fn watched(&self) -> Watched {
        self.watched
    }

    /// What is watched as long as the node can afford it.
    pub fn most(&self) -> Watched {
        self.most
    }

    /// A call costs so much more while everything that there is to watch is, as was found out since.
    pub fn learn(&mut self, most: Cost) {
        self.costs.everything_ns = most.ns;
        self.costs.share_max = most.share;
        if self.most == Watched::Returns {
            self.costs.returns_ns = most.ns;
        }
    }

    /// How many calls each that is counted stands for, by CPU.
    pub fn weights(&self) -> impl Iterator<Item = u32> {
        self.cpus.iter().map(|cpu| cpu.weight)
    }

    /// How long what was watched so far.
    pub fn time(&self) -> WatchedTime {
        self.time
    }

    /// What one call costs.
    pub fn costs(&self) -> Costs {
        self.costs
    }

    /// Adds up what the time since the last turn cost, and what it stands for.
    fn account(&mut self, now_ns: u64, calls: &[u64]) {
        let elapsed_ns = now_ns.saturating_sub(self.turn_ns);
        self.turn_ns = now_ns;
        self.time.ns[self.watched as usize] += elapsed_ns;
        let cost_ns = self.costs.planned_ns(self.watched);
        let most_calls = calls.iter().copied().max().unwrap_or(0);
        if self.watched != Watched::Nothing {
            self.seen += most_calls;
            self.seen_ns += elapsed_ns;
        }
        let is_counting = self.watched == self.most;
        let least_ns = self.costs.of(self.watched);
        for (cpu, calls) in self.cpus.iter_mut().zip(calls) {
            let taken = *calls as f64 * least_ns / elapsed_ns.max(1) as f64;
            cpu.account(elapsed_ns as f64, is_counting.then_some(taken.min(self.costs.share_max)));
        }
        let budget_ns = self.budget_ns.unwrap_or(0.0);
        self.saved_ns += budget_ns * elapsed_ns as f64 / 1e9 - most_calls as f64 * cost_ns;
        self.saved_ns = self.saved_ns.clamp(-budget_ns * OWED_MAX_S, budget_ns * SAVED_MAX_S);
    }

    /// Makes the plan of the next cycle.
    fn plan(&mut self, now_ns: u64, budget_ns: f64) {
        if self.seen_ns > 0 {
            self.calls_per_s = self.seen as f64 * 1e9 / self.seen_ns as f64;
        }
        (self.seen, self.seen_ns) = (0, 0);
        let a_second_of = |watched| self.calls_per_s * self.costs.planned_ns(watched);
        let rest = match a_second_of(self.rest) <= budget_ns * RETURNS_SHARE_MAX {
            true => self.rest,
            false => Watched::Nothing,
        };
        let part_s = PART_NS as f64 / 1e9;
        let more_ns = (a_second_of(self.most) - a_second_of(rest)) * part_s;
        let spendable_ns = self.saved_ns + budget_ns - a_second_of(rest);
        let parts = if more_ns > 0.0 { (spendable_ns / more_ns).max(0.0) as u64 } else { PARTS };
        // One part may cost more than a cycle earns and may save up.
        let has_saved_all = self.saved_ns >= budget_ns * SAVED_MAX_S;
        let parts = parts.clamp(u64::from(has_saved_all), PARTS);
        let from_ns = now_ns + self.places.u64(0..=PARTS - parts) * PART_NS;
        self.plan = Plan { start_ns: now_ns, from_ns, parts, rest, entered_ns: None };
    }

    /// A turn that comes a little early ends the counting too.
    fn is_counting(&self, now_ns: u64) -> bool {
        let counted_ns = (self.plan.parts * PART_NS).saturating_sub(PART_NS / 20);
        self.plan.entered_ns.is_some_and(|entered_ns| now_ns.saturating_sub(entered_ns) < counted_ns)
    }
}

impl Costs {
    /// What a call is taken to cost when the budget is spent, nanoseconds.
    pub fn planned_ns(self, watched: Watched) -> f64 {
        self.of(watched) * COLD_FACTOR
    }

    fn of(self, watched: Watched) -> f64 {
        match watched {
            Watched::Nothing => 0.0,
            Watched::Returns => self.returns_ns,
            Watched::Everything => self.everything_ns,
        }
    }
}

impl Cpu {
    /// Counting begins, for so long.
    fn enter(&mut self, counted_ns: f64) {
        let seen_ns = counted_ns * (1.0 - self.taken);
        self.weight = ((self.owed_ns + counted_ns) / seen_ns).round().max(1.0) as u32;
    }

    /// So much time went by; if calls were counted, the watching took a share of it. Where all calls are counted they stand for
    /// themselves.
    fn account(&mut self, elapsed_ns: f64, taken: Option<f64>) {
        let Some(taken) = taken else {
            self.owed_ns += elapsed_ns;
            return;
        };
        self.taken = taken;
        if self.weight > 1 {
            self.owed_ns += elapsed_ns - f64::from(self.weight) * elapsed_ns * (1.0 - self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { returns_ns: 75.0, everything_ns: 200.0, share_max: 0.8 };

    /// Two percent of a CPU: 20 ms a second.
    const BUDGET_NS: f64 = 20e6;

    /// What a simulated node had.
    #[derive(Debug)]
    struct Found {
        /// Estimated calls by real ones.
        estimate: f64,
        /// What was spent, nanoseconds a second.
        spent_ns: f64,
        /// Share of the time by what was watched.
        shares: [f64; 3],
    }

    /// A node with so many calls a second at each second, with turns of `turn_ns`.
    fn simulate(budget_ns: Option<f64>, rest: Watched, calls_per_s: &[u64], turn_ns: u64) -> Found {
        simulate_measured(COSTS, budget_ns, rest, calls_per_s, turn_ns)
    }

    /// Likewise, where the trial found other costs than there are.
    fn simulate_measured(
        measured: Costs,
        budget_ns: Option<f64>,
        rest: Watched,
        calls_per_s: &[u64],
        turn_ns: u64,
    ) -> Found {
        let mut duty = Duty::new(budget_ns, measured, Watched::Everything, rest, 0);
        let mut watched = Watched::Everything;
        let (mut now_ns, mut real, mut estimated, mut spent_ns) = (0, 0.0, 0.0, 0.0);
        for &rate in calls_per_s {
            let end_ns = now_ns + 1_000_000_000;
            while now_ns < end_ns {
                now_ns += turn_ns;
                // The node is busy: what the watching takes is missing for the work.
                let cost_ns = COSTS.of(watched);
                let calls = turn_ns as f64 / (1e9 / rate as f64 + cost_ns);
                real += rate as f64 * turn_ns as f64 / 1e9;
                spent_ns += calls * cost_ns;
                let seen = if watched == Watched::Nothing { 0.0 } else { calls };
                let weight = duty.weights().next().unwrap_or(1);
                let counted = if watched == Watched::Everything { f64::from(weight) } else { 0.0 };
                estimated += counted * calls;
                watched = duty.turn(now_ns, &[seen as u64]);
            }
        }
        let shares = duty.time().ns.map(|ns| ns as f64 / now_ns as f64);
        Found { estimate: estimated / real, spent_ns: spent_ns * 1e9 / now_ns as f64, shares }
    }

    fn check(calls_per_s: &[u64], turn_ms: u64, rest: Watched, error_max: f64, watched_min: [f64; 3]) {
        let found = simulate(Some(BUDGET_NS), rest, calls_per_s, turn_ms * 1_000_000);
        assert!((found.estimate - 1.0).abs() <= error_max, "{found:?}");
        assert!(found.spent_ns <= BUDGET_NS * 1.15, "{found:?}");
        assert!(found.shares.iter().zip(watched_min).all(|(share, min)| *share >= min), "{found:?}");
    }

    #[test]
    fn what_the_node_can_afford_is_exact() {
        for calls_per_s in [0, 1000, 70_000] {
            let found = simulate(Some(BUDGET_NS), Watched::Returns, &[calls_per_s; 60], 100_000_000);
            assert!(calls_per_s == 0 || (0.98..=1.0).contains(&found.estimate), "{found:?}");
            assert_eq!(found.shares, [0.0, 0.0, 1.0]);
        }
    }

    #[test]
    fn without_a_limit_everything_is_watched() {
        let found = simulate(None, Watched::Returns, &[5_000_000; 60], 100_000_000);
        assert_eq!(found.shares, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn what_is_too_much_is_estimated_within_the_budget() {
        for turn_ms in [10, 100, 107] {
            // Returns all the time, and a good part of everything.
            check(&[100_000; 120], turn_ms, Watched::Returns, 0.05, [0.0, 0.2, 0.5]);
            check(&[600_000; 120], turn_ms, Watched::Returns, 0.05, [0.5, 0.0, 0.1]);
            check(&[600_000; 120], turn_ms, Watched::Nothing, 0.05, [0.5, 0.0, 0.1]);
            check(&[4_000_000; 240], turn_ms, Watched::Returns, 0.1, [0.9, 0.0, 0.01]);
        }
    }

    #[test]
    fn a_trial_on_a_slower_cpu_does_not_invent_calls() {
        // A loop of calls of 200 ns, the cheapest there are, that take 400 ns while they are watched; the trial saw 400 and 800.
        let slower = Costs { returns_ns: 150.0, everything_ns: 400.0, share_max: 0.5 };
        let found =
            simulate_measured(slower, Some(BUDGET_NS), Watched::Nothing, &[5_000_000; 240], 100_000_000);
        assert!((found.estimate - 1.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn what_is_learned_counts() {
        let mut duty = Duty::new(Some(BUDGET_NS), COSTS, Watched::Returns, Watched::Nothing, 0);
        duty.learn(Cost { ns: 90.0, share: 0.4 });
        assert_eq!(duty.costs(), Costs { returns_ns: 90.0, everything_ns: 90.0, share_max: 0.4 });
        let mut duty = Duty::new(Some(BUDGET_NS), COSTS, Watched::Everything, Watched::Returns, 0);
        duty.learn(Cost { ns: 300.0, share: 0.7 });
        assert_eq!(duty.costs(), Costs { returns_ns: 75.0, everything_ns: 300.0, share_max: 0.7 });
    }

    #[test]
    fn a_load_that_comes_and_goes_is_estimated() {
        let swinging: Vec<u64> = (0..600u64).map(|second| 50_000 + second * 7919 % 13 * 100_000).collect();
        check(&swinging, 100, Watched::Returns, 0.1, [0.3, 0.0, 0.05]);
    }

    #[test]
    fn a_storm_after_silence_is_not_watched_for_long() {
        let storm: Vec<u64> = [[0; 60].as_slice(), &[2_000_000; 2]].concat();
        let found = simulate(Some(BUDGET_NS), Watched::Returns, &storm, 100_000_000);
        // 0.2 of its 2 seconds.
        assert!(found.spent_ns * 62.0 <= 2_000_000.0 * 0.2 * 200.0, "{found:?}");
    }
}
