//! `kansoku core-handler`: takes a core from its standard input when the kernel calls it, or gives `core_pattern` back.
//!
//! Refuses: printing anything but errors of its command line; nobody reads what a program of the kernel prints.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{ConfigArguments, UsageError, output};
use crate::dump::handler::{self, Arguments};
use crate::dump::pattern::{self, CORE_PATTERN, Restored};
use crate::dump::service::{decider, remembered};
use crate::dump::{DumpKind, Store};
use crate::identity::{NameOptions, Names};

#[derive(Args)]
pub(super) struct CoreHandlerArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Give core_pattern back that an agent took over and could not give back itself
    #[arg(long, conflicts_with = "process")]
    restore: bool,
    /// PID, PID in its namespace, signal and time: %P %p %s %t
    #[arg(value_name = "PROCESS", num_args = 4)]
    process: Vec<String>,
}

pub(super) fn core_handler(arguments: &CoreHandlerArguments) -> Result<ExitCode> {
    let config = arguments.config.load(Vec::new())?;
    if arguments.restore {
        let restored = pattern::restore(Path::new(CORE_PATTERN), &remembered(&config.dump))?;
        output::tell(&match restored {
            Restored::Previous(previous) => format!("core_pattern is {previous:?} again\n"),
            Restored::Foreign(other) => format!("core_pattern is not ours but {other:?}: left as it is\n"),
            Restored::Nothing => "nothing to give back\n".to_owned(),
        });
        return Ok(ExitCode::SUCCESS);
    }
    let process = Arguments::parse(&arguments.process).map_err(UsageError::wrap)?;
    let (names, _ends_with_us) = Names::start(NameOptions { peers: false, ..config.names })?;
    let decide = decider(config.dump.policies.clone(), names);
    let decide: &dyn Fn(u32, Option<u64>) -> DumpKind = &decide;
    let ending = Store::open(config.dump.store)
        .and_then(|mut store| handler::run(&process, decide, &config.dump.options, &mut store));
    handler::complain(&process, &ending);
    Ok(handler::exit_code(&ending))
}
