//! `cargo xtask manifests [--check]`: renders the Kustomize base from the Helm chart, so that there is one truth; with
//! `--check` compares it, validates both with several sets of values against Kubernetes' own schemas, and looks at the shell
//! scripts beside them with shellcheck.
//!
//! Refuses: clusters. Nothing is asked of one and nothing is applied to it. Kinds that Kubernetes has no schema of are
//! named in [`UNKNOWN_KINDS`], and said; any other without one is a mistake.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;

const CHART: &str = "manifests/helm/kansoku";
/// Sets of values that must render and be valid.
const VALUE_SETS: &str = "manifests/helm/kansoku/ci";
/// Values for what stands beside the agent, which must do for the chart too, and manifests for clusters.
const EXAMPLES: &str = "manifests/examples";
const BASE: &str = "manifests/kustomize/base";

/// Shell scripts for clusters and images.
const SCRIPTS: [&str; 3] =
    ["manifests/kubectl-kansoku", "manifests/image/rootfs.sh", "manifests/image/sbom.sh"];

/// Templates that become files of the base under their own name.
const TEMPLATES: [&str; 3] = ["daemonset.yaml", "rbac.yaml", "serviceaccount.yaml"];

/// Kubernetes versions: the oldest that the chart says, the first with `appArmorProfile`, and the newest with a schema.
const VERSIONS: [&str; 3] = ["1.25", "1.30", "1.37"];
/// What the base is for: it cannot ask.
const BASE_VERSION: &str = "1.30";

/// Kinds of custom resources: of the Prometheus operator and of KEDA.
const UNKNOWN_KINDS: [&str; 3] = ["PodMonitor", "PrometheusRule", "ScaledObject"];

/// Lines of rendered templates that only mean something to Helm, or change with a file that Kustomize gives a hash itself.
const HELM_LINES: [&str; 5] = [
    "helm.sh/chart:",
    "app.kubernetes.io/managed-by: Helm",
    "checksum/config:",
    "# Another configuration is another pod.",
    "# Source:",
];

/// Renders, or checks.
pub fn run(workspace: &Path, arguments: &[String]) -> Result<()> {
    let is_check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("use cargo xtask manifests [--check]"),
    };
    setup::for_manifests(workspace)?;
    let tools = Tools { workspace, path: setup::path_with_tools(workspace)? };
    for (name, text) in tools.base()? {
        let path = workspace.join(BASE).join(&name);
        if !is_check {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        } else if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            bail!("{BASE}/{name} is not what the chart renders: run cargo xtask manifests");
        }
    }
    if is_check { tools.check() } else { Ok(()) }
}

struct Tools<'a> {
    workspace: &'a Path,
    path: OsString,
}

impl Tools<'_> {
    /// The generated files of the base: names and texts.
    fn base(&self) -> Result<Vec<(String, String)>> {
        let render = |template: &str| {
            let shown = format!("templates/{template}");
            let template = ["template", "kansoku", CHART, "--namespace", "kansoku", "--show-only", &shown];
            self.output(self.command("helm").args(template).args(["--kube-version", BASE_VERSION]))
        };
        let mut files = Vec::new();
        for template in TEMPLATES {
            files.push((template.to_owned(), without_helm(&render(template)?)));
        }
        let config = config_of(&render("configmap.yaml")?).context("the ConfigMap has no config.yaml")?;
        files.push(("config.yaml".to_owned(), config));
        Ok(files)
    }

    fn check(&self) -> Result<()> {
        self.output(self.command("shellcheck").args(SCRIPTS))?;
        self.output(self.command("helm").args(["lint", "--strict", "--quiet", CHART]))?;
        let sets = yaml_files(&self.workspace.join(VALUE_SETS))?;
        ensure!(!sets.is_empty(), "{VALUE_SETS} is empty");
        let examples = yaml_files(&self.workspace.join(EXAMPLES))?;
        let is_values = |path: &&PathBuf| path.to_string_lossy().ends_with("-values.yaml");
        let mut unknown = BTreeSet::new();
        for set in sets.iter().chain(examples.iter().filter(is_values)) {
            for version in VERSIONS {
                let mut helm = self.command("helm");
                helm.args(["template", "kansoku", CHART, "--namespace", "kansoku"]);
                let text = self.output(helm.args(["--kube-version", version, "--values"]).arg(set))?;
                unknown.extend(self.validate(&text, version).with_context(|| set.display().to_string())?);
            }
        }
        let text = self.output(self.command("kubectl").args(["kustomize", BASE]))?;
        for version in VERSIONS.iter().filter(|version| **version >= BASE_VERSION) {
            unknown.extend(self.validate(&text, version).context(BASE)?);
        }
        for example in examples.iter().filter(|path| !is_values(path)) {
            let text = fs::read_to_string(example)?;
            // Others are files of the programs themselves.
            if text.contains("\napiVersion:") {
                unknown.extend(
                    self.validate(&text, BASE_VERSION).with_context(|| example.display().to_string())?,
                );
            }
        }
        let unknown: Vec<_> = unknown.into_iter().collect();
        println!(
            "manifests: {} sets of values on Kubernetes {}, the Kustomize base, the examples and the scripts are valid; not \
             checked, because Kubernetes has no schema of them: {}",
            sets.len(),
            VERSIONS.join(", "),
            unknown.join(", ")
        );
        Ok(())
    }

    /// Fails for what is not valid; returns the kinds that could not be checked.
    fn validate(&self, text: &str, version: &str) -> Result<Vec<String>> {
        let file = tempfile::NamedTempFile::new().context("cannot make a file")?;
        fs::write(file.path(), text)?;
        let mut validate = self.command("kubernetes-validate");
        validate.args(["--strict", "--quiet", "--kubernetes-version", version]).arg(file.path());
        let kinds = kinds_without_schema(&self.output(&mut validate)?);
        match kinds.iter().find(|kind| !UNKNOWN_KINDS.contains(&kind.as_str())) {
            Some(kind) => bail!("Kubernetes {version} has no {kind}"),
            None => Ok(kinds),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", &self.path).current_dir(self.workspace);
        command
    }

    /// Standard output and error of a command that must succeed.
    fn output(&self, command: &mut Command) -> Result<String> {
        let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{command:?} failed:\n{text}{errors}");
        Ok(format!("{text}{errors}"))
    }
}

fn without_helm(rendered: &str) -> String {
    let is_kept = |line: &&str| !HELM_LINES.iter().any(|start| line.trim_start().starts_with(start));
    let lines = rendered.lines().filter(is_kept).map(|line| format!("{line}\n"));
    let text: String = lines.collect();
    format!("# Rendered from {CHART} by cargo xtask manifests: change it there.\n{text}")
}

/// The agent's file in a rendered ConfigMap.
fn config_of(rendered: &str) -> Option<String> {
    let (_, file) = rendered.split_once("  config.yaml: |\n")?;
    let lines = file.lines().filter_map(|line| line.strip_prefix("    "));
    Some(lines.map(|line| format!("{line}\n")).collect())
}

/// From what kubernetes-validate says.
fn kinds_without_schema(said: &str) -> Vec<String> {
    let kind = |line: &str| {
        let (_, rest) = line.split_once("Couldn't find schema for kind ")?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    said.lines().filter_map(kind).collect()
}

fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helm_alone_reads_goes() {
        let rendered = "---\n# Source: a\nmetadata:\n  labels:\n    helm.sh/chart: a-1\n    app: a\n";
        assert!(without_helm(rendered).ends_with("there.\n---\nmetadata:\n  labels:\n    app: a\n"));
    }

    #[test]
    fn the_agents_file() {
        let rendered = "data:\n  config.yaml: |\n    a:\n      b: 1\n---\n";
        assert_eq!(config_of(rendered).as_deref(), Some("a:\n  b: 1\n"));
        assert_eq!(config_of("data: {}\n"), None);
    }

    #[test]
    fn kinds() {
        let said = "WARN x Couldn't find schema for kind PodMonitor with api version a/v1\nINFO x passed\n";
        assert_eq!(kinds_without_schema(said), ["PodMonitor"]);
    }
}
