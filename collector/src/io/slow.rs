//! Slow operations of a window: records get their process, their path or peer, and frames that can be named.
//!
//! Refuses: symbols, clocks, I/O.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use collector_common::io::SlowRecord;

use super::metrics::{descriptor, error_class, operation};
use crate::address;
use crate::arch::is_user_code_address;
use crate::flow::Serving;
use crate::loss::{Ledger, LossReason, Signal};
use crate::process::{Process, comm};
use crate::profile::{Frame, called_from};
use crate::telemetry::SlowOperation;

/// Slow operations of one window; more are lost as `window_full`.
const OPERATIONS_MAX: usize = 512;

/// A slow operation whose frames have no names yet.
#[derive(Debug)]
pub struct PendingOperation {
    /// All but the stack.
    pub operation: SlowOperation,
    /// The user stack, leaf first.
    pub frames: Vec<Frame>,
    /// Where the files of the process's container lie on the host.
    pub root: Arc<[PathBuf]>,
    /// Whether it waited for its span for a window already.
    has_waited: bool,
}

/// The slow operations of the window that is being filled.
pub struct SlowOperations {
    waiting: Vec<PendingOperation>,
    ledger: Arc<Ledger>,
}

impl SlowOperations {
    /// None yet.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { waiting: Vec::new(), ledger }
    }

    /// Adds one. `monotonic_to_unix_ns` is how far the record's clock is from the epoch.
    pub fn observe(&mut self, record: &SlowRecord, process: &Process, monotonic_to_unix_ns: u64) {
        if self.waiting.len() >= OPERATIONS_MAX {
            return self.ledger.lost(Signal::SlowOperation, LossReason::WindowFull, 1);
        }
        let (local, peer) = addresses(record);
        let frames = (record.frames as usize).min(record.stack.len());
        let walked = record.stack[..frames].iter().enumerate();
        let walked = walked.take_while(|&(index, &address)| index == 0 || is_user_code_address(address));
        let frames =
            walked.map(|(index, &address)| Frame::of_user(called_from(index, address), &process.maps));
        self.waiting.push(PendingOperation {
            operation: SlowOperation {
                subject: Arc::clone(&process.subject),
                process: Arc::clone(&process.name),
                thread_id: record.task.tid,
                thread_name: comm(&record.task).into(),
                time_unix_ns: record.head.time_ns.saturating_add(monotonic_to_unix_ns),
                duration_ns: record.time_ns,
                operation: operation(record.operation),
                descriptor: descriptor(record.descriptor),
                error: error_class(record.error),
                result: record.result,
                path: path(record),
                local,
                peer,
                stack: Vec::new(),
                span: None,
            },
            has_waited: false,
            frames: frames.collect(),
            root: Arc::clone(&process.root),
        });
        self.ledger.represented(Signal::SlowOperation, 1);
    }

    /// Ends the window. `span_of` tells the request that a thread served from one moment to another; where it cannot tell yet,
    /// the operation waits for one more window, unless this is the last one.
    pub fn flush(
        &mut self,
        is_last: bool,
        mut span_of: impl FnMut(&SlowOperation) -> Serving,
    ) -> Vec<PendingOperation> {
        let mut ready = Vec::new();
        for mut pending in std::mem::take(&mut self.waiting) {
            match span_of(&pending.operation) {
                Serving::Later if !pending.has_waited && !is_last => {
                    pending.has_waited = true;
                    self.waiting.push(pending);
                    continue;
                }
                Serving::Known(span) => pending.operation.span = Some(span),
                Serving::Later | Serving::Nothing => {}
            }
            ready.push(pending);
        }
        ready
    }
}

/// The path of an operation's file: what the program gave, or the names that the kernel has for it.
fn path(record: &SlowRecord) -> Option<String> {
    const GIVEN: u8 = 2;
    let names = (record.path_names as usize).min(record.path.len());
    match record.path_kind {
        _ if names == 0 => None,
        GIVEN => Some(text(record.path.as_flattened())),
        kind => Some(path_of(&record.path[..names], kind == 1)),
    }
}

/// Joins names, the innermost first, to a path; one whose beginning is missing starts with an ellipsis.
pub(super) fn path_of<const BYTES: usize>(names: &[[u8; BYTES]], is_whole: bool) -> String {
    let mut path = if is_whole { String::new() } else { "…".to_owned() };
    for name in names.iter().rev() {
        path.push('/');
        path += &text(name);
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Local and remote address of a socket that is connected.
fn addresses(record: &SlowRecord) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let address = |index: usize| {
        let address = address::of(record.family, record.addresses[index], record.ports[index]);
        address.filter(|address| address.port() != 0)
    };
    (address(0), address(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], is_whole: bool, expected: &str) {
        let names: Vec<[u8; 16]> = names
            .iter()
            .map(|name| {
                let mut bytes = [0; 16];
                bytes[..name.len()].copy_from_slice(name.as_bytes());
                bytes
            })
            .collect();
        assert_eq!(path_of(&names, is_whole), expected);
    }

    #[test]
    fn paths_of_names() {
        check(&["data", "lib", "var"], true, "/var/lib/data");
        check(&["data", "lib"], false, "…/lib/data");
        check(&[], true, "/");
    }
}
