//! Crash records on their way out: to the spool first, then to the backend, and marked in the spool when it has them.
//!
//! A record that the backend did not take in this run waits in the spool for the next one. Refuses: waiting for the
//! backend, and forgetting a record that is neither on disk nor exported without counting it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;

use super::otlp::{DropReason, Exporter, Outcome, Payload, Signal as Lane};
use super::{HostResource, logs_request};
use crate::crash::record::CrashRecord;
use crate::crash::spool::Spool;
use crate::loss::{Ledger, LossReason, Signal};

/// Records that are with the exporter at once; others wait in the spool.
const IN_FLIGHT_MAX: usize = 64;

/// Wait before a record that the exporter gave up is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// What became of payloads, by ticket. Filled by the exporter's thread.
pub type Receipts = Arc<Mutex<Vec<(u64, Outcome)>>>;

/// Where records go.
pub struct Outbox {
    spool: Option<Spool>,
    backend: Option<Lanes>,
    ledger: Arc<Ledger>,
}

/// The way to the backend.
struct Lanes {
    exporter: Exporter,
    host: HostResource,
    receipts: Receipts,
    in_flight: HashMap<u64, InFlight>,
    /// Ids of records in the spool; their number is bounded by it.
    waiting: VecDeque<String>,
    retry_at: Option<Instant>,
    last_ticket: u64,
}

struct InFlight {
    record: CrashRecord,
    is_spooled: bool,
}

impl Outbox {
    /// An outbox without a backend: what is in the spool has arrived.
    pub fn local(spool: Option<Spool>, ledger: Arc<Ledger>) -> Self {
        Self { spool, backend: None, ledger }
    }

    /// An outbox that sends. Records that wait in the spool since an earlier run go first.
    pub fn to_backend(
        spool: Option<Spool>,
        exporter: Exporter,
        host: HostResource,
        receipts: Receipts,
        ledger: Arc<Ledger>,
    ) -> Self {
        let pending = spool.iter().flat_map(Spool::pending);
        let waiting: VecDeque<String> = pending.map(|record| record.id).collect();
        ledger.carried_over(Signal::Crash, waiting.len() as u64);
        let lanes = Lanes {
            exporter,
            host,
            receipts,
            in_flight: HashMap::new(),
            waiting,
            retry_at: None,
            last_ticket: 0,
        };
        let mut outbox = Self { spool, backend: Some(lanes), ledger };
        outbox.fill();
        outbox
    }

    /// Takes a record.
    pub fn accept(&mut self, record: CrashRecord) {
        let is_spooled = self.store(&record);
        let Some(lanes) = &mut self.backend else {
            return match is_spooled {
                true => self.ledger.exported(Signal::Crash, 1),
                false => self.ledger.lost(Signal::Crash, LossReason::SpoolFailed, 1),
            };
        };
        if !is_spooled || lanes.in_flight.len() < IN_FLIGHT_MAX {
            lanes.send(record, is_spooled);
        } else {
            lanes.waiting.push_back(record.id);
        }
    }

    /// Learns what became of what was sent, and sends more.
    pub fn turn(&mut self) {
        self.settle();
        self.fill();
    }

    /// Ends it, after the exporter has ended: what still waits stays in the spool.
    pub fn finish(mut self) {
        self.settle();
        let Some(lanes) = self.backend else { return };
        let unsent = lanes.waiting.len() as u64 + lanes.in_flight.len() as u64;
        self.ledger.lost(Signal::Crash, LossReason::ExportSpooled, unsent);
    }

    fn store(&mut self, record: &CrashRecord) -> bool {
        let Some(spool) = &mut self.spool else { return false };
        match spool.store(record, self.backend.is_some()) {
            Ok(stored) => {
                let evicted = stored
                    .pending_lost
                    .iter()
                    .map(|id| self.backend.as_mut().is_some_and(|lanes| lanes.forget(id)));
                let evicted = evicted.filter(|was_ours| *was_ours).count();
                self.ledger.lost(Signal::Crash, LossReason::SpoolEvicted, evicted as u64);
                true
            }
            Err(error) => {
                tracing::warn!(id = record.id, error = format!("{error:#}"), "cannot keep a crash record");
                false
            }
        }
    }

    fn settle(&mut self) {
        let Some(lanes) = &mut self.backend else { return };
        let receipts = std::mem::take(&mut *lanes.receipts.lock().unwrap_or_else(PoisonError::into_inner));
        for (ticket, outcome) in receipts {
            let Some(sent) = lanes.in_flight.remove(&ticket) else { continue };
            let reason = match outcome {
                Outcome::Exported { .. } => None,
                Outcome::Dropped { reason, .. } => Some(reason),
            };
            let is_final = matches!(reason, None | Some(DropReason::Refused | DropReason::Rejected));
            if sent.is_spooled && !is_final {
                if reason == Some(DropReason::Shutdown) {
                    self.ledger.lost(Signal::Crash, LossReason::ExportSpooled, 1);
                } else {
                    lanes.waiting.push_back(sent.record.id);
                    lanes.retry_at = Some(Instant::now() + RETRY_DELAY);
                }
                continue;
            }
            match reason {
                None => self.ledger.exported(Signal::Crash, 1),
                Some(reason) => self.ledger.lost(Signal::Crash, super::backend::loss_reason(reason), 1),
            }
            if let Some(spool) = self.spool.as_mut().filter(|_| sent.is_spooled)
                && let Err(error) = spool.mark_exported(&sent.record.id)
            {
                tracing::warn!(
                    id = sent.record.id,
                    error = format!("{error:#}"),
                    "a crash record may be sent again"
                );
            }
        }
    }

    fn fill(&mut self) {
        let Some(lanes) = &mut self.backend else { return };
        if lanes.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        lanes.retry_at = None;
        while lanes.in_flight.len() < IN_FLIGHT_MAX
            && let Some(id) = lanes.waiting.pop_front()
        {
            match self.spool.as_ref().and_then(|spool| spool.get(&id)) {
                Some(record) => lanes.send(record, true),
                None => self.ledger.lost(Signal::Crash, LossReason::SpoolFailed, 1),
            }
        }
    }
}

impl Lanes {
    fn send(&mut self, record: CrashRecord, is_spooled: bool) {
        self.last_ticket += 1;
        let body = logs_request(std::slice::from_ref(&record), &self.host).encode_to_vec().into();
        self.in_flight.insert(self.last_ticket, InFlight { record, is_spooled });
        self.exporter.push(Payload {
            signal: Lane::Logs,
            body,
            records: 1,
            items: 1,
            ticket: self.last_ticket,
        });
    }

    /// Forgets a record that the spool had to give up; whether it was still to be sent.
    fn forget(&mut self, id: &str) -> bool {
        let before = self.in_flight.len() + self.waiting.len();
        self.in_flight.retain(|_, sent| sent.record.id != id);
        self.waiting.retain(|waiting| waiting != id);
        self.in_flight.len() + self.waiting.len() < before
    }
}
