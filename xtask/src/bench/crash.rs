//! What the records of crashes cost those who do not crash, and how soon and how completely deaths are told.
//!
//! Refuses: one verdict that hides the parts. Each part has a target and a verdict of its own; the figure is met when
//! all of them are.

use anyhow::Result;

use super::figures::Measured;
use super::interrupt;
use super::report::table;
use super::setup::Bench;

pub use programs::CrashPrograms;

mod programs;
mod records;

mod calls;
mod delay;
mod kernel_time;
mod signals;
mod spawns;
mod storm;

/// One part.
struct Part {
    title: &'static str,
    /// In one word, for the summary of the whole.
    name: &'static str,
    target: String,
    measured: Result<Measured>,
}

/// What all parts must reach, in short.
pub fn target() -> String {
    format!(
        "ratios >= {} and {}; record in {} ms; storm in {} MiB",
        spawns::TARGET_RATIO_MIN,
        signals::TARGET_RATIO_MIN,
        delay::TARGET_MS_MAX,
        storm::TARGET_MIB_MAX
    )
}

pub fn measure(bench: &Bench) -> Result<Measured> {
    type Measure = fn(&Bench) -> Result<Measured>;
    let none = || "none".to_owned();
    let measures: [(&'static str, &'static str, String, Measure); 6] = [
        ("Programs that start and end", "spawns", spawns::target(), spawns::measure),
        ("Handled signals", "signals", signals::target(), signals::measure),
        ("From death to record", "record", delay::target(), delay::measure),
        ("A storm of deaths", "storm", storm::target(), storm::measure),
        ("Kernel time of the crash programs", "kernel time", none(), kernel_time::measure),
        ("What a ring of the last system calls would cost", "calls", none(), calls::measure),
    ];
    let mut parts = Vec::new();
    for (title, name, target, measure) in measures {
        eprintln!("bench: crash: {name}");
        parts.push(Part { title, name, target, measured: measure(bench) });
        interrupt::check()?;
    }
    Ok(whole(&parts))
}

fn whole(parts: &[Part]) -> Measured {
    let summary = parts.iter().filter_map(|part| {
        let measured = part.measured.as_ref();
        (part.target != "none")
            .then(|| format!("{}: {}", part.name, measured.map_or("not measured", |m| m.summary.as_str())))
    });
    let rows: Vec<_> = parts.iter().map(Part::row).collect();
    let text = table(&["part", "target", "measured", "verdict"], &rows)
        + &parts.iter().map(Part::section).collect::<String>();
    Measured { summary: summary.collect::<Vec<_>>().join("; "), is_met: verdict(parts), text }
}

/// One part that missed is a miss; one that was not measured leaves the rest without a verdict.
fn verdict(parts: &[Part]) -> Option<bool> {
    let is_met = |wanted: bool| {
        move |part: &Part| part.measured.as_ref().is_ok_and(|measured| measured.is_met == Some(wanted))
    };
    if parts.iter().any(is_met(false)) {
        return Some(false);
    }
    parts.iter().filter(|part| part.target != "none").all(is_met(true)).then_some(true)
}

impl Part {
    fn row(&self) -> Vec<String> {
        let (measured, verdict) = match &self.measured {
            Ok(measured) => {
                let verdict = match measured.is_met {
                    Some(true) => "met",
                    Some(false) => "missed",
                    None => "-",
                };
                (measured.summary.clone(), verdict)
            }
            Err(error) => (format!("not measured: {error:#}"), "not measured"),
        };
        vec![self.title.to_owned(), self.target.clone(), measured, verdict.to_owned()]
    }

    fn section(&self) -> String {
        match &self.measured {
            Ok(measured) => format!("\n### {}\n\n{}", self.title, measured.text),
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(target: &str, is_met: Option<Option<bool>>) -> Part {
        let measured = is_met
            .map(|is_met| Measured { summary: "x".to_owned(), is_met, text: "text\n".to_owned() })
            .ok_or_else(|| anyhow::anyhow!("no such tool"));
        Part { title: "Title", name: "name", target: target.to_owned(), measured }
    }

    fn check(parts: &[Part], expected: Option<bool>, expected_summary: &str) {
        let whole = whole(parts);
        assert_eq!((whole.is_met, whole.summary.as_str()), (expected, expected_summary), "{}", whole.text);
    }

    #[test]
    fn the_whole_is_met_when_every_part_is() {
        let met = || part("1", Some(Some(true)));
        check(&[met(), part("none", Some(None)), part("none", None)], Some(true), "name: x");
        check(&[met(), part("1", Some(Some(false)))], Some(false), "name: x; name: x");
        check(&[met(), part("1", None)], None, "name: x; name: not measured");
    }

    #[test]
    fn what_was_not_measured_says_why_and_has_no_section() {
        let text = whole(&[part("1", None)]).text;
        assert!(text.ends_with("| Title | 1 | not measured: no such tool | not measured |\n"), "{text}");
    }
}
