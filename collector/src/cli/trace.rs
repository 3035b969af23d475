//! `kansoku trace`: spans as they end, each trace a tree.
//!
//! Refuses: backends. What is shown is all that becomes of these spans.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::stop::Stop;
use super::{ConfigArguments, UsageError, duration, exit, ledger, output, pod};
use crate::daemon::{Daemon, Sink};
use crate::diagnostics::Diagnostics;
use crate::flow::protocol::Protocol;
use crate::identity::Names;
use crate::kernel::KernelOptions;
use crate::loss::{Ledger, Signal};
use crate::pipeline::{Filter, PipelineOptions};
use crate::telemetry::{Batch, Profile, Span, SpanValue};

/// How often what has ended is shown.
const WINDOW: Duration = Duration::from_millis(500);

/// Nothing here is about stacks.
const STACKS_MAX: usize = 1;
const FREQUENCY_HZ: u32 = 1;

/// A tree is shown this deep; what is below stands at that depth.
const DEPTH_MAX: usize = 32;

#[derive(Args)]
pub(super) struct TraceArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Only spans of this process
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
    /// Only spans of the container whose id starts so
    #[arg(long, value_name = "ID", group = "owner")]
    container: Option<String>,
    /// Only spans of this pod
    #[arg(long, value_name = "NAMESPACE/NAME", group = "owner", value_parser = pod)]
    pod: Option<(String, String)>,
    /// Only spans of this protocol: http, postgresql, redis, dns
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// Stop after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
}

pub(super) fn trace(arguments: &TraceArguments) -> Result<ExitCode> {
    let wanted = Wanted::of(arguments).map_err(UsageError::wrap)?;
    let config = arguments.config.load(flags())?;
    let _diagnostics = Diagnostics::start(&config.log_level, config.own_telemetry_endpoint.as_deref())?;
    let stop = Stop::listen()?;
    let ledger = Arc::new(Ledger::default());
    let (names, mut name_thread) = Names::start(config.names.clone())?;
    let options = PipelineOptions {
        window: WINDOW,
        filter: Filter::All,
        frequency_hz: FREQUENCY_HZ,
        stacks_max: STACKS_MAX,
        has_sample_spans: false,
        flows: config.flows.clone(),
        statistics_always: false,
        names,
        peers: name_thread.take_peers(),
        tells_ended_names: false,
    };
    let kernel = KernelOptions {
        frequency_hz: FREQUENCY_HZ,
        watch_crashes: false,
        keep_stderr: false,
        ..config.kernel
    };
    let tree = Tree { wanted };
    let daemon = Daemon::start(&kernel, options, config.symbols, tree, None, None, Arc::clone(&ledger))?;
    output::tell("showing spans as they end; Ctrl-C stops\n");
    stop.wait_for_end(arguments.duration, || daemon.has_failed());
    daemon.stop()?;
    let account = ledger.account(Signal::Span);
    let lost: u64 = account.lost.iter().map(|(_, count)| count).sum();
    output::tell(&format!("{} exchanges seen, {lost} not shown\n", account.seen));
    if lost > 0 {
        output::tell(&format!("{}\n", ledger::text(&[account])));
        return Ok(ExitCode::from(exit::INCOMPLETE));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever looks wants all that the node can afford.
fn flags() -> Vec<(String, String)> {
    let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    vec![flag("trace.enabled", "true"), flag("trace.spans_per_second_max", "1000000")]
}

/// Which spans are shown.
struct Wanted {
    pid: Option<u32>,
    owner: Filter,
    protocol: Option<&'static str>,
}

impl Wanted {
    fn of(arguments: &TraceArguments) -> Result<Self> {
        let protocol = match &arguments.protocol {
            None => None,
            Some(name) => match Protocol::ALL.into_iter().find(|protocol| protocol.name() == name) {
                Some(protocol) => Some(protocol.name()),
                None => {
                    let names: Vec<&str> = Protocol::ALL.into_iter().map(Protocol::name).collect();
                    bail!("there is no protocol {name}: use one of {}", names.join(", "));
                }
            },
        };
        let owner = match (&arguments.container, &arguments.pod) {
            (Some(container), _) => Filter::Container(container.to_ascii_lowercase()),
            (None, Some((namespace, name))) => Filter::Pod(namespace.clone(), name.clone()),
            (None, None) => Filter::All,
        };
        Ok(Self { pid: arguments.pid, owner, protocol })
    }

    fn has(&self, span: &Span) -> bool {
        self.pid.is_none_or(|pid| span.process.pid == pid)
            && self.protocol.is_none_or(|protocol| span.protocol == protocol)
            && self.owner.has(&span.subject)
    }
}

/// Prints spans as trees.
struct Tree {
    wanted: Wanted,
}

impl Sink for Tree {
    fn accept(&mut self, batch: Batch, ledger: &Ledger) {
        ledger.exported(Signal::Profile, batch.profiles.iter().map(Profile::sample_count).sum());
        ledger.exported(Signal::SlowOperation, batch.slow_operations.len() as u64);
        ledger.exported(Signal::Span, batch.spans.len() as u64);
        let spans: Vec<&Span> = batch.spans.iter().filter(|span| self.wanted.has(span)).collect();
        // A closed terminal is not our loss.
        let _closed = output::print(text(&spans).as_bytes());
    }
}

/// The trees of spans that ended together, oldest first. A span whose parent is not among them begins a tree.
pub(super) fn text(spans: &[&Span]) -> String {
    let known: HashSet<[u8; 8]> = spans.iter().map(|span| span.span_id).collect();
    let mut children: HashMap<Option<[u8; 8]>, Vec<&Span>> = HashMap::new();
    for span in spans {
        let parent = span.parent.map(|(id, _)| id).filter(|id| known.contains(id));
        children.entry(parent).or_default().push(span);
    }
    for siblings in children.values_mut() {
        siblings.sort_by_key(|span| span.start_unix_ns);
    }
    let mut text = String::new();
    let mut todo: Vec<(&Span, usize)> =
        children.get(&None).into_iter().flatten().rev().map(|span| (*span, 0)).collect();
    while let Some((span, depth)) = todo.pop() {
        line(&mut text, span, depth);
        let below = children.get(&Some(span.span_id)).into_iter().flatten().rev();
        todo.extend(below.map(|child| (*child, (depth + 1).min(DEPTH_MAX))));
    }
    text
}

fn line(text: &mut String, span: &Span, depth: usize) {
    let start_ms = span.start_unix_ns / 1_000_000;
    let (seconds, milliseconds) = (start_ms / 1000 % 86_400, start_ms % 1000);
    let clock =
        format!("{:02}:{:02}:{:02}.{milliseconds:03}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let status = span.attributes.iter().find_map(|(key, value)| match (*key, value) {
        ("http.response.status_code", SpanValue::Integer(code)) => Some(code.to_string()),
        ("db.response.status_code" | "error.type", SpanValue::Text(code)) => Some(code.to_string()),
        _ => None,
    });
    let indent = if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth - 1)) };
    let proof = span.parent.map(|(_, proof)| format!("  [{}]", proof.name())).unwrap_or_default();
    let error = if span.error.is_some() { "  ERROR" } else { "" };
    let name: String = span.name.chars().flat_map(char::escape_debug).collect();
    // Writing to a string does not fail.
    let _written = writeln!(
        text,
        "{clock} {:>10.3} ms  {indent}{} {} ({}) {name} {}{error}{proof}",
        span.duration_ns() as f64 / 1e6,
        span.kind.name(),
        span.subject.service_name(),
        span.process.pid,
        status.unwrap_or_default(),
    );
}
