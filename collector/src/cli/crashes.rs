//! `kansoku crashes`: reads the records in the spool. Needs no running agent.
//!
//! Refuses: changing anything there.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use prost::Message;

use super::{ConfigArguments, crashes_view, output, top::write_atomically};
use crate::clock::unix_ns;
use crate::crash::record::CrashRecord;
use crate::crash::spool;
use crate::export::{HostResource, logs_request};

#[derive(Subcommand)]
pub(super) enum CrashesCommand {
    /// List the records, the newest last
    List(ListArguments),
    /// Show one record
    Show(ShowArguments),
    /// Write records to a file
    Export(ExportArguments),
}

#[derive(Args)]
struct SpoolArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Directory of the records [default: crash.spool]
    #[arg(long, value_name = "DIRECTORY")]
    spool: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    spool: SpoolArguments,
    /// Print the records as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ShowArguments {
    #[command(flatten)]
    spool: SpoolArguments,
    /// Start of the record's id, or `last`
    id: String,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
    /// Show all mappings, not only those of the stack
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    spool: SpoolArguments,
    /// Start of the id of the one record to export [default: all]
    id: Option<String>,
    /// json: one record a line. otlp: LogsData, protobuf
    #[arg(long, default_value = "json", value_parser = ["json", "otlp"])]
    format: String,
    /// The file; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: String,
}

impl SpoolArguments {
    fn directory(&self) -> Result<PathBuf> {
        match &self.spool {
            Some(directory) => Ok(directory.clone()),
            None => Ok(self.config.load(Vec::new())?.crash_spool),
        }
    }

    fn find(&self, id: &str) -> Result<CrashRecord> {
        let directory = self.directory()?;
        if id == "last" {
            let last = spool::list(&directory)?.pop();
            return last.map(|entry| entry.record).context("there is no record yet");
        }
        Ok(spool::find(&directory, id)?.record)
    }
}

pub(super) fn crashes(command: &CrashesCommand) -> Result<ExitCode> {
    match command {
        CrashesCommand::List(arguments) => list(arguments),
        CrashesCommand::Show(arguments) => show(arguments),
        CrashesCommand::Export(arguments) => export(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn list(arguments: &ListArguments) -> Result<()> {
    let entries = spool::list(&arguments.spool.directory()?)?;
    let text = if arguments.json {
        let records: Vec<&CrashRecord> = entries.iter().map(|entry| &entry.record).collect();
        serde_json::to_string_pretty(&records)?
    } else {
        crashes_view::table(&entries, unix_ns())
    };
    output::print(format!("{}\n", text.trim_end()).as_bytes())
}

fn show(arguments: &ShowArguments) -> Result<()> {
    let record = arguments.spool.find(&arguments.id)?;
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&record)?,
        false => crashes_view::show(&record, arguments.all),
    };
    output::print(format!("{}\n", text.trim_end()).as_bytes())
}

fn export(arguments: &ExportArguments) -> Result<()> {
    let records = match &arguments.id {
        Some(id) => vec![arguments.spool.find(id)?],
        None => {
            let entries = spool::list(&arguments.spool.directory()?)?;
            entries.into_iter().map(|entry| entry.record).collect()
        }
    };
    let bytes = match arguments.format.as_str() {
        "otlp" => {
            let config = arguments.spool.config.load(Vec::new())?;
            // LogsData has the fields of the request.
            logs_request(&records, &HostResource::read(&config.resource_attributes)).encode_to_vec()
        }
        "json" => {
            let lines = records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
        }
        other => bail!("{other:?} is no format: use json or otlp"),
    };
    match arguments.output.as_str() {
        "-" => output::print(&bytes),
        path => write_atomically(path.as_ref(), &bytes),
    }
}
