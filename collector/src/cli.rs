//! The command line: arguments here, one file per subcommand below. The only place that prints.
//!
//! Refuses: work of its own. A subcommand builds options, starts the daemon, and shows what comes out.

mod config;
mod core_handler;
mod crash_output;
mod crashes;
mod crashes_view;
mod doctor;
mod ledger;
mod metric_output;
mod output;
mod profile;
mod requests;
mod run;
mod stop;
mod top;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Resolved, Sources, read_file};
use crate::kernel::survive_truncated_files;

/// Exit codes, in `--help` too.
mod exit {
    /// Something failed.
    pub const FAILED: u8 = 1;
    /// The arguments or the configuration are wrong.
    pub const USAGE: u8 = 2;
    /// It ran, but something is missing: see the output.
    pub const INCOMPLETE: u8 = 3;
}

#[derive(Parser)]
#[command(
    name = "kansoku",
    version,
    about = "Five signals of every pod on a node, by eBPF, with no change to the pods.",
    after_help = "Examples:
  sudo kansoku run                                     show what this machine does
  sudo kansoku profile --pid 4242 -o flame.html        profile one process
  sudo kansoku trace                                   requests and queries as they end
  sudo kansoku crashes list                            what died, and of what
  sudo kansoku doctor                                  what works here, and what is missing
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 kansoku run

Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 done but incomplete."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Observe the node: to the configured backend, or on the terminal where there is none
    #[command(after_help = "Examples:
  sudo kansoku run
  sudo kansoku run --set profile.frequency_hz=49 --duration 1m
  sudo OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 kansoku run")]
    Run(run::RunArguments),
    /// Profile the node, a process, a container or a cgroup for some time
    #[command(after_help = "The ending of FILE chooses the format:
  .html .svg    flame graph
  .pb.gz        pprof (go tool pprof FILE)
  .folded       folded stacks, one per line
  .otlp         OTLP ProfilesData, protobuf
  -             folded stacks on standard output

Examples:
  sudo kansoku profile -o node.html
  sudo kansoku profile --pid 4242 --duration 30s -o app.pb.gz
  sudo kansoku profile --container 3f2a91 --lines -o app.folded")]
    Profile(profile::ProfileArguments),
    /// Show requests and queries of all services as they end, each trace a tree
    #[command(after_help = "Examples:
  sudo kansoku trace
  sudo kansoku trace --protocol postgresql
  sudo kansoku trace --pid 4242 --duration 30s

A child stands below its parent, with how that was found: header, connection or thread.")]
    Trace(trace::TraceArguments),
    /// Show the records of deaths that the agent kept
    #[command(
        subcommand,
        after_help = "Examples:
  sudo kansoku crashes list
  sudo kansoku crashes show 20261122T18
  sudo kansoku crashes export --format otlp -o crashes.otlp"
    )]
    Crashes(crashes::CrashesCommand),
    /// Take the core of a dying process; the kernel calls it (see dump.pattern)
    CoreHandler(core_handler::CoreHandlerArguments),
    /// Try every hook for a second and say what works, what does not, and what is missing by it
    Doctor(doctor::DoctorArguments),
    /// Show or check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Where the configuration comes from.
#[derive(Args)]
struct ConfigArguments {
    /// Configuration file [default: /etc/kansoku/config.yaml if it exists]
    #[arg(long, value_name = "FILE", env = "KANSOKU_CONFIG")]
    config: Option<PathBuf>,
    /// Set a key, over the file and the environment
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    values: Vec<(String, String)>,
}

impl ConfigArguments {
    fn resolve(&self, more: Vec<(String, String)>) -> Result<Resolved> {
        let flags = self.values.iter().cloned().chain(more).collect();
        let file = read_file(self.config.as_ref()).map_err(UsageError::wrap)?;
        Resolved::new(&Sources::of_process(file, flags)).map_err(UsageError::wrap)
    }

    fn load(&self, more: Vec<(String, String)>) -> Result<Config> {
        Config::new(&self.resolve(more)?).map_err(UsageError::wrap)
    }
}

/// Marks errors that the user mends by changing arguments or configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration cannot be used")]
struct UsageError;

impl UsageError {
    fn wrap(error: anyhow::Error) -> anyhow::Error {
        error.context(Self)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are printed to standard output and are no error.
            let _closed_pipe = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    if let Err(error) = survive_truncated_files() {
        output::tell(&format!("kansoku: {error:#}\n"));
    }
    let result = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Profile(arguments) => profile::profile(&arguments),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Crashes(command) => crashes::crashes(&command),
        Command::CoreHandler(arguments) => core_handler::core_handler(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Config(command) => config::config(&command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::tell(&format!("kansoku: {error:#}\n"));
            ExitCode::from(if error.is::<UsageError>() { exit::USAGE } else { exit::FAILED })
        }
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("use KEY=VALUE, such as profile.frequency_hz=49")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn pod(text: &str) -> Result<(String, String), String> {
    let (namespace, name) = text.split_once('/').ok_or("use NAMESPACE/NAME, such as default/web-0")?;
    Ok((namespace.to_owned(), name.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let bare_seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    match bare_seconds.map_or_else(|| humantime::parse_duration(text), Ok) {
        Ok(duration) if duration.is_zero() => Err("it must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; use a duration such as 10s or 5m")),
    }
}
