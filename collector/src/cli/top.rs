//! The local view: top functions and stacks per service on the terminal, and a flame graph file.
//!
//! Refuses: history. The terminal shows the last window, the flame graph the last minute.

use std::collections::{HashMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::crash_output::RecentCrashes;
use crate::config::Config;
use crate::daemon::Sink;
use crate::export::{flame_graph, summary};
use crate::loss::{Ledger, Signal};
use crate::telemetry::{Batch, Location, Profile, Sample, SlowOperation, Span};

/// The flame graph shows this much time.
const FLAME_GRAPH_SPAN: Duration = Duration::from_secs(60);

/// Drawing costs more than everything else together: it is done each so many windows.
const WINDOWS_PER_FLAME_GRAPH: usize = 3;

const SERVICES_SHOWN: usize = 8;
const FUNCTIONS_SHOWN: usize = 4;
const STACKS_SHOWN: usize = 5;
const STACK_FRAMES_SHOWN: usize = 6;
const SLOW_OPERATIONS_SHOWN: usize = 5;
const NAME_CHARS_MAX: usize = 48;
const SUMMARY_CHARS_MAX: usize = 120;

/// The local view's state.
pub(super) struct Top {
    recent: VecDeque<Vec<Profile>>,
    crashes: RecentCrashes,
    slow_operations: Vec<SlowOperation>,
    windows_kept: usize,
    flame_graph: PathBuf,
    frequency_hz: u32,
    is_terminal: bool,
    flame_graph_failed: bool,
    windows_until_flame_graph: usize,
}

impl Top {
    pub(super) fn new(config: &Config, crashes: RecentCrashes) -> Self {
        let windows = FLAME_GRAPH_SPAN.as_millis() / config.window.as_millis().max(1);
        Self {
            recent: VecDeque::new(),
            crashes,
            slow_operations: Vec::new(),
            windows_kept: (windows as usize).clamp(1, 64),
            flame_graph: config.flame_graph.clone(),
            frequency_hz: config.kernel.frequency_hz,
            is_terminal: std::io::stdout().is_terminal(),
            flame_graph_failed: false,
            windows_until_flame_graph: 0,
        }
    }

    fn write_flame_graph(&mut self) {
        let profiles: Vec<&Profile> = self.recent.iter().flatten().collect();
        let title = format!("this machine, on CPU, last {} s", FLAME_GRAPH_SPAN.as_secs());
        let result = render_flame_graph(&profiles, &title, &self.flame_graph)
            .and_then(|text| write_atomically(&self.flame_graph, text.as_bytes()));
        match result {
            Ok(()) => self.flame_graph_failed = false,
            Err(error) if !self.flame_graph_failed => {
                self.flame_graph_failed = true;
                tracing::warn!("no flame graph: {error:#}");
            }
            Err(_) => {}
        }
    }
}

impl Sink for Top {
    fn accept(&mut self, batch: Batch, ledger: &Ledger) {
        let samples: u64 = batch.profiles.iter().map(Profile::sample_count).sum();
        let slow = batch.slow_operations.len() as u64;
        let spans = batch.spans.len() as u64;
        self.slow_operations.extend(batch.slow_operations);
        let first_kept = self.slow_operations.len().saturating_sub(SLOW_OPERATIONS_SHOWN);
        self.slow_operations.drain(..first_kept);
        let text = self.text(&batch.profiles, &batch.spans, ledger);
        self.recent.push_back(batch.profiles);
        while self.recent.len() > self.windows_kept {
            self.recent.pop_front();
        }
        if self.windows_until_flame_graph == 0 && samples > 0 {
            self.windows_until_flame_graph = WINDOWS_PER_FLAME_GRAPH;
            self.write_flame_graph();
        }
        self.windows_until_flame_graph = self.windows_until_flame_graph.saturating_sub(1);
        // Shown is exported: there is no other receiver. A closed terminal is not our loss.
        let clear = if self.is_terminal { "\x1b[H\x1b[2J" } else { "" };
        let _closed_terminal = writeln!(std::io::stdout().lock(), "{clear}{text}");
        ledger.exported(Signal::Profile, samples);
        ledger.exported(Signal::SlowOperation, slow);
        ledger.exported(Signal::Span, spans);
    }
}

impl Top {
    fn text(&self, profiles: &[Profile], spans: &[Span], ledger: &Ledger) -> String {
        let samples: u64 = profiles.iter().map(Profile::sample_count).sum();
        let account = ledger.account(Signal::Profile);
        let lost: u64 = account.lost.iter().map(|(_, count)| count).sum();
        let seconds = profiles.first().map_or(0.0, |profile| profile.duration_ns as f64 / 1e9);
        let mut text = format!(
            "kansoku {} | {} Hz | {samples} samples in {seconds:.0} s | {} seen, {lost} lost since the start | Ctrl-C stops\n",
            crate::export::VERSION,
            self.frequency_hz,
            account.seen,
        );
        if !self.flame_graph_failed {
            text += &format!("flame graph of the last minute: {}\n", self.flame_graph.display());
        }
        text += "\n CPU %  SERVICE                   TOP FUNCTIONS (self)\n";
        for service in services(profiles).into_iter().take(SERVICES_SHOWN) {
            text += &service_line(&service);
        }
        text += "\n CPU %  HOTTEST STACKS (root > leaf)\n";
        for (cpu, process, stack) in hottest_stacks(profiles) {
            text += &format!("{cpu:6.1}  {process}: {stack}\n");
        }
        text += &super::requests::table(spans);
        if !self.slow_operations.is_empty() {
            text += "\n LAST SLOW OPERATIONS (io.slow_ms)\n";
        }
        for operation in &self.slow_operations {
            let summary: String = summary(operation).escape_debug().take(SUMMARY_CHARS_MAX).collect();
            let process = &operation.process;
            text += &format!(" {} ({}) {summary}\n", process.executable_name, process.pid);
        }
        let crashes = self.crashes.read();
        if !crashes.is_empty() {
            text += "\n TIME (UTC)  LAST CRASHES (kansoku crashes show ID)\n";
        }
        for crash in crashes {
            let time = crash
                .id
                .get(9..15)
                .map_or_else(String::new, |time| format!("{}:{}:{}", &time[..2], &time[2..4], &time[4..]));
            let summary: String = crash.summary.escape_debug().take(SUMMARY_CHARS_MAX).collect();
            text +=
                &format!(" {time}    {} ({}) {summary}\n", crash.process.executable_name, crash.process.pid);
        }
        text
    }
}

/// CPU of a service and of its functions, in percent of one CPU.
struct Service {
    name: String,
    cpu: f64,
    functions: Vec<(String, f64)>,
}

fn services(profiles: &[Profile]) -> Vec<Service> {
    let mut services: Vec<Service> = profiles.iter().map(service).collect();
    services.sort_by(|one, other| other.cpu.total_cmp(&one.cpu));
    services
}

fn service(profile: &Profile) -> Service {
    let percent = |count: u64| cpu_percent(profile, count);
    let mut functions: HashMap<&str, u64> = HashMap::new();
    for sample in &profile.samples {
        *functions.entry(sample.stack.first().map_or("[no stack]", |leaf| function(leaf))).or_default() +=
            sample.count;
    }
    let mut functions: Vec<_> =
        functions.into_iter().map(|(name, count)| (name.to_owned(), percent(count))).collect();
    functions.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let container = profile.subject.container.as_ref().map(|container| format!(" [{}]", &container.id[..12]));
    let name = format!("{}{}", profile.subject.service_name(), container.unwrap_or_default());
    Service { name, cpu: percent(profile.sample_count()), functions }
}

fn service_line(service: &Service) -> String {
    let functions = service.functions.iter().take(FUNCTIONS_SHOWN);
    let functions: Vec<_> = functions.map(|(name, cpu)| format!("{} {cpu:.1}", shortened(name))).collect();
    format!("{:6.1}  {:<24}  {}\n", service.cpu, shortened(&service.name), functions.join(" | "))
}

fn hottest_stacks(profiles: &[Profile]) -> Vec<(f64, String, String)> {
    let mut stacks: Vec<(&Profile, &Sample)> = profiles
        .iter()
        .flat_map(|profile| profile.samples.iter().map(move |sample| (profile, sample)))
        .collect();
    stacks.sort_by_key(|(_, sample)| std::cmp::Reverse(sample.count));
    let shown = stacks.into_iter().take(STACKS_SHOWN).map(|(profile, sample)| {
        let frames = sample.stack.iter().take(STACK_FRAMES_SHOWN).rev();
        let mut names: Vec<String> = frames.map(|location| shortened(function(location))).collect();
        if sample.stack.len() > STACK_FRAMES_SHOWN {
            names.insert(0, "..".to_owned());
        }
        (cpu_percent(profile, sample.count), sample.process.executable_name.to_string(), names.join(" > "))
    });
    shown.collect()
}

fn cpu_percent(profile: &Profile, count: u64) -> f64 {
    count as f64 * profile.period_ns as f64 * 100.0 / profile.duration_ns.max(1) as f64
}

fn function(location: &Arc<Location>) -> &str {
    location.lines.first().map_or("", |line| &line.function)
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &name[..end]),
        None => name.to_owned(),
    }
}

/// Draws the format that the file's ending asks for.
fn render_flame_graph(profiles: &[&Profile], title: &str, path: &Path) -> Result<String> {
    if path.extension().is_some_and(|extension| extension == "svg") {
        flame_graph::svg(profiles, title)
    } else {
        flame_graph::html(profiles, title)
    }
}

/// Writes a file so that a reader sees the old or the new one, never a part.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    // A device or a pipe is written to, not replaced: /dev/null must stay what it is.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the folder {}", directory.display()))?;
    let name = path.file_name().with_context(|| format!("{} is not a file name", path.display()))?;
    let temporary = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let result = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if result.is_err() {
        // The error of the write is the one that matters.
        let _left_over = std::fs::remove_file(&temporary);
    }
    result.with_context(|| {
        format!("cannot write {}: is the disk full, or the folder read-only?", path.display())
    })
}
