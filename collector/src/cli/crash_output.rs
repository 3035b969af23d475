//! Where crash records of `kansoku run` go: the spool, the backend, the log, and the live view.
//!
//! A spool that cannot be used is said once and costs the records their memory, not the agent its life. Refuses: the
//! records' content.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::run::Output;
use crate::config::Config;
use crate::crash::record::CrashRecord;
use crate::crash::spool::Spool;
use crate::crash::{Before, OwnLife, running};
use crate::daemon::CrashSink;
use crate::export::Outbox;
use crate::loss::{Ledger, Signal};

/// Crashes that the live view shows.
const RECENT_MAX: usize = 5;

/// The last crashes, shared with the live view.
#[derive(Clone, Default)]
pub(super) struct RecentCrashes(Arc<Mutex<VecDeque<CrashRecord>>>);

impl RecentCrashes {
    /// The last ones, the newest last.
    pub fn read(&self) -> Vec<CrashRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn push(&self, record: CrashRecord) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.push_back(record);
        while records.len() > RECENT_MAX {
            records.pop_front();
        }
    }
}

/// The sink.
pub(super) struct CrashOutput {
    /// Until it is finished.
    outbox: Option<Outbox>,
    life: Option<OwnLife>,
    recent: RecentCrashes,
}

impl CrashOutput {
    /// Opens the spool and says what the last agent left there.
    pub fn start(config: &Config, output: &Output, recent: RecentCrashes, ledger: Arc<Ledger>) -> Self {
        let (spool, life, before) = match open(config) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "crash records are not kept: no spool; set crash.spool to a directory that can be written"
                );
                (None, None, Before::Stopped)
            }
        };
        if let Before::Running { pid } = before {
            tracing::warn!(pid, "another agent uses this spool: records of this one are not kept");
        }
        let mut outbox = match output {
            Output::Backend(backend) => backend.outbox(spool),
            Output::Terminal(_) => Outbox::local(spool, Arc::clone(&ledger)),
        };
        if let Before::Ended(record) = before {
            tracing::warn!(id = record.id, "the last agent ended without a stop");
            ledger.carried_over(Signal::Crash, 1);
            outbox.accept(*record);
        }
        Self { outbox: Some(outbox), life, recent }
    }
}

/// A spool has one writer: another agent's is not touched at all.
fn open(config: &Config) -> Result<(Option<Spool>, Option<OwnLife>, Before)> {
    if let Some(pid) = running(&config.crash_spool) {
        return Ok((None, None, Before::Running { pid }));
    }
    let spool = Spool::open(&config.crash_spool, config.crash_spool_limits)?;
    let (life, before) = OwnLife::begin(&config.crash_spool, &config.redactor)?;
    Ok((Some(spool), life, before))
}

impl CrashSink for CrashOutput {
    fn accept(&mut self, record: CrashRecord) {
        tracing::info!(
            id = record.id,
            kind = record.kind.name(),
            pid = record.process.pid,
            service = record.resource.get("service.name"),
            "{}",
            record.summary.escape_debug()
        );
        self.recent.push(record.clone());
        if let Some(outbox) = &mut self.outbox {
            outbox.accept(record);
        }
    }

    fn turn(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.turn();
        }
        if let Some(life) = &mut self.life {
            life.renew();
        }
    }

    fn finish(mut self: Box<Self>) {
        if let Some(outbox) = self.outbox.take() {
            outbox.finish();
        }
    }
}

/// A start that fails is no crash either.
impl Drop for CrashOutput {
    fn drop(&mut self) {
        if let Some(life) = self.life.take() {
            life.end();
        }
    }
}
