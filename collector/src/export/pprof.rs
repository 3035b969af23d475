//! Profiles -> pprof: gzipped `profile.proto`.
//!
//! The messages are declared here for prost, by the field numbers of `profile.proto` in google/pprof: seven small
//! messages need no code generator. Refuses: reading pprof.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::table::Table;
use crate::telemetry::{Line, Location, Mapping, Profile, Sample};

/// The profiles as a gzipped pprof file. Samples keep their process and thread as labels.
pub fn pprof(profiles: &[Profile]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&encode(profiles).encode_to_vec())?;
    encoder.finish()
}

fn encode(profiles: &[Profile]) -> proto::Profile {
    let mut builder = Builder::default();
    let mut samples = Vec::new();
    for profile in profiles {
        let period_ns = i64::try_from(profile.period_ns).unwrap_or(i64::MAX);
        samples.extend(
            profile
                .samples
                .iter()
                .map(|sample| builder.sample(sample, profile.subject.service_name(), period_ns)),
        );
    }
    let value_type = |builder: &mut Builder, name: &str, unit: &str| proto::ValueType {
        r#type: builder.string(name),
        unit: builder.string(unit),
    };
    let samples_type = value_type(&mut builder, "samples", "count");
    let cpu_type = value_type(&mut builder, "cpu", "nanoseconds");
    let period_ns = profiles.iter().map(|profile| profile.period_ns).max().unwrap_or(0);
    let start_ns = profiles.iter().map(|profile| profile.start_unix_ns).min().unwrap_or(0);
    let end_ns =
        profiles.iter().map(|profile| profile.start_unix_ns + profile.duration_ns).max().unwrap_or(0);
    proto::Profile {
        sample_type: vec![samples_type, cpu_type.clone()],
        sample: samples,
        mapping: without_zero(builder.mappings),
        location: without_zero(builder.locations),
        function: without_zero(builder.functions),
        string_table: builder.strings.into_entries(),
        time_nanos: start_ns as i64,
        duration_nanos: end_ns.saturating_sub(start_ns) as i64,
        period_type: Some(cpu_type),
        period: period_ns as i64,
    }
}

/// Ids start at 1 in pprof: the zero value of each table is not written.
fn without_zero<K: Eq + std::hash::Hash, V>(table: Table<K, V>) -> Vec<V> {
    table.into_entries().into_iter().skip(1).collect()
}

struct Builder {
    strings: Table<String, String>,
    mappings: Table<Arc<Mapping>, proto::Mapping>,
    functions: Table<(i64, i64), proto::Function>,
    locations: Table<*const Location, proto::Location>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            strings: Table::of_strings(),
            mappings: Table::new(proto::Mapping::default()),
            functions: Table::new(proto::Function::default()),
            locations: Table::new(proto::Location::default()),
        }
    }
}

impl Builder {
    fn sample(&mut self, sample: &Sample, service_name: &str, period_ns: i64) -> proto::Sample {
        let count = i64::try_from(sample.count).unwrap_or(i64::MAX);
        let label = vec![
            self.text_label("service", service_name),
            self.text_label("process", &sample.process.executable_name),
            self.text_label("thread", &sample.thread_name),
            proto::Label {
                key: self.string("pid"),
                num: i64::from(sample.process.pid),
                ..proto::Label::default()
            },
        ];
        proto::Sample {
            location_id: sample.stack.iter().map(|location| self.location(location)).collect(),
            value: vec![count, count.saturating_mul(period_ns)],
            label,
        }
    }

    fn location(&mut self, location: &Arc<Location>) -> u64 {
        if let Some(id) = self.locations.get(&Arc::as_ptr(location)) {
            return id as u64;
        }
        let mapping_id = location.mapping.as_ref().map_or(0, |mapping| self.mapping(mapping));
        let line = location.lines.iter().map(|line| self.line(line)).collect();
        let next = self.locations.len() as u64;
        let id = self.locations.index(Arc::as_ptr(location), || proto::Location {
            id: next,
            mapping_id,
            address: location.address,
            line,
        });
        id as u64
    }

    fn mapping(&mut self, mapping: &Arc<Mapping>) -> u64 {
        let filename = self.string(&mapping.path);
        let build_id = mapping.build_id.as_ref().map_or(0, |build_id| self.string(build_id));
        let next = self.mappings.len() as u64;
        self.mappings.index(Arc::clone(mapping), || proto::Mapping {
            id: next,
            memory_limit: u64::MAX,
            filename,
            build_id,
            has_functions: true,
            ..proto::Mapping::default()
        }) as u64
    }

    fn line(&mut self, line: &Line) -> proto::Line {
        let name = self.string(&line.function);
        let filename = line.file.as_ref().map_or(0, |file| self.string(file));
        let next = self.functions.len() as u64;
        let function_id =
            self.functions.index((name, filename), || proto::Function { id: next, name, filename });
        proto::Line { function_id: function_id as u64, line: i64::from(line.line) }
    }

    fn text_label(&mut self, key: &str, text: &str) -> proto::Label {
        proto::Label { key: self.string(key), str: self.string(text), num: 0 }
    }

    fn string(&mut self, text: &str) -> i64 {
        i64::from(self.strings.string(text))
    }
}

/// `profile.proto`, the fields that are written.
mod proto {
    /// `perftools.profiles.Profile`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
    }

    /// `perftools.profiles.ValueType`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub r#type: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }

    /// `perftools.profiles.Sample`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub label: Vec<Label>,
    }

    /// `perftools.profiles.Label`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(int64, tag = "1")]
        pub key: i64,
        #[prost(int64, tag = "2")]
        pub str: i64,
        #[prost(int64, tag = "3")]
        pub num: i64,
    }

    /// `perftools.profiles.Mapping`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
    }

    /// `perftools.profiles.Location`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
    }

    /// `perftools.profiles.Line`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
    }

    /// `perftools.profiles.Function`
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        // No system name (3): readers would take it for a mangled name and demangle it again.
        #[prost(int64, tag = "4")]
        pub filename: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn ids_lead_to_the_names() {
        let profile = encode(&fixture::profiles());
        let text = |index: i64| profile.string_table[index as usize].as_str();
        let mut stacks = Vec::new();
        for sample in &profile.sample {
            let names: Vec<&str> = sample
                .location_id
                .iter()
                .map(|id| profile.location.iter().find(|location| location.id == *id).expect("a location"))
                .flat_map(|location| &location.line)
                .map(|line| {
                    profile.function.iter().find(|function| function.id == line.function_id).expect("one")
                })
                .map(|function| text(function.name))
                .collect();
            stacks.push((names.join(","), vec![sample.value[1]]));
        }
        assert_eq!(stacks, fixture::expected_stacks_in_ns());
        assert_eq!(text(profile.sample_type[0].r#type), "samples");
        assert_eq!(profile.mapping.iter().map(|mapping| mapping.id).collect::<Vec<_>>(), [1, 2]);
    }
}
