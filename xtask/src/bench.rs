//! `cargo xtask bench [--quick] [NAME]... [--part PART]... [--agent PATH] [--output PATH]`: what the agent costs, measured.
//!
//! This file reads the arguments and keeps the order of work; each figure has a file below. A whole run writes
//! `BENCHMARKS.md` at the workspace root; a shortened or partial run writes `target/bench/BENCHMARKS.md`, so that it
//! never replaces whole figures. It refuses to fail for a missed target (the report says so) and to invent a figure:
//! what could not be measured is reported with its reason.

use std::fs;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::background::Background;
use self::figures::Figure;
use self::plan::Plan;
use self::report::{Report, Section};
use self::setup::Bench;

mod figures;

mod agent_cpu;
mod crash;
mod growth;
mod io;
mod kernel_time;
mod memory;
mod names;
mod throughput;
mod traces;

mod agent;
mod plan;
mod setup;
mod turns;
mod workloads;

mod background;
mod children;
mod interrupt;
mod machine;
mod meter;
mod numbers;
mod parsers;
mod parts;
mod procfs;
mod programs;
mod report;
mod sink;
mod tools;

const USAGE: &str = "usage: cargo xtask bench [--quick] [NAME | --only NAME]... [--part PART]... [--agent PATH] [--output PATH]";

/// Measures the figures that `arguments` name (all when none is named), prints the report and writes it.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    let request = Request::parse(arguments)?;
    interrupt::watch()?;
    // Children run in other directories, where a relative path would lead elsewhere.
    let workspace = path::absolute(workspace).context("find the workspace")?;
    let directory = workspace.join("target/bench");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;

    let agent = match &request.agent {
        Some(agent) => {
            fs::canonicalize(agent).with_context(|| format!("find the agent {}", agent.display()))?
        }
        None => build_agent(&workspace)?,
    };
    let plan = if request.is_quick { Plan::QUICK } else { Plan::WHOLE };
    let fixtures = workspace.join("xtask/fixtures/bench");
    let bench = Bench::prepare(agent, &fixtures, &directory, plan, request.parts.clone())?;
    let mut report = Report::start(&workspace, &bench, arguments);
    for &figure in &request.figures {
        report.sections.push(measure(figure, &bench)?);
    }
    let text = report.to_markdown();
    print!("{text}");
    let output = request.output_path(&workspace, &directory);
    fs::write(&output, text).with_context(|| format!("write {}", output.display()))?;
    eprintln!("bench: written to {}", output.display());
    Ok(())
}

/// One figure with the state of the machine around it. Only an interrupt ends the whole run.
fn measure(figure: Figure, bench: &Bench) -> Result<Section> {
    eprintln!("bench: {}", figure.name());
    let before = Background::measure(bench.plan.background)?;
    let measured = figure.measure(bench);
    interrupt::check()?;
    let after = Background::measure(bench.plan.background)?;
    Ok(Section { figure, measured, background: before.worse(after) })
}

fn build_agent(workspace: &Path) -> Result<PathBuf> {
    eprintln!("bench: build the agent in release");
    let target = workspace.join("target");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "-p", "collector", "--bin", "kansoku", "--target-dir"])
        .arg(&target)
        .current_dir(workspace)
        .status()
        .context("start cargo")?;
    if !status.success() {
        bail!("the agent's release build failed: {status}");
    }
    Ok(target.join("release/kansoku"))
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    figures: Vec<Figure>,
    /// Parts of figures that have some; all, if none is named.
    parts: Vec<String>,
    is_quick: bool,
    /// An agent that exists already; without it the agent is built.
    agent: Option<PathBuf>,
    output: Option<PathBuf>,
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self> {
        let (figures, parts) = (Vec::new(), Vec::new());
        let mut request = Request { figures, parts, is_quick: false, agent: None, output: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value; {USAGE}"));
            match argument.as_str() {
                "--quick" => request.is_quick = true,
                "--only" => {
                    let name = value()?;
                    let figure = Figure::from_name(name)
                        .with_context(|| format!("unknown figure `{name}`; one of {}", Figure::names()))?;
                    request.figures.push(figure);
                }
                "--part" => request.parts.push(value()?.clone()),
                "--agent" => request.agent = Some(PathBuf::from(value()?)),
                "--output" => request.output = Some(PathBuf::from(value()?)),
                name if Figure::from_name(name).is_some() => request.figures.extend(Figure::from_name(name)),
                _ => bail!("unknown argument `{argument}`; {USAGE}; names: {}", Figure::names()),
            }
        }
        if request.figures.is_empty() {
            request.figures = Figure::ALL.to_vec();
        }
        Ok(request)
    }

    fn output_path(&self, workspace: &Path, directory: &Path) -> PathBuf {
        let is_of_all = self.figures == Figure::ALL && self.parts.is_empty();
        let is_whole = !self.is_quick && is_of_all && self.agent.is_none();
        match &self.output {
            Some(path) => path.clone(),
            None if is_whole => workspace.join("BENCHMARKS.md"),
            None => directory.join("BENCHMARKS.md"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Request> {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Request::parse(&arguments)
    }

    #[test]
    fn no_argument_means_every_figure_at_full_length() {
        let request = parse(&[]).expect("an empty command line is valid");
        assert_eq!(request.figures, Figure::ALL);
        assert!(!request.is_quick);
    }

    #[test]
    fn figures_are_named_with_and_without_only() {
        let figures = |arguments: &[&str]| parse(arguments).expect("a valid command line").figures;
        assert_eq!(figures(&["io"]), [Figure::Io]);
        assert_eq!(figures(&["io", "--only", "crash"]), [Figure::Io, Figure::Crash]);
    }

    #[test]
    fn only_a_whole_run_replaces_the_report_of_the_workspace() {
        let output = |arguments: &[&str]| {
            let request = parse(arguments).expect("a valid command line");
            request.output_path(Path::new("/w"), Path::new("/w/target/bench"))
        };
        assert_eq!(output(&[]), Path::new("/w/BENCHMARKS.md"));
        assert_eq!(output(&["--quick"]), Path::new("/w/target/bench/BENCHMARKS.md"));
        assert_eq!(output(&["--part", "scrape"]), Path::new("/w/target/bench/BENCHMARKS.md"));
        assert_eq!(output(&["--only", "memory"]), Path::new("/w/target/bench/BENCHMARKS.md"));
        assert_eq!(output(&["--agent", "debug/kansoku"]), Path::new("/w/target/bench/BENCHMARKS.md"));
        assert_eq!(output(&["--quick", "--output", "here.md"]), Path::new("here.md"));
    }

    #[test]
    fn unknown_figures_and_missing_values_are_refused() {
        let error = parse(&["--only", "speed"]).expect_err("there is no such figure").to_string();
        assert!(error.contains("kernel-time"), "{error}");
        assert!(parse(&["--only"]).is_err());
        assert!(parse(&["--fast"]).is_err());
    }
}
