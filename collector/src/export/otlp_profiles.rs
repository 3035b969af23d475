//! Profiles -> the OTLP profiles signal (`opentelemetry-proto` 1.10, `profiles/v1development`).
//!
//! One `ResourceProfiles` per subject, one dictionary per message with the zero value at index 0, values without
//! timestamps (one aggregated value per stack and request, which is the sample's link). Refuses: symbols or names of its own.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development as proto;

use super::SCOPE_NAME;
use super::resource::{HostResource, scope};
use super::table::Table;
use crate::telemetry::{FrameKind, Line, Location, Mapping, Profile, Sample, SpanContext};

/// The request for a backend.
pub fn profiles_request(profiles: &[Profile], host: &HostResource) -> ExportProfilesServiceRequest {
    let data = profiles_data(profiles, host);
    ExportProfilesServiceRequest { resource_profiles: data.resource_profiles, dictionary: data.dictionary }
}

/// The same data for a file.
pub fn profiles_data(profiles: &[Profile], host: &HostResource) -> proto::ProfilesData {
    let mut dictionary = Dictionary::default();
    let resource_profiles =
        profiles.iter().map(|profile| resource_profile(profile, host, &mut dictionary)).collect();
    proto::ProfilesData { resource_profiles, dictionary: Some(dictionary.finish()) }
}

fn resource_profile(
    profile: &Profile,
    host: &HostResource,
    dictionary: &mut Dictionary,
) -> proto::ResourceProfiles {
    let cpu_time = proto::ValueType {
        type_strindex: dictionary.strings.string("cpu"),
        unit_strindex: dictionary.strings.string("nanoseconds"),
    };
    let period_ns = i64::try_from(profile.period_ns).unwrap_or(i64::MAX);
    let samples = profile.samples.iter().map(|sample| dictionary.sample(sample, period_ns)).collect();
    let encoded = proto::Profile {
        sample_type: Some(cpu_time),
        samples,
        time_unix_nano: profile.start_unix_ns,
        duration_nano: profile.duration_ns,
        period_type: Some(cpu_time),
        period: period_ns,
        profile_id: fastrand::u128(1..).to_be_bytes().to_vec(),
        ..proto::Profile::default()
    };
    proto::ResourceProfiles {
        resource: Some(host.of(&profile.subject)),
        scope_profiles: vec![proto::ScopeProfiles {
            scope: Some(scope(SCOPE_NAME)),
            profiles: vec![encoded],
            ..proto::ScopeProfiles::default()
        }],
        ..proto::ResourceProfiles::default()
    }
}

/// The tables that all profiles of a message share.
struct Dictionary {
    strings: Table<String, String>,
    attributes: Table<(i32, AttributeValue), proto::KeyValueAndUnit>,
    mappings: Table<Arc<Mapping>, proto::Mapping>,
    functions: Table<(i32, i32), proto::Function>,
    /// Keyed by the place in memory: a location is shared by all stacks of a window that hold it.
    locations: Table<*const Location, proto::Location>,
    stacks: Table<Vec<i32>, proto::Stack>,
    links: Table<SpanContext, proto::Link>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum AttributeValue {
    Text(Arc<str>),
    Integer(i64),
}

impl Default for Dictionary {
    fn default() -> Self {
        Self {
            strings: Table::of_strings(),
            attributes: Table::new(proto::KeyValueAndUnit::default()),
            mappings: Table::new(proto::Mapping::default()),
            functions: Table::new(proto::Function::default()),
            locations: Table::new(proto::Location::default()),
            stacks: Table::new(proto::Stack::default()),
            links: Table::new(proto::Link::default()),
        }
    }
}

impl Dictionary {
    fn sample(&mut self, sample: &Sample, period_ns: i64) -> proto::Sample {
        let location_indices: Vec<i32> =
            sample.stack.iter().map(|location| self.location(location)).collect();
        let stack_index = match location_indices.as_slice() {
            [] => 0,
            _ => self.stacks.index(location_indices.clone(), || proto::Stack { location_indices }),
        };
        let process = &sample.process;
        let mut attribute_indices = vec![
            self.attribute("thread.name", AttributeValue::Text(Arc::clone(&sample.thread_name))),
            self.attribute("process.pid", AttributeValue::Integer(i64::from(process.pid))),
            self.attribute(
                "process.executable.name",
                AttributeValue::Text(Arc::clone(&process.executable_name)),
            ),
        ];
        if let Some(path) = &process.executable_path {
            attribute_indices
                .push(self.attribute("process.executable.path", AttributeValue::Text(Arc::clone(path))));
        }
        let count = i64::try_from(sample.count).unwrap_or(i64::MAX);
        let values = vec![count.saturating_mul(period_ns)];
        let link_index = sample.span.map_or(0, |span| self.link(span));
        proto::Sample { stack_index, attribute_indices, link_index, values, ..proto::Sample::default() }
    }

    fn link(&mut self, span: SpanContext) -> i32 {
        let SpanContext { trace_id, span_id } = span;
        self.links.index(span, || proto::Link { trace_id: trace_id.to_vec(), span_id: span_id.to_vec() })
    }

    fn location(&mut self, location: &Arc<Location>) -> i32 {
        if let Some(index) = self.locations.get(&Arc::as_ptr(location)) {
            return index;
        }
        let mapping_index = location.mapping.as_ref().map_or(0, |mapping| self.mapping(mapping));
        let lines = location.lines.iter().map(|line| self.line(line)).collect();
        let frame_type = match location.kind {
            FrameKind::Kernel => Some("kernel"),
            FrameKind::Native => Some("native"),
            FrameKind::Jit => None,
        };
        let frame_type = frame_type
            .map(|frame_type| self.attribute("profile.frame.type", AttributeValue::Text(frame_type.into())));
        self.locations.index(Arc::as_ptr(location), || proto::Location {
            mapping_index,
            address: location.address,
            lines,
            attribute_indices: frame_type.into_iter().collect(),
        })
    }

    fn mapping(&mut self, mapping: &Arc<Mapping>) -> i32 {
        let filename_strindex = self.strings.string(&mapping.path);
        let build_id = mapping.build_id.as_ref().map(|build_id| {
            self.attribute("process.executable.build_id.gnu", AttributeValue::Text(Arc::clone(build_id)))
        });
        // Addresses are offsets in the file, so the mapping starts at 0 and covers them all.
        self.mappings.index(Arc::clone(mapping), || proto::Mapping {
            memory_limit: u64::MAX,
            filename_strindex,
            attribute_indices: build_id.into_iter().collect(),
            ..proto::Mapping::default()
        })
    }

    fn line(&mut self, line: &Line) -> proto::Line {
        let name = self.strings.string(&line.function);
        let file = line.file.as_ref().map_or(0, |file| self.strings.string(file));
        let function_index = self.functions.index((name, file), || proto::Function {
            name_strindex: name,
            filename_strindex: file,
            ..proto::Function::default()
        });
        proto::Line { function_index, line: i64::from(line.line), column: 0 }
    }

    fn attribute(&mut self, key: &str, value: AttributeValue) -> i32 {
        let key_strindex = self.strings.string(key);
        self.attributes.index((key_strindex, value.clone()), || proto::KeyValueAndUnit {
            key_strindex,
            value: Some(AnyValue {
                value: Some(match value {
                    AttributeValue::Text(text) => Value::StringValue(text.to_string()),
                    AttributeValue::Integer(number) => Value::IntValue(number),
                }),
            }),
            unit_strindex: 0,
        })
    }

    fn finish(self) -> proto::ProfilesDictionary {
        proto::ProfilesDictionary {
            mapping_table: self.mappings.into_entries(),
            location_table: self.locations.into_entries(),
            function_table: self.functions.into_entries(),
            link_table: self.links.into_entries(),
            string_table: self.strings.into_entries(),
            attribute_table: self.attributes.into_entries(),
            stack_table: self.stacks.into_entries(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn dictionaries_start_with_zero_values_and_indices_hold() {
        let data = profiles_data(&fixture::profiles(), &HostResource::default());
        let dictionary = data.dictionary.expect("a dictionary");
        assert_eq!(dictionary.string_table[0], "");
        assert_eq!(dictionary.mapping_table[0], proto::Mapping::default());
        assert_eq!(dictionary.location_table[0], proto::Location::default());
        assert_eq!(dictionary.function_table[0], proto::Function::default());
        assert_eq!(dictionary.attribute_table[0], proto::KeyValueAndUnit::default());
        assert_eq!(dictionary.stack_table[0], proto::Stack::default());
        let link = proto::Link {
            trace_id: fixture::SPAN.trace_id.to_vec(),
            span_id: fixture::SPAN.span_id.to_vec(),
        };
        assert_eq!(dictionary.link_table, [proto::Link::default(), link]);

        let profile = &data.resource_profiles[0].scope_profiles[0].profiles[0];
        let mut folded = Vec::new();
        for sample in &profile.samples {
            let stack = &dictionary.stack_table[sample.stack_index as usize];
            let names: Vec<&str> = stack
                .location_indices
                .iter()
                .flat_map(|&index| &dictionary.location_table[index as usize].lines)
                .map(|line| &dictionary.function_table[line.function_index as usize])
                .map(|function| dictionary.string_table[function.name_strindex as usize].as_str())
                .collect();
            folded.push((names.join(","), sample.values.clone()));
            assert!(sample.timestamps_unix_nano.is_empty() && profile.period > 0);
        }
        assert_eq!(profile.samples.iter().map(|sample| sample.link_index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(folded, fixture::expected_stacks_in_ns());
    }
}
