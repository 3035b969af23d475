//! The two hooks on every system call of the node: attached when [`Duty`] says so, taken away when it does not.
//!
//! An empty program at both ends costs a call more than all that ours do, so it is not enough that they return early.
//! Refuses: to end the agent where a hook cannot be attached again; that is said, and tried again at the next turn.

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use aya::programs::Program;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use collector_common::io::Watch;

use super::duty::{Costs, Duty, Watched, WatchedTime};
use super::map::{Plain, take_map};
use super::trial::{Measured, Trial};

/// How often it is measured at the start what a call costs.
const START_TRIALS: usize = 3;

/// What a call costs where that cannot be measured: about that of BENCHMARKS.md.
const COSTS_DEFAULT: Costs = Costs { returns_ns: 80.0, everything_ns: 220.0, share_max: 0.6 };

/// A program at a tracepoint, that can be taken away and attached again.
pub struct Tap {
    program: String,
    tracepoint: &'static str,
    link: Option<LinkId>,
}

enum LinkId {
    Btf(BtfTracePointLinkId),
    Raw(RawTracePointLinkId),
}

/// How system calls are watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SystemCalls {
    /// For how long what was watched.
    pub time: WatchedTime,
    /// What one call costs.
    pub costs: Costs,
}

/// The hooks and the plan for them.
pub struct SystemCallHooks {
    watch: PerCpuArray<MapData, Plain<Watch>>,
    returns: PerCpuArray<MapData, u64>,
    enter: Option<Tap>,
    exit: Option<Tap>,
    blindness: u32,
    /// What the programs were told, by CPU.
    told: Vec<Watch>,
    duty: Option<Duty>,
    /// Measures what a call costs, where the devices for that are there.
    trial: Option<Trial>,
    measured: Measured,
    /// Returns that each CPU had seen.
    seen: Vec<u64>,
    has_failed: bool,
}

impl Tap {
    /// Attaches a loaded program of either form.
    ///
    /// # Errors
    ///
    /// If the object has no such program, or the kernel refuses.
    pub fn attach(ebpf: &mut Ebpf, program: &str, tracepoint: &'static str) -> Result<Self> {
        let mut tap = Self { program: program.to_owned(), tracepoint, link: None };
        tap.set(ebpf, true)?;
        Ok(tap)
    }

    fn set(&mut self, ebpf: &mut Ebpf, is_wanted: bool) -> Result<()> {
        if self.link.is_some() == is_wanted {
            return Ok(());
        }
        let program = ebpf.program_mut(&self.program);
        match (program, self.link.take()) {
            (Some(Program::BtfTracePoint(program)), None) => self.link = Some(LinkId::Btf(program.attach()?)),
            (Some(Program::RawTracePoint(program)), None) => {
                self.link = Some(LinkId::Raw(program.attach(self.tracepoint)?));
            }
            (Some(Program::BtfTracePoint(program)), Some(LinkId::Btf(link))) => program.detach(link)?,
            (Some(Program::RawTracePoint(program)), Some(LinkId::Raw(link))) => program.detach(link)?,
            _ => bail!("the object has no program {}", self.program),
        }
        Ok(())
    }
}

impl SystemCallHooks {
    /// Takes the maps out of the object. Nothing is watched yet.
    ///
    /// # Errors
    ///
    /// If they are not there or of other types: the object and the daemon do not belong together.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut hooks = Self {
            watch: PerCpuArray::try_from(take_map(ebpf, "WATCH")?)?,
            returns: PerCpuArray::try_from(take_map(ebpf, "RETURNS")?)?,
            enter: None,
            exit: None,
            blindness: 1,
            told: Vec::new(),
            duty: None,
            trial: Trial::open().ok(),
            measured: Measured::default(),
            seen: Vec::new(),
            has_failed: false,
        };
        hooks.seen = vec![0; hooks.returns.get(&0, 0)?.len()];
        hooks.tell(&[]).context("cannot write the map of how system calls are watched")?;
        Ok(hooks)
    }

    /// Begins to watch with hooks that are attached: for I/O if `counts_io`, at returns for others if `wants_returns`. May cost
    /// each CPU `budget_ns` nanoseconds a second; none for no limit.
    pub fn begin(
        &mut self,
        ebpf: &mut Ebpf,
        [enter, exit]: [Option<Tap>; 2],
        counts_io: bool,
        wants_returns: bool,
        budget_ns: Option<f64>,
        now_ns: u64,
    ) {
        (self.enter, self.exit) = (enter, exit);
        if self.exit.is_none() {
            return;
        }
        let most = if counts_io { Watched::Everything } else { Watched::Returns };
        let rest = if counts_io && wants_returns { Watched::Returns } else { Watched::Nothing };
        let costs = self.measure(ebpf, most).unwrap_or(COSTS_DEFAULT);
        tracing::debug!(?costs, "what it costs to watch a system call, in nanoseconds");
        self.new_calls();
        // Nobody looked before: a thread that has never asked an event queue since has 0.
        self.blindness = 0;
        self.set(ebpf, most, &vec![1; self.seen.len()]);
        self.duty = Some(Duty::new(budget_ns, costs, most, rest, now_ns));
    }

    /// Watches what the plan wants now; returns whether standard error is watched.
    pub fn turn(&mut self, ebpf: &mut Ebpf, now_ns: u64) -> bool {
        let calls = self.new_calls();
        let Some(duty) = &mut self.duty else { return true };
        let before = duty.watched();
        let watched = duty.turn(now_ns, &calls);
        let weights: Vec<u32> = duty.weights().collect();
        if before == Watched::Nothing && watched == duty.most() {
            let _learned = self.measure_again(ebpf, watched);
        }
        self.set(ebpf, watched, &weights);
        watched != Watched::Nothing
    }

    /// How they are watched; `None` if they are not at all.
    pub fn report(&self) -> Option<SystemCalls> {
        self.duty.as_ref().map(|duty| SystemCalls { time: duty.time(), costs: duty.costs() })
    }

    /// Calls since the last time, by CPU.
    fn new_calls(&mut self) -> Vec<u64> {
        let Ok(returns) = self.returns.get(&0, 0) else { return vec![0; self.seen.len()] };
        let calls = returns.iter().zip(&self.seen).map(|(now, seen)| now.saturating_sub(*seen)).collect();
        self.seen.copy_from_slice(&returns);
        calls
    }

    /// Attaches and takes away, so that nobody is told that calls are watched which are not.
    fn set(&mut self, ebpf: &mut Ebpf, watched: Watched, weights: &[u32]) {
        let result = self.try_set(ebpf, watched, weights);
        if let Err(error) = &result
            && !self.has_failed
        {
            tracing::warn!(%error, "cannot change how system calls are watched");
        }
        self.has_failed = result.is_err();
    }

    fn try_set(&mut self, ebpf: &mut Ebpf, watched: Watched, weights: &[u32]) -> Result<()> {
        let [wants_exit, wants_enter] = [watched != Watched::Nothing, watched == Watched::Everything];
        let is_blind = |hooks: &Self| hooks.blindness % 2 == 1;
        if !wants_exit && !is_blind(self) {
            self.blindness += 1;
        }
        if !wants_enter {
            self.tell(&[])?;
        }
        for (tap, is_wanted) in [(&mut self.exit, wants_exit), (&mut self.enter, wants_enter)] {
            if let Some(tap) = tap {
                tap.set(ebpf, is_wanted)?;
            }
        }
        if wants_exit && is_blind(self) {
            self.blindness += 1;
        }
        self.tell(if wants_enter { weights } else { &[] })
    }

    /// Tells the programs what calls of each CPU stand for, if that is news: nothing without weights.
    fn tell(&mut self, weights: &[u32]) -> Result<()> {
        let weights = weights.iter().copied().chain(std::iter::repeat(0)).take(self.seen.len());
        let watches: Vec<Watch> = weights.map(|weight| Watch { weight, blindness: self.blindness }).collect();
        if watches != self.told {
            let values = watches.iter().copied().map(Plain).collect::<Vec<_>>();
            self.watch.set(0, PerCpuValues::try_from(values)?, 0)?;
            self.told = watches;
        }
        Ok(())
    }

    /// What a call costs, before the plan begins.
    fn measure(&mut self, ebpf: &mut Ebpf, most: Watched) -> Option<Costs> {
        let mut returns = Measured::default();
        for _ in 0..START_TRIALS {
            let free_ns = self.try_call(ebpf, Watched::Nothing)?;
            let returns_ns = self.try_call(ebpf, Watched::Returns)?;
            returns.add(free_ns, returns_ns);
            let most_ns = if most == Watched::Returns { returns_ns } else { self.try_call(ebpf, most)? };
            self.measured.add(free_ns, most_ns);
        }
        let most = self.measured.cost()?;
        Some(Costs { returns_ns: returns.cost()?.ns, everything_ns: most.ns, share_max: most.share })
    }

    /// Learns what a call costs in this moment, in which the hooks come back; `None` if that cannot be measured.
    fn measure_again(&mut self, ebpf: &mut Ebpf, most: Watched) -> Option<()> {
        let free_ns = self.try_call(ebpf, Watched::Nothing)?;
        let most_ns = self.try_call(ebpf, most)?;
        self.measured.add(free_ns, most_ns);
        self.duty.as_mut()?.learn(self.measured.cost()?);
        Some(())
    }

    /// Nanoseconds of a call while this is watched. These calls are counted like any others, each as one.
    fn try_call(&mut self, ebpf: &mut Ebpf, watched: Watched) -> Option<f64> {
        self.set(ebpf, watched, &vec![1; self.seen.len()]);
        self.trial.as_mut()?.call_ns().ok()
    }
}
