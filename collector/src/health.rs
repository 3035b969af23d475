//! Whether the agent works: signs of life of its threads, and what follows from them for who asks `/readyz` and `/healthz`.
//!
//! Time is an argument. The thread `prometheus` is not here: it is who answers. Refuses: ending or restarting anything. Whoever
//! asks decides.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;

const SECOND_NS: u64 = 1_000_000_000;

/// A pipeline that turns does so ten times a second and more. After this it is not ready, long before it counts as dead.
const TURN_MAX_NS: u64 = 5 * SECOND_NS;

/// How often a runtime's thread shows that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// A thread of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Drains the kernel's rings.
    Pipeline,
    /// Names frames: of a window of many new files, for minutes.
    Symbolizer,
    /// Makes records of deaths, likewise.
    Crash,
    /// Collects metrics.
    Metrics,
    /// Finds the pods of containers.
    Names,
    /// Sends to the backend.
    Export,
    /// Scrapes applications.
    Scrape,
    /// Takes part in the election, and leads.
    Cluster,
}

/// The signs of life of all threads. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_hooked: AtomicBool,
    is_stopping: AtomicBool,
    pulses: [AtomicU64; Part::ALL.len()],
}

/// What a pulse holds besides the time of a sign of life: the thread was not started, it waits for work, it has ended.
const ABSENT: u64 = 0;
const WAITS: u64 = 1;
const ENDED: u64 = u64::MAX;

/// One thread's part; when it goes, the thread has ended.
#[derive(Debug)]
pub struct Pulse {
    health: Health,
    part: Part,
}

impl Part {
    const ALL: [Self; 8] = [
        Self::Pipeline,
        Self::Symbolizer,
        Self::Crash,
        Self::Metrics,
        Self::Names,
        Self::Export,
        Self::Scrape,
        Self::Cluster,
    ];

    /// The thread's name.
    fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Symbolizer => "symbolize",
            Self::Crash => "crash",
            Self::Metrics => "metrics",
            Self::Names => "names",
            Self::Export => "export",
            Self::Scrape => "scrape",
            Self::Cluster => "cluster",
        }
    }

    /// How long it may work on one thing before it counts as dead.
    fn still_max_ns(self) -> u64 {
        match self {
            Self::Pipeline => 60 * SECOND_NS,
            Self::Metrics | Self::Names | Self::Export | Self::Scrape | Self::Cluster => 120 * SECOND_NS,
            Self::Symbolizer | Self::Crash => 600 * SECOND_NS,
        }
    }
}

impl Health {
    /// The programs are in the kernel.
    pub fn set_hooked(&self) {
        self.0.is_hooked.store(true, Relaxed);
    }

    /// The agent stops: its threads end, and that is no fault.
    pub fn set_stopping(&self) {
        self.0.is_stopping.store(true, Relaxed);
    }

    /// A thread starts.
    pub fn start(&self, part: Part) -> Pulse {
        self.pulse(part).store(WAITS, Relaxed);
        Pulse { health: self.clone(), part }
    }

    /// Whether records are taken.
    ///
    /// # Errors
    ///
    /// Why they are not, in one line.
    pub fn ready(&self, now_ns: u64) -> Result<(), String> {
        if self.0.is_stopping.load(Relaxed) {
            return Err("stopping".to_owned());
        }
        self.live(now_ns)?;
        if !self.0.is_hooked.load(Relaxed) {
            return Err("nothing is hooked into the kernel yet".to_owned());
        }
        match self.pulse(Part::Pipeline).load(Relaxed) {
            ABSENT | WAITS => Err("the pipeline has not turned yet".to_owned()),
            beat_ns if now_ns.saturating_sub(beat_ns) > TURN_MAX_NS => {
                Err(still(Part::Pipeline, now_ns, beat_ns))
            }
            _ => Ok(()),
        }
    }

    /// Whether all threads that were started are there and move.
    ///
    /// # Errors
    ///
    /// Which does not, in one line.
    pub fn live(&self, now_ns: u64) -> Result<(), String> {
        let is_stopping = self.0.is_stopping.load(Relaxed);
        for part in Part::ALL {
            match self.pulse(part).load(Relaxed) {
                ABSENT | WAITS => {}
                ENDED if is_stopping => {}
                ENDED => return Err(format!("the thread {} has ended", part.name())),
                beat_ns if now_ns.saturating_sub(beat_ns) > part.still_max_ns() => {
                    return Err(still(part, now_ns, beat_ns));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn pulse(&self, part: Part) -> &AtomicU64 {
        &self.0.pulses[part as usize]
    }
}

impl Pulse {
    /// The thread works, and did not stand still until now.
    pub fn beat(&self, now_ns: u64) {
        self.health.pulse(self.part).store(now_ns.clamp(WAITS + 1, ENDED - 1), Relaxed);
    }

    /// Shows that a thread drives its runtime, as long as none of `tasks` dies: whoever is left of them goes on, but this part of
    /// the agent does not work as it should. Never ends.
    pub async fn beat_with(self, tasks: &mut JoinSet<()>, now_ns: impl Fn() -> u64) -> Infallible {
        self.beat_each(BEAT, tasks, now_ns).await
    }

    async fn beat_each(
        self,
        pause: Duration,
        tasks: &mut JoinSet<()>,
        now_ns: impl Fn() -> u64,
    ) -> Infallible {
        loop {
            self.beat(now_ns());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(Err(error)) = tasks.join_next() => {
                    tracing::error!(%error, thread = self.part.name(), "a task died: please report this");
                    break;
                }
            }
        }
        drop(self);
        std::future::pending().await
    }

    /// The thread waits for work, however long.
    pub fn rest(&self) {
        self.health.pulse(self.part).store(WAITS, Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.health.pulse(self.part).store(ENDED, Relaxed);
    }
}

fn still(part: Part, now_ns: u64, beat_ns: u64) -> String {
    let seconds = now_ns.saturating_sub(beat_ns) / SECOND_NS;
    format!("the thread {} stands still since {seconds} s", part.name())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What happens to an agent, in its order.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Hooked,
        Start(Part),
        Beat(Part, u64),
        Rest(Part),
        End(Part),
        Stopping,
    }

    /// What is said at a second after these steps; `None` for all well.
    fn check(steps: &[Step], at_s: u64, ready: Option<&str>, live: Option<&str>) {
        let health = Health::default();
        let mut pulses: Vec<Pulse> = Vec::new();
        for step in steps {
            let of = |part: Part| pulses.iter().find(|pulse| pulse.part == part).expect("started");
            match *step {
                Step::Hooked => health.set_hooked(),
                Step::Start(part) => pulses.push(health.start(part)),
                Step::Beat(part, time_s) => of(part).beat(time_s * SECOND_NS),
                Step::Rest(part) => of(part).rest(),
                Step::End(part) => pulses.retain(|pulse| pulse.part != part),
                Step::Stopping => health.set_stopping(),
            }
        }
        let said = |result: Result<(), String>| result.err();
        let found = (said(health.ready(at_s * SECOND_NS)), said(health.live(at_s * SECOND_NS)));
        assert_eq!((found.0.as_deref(), found.1.as_deref()), (ready, live), "{steps:?} at {at_s} s");
    }

    #[test]
    fn it_is_ready_once_it_is_hooked_and_turns() {
        use Step::{Beat, Hooked, Start};
        let pipeline = Part::Pipeline;
        check(&[], 9, Some("nothing is hooked into the kernel yet"), None);
        check(&[Hooked, Start(pipeline)], 900, Some("the pipeline has not turned yet"), None);
        check(&[Hooked, Start(pipeline), Beat(pipeline, 10)], 15, None, None);
        check(
            &[Start(pipeline), Beat(pipeline, 10)],
            11,
            Some("nothing is hooked into the kernel yet"),
            None,
        );
    }

    #[test]
    fn a_thread_that_stands_still_is_told() {
        use Step::{Beat, Hooked, Rest, Start};
        let running = [Hooked, Start(Part::Pipeline), Beat(Part::Pipeline, 10)];
        check(&running, 16, Some("the thread pipeline stands still since 6 s"), None);
        let dead = "the thread pipeline stands still since 61 s";
        check(&running, 71, Some(dead), Some(dead));
        // One that works for long, and one that has nothing to do.
        let with = |last| {
            [
                &[Start(Part::Symbolizer), Beat(Part::Symbolizer, 10), last, Start(Part::Pipeline), Hooked][..],
                &[Beat(Part::Pipeline, 700)],
            ]
            .concat()
        };
        check(&with(Beat(Part::Symbolizer, 100)), 700, None, None);
        let dead = "the thread symbolize stands still since 690 s";
        check(&with(Beat(Part::Symbolizer, 10)), 700, Some(dead), Some(dead));
        check(&with(Rest(Part::Symbolizer)), 704, None, None);
    }

    #[test]
    fn a_thread_that_ended_is_told_unless_the_agent_stops() {
        use Step::{Beat, End, Hooked, Start, Stopping};
        let ended =
            [Hooked, Start(Part::Pipeline), Beat(Part::Pipeline, 10), Start(Part::Names), End(Part::Names)];
        let dead = Some("the thread names has ended");
        check(&ended, 11, dead, dead);
        check(&[&ended[..], &[Stopping]].concat(), 11, Some("stopping"), None);
    }

    #[tokio::test]
    async fn a_runtime_lives_as_long_as_its_thread_drives_it_and_no_task_died() {
        const PAUSE: Duration = Duration::from_millis(1);
        for dies in [false, true] {
            let (health, turns) = (Health::default(), Cell::new(0));
            let second = || turns.replace(turns.get() + 1) * SECOND_NS;
            let mut tasks = JoinSet::new();
            tasks.spawn(async {});
            tasks.spawn(std::future::pending());
            tasks.spawn(async move {
                tokio::time::sleep(20 * PAUSE).await;
                assert!(!dies, "as the test wants it");
            });
            let pulse = health.start(Part::Export);
            let mut beat = std::pin::pin!(pulse.beat_each(PAUSE, &mut tasks, second));
            assert!(tokio::time::timeout(300 * PAUSE, &mut beat).await.is_err(), "it never ends");
            let said = |after_s: u64| health.live((turns.get() + after_s) * SECOND_NS).err();
            if dies {
                assert_eq!(said(0).as_deref(), Some("the thread export has ended"));
            } else {
                assert!(turns.get() > 1 && said(0).is_none(), "{} turns", turns.get());
                // Nobody drives the runtime any more.
                assert_eq!(said(130).as_deref(), Some("the thread export stands still since 131 s"));
            }
        }
    }
}
