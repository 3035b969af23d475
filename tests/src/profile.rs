//! One form for all profiles that come out: stacks with their owner, root first, from OTLP, pprof text and folded text.
//!
//! Reading OTLP is strict: an index outside its table, or a table whose entry 0 is not the zero value, fails the test.
//! Refuses: to normalize names. What the agent wrote is what is compared.

use std::collections::BTreeMap;
use std::fmt::Debug;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development as otlp;
use prost::Message;

/// Samples of one stack of one thread.
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// Attributes of the resource; empty where the format has none.
    pub resource: BTreeMap<String, String>,
    /// Name of the process.
    pub process: String,
    /// Id of the process; 0 where the format has none.
    pub pid: u32,
    /// Name of the thread; empty where the format has none.
    pub thread: String,
    /// Frames from the root to the leaf; an inlined function is a frame of its own.
    pub frames: Vec<Frame>,
    /// How many samples.
    pub count: u64,
    /// Ids of the trace and the span that these samples were in; empty for none, and where the format has none.
    pub span: (Vec<u8>, Vec<u8>),
}

/// A function on a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function, as it was written, without the `_[k]` of folded text.
    pub name: String,
    /// Whether it is the kernel's.
    pub is_kernel: bool,
    /// The file of the code; empty where the format or the code has none.
    pub module: String,
    /// The source file, if given.
    pub file: Option<String>,
    /// The line, if given, else 0.
    pub line: u64,
}

impl Stack {
    /// The innermost function.
    pub fn leaf(&self) -> &str {
        self.frames.last().map_or("", |frame| &frame.name)
    }

    /// Whether a function is on the stack.
    pub fn has(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.name == name)
    }

    /// An attribute of the resource.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.resource.get(key).map(String::as_str)
    }
}

/// Samples in total.
pub fn total<'s>(stacks: impl IntoIterator<Item = &'s Stack>) -> u64 {
    stacks.into_iter().map(|stack| stack.count).sum()
}

/// Stacks of one process.
pub fn of_process(stacks: &[Stack], process: &str) -> Vec<Stack> {
    stacks.iter().filter(|stack| stack.process == process).cloned().collect()
}

/// Samples whose innermost function has this name.
pub fn count_in(stacks: &[Stack], function: &str) -> u64 {
    total(stacks.iter().filter(|stack| stack.leaf() == function))
}

/// The innermost functions with their samples, most first.
pub fn leaves(stacks: &[Stack]) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for stack in stacks {
        *counts.entry(stack.leaf()).or_default() += stack.count;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// Fails unless a process has at least so many samples in which some frame satisfies the condition.
#[track_caller]
pub fn expect_frames(
    stacks: &[Stack],
    process: &str,
    count_min: u64,
    what: &str,
    is_wanted: impl Fn(&Frame) -> bool,
) {
    let own = of_process(stacks, process);
    let found = total(own.iter().filter(|stack| stack.frames.iter().any(&is_wanted)));
    assert!(
        found >= count_min,
        "{process}: {found} of {} samples with {what}, wanted {count_min}; innermost functions: {:?}",
        total(&own),
        leaves(&own).into_iter().take(15).collect::<Vec<_>>()
    );
}

/// Stacks of requests that a receiver took.
pub fn of_requests(requests: &[ExportProfilesServiceRequest]) -> Vec<Stack> {
    requests
        .iter()
        .flat_map(|request| {
            let dictionary = request.dictionary.as_ref().expect("a request has a dictionary");
            of_resources(&request.resource_profiles, dictionary)
        })
        .collect()
}

/// Stacks of an `.otlp` file.
pub fn of_otlp_file(bytes: &[u8]) -> Vec<Stack> {
    let data = otlp::ProfilesData::decode(bytes).expect("the file is a ProfilesData message");
    of_resources(&data.resource_profiles, data.dictionary.as_ref().expect("a file has a dictionary"))
}

/// The attributes of each `ResourceProfiles` of a request.
pub fn resources(request: &ExportProfilesServiceRequest) -> Vec<BTreeMap<String, String>> {
    request.resource_profiles.iter().map(resource).collect()
}

/// Stacks of folded text: `process;root;...;leaf count`.
pub fn of_folded(text: &str) -> Vec<Stack> {
    text.lines()
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no count in {line:?}"));
            let mut names = stack.split(';');
            let process = names.next().unwrap_or_default().to_owned();
            let frame = |name: &str| Frame {
                name: name.trim_end_matches("_[k]").to_owned(),
                is_kernel: name.ends_with("_[k]"),
                ..Frame::default()
            };
            let count = count.parse().unwrap_or_else(|_| panic!("no count in {line:?}"));
            Stack { process, frames: names.map(frame).collect(), count, ..Stack::default() }
        })
        .collect()
}

/// Stacks of what `go tool pprof -raw` prints.
pub fn of_pprof_text(text: &str) -> Vec<Stack> {
    let (head, locations) = text.split_once("\nLocations\n").expect("pprof prints locations");
    let (locations, mappings) = locations.split_once("\nMappings\n").expect("pprof prints mappings");
    let kernel_mappings = mappings.lines().filter(|line| line.contains(" [kernel]"));
    let kernel_mappings: Vec<String> = kernel_mappings
        .map(|line| format!("M={}", line.split(':').next().unwrap_or_default().trim()))
        .collect();
    let mut frames: BTreeMap<u64, Vec<Frame>> = BTreeMap::new();
    let mut current = 0;
    for line in locations.lines() {
        let mut rest = line.trim_start();
        let mut is_kernel =
            frames.get(&current).and_then(|frames| frames.first()).is_some_and(|f| f.is_kernel);
        if let Some((id, after)) = rest.split_once(": 0x") {
            current = id.trim().parse().unwrap_or_else(|_| panic!("no location id in {line:?}"));
            let (_, after) = after.split_once(' ').unwrap_or_default();
            let (mapping, after) = match after.split_once(' ') {
                Some((mapping, after)) if mapping.starts_with("M=") => (mapping, after),
                _ => ("", after),
            };
            is_kernel = kernel_mappings.iter().any(|kernel| kernel == mapping);
            rest = after;
        }
        frames.entry(current).or_default().push(pprof_line(rest, is_kernel));
    }
    let (_, samples) = head.split_once("\nSamples:\n").expect("pprof prints samples");
    let mut stacks: Vec<Stack> = Vec::new();
    // The first line names the values.
    for line in samples.lines().skip(1) {
        match line.split_once(": ") {
            Some((values, locations)) if !line.contains(":[") => {
                let count = values.split_whitespace().next().and_then(|count| count.parse().ok());
                let ids = locations.split_whitespace().map(|id| id.parse::<u64>().expect("an id"));
                let mut names: Vec<Frame> = ids.flat_map(|id| frames[&id].clone()).collect();
                names.reverse();
                let count = count.unwrap_or_else(|| panic!("no count in {line:?}"));
                stacks.push(Stack { frames: names, count, ..Stack::default() });
            }
            _ => {
                let Some(stack) = stacks.last_mut() else { continue };
                stack.process = label(line, "process").unwrap_or(std::mem::take(&mut stack.process));
                stack.thread = label(line, "thread").unwrap_or(std::mem::take(&mut stack.thread));
                stack.pid = label(line, "pid").and_then(|pid| pid.parse().ok()).unwrap_or(stack.pid);
            }
        }
    }
    stacks
}

/// `name file:line:column s=start(system name)`, as pprof prints a line of a location.
fn pprof_line(text: &str, is_kernel: bool) -> Frame {
    let text = text.rsplit_once(" s=").map_or(text, |(text, _)| text);
    let (name, place) = text.rsplit_once(' ').unwrap_or((text, ""));
    let mut parts = place.split(':');
    let file = parts.next().filter(|file| !file.is_empty()).map(str::to_owned);
    let line = parts.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    Frame { name: name.to_owned(), is_kernel, file, line, ..Frame::default() }
}

fn label(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("{key}:["))?;
    rest.split_once(']').map(|(value, _)| value.to_owned())
}

fn of_resources(resources: &[otlp::ResourceProfiles], dictionary: &otlp::ProfilesDictionary) -> Vec<Stack> {
    let reader = Reader::new(dictionary);
    let mut stacks = Vec::new();
    for resource_profiles in resources {
        let resource = resource(resource_profiles);
        let profiles = resource_profiles.scope_profiles.iter().flat_map(|scope| &scope.profiles);
        for profile in profiles {
            assert!(profile.period > 0, "a profile has a period");
            stacks
                .extend(profile.samples.iter().map(|sample| reader.stack(sample, profile.period, &resource)));
        }
    }
    stacks
}

fn resource(profiles: &otlp::ResourceProfiles) -> BTreeMap<String, String> {
    let attributes = &profiles.resource.as_ref().expect("every profile has a resource").attributes;
    attributes.iter().map(|pair| (pair.key.clone(), attribute_text(pair.value.as_ref()))).collect()
}

fn attribute_text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("an attribute is a text or a number, not {other:?}"),
    }
}

/// Follows the indices of a message.
struct Reader<'d> {
    dictionary: &'d otlp::ProfilesDictionary,
}

impl<'d> Reader<'d> {
    fn new(dictionary: &'d otlp::ProfilesDictionary) -> Self {
        expect_zero(&dictionary.string_table);
        expect_zero(&dictionary.attribute_table);
        expect_zero(&dictionary.mapping_table);
        expect_zero(&dictionary.function_table);
        expect_zero(&dictionary.location_table);
        expect_zero(&dictionary.stack_table);
        expect_zero(&dictionary.link_table);
        Self { dictionary }
    }

    fn stack(&self, sample: &otlp::Sample, period: i64, resource: &BTreeMap<String, String>) -> Stack {
        let attribute = |key: &str| {
            let value = sample.attribute_indices.iter().find_map(|&index| self.attribute(index, key));
            value.unwrap_or_else(|| panic!("a sample without {key}"))
        };
        let [value] = sample.values[..] else { panic!("one value, not {:?}", sample.values) };
        assert!(value > 0 && value % period == 0, "{value} ns are not a multiple of the period {period} ns");
        let stack = entry(&self.dictionary.stack_table, sample.stack_index);
        let mut frames: Vec<Frame> =
            stack.location_indices.iter().flat_map(|&index| self.frames(index)).collect();
        frames.reverse();
        let link = entry(&self.dictionary.link_table, sample.link_index);
        Stack {
            resource: resource.clone(),
            process: attribute("process.executable.name"),
            pid: attribute("process.pid").parse().expect("a process id"),
            thread: attribute("thread.name"),
            frames,
            count: (value / period).unsigned_abs(),
            span: (link.trace_id.clone(), link.span_id.clone()),
        }
    }

    /// The functions of a location, innermost first.
    fn frames(&self, index: i32) -> Vec<Frame> {
        let location = entry(&self.dictionary.location_table, index);
        let mapping = entry(&self.dictionary.mapping_table, location.mapping_index);
        let frame_type =
            location.attribute_indices.iter().find_map(|&index| self.attribute(index, "profile.frame.type"));
        let frame = |line: &otlp::Line| {
            let function = entry(&self.dictionary.function_table, line.function_index);
            Frame {
                name: self.string(function.name_strindex),
                is_kernel: frame_type.as_deref() == Some("kernel"),
                module: self.string(mapping.filename_strindex),
                file: Some(self.string(function.filename_strindex)).filter(|file| !file.is_empty()),
                line: line.line.unsigned_abs(),
            }
        };
        assert!(!location.lines.is_empty(), "a location without a function: {location:?}");
        location.lines.iter().map(frame).collect()
    }

    fn attribute(&self, index: i32, key: &str) -> Option<String> {
        let attribute = entry(&self.dictionary.attribute_table, index);
        (self.string(attribute.key_strindex) == key).then(|| attribute_text(attribute.value.as_ref()))
    }

    fn string(&self, index: i32) -> String {
        entry(&self.dictionary.string_table, index).clone()
    }
}

/// Entry 0 of each table is the zero value: <https://opentelemetry.io/docs/specs/otel/profiles/>.
fn expect_zero<T: Debug + Default + PartialEq>(table: &[T]) {
    assert_eq!(table.first(), Some(&T::default()), "entry 0 of a dictionary table");
}

fn entry<T: Debug>(table: &[T], index: i32) -> &T {
    let entry = usize::try_from(index).ok().and_then(|index| table.get(index));
    entry.unwrap_or_else(|| panic!("index {index} in a table of {}", table.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_text() {
        let stacks = of_folded("app;main;vfs_read_[k] 12\n");
        assert_eq!((stacks[0].process.as_str(), stacks[0].leaf(), stacks[0].count), ("app", "vfs_read", 12));
        assert!(stacks[0].frames[1].is_kernel && !stacks[0].frames[0].is_kernel);
    }

    #[test]
    fn pprof_text() {
        let text = "PeriodType: cpu nanoseconds\nSamples:\nsamples/count cpu/nanoseconds\n         \
                    12   120: 1 2 \n                process:[app] service:[app] thread:[app]\n                \
                    pid:[42]\nLocations\n     1: 0x10 M=1 inner /a.c:3:0 s=0\n             outer /a.c:9:0 s=0\n     \
                    2: 0x20 M=2 vfs_read :0:0 s=0\nMappings\n1: 0x0/0xff/0x0 /app  [FN]\n\
                    2: 0x0/0xff/0x0 [kernel]  [FN]\n";
        let stacks = of_pprof_text(text);
        let names: Vec<&str> = stacks[0].frames.iter().map(|frame| frame.name.as_str()).collect();
        assert_eq!(names, ["vfs_read", "outer", "inner"]);
        assert_eq!((stacks[0].process.as_str(), stacks[0].pid, stacks[0].count), ("app", 42, 12));
        assert_eq!((stacks[0].frames[2].file.as_deref(), stacks[0].frames[2].line), (Some("/a.c"), 3));
        assert!(stacks[0].frames[0].is_kernel && !stacks[0].frames[1].is_kernel);
    }
}
