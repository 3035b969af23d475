//! Payloads that wait or are in flight, and the one place where their end is reported, exactly once.
//!
//! One lane per signal, so that a signal whose backend is down doesn't hold up the others; one byte budget over all
//! of them. Refuses to wait: over budget, the oldest waiting payloads of any signal give way. A payload in flight is
//! in the budget too but is not taken back, so at the extreme it is the newcomer that goes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{DropReason, Outcome, Payload, Report, Signal};

/// What a payload costs beyond its body. Bounds how many empty ones fit the budget.
const PAYLOAD_OVERHEAD_BYTES: usize = 256;

const SIGNALS: usize = Signal::ALL.len();

/// All lanes. Shared between those who push and the workers.
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    /// Wakes the one worker of each lane.
    arrived: [Notify; SIGNALS],
    /// Signals that somebody exports.
    served: [bool; SIGNALS],
    bytes_max: usize,
    report: Report,
}

/// A payload in its worker's hands. Dropping it unsettled, as a stop does, reports it as `Shutdown`.
pub(super) struct Flight {
    queue: Arc<Queue>,
    payload: Payload,
    settled: bool,
}

#[derive(Default)]
struct Lanes {
    waiting: [VecDeque<Waiting>; SIGNALS],
    /// Cost of what waits and of what is in flight.
    bytes: usize,
    /// Part of `bytes` that is in flight.
    flight_bytes: usize,
    pushes: u64,
    closed: bool,
}

struct Waiting {
    /// Orders payloads over all lanes.
    sequence: u64,
    payload: Payload,
}

impl Queue {
    pub(super) fn new(bytes_max: usize, served: &[Signal], report: Report) -> Queue {
        Queue {
            lanes: Mutex::default(),
            arrived: Default::default(),
            served: Signal::ALL.map(|signal| served.contains(&signal)),
            bytes_max,
            report,
        }
    }

    /// Takes the payload in and reports what had to give way for it, or the payload itself.
    pub(super) fn push(&self, payload: Payload) {
        let signal = payload.signal;
        if !self.served[signal as usize] {
            return self.dropped(&payload, DropReason::Refused);
        }
        // The guard ends with this statement: nobody's report runs under the lock.
        let refused = self.lock().admit(payload, self.bytes_max);
        match refused {
            Ok(evicted) => {
                for payload in &evicted {
                    self.dropped(payload, DropReason::QueueFull);
                }
                self.arrived[signal as usize].notify_one();
            }
            Err((payload, reason)) => self.dropped(&payload, reason),
        }
    }

    /// The signal's next payload, oldest first. `None` once the queue is closed and the lane empty.
    pub(super) async fn next(self: &Arc<Queue>, signal: Signal) -> Option<Flight> {
        loop {
            let (taken, closed) = {
                let mut lanes = self.lock();
                (lanes.take(signal), lanes.closed)
            };
            match taken {
                Some(payload) => {
                    return Some(Flight { queue: Arc::clone(self), payload, settled: false });
                }
                None if closed => return None,
                // A push in between leaves its permit behind, so no wake-up is lost.
                None => self.arrived[signal as usize].notified().await,
            }
        }
    }

    /// Takes no more payloads; lets the workers empty their lanes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.iter().for_each(Notify::notify_one);
    }

    /// Closes, and drops what still waits as `Shutdown`.
    pub(super) fn abandon(&self) {
        self.close();
        for signal in Signal::ALL {
            let waiting = self.lock().empty(signal);
            for Waiting { payload, .. } in &waiting {
                self.dropped(payload, DropReason::Shutdown);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self, payload: &Payload, reason: DropReason) {
        (self.report)(payload.signal, Outcome::Dropped { records: payload.records, reason }, payload.ticket);
    }
}

impl Lanes {
    /// Appends the payload, and returns the older ones that gave way. On `Err` nothing changed.
    fn admit(&mut self, payload: Payload, bytes_max: usize) -> Result<Vec<Payload>, (Payload, DropReason)> {
        if self.closed {
            return Err((payload, DropReason::Shutdown));
        }
        let cost = cost(&payload);
        if self.flight_bytes.saturating_add(cost) > bytes_max {
            return Err((payload, DropReason::QueueFull));
        }
        let mut evicted = Vec::new();
        while self.bytes.saturating_add(cost) > bytes_max {
            let Some(oldest) = self.take_oldest() else { break };
            evicted.push(oldest);
        }
        self.bytes += cost;
        self.pushes += 1;
        self.waiting[payload.signal as usize].push_back(Waiting { sequence: self.pushes, payload });
        Ok(evicted)
    }

    /// Removes the payload that waits longest, in whichever lane.
    fn take_oldest(&mut self) -> Option<Payload> {
        let lane = self
            .waiting
            .iter_mut()
            .filter(|lane| !lane.is_empty())
            .min_by_key(|lane| lane.front().map(|waiting| waiting.sequence))?;
        let payload = lane.pop_front()?.payload;
        self.bytes -= cost(&payload);
        Some(payload)
    }

    /// Hands the lane's oldest payload out; it stays in the budget until `land`.
    fn take(&mut self, signal: Signal) -> Option<Payload> {
        let payload = self.waiting[signal as usize].pop_front()?.payload;
        self.flight_bytes += cost(&payload);
        Some(payload)
    }

    fn land(&mut self, payload: &Payload) {
        self.bytes -= cost(payload);
        self.flight_bytes -= cost(payload);
    }

    fn empty(&mut self, signal: Signal) -> VecDeque<Waiting> {
        let waiting = std::mem::take(&mut self.waiting[signal as usize]);
        self.bytes -= waiting.iter().map(|waiting| cost(&waiting.payload)).sum::<usize>();
        waiting
    }
}

impl Flight {
    /// The request, at no copy.
    pub(super) fn body(&self) -> Bytes {
        self.payload.body.clone()
    }

    /// The backend took the request, all but `rejected` records. A count beyond what was sent is cut to it: the
    /// ledger has to balance whatever a backend claims.
    pub(super) fn exported(mut self, rejected: u64) {
        self.settled = true;
        let Payload { signal, records, items, ticket, .. } = self.payload;
        let rejected = rejected_records(rejected, items, records);
        if rejected > 0 {
            let outcome = Outcome::Dropped { records: rejected, reason: DropReason::Rejected };
            (self.queue.report)(signal, outcome, ticket);
        }
        if rejected < records {
            (self.queue.report)(signal, Outcome::Exported { records: records - rejected }, ticket);
        }
    }

    pub(super) fn dropped(mut self, reason: DropReason) {
        self.settled = true;
        self.queue.dropped(&self.payload, reason);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.queue.lock().land(&self.payload);
        if !self.settled {
            self.queue.dropped(&self.payload, DropReason::Shutdown);
        }
    }
}

/// The records that a partial success rejects: the rejected items' share, rounded up. A count beyond what was sent is
/// cut to it.
fn rejected_records(rejected_items: u64, items: u64, records: u64) -> u64 {
    let share = u128::from(rejected_items) * u128::from(records);
    let rejected = share.div_ceil(u128::from(items.max(1)));
    u64::try_from(rejected).unwrap_or(u64::MAX).min(records)
}

fn cost(payload: &Payload) -> usize {
    payload.body.len().saturating_add(PAYLOAD_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (fn(Flight), Vec<(Signal, Outcome)>);
    type Heard = Arc<Mutex<Vec<(Signal, Outcome)>>>;

    const UNIT_BYTES: usize = 1000 + PAYLOAD_OVERHEAD_BYTES;

    fn queue(units_max: usize) -> (Arc<Queue>, Heard) {
        let heard = Heard::default();
        let report: Report = {
            let heard = Arc::clone(&heard);
            Arc::new(move |signal, outcome, _| heard.lock().unwrap().push((signal, outcome)))
        };
        let served = [Signal::Profiles, Signal::Logs];
        (Arc::new(Queue::new(units_max * UNIT_BYTES, &served, report)), heard)
    }

    #[test]
    fn rejected_items_count_with_their_records() {
        let check = |(rejected, items, records), expected| {
            assert_eq!(
                rejected_records(rejected, items, records),
                expected,
                "{rejected} of {items}, {records} records"
            );
        };
        check((0, 4, 100), 0);
        check((1, 4, 100), 25);
        check((1, 3, 100), 34);
        check((4, 4, 100), 100);
        check((9, 4, 100), 100);
        check((1, 0, 5), 5);
        check((u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }

    fn payload(signal: Signal, bytes: usize, records: u64) -> Payload {
        Payload { signal, items: records, body: Bytes::from(vec![0; bytes]), records, ticket: 0 }
    }

    fn dropped(signal: Signal, records: u64, reason: DropReason) -> (Signal, Outcome) {
        (signal, Outcome::Dropped { records, reason })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// Pushes `(signal, body bytes)`, with the position from 1 as the number of records, into a queue of 3 payloads
    /// of 1000 bytes.
    #[track_caller]
    fn check(pushes: &[(Signal, usize)], expected: &[(Signal, Outcome)]) {
        let (queue, heard) = queue(3);
        for (records, (signal, bytes)) in (1..).zip(pushes) {
            queue.push(payload(*signal, *bytes, records));
            assert!(queue.lock().bytes <= queue.bytes_max);
        }
        assert_eq!(*heard.lock().unwrap(), expected);
        queue.abandon();
        assert_eq!(queue.lock().bytes, 0);
        let total: u64 = (1..=pushes.len() as u64).sum();
        let reported: u64 = heard
            .lock()
            .unwrap()
            .iter()
            .map(|(_, outcome)| match outcome {
                Outcome::Exported { records } | Outcome::Dropped { records, .. } => records,
            })
            .sum();
        assert_eq!(reported, total);
    }

    #[test]
    fn the_oldest_gives_way() {
        use DropReason::{QueueFull, Refused};
        use Signal::{Logs, Profiles, Traces};
        check(&[(Profiles, 1000); 3], &[]);
        check(&[(Profiles, 1000); 4], &[dropped(Profiles, 1, QueueFull)]);
        let mixed = [(Logs, 1000), (Profiles, 1000), (Profiles, 1000), (Profiles, 1000), (Logs, 1000)];
        check(&mixed, &[dropped(Logs, 1, QueueFull), dropped(Profiles, 2, QueueFull)]);
        let one_for_two = [(Logs, 1000), (Logs, 1000), (Logs, 1000), (Profiles, 1500)];
        check(&one_for_two, &[dropped(Logs, 1, QueueFull), dropped(Logs, 2, QueueFull)]);
        check(&[(Logs, 1000), (Profiles, 4000)], &[dropped(Profiles, 2, QueueFull)]);
        check(&[(Traces, 10)], &[dropped(Traces, 1, Refused)]);
    }

    #[test]
    fn empty_payloads_are_bounded_too() {
        let (queue, heard) = queue(3);
        (0..100).for_each(|_| queue.push(payload(Signal::Logs, 0, 1)));
        let waiting = queue.lock().waiting[Signal::Logs as usize].len();
        assert_eq!(waiting, 3 * UNIT_BYTES / PAYLOAD_OVERHEAD_BYTES);
        assert_eq!(heard.lock().unwrap().len(), 100 - waiting);
    }

    #[test]
    fn what_flies_stays_in_the_budget() {
        let (queue, heard) = queue(2);
        queue.push(payload(Signal::Logs, 1000, 1));
        let flight = block_on(queue.next(Signal::Logs)).unwrap();
        queue.push(payload(Signal::Profiles, 1000, 2));
        queue.push(payload(Signal::Profiles, 1000, 3));
        assert_eq!(*heard.lock().unwrap(), [dropped(Signal::Profiles, 2, DropReason::QueueFull)]);
        queue.push(payload(Signal::Profiles, 1001, 4));
        assert_eq!(heard.lock().unwrap()[1], dropped(Signal::Profiles, 4, DropReason::QueueFull));
        flight.exported(0);
        assert_eq!(queue.lock().bytes, UNIT_BYTES);
        assert_eq!(queue.lock().flight_bytes, 0);
    }

    #[test]
    fn each_flight_is_reported_once() {
        let exported = |records| (Signal::Logs, Outcome::Exported { records });
        let cases: [Case; 5] = [
            (|flight| flight.exported(0), vec![exported(10)]),
            (|flight| flight.exported(4), vec![dropped(Signal::Logs, 4, DropReason::Rejected), exported(6)]),
            (|flight| flight.exported(u64::MAX), vec![dropped(Signal::Logs, 10, DropReason::Rejected)]),
            (
                |flight| flight.dropped(DropReason::Refused),
                vec![dropped(Signal::Logs, 10, DropReason::Refused)],
            ),
            (drop, vec![dropped(Signal::Logs, 10, DropReason::Shutdown)]),
        ];
        for (settle, expected) in cases {
            let (queue, heard) = queue(1);
            queue.push(payload(Signal::Logs, 5, 10));
            settle(block_on(queue.next(Signal::Logs)).unwrap());
            assert_eq!(*heard.lock().unwrap(), expected);
            assert_eq!(queue.lock().bytes, 0);
        }
    }

    #[test]
    fn a_closed_queue_empties_and_ends() {
        let (queue, heard) = queue(2);
        queue.push(payload(Signal::Logs, 5, 1));
        queue.close();
        queue.push(payload(Signal::Logs, 5, 2));
        assert_eq!(*heard.lock().unwrap(), [dropped(Signal::Logs, 2, DropReason::Shutdown)]);
        block_on(async {
            queue.next(Signal::Logs).await.unwrap().exported(0);
            assert!(queue.next(Signal::Logs).await.is_none());
            assert!(queue.next(Signal::Profiles).await.is_none());
        });
    }
}
