//! Whose a record's connection is.
//!
//! Refuses: to guess. Who will accept a connection is not known before somebody uses it.

use std::sync::Arc;

use collector_common::event::Task;

use crate::identity::Subject;
use crate::process::ProcessTable;
use crate::telemetry::ProcessName;

/// Who has a connection.
pub enum Owner {
    /// This process.
    Known(Arc<Subject>, Arc<ProcessName>),
    /// Nobody said so yet.
    Unknown,
    /// Its process has no place.
    NoRoom,
}

/// Whose a record's connection is. Of one that is established only the process is told, if any.
pub fn owner(task: &Task, processes: &mut ProcessTable) -> Owner {
    let process = match task.tid {
        0 => match processes.get(task.tgid) {
            Some(process) => process,
            None => return Owner::Unknown,
        },
        _ => match processes.of_task(task) {
            Some(process) => process,
            None => return Owner::NoRoom,
        },
    };
    Owner::Known(Arc::clone(&process.subject), Arc::clone(&process.name))
}
