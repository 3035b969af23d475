//! `kansoku profile`: one window of some seconds, as a file in the format that its ending names.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use prost::Message;

use super::stop::Stop;
use super::top::write_atomically;
use super::{ConfigArguments, UsageError, duration, exit, output, pod};
use crate::daemon::{Daemon, Sink};
use crate::diagnostics::Diagnostics;
use crate::export::{HostResource, flame_graph, folded::folded, pprof::pprof, profiles_data};
use crate::identity::{NameOptions, Names};
use crate::kernel::KernelOptions;
use crate::kernel::{CgroupMount, cgroup_id_of};
use crate::loss::{Ledger, LossReason, Signal};
use crate::pipeline::{Filter, PipelineOptions};
use crate::telemetry::{Batch, Profile};

/// The one window is longer than any profile, so that only the stop ends it.
const ONE_WINDOW: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Distinct stacks of the one window: about 300 MiB at worst, for the time of the command.
const STACKS_MAX: usize = 262_144;

const POLL: Duration = Duration::from_millis(50);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
const FUNCTIONS_SHOWN: usize = 20;

#[derive(Args)]
pub(super) struct ProfileArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Only this process
    #[arg(long, value_name = "N", group = "target")]
    pid: Option<u32>,
    /// Only the container whose id starts so
    #[arg(long, value_name = "ID", group = "target")]
    container: Option<String>,
    /// Only this pod
    #[arg(long, value_name = "NAMESPACE/NAME", group = "target", value_parser = pod)]
    pod: Option<(String, String)>,
    /// Only this cgroup, by its path in the unified hierarchy
    #[arg(long, value_name = "PATH", group = "target")]
    cgroup: Option<PathBuf>,
    /// How long to sample
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Samples per second and CPU [default: 97]
    #[arg(long, value_name = "HZ")]
    frequency: Option<u32>,
    /// Source lines and inlined functions, from DWARF
    #[arg(long)]
    lines: bool,
    /// Where to write; without it the top functions are printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn profile(arguments: &ProfileArguments) -> Result<ExitCode> {
    let format = arguments.output.as_deref().map(Format::of).transpose().map_err(UsageError::wrap)?;
    let config = arguments.config.load(flags(arguments))?;
    let _diagnostics = Diagnostics::start(&config.log_level, config.own_telemetry_endpoint.as_deref())?;
    let filter = filter(arguments)?;
    let stop = Stop::listen()?;
    let (names, _ends_with_us) = Names::start(NameOptions { peers: false, ..config.names.clone() })?;
    let options = PipelineOptions {
        window: ONE_WINDOW,
        filter,
        frequency_hz: config.kernel.frequency_hz,
        stacks_max: STACKS_MAX,
        has_sample_spans: false,
        flows: None,
        statistics_always: false,
        names,
        peers: None,
        tells_ended_names: false,
    };
    let ledger = Arc::new(Ledger::default());
    // A profile needs to know what runs, not how it dies.
    let kernel = KernelOptions {
        watch_crashes: false,
        keep_stderr: false,
        io: None,
        watch_flows: false,
        ..config.kernel
    };
    let daemon = Daemon::start(
        &kernel,
        options,
        config.symbols,
        Collected::default(),
        None,
        None,
        Arc::clone(&ledger),
    )?;
    let Some(source) = daemon.sample_source() else {
        bail!("no CPU can be sampled here; `kansoku doctor` says why");
    };
    let title = format!("on CPU, {}", source.name());
    wait(arguments.duration, &ledger, &stop, || daemon.has_failed());
    let (Collected { profiles, .. }, _no_crashes) = daemon.stop()?;
    let samples: u64 = profiles.iter().map(Profile::sample_count).sum();
    if samples > 0 || matches!(format, Some(Format::Folded | Format::Standard)) {
        write(
            arguments.output.as_deref(),
            format,
            &profiles,
            &title,
            &HostResource::read(&config.resource_attributes),
        )?;
    }
    report(&ledger, samples, arguments.output.as_deref());
    Ok(if samples == 0 { ExitCode::from(exit::INCOMPLETE) } else { ExitCode::SUCCESS })
}

fn flags(arguments: &ProfileArguments) -> Vec<(String, String)> {
    let mut flags = Vec::new();
    if let Some(frequency) = arguments.frequency {
        flags.push(("profile.frequency_hz".to_owned(), frequency.to_string()));
    }
    if arguments.lines {
        flags.push(("symbols.lines".to_owned(), "true".to_owned()));
    }
    flags
}

/// The target, which must exist.
fn filter(arguments: &ProfileArguments) -> Result<Filter> {
    if let Some(pid) = arguments.pid {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            bail!("there is no process {pid}");
        }
        return Ok(Filter::Process(pid));
    }
    if let Some(container) = &arguments.container {
        return Ok(Filter::Container(container.to_ascii_lowercase()));
    }
    if let Some((namespace, name)) = &arguments.pod {
        return Ok(Filter::Pod(namespace.clone(), name.clone()));
    }
    if let Some(path) = &arguments.cgroup {
        let mount = CgroupMount::find().context("there is no unified cgroup hierarchy (cgroup2) here")?;
        let below = path.strip_prefix(mount.path()).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
        let full = mount.path().join(below);
        let id = cgroup_id_of(&full).with_context(|| format!("there is no cgroup {}", full.display()))?;
        return Ok(Filter::Cgroup(id));
    }
    Ok(Filter::All)
}

/// Keeps all profiles in memory.
#[derive(Default)]
struct Collected {
    profiles: Vec<Profile>,
}

impl Sink for Collected {
    fn accept(&mut self, batch: Batch, ledger: &Ledger) {
        ledger.exported(Signal::Profile, batch.profiles.iter().map(Profile::sample_count).sum());
        self.profiles.extend(batch.profiles);
    }
}

/// Waits for the end, with a line of progress on a terminal.
fn wait(duration: Duration, ledger: &Ledger, stop: &Stop, has_failed: impl Fn() -> bool) {
    let (start, is_terminal) = (Instant::now(), std::io::stderr().is_terminal());
    let mut next_progress = start + PROGRESS_INTERVAL;
    output::tell(&format!("sampling for {}; Ctrl-C ends earlier\n", humantime::format_duration(duration)));
    while start.elapsed() < duration && !stop.is_set() && !has_failed() {
        stop.wait(POLL.min(duration.saturating_sub(start.elapsed())));
        if is_terminal && Instant::now() >= next_progress {
            next_progress += PROGRESS_INTERVAL;
            let (elapsed, all) = (start.elapsed().as_secs(), duration.as_secs());
            let samples = ledger.account(Signal::Profile).decoded;
            output::tell(&format!("\r{elapsed} of {all} s, {samples} samples "));
        }
    }
    if is_terminal {
        output::tell("\rsymbolizing                      \n");
    }
}

/// Formats by the ending of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Html,
    Svg,
    Pprof,
    Folded,
    Otlp,
    Standard,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        let name = path.to_string_lossy();
        let endings = [
            (".html", Self::Html),
            (".svg", Self::Svg),
            (".pb.gz", Self::Pprof),
            (".folded", Self::Folded),
            (".otlp", Self::Otlp),
        ];
        if name == "-" {
            return Ok(Self::Standard);
        }
        let format = endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| format);
        format.with_context(|| {
            format!("{name} has no ending that names a format: use .html, .svg, .pb.gz, .folded or .otlp")
        })
    }
}

fn write(
    path: Option<&Path>,
    format: Option<Format>,
    profiles: &[Profile],
    title: &str,
    host: &HostResource,
) -> Result<()> {
    let bytes = match format {
        None => top_functions(profiles).into_bytes(),
        Some(Format::Html) => flame_graph::html(profiles, title)?.into_bytes(),
        Some(Format::Svg) => flame_graph::svg(profiles, title)?.into_bytes(),
        Some(Format::Pprof) => pprof(profiles)?,
        Some(Format::Otlp) => profiles_data(profiles, host).encode_to_vec(),
        Some(Format::Folded | Format::Standard) => folded(profiles).into_bytes(),
    };
    match path {
        Some(path) if format != Some(Format::Standard) => write_atomically(path, &bytes),
        _ => output::print(&bytes),
    }
}

/// A table of the functions in which most samples ended.
fn top_functions(profiles: &[Profile]) -> String {
    let total: u64 = profiles.iter().map(Profile::sample_count).sum();
    let mut counts = std::collections::HashMap::new();
    for sample in profiles.iter().flat_map(|profile| &profile.samples) {
        let function = sample
            .stack
            .first()
            .and_then(|leaf| leaf.lines.first())
            .map_or("[no stack]", |line| &line.function);
        *counts.entry((&*sample.process.executable_name, function)).or_insert(0u64) += sample.count;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let mut text = format!("{:>7}  {:>7}  {:<20}  FUNCTION\n", "%", "SAMPLES", "PROCESS");
    for ((process, function), count) in counts.into_iter().take(FUNCTIONS_SHOWN) {
        let percent = count as f64 * 100.0 / total.max(1) as f64;
        text += &format!("{percent:6.2}%  {count:>7}  {process:<20}  {function}\n");
    }
    text
}

fn report(ledger: &Ledger, samples: u64, path: Option<&Path>) {
    let account = ledger.account(Signal::Profile);
    let lost: Vec<String> = account
        .lost
        .iter()
        .filter(|(reason, _)| *reason != LossReason::Filtered)
        .map(|(reason, count)| format!("{count} {}", reason.name()))
        .collect();
    let lost = if lost.is_empty() { "none lost".to_owned() } else { format!("lost: {}", lost.join(", ")) };
    let text = match path {
        _ if samples == 0 => {
            format!("no samples of this target ({} seen on the node, {lost}): was it idle?", account.seen)
        }
        Some(path) => format!("{samples} samples, {lost}: {}", path.display()),
        None => format!("{samples} samples, {lost}"),
    };
    output::tell(&(text + "\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<Format>) {
        assert_eq!(Format::of(Path::new(path)).ok(), expected, "{path}");
    }

    #[test]
    fn formats_by_ending() {
        check("a.html", Some(Format::Html));
        check("a.svg", Some(Format::Svg));
        check("dir.x/a.pb.gz", Some(Format::Pprof));
        check("a.folded", Some(Format::Folded));
        check("a.otlp", Some(Format::Otlp));
        check("-", Some(Format::Standard));
        check("a.gz", None);
        check("a", None);
    }
}
