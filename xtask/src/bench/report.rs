//! The report in Markdown, written anew as a whole.
//!
//! Refuses: figures from other runs.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::background::Background;
use super::figures::{Figure, Measured};
use super::machine::Machine;
use super::setup::Bench;
use super::tools::{find, first_line, stdout_of};

/// One figure with what the machine did around it.
pub struct Section {
    pub figure: Figure,
    pub measured: Result<Measured>,
    pub background: Background,
}

/// A report that is being filled.
pub struct Report {
    pub sections: Vec<Section>,
    machine: Machine,
    date: String,
    command: String,
    agent: String,
    peer: String,
    is_quick: bool,
}

impl Report {
    pub fn start(workspace: &Path, bench: &Bench, arguments: &[String]) -> Self {
        let mut command = vec!["cargo xtask bench".to_owned()];
        command.extend_from_slice(arguments);
        let revision = stdout_of(
            Command::new("git")
                .args(["describe", "--always", "--dirty", "--abbrev=12"])
                .current_dir(workspace),
        );
        let agent = bench.agent.to_string_lossy();
        Self {
            sections: Vec::new(),
            machine: Machine::find(),
            date: first_line("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]),
            command: command.join(" "),
            agent: format!(
                "{}, revision {}, `{}`",
                first_line(&agent, &["--version"]),
                revision.as_deref().map_or("unknown", str::trim),
                bench.agent.strip_prefix(workspace).unwrap_or(&bench.agent).display(),
            ),
            peer: match find("bpftrace") {
                Some(_) => first_line("bpftrace", &["--version"]),
                None => "bpftrace: not installed".to_owned(),
            },
            is_quick: bench.plan.is_quick,
        }
    }

    pub fn to_markdown(&self) -> String {
        let mut text = self.head();
        for section in &self.sections {
            text += &format!("\n## {}\n\n", section.figure.title());
            match &section.measured {
                Ok(measured) => text += &measured.text,
                Err(error) => text += &format!("Not measured: {error:#}\n"),
            }
        }
        text
    }

    fn head(&self) -> String {
        let Machine { kernel, cpu_model, cpus, memory_mib } = &self.machine;
        let facts = [
            ("date", self.date.clone()),
            ("command", format!("`{}`", self.command)),
            ("agent", self.agent.clone()),
            ("peer", self.peer.clone()),
            ("kernel", kernel.clone()),
            ("CPU", format!("{cpus} x {cpu_model}")),
            ("memory", format!("{memory_mib} MiB")),
        ];
        let facts = facts.map(|(name, value)| vec![name.to_owned(), value]);
        let rows: Vec<Vec<String>> = self.sections.iter().map(|section| section.row(self.is_quick)).collect();
        let length = if self.is_quick { "This is a short run: its figures only indicate.\n\n" } else { "" };
        format!(
            "# Benchmarks\n\nWritten by the command below; changes by hand are lost.\n\n{}\n{length}{}\n\
             Background: the share of all CPUs that was busy while nothing of the bench ran, and that was stolen by the \
             hypervisor; the worse of before and after.\n",
            table(&["", ""], &facts),
            table(&["figure", "target", "measured", "verdict", "background busy, stolen"], &rows),
        )
    }
}

impl Section {
    fn row(&self, is_quick: bool) -> Vec<String> {
        let Background { busy_percent, stolen_percent } = self.background;
        vec![
            self.figure.title().to_owned(),
            self.figure.target(),
            self.measured
                .as_ref()
                .map_or_else(|error| format!("not measured: {error:#}"), |m| m.summary.clone()),
            self.verdict(is_quick),
            format!("{busy_percent:.1} %, {stolen_percent:.1} %"),
        ]
    }

    fn verdict(&self, is_quick: bool) -> String {
        let verdict = match &self.measured {
            Err(_) => return "not measured".to_owned(),
            Ok(Measured { is_met: Some(true), .. }) => "met",
            Ok(Measured { is_met: Some(false), .. }) => "missed",
            Ok(Measured { is_met: None, .. }) => "-",
        };
        let mut doubts = Vec::new();
        if is_quick {
            doubts.push("short run");
        }
        if !self.background.is_quiet() {
            doubts.push("machine not quiet");
        }
        if doubts.is_empty() { verdict.to_owned() } else { format!("{verdict} ({})", doubts.join(", ")) }
    }
}

/// A table in Markdown. Cells hold no line breaks; their bars are escaped.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(&mut header.iter().map(|cell| (*cell).to_owned()));
    text += &line(&mut header.iter().map(|_| "---".to_owned()));
    for row in rows {
        text += &line(&mut row.iter().cloned());
    }
    text
}

/// Text as it is.
pub fn fenced(text: &str) -> String {
    format!("```text\n{}\n```\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Background = Background { busy_percent: 0.5, stolen_percent: 0.0 };

    fn section(measured: Result<Measured>, background: Background) -> Section {
        Section { figure: Figure::Memory, measured, background }
    }

    fn measured(is_met: Option<bool>) -> Result<Measured> {
        Ok(Measured { summary: "1 MiB".to_owned(), is_met, text: String::new() })
    }

    #[test]
    fn a_table_escapes_what_would_break_it() {
        let text = table(&["a", "b"], &[vec!["x|y".to_owned(), "two\nlines".to_owned()]]);
        assert_eq!(text, "| a | b |\n| --- | --- |\n| x\\|y | two lines |\n");
    }

    #[test]
    fn verdicts_say_what_makes_them_doubtful() {
        let loaded = Background { busy_percent: 50.0, ..QUIET };
        assert_eq!(section(measured(Some(true)), QUIET).verdict(false), "met");
        assert_eq!(section(measured(Some(false)), QUIET).verdict(true), "missed (short run)");
        assert_eq!(section(measured(None), loaded).verdict(true), "- (short run, machine not quiet)");
    }

    #[test]
    fn what_failed_is_reported_with_its_reason() {
        let row = section(Err(anyhow::anyhow!("no such tool").context("start it")), QUIET).row(false);
        assert_eq!(row[2], "not measured: start it: no such tool");
        assert_eq!(row[3], "not measured");
    }
}
