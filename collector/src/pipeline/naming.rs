//! Flushes that wait until the pods of new containers are known, so that no record goes out under half a name.
//!
//! How long is said by each pod's place. Refuses: more than `FLUSHES_MAX`; then the oldest goes as it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Flush;
use crate::identity::{NameStats, Subject};

/// Flushes that wait: two of the usual length.
const FLUSHES_MAX: usize = 4;

/// Flushes in their order.
#[derive(Default)]
pub struct Naming {
    waiting: VecDeque<Flush>,
}

impl Naming {
    /// Takes a flush.
    pub fn push(&mut self, flush: Flush) {
        self.waiting.push_back(flush);
    }

    /// The next flush that need not wait any more; at `u64::MAX` any. Counts what has its name.
    pub fn next(&mut self, now_ns: u64, stats: &NameStats) -> Option<Flush> {
        let is_due = |flush: &Flush| !subjects(flush).any(|(subject, _)| subject.pod.is_awaited(now_ns));
        if self.waiting.len() <= FLUSHES_MAX && !self.waiting.front().is_some_and(is_due) {
            return None;
        }
        let flush = self.waiting.pop_front()?;
        let (mut named, mut unnamed) = (0, 0);
        for (subject, records) in subjects(&flush).filter(|(subject, _)| subject.pod.is_expected()) {
            *(if subject.pod().is_some() { &mut named } else { &mut unnamed }) += records;
        }
        stats.count_records(named, unnamed);
        Some(flush)
    }
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
    use crate::telemetry::ProcessName;

    fn flush(pod: &LatePod) -> Flush {
        let process = ProcessName { pid: 1, executable_name: "a".into(), executable_path: None };
        let stack = Stack {
            process: Arc::new(process),
            subject: Arc::new(Subject { pod: pod.clone(), ..Subject::named("a") }),
            thread_name: "a".into(),
            frames: Vec::new(),
            count: 3,
        };
        let window = Window { start_unix_ns: 0, duration_ns: 1, period_ns: 1, stacks: vec![stack] };
        Flush { window, slow_operations: Vec::new(), spans: Vec::new() }
    }

    #[test]
    fn a_flush_waits_for_its_names_and_the_next_for_it() {
        let stats = NameStats::default();
        let (late, never) = (LatePod::awaited(50), LatePod::awaited(50));
        let mut naming = Naming::default();
        naming.push(flush(&late));
        naming.push(flush(&never));
        assert!(naming.next(49, &stats).is_none());
        late.tell(Pod::of(&Facts::of_pod("shop", "cart", "1", "web"), &Choice::default()));
        assert!(naming.next(49, &stats).is_some());
        assert!(naming.next(49, &stats).is_none());
        assert!(naming.next(50, &stats).is_some());
        assert_eq!(stats.records(), (3, 3));
    }

    #[test]
    fn too_many_wait() {
        let mut naming = Naming::default();
        for _ in 0..=FLUSHES_MAX {
            naming.push(flush(&LatePod::awaited(50)));
        }
        assert!(naming.next(1, &NameStats::default()).is_some());
        assert!(naming.next(1, &NameStats::default()).is_none());
    }
}
