//! `kansoku config`: the configuration with the origin of each value, and a check of a file.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::{ConfigArguments, output};
use crate::config::{Config, Key, Value};

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every key with its value, where the value came from, and what it is for
    Print(ConfigArguments),
    /// Check the file and the environment; exit code 2 if they cannot be used
    Check(ConfigArguments),
}

pub(super) fn config(command: &ConfigCommand) -> Result<ExitCode> {
    match command {
        ConfigCommand::Print(arguments) => output::print(text(arguments)?.as_bytes())?,
        ConfigCommand::Check(arguments) => {
            arguments.load(Vec::new())?;
            output::print(b"the configuration is valid\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration as YAML that could be used as a file, with comments. Secrets are left out.
fn text(arguments: &ConfigArguments) -> Result<String> {
    let resolved = arguments.resolve(Vec::new())?;
    Config::new(&resolved).map_err(super::UsageError::wrap)?;
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (key, value, origin) in resolved.entries() {
        let path: Vec<&str> = key.path.split('.').collect();
        let (name, sections) =
            path.split_last().map(|(name, sections)| (*name, sections)).unwrap_or_default();
        let common = open.iter().zip(sections).take_while(|(one, other)| one == other).count();
        open.truncate(common);
        for section in &sections[common..] {
            text += &format!("{}{section}:\n", "  ".repeat(open.len()));
            open.push(section);
        }
        let indent = "  ".repeat(open.len());
        text += &format!("{indent}# {} Variable: {}.\n", key.help, key.variable);
        text += &format!("{indent}{name}: {}  # {origin}\n", yaml(key, value));
    }
    Ok(text)
}

fn yaml(key: &Key, value: &Value) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => quoted(text),
        Value::Table(table) => {
            let shown = |value: &str| if key.is_secret { quoted("(secret)") } else { quoted(value) };
            let pairs: Vec<_> =
                table.iter().map(|(name, value)| format!("{}: {}", quoted(name), shown(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}
