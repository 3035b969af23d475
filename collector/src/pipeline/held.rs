//! Flushes that wait until the pods of new containers are known, so that no record goes out under half a name, and until the
//! requests have ended that were served in their samples.
//!
//! How long is said by each pod's place, and by `SPAN_WAIT_NS`. What waited goes on together, and may have to wait for the one who
//! takes it. Refuses: more than `FLUSHES_MAX`; then the oldest goes as it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Flush;
use crate::flow::Serving;
use crate::identity::Subject;
use crate::profile::Moment;

/// Flushes that wait: two of the usual length.
const FLUSHES_MAX: usize = 4;

/// How long samples wait for the requests that go on.
const SPAN_WAIT_NS: u64 = 5_000_000_000;

/// Flushes in their order, with when they ended.
#[derive(Default)]
pub struct Held {
    flushes: VecDeque<(u64, Flush)>,
}

impl Held {
    /// Takes a flush that ended now.
    pub fn push(&mut self, now_ns: u64, flush: Flush) {
        self.flushes.push_back((now_ns, flush));
    }

    /// The next flush that need not wait any more; at `u64::MAX` any.
    pub fn next(&mut self, now_ns: u64, serving: impl Fn(Moment) -> Serving) -> Option<Flush> {
        let (ended_ns, flush) = self.flushes.front_mut()?;
        let is_joined = flush.window.join(serving) || now_ns.saturating_sub(*ended_ns) >= SPAN_WAIT_NS;
        let is_named = !subjects(flush).any(|(subject, _)| subject.pod.is_awaited(now_ns));
        if self.flushes.len() <= FLUSHES_MAX && !(is_joined && is_named) {
            return None;
        }
        self.flushes.pop_front().map(|(_, flush)| flush)
    }

    /// Takes back the flush that was given last, for which there was no room.
    ///
    /// # Errors
    ///
    /// The flush itself, if there is no room here either.
    pub fn give_back(&mut self, flush: Flush) -> Result<(), Flush> {
        if self.flushes.len() >= FLUSHES_MAX {
            return Err(flush);
        }
        // It waited for its requests already.
        self.flushes.push_front((0, flush));
        Ok(())
    }
}

/// Records of pods that have their names, and that have not.
pub fn by_name(flush: &Flush) -> (u64, u64) {
    let (mut named, mut unnamed) = (0, 0);
    for (subject, records) in subjects(flush).filter(|(subject, _)| subject.pod.is_expected()) {
        *(if subject.pod().is_some() { &mut named } else { &mut unnamed }) += records;
    }
    (named, unnamed)
}

/// Whose the records are, and how many they are.
fn subjects(flush: &Flush) -> impl Iterator<Item = (&Arc<Subject>, u64)> {
    let samples = flush.window.stacks.iter().map(|stack| (&stack.subject, stack.count));
    let operations = flush.slow_operations.iter().map(|pending| (&pending.operation.subject, 1));
    samples.chain(operations).chain(flush.spans.iter().map(|span| (&span.subject, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Choice, Facts, LatePod, Pod};
    use crate::profile::{Stack, Window};
    use crate::telemetry::{ProcessName, SpanContext};

    fn flush(pod: &LatePod) -> Flush {
        let process = ProcessName { pid: 1, executable_name: "a".into(), executable_path: None };
        let stack = Stack {
            process: Arc::new(process),
            subject: Arc::new(Subject { pod: pod.clone(), ..Subject::named("a") }),
            thread_name: "a".into(),
            frames: Vec::new(),
            count: 3,
            spans: Vec::new(),
            moments: vec![Moment { thread: 7, time_ns: 1 }],
        };
        let window = Window { start_unix_ns: 0, duration_ns: 1, period_ns: 1, stacks: vec![stack] };
        Flush { window, slow_operations: Vec::new(), spans: Vec::new() }
    }

    /// The next flush, where no thread serves anything.
    fn next(held: &mut Held, now_ns: u64) -> Option<Flush> {
        held.next(now_ns, |_| Serving::Nothing)
    }

    #[test]
    fn a_flush_waits_for_its_names_and_the_next_for_it() {
        let (late, never) = (LatePod::awaited(50), LatePod::awaited(50));
        let mut held = Held::default();
        held.push(1, flush(&late));
        held.push(1, flush(&never));
        assert!(next(&mut held, 49).is_none());
        late.tell(Pod::of(&Facts::of_pod("shop", "cart", "1", "web"), &Choice::default()));
        assert_eq!(next(&mut held, 49).as_ref().map(by_name), Some((3, 0)));
        assert!(next(&mut held, 49).is_none());
        assert_eq!(next(&mut held, 50).as_ref().map(by_name), Some((0, 3)));
    }

    #[test]
    fn samples_wait_for_their_requests() {
        let span = SpanContext { trace_id: [1; 16], span_id: [2; 8] };
        let moment = Moment { thread: 7, time_ns: 1 };
        let mut held = Held::default();
        (0..3).for_each(|_| held.push(1, flush(&LatePod::default())));
        let mut next = |now_ns, serving| {
            let told = |asked| if asked == moment { serving } else { Serving::Nothing };
            let mut flush = held.next(now_ns, told)?;
            Some(flush.window.stacks[0].by_span())
        };
        assert_eq!(next(2, Serving::Later), None);
        assert_eq!(next(2, Serving::Known(span)), Some(vec![(None, 2), (Some(span), 1)]));
        assert_eq!(next(2, Serving::Nothing), Some(vec![(None, 3)]));
        assert_eq!(next(SPAN_WAIT_NS, Serving::Later), None);
        assert_eq!(next(SPAN_WAIT_NS + 1, Serving::Later), Some(vec![(None, 3)]));
    }

    #[test]
    fn too_many_wait() {
        let mut held = Held::default();
        for _ in 0..=FLUSHES_MAX {
            held.push(1, flush(&LatePod::awaited(50)));
        }
        assert!(next(&mut held, 1).is_some());
        assert!(next(&mut held, 1).is_none());
    }

    #[test]
    fn what_finds_no_room_is_first_again() {
        let mut held = Held::default();
        (0..=FLUSHES_MAX).for_each(|_| held.push(1, flush(&LatePod::default())));
        let first = next(&mut held, 2).expect("one is due");
        assert!(held.give_back(first).is_err(), "there are as many as may wait");
        let mut second = next(&mut held, 2).expect("one is due");
        second.window.duration_ns = 77;
        assert!(held.give_back(second).is_ok());
        let again = held.next(2, |_| Serving::Later).expect("it does not wait again");
        assert_eq!(again.window.duration_ns, 77);
    }
}
