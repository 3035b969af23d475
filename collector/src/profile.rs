//! The on-CPU profile signal: samples of a window, aggregated by process, thread name and stack.
//!
//! Addresses become places (file and offset, kernel address, JIT address) at the first sample of a stack, while the
//! process's maps are those of the sample's time. Requests are known later than samples: until then a sample keeps when it was,
//! and on which thread. Refuses: symbols, clocks, I/O.

use std::collections::HashMap;
use std::sync::Arc;

use collector_common::event::Task;
use collector_common::profile::Sample;

use crate::arch::is_user_code_address;
use crate::flow::Serving;
use crate::identity::Subject;
use crate::loss::{Ledger, LossReason, Signal};
use crate::process::{CodeMap, Module, Place, Process, comm};
use crate::telemetry::{ProcessName, SpanContext};

/// Samples of a window whose requests are looked for (1 MiB); what is beyond has none, and is counted.
const MOMENTS_MAX: usize = 65_536;

/// A code address, resolved as far as it can be without reading files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// An address in the kernel.
    Kernel(u64),
    /// An address in a file.
    File {
        /// The file.
        module: Arc<Module>,
        /// Offset in the file, bytes.
        offset: u64,
    },
    /// An address in the kernel's shared object, from its start.
    Vdso(u64),
    /// An address that no file covers: code made by a runtime, or unknown.
    Anonymous(u64),
}

impl Frame {
    /// A user address, given the code of its process.
    pub fn of_user(address: u64, maps: &CodeMap) -> Self {
        match maps.place(address) {
            Some(Place::File { module, offset }) => Self::File { module, offset },
            Some(Place::Vdso { offset }) => Self::Vdso(offset),
            Some(Place::Anonymous) | None => Self::Anonymous(address),
        }
    }
}

/// The address to look up for the frame at `index`. All but the innermost hold return addresses: one byte less is in the
/// call, which may be the last instruction of its function.
pub fn called_from(index: usize, address: u64) -> u64 {
    if index == 0 { address } else { address.saturating_sub(1) }
}

/// When a thread was on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The thread's id in the initial PID namespace.
    pub thread: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
}

/// One distinct stack.
#[derive(Debug)]
pub struct Stack {
    /// The process.
    pub process: Arc<ProcessName>,
    /// Whose it is.
    pub subject: Arc<Subject>,
    /// Name of the thread.
    pub thread_name: Arc<str>,
    /// Kernel frames, then user frames, leaf first.
    pub frames: Vec<Frame>,
    /// How many samples.
    pub count: u64,
    /// The requests that were served in some of the samples, one for each of these.
    pub spans: Vec<SpanContext>,
    /// Samples whose request may be known later.
    pub moments: Vec<Moment>,
}

impl Stack {
    /// The samples by the request that was served in them: how many in which one, and in none.
    pub fn by_span(&mut self) -> Vec<(Option<SpanContext>, u64)> {
        self.spans.sort_unstable();
        let of_none = self.count.saturating_sub(self.spans.len() as u64);
        let of_spans = self.spans.chunk_by(PartialEq::eq).map(|same| (Some(same[0]), same.len() as u64));
        (of_none > 0).then_some((None, of_none)).into_iter().chain(of_spans).collect()
    }

    /// Looks for the requests of the samples.
    fn join(&mut self, serving: impl Fn(Moment) -> Serving) {
        let Self { spans, moments, .. } = self;
        moments.retain(|moment| match serving(*moment) {
            Serving::Later => true,
            Serving::Nothing => false,
            Serving::Known(span) => {
                spans.push(span);
                false
            }
        });
    }
}

/// The samples of one window.
#[derive(Debug)]
pub struct Window {
    /// Start, nanoseconds since the epoch.
    pub start_unix_ns: u64,
    /// Length, nanoseconds.
    pub duration_ns: u64,
    /// CPU time that a sample stands for, nanoseconds.
    pub period_ns: u64,
    /// The distinct stacks.
    pub stacks: Vec<Stack>,
}

impl Window {
    /// Samples in the window.
    pub fn sample_count(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.count).sum()
    }

    /// Looks for the requests of the samples, by what a thread served at some time. Whether none may be found any more.
    pub fn join(&mut self, serving: impl Fn(Moment) -> Serving) -> bool {
        self.stacks.iter_mut().for_each(|stack| stack.join(&serving));
        self.stacks.iter().all(|stack| stack.moments.is_empty())
    }
}

/// The window that is being filled.
pub struct Profile {
    stacks: HashMap<Key, Stack>,
    thread_names: HashMap<[u8; 16], Arc<str>>,
    period_ns: u64,
    stacks_max: usize,
    moments: Moments,
    ledger: Arc<Ledger>,
}

/// What makes a stack distinct. The generation changes when addresses of the process get another meaning.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    tgid: u32,
    start_ticks: u64,
    generation: u32,
    thread_name: [u8; 16],
    user_frames: u16,
    addresses: Box<[u64]>,
}

impl Profile {
    /// A first, empty window, of at most so many distinct stacks (about 1.3 KiB each at 40 frames). `has_spans` says whether
    /// samples are joined with their requests.
    pub fn new(frequency_hz: u32, stacks_max: usize, has_spans: bool, ledger: Arc<Ledger>) -> Self {
        let period_ns = 1_000_000_000 / u64::from(frequency_hz.max(1));
        Self {
            stacks: HashMap::new(),
            thread_names: HashMap::new(),
            period_ns,
            stacks_max,
            moments: Moments::new(if has_spans { MOMENTS_MAX } else { 0 }),
            ledger,
        }
    }

    /// Adds a sample.
    pub fn observe(&mut self, sample: &Sample<'_>, process: &Process) {
        let key = Key {
            tgid: process.tgid,
            start_ticks: process.start_ticks,
            generation: process.maps.generation(),
            thread_name: sample.head.task.comm,
            user_frames: sample.head.user_frames,
            addresses: sample.user_stack.iter().chain(sample.kernel_stack).copied().collect(),
        };
        let moment = Moment { thread: sample.head.task.tid, time_ns: sample.head.head.time_ns };
        let moment = self.moments.take().then_some(moment);
        if let Some(stack) = self.stacks.get_mut(&key) {
            stack.count += 1;
            stack.moments.extend(moment);
        } else if self.stacks.len() >= self.stacks_max {
            self.ledger.lost(Signal::Profile, LossReason::WindowFull, 1);
            return;
        } else {
            let stack = Stack {
                process: Arc::clone(&process.name),
                subject: Arc::clone(&process.subject),
                thread_name: self.thread_name(&sample.head.task),
                frames: frames(sample, process),
                count: 1,
                spans: Vec::new(),
                moments: moment.into_iter().collect(),
            };
            self.stacks.insert(key, stack);
        }
        self.ledger.represented(Signal::Profile, 1);
    }

    /// Looks for the requests of the samples so far, before those who know them forget.
    pub fn join(&mut self, serving: impl Fn(Moment) -> Serving) {
        self.stacks.values_mut().for_each(|stack| stack.join(&serving));
    }

    /// Samples since the start whose request was not looked for, because their window had too many.
    pub fn samples_of_unknown_requests(&self) -> u64 {
        self.moments.refused
    }

    /// Ends the window and starts the next one.
    pub fn flush(&mut self, start_unix_ns: u64, duration_ns: u64) -> Window {
        self.thread_names.clear();
        self.moments.renew();
        let stacks = std::mem::take(&mut self.stacks).into_values().collect();
        Window { start_unix_ns, duration_ns, period_ns: self.period_ns, stacks }
    }

    fn thread_name(&mut self, task: &Task) -> Arc<str> {
        let name = self.thread_names.entry(task.comm).or_insert_with(|| comm(task).into());
        Arc::clone(name)
    }
}

/// How many more samples of the window have their requests looked for.
struct Moments {
    left: usize,
    max: usize,
    /// Samples beyond, of all windows.
    refused: u64,
}

impl Moments {
    /// None at all if `max` is zero; then nobody misses them.
    fn new(max: usize) -> Self {
        Self { left: max, max, refused: 0 }
    }

    fn take(&mut self) -> bool {
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.refused += u64::from(!is_left && self.max > 0);
        is_left
    }

    fn renew(&mut self) {
        self.left = self.max;
    }
}

/// The frames of a sample.
fn frames(sample: &Sample<'_>, process: &Process) -> Vec<Frame> {
    let called_from = |(index, &address): (usize, &u64)| called_from(index, address);
    let kernel = sample.kernel_stack.iter().enumerate().map(called_from).map(Frame::Kernel);
    // Where a function has no frame the walk ends in data: from the first impossible caller on it is no stack.
    let walked = sample.user_stack.iter().enumerate();
    let walked = walked.take_while(|&(index, &address)| index == 0 || is_user_code_address(address));
    let user = walked.map(called_from).map(|address| Frame::of_user(address, &process.maps));
    kernel.chain(user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many moments in each of two windows; expects how many were given and how many were missed.
    fn check(max: usize, samples: usize, expected: (usize, u64)) {
        let mut moments = Moments::new(max);
        let mut given = 0;
        for _window in 0..2 {
            given += (0..samples).filter(|_| moments.take()).count();
            moments.renew();
        }
        assert_eq!((given, moments.refused), expected);
    }

    #[test]
    fn requests_are_looked_for_up_to_a_bound() {
        check(0, 3, (0, 0));
        check(2, 2, (4, 0));
        check(2, 3, (4, 2));
    }
}
