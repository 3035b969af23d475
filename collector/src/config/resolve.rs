//! Gives each key its value and says where it came from: flag over environment over file over default.
//!
//! Refuses: unknown keys and wrong types, with the nearest key and the place in the error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use super::keys::{Key, Kind, keys};

/// Where values come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file and its text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Keys and values from the command line.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// This process's environment, a file, and values from the command line.
    pub fn of_process(file: Option<(PathBuf, String)>, flags: Vec<(String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { file, environment: environment.collect(), flags }
    }
}

/// A value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Integer`].
    Integer(u64),
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Text`] and [`Kind::Choice`].
    Text(String),
    /// Of [`Kind::Table`].
    Table(BTreeMap<String, String>),
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(name) => write!(formatter, "environment {name}"),
            Self::Flag => formatter.write_str("command line"),
        }
    }
}

/// Every key with its value and origin.
#[derive(Debug)]
pub struct Resolved {
    values: BTreeMap<String, (Value, Origin)>,
    keys: Vec<Key>,
}

impl Resolved {
    /// Resolves all keys.
    ///
    /// # Errors
    ///
    /// For a file that is not YAML, an unknown key, a value of another type or out of bounds.
    pub fn new(sources: &Sources) -> Result<Self> {
        let keys = keys();
        let mut values = BTreeMap::new();
        for key in &keys {
            let value = parse(key, key.default).with_context(|| format!("the default of {}", key.path))?;
            values.insert(key.path.clone(), (value, Origin::Default));
        }
        let mut resolved = Self { values, keys };
        if let Some((path, text)) = &sources.file {
            resolved.take_file(path, text)?;
        }
        resolved.take_environment(&sources.environment)?;
        for (path, text) in &sources.flags {
            resolved.set(path, text, Origin::Flag)?;
        }
        Ok(resolved)
    }

    /// Keys with their values and origins, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Value, &Origin)> {
        self.keys.iter().filter_map(|key| {
            let (value, origin) = self.values.get(&key.path)?;
            Some((key, value, origin))
        })
    }

    /// The value of an integer key.
    pub(super) fn integer(&self, path: &str) -> u64 {
        match self.value(path) {
            Some(Value::Integer(number)) => *number,
            _ => unreachable_key(path),
        }
    }

    /// The value of a flag key.
    pub(super) fn flag(&self, path: &str) -> bool {
        match self.value(path) {
            Some(Value::Flag(flag)) => *flag,
            _ => unreachable_key(path),
        }
    }

    /// The value of a text or choice key.
    pub(super) fn text(&self, path: &str) -> &str {
        match self.value(path) {
            Some(Value::Text(text)) => text,
            _ => unreachable_key(path),
        }
    }

    /// The value of a table key.
    pub(super) fn table(&self, path: &str) -> &BTreeMap<String, String> {
        match self.value(path) {
            Some(Value::Table(table)) => table,
            _ => unreachable_key(path),
        }
    }

    fn value(&self, path: &str) -> Option<&Value> {
        self.values.get(path).map(|(value, _)| value)
    }

    fn take_file(&mut self, path: &std::path::Path, text: &str) -> Result<()> {
        let document: Json = match text.trim() {
            "" => Json::Object(serde_json::Map::new()),
            _ => serde_saphyr::from_str(text)
                .with_context(|| format!("{} is not valid YAML", path.display()))?,
        };
        self.take_node("", &document, path).with_context(|| format!("in {}", path.display()))
    }

    /// Walks the document: what is not a key must be a section that holds keys.
    fn take_node(&mut self, at: &str, node: &Json, file: &std::path::Path) -> Result<()> {
        if let Some(key) = self.keys.iter().find(|key| key.path == at) {
            let value = from_json(key, node)?;
            self.values.insert(at.to_owned(), (value, Origin::File(file.to_path_buf())));
            return Ok(());
        }
        let is_section = at.is_empty() || self.keys.iter().any(|key| key.path.starts_with(&format!("{at}.")));
        match node {
            _ if !is_section => bail!("unknown key {at}{}", self.nearest(at)),
            Json::Null => Ok(()),
            Json::Object(fields) => fields.iter().try_for_each(|(name, node)| {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                self.take_node(&path, node, file)
            }),
            other => bail!(
                "{} is a section of keys, not the value {other}",
                if at.is_empty() { "the file" } else { at }
            ),
        }
    }

    /// Standard variables may be set for others: only ours are checked for typing errors.
    fn take_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<()> {
        for key in self.keys.clone() {
            if let Some(text) = environment.get(&key.variable).filter(|text| !text.is_empty()) {
                self.set(&key.path, text, Origin::Environment(key.variable.clone()))?;
            }
        }
        let is_known =
            |name: &str| name == "KANSOKU_CONFIG" || self.keys.iter().any(|key| key.variable == name);
        for name in environment.keys().filter(|name| name.starts_with("KANSOKU_") && !is_known(name)) {
            // Kubernetes sets variables named after services; a warning would be noise there, an error would be worse.
            tracing::debug!(%name, "this environment variable is not a key of Kansoku");
        }
        Ok(())
    }

    fn set(&mut self, path: &str, text: &str, origin: Origin) -> Result<()> {
        let Some(key) = self.keys.iter().find(|key| key.path == path) else {
            bail!("unknown key {path}{}", self.nearest(path));
        };
        let value = parse(key, text).with_context(|| format!("from {origin}"))?;
        self.values.insert(path.to_owned(), (value, origin));
        Ok(())
    }

    fn nearest(&self, path: &str) -> String {
        const SIMILAR: f64 = 0.7;
        let similarity =
            |key: &Key| strsim::jaro_winkler(&key.path, path).max(last_word_similarity(&key.path, path));
        let best = self.keys.iter().max_by(|one, other| similarity(one).total_cmp(&similarity(other)));
        match best.filter(|key| similarity(key) >= SIMILAR) {
            Some(key) => format!("; did you mean {}?", key.path),
            None => "; `kansoku config print` lists all keys".to_owned(),
        }
    }
}

/// `frequency` at the top level is most like `profile.frequency_hz`.
fn last_word_similarity(key: &str, path: &str) -> f64 {
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    strsim::jaro_winkler(&last(key), &last(path)) * 0.95
}

/// A value from text: environment, command line, default.
fn parse(key: &Key, text: &str) -> Result<Value> {
    let wrong = |expected: String| anyhow::anyhow!("{} is {text:?}, but it takes {expected}", key.path);
    match key.kind {
        Kind::Integer(min, max) => match text.parse() {
            Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
            _ => Err(wrong(format!("a whole number from {min} to {max}"))),
        },
        Kind::Flag => text.parse().map(Value::Flag).map_err(|_| wrong("true or false".to_owned())),
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Choice(choices) if choices.contains(&text) => Ok(Value::Text(text.to_owned())),
        Kind::Choice(choices) => Err(wrong(format!("one of {}", choices.join(", ")))),
        Kind::Table if text == "{}" => Ok(Value::Table(BTreeMap::new())),
        Kind::Table => {
            let pairs = text.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.trim().to_owned(), percent_decoded(value.trim())))
            });
            let table: Option<BTreeMap<_, _>> = pairs.collect();
            // The text may hold secrets: it is not repeated.
            table.map(Value::Table).with_context(|| format!("{} takes name=value,name=value", key.path))
        }
    }
}

/// A value from the file.
fn from_json(key: &Key, node: &Json) -> Result<Value> {
    match (key.kind, node) {
        (Kind::Table, Json::Object(fields)) => {
            let field = |(name, value): (&String, &Json)| match value {
                Json::String(text) => Ok((name.clone(), text.clone())),
                Json::Number(_) | Json::Bool(_) => Ok((name.clone(), value.to_string())),
                _ => bail!("{}.{name} takes a text", key.path),
            };
            Ok(Value::Table(fields.iter().map(field).collect::<Result<_>>()?))
        }
        (Kind::Table, _) => bail!("{} takes names and values", key.path),
        // YAML 1.1 reads a bare `off` as false.
        (Kind::Choice(choices), Json::Bool(false)) if choices.contains(&"off") => parse(key, "off"),
        (_, Json::String(text)) => parse(key, text),
        (_, Json::Number(_) | Json::Bool(_)) => parse(key, &node.to_string()),
        (_, Json::Null) => parse(key, key.default),
        _ => bail!("{} takes one value, not {node}", key.path),
    }
}

/// Values of `OTEL_*` tables are percent-encoded: W3C Baggage.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unreachable_key(path: &str) -> ! {
    panic!("{path} is not a key of that kind: mend the table of keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Resolved> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Resolved::new(&Sources {
            file: Some(("f.yaml".into(), file.to_owned())),
            environment: environment.iter().map(owned).collect(),
            flags: flags.iter().map(owned).collect(),
        })
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let path = "profile.frequency_hz";
        let check =
            |file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)], expected: (u64, Origin)| {
                let resolved = resolve(file, environment, flags).expect("valid");
                let origin = resolved.values[path].1.clone();
                assert_eq!((resolved.integer(path), origin), expected);
            };
        let file = "profile:\n  frequency_hz: 19\n";
        let variable = ("KANSOKU_PROFILE_FREQUENCY_HZ", "49");
        check("", &[], &[], (97, Origin::Default));
        check(file, &[], &[], (19, Origin::File("f.yaml".into())));
        check(file, &[variable], &[], (49, Origin::Environment(variable.0.to_owned())));
        check(file, &[variable], &[(path, "997")], (997, Origin::Flag));
        check("profile:\n", &[], &[], (97, Origin::Default));
    }

    #[test]
    fn errors_say_what_to_do() {
        let check = |file: &str, environment: &[(&str, &str)], expected: &str| {
            let error = format!("{:#}", resolve(file, environment, &[]).expect_err(file));
            assert!(error.contains(expected), "{error:?} has no {expected:?}");
        };
        check(
            "profile: {frequency: 9}",
            &[],
            "unknown key profile.frequency; did you mean profile.frequency_hz?",
        );
        check("frequency_hz: 9", &[], "did you mean profile.frequency_hz?");
        check("zzz: 1", &[], "kansoku config print");
        check(
            "profile: {frequency_hz: fast}",
            &[],
            "profile.frequency_hz is \"fast\", but it takes a whole number",
        );
        check("profile: {frequency_hz: 0}", &[], "from 1 to 10000");
        check("profile: {frequency_hz: [1]}", &[], "takes one value");
        check("profile: 3", &[], "section of keys");
        check("- 1", &[], "section of keys");
        check("a: b: c", &[], "not valid YAML");
        check("otlp: {protocol: http/json}", &[], "one of http/protobuf, grpc");
        check("otlp: {headers: 3}", &[], "names and values");
        check("symbols: {lines: 1}", &[], "true or false");
        check("", &[("OTEL_EXPORTER_OTLP_TIMEOUT", "x")], "environment OTEL_EXPORTER_OTLP_TIMEOUT");
        check("", &[("OTEL_EXPORTER_OTLP_HEADERS", "secret")], "takes name=value");
    }

    #[test]
    fn tables_from_the_environment() {
        let variable = [("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x=1,")];
        let resolved = resolve("", &variable, &[]).expect("valid");
        let expected = [("authorization", "Bearer abc"), ("x", "1")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(resolved.table("otlp.headers").clone().into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_table_has_no_double_keys() {
        let mut paths: Vec<_> = keys().into_iter().map(|key| key.path).collect();
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
