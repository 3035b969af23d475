"""Decodes an OTLP ProfilesData file with the published Python package and checks what the format demands.

Prints JSON: a list of samples with service, container, process, thread, frames from the root, value and period.
Needs `pip install opentelemetry-proto` 1.45 or newer.
"""

import json
import sys

from opentelemetry.proto.profiles.v1development import profiles_pb2 as profiles

with open(sys.argv[1], "rb") as file:
    data = profiles.ProfilesData.FromString(file.read())

dictionary = data.dictionary
for name in ("mapping_table", "location_table", "function_table", "link_table", "attribute_table", "stack_table"):
    table = getattr(dictionary, name)
    # A table that nothing refers to may stay empty; else its first entry is the zero value.
    if table:
        zero = type(table[0])()
        assert table[0] == zero, f"{name}[0] is not the zero value: {table[0]}"
for name in ("mapping_table", "location_table", "function_table", "attribute_table", "stack_table"):
    assert len(getattr(dictionary, name)) > 1, f"{name} is empty"
assert dictionary.string_table[0] == "", "string_table[0] is not empty"
assert len(set(dictionary.string_table)) == len(dictionary.string_table), "string_table has duplicates"


def attribute_value(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def attributes(indices):
    pairs = {}
    for index in indices:
        assert index > 0, "an attribute index of 0 says nothing"
        entry = dictionary.attribute_table[index]
        pairs[dictionary.string_table[entry.key_strindex]] = attribute_value(entry.value)
    return pairs


def frames(location):
    entry = dictionary.location_table[location]
    names = []
    for line in entry.lines:
        function = dictionary.function_table[line.function_index]
        names.append(dictionary.string_table[function.name_strindex])
    return names


samples = []
for resource_profiles in data.resource_profiles:
    resource = {pair.key: attribute_value(pair.value) for pair in resource_profiles.resource.attributes}
    for scope_profiles in resource_profiles.scope_profiles:
        for profile in scope_profiles.profiles:
            assert len(profile.profile_id) in (0, 16), "profile_id is 16 bytes"
            assert profile.time_unix_nano > 0 and profile.duration_nano > 0
            assert dictionary.string_table[profile.sample_type.type_strindex] == "cpu"
            assert dictionary.string_table[profile.sample_type.unit_strindex] == "nanoseconds"
            for sample in profile.samples:
                found = attributes(sample.attribute_indices)
                stack = dictionary.stack_table[sample.stack_index]
                leaf_first = [name for index in stack.location_indices for name in frames(index)]
                assert len(sample.values) == 1
                samples.append({
                    "service": resource.get("service.name"),
                    "container": resource.get("container.id"),
                    "process": found["process.executable.name"],
                    "thread": found["thread.name"],
                    "frames": leaf_first[::-1],
                    "value": sample.values[0],
                    "period": profile.period,
                })
print(json.dumps(samples))
