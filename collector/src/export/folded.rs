//! Profiles -> folded stacks: `process;root;...;leaf count`, one line for each distinct stack.
//!
//! The format of flamegraph.pl's stackcollapse scripts; kernel functions end in `_[k]` as there. Refuses: what the
//! format has no place for (values other than counts, attributes).

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::telemetry::{FrameKind, Profile};

/// All samples as folded lines, sorted.
pub fn folded<P: Borrow<Profile>>(profiles: &[P]) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for sample in profiles.iter().flat_map(|profile| &profile.borrow().samples) {
        let mut line = clean(&sample.process.executable_name);
        for location in sample.stack.iter().rev() {
            let suffix = if location.kind == FrameKind::Kernel { "_[k]" } else { "" };
            for function in location.lines.iter().rev() {
                line.push(';');
                line.push_str(&clean(&function.function));
                line.push_str(suffix);
            }
        }
        *lines.entry(line).or_default() += sample.count;
    }
    lines.into_iter().map(|(line, count)| format!("{line} {count}\n")).collect()
}

/// Semicolons and line ends separate frames and stacks.
fn clean(name: &str) -> String {
    name.replace(';', ":").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn stacks_from_the_root() {
        assert_eq!(folded(&fixture::profiles()), "app;main;outer;inner 3\napp;main;vfs_read_[k] 2\n");
    }

    #[test]
    fn separators_in_names() {
        assert_eq!(clean("a;b\nc"), "a:b c");
    }
}
